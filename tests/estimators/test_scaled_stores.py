"""Numbers of a store that was scaled when it was made are never taken for raw ones, nor raw ones for them, untold."""

from __future__ import annotations

import warnings

import dask.array as da
import numpy as np
import pytest
import zarr
from in_order import ingest

from altmin_dask import AltMinClassifier, AltMinRecurrentClassifier, StandardScaler
from altmin_dask.data.open import open_source
from altmin_dask.data.preprocessing import standardized
from altmin_dask.errors import AltMinWarning, DataError
from altmin_dask.estimators.scaled import Numbers

RNG = np.random.default_rng(0)
SHORT = {"max_sweeps": 3, "random_state": 0}
MADE = {"divided by 100": 100, "standardized": None}


def stored(folder, name, scale, shape=(80, 6)):
    """A store in the order of its rows, raw samples, and labels."""
    x = np.round(100 * RNG.random(shape))
    y = (x.reshape(len(x), -1)[:, 0] > 50).astype(np.int64)
    np.savez(folder / "raw.npz", x=x, y=y)
    source = open_source(folder / "raw.npz")
    made = ingest(standardized(source) if scale is None else source, folder / name, scale=scale or 1)
    return made.path, x, y


def arrays_of(path):
    """The samples of a store in every way that is not its name."""
    array = zarr.open_group(path, mode="r")["x"]
    yield array
    yield (lazy := da.from_array(array))
    yield da.concatenate([lazy[:30], lazy[30:]])
    yield da.concatenate([lazy.blocks[:1], lazy.blocks[1:]]) if lazy.numblocks[0] > 1 else lazy.blocks[:]
    yield da.from_zarr(path, component="x").rechunk((30, -1))
    yield da.from_zarr(f"{path}/x")
    yield f"{path}/x"


@pytest.mark.parametrize("words", MADE)
def test_arrays_of_a_store_are_read_as_the_store_is(tmp_path, words):
    """A model that prepares raw samples divided them once more: 0.1 right of the digits."""
    path, x, _ = stored(tmp_path, "s.zarr", MADE[words])
    model = AltMinClassifier(**SHORT).fit(path)
    expected = model.predict_proba(x)
    for array in arrays_of(path):
        np.testing.assert_allclose(np.asarray(model.predict_proba(array)), expected, rtol=1e-4)
    other, *_ = stored(tmp_path, "other.zarr", 7)
    for array in arrays_of(other):
        with pytest.raises(DataError, match="the store that X is of was prepared otherwise"):
            model.predict(array)


@pytest.mark.slow
@pytest.mark.parametrize("words", MADE)
def test_a_model_of_such_arrays_tells_that_it_prepares_nothing(tmp_path, words):
    path, x, y = stored(tmp_path, "s.zarr", MADE[words])
    for array in arrays_of(path):
        with pytest.warns(
            AltMinWarning, match=f"of a store that were {words} when it was made: the model reads such"
        ):
            model = AltMinClassifier(**SHORT).fit(array, y)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "X has", AltMinWarning)
            model.predict(array)
    raw = AltMinClassifier(**SHORT).fit(x, y)
    with pytest.warns(
        AltMinWarning, match=f"X has numbers of a store that were {words}, and the model was trained on raw"
    ):
        raw.predict(array)


def test_samples_of_several_stores_are_of_none(tmp_path):
    (one, x, _), (other, *_) = stored(tmp_path, "s.zarr", 100), stored(tmp_path, "other.zarr", 7)
    lazy = da.from_zarr(one, component="x")
    assert Numbers.of(da.concatenate([lazy, lazy])) == Numbers.of(lazy)
    assert Numbers.of(lazy) is not None
    for beside in (da.from_zarr(other, component="x"), da.from_array(x), da.zeros(x.shape)):
        assert Numbers.of(da.concatenate([lazy, beside])) is None


def test_what_was_computed_of_a_store_is_the_users_own(tmp_path):
    path, _, y = stored(tmp_path, "s.zarr", 100)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "X has", AltMinWarning)
        AltMinClassifier(**SHORT).fit(da.from_zarr(path, component="x") * 100, y)


def test_more_training_on_an_array_prepares_nothing_twice(tmp_path):
    path, x, y = stored(tmp_path, "s.zarr", 100)
    weights = []
    for X in (x, zarr.open_group(path, mode="r")["x"]):
        model = AltMinClassifier(warm_start=True, **SHORT).fit(path).fit(X, y)
        weights.append(model.coefs_[0])
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_sequences(tmp_path):
    path, x, _ = stored(tmp_path, "s.zarr", 100, (60, 4, 2))
    model = AltMinRecurrentClassifier(4, **SHORT).fit(path)
    array = zarr.open_group(path, mode="r")["x"]
    np.testing.assert_allclose(np.asarray(model.predict_proba(array)), model.predict_proba(x), rtol=1e-4)


def test_a_scaler_tells_of_numbers_that_were_scaled_otherwise(tmp_path):
    path, x, _ = stored(tmp_path, "s.zarr", 100)
    other, *_ = stored(tmp_path, "other.zarr", None)
    for X in (path, *arrays_of(path)):
        scaler = StandardScaler().fit(X)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "X has", AltMinWarning)
            scaler.transform(X)
        with pytest.warns(
            AltMinWarning, match="raw numbers, as far as is known, and StandardScaler was fitted to numb"
        ):
            scaler.transform(x)
        with pytest.warns(
            AltMinWarning, match="of a store that were standardized, .* that were divided by 100;"
        ):
            scaler.transform(other)
        with pytest.warns(AltMinWarning, match="fitted to raw numbers"):
            StandardScaler().fit(x).partial_fit(X)
