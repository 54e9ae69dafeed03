"""Runs with split penalties: the same bits wherever they run and however often they are cut, and constraints met."""

from __future__ import annotations

import numpy as np
import pytest
from choices import slow_but, taking_turns
from command import LABELS, Altmin, X, foreign, refused, write_pipeline
from sklearn.datasets import load_digits
from training_runs import train
from zoo import PAIRINGS

from altmin_dask.errors import RepairWarning
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import Visit
from altmin_dask.storage.latent import LatentStore
from altmin_dask.training.alternating import AlternatingMinimization
from altmin_dask.types import Batch

KINDS = tuple(name for name, kind in PENALTIES.items() if kind.per_sample_state)
"""Every registered penalty that is split."""
SCHEDULES = {
    "batch": {"schedule": "batch"},
    "incremental": {"schedule": "incremental", "group_chunks": 2},
    "windows": {"schedule": "windows", "first_window": 2, "window_passes": 2},
}


def same(first, second):
    """All that two runs are at their end, but for times."""
    ours, theirs = first.to_tensors(), second.to_tensors()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        assert np.array_equal(array, theirs[name]), name
    assert first.to_scalars()["algorithm"] == second.to_scalars()["algorithm"]


@pytest.mark.parametrize("schedule", slow_but(["incremental"], SCHEDULES))
@pytest.mark.parametrize("kind", slow_but(KINDS[-1:], KINDS))
def test_resuming_equals_no_interruption(kind, schedule, samples, make_store, pipeline, tmp_path):
    store = make_store(samples)

    def settings(sweeps):
        return pipeline(
            store.path, solver={"penalty": kind}, training={**SCHEDULES[schedule], "max_sweeps": sweeps}
        )

    _, whole, records = train(settings(5.0), tmp_path / "whole")
    for sweeps in (0.6, 2.3):
        train(settings(sweeps), tmp_path / "cut", resume=sweeps > 0.6)
    run, state, _ = train(settings(5.0), tmp_path / "cut", resume=True)
    same(whole, state)
    for chunk in range(store.n_chunks):
        group = next(i for i, chunks in enumerate(groups_of(settings(5.0), store)) if chunk in chunks)
        generation = int(state.algorithm_state.generations[group])
        z, other = (
            LatentStore(folder.latent, 200, 34, store.chunk_rows, "float64")
            .view(generation, (chunk,))
            .pieces[0]
            .read()
            for folder in (run, type(run)(tmp_path / "whole"))
        )
        assert np.array_equal(z, other)
    assert records[-1].relative_residuals is not None
    assert (records[-1].zero_residuals is None) != PENALTIES[kind].sparse
    assert state.algorithm_state.admm.balanced >= 3


def groups_of(settings, store):
    """Groups of chunks as training makes them."""
    order = np.arange(store.n_chunks)
    batch = settings.schedule == "batch"
    if not batch:
        order = np.random.default_rng([settings.training.seed, 1]).permutation(order)
    size = store.n_chunks if batch else settings.training.group_chunks or 1
    return [order[start : start + size] for start in range(0, len(order), size)]


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "kind"), taking_turns(SCHEDULES, KINDS))
def test_sums_are_those_of_what_is_remembered_wherever_rho_has_moved(
    kind, schedule, samples, make_store, pipeline, tmp_path, monkeypatch
):
    """In the middle of a pass, too, when some groups know of the new ρ and others do not."""
    store, found = make_store(samples), []
    settings = pipeline(
        store.path, solver={"penalty": kind, "mu": 0.5}, training={**SCHEDULES[schedule], "max_sweeps": 6.7}
    )
    step = AlternatingMinimization.step

    def checked(algorithm, action, cursor):
        visits = step(algorithm, action, cursor)
        state, algorithm.first_system = algorithm.state, None
        if isinstance(action, Visit) and state.admm.balanced > 1:
            algorithm.committed(algorithm.context.commit(state))
            own = state.statistics.vector.copy()
            algorithm._renew_statistics()
            found.append((len(np.unique(state.admm.held[:, 0], axis=0)), own, state.statistics.vector.copy()))
        return visits

    monkeypatch.setattr(AlternatingMinimization, "step", checked)
    train(settings, tmp_path / "run")
    assert schedule == "batch" or max(rhos for rhos, _, _ in found) > 1
    for _, own, anew in found:
        np.testing.assert_allclose(own, anew, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("target", "kind"), taking_turns([0.0, 1e3], KINDS))
@pytest.mark.filterwarnings("ignore:.*there is nothing to learn from that")
def test_samples_of_zeros_train(kind, target, make_store, pipeline, tmp_path):
    """At first every z is nought, and W moves all the same."""
    store = make_store(np.zeros((40, 3)), np.full((40, 2), target))
    settings = pipeline(
        store.path,
        network={"kind": "regressor", "activation": "identity"},
        solver={"penalty": kind},
        training={"schedule": "incremental", "max_sweeps": 4.0},
    )
    _, state, records = train(settings, tmp_path / "run")
    assert records[-1].nested_loss <= records[0].nested_loss
    assert target or records[-1].nested_loss == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(state.algorithm_state.admm.gap)
    assert all(
        np.isfinite(getattr(records[-1], name)).all() for name in ("residuals", "relative_residuals", "rho")
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_threads_and_cluster_give_the_same_bits(
    kind, samples, make_store, pipeline, tmp_path, cluster_address
):
    settings = pipeline(make_store(samples).path, solver={"penalty": kind}, training={"group_chunks": 2})
    _, threads, _ = train(settings, tmp_path / "threads")
    _, cluster, _ = train(settings, tmp_path / "cluster", scheduler=cluster_address)
    same(threads, cluster)


EVERY = [
    *(
        ("squared", "identity", name)
        for name in ("identity", "sigmoid", "tanh", "relu", "leaky_relu", "softplus")
    ),
    *((loss, output, "tanh") for loss, output in PAIRINGS if (loss, output) != ("squared", "identity")),
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("loss", "output", "activation"), EVERY, ids=["-".join(e) for e in EVERY])
def test_every_network_learns_and_comes_closer_to_its_constraints(
    kind, loss, output, activation, samples, make_store, pipeline, tmp_path
):
    classes = loss == "cross_entropy"
    store = make_store(
        samples,
        (samples[:, :3] - samples[:, :3].mean(axis=0)).argmax(axis=1) if classes else samples[:, :2],
        chunk_rows=100,
    )
    settings = pipeline(
        store.path,
        network={
            "kind": "classifier" if classes else "regressor",
            "activation": activation,
            "loss": loss,
            **({} if classes else {"output_activation": output}),
        },
        solver={"penalty": kind, "mu": 0.5},
        training={"max_sweeps": 30.0, "n_iter_no_change": None},
        cluster={"workers": 1},
    )
    records = train(settings, tmp_path / "run")[2]
    assert records[-1].nested_loss < records[0].nested_loss
    if PENALTIES[kind].exact:  # others leave residuals where they are worth their price
        early, late = (max(records[i].relative_residuals) for i in (3, -1))
        assert late < max(0.5 * early, 1e-3)


@pytest.mark.parametrize("kind", slow_but(KINDS[-1:], KINDS))
def test_a_lost_chunk_is_made_anew(kind, samples, make_store, pipeline, tmp_path):
    store = make_store(samples)
    tables = {"solver": {"penalty": kind}}
    run, state, records = train(pipeline(store.path, **tables), tmp_path / "run")
    groups = groups_of(pipeline(store.path, **tables), store)
    generation = int(state.algorithm_state.generations[[3 in group for group in groups].index(True)])
    latent = LatentStore(run.latent, 200, 34, store.chunk_rows, "float64", run.id)
    latent.discard(generation, (3,), whole=False)
    with pytest.warns(RepairWarning, match="made anew"):
        _, _, after = train(
            pipeline(store.path, **tables, training={"max_sweeps": 6.0}), tmp_path / "run", resume=True
        )
    assert after[-1].nested_loss < 1.1 * records[-1].nested_loss


@pytest.mark.slow
def test_a_run_ends_when_nothing_moves_any_more(samples, make_store, pipeline, tmp_path):
    settings = pipeline(
        make_store(samples).path,
        solver={"penalty": "multipliers", "residual_tol": 0.05, "ridge": 0.3},
        training={"max_sweeps": 200.0, "n_iter_no_change": None},
    )
    _, state, records = train(settings, tmp_path / "run")
    assert records[-1].sweep < 150
    assert state.algorithm_state.admm.gap < 0.05


@pytest.mark.parametrize("kind", slow_but(KINDS[-1:], KINDS))
def test_a_run_does_not_end_before_all_samples_have_entered(kind, samples, make_store, pipeline, tmp_path):
    settings = pipeline(
        make_store(samples).path,
        solver={"penalty": kind, "residual_tol": 1e9},
        training={"schedule": "windows", "first_window": 1, "window_passes": 2, "max_sweeps": 50.0},
    )
    _, state, records = train(settings, tmp_path / "run")
    assert records[-1].samples_in_sum == 200
    assert state.algorithm_state.admm.total.totals[0] == 200  # and have been visited
    assert records[-1].sweep < 10


@pytest.mark.slow
def test_met_constraints_are_not_stationarity(samples, make_store, pipeline, tmp_path):
    """A deep net whose residuals are small while its gradient is not: the run goes on until both are."""
    network = {"hidden_layer_sizes": (6, 5, 6), "activation": "tanh"}
    tolerance = 0.02

    def run(folder, **training):
        settings = pipeline(
            make_store(samples, shuffle=False).path,
            network=network,
            solver={"penalty": "multipliers", "residual_tol": tolerance, "ridge": 0.5},
            training={"schedule": "batch", "n_iter_no_change": None, "max_sweeps": 400.0, **training},
        )
        return train(settings, tmp_path / folder)

    _, state, records = run("run")
    admm = state.algorithm_state.admm
    assert records[-1].sweep < 399
    assert admm.gradient < tolerance * admm.first_gradient
    assert records[-1].gradient_norm == admm.gradient
    # by the whole network on the first chunk, and central differences of loss and ridge
    first = samples[:32]
    kernel = dense_network([12, 6, 5, 6, 12], ["tanh"] * 3, "squared", "sigmoid")

    def objective(weights):
        z = kernel.forward(weights, Batch(first))[-1]
        loss = kernel.loss.value(z, kernel.loss.predict(z), Targets(first)).mean()
        return loss + 0.5 / 200 * sum(float((w**2).sum()) for w in weights)

    _, begun, _ = run("begun", max_sweeps=0.1)
    found = gradient_of(objective, kernel.initial_weights(0, np.float64))
    assert begun.algorithm_state.admm.first_gradient == pytest.approx(np.linalg.norm(found), rel=1e-5)


def gradient_of(objective, weights, h=1e-6):
    """By central differences, flat."""
    found = []
    for layer, w in enumerate(weights):
        for index in np.ndindex(*w.shape):
            ends = []
            for sign in (h, -h):
                moved = [v.copy() for v in weights]
                moved[layer][index] += sign
                ends.append(objective(moved))
            found.append((ends[0] - ends[1]) / (2 * h))
    return np.array(found)


@pytest.mark.slow
def test_multipliers_make_the_relaxed_network_the_real_one(make_store, pipeline, tmp_path):
    """Digits 64-32-64: every residual below a thousandth, relaxed and nested loss equal within one per cent."""
    store = make_store(load_digits().data.astype("f4") / 16, chunk_rows=360, dtype="float32")
    settings = pipeline(
        store.path,
        network={"hidden_layer_sizes": (32,), "dtype": "float32"},
        solver={"penalty": "multipliers", "mu": 0.03, "ridge": 0.005},
        training={"max_sweeps": 80.0, "n_iter_no_change": None},
    )
    last = train(settings, tmp_path / "run")[2][-1]
    assert max(last.relative_residuals) < 1e-3
    assert last.relaxed_objective - last.ridge_term == pytest.approx(last.nested_loss, rel=0.01)


@pytest.mark.parametrize(
    ("solver", "training", "message"),
    [
        ({"penalty": "l1"}, {"schedule": "kfac"}, "keeps z"),
        ({"augmentation": 1.0}, {}, "augmentation is for penalty = 'l1'"),
        ({"penalty": "l1"}, {"max_staleness": 2}, "staleness is for K-FAC steps"),
    ],
)
def test_settings_that_do_not_go_together_are_named(solver, training, message, altmin: Altmin, tmp_path):
    foreign(tmp_path / "samples.zarr", X, LABELS)
    write_pipeline(tmp_path / "job.toml", "samples.zarr", solver=solver, training=training)
    refused(altmin("train", "job.toml"), message)


def test_multipliers_take_no_schedule_of_mu(altmin: Altmin, tmp_path):
    foreign(tmp_path / "samples.zarr", X, LABELS)
    write_pipeline(tmp_path / "job.toml", "samples.zarr", solver={"penalty": "multipliers"})
    moving = "solver.mu={start = 1.0, factor = 0.5, stop = 0.1}"
    refused(altmin("train", "job.toml", "--set", moving), "only what multipliers begin with")
