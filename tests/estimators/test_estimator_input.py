"""Samples that are not in memory: dask, zarr, paths and URLs, trained on and predicted for out of core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
import zarr
from choices import slow_but
from distributed import Client
from sklearn.pipeline import make_pipeline

from altmin_dask import AltMinAutoencoder, AltMinClassifier, AltMinRegressor, StandardScaler
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.data.source import array_source
from altmin_dask.errors import AltMinError, DataError
from altmin_dask.estimators.order import check_order

RNG = np.random.default_rng(5)
X = RNG.normal(size=(400, 6))
LABELS = (X[:, 0] * X[:, 1] > 0).astype(int) + (X[:, 2] > 1)
REAL = X[:, 0] - 2 * X[:, 3]


def classifier(**settings: Any) -> AltMinClassifier:
    return AltMinClassifier(8, **{"max_sweeps": 4, "random_state": 0, "workers": 1, **settings})


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    return classifier().fit(X, LABELS).predict_proba(X)


def frame(x: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(x, columns=[f"f{i}" for i in range(x.shape[1])])


def rows_of(store: str) -> np.ndarray:
    return zarr.open_group(store, mode="r")["row"][:]


def lazy_inputs(home: Path) -> dict[str, tuple[Any, Any]]:
    array = zarr.create_array(str(home / "x.zarr"), data=X, chunks=(70, 6))
    labels = zarr.create_array(str(home / "y.zarr"), data=LABELS, chunks=(90,))
    store = ingest(array_source(X, LABELS), home / "store.zarr", chunk_rows=400, dtype="float64")
    in_order = ingest(
        array_source(X, 1 - LABELS), home / "in_order.zarr", chunk_rows=90, shuffle=False, dtype="float64"
    )
    np.savez(home / "both.npz", x=X, y=LABELS)
    ddf = dd.from_pandas(frame(X), npartitions=3)
    return {
        "dask arrays": (da.from_array(X, chunks=(100, 4)), da.from_array(LABELS, chunks=130)),
        "dask and NumPy": (da.from_array(X, chunks=(150, 6)), LABELS),
        "dask frames": (ddf, dd.from_pandas(pd.Series(LABELS), npartitions=3)),
        "unknown chunks": (
            da.from_array(X, chunks=(100, 6))[da.from_array(np.ones(400, bool), chunks=100)],
            LABELS,
        ),
        "zarr arrays": (array, labels),
        "path of a zarr array": (home / "x.zarr", LABELS),
        "path of a store": (store.path, None),
        "path of a store, other labels": (Path(in_order.path), LABELS),
        "path of a file": (home / "both.npz", None),
    }


KINDS = [
    "dask arrays",
    "dask and NumPy",
    "dask frames",
    "unknown chunks",
    "zarr arrays",
    "path of a zarr array",
    "path of a store",
    "path of a store, other labels",
    "path of a file",
]
FEW = ["dask arrays", "dask frames", "zarr arrays", "path of a store, other labels", "path of a file"]


@pytest.mark.parametrize("kind", slow_but(FEW, KINDS))
def test_every_kind_of_input_trains_the_same_and_leaves_nothing(kind, wanted, tmp_path):
    x, y = lazy_inputs(tmp_path)[kind]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    fitted = classifier(temporary_folder=scratch).fit(x, y)
    same = frame(X) if kind == "dask frames" else X
    np.testing.assert_allclose(fitted.predict_proba(same), wanted, atol=1e-12)
    assert list(scratch.iterdir()) == []
    lazy = fitted.predict_proba(x)
    assert isinstance(lazy, da.Array)
    assert lazy.dtype == lazy._meta.dtype == np.float64
    rows = rows_of(x) if kind == "path of a store" else slice(None)
    np.testing.assert_allclose(lazy.compute(scheduler="sync"), wanted[rows], atol=1e-12)
    assert fitted.score(x, y) == pytest.approx((wanted.argmax(axis=1) == LABELS).mean())


@pytest.mark.parametrize("given", ["y", "sample_weight"])
def test_what_is_given_beside_a_shuffled_store_is_refused(given, tmp_path):
    store = ingest(array_source(X, LABELS), tmp_path / "s.zarr")
    with pytest.raises(DataError, match=f"were shuffled when it was made, and {given} is given beside it"):
        classifier().fit(store.path, **{given: LABELS})
    if given == "y":
        with pytest.raises(DataError, match="were shuffled when it was made, and y is given"):
            classifier().fit(store.path).score(store.path, LABELS)


def test_so_it_is_beside_an_array_of_a_shuffled_store(tmp_path):
    """Zarr's, dask's of it, and what is made of that row by row; targets that are in the store, too, are its own."""
    place = ingest(array_source(X, LABELS), tmp_path / "s.zarr", chunk_rows=100).path
    x, y = zarr.open_group(place, mode="r")["x"], zarr.open_array(f"{place}/y", mode="r")
    blocks, labels = da.from_zarr(place, component="x"), da.from_zarr(place, component="y")
    inline = da.from_array(x, chunks=(50, 6), inline_array=True)
    for lazy in (
        x,
        f"{place}/x",
        zarr.open_array(f"{place}/x", mode="r"),
        blocks,
        inline,
        blocks.rechunk(30) / 2,
    ):
        with pytest.raises(DataError, match="were shuffled when it was made, and y is given beside it"):
            check_order(lazy, LABELS, "y")
        for own in (None, y, labels, labels.rechunk(7)):
            check_order(lazy, own, "y")
    with pytest.raises(DataError, match="the store that X is made of were shuffled when it was made, and y"):
        classifier().fit(x, LABELS)
    other = zarr.create_array(str(tmp_path / "y.zarr"), data=LABELS, chunks=(90,))
    with pytest.raises(DataError, match="were shuffled when it was made, and y"):
        check_order(place, other, "y")
    in_order = np.argsort(zarr.open_array(f"{place}/row", mode="r")[:])
    check_order(blocks[in_order], LABELS, "y")
    kept = ingest(array_source(X, LABELS), tmp_path / "kept.zarr", chunk_rows=100, shuffle=False).path
    for lazy in (
        kept,
        zarr.open_group(kept)["x"],
        da.from_zarr(kept, component="x"),
        other,
        da.ones((400, 6)),
    ):
        check_order(lazy, LABELS, "y")


def test_a_failed_fit_leaves_nothing(tmp_path):
    bad = X.copy()
    bad[300, 2] = np.nan
    with pytest.raises(DataError, match="row 300"):
        classifier(temporary_folder=tmp_path).fit(da.from_array(bad, chunks=(100, 6)), LABELS)
    assert list(tmp_path.iterdir()) == []


def test_lazy_results_have_their_meta_and_chunks():
    x = da.from_array(X.astype(np.float32), chunks=(150, 3))
    names = np.array(["a", "b", "c"])[LABELS]
    fitted = classifier().fit(X, names)
    labels, probabilities = fitted.predict(x), fitted.predict_proba(x)
    assert (labels.chunks, labels.dtype, labels._meta.dtype) == (((150, 150, 100),), names.dtype, names.dtype)
    assert probabilities.chunks == ((150, 150, 100), (3,))
    assert (labels.compute() == fitted.predict(X.astype(np.float32))).all()

    autoencoder = AltMinAutoencoder(2, max_sweeps=2, random_state=0).fit(x)
    codes = autoencoder.transform(x)
    assert (codes.chunks, codes.dtype) == (((150, 150, 100), (2,)), np.float32)
    np.testing.assert_allclose(
        autoencoder.inverse_transform(codes).compute(),
        autoencoder.reconstruct(X.astype(np.float32)),
        rtol=1e-5,
    )
    assert autoencoder.score(x) == pytest.approx(autoencoder.score(X.astype(np.float32)), abs=1e-5)

    regressor = AltMinRegressor(4, max_sweeps=3, random_state=0).fit(x, REAL)
    assert regressor.predict(x).chunks == ((150, 150, 100),)
    assert regressor.score(x, REAL) == pytest.approx(regressor.score(X.astype(np.float32), REAL), abs=1e-5)


def test_nothing_is_computed_until_it_is_asked_for():
    fitted = classifier().fit(X, LABELS)
    computed = []

    def block(values):
        computed.append(len(values))
        return values

    x = da.from_array(X, chunks=(100, 6)).map_blocks(block, dtype=X.dtype, meta=np.empty((0, 0)))
    lazy = fitted.predict(x)
    assert computed == []
    assert lazy[:50].compute(scheduler="sync").shape == (50,)
    assert computed == [100]


def test_blocks_with_nan_are_refused_when_they_are_computed():
    fitted = classifier().fit(X, LABELS)
    lazy = fitted.predict(da.from_array(np.full((10, 6), np.nan), chunks=5))
    with pytest.raises(DataError, match="NaN or infinity"):
        lazy.compute(scheduler="sync")


def test_names_of_a_dask_frame_are_checked():
    ddf = dd.from_pandas(frame(X), npartitions=2)
    fitted = classifier().fit(ddf, LABELS)
    assert fitted.feature_names_in_.tolist() == [f"f{i}" for i in range(6)]
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(ddf[[f"f{i}" for i in reversed(range(6))]])


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (da.zeros((10, 3)), np.zeros(9), "belong together"),
        (da.zeros(10), np.zeros(10), "Expected 2D"),
        (da.zeros((10, 3), dtype=complex), np.zeros(10), "complex"),
        (da.zeros((10, 3)), None, "requires y to be passed"),
        ("nowhere.zarr", None, "check the path"),
        (da.zeros((10, 3)), "y.npy", "y is a path"),
    ],
)
def test_lazy_samples_that_cannot_be_used(x, y, words):
    with pytest.raises((AltMinError, ValueError), match=words):
        classifier().fit(x, y)


def test_held_out_rows_of_a_dask_array_are_computed_once(wanted):
    counted = []

    def block(values):
        counted.append(len(values))
        return values

    x = da.from_array(X, chunks=(100, 6)).map_blocks(block, dtype=X.dtype, meta=np.empty((0, 0)))
    with dask.config.set(scheduler="sync"):
        fitted = classifier(early_stopping=True).fit(x, LABELS)
    assert sum(counted) == 400
    assert fitted.best_validation_score_ is not None
    again = classifier(early_stopping=True).fit(X, LABELS)
    assert fitted.best_loss_ == pytest.approx(again.best_loss_)


def tasks_of(client: Client) -> set[str]:
    """Keys of what a cluster has done since it was last asked."""

    def told(dask_scheduler: Any) -> set[str]:
        log = dask_scheduler.transition_log
        keys = {str(entry[0]) for entry in log if entry[2] == "processing"}
        dask_scheduler.transition_log.clear()
        return keys

    return {key for key in client.run_on_scheduler(told) if "altmin" in key}


@pytest.mark.slow
def test_the_active_client_is_used(cluster_address, wanted, tmp_path):
    with Client(cluster_address) as client:
        tasks_of(client)
        fitted = classifier(temporary_folder=tmp_path, scheduler="cluster").fit(X, LABELS)
        assert tasks_of(client)
        np.testing.assert_allclose(fitted.predict_proba(X), wanted, atol=1e-12)
        lazy = fitted.predict_proba(da.from_array(X, chunks=(100, 6)))
        np.testing.assert_allclose(lazy.compute(), wanted, atol=1e-12)
        assert tasks_of(client)
        assert list(tmp_path.iterdir()) == []
        classifier(scheduler="threads").fit(X, LABELS)
        assert not tasks_of(client)
        np.testing.assert_array_equal(fitted.predict(X), wanted.argmax(axis=1))
        assert not tasks_of(client)


@pytest.mark.slow
def test_a_fit_within_a_task_does_not_wait_for_the_cluster(cluster_address, wanted):
    with Client(cluster_address) as client:
        fitted = client.submit(lambda: classifier().fit(X, LABELS)).result(timeout=60)
    np.testing.assert_allclose(fitted.predict_proba(X), wanted, atol=1e-12)


@pytest.mark.slow
def test_store_at_a_url(bucket, wanted):
    store = ingest(array_source(X, LABELS), f"{bucket}/samples.zarr", chunk_rows=400, dtype="float64")
    fitted = classifier().fit(store.path)
    rows = rows_of(store.path)
    found = fitted.predict_proba(store.path).compute(scheduler="sync")
    np.testing.assert_allclose(found, wanted[rows], atol=1e-12)


def test_scaler_in_front_of_lazy_samples():
    raw = 100 + 20 * X
    pipeline = make_pipeline(StandardScaler(), classifier())
    lazy = pipeline.fit(da.from_array(raw, chunks=(130, 2)), LABELS).predict_proba(
        da.from_array(raw, chunks=(90, 6))
    )
    eager = make_pipeline(StandardScaler(), classifier()).fit(raw, LABELS).predict_proba(raw)
    assert isinstance(lazy, da.Array)
    np.testing.assert_allclose(lazy.compute(), eager, atol=1e-6)
    scaler = pipeline[0]
    back = scaler.inverse_transform(scaler.transform(da.from_array(raw, chunks=(130, 2))))
    np.testing.assert_allclose(back.compute(), raw)
    named = StandardScaler().fit(dd.from_pandas(frame(raw), npartitions=2))
    assert named.feature_names_in_.tolist() == [f"f{i}" for i in range(6)]
    assert named.transform(dd.from_pandas(frame(raw), npartitions=2)).compute().mean() == pytest.approx(
        0, abs=1e-6
    )


def test_many_classes_are_no_numbers_unless_each_is_there_once():
    """scikit-learn warns of more classes than half of the samples, and here they were counted among themselves."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 4))
    classifier(max_sweeps=1).fit(x, np.arange(600) % 50)  # warnings are errors
    with pytest.warns(UserWarning, match="greater than 50% of the number of samples"):
        classifier(max_sweeps=1).fit(x[:100], np.arange(100) % 60)


@pytest.mark.slow
def test_classes_of_a_table_keep_their_names(tmp_path):
    colours = np.array(["blue", "green", "red"])[LABELS]
    frame(X).assign(y=colours).to_csv(tmp_path / "t.csv", index=False)
    settings = {"class_weight": {"blue": 2.0}, "early_stopping": True}
    for x in (tmp_path / "t.csv", ingest(open_source(tmp_path / "t.csv"), tmp_path / "t.zarr").path):
        for more in ({}, settings):
            fitted = classifier(**more).fit(x)
            assert fitted.classes_.tolist() == ["blue", "green", "red"]
            assert fitted.score(X, colours) > 0.4
    assert fitted.score(tmp_path / "t.zarr") == pytest.approx(fitted.score(X, colours))
    assert set(fitted.predict(tmp_path / "t.zarr").compute()) <= set(colours)
