"""L1 and multipliers in memory, against a convex solver, ridge regression, and the conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from zoo import solve_layer

from altmin_dask.networks.chain import Chain
from altmin_dask.solvers.chunks import collect_chunk, enter_chunk, split_layers, split_visit_chunk
from altmin_dask.solvers.newton import NewtonSettings, update
from altmin_dask.solvers.penalties import Measures, Penalty, Splitting
from altmin_dask.solvers.statistics import Statistics

FAR = NewtonSettings(newton_steps=2, cg_iterations=12)


class Solved:
    """Batch sweeps of one chunk until they rest, or so many."""

    def __init__(self, network, kind, x, y, mu, *, ridge, rho=0.3, passes=3000, settings=FAR):
        layers = len(network.widths)
        self.network, self.x, self.y, self.mu, self.ridge = network, x, y, (mu,) * layers, ridge
        self.weights = network.initial_weights(1, np.float64)
        z, self.statistics = enter_chunk(network, self.weights, x, y, splits=True)
        splitting = Splitting.start((rho,) * layers, 1, self.weights)
        splitting.hold(0, splitting.penalty(kind, self.mu))
        for _ in range(passes):
            penalty, before = splitting.penalty(kind, self.mu), splitting.before(kind, 0)
            z, statistics, measures = split_visit_chunk(
                network, self.weights, penalty, before, x, y, z, settings, renewed=True
            )
            self.statistics.renew(statistics)
            self.weights = tuple(
                solve_layer(cross, gram, ridge / r)
                for cross, gram, r in zip(
                    self.statistics.cross, self.statistics.gram, penalty.rho, strict=True
                )
            )
            splitting.hold(0, penalty, measures.vector)
            splitting.balance(self.statistics, self.weights, move=True)
            if splitting.gap < 1e-8:
                break
        self.penalty, self.gap = penalty, splitting.gap
        self.measures = Measures(layers, measures.vector)
        width = sum(network.widths)
        self.z, self.s = (
            split_layers(z[:, :width], network.widths),
            split_layers(z[:, width:], network.widths),
        )
        self.u = [penalty.clipped(i, s, np.empty_like(s)) for i, s in enumerate(self.s)]
        self.e = [s - u for s, u in zip(self.s, self.u, strict=True)]
        self.dual = [2 * r * u for r, u in zip(penalty.rho, self.u, strict=True)]

    @property
    def objective(self):
        """F as a sum over samples."""
        return self.measures.totals[1] + self.ridge * sum(float((w**2).sum()) for w in self.weights)

    def residuals(self, z=None):
        z = self.z if z is None else z
        drive = [self.x, *(a.value(v) for a, v in zip(self.network.activations, z, strict=False))]
        return [
            v - np.c_[d.reshape(len(d), -1), np.ones(len(d))] @ w.T
            for v, d, w in zip(z, drive, self.weights, strict=True)
        ]

    def lagrangian(self, z):
        """Σ ℓ + Σ λᵀ r."""
        loss = self.network.loss
        fit = loss.value(z[-1], loss.predict(z[-1]), self.y).sum()
        return fit + sum(np.vdot(d, r) for d, r in zip(self.dual, self.residuals(z), strict=True))


def by_squares(network, x, y, mu, ridge):
    """Residuals that L2 rests at."""
    weights = network.initial_weights(1, np.float64)
    z, mus = network.forward(weights, x), (mu,) * len(network.widths)
    for _ in range(300):
        end = update(network, weights, mus, x, y, z, FAR).end
        statistics = Statistics(network.shapes, with_inputs=True)
        statistics.add(end)
        z = end.z
        weights = tuple(
            solve_layer(c, g, ridge / mu) for c, g in zip(statistics.cross, statistics.gram, strict=True)
        )
    return end.residuals


def linear(n=40, outliers=0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    y = x @ rng.normal(size=(3, 2)) + 0.1 * rng.normal(size=(n, 2)) + 0.5
    y[:outliers] += 20.0
    return Chain.build([3, 2], [], "squared", "identity"), x, y


@pytest.mark.parametrize("mu", [0.05, 0.3, pytest.param(5.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("outliers", [0, 6])
def test_l1_of_one_linear_layer_is_the_optimum_of_a_convex_programme(mu, outliers):
    cvxpy = pytest.importorskip("cvxpy")
    network, x, y = linear(outliers=outliers)
    solved = Solved(network, "l1", x, y, mu, ridge=0.1)
    w, z = cvxpy.Variable((2, 4)), cvxpy.Variable(y.shape)
    off = z - np.c_[x, np.ones(len(x))] @ w.T
    best = cvxpy.Problem(
        cvxpy.Minimize(
            0.5 * cvxpy.sum_squares(z - y) + mu * cvxpy.sum(cvxpy.abs(off)) + 0.1 * cvxpy.sum_squares(w)
        )
    ).solve(solver="CLARABEL")
    assert solved.objective == pytest.approx(best, rel=1e-5)
    np.testing.assert_allclose(solved.weights[0], w.value, atol=1e-3)


def test_multipliers_of_one_linear_layer_are_ridge_regression():
    network, x, y = linear()
    solved = Solved(network, "multipliers", x, y, 1.0, ridge=0.3)
    # ½‖·‖² of the loss: twice λ; the bias is held like any other weight
    inputs = np.c_[x, np.ones(len(x))]
    expected = Ridge(alpha=0.6, fit_intercept=False).fit(inputs, y).coef_
    np.testing.assert_allclose(solved.weights[0], expected, rtol=1e-6)
    assert np.abs(solved.residuals()[0]).max() < 1e-7


def nonlinear(hidden, loss):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 4))
    if loss == "cross_entropy":
        return Chain.build([4, 3, 3], [hidden], loss), x, rng.integers(0, 3, 12)
    return Chain.build([4, 3, 2], [hidden], loss, "identity"), x, rng.normal(size=(12, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "loss"), [("tanh", "squared"), ("sigmoid", "cross_entropy"), ("sigmoid", "squared")]
)
@pytest.mark.parametrize(("kind", "mu"), [("l1", 0.1), ("l1", 0.3), ("multipliers", 1.0)])
def test_what_it_rests_at_is_stationary(hidden, loss, kind, mu):
    network, x, y = nonlinear(hidden, loss)
    solved = Solved(network, kind, x, y, mu, ridge=0.02, rho=1.0 if kind == "multipliers" else 0.3)
    h = 1e-6
    for layer, z in enumerate(solved.z):
        slope = np.empty_like(z)
        for index in np.ndindex(*z.shape):
            ahead, behind = ([v.copy() for v in solved.z] for _ in range(2))
            ahead[layer][index] += h
            behind[layer][index] -= h
            slope[index] = (solved.lagrangian(ahead) - solved.lagrangian(behind)) / (2 * h)
        assert np.abs(slope).max() < 1e-5
    drive = [x, *(a.value(v) for a, v in zip(network.activations, solved.z, strict=False))]
    for layer, (w, d, dual) in enumerate(zip(solved.weights, drive, solved.dual, strict=True)):
        pull = dual.T @ np.c_[d, np.ones(len(d))]
        np.testing.assert_allclose(pull, 2 * solved.ridge * w, atol=1e-5)
        if kind == "l1":
            assert np.abs(dual).max() <= mu * (1 + 1e-12)
            free = solved.e[layer] != 0
            np.testing.assert_allclose(dual[free], mu * np.sign(solved.e[layer][free]), rtol=1e-9)
            np.testing.assert_allclose(solved.residuals()[layer], solved.e[layer], atol=1e-6)
        else:
            assert np.abs(solved.residuals()[layer]).max() < 1e-6


def test_l1_is_exact_past_a_finite_mu_and_l2_is_not():
    network, x, y = nonlinear("tanh", "squared")
    held = Solved(network, "multipliers", x, y, 1.0, ridge=0.2)
    enough = 1.1 * max(np.abs(dual).max() for dual in held.dual)
    exact = Solved(network, "l1", x, y, enough, ridge=0.2)
    small = Solved(network, "l1", x, y, 0.1 * enough, ridge=0.2)
    assert max(np.abs(r).max() for r in exact.residuals()) < 1e-6
    assert max(np.abs(r).max() for r in small.residuals()) > 1e-2
    squared = by_squares(network, x, y, enough, ridge=0.2)
    assert max(np.abs(r).max() for r in squared) > 1e-2
    z = network.forward(exact.weights, x)
    nested = network.loss.value(z[-1], network.loss.predict(z[-1]), y).sum()
    assert exact.measures.totals[1] == pytest.approx(nested, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "multipliers"])
def test_a_visit_is_that_of_its_halves_and_statistics_are_replaced_exactly(kind):
    network, x, y = nonlinear("tanh", "squared")
    weights = network.initial_weights(0, np.float64)
    penalty, before = Penalty(kind, (0.3, 0.4), (0.1, 0.2)), Penalty(kind, (0.2, 0.8), (0.1, 0.3))
    rng = np.random.default_rng(1)
    z = rng.normal(size=(12, 10))

    def visit(rows, renewed):
        return split_visit_chunk(
            network, weights, penalty, before, x[rows], y[rows], z[rows], FAR, renewed=renewed
        )

    new, change, measures = visit(slice(None), False)
    parts = [visit(rows, False) for rows in (slice(0, 5), slice(5, None))]
    np.testing.assert_allclose(new, np.concatenate([part[0] for part in parts]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(measures.vector, parts[0][2].vector + parts[1][2].vector, rtol=1e-9)
    old = collect_chunk(network, weights, x, y, z, before)
    now = collect_chunk(network, weights, x, y, new, penalty)
    old.merge(change)
    old.diagnostics[:] = 0
    np.testing.assert_allclose(old.vector, now.vector, rtol=1e-9, atol=1e-9)


def test_multipliers_are_kept_when_rho_moves():
    """2ρu is what they are, whatever the quadratic."""
    network, x, y = linear()
    weights = network.initial_weights(0, np.float64)
    rng = np.random.default_rng(0)
    z = network.forward(weights, x)[0]  # no residual: what is remembered only changes its unit
    s = rng.normal(size=z.shape)
    for kind in ("l1", "multipliers"):
        before, penalty = Penalty(kind, (0.2,), (0.3,)), Penalty(kind, (1.7,), (0.3,))
        new, *_ = split_visit_chunk(network, weights, penalty, before, x, y, np.c_[z, s], FAR, renewed=True)
        u = before.clipped(0, s, np.empty_like(s))
        np.testing.assert_allclose(1.7 * new[:, 2:], 0.2 * u, atol=1e-12)
        assert kind == "multipliers" or np.abs(new[:, 2:]).max() <= 0.3 / (2 * 1.7) + 1e-12
