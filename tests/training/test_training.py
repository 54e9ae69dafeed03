"""The engine on real stores: invariants of training that must hold whatever runs it, and wherever it is cut."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from choices import slow_but
from training_runs import objective_by_hand, sums_on_disk, train

from altmin_dask.errors import ConfigError, ExistsError, MissingError, RunError, SchedulerError
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.builders import dense_network
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore

SCHEDULES = {
    "batch": {"schedule": "batch"},
    "incremental": {"schedule": "incremental"},
    "incremental, two chunks a group": {"schedule": "incremental", "group_chunks": 2},
    "windows": {"schedule": "windows", "first_window": 2, "window_passes": 2},
}


@pytest.mark.parametrize("schedule", slow_but(["incremental"], SCHEDULES))
@pytest.mark.parametrize("kind", slow_but(["classifier"], ["autoencoder", "classifier", "regressor"]))
def test_objective_never_rises(schedule, kind, samples, make_store, pipeline, tmp_path):
    """After every single group, F computed from z on disk has not risen, and is the one in the history."""
    y = {
        "autoencoder": None,
        "classifier": (samples[:, 0] > 0.3).astype(int) + (samples[:, 1] > 0.4),
        "regressor": samples[:, :2] * 3,
    }[kind]
    store = make_store(samples, y)
    first: dict[int, float] = {}
    previous: dict[int, float] = {}
    groups: list[list[int]] = []
    for step in range(1, 22):
        settings = pipeline(
            store.path,
            network={
                "kind": kind,
                "hidden_layer_sizes": (5, 4),
                "activation": ("tanh", "softplus"),
                "standardize": "none",  # samples on disk are those that z is of
            },
            training={**SCHEDULES[schedule], "max_sweeps": step * 32 / 200 - 1e-6},
        )
        if not groups:
            order = np.arange(7) if schedule == "batch" else np.random.default_rng([0, 1]).permutation(7)
            size = {"batch": 7}.get(schedule, settings.training.group_chunks or 1)
            groups = [order[i : i + size].tolist() for i in range(0, 7, size)]
        run, state, records = train(settings, tmp_path / "run", resume=step > 1)
        total, seen = sums_on_disk(run, state, store, groups, [0.1] * 3, 0.01)
        assert seen == records[-1].samples_in_sum
        if records[-1].relaxed_objective is not None:
            assert records[-1].relaxed_objective == pytest.approx(total / seen, rel=1e-9)
        if seen in previous:
            assert total <= previous[seen] * (1 + 1e-12)
        previous[seen] = total
        first.setdefault(seen, total)
    assert total < 0.9 * first[seen]


def weights_of(pipeline: Any, folder: Path, **options: Any) -> np.ndarray:
    return np.concatenate([w.ravel() for w in train(pipeline, folder, **options)[1].weights])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param("float32", 1e-5, marks=pytest.mark.slow), ("float64", 1e-10)]
)
def test_one_chunk_or_many_give_the_same_weights(dtype, tolerance, samples, make_store, pipeline, tmp_path):
    results = []
    for chunk_rows in (200, 64, 23):
        store = make_store(samples, chunk_rows=chunk_rows, dtype=dtype)
        settings = pipeline(store.path, network={"dtype": dtype}, training={"schedule": "batch"})
        results.append(weights_of(settings, tmp_path / str(chunk_rows)))
    for other in results[1:]:
        assert np.linalg.norm(other - results[0]) <= tolerance * np.linalg.norm(results[0])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["batch", "windows"])
def test_threads_and_cluster_give_the_same_weights(
    schedule, samples, make_store, pipeline, tmp_path, cluster_address
):
    """Threads, two worker processes, one worker with two threads: the same bits."""
    store = make_store(samples, dtype="float32")
    tables = {
        "network": {"dtype": "float32"},
        "training": {"schedule": schedule, "first_window": 2, "group_chunks": 2},
    }
    threads = weights_of(pipeline(store.path, **tables), tmp_path / "threads")
    one_thread = weights_of(pipeline(store.path, cluster={"workers": 1}, **tables), tmp_path / "one")
    cluster = weights_of(pipeline(store.path, **tables), tmp_path / "cluster", scheduler=cluster_address)
    local = {"kind": "local", "workers": 1, "threads_per_worker": 2, "dashboard": ":0"}
    own = weights_of(pipeline(store.path, cluster=local, **tables), tmp_path / "local")
    for other in (one_thread, cluster, own):
        assert np.array_equal(threads, other)


@pytest.mark.slow
def test_workers_may_run_in_another_folder(
    samples, make_store, pipeline, tmp_path, cluster_address, monkeypatch
):
    """A relative run folder is that of the client."""
    store = make_store(samples)
    monkeypatch.chdir(tmp_path)
    here = weights_of(pipeline(store.path), Path("threads"))
    assert np.array_equal(here, weights_of(pipeline(store.path), Path("cluster"), scheduler=cluster_address))


@pytest.mark.slow
def test_a_run_made_anew_in_the_same_place_is_another(samples, make_store, pipeline, tmp_path):
    """Nothing that a process remembers of the old one is used."""
    store = make_store(samples)
    expected = weights_of(pipeline(store.path, training={"seed": 1}), tmp_path / "other")
    weights_of(pipeline(store.path, network={"hidden_layer_sizes": (3,)}), tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    assert np.array_equal(expected, weights_of(pipeline(store.path, training={"seed": 1}), tmp_path / "run"))


@pytest.mark.slow
def test_resuming_equals_no_interruption(samples, make_store, pipeline, tmp_path):
    """Bit for bit, the history included, wherever the run is cut."""
    store = make_store(samples)
    tables = {"training": {"schedule": "windows", "first_window": 2, "window_passes": 2}}
    whole = pipeline(store.path, **tables)
    _, expected, records = train(whole, tmp_path / "whole")
    for sweeps in (0.1, 0.9, 1.7):
        tables["training"]["max_sweeps"] = sweeps
        train(pipeline(store.path, **tables), tmp_path / "cut", resume=sweeps > 0.1)
    _, state, resumed = train(whole, tmp_path / "cut", resume=True)
    assert all(np.array_equal(a, b) for a, b in zip(expected.weights, state.weights, strict=True))
    assert np.array_equal(expected.algorithm_state.statistics.vector, state.algorithm_state.statistics.vector)
    pick = ("sweep", "relaxed_objective", "nested_loss")
    assert {tuple(getattr(r, k) for k in pick) for r in records} <= {
        tuple(getattr(r, k) for k in pick) for r in resumed
    }


def test_resuming_a_finished_run_adds_nothing(samples, make_store, pipeline, tmp_path):
    settings = pipeline(make_store(samples).path)
    records = train(settings, tmp_path / "run")[2]
    assert train(settings, tmp_path / "run", resume=True)[2] == records


def test_an_interrupted_step_changes_nothing(samples, make_store, pipeline, tmp_path, monkeypatch):
    """A run that dies between writing z and the commit, and after a record, resumes to the same bits."""
    store = make_store(samples)
    settings = pipeline(store.path)
    _, expected, records = train(settings, tmp_path / "whole")
    commits = 0
    commit = RunFolder.commit

    def dying(self: RunFolder, *state: Any) -> Path:
        nonlocal commits
        commits += 1
        if commits % 3 == 0:
            raise OSError("no space left on device")
        return commit(self, *state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "commit", dying)
        for attempt in range(50):
            try:
                train(settings, tmp_path / "cut", resume=attempt > 0 and (tmp_path / "cut").exists())
            except OSError:
                continue
            break
        else:
            pytest.fail("never finished")
    assert commits > 10
    run = RunFolder(tmp_path / "cut")
    state = restore(run)
    assert all(np.array_equal(a, b) for a, b in zip(expected.weights, state.weights, strict=True))
    assert [r["nested_loss"] for r in run.records()] == [r.nested_loss for r in records]


def test_training_never_writes_to_the_sample_store(samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    before = {p: p.stat().st_mtime_ns for p in Path(store.path).rglob("*")}
    train(pipeline(store.path), tmp_path / "run")
    assert {p: p.stat().st_mtime_ns for p in Path(store.path).rglob("*")} == before


def test_history_has_the_contract_keys(samples, make_store, pipeline, tmp_path):
    store = make_store(samples, np.arange(200) % 3)
    settings = pipeline(
        store.path, data={"validation": store.path}, network={"kind": "classifier", "activation": "relu"}
    )
    _, _, records = train(settings, tmp_path / "run")
    assert [r.sweep for r in records] == [0.0, 1.0, 2.0, 3.0]
    for record in records:
        for key in ("cpu_seconds", "wall_seconds", "nested_loss", "validation_loss", "nested_accuracy"):
            assert isinstance(getattr(record, key), float), key
        assert record.nested_loss == pytest.approx(record.validation_loss, rel=1e-12)
    assert records[0].relaxed_objective is None
    assert records[-1].cpu_seconds > records[1].cpu_seconds > 0


def test_limits_of_cpu_seconds(samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    settings = pipeline(store.path, training={"max_sweeps": 1e6, "max_cpu_seconds": 0.5})
    _, state, records = train(settings, tmp_path / "run")
    assert 0.5 <= state.cpu_seconds < 2.5
    assert records[-1].sweep == pytest.approx(state.visits / 200)


def test_mu_schedule_is_followed(samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    settings = pipeline(store.path, solver={"mu": {"start": 1.0, "factor": 0.5, "stop": 0.3}})
    _, _, records = train(settings, tmp_path / "run")
    assert [r.mu[0] for r in records] == [1.0, 1.0, 0.5, 0.3]


def test_exact_curvature_trains(samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    exact = train(pipeline(store.path, solver={"curvature": "exact"}), tmp_path / "exact")[2]
    assert exact[-1].relaxed_objective < exact[1].relaxed_objective


def test_run_folders_are_not_mixed_up(samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    with pytest.raises(MissingError, match="no run to resume"):
        train(pipeline(store.path), tmp_path / "run", resume=True)
    train(pipeline(store.path), tmp_path / "run")
    with pytest.raises(ExistsError, match="--resume"):
        train(pipeline(store.path), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another pipeline \(solver.mu: 0.1 there, 0.2 here\)"):
        train(pipeline(store.path, solver={"mu": 0.2}), tmp_path / "run", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ExistsError, match="not a run folder"):
        train(pipeline(store.path), tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["letter.txt"]


def test_a_refused_run_leaves_nothing(samples, make_store, pipeline, tmp_path):
    store = make_store(samples * 3)
    with pytest.raises(ValueError, match="only reaches"):
        train(pipeline(store.path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_unreachable_scheduler_is_named(samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    with pytest.raises(SchedulerError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 in 1 s"):
        train(
            pipeline(store.path, cluster={"connect_timeout": 1}),
            tmp_path / "run",
            scheduler="tcp://127.0.0.1:9",
        )
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_stop_the_run(samples, make_store, pipeline, tmp_path, monkeypatch):
    store = make_store(samples)
    monkeypatch.setattr(
        "altmin_dask.solvers.ridge.RidgeSystem.solve", lambda self, cross, previous: cross * np.nan
    )
    with pytest.raises(RunError, match="no longer finite"):
        train(pipeline(store.path), tmp_path / "run")
    assert np.isfinite(Model.load(tmp_path / "run" / "model").weights[0]).all()


def test_blas_limit_is_shared_and_restored():
    from threadpoolctl import threadpool_info

    def threads() -> list[int]:
        return [lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"]

    before = threads()
    with single_threaded_blas():
        with single_threaded_blas():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
    assert threads() == before


@pytest.mark.parametrize("schedule", ["batch", "incremental"])
def test_residuals_far_below_the_samples_are_not_rounding(schedule, make_store, pipeline, tmp_path):
    """Values of two millions, reconstructed to ones: Σ‖z‖² − 2⟨C, W̃⟩ + ⟨W̃G, W̃⟩ knows nothing of the residuals."""
    rng = np.random.default_rng(0)
    x = 2e6 * rng.normal(size=(90, 2)) @ rng.normal(size=(2, 3)) + rng.normal(size=(90, 3))
    store = make_store(x, chunk_rows=30, shuffle=False)
    basis = np.linalg.svd(x, full_matrices=False)[2][:2]
    start = (np.c_[basis / 1e6, np.zeros(2)], np.c_[1e6 * basis.T, np.zeros(3)])
    network: dict[str, Any] = {"hidden_layer_sizes": (2,), "activation": "identity"}
    network |= {"output_activation": "identity", "standardize": "none"}
    settings = pipeline(
        store.path,
        network=network,
        solver={"mu": 1e4, "ridge": 0.0},
        training={"schedule": schedule, "max_sweeps": 3.0, "n_iter_no_change": None},
    )
    run, state, records = train(settings, tmp_path / "run", initial=start)
    (generation,) = set(state.algorithm_state.generations)
    z = np.asarray(zarr.open_array(f"{run.latent}/{generation:06d}.zarr", mode="r")[:])
    kernel = dense_network([3, 2, 3], ["identity"], "squared", "identity")
    weights = [w.astype(np.longdouble) for w in state.weights]
    precise, z = x.astype(np.longdouble), z.astype(np.longdouble)
    expected = objective_by_hand(kernel, weights, [1e4] * 2, precise, precise, z) / 90
    assert expected < 10
    assert records[-1].relaxed_objective == pytest.approx(expected, rel=1e-6)
    from_sums = state.algorithm_state.statistics.objective(state.weights, (1e4, 1e4), 0.0)
    assert from_sums != pytest.approx(expected, rel=1e-5)
