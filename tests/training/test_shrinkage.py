"""A ridge that shrinks weights raises the loss, by any factor, and is no divergence; what grows is one all the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from choices import taking_turns
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from training_runs import train

from altmin_dask import runs
from altmin_dask.errors import RunError
from altmin_dask.storage.run import RunFolder

MU = 0.5
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "exact increments": ({"mu": "auto"}, {"schedule": "kfac", "averaging": 0.5}),
    "kfac": ({"mu": 1e4}, {"schedule": "kfac", "averaging": 0.5}),
    "batch": ({"mu": MU}, {"schedule": "batch"}),
    "windows": ({"mu": MU}, {"schedule": "windows"}),
}
X = np.random.default_rng(0).normal(size=(3, 4))


def problem(kind: str, n: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray]]:
    """Samples, targets far from zero, and a layer that fits them as well as can be without a ridge."""
    x = np.column_stack([X[:n], np.ones(n)])
    y = np.arange(n) % 3 if kind == "classifier" else 100 + np.random.default_rng(1).normal(size=(n, 2))
    aim = 8 * np.eye(3)[y] if kind == "classifier" else y
    return X[:n], y, (np.linalg.lstsq(x, aim, rcond=None)[0].T,)


def loss_of(kind: str, z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Σ ℓ and its gradient."""
    if kind == "classifier":
        return -float(log_softmax(z, axis=1)[np.arange(len(y)), y].sum()), softmax(z, axis=1) - np.eye(3)[y]
    return 0.5 * float(((z - y) ** 2).sum()), z - y


def minimum(
    kind: str, x: np.ndarray, y: np.ndarray, ridge: float, relaxed: bool, w: np.ndarray, *, fixed: bool
):
    """min of Σ ℓ + λ ‖W‖² (and Σ μ ‖r‖² over z, too) by L-BFGS, or with W `fixed`: convex, of one layer."""
    inputs = np.column_stack([x, np.ones(len(x))])
    start = inputs @ w.T

    def f(at):
        own = w if fixed else at[: w.size].reshape(w.shape)
        drive = inputs @ own.T
        z = at[-start.size :].reshape(start.shape) if relaxed else drive
        value, slope = loss_of(kind, z, y)
        pull = 2 * MU * (z - drive) if relaxed else -slope
        value += MU * ((z - drive) ** 2).sum() if relaxed else 0.0
        parts = [] if fixed else [(2 * ridge * own - pull.T @ inputs).ravel()]
        parts += [(slope + pull).ravel()] if relaxed else []
        return value + ridge * (own**2).sum(), np.concatenate(parts) if parts else np.zeros(0)

    free = ([] if fixed else [w.ravel() / (1 + ridge)]) + ([start.ravel()] if relaxed else [])
    if not free:
        return f(np.zeros(0))[0]
    found = minimize(
        f, np.concatenate(free), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-9}
    )
    return found.fun


@pytest.mark.slow
@pytest.mark.parametrize(("n", "ridge"), [(2, 1.0), (2, 1e3), (2, 1e6), (3, 1.0)])
@pytest.mark.parametrize(("form", "kind"), taking_turns(FORMS, ("regressor", "classifier")))
def test_shrinkage_ends_at_the_minimum(kind, form, n, ridge, make_store, pipeline, tmp_path):
    x, y, weights = problem(kind, n)
    solver, training = FORMS[form]
    network = {"kind": kind, "hidden_layer_sizes": ()} | ({"classes": 3} if kind == "classifier" else {})
    settings = pipeline(
        make_store(x, y).path,
        network=network,
        solver={**solver, "ridge": ridge, "cg_iterations": 10},
        training={**training, "max_sweeps": 40.0},
    )
    _, state, records = train(settings, tmp_path / "run", initial=weights)
    relaxed = solver["mu"] == MU  # 1e4 is the limit, to the digits that are asked for
    arguments = kind, x, y, ridge, relaxed
    best = minimum(*arguments, weights[0], fixed=False)
    first, last = (minimum(*arguments, w, fixed=True) for w in (weights[0], state.weights[0]))
    assert last - best < 1e-3 * (first - best)
    # what began at the best loss of all is left by a factor that would have been called divergence
    if kind == "regressor":
        assert records[-1].nested_loss > 10 * records[0].nested_loss


@pytest.mark.parametrize("penalty", ["l1", "multipliers"])
def test_other_penalties_may_shrink_too(penalty, make_store, pipeline, tmp_path):
    x, y, weights = problem("regressor", 2)
    solver = {"penalty": penalty, "ridge": 1.0, **({"mu": 1.0} if penalty == "l1" else {"mu": "auto"})}
    settings = pipeline(
        make_store(x, y).path,
        network={"kind": "regressor", "hidden_layer_sizes": ()},
        solver=solver,
        training={"schedule": "batch", "max_sweeps": 8.0},
    )
    records = train(settings, tmp_path / "run", initial=weights)[2]
    assert records[-1].nested_loss > 1 > 1e-6 > records[0].nested_loss


@pytest.mark.parametrize("ridge", [0.0, 0.01, 10.0])
def test_weights_that_grow_are_divergence(ridge, samples, make_store, pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "altmin_dask.solvers.ridge.RidgeSystem.solve", lambda self, cross, previous: 3 * previous
    )
    settings = pipeline(
        make_store(samples).path,
        network={"activation": "relu", "output_activation": "identity", "standardize": "none"},
        solver={"ridge": ridge},
        training={"schedule": "batch", "max_sweeps": 20.0},
    )
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=r"the nested loss diverged.*try a larger solver.mu"):
        runs.train(settings, run, log=lambda line: None)
    assert len(run.records()) < 6


@pytest.mark.parametrize(("mu", "named"), [("auto", "solver.proximal"), (5.0, "solver.mu")])
def test_divergence_names_settings_of_the_schedule(
    mu, named, samples, make_store, pipeline, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "altmin_dask.solvers.kfac.moved_by", lambda weights, *others: tuple(3 * w for w in weights)
    )
    monkeypatch.setattr("altmin_dask.solvers.kfac.KFACState.is_suspect", lambda self, *others: False)
    settings = pipeline(
        make_store(samples).path,
        network={"activation": "relu", "output_activation": "identity", "standardize": "none"},
        solver={"mu": mu},
        training={"schedule": "kfac", "max_sweeps": 100.0},
    )
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=f"the nested loss diverged.*try a larger {named}"):
        runs.train(settings, run, log=lambda line: None)


def test_a_resumed_run_knows_what_it_began_with(make_store, pipeline, tmp_path):
    """Cut after the first sweep, when the loss is far above the first, and the ridge far below."""
    x, y, weights = problem("regressor", 2)
    store, ends = make_store(x, y), []
    for folder, cuts in (("whole", (6.0,)), ("cut", (1.0, 2.0, 6.0))):
        for number, sweeps in enumerate(cuts):
            settings = pipeline(
                store.path,
                network={"kind": "regressor", "hidden_layer_sizes": ()},
                solver={"mu": MU, "ridge": 10.0},
                training={"schedule": "batch", "max_sweeps": sweeps},
            )
            options = {"resume": True} if number else {"initial": weights}
            _, state, _ = train(settings, tmp_path / folder, **options)
        ends.append(state)
    assert ends[0].marks == ends[1].marks
    np.testing.assert_array_equal(ends[0].weights[0], ends[1].weights[0])
