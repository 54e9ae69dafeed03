"""Lazy samples of transformers: their columns are checked by name, and what comes back stays lazy."""

from __future__ import annotations

import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from dask import delayed
from sklearn import config_context
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler as Plain

from altmin_dask import AltMinAutoencoder, AltMinClassifier, StandardScaler, array_source, ingest
from altmin_dask.errors import DataError

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(RNG.normal(size=(90, 3)) * [1, 10, 100] + [0, 5, 50], columns=["a", "b", "c"])
LAZY = dd.from_pandas(FRAME, npartitions=3)


def test_the_scaler_checks_columns_by_name():
    """Swapped columns were scaled by each other's deviations, without a word."""
    scaler, wanted = StandardScaler().fit(LAZY), Plain().fit(FRAME)
    assert scaler.feature_names_in_.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(scaler.transform(LAZY).compute(), wanted.transform(FRAME))
    for other, words in (
        (LAZY[["b", "a", "c"]], "must be in the same order"),
        (LAZY.rename(columns={"a": "z"}), "unseen at fit time"),
        (LAZY[["a", "b"]], "seen at fit time, yet now missing"),
    ):
        with pytest.raises(ValueError, match=words):
            wanted.transform(other.compute())
        with pytest.raises(ValueError, match=words):
            scaler.transform(other)
    with pytest.raises(ValueError, match="expecting 3 features"):
        StandardScaler().fit(da.ones((9, 3))).transform(da.zeros((4, 2)))
    np.testing.assert_allclose(scaler.inverse_transform(scaler.transform(LAZY)).compute(), FRAME)
    labels = FRAME["a"] > 0
    pipeline = make_pipeline(StandardScaler(), AltMinClassifier(4, max_sweeps=15, random_state=0)).fit(
        LAZY, labels
    )
    assert pipeline.score(LAZY, labels) > 0.9
    with pytest.raises(ValueError, match="same order"):
        pipeline.predict(LAZY[["c", "b", "a"]])


def test_set_output_leaves_lazy_samples_lazy():
    scaler = StandardScaler().set_output(transform="pandas").fit(LAZY)
    frame = scaler.transform(LAZY)
    assert isinstance(frame, dd.DataFrame)
    assert frame.columns.tolist() == ["a", "b", "c"]
    pd.testing.assert_frame_equal(frame.compute().reset_index(drop=True), scaler.transform(FRAME))
    assert isinstance(StandardScaler().set_output(transform="pandas").fit_transform(LAZY), dd.DataFrame)
    assert isinstance(StandardScaler().fit_transform(LAZY), da.Array)
    encoder = AltMinAutoencoder(2, max_sweeps=1, random_state=0).fit(scaler.transform(FRAME))
    with config_context(transform_output="pandas"):
        codes = encoder.transform(frame)
        assert isinstance(codes, dd.DataFrame)
        assert codes.columns.tolist() == ["altminautoencoder0", "altminautoencoder1"]
    encoder.set_output(transform="pandas")
    np.testing.assert_allclose(codes.compute(), encoder.transform(scaler.transform(FRAME)), rtol=1e-9)
    assert isinstance(encoder.fit_transform(frame), dd.DataFrame)


def test_frames_keep_the_names_of_rows():
    """What is put beside the samples goes by them."""
    x = np.random.default_rng(0).normal(size=(60, 3))
    frame = pd.DataFrame(x, columns=list("abc"), index=np.arange(100, 160))
    lazy = dd.from_pandas(frame, npartitions=3)
    for kind in (StandardScaler(), AltMinAutoencoder(2, max_sweeps=1, random_state=0)):
        codes = kind.set_output(transform="pandas").fit(frame).transform(lazy)
        pd.testing.assert_frame_equal(codes.compute(), kind.transform(frame), check_exact=False)


def with_empty_parts(frame):
    parts = [frame.iloc[:0], frame.iloc[:50], frame.iloc[50:50], frame.iloc[50:]]
    return dd.from_delayed([delayed(part) for part in parts], meta=frame.iloc[:0])


def test_the_scaler_passes_over_empty_parts():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
    wanted, scaler = StandardScaler().fit(frame), StandardScaler().fit(with_empty_parts(frame))
    np.testing.assert_allclose(scaler.mean_, wanted.mean_, atol=1e-14)
    np.testing.assert_allclose(
        scaler.transform(with_empty_parts(frame)).compute(), wanted.transform(frame), atol=1e-14
    )
    with pytest.raises(ValueError, match="X has no samples"):
        StandardScaler().fit(dd.from_pandas(frame.iloc[:0], npartitions=1))


def test_a_scaler_is_as_before_until_it_is_fitted():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))

    def damaged(part):
        if len(part) and part.index[0] > 20:
            raise OSError("lost")
        return part * 5

    scaler = StandardScaler().fit(frame)
    before = scaler.transform(frame)
    lost = dd.from_pandas(frame, npartitions=3).map_partitions(damaged, meta=frame.iloc[:0])
    for fit in (scaler.fit, scaler.partial_fit):
        with pytest.raises(OSError, match="lost"):
            fit(lost)
        np.testing.assert_array_equal(scaler.transform(frame), before)


def test_a_scaler_goes_on_with_the_same_columns_only():
    """Block by block, as in memory."""
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
    first, rest = frame.iloc[:20], dd.from_pandas(frame.iloc[20:] + 3, npartitions=2)
    wanted = StandardScaler().fit(first).partial_fit(frame.iloc[20:] + 3)
    scaler = StandardScaler().fit(first).partial_fit(rest)
    np.testing.assert_allclose(scaler.scale_, wanted.scale_, rtol=1e-12)
    np.testing.assert_allclose(StandardScaler().partial_fit(rest).mean_, rest.mean().compute(), rtol=1e-12)
    with pytest.raises(ValueError, match="must be in the same order"):
        scaler.partial_fit(rest[["b", "a", "c"]])
    with pytest.raises(DataError, match="sample_weight needs samples in memory"):
        scaler.partial_fit(rest, sample_weight=np.ones(40))


@pytest.mark.parametrize(
    "kind", [StandardScaler(), AltMinAutoencoder(2, max_sweeps=1, random_state=0, workers=1)]
)
def test_targets_beside_a_shuffled_store_are_refused_behind_a_transformer(kind, tmp_path):
    """Which takes the store for rows without an order, so that each was trained on with the label of another."""
    labels, x = np.arange(90) % 2, FRAME.to_numpy() / [1, 10, 100]
    store = ingest(array_source(x, labels), tmp_path / "s.zarr", chunk_rows=30)
    pipeline = make_pipeline(kind, AltMinClassifier(2, max_sweeps=1, random_state=0, workers=1))
    with pytest.raises(DataError, match=r"s.zarr were shuffled when it was made, and y is given beside it"):
        pipeline.fit(store.path, labels)
    with pytest.raises(DataError, match="were shuffled when it was made, and y"):
        kind.partial_fit(store.path, labels)
    own = zarr.open_array(f"{store.path}/y", mode="r")
    pipeline.fit(store.path, own)
    assert np.isfinite(pipeline.score(store.path, own))
    with pytest.raises(DataError, match="the store that X is made of were shuffled"):  # fitted to whatever
        pipeline.score(store.path, labels)
    ordered = ingest(array_source(x), tmp_path / "o.zarr", chunk_rows=30, shuffle=False)
    assert pipeline.score(ordered.path, labels) == pipeline.score(x, labels)
