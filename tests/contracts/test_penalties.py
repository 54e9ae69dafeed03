"""What every registered penalty promises: a new one is tested by its entry in `PENALTIES`."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from zoo import solve_layer

from altmin_dask.config import make_pipeline
from altmin_dask.errors import ConfigError
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.kernels import collect_chunk, enter_chunk, latent_width, sends_inputs, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.packing import split_layers
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.penalty import ADMMResiduals
from altmin_dask.training.algorithms import ALGORITHMS
from altmin_dask.types import Batch

SPLIT = {name: kind for name, kind in PENALTIES.items() if kind.per_sample_state}
FAR = NewtonSettings(newton_steps=2, cg_iterations=12)
every_penalty = pytest.mark.parametrize("kind", PENALTIES.values(), ids=PENALTIES)
every_split_penalty = pytest.mark.parametrize("kind", SPLIT.values(), ids=SPLIT)


def small():
    """A chain of two layers and twelve samples."""
    rng = np.random.default_rng(3)
    network = dense_network([4, 3, 2], ["tanh"], "squared", "identity")
    batch = Batch(rng.normal(size=(12, 4)), rng.normal(size=(12, 2)))
    return network, network.initial_weights(0, np.float64), batch


def visited(kind):
    """A penalty, what it was at the last visit, and z and s of `small` at some point."""
    penalty, previous = kind((0.3, 0.4), (0.1, 0.2)), kind((0.2, 0.8), (0.1, 0.3))
    latent = np.random.default_rng(1).normal(size=(12, latent_width(small()[0], kind)))
    return penalty, previous, latent


# what it says of itself


@every_penalty
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_enters_with_a_forward_pass_and_nothing_else(kind, dtype):
    network, weights, batch = small()
    weights = tuple(w.astype(dtype) for w in weights)
    penalty = kind((0.3, 0.4), (0.1, 0.2))
    latent, statistics = enter_chunk(network, weights, penalty, batch)
    assert latent.dtype == dtype
    assert latent.shape == (12, 5 * (1 + kind.per_sample_state))
    np.testing.assert_array_equal(latent[:, :5], np.concatenate(network.forward(weights, batch), axis=1))
    assert not latent[:, 5:].any()
    again = collect_chunk(network, weights, penalty, batch, latent)
    np.testing.assert_array_equal(again.vector, statistics.vector)


@every_penalty
def test_its_defaults_are_those_of_layers(kind):
    network, _, _ = small()
    mu = kind.default_mu(network)
    assert (np.array(mu) > 0).all()
    assert np.shape(mu) in ((), (2,))
    rho = kind.initial_rho(network, (0.7, 0.9), None)
    assert len(rho) == 2
    assert min(rho) > 0
    given = kind.initial_rho(network, (0.7, 0.9), 3.0)
    assert given == ((3.0, 3.0) if kind.augmented else rho)


@every_penalty
def test_it_travels(kind):
    penalty = kind((0.3, 0.4), (0.1, 0.2))
    assert pickle.loads(pickle.dumps(penalty)) == penalty
    assert penalty.mu == ((0.1, 0.2) if kind.augmented else penalty.rho)


@pytest.mark.parametrize("name", PENALTIES)
def test_settings_take_what_it_allows_and_no_more(name):
    kind = PENALTIES[name]

    def settings(training=None, **solver):
        tables = {"data": {"train": "digits"}, "network": {"kind": "autoencoder"}}
        return make_pipeline({**tables, "solver": {"penalty": name, **solver}, "training": training or {}})

    assert settings().schedule == kind.schedules[0]
    for schedule in ALGORITHMS:
        if schedule in kind.schedules:
            assert settings({"schedule": schedule}).schedule == schedule
        else:
            with pytest.raises(ConfigError, match=f"solver.penalty = '{name}' keeps z"):
                settings({"schedule": schedule})
    for allowed, solver in (
        (kind.augmented, {"augmentation": 1.0}),
        (kind.mu_moves, {"mu": {"start": 1.0, "factor": 2.0, "stop": 4.0}}),
    ):
        if allowed:
            settings(**solver)
        else:
            with pytest.raises(ConfigError, match=next(iter(solver))):
                settings(**solver)


# its formulas


@every_penalty
def test_residuals_cost_nothing_at_zero_and_something_elsewhere(kind):
    penalty = kind((0.3, 0.4), (0.1, 0.2))
    residual = np.random.default_rng(0).normal(size=(6, 3))
    zero = np.zeros_like(residual)
    for layer in range(2):
        assert penalty.value(layer, zero, residual) == 0
        costs = [penalty.value(layer, t * residual, zero) for t in (0.5, 1.0, 2.0, -2.0)]
        assert 0 < costs[0] < costs[1] < costs[2] == costs[3]
        parts = sum(penalty.value(layer, row[None], zero[:1]) for row in residual)
        assert costs[1] == pytest.approx(parts, rel=1e-12)


@every_split_penalty
@pytest.mark.parametrize("size", [0.01, 0.3, 3.0])
def test_what_is_left_of_s_beside_the_dual_variable_is_the_proximal_map(kind, size):
    """No e near it costs less than φ(e) + ρ‖e − s‖² there; where residuals vanish in the end, e has to."""
    penalty, rng = kind((0.3, 0.4), (0.1, 0.2)), np.random.default_rng(0)
    s = size * rng.normal(size=(5, 3))
    zero = np.zeros_like(s)
    for layer, rho in enumerate(penalty.rho):
        u = penalty.dual(layer, s, np.empty_like(s))
        e = s - u
        offset = penalty.offset(layer, s, np.empty_like(s))
        np.testing.assert_allclose(offset, u - e, rtol=1e-12, atol=1e-12)
        auxiliary = penalty.auxiliary(s, u, np.empty_like(s))
        np.testing.assert_array_equal(zero if auxiliary is None else auxiliary, e)
        if kind.exact:
            assert not e.any()
            continue

        def cost(e, s=s, layer=layer, rho=rho):
            return penalty.value(layer, e, zero) + rho * float(((e - s) ** 2).sum())

        for distance in (1e-3, 1e-2, 0.1, 1.0):
            for _ in range(20):
                assert cost(e) <= cost(e + distance * size * rng.normal(size=s.shape)) + 1e-14
        np.testing.assert_allclose(penalty.dual(layer, np.zeros_like(s), np.empty_like(s)), 0)


@every_split_penalty
def test_a_visit_updates_the_dual_variables_as_the_definition_says(kind):
    network, weights, batch = small()
    penalty, previous, latent = visited(kind)
    z, s = split_layers(latent[:, :5], network.widths), latent[:, 5:]
    targets = network.loss.targets(batch, np.float64)
    fixed = network.prepare(weights, batch, Workspace())
    point = network.evaluate(weights, fixed, targets, z)
    before = replace(point, residuals=[r.copy() for r in point.residuals])
    out, measured = np.empty_like(s), ADMMResiduals(2)
    offsets = penalty.update_dual(previous, point, s, out, measured, Workspace())

    def parts(penalty, layer, s):
        u = penalty.dual(layer, np.array([[s]]), np.empty((1, 1)))[0, 0]
        return u, 0.0 if kind.exact else s - u

    cost = float(before.loss.sum())
    for layer, (old, new) in enumerate(
        zip(split_layers(s, network.widths), split_layers(out, network.widths), strict=True)
    ):
        sums = dict.fromkeys(("primal", "change", "multipliers", "zeros", "residuals", "squares"), 0.0)
        for index, r in np.ndenumerate(before.residuals[layer]):
            u, e_before = parts(previous, layer, old[index])
            u *= previous.rho[layer] / penalty.rho[layer]  # 2ρu is a multiplier
            u_now, e = parts(penalty, layer, u + r)
            cost += penalty.value(layer, np.array([[r]]), np.array([[u]]))
            assert new[index] == pytest.approx(u + r, rel=1e-13)
            assert offsets[layer][index] == pytest.approx(u_now - e, rel=1e-12, abs=1e-13)
            assert point.residuals[layer][index] == pytest.approx(r + u_now - e, rel=1e-12, abs=1e-13)
            found = {
                "primal": (r - e) ** 2,
                "change": (e - e_before) ** 2,
                "multipliers": u_now**2,
                "zeros": float(e == 0 and not kind.exact),
                "residuals": r**2,
                "squares": z[layer][index] ** 2,
            }
            sums = {name: total + found[name] for name, total in sums.items()}
        for name, total in sums.items():
            assert getattr(measured, name)[layer] == pytest.approx(total, rel=1e-11), name
        np.testing.assert_allclose(point.squares[layer], (point.residuals[layer] ** 2).sum(axis=1))
    np.testing.assert_allclose(measured.totals, [12, cost, 0])


@every_split_penalty
def test_multipliers_are_kept_when_rho_moves(kind):
    """2ρu is what it is, whatever the quadratic: without a residual a visit only changes the unit of u."""
    network, weights, batch = small()
    _, previous, latent = visited(kind)
    penalty = kind((1.7, 0.4), previous.mu)
    latent[:, :5] = np.concatenate(network.forward(weights, batch), axis=1)
    new, _ = visit_chunk(network, weights, penalty, previous, batch, latent, FAR, replace_all=True)
    for layer, (s, s_new) in enumerate(
        zip(*(split_layers(a[:, 5:], network.widths) for a in (latent, new)), strict=True)
    ):
        u = previous.dual(layer, s, np.empty_like(s))
        np.testing.assert_allclose(penalty.rho[layer] * s_new, previous.rho[layer] * u, atol=1e-12)


# its sums


@every_penalty
@pytest.mark.parametrize("rho_stays", [True, False])
def test_a_visit_is_that_of_its_halves_and_statistics_are_replaced_exactly(kind, rho_stays):
    network, weights, batch = small()
    penalty, previous, latent = visited(kind)
    if rho_stays:
        previous = kind(penalty.rho, previous.mu)

    def visit(rows, *, replace_all=False):
        return visit_chunk(
            network, weights, penalty, previous, batch.rows(rows), latent[rows], FAR, replace_all=replace_all
        )

    new, sums = visit(slice(None))
    halves = [visit(rows) for rows in (slice(0, 5), slice(5, None))]
    np.testing.assert_allclose(new, np.concatenate([half for half, _ in halves]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(sums.vector, sum(each.vector for _, each in halves), rtol=1e-8, atol=1e-10)
    assert sums.statistics.with_inputs == sends_inputs(network, penalty, previous)

    now = collect_chunk(network, weights, penalty, batch, new)
    total = collect_chunk(network, weights, previous, batch, latent)
    total.merge(sums.statistics)
    total.diagnostics[:] = 0
    np.testing.assert_allclose(total.vector, now.vector, rtol=1e-9, atol=1e-9)
    same, whole = visit(slice(None), replace_all=True)
    np.testing.assert_array_equal(same, new)
    total.replace_all(whole.statistics)
    total.diagnostics[:] = 0
    np.testing.assert_allclose(total.vector, now.vector, rtol=1e-9, atol=1e-9)


# where it leads


@every_penalty
def test_it_leads_to_the_optimum_of_a_convex_problem(kind):
    """One linear layer. With z minimised out by the proximal map, F is a smooth function of W alone."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = x @ rng.normal(size=(3, 2)) + 0.1 * rng.normal(size=(40, 2)) + 0.5
    y[:6] += 20.0
    network, batch, ridge = dense_network([3, 2], [], "squared", "identity"), Batch(x, y), 0.1
    mu = (0.3,)
    penalty = kind(kind.initial_rho(network, mu, None), mu)

    weights = (np.zeros((2, 4)),)
    latent, statistics = enter_chunk(network, weights, penalty, batch)
    for _ in range(600):
        latent, sums = visit_chunk(network, weights, penalty, penalty, batch, latent, FAR, replace_all=True)
        statistics.replace_all(sums.statistics)
        scaled = ridge / penalty.ridge_scale(0)
        weights = (solve_layer(statistics.cross[0], statistics.gram[0], scaled),)

    inputs = np.c_[x, np.ones(40)]

    def nested(flat):
        """½‖z − y‖² + φ(z − W̃ã) at its minimum in z, and its gradient, with the ridge."""
        w = flat.reshape(2, 4)
        s = y - inputs @ w.T
        if kind.per_sample_state:
            half = kind((0.5,), mu)
            e = s - half.dual(0, s, np.empty_like(s))
            cost = 0.0 if kind.exact else half.value(0, e, np.zeros_like(e))
        else:
            e = s / (1 + 2 * mu[0])
            cost = penalty.value(0, e, np.zeros_like(e))
        value = 0.5 * float(((s - e) ** 2).sum()) + cost + ridge * float((w**2).sum())
        return value, (-(s - e).T @ inputs + 2 * ridge * w).ravel()

    best = minimize(nested, np.zeros(8), jac=True, method="BFGS", options={"gtol": 1e-8})
    assert nested(weights[0].ravel())[0] == pytest.approx(best.fun, rel=1e-7)
    np.testing.assert_allclose(weights[0].ravel(), best.x, atol=2e-4)
