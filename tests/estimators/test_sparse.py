"""Sparse samples: the same as dense ones, and made dense a block of rows at a time."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import sparse

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor
from altmin_dask.errors import DataError

RNG = np.random.default_rng(0)
DENSE = RNG.random((300, 8)) * (RNG.random((300, 8)) < 0.3)
LABELS = np.where(DENSE[:, 0] > DENSE[:, 1], "a", "b")
REAL = DENSE @ np.arange(8.0)
QUICK: dict[str, Any] = {"hidden_layer_sizes": 4, "max_sweeps": 3, "random_state": 0}
KINDS = [
    sparse.csr_array,
    sparse.csc_matrix,
    *(
        pytest.param(kind, marks=pytest.mark.slow)
        for kind in (sparse.csc_array, sparse.csr_matrix, sparse.coo_array)
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_and_dense_samples_are_the_same(kind):
    x = kind(DENSE)
    fitted, wanted = AltMinClassifier(**QUICK).fit(x, LABELS), AltMinClassifier(**QUICK).fit(DENSE, LABELS)
    np.testing.assert_array_equal(fitted.model_.weights[0], wanted.model_.weights[0])
    np.testing.assert_allclose(fitted.predict_proba(x), wanted.predict_proba(DENSE), rtol=1e-12)
    assert fitted.score(x, LABELS) == wanted.score(DENSE, LABELS)


def test_the_other_estimators_and_streams():
    x = sparse.csr_array(DENSE)
    regressor = AltMinRegressor(**QUICK, early_stopping=True).fit(x, REAL, sample_weight=np.ones((300, 1)))
    assert regressor.score(x, REAL) == pytest.approx(regressor.score(DENSE, REAL))
    encoder = AltMinAutoencoder(**QUICK).fit(x)
    np.testing.assert_allclose(encoder.transform(x), encoder.transform(DENSE), rtol=1e-12)
    np.testing.assert_allclose(encoder.score(x), encoder.score(DENSE), rtol=1e-9)
    stream = (
        AltMinRegressor(4, random_state=0).partial_fit(x[:50], REAL[:50]).partial_fit(x[50:60], REAL[50:60])
    )
    assert stream._recent["x"].shape == (60, 8)
    with pytest.raises(ValueError, match="NaN"):
        regressor.predict(sparse.csr_array(np.full((2, 8), np.nan)))
    with pytest.raises(DataError, match="2\\^53"):
        regressor.predict(sparse.csr_array(np.full((2, 8), 2**60)))


@pytest.mark.slow
def test_no_more_than_a_block_is_ever_dense(monkeypatch):
    x, rows = sparse.random_array((20_000, 400), density=0.01, format="csc", random_state=0), []
    plain = sparse.csr_array.toarray

    def watched(self, *args, **kwargs):
        rows.append(self.shape[0])
        return plain(self, *args, **kwargs)

    for kind in (sparse.csr_array, sparse.csc_array):
        monkeypatch.setattr(kind, "toarray", watched)
    y = np.arange(20_000) % 2
    fitted = AltMinClassifier(2, max_sweeps=0.2, random_state=0).fit(x, y)
    fitted.predict(x)
    assert sum(rows) >= 40_000
    assert max(rows) <= 5000


@pytest.mark.parametrize("wanted", [(300, 1), (300,)])
def test_weights_may_be_a_column(wanted):
    w = RNG.random(300)
    column = AltMinRegressor(**QUICK).fit(DENSE, REAL, sample_weight=w.reshape(wanted))
    np.testing.assert_array_equal(
        column.predict(DENSE), AltMinRegressor(**QUICK).fit(DENSE, REAL, sample_weight=w).predict(DENSE)
    )


def test_weights_of_other_shapes_are_refused():
    import dask.array as da

    for w in (np.ones((300, 2)), da.ones((300, 2))):
        with pytest.raises(
            DataError, match=r"sample_weight has shape \(300, 2\); give one weight for each sample"
        ):
            AltMinRegressor(**QUICK).fit(da.from_array(DENSE, chunks=(100, 8)), REAL, sample_weight=w)
    with pytest.raises(DataError, match="one weight for each sample"):
        AltMinRegressor(**QUICK).fit(DENSE, REAL, sample_weight=np.ones((300, 2)))
    lazy = AltMinRegressor(**QUICK).fit(
        da.from_array(DENSE, chunks=(100, 8)), REAL, sample_weight=da.ones((300, 1))
    )
    assert lazy.n_outputs_ == 1


def test_dask_arrays_of_sparse_blocks():
    """As scikit-learn's vectorizers make them, a part at a time."""
    x = sparse.random(60, 5, 0.4, random_state=0, format="csr")
    y = np.asarray(x.sum(axis=1)).ravel() > 1
    lazy = da.from_array(x.toarray(), chunks=(20, 5))
    model = AltMinClassifier(3, max_sweeps=2, random_state=0)
    wanted = model.fit(lazy, y).predict_proba(x)
    np.testing.assert_array_equal(model.fit(lazy.map_blocks(sparse.csr_matrix), y).predict_proba(x), wanted)
