"""Evaluation and prediction out of core, against a dense forward pass; executors that clean up."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from command import refused, write_pipeline
from distributed import LocalCluster

from altmin_dask import inference
from altmin_dask.config import ClusterTable
from altmin_dask.data.find import find_store
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError, ExistsError, MissingError, SchedulerError
from altmin_dask.execution.cluster import Cluster
from altmin_dask.execution.connect import open_executor
from altmin_dask.execution.executor import Executor
from altmin_dask.execution.threads import Threads
from altmin_dask.inference import evaluate_store, predict_store
from altmin_dask.networks.builders import dense_network
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder

KINDS = {
    "autoencoder": ("squared", "sigmoid", 12),
    "classifier": ("cross_entropy", None, 3),
    "regressor": ("squared", None, 2),
}


def make_run(
    folder: Path, kind: str, features: int = 12, dtype: str = "float64", scale: float = 1.0
) -> RunFolder:
    loss, output, outputs = KINDS[kind]
    network = dense_network([features, 5, outputs], "tanh", loss, output)
    run = RunFolder(folder)
    Model(kind, network, network.initial_weights(5, dtype), (features,), scale).save(run.model)
    return run


def targets(kind: str, samples: np.ndarray) -> np.ndarray | None:
    labels = (samples[:, 0] > 0.3).astype(int) + (samples[:, 1] > 0.4)
    return {"autoencoder": None, "classifier": labels, "regressor": samples[:, :2] * 3}[kind]


def forward(run: RunFolder, x: np.ndarray) -> np.ndarray:
    """The network by hand."""
    model = Model.load(run.model)
    first, second = (w.astype(float) for w in model.weights)
    z = np.tanh(x @ first[:, :-1].T + first[:, -1]) @ second[:, :-1].T + second[:, -1]
    if model.kind == "autoencoder":
        return 1 / (1 + np.exp(-z))
    if model.kind == "classifier":
        exponentials = np.exp(z - z.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)
    return z


@pytest.fixture(params=["threads", "cluster"])
def executor(request: pytest.FixtureRequest) -> Any:
    address = request.getfixturevalue("cluster_address") if request.param == "cluster" else None
    with open_executor(ClusterTable(workers=2), address) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_a_dense_pass(kind, executor, samples, make_store, tmp_path):
    run, y = make_run(tmp_path / "run", kind), targets(kind, samples)
    store = make_store(samples, y, shuffle=False)
    expected = forward(run, samples)
    if kind == "classifier":
        loss = -np.log(expected[np.arange(200), y]).mean()
    else:
        loss = 0.5 * ((expected - (samples if y is None else y)) ** 2).sum(axis=1).mean()
    quality = evaluate_store(run, store, executor)
    assert quality.samples == 200
    assert quality.mean_loss == pytest.approx(loss, rel=1e-12)
    if kind == "classifier":
        assert quality.accuracy == np.mean(expected.argmax(axis=1) == y)

    written = predict_store(run, store, tmp_path / "p.zarr", executor)
    assert written == tmp_path / "p.zarr"
    group = zarr.open_group(written, mode="r")
    assert sorted(group.array_keys()) == (["label", "prediction"] if kind == "classifier" else ["prediction"])
    prediction = group["prediction"]
    assert isinstance(prediction, zarr.Array)
    assert prediction.chunks == (store.chunk_rows, expected.shape[1])
    assert prediction.dtype == np.float64
    np.testing.assert_allclose(prediction[:], expected, rtol=1e-12)
    if kind == "classifier":
        label = group["label"]
        assert isinstance(label, zarr.Array)
        assert (label.chunks, label.dtype) == ((store.chunk_rows,), np.int64)
        np.testing.assert_array_equal(label[:], expected.argmax(axis=1))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_every_chunk_is_written_even_one_of_zeros(samples, make_store, tmp_path):
    run = make_run(tmp_path / "run", "regressor")
    model = Model.load(run.model)
    Model(model.kind, model.network, tuple(w * 0 for w in model.weights), (12,)).save(run.model)
    written = predict_store(run, make_store(samples), tmp_path / "p.zarr", Threads(2))
    assert sum(path.is_file() for path in (written / "prediction" / "c").rglob("*")) == 7


def test_float32_models_predict_in_float32(samples, make_store, tmp_path):
    run = make_run(tmp_path / "run", "autoencoder", dtype="float32")
    written = predict_store(run, make_store(samples, shuffle=False), tmp_path / "p.zarr", Threads(1))
    prediction = zarr.open_array(f"{written}/prediction")
    assert prediction.dtype == np.float32
    np.testing.assert_allclose(prediction[:], forward(run, samples), rtol=1e-5)


def test_a_model_that_was_trained_on_is_not_remembered(executor, samples, make_store, tmp_path):
    """Worker processes live longer than a file of weights."""
    run, store = make_run(tmp_path / "run", "autoencoder"), make_store(samples)
    before = evaluate_store(run, store, executor).mean_loss
    model = Model.load(run.model)
    Model(model.kind, model.network, tuple(w * 0.5 for w in model.weights), (12,)).save(run.model)
    expected = 0.5 * ((forward(run, samples) - samples) ** 2).sum(axis=1).mean()
    after = evaluate_store(run, store, executor).mean_loss
    assert after == pytest.approx(expected, rel=1e-12)
    assert after != before


def test_relative_paths_reach_workers_elsewhere(samples, make_store, tmp_path, monkeypatch, cluster_address):
    make_run(tmp_path / "run", "autoencoder")
    store = make_store(samples)
    monkeypatch.chdir(tmp_path)
    with open_executor(ClusterTable(), cluster_address) as executor:
        assert evaluate_store(RunFolder(Path("run")), store, executor).samples == 200
        predict_store(RunFolder(Path("run")), store, "p.zarr", executor)
    assert zarr.open_array(tmp_path / "p.zarr" / "prediction").shape == (200, 12)


def test_raw_sources_are_scaled_and_stores_are_not(samples, make_store, tmp_path):
    np.savez(tmp_path / "raw.npz", x=samples * 255)
    raw = find_store(str(tmp_path / "raw.npz"), "source", tmp_path / "data", 255.0, None)
    np.testing.assert_allclose(raw.x[:], samples, rtol=1e-6)
    assert raw.attributes["scale"] == 255
    again = find_store(str(tmp_path / "raw.npz"), "source", tmp_path / "data", 255.0, None)
    assert again.path == raw.path == str(tmp_path / "data" / "source.zarr")
    store = make_store(samples)
    for spec in (store.path, f"file://{store.path}"):
        assert find_store(spec, "source", tmp_path / "other", 255.0, None).path == store.path
    assert not (tmp_path / "other").exists()


def test_foreign_stores_of_other_dtypes(samples, tmp_path, executor):
    """Bytes as samples and as labels, as another program would store them."""
    x, y = (samples * 200).astype(np.uint8), (samples[:, 0] > 0.3).astype(np.uint8)
    group = zarr.create_group(tmp_path / "s.zarr")
    group.create_array("x", data=x, chunks=(30, 12))
    group.create_array("y", data=y, chunks=(30,))
    run, store = make_run(tmp_path / "run", "classifier"), SampleStore.open(tmp_path / "s.zarr")
    expected = forward(run, x.astype(float))
    quality = evaluate_store(run, store, executor)
    assert quality.mean_loss == pytest.approx(-np.log(expected[np.arange(200), y]).mean(), rel=1e-9)
    assert quality.accuracy == np.mean(expected.argmax(axis=1) == y)
    for others in (y.astype(bool), y.astype(float)):
        group.create_array("y", data=others, chunks=(30,), overwrite=True)
        again = evaluate_store(run, SampleStore.open(tmp_path / "s.zarr"), executor)
        assert again.vector.tolist() == quality.vector.tolist()


def foreign(folder: Path, x: np.ndarray) -> SampleStore:
    zarr.create_group(folder).create_array("x", data=x, chunks=(10, x.shape[1]))
    return SampleStore.open(folder)


def test_what_does_not_fit(executor, samples, make_store, tmp_path):
    run = make_run(tmp_path / "run", "classifier")
    narrow = make_store(samples[:, :5], np.zeros(200, int))
    for call in (
        lambda: evaluate_store(run, narrow, executor),
        lambda: predict_store(run, narrow, "p.zarr", executor),
    ):
        with pytest.raises(DataError, match=r"samples of 5 values; the (network|model) reads 12"):
            call()
    with pytest.raises(DataError, match="no targets y"):
        evaluate_store(run, make_store(samples), executor)
    with pytest.raises(DataError, match="label 3; the network has 3 classes"):
        evaluate_store(run, make_store(samples, np.arange(200) % 4), executor)
    bad = samples.copy()
    bad[[199, 57, 101], 2] = np.nan
    with pytest.raises(DataError, match=r"row 57 of .* NaN or infinity in x"):
        evaluate_store(
            make_run(tmp_path / "auto", "autoencoder"), foreign(tmp_path / "bad.zarr", bad), executor
        )
    assert not Path("p.zarr").exists()


def test_a_predict_that_fails_leaves_nothing(executor, samples, tmp_path):
    """Even where other chunks are still being written, in threads or in other processes."""
    bad = samples.copy()
    bad[25] = np.inf
    run, store = make_run(tmp_path / "run", "autoencoder"), foreign(tmp_path / "bad.zarr", bad)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(DataError, match="row 25 of "):
        predict_store(run, store, tmp_path / "deep" / "p.zarr", executor)
    time.sleep(0.3)
    assert {*tmp_path.rglob("*")} == before


def test_an_interrupted_predict_waits_for_its_threads(samples, make_store, tmp_path, monkeypatch):
    run, store, write = (
        make_run(tmp_path / "run", "autoencoder"),
        make_store(samples),
        inference.RowBlock.write,
    )
    begun = threading.Event()

    def slow(self: Any, values: np.ndarray) -> None:
        if begun.is_set():
            time.sleep(0.5)
            write(self, values)
        else:
            begun.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(inference.RowBlock, "write", slow)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(KeyboardInterrupt):
        predict_store(run, store, tmp_path / "p.zarr", Threads(2))
    time.sleep(0.7)
    assert {*tmp_path.rglob("*")} == before


def test_existing_destinations(samples, make_store, tmp_path):
    run, store = make_run(tmp_path / "run", "autoencoder"), make_store(samples)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for name in ("folder", "dangling"):
        with pytest.raises(ExistsError, match="not a zarr store"):
            predict_store(run, store, tmp_path / name, Threads(1), overwrite=True)
    predict_store(run, store, tmp_path / "p.zarr", Threads(1))
    with pytest.raises(ExistsError, match="--overwrite"):
        predict_store(run, store, tmp_path / "p.zarr", Threads(1))
    half = make_store(samples[:100])
    predict_store(run, half, tmp_path / "p.zarr", Threads(1), overwrite=True)
    assert zarr.open_array(tmp_path / "p.zarr" / "prediction").shape == (100, 12)
    with pytest.raises(ExistsError, match="holds the samples"):
        predict_store(run, store, store.path, Threads(1), overwrite=True)


# --- executors


def test_workers_that_do_not_see_samples_or_the_destination_are_told_of(
    samples, make_store, cluster_address, tmp_path, monkeypatch
):
    """They are on this machine; that they are elsewhere is pretended."""
    hidden: list[str] = []
    run, store = make_run(tmp_path, "autoencoder"), make_store(samples)
    monkeypatch.setattr(Cluster, "run", lambda self, function, path: [("far", path not in hidden)])
    with open_executor(ClusterTable(), cluster_address) as executor:
        hidden[:] = [store.path]
        advice = (
            r"1 of 1 workers, at far, do not see .*; keep samples where .*DASK_TEMPORARY_DIRECTORY=FOLDER"
        )
        with pytest.raises(MissingError, match=advice):
            evaluate_store(run, store, executor)
        with pytest.raises(MissingError, match=advice):
            predict_store(run, store, tmp_path / "p.zarr", executor)
        hidden[:] = [str(tmp_path)]
        with pytest.raises(MissingError, match=r"do not see .*; write to a folder that all workers share"):
            predict_store(run, store, tmp_path / "p.zarr", executor)


@pytest.mark.slow
def test_a_scheduler_without_workers():
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster:
        address = cluster.scheduler_address
        with (
            pytest.raises(
                SchedulerError, match=r"no workers for 0\.1 s \(cluster.patience\); start one with `dask w"
            ),
            open_executor(ClusterTable(patience=0.1), address),
        ):
            pass


def test_threads_know_themselves():
    with open_executor(ClusterTable(workers=1)) as executor:
        assert executor.description == "1 thread of this process"
    everything: Executor
    with open_executor(ClusterTable()) as everything:
        assert "thread" in everything.description
        assert everything.cpu_seconds() > 0


def test_pictures_of_another_shape_are_refused(altmin, tmp_path):
    """Though they have as many numbers."""
    rng = np.random.default_rng(0)
    for name, shape in {"train": (8, 4), "other": (4, 8), "flat": (32,), "more": (8, 4, 1)}.items():
        np.savez(tmp_path / f"{name}.npz", x=rng.random((30, *shape)), y=np.arange(30) % 2)
    write_pipeline(tmp_path / "p.toml", "train.npz", "classifier", training={"schedule": "auto"})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    words = "samples of shape (4, 8), and those for training"
    refused(altmin("evaluate", "run", "other.npz"), words)
    refused(altmin("predict", "run", "other.npz", "out.csv"), words)
    for fine in ("flat", "more", "train"):
        assert altmin("evaluate", "run", f"{fine}.npz").code == 0
        assert altmin("predict", "run", f"{fine}.npz", f"{fine}.csv").code == 0
    with pytest.raises(DataError, match="samples of shape"):
        Model.load(tmp_path / "run").predict(rng.random((3, 4, 8)))
