"""L1 and multipliers in memory, against a convex solver, ridge regression, and the conditions of optimality."""

from __future__ import annotations

import numpy as np
import pytest
from choices import taking_turns
from sklearn.linear_model import Ridge
from zoo import solve_layer

from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.solvers.admm import ADMMState, relative
from altmin_dask.solvers.gauss_newton import update
from altmin_dask.solvers.kernels import enter_chunk, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.packing import split_layers
from altmin_dask.solvers.penalties import PENALTIES, AugmentedLagrangian
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Batch

FAR = NewtonSettings(newton_steps=2, cg_iterations=12)


class Solved:
    """Sweeps until they rest, or so many: batch, or in groups of samples with a solve after each.

    `rho_of(number, rho)` says what ρ is in a pass, in place of balancing.
    """

    def __init__(
        self, network, name, x, y, mu, *, ridge, rho=0.3, passes=3000, settings=FAR, groups=1, rho_of=None
    ):
        layers, kind = len(network.widths), PENALTIES[name]
        self.network, self.x, self.y, self.mu, self.ridge = network, x, y, (mu,) * layers, ridge
        self.weights = network.initial_weights(1, np.float64)
        self.admm = admm = ADMMState.start((rho,) * layers, groups, self.weights)
        self.parts = np.array_split(np.arange(len(x)), groups)
        penalty = admm.penalty(kind, self.mu)
        self.latent, self.statistics = [], Statistics(network.shapes, with_inputs=True)
        for group, rows in enumerate(self.parts):
            z, entered = enter_chunk(network, self.weights, penalty, Batch(x[rows], y[rows]))
            self.latent.append(z)
            self.statistics.merge(entered)
            admm.hold(group, penalty)
        for number in range(passes):
            penalty = admm.penalty(kind, self.mu)
            for group in range(groups):
                self.visit(group, penalty)
            admm.balance(self.statistics, self.weights, move=rho_of is None)
            if rho_of is not None:
                admm.rho[:] = rho_of(number, admm.rho)
            if admm.gap < 1e-8:
                break
        self.penalty, self.gap, self.passes = penalty, admm.gap, number + 1
        self.measures = admm.total
        z, width = np.concatenate(self.latent), sum(network.widths)
        self.z, self.s = (
            split_layers(z[:, :width], network.widths),
            split_layers(z[:, width:], network.widths),
        )
        self.u = [penalty.dual(i, s, np.empty_like(s)) for i, s in enumerate(self.s)]
        self.e = [s - u for s, u in zip(self.s, self.u, strict=True)]
        self.dual = [2 * r * u for r, u in zip(penalty.rho, self.u, strict=True)]

    def visit(self, group, penalty):
        rows, previous = self.parts[group], self.admm.previous(type(penalty), group)
        whole = len(self.parts) == 1
        self.latent[group], sums = visit_chunk(
            self.network,
            self.weights,
            penalty,
            previous,
            Batch(self.x[rows], self.y[rows]),
            self.latent[group],
            FAR,
            replace_all=whole,
        )
        (self.statistics.replace_all if whole else self.statistics.merge)(sums.statistics)
        self.admm.hold(group, penalty, sums.residuals)
        self.weights = tuple(
            solve_layer(cross, gram, self.ridge)  # ρ is in the sums
            for cross, gram in zip(self.statistics.cross, self.statistics.gram, strict=True)
        )

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
        fit = loss.value(z[-1], loss.predict(z[-1]), Targets(self.y)).sum()
        return fit + sum(np.vdot(d, r) for d, r in zip(self.dual, self.residuals(z), strict=True))


def by_squares(network, x, y, mu, ridge):
    """Residuals that L2 rests at."""
    weights = network.initial_weights(1, np.float64)
    z, mus = network.forward(weights, Batch(x)), (mu,) * len(network.widths)
    for _ in range(300):
        end = update(network, weights, mus, Batch(x, y), z, FAR).end
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
    return dense_network([3, 2], [], "squared", "identity"), x, y


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


HALVED_ONCE = {20: 0.5}


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("changes", [{}, HALVED_ONCE, {5: 4.0, 9: 0.2, 30: 2.0}])
def test_rho_may_move_at_any_time(groups, changes):
    """Ridge regression by multipliers: wherever ρ has moved, W is where it was to be, after one group as after all."""
    network, x, y = linear()
    solved = Solved(
        network,
        "multipliers",
        x,
        y,
        1.0,
        ridge=0.3,
        groups=groups,
        rho_of=lambda number, rho: rho * changes.get(number, 1.0),
    )
    inputs = np.c_[x, np.ones(len(x))]
    expected = Ridge(alpha=0.6, fit_intercept=False).fit(inputs, y).coef_
    np.testing.assert_allclose(solved.weights[0], expected, atol=3e-8)
    # at rest a multiplier is the gradient of the loss; halving ρ in one group alone moves nothing
    for factor in (0.5, 3.0):
        rho = solved.admm.penalty(AugmentedLagrangian, solved.mu).rho
        moved = AugmentedLagrangian(tuple(factor * each for each in rho))
        before = solved.weights[0]
        solved.visit(0, moved)
        np.testing.assert_allclose(solved.weights[0], before, atol=3e-8)


@pytest.mark.parametrize(("groups", "kind"), taking_turns([1, 3], ["l1", "multipliers"]))
def test_balanced_rho_comes_to_rest_and_the_solution_is_that_of_the_convex_programme(kind, groups):
    """Softmax regression, whose z is no linear function of W."""
    cvxpy = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(30, 3)), rng.integers(0, 3, 30)
    network = dense_network([3, 3], [], "cross_entropy")
    mu = 0.2
    solved = Solved(network, kind, x, y, mu, ridge=0.3, groups=groups)
    w = cvxpy.Variable((3, 4))
    z = np.c_[x, np.ones(30)] @ w.T if kind == "multipliers" else cvxpy.Variable((30, 3))
    fit = cvxpy.sum(cvxpy.log_sum_exp(z, axis=1)) - cvxpy.sum(cvxpy.multiply(np.eye(3)[y], z))
    if kind == "l1":
        fit += mu * cvxpy.sum(cvxpy.abs(z - np.c_[x, np.ones(30)] @ w.T))
    best = cvxpy.Problem(cvxpy.Minimize(fit + 0.3 * cvxpy.sum_squares(w))).solve(solver="CLARABEL")
    assert solved.objective == pytest.approx(best, rel=1e-6)
    np.testing.assert_allclose(solved.weights[0], w.value, atol=3e-5)
    assert solved.gap < 1e-7


def nonlinear(hidden, loss):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 4))
    if loss == "cross_entropy":
        return dense_network([4, 3, 3], [hidden], loss), x, rng.integers(0, 3, 12)
    return dense_network([4, 3, 2], [hidden], loss, "identity"), x, rng.normal(size=(12, 2))


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


@pytest.mark.slow
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
    z = network.forward(exact.weights, Batch(x))
    nested = network.loss.value(z[-1], network.loss.predict(z[-1]), Targets(y)).sum()
    assert exact.measures.totals[1] == pytest.approx(nested, rel=1e-5)


@pytest.mark.parametrize("kind", ["l1", "multipliers"])
def test_nothing_has_no_size_to_compare_with(kind):
    """Samples and targets of zeros: every norm is nought, and so are the gaps."""
    network = dense_network([2, 2, 2], ["identity"], "squared", "identity")
    x = np.zeros((6, 2))
    solved = Solved(network, kind, x, x, 1.0, ridge=0.1, passes=5)
    assert solved.gap == 0.0
    assert np.isfinite(solved.admm.rho).all()
    np.testing.assert_array_equal(relative(np.array([0.0, 1.0, 4.0]), np.array([0.0, 0.0, 1.0])), [0, 1, 2])
