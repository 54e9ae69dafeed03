"""Recurrent networks against loops over samples and steps, dense algebra, finite differences, and the chain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, log_softmax, softmax

from altmin_dask.errors import ConfigError
from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import build_network
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.gauss_newton import gauss_newton_step, objective, update
from altmin_dask.solvers.kernels import enter_chunk, kfac_chunk, quadratic_model_chunk, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.packing import split_layers
from altmin_dask.solvers.penalties import L2
from altmin_dask.solvers.ridge import ridge_system
from altmin_dask.types import Batch

CONVERGED = NewtonSettings(cg_iterations=80)
ACTIVATIONS = {"tanh": np.tanh, "relu": lambda z: np.maximum(z, 0), "sigmoid": expit}

# Recurrent widths, head widths, activation, loss, at every step, lengths, states
NETWORKS = {
    "one layer, last step": ((4,), (), "tanh", "squared", False, False, False),
    "one layer, every step": ((4,), (), "tanh", "cross_entropy", True, False, False),
    "two layers, last step": ((3, 4), (), "sigmoid", "cross_entropy", False, False, False),
    "two layers and a head, every step": ((4, 3), (5,), "tanh", "squared", True, False, False),
    "rectifiers and a head": ((5,), (4, 3), "relu", "cross_entropy", False, False, False),
    "lengths, last step": ((4, 3), (3,), "tanh", "cross_entropy", False, True, False),
    "lengths, every step": ((4,), (), "tanh", "cross_entropy", True, True, False),
    "lengths, real targets at every step": ((4,), (3,), "sigmoid", "squared", True, True, False),
    "states": ((4, 2), (), "tanh", "squared", False, False, True),
    "one unit a layer, every step": ((1, 1), (1,), "sigmoid", "squared", True, False, False),
    "one unit, lengths and states": ((1,), (), "sigmoid", "cross_entropy", False, True, True),
    "lengths and states": ((3,), (), "tanh", "binary_cross_entropy", True, True, True),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
FEATURES, STEPS, OUTPUTS, N = 3, 5, 2, 6


class Case:
    """A network with weights, sequences, targets, and pre-activations that are no forward pass."""

    def __init__(self, name: str, seed: int = 0, dtype=np.float64) -> None:
        sizes, head, activation, loss, every, lengths, states = NETWORKS[name]
        rng = np.random.default_rng(seed)
        self.network = recurrent_network(
            FEATURES,
            STEPS,
            sizes,
            OUTPUTS,
            head,
            activation,
            loss,
            every=every,
        )
        self.weights = tuple(
            (w + 0.3 * rng.normal(size=w.shape)).astype(dtype)
            for w in self.network.initial_weights(seed, dtype)
        )
        self.inputs = rng.normal(size=(N, STEPS, FEATURES)).astype(dtype)
        self.lengths = rng.integers(1, STEPS + 1, N) if lengths else np.full(N, STEPS)
        self.states = rng.normal(size=(N, sum(sizes))).astype(dtype)
        if not states:
            self.states[:] = 0
        shape = (N, STEPS) if every else (N,)
        if loss == "cross_entropy":
            self.y = rng.integers(0, OUTPUTS, shape)
        else:
            self.y = rng.random((*shape, OUTPUTS)).reshape(N, -1).astype(dtype)
        self.batch = Batch(
            self.inputs.reshape(N, -1),
            self.y,
            lengths=self.lengths if lengths else None,
            states=self.states if states else None,
        )
        self.mu = list(rng.uniform(0.3, 3.0, len(self.weights)))
        self.z = [
            z + 0.3 * rng.normal(size=z.shape).astype(dtype) * self.valid(i)
            for i, z in enumerate(self.network.forward(self.weights, self.batch))
        ]

    @property
    def targets(self) -> Targets:
        """The targets as losses take them."""
        return self.network.loss.targets(self.batch, self.weights[0].dtype)

    def valid(self, i: int) -> np.ndarray:
        """1 where layer i has a step, 0 in the padding."""
        layer = self.network.layers[i]
        if layer.steps == 1:
            return np.ones((N, 1))
        return np.repeat(np.arange(STEPS) < self.lengths[:, None], layer.width, axis=1)

    def point(self, z=None):
        return self.network.evaluate(
            self.weights,
            self.network.prepare(self.weights, self.batch, Workspace()),
            self.targets,
            z or self.z,
        )


def naive(case: Case, k: int, z: list[np.ndarray] | None) -> tuple[list[list[np.ndarray]], float, list]:
    """Residuals of sample k, step by step, and its loss, by the definition; without z of a forward pass."""
    net, length = case.network, case.lengths[k]
    act = ACTIVATIONS[net.activations[0].name]
    states = np.split(case.states[k], np.cumsum(net.state_sizes)[:-1])
    below = [case.inputs[k, t] for t in range(length)]
    residuals, all_z = [], []
    for i, layer in enumerate(net.layers):
        w, v, b = (
            case.weights[i][:, : layer.in_features],
            case.weights[i][:, layer.in_features : -1],
            case.weights[i][:, -1],
        )
        if layer.steps == 1 and len(below) > 1:
            below = below[-1:]
        state = states[i] if layer.recurrent else None
        mine, own, following = [], [], []
        for t, a in enumerate(below):
            drive = w @ a + b + (v @ state if layer.recurrent else 0)
            here = drive if z is None else z[i][k].reshape(layer.steps, -1)[t]
            mine.append(here - drive)
            own.append(here)
            following.append(act(here))
            if layer.recurrent:
                state = following[-1]
        residuals.append(mine)
        all_z.append(own)
        below = following
    y = case.y[k].reshape(net.layers[-1].steps, -1)
    losses = []
    for t, out in enumerate(all_z[-1]):
        if net.loss.name == "cross_entropy":
            losses.append(-log_softmax(out)[int(y[t, 0])])
        elif net.loss.name == "binary_cross_entropy":
            losses.append(float(np.sum(np.logaddexp(0, out) - y[t] * out)))
        else:
            losses.append(0.5 * float(np.sum((out - y[t]) ** 2)))
    return residuals, float(np.mean(losses)), all_z


# forward passes and points


@every_network
def test_forward_pass_is_the_recursion(name):
    case = Case(name)
    found = case.network.forward(case.weights, case.batch)
    for k in range(N):
        for layer, z, expected in zip(case.network.layers, found, naive(case, k, None)[2], strict=True):
            steps = z[k].reshape(layer.steps, -1)
            np.testing.assert_allclose(steps[: len(expected)], expected, rtol=1e-12, atol=1e-12)
            assert not steps[len(expected) :].any()


@every_network
def test_a_point_is_the_definition(name):
    case = Case(name)
    point, f = case.point(), objective(case.point(), case.mu)
    for k in range(N):
        residuals, loss, _ = naive(case, k, case.z)
        assert point.loss[k] == pytest.approx(loss, rel=1e-12)
        total = loss
        for i, (found, expected) in enumerate(zip(point.residuals, residuals, strict=True)):
            steps = found[k].reshape(case.network.layers[i].steps, -1)
            np.testing.assert_allclose(steps[: len(expected)], expected, rtol=1e-11, atol=1e-12)
            assert not steps[len(expected) :].any()
            total += case.mu[i] * sum(float(r @ r) for r in expected)
        assert f[k] == pytest.approx(total, rel=1e-12)


@every_network
def test_a_forward_pass_has_no_residuals_and_no_offset_changes_that(name):
    case = Case(name)
    z = case.network.forward(case.weights, case.batch)
    assert max(np.abs(r).max() for r in case.point(z).residuals) < 1e-13


# the linearisation


@given(name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 1000))
def test_adjoint_is_the_transpose_of_the_tangent(name, seed):
    case = Case(name, seed)
    rng = np.random.default_rng(seed)
    linear = case.network.linearise(case.weights, case.point(), case.mu)
    u = [rng.normal(size=z.shape) for z in case.z[:-1]]
    h = rng.normal(size=case.z[-1].shape) * case.valid(len(case.z) - 1)
    _, e = linear.tangent([part.copy() for part in u])
    e = e.copy()
    back = linear.adjoint(h)
    assert sum(float(np.vdot(a, b)) for a, b in zip(u, back, strict=True)) == pytest.approx(
        float(np.vdot(e, h)), rel=1e-10, abs=1e-10
    )


def dense(case: Case, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of sample k: ∂r/∂z by differences of the definition, r, and gradient and curvature of the loss in z."""
    net, sizes = case.network, [z.shape[1] for z in case.z]
    # only steps that are there
    valid = np.concatenate([np.broadcast_to(case.valid(i)[k], (d,)) for i, d in enumerate(sizes)]) > 0
    start = np.concatenate([z[k] for z in case.z])

    def spread(free):
        full = start.copy()
        full[valid] = free
        parts = np.split(full, np.cumsum(sizes)[:-1])
        return [np.where(np.arange(N)[:, None] == k, part, z) for part, z in zip(parts, case.z, strict=True)]

    def residual(free):
        return np.concatenate([np.concatenate(layer) for layer in naive(case, k, spread(free))[0]])

    free = start[valid]
    jacobian = np.stack(
        [(residual(free + d) - residual(free - d)) / 2e-6 for d in 1e-6 * np.eye(len(free))], 1
    )
    gradient, curvature = np.zeros(len(free)), np.zeros((len(free),) * 2)
    steps = int(case.valid(len(sizes) - 1)[k].sum()) // OUTPUTS if sizes[-1] > OUTPUTS else 1
    first = len(free) - steps * OUTPUTS
    y = case.y[k].reshape(net.layers[-1].steps, -1)
    for t in range(steps):
        rows = slice(first + t * OUTPUTS, first + (t + 1) * OUTPUTS)
        out = free[rows]
        if net.loss.name == "cross_entropy":
            p = softmax(out)
            g, h = p - np.eye(OUTPUTS)[int(y[t, 0])], np.diag(p) - np.outer(p, p)
        elif net.loss.name == "binary_cross_entropy":
            p = expit(out)
            g, h = p - y[t], np.diag(p * (1 - p))
        else:
            g, h = out - y[t], np.eye(OUTPUTS)
        gradient[rows], curvature[rows, rows] = g / steps, h / steps
    return jacobian, residual(free), gradient, curvature


@every_network
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_converged_step_is_the_dense_gauss_newton_step(name, damping):
    case = Case(name, 3)
    step = gauss_newton_step(
        case.network, case.weights, case.mu, case.point(), case.targets, replace(CONVERGED, damping=damping)
    )
    delta, slope = step.delta, step.slope
    for k in range(N):
        jacobian, r, gradient, curvature = dense(case, k)
        m = np.concatenate(
            [
                np.full(int(np.broadcast_to(case.valid(i)[k], z.shape[1:]).sum()), mu)
                for i, (mu, z) in enumerate(zip(case.mu, case.z, strict=True))
            ]
        )
        full = gradient + 2 * jacobian.T @ (m * r)
        matrix = curvature + 2 * (1 + damping) * jacobian.T @ (m[:, None] * jacobian)
        expected = np.linalg.solve(matrix, -full)
        found = np.concatenate(
            [d[k][np.broadcast_to(case.valid(i)[k], d[k].shape) > 0] for i, d in enumerate(delta)]
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert slope[k] == pytest.approx(float(full @ expected), rel=1e-6)
        # and nothing moves in the padding
        for i, d in enumerate(delta):
            assert not (d[k] * (1 - np.broadcast_to(case.valid(i)[k], d[k].shape))).any()


@given(
    name=st.sampled_from(sorted(NETWORKS)), seed=st.integers(0, 1000), scale=st.sampled_from([1e-2, 1.0, 1e2])
)
def test_z_updates_never_raise_f(name, seed, scale):
    case = Case(name, seed)
    mu = [scale * m for m in case.mu]
    settings = NewtonSettings(newton_steps=3, cg_iterations=2)
    result = update(case.network, case.weights, mu, case.batch, case.z, settings)
    assert (result.objective_after <= result.objective_before).all()
    again = case.point([z.copy() for z in result.end.z])
    np.testing.assert_allclose(objective(again, mu), result.objective_after, rtol=1e-10)


# the nested network


@every_network
def test_derivatives_of_the_nested_loss_are_those_of_differences(name):
    case = Case(name)
    rng = np.random.default_rng(1)
    change = tuple(rng.normal(size=w.shape) for w in case.weights)

    def losses(t):
        moved = tuple(w + t * d for w, d in zip(case.weights, change, strict=True))
        return Pass.forward(case.network, moved, case.batch).loss

    slope = (losses(1e-6) - losses(-1e-6)) / 2e-6
    found = Pass.forward(case.network, case.weights, case.batch)
    for k in range(N):
        assert found.loss[k] == pytest.approx(naive(case, k, None)[1], rel=1e-12)
    np.testing.assert_allclose(
        np.vecdot(found.gradient, found.directional(change)), slope, rtol=1e-6, atol=1e-8
    )
    sums = kfac_chunk(case.network, case.weights, None, case.batch, CONVERGED, (0,))
    along = sum(float(np.vdot(p, d)) for p, d in zip(sums.negative_gradient, change, strict=True))
    assert along == pytest.approx(-slope.sum(), rel=1e-6)


@every_network
@pytest.mark.parametrize("mu", [1.0, 1e2, 1e4, 1e6, 1e8, 1e16])
@pytest.mark.parametrize("steps", [1, 2])
def test_float32_gives_the_pull_of_any_penalty(name, mu, steps):
    """2μ times residuals that are far below the rounding of z, step by step; and of a large μ the limit."""
    case, pulls = Case(name, dtype=np.float32), []
    options = NewtonSettings(newton_steps=steps, cg_iterations=20)
    for dtype, penalties in ((np.float32, True), (np.float64, True), (np.float64, False)):
        weights = tuple(w.astype(dtype) for w in case.weights)
        all_mu = [mu] * len(weights) if penalties else None
        pulls.append(kfac_chunk(case.network, weights, all_mu, case.batch, options).negative_gradient)
    for found, expected, limit in zip(*pulls, strict=True):
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
        assert np.abs(found - limit).max() < (1e-5 + 10 / mu) * np.abs(limit).max()


@pytest.mark.parametrize("steps", [1, 3])
@every_network
def test_residuals_formed_from_steps_are_those_of_z(name, steps):
    """In float64, and a penalty for which these have digits enough."""
    case = Case(name, 2)
    options = NewtonSettings(newton_steps=steps)
    weights, mu = tuple(2 * w for w in case.weights), [0.03 * m for m in case.mu]
    result = update(case.network, weights, mu, case.batch, None, options)
    case.weights = weights
    plain = case.point([z.copy() for z in result.end.z])
    for mine, theirs in zip(result.end.residuals, plain.residuals, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-11)


@every_network
def test_gram_matrices_have_a_row_for_each_step_that_is_there(name):
    case = Case(name)
    sums = kfac_chunk(case.network, case.weights, None, case.batch, CONVERGED, (0,))
    for layer, gram in zip(case.network.layers, sums.input_factors, strict=True):
        assert gram[-1, -1] == pytest.approx(case.lengths.sum() if layer.steps > 1 else N)


def test_the_model_along_a_step_is_that_of_differences():
    case = Case("two layers and a head, every step")
    rng = np.random.default_rng(2)
    step = tuple(1e-4 * rng.normal(size=w.shape) for w in case.weights)
    before = tuple(w - 1e-4 * rng.normal(size=w.shape) for w in case.weights)
    probe = quadratic_model_chunk(case.network, case.weights, step, before, case.batch)

    def outputs(a, b):
        ways = zip(case.weights, step, before, strict=True)
        weights = tuple(w + a * d + b * (w - old) for w, d, old in ways)
        return case.network.forward(weights, case.batch)[-1]

    tangents = [(outputs(*at) - outputs(*(-np.array(at)))) / 2 for at in ((1, 0), (0, 1))]
    found = Pass.forward(case.network, case.weights, case.batch)
    for a in range(2):
        assert probe.slope[a] == pytest.approx(float(np.vdot(found.gradient, tangents[a])), rel=1e-4)
        for b in range(2):
            expected = float(np.vdot(tangents[a], tangents[b])) / STEPS  # ½ squared error, mean over steps
            assert probe.curvature[a, b] == pytest.approx(expected, rel=1e-4)


# one step is the chain


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
@pytest.mark.parametrize("every", [False, True])
def test_one_step_is_the_chain(loss, every):
    """z-updates, statistics, weights and increments; V has nothing to act on and stays zero."""
    rng = np.random.default_rng(0)
    chain = dense_network([FEATURES, 4, 3, OUTPUTS], "tanh", loss)
    net = recurrent_network(FEATURES, 1, (4, 3), OUTPUTS, (), "tanh", loss, every=every)
    weights = tuple(rng.normal(size=s) for s in chain.shapes)

    def looped(w, layer):
        return np.insert(w, [layer.in_features] * (layer.width if layer.recurrent else 0), 0.0, axis=1)

    mine = tuple(looped(w, layer) for w, layer in zip(weights, net.layers, strict=True))
    x = rng.normal(size=(40, FEATURES))
    y = rng.integers(0, OUTPUTS, 40) if loss == "cross_entropy" else rng.normal(size=(40, OUTPUTS))
    mu, settings = (0.5, 0.7, 0.9), NewtonSettings(newton_steps=2)
    l2 = L2(mu)
    (z, entered), (z_r, entered_r) = (
        enter_chunk(n, w, l2, Batch(x, y)) for n, w in ((chain, weights), (net, mine))
    )
    np.testing.assert_allclose(z_r, z, rtol=1e-13, atol=1e-13)
    new, visited = visit_chunk(chain, weights, l2, l2, Batch(x, y), z, settings, replace_all=False)
    new_r, visited_r = visit_chunk(net, mine, l2, l2, Batch(x, y), z_r, settings, replace_all=False)
    np.testing.assert_allclose(new_r, new, rtol=1e-10, atol=1e-12)
    entered.merge(visited.statistics)
    entered_r.merge(visited_r.statistics)
    for layer, (w, w_r) in enumerate(zip(weights, mine, strict=True)):
        solved = ridge_system(entered.gram[layer], 0.1).solve(entered.cross[layer], w)
        solved_r = ridge_system(entered_r.gram[layer], 0.1).solve(entered_r.cross[layer], w_r)
        np.testing.assert_allclose(solved_r, looped(solved, net.layers[layer]), rtol=1e-8, atol=1e-10)
    assert entered_r.objective(mine, mu, 0.1) == pytest.approx(entered.objective(weights, mu, 0.1), rel=1e-10)
    a = kfac_chunk(chain, weights, None, Batch(x, y), settings)
    b = kfac_chunk(net, mine, None, Batch(x, y), settings)
    for layer, (p, q) in enumerate(zip(a.negative_gradient, b.negative_gradient, strict=True)):
        np.testing.assert_allclose(q, looped(p, net.layers[layer]), rtol=1e-10, atol=1e-12)
    one, other = evaluate_chunk(net, mine, Batch(x, y)), evaluate_chunk(chain, weights, Batch(x, y))
    assert (one.samples, one.correct) == (other.samples, other.correct)
    assert one.loss == pytest.approx(other.loss, rel=1e-12)


# sequences of different lengths


@pytest.mark.parametrize("name", [n for n in NETWORKS if "lengths" in n])
def test_a_batch_of_different_lengths_equals_one_at_a_time(name):
    """Statistics after a z-update, increments and losses; the network of each has just its steps."""
    case = Case(name, 5)
    settings = NewtonSettings(newton_steps=2)
    l2 = L2(tuple(case.mu))
    z, _ = enter_chunk(case.network, case.weights, l2, case.batch)
    _, together = visit_chunk(case.network, case.weights, l2, l2, case.batch, z, settings, replace_all=True)
    pulled = kfac_chunk(case.network, case.weights, None, case.batch, settings)
    total, pull, loss = 0.0, [np.zeros_like(p) for p in pulled.negative_gradient], 0.0
    for k in range(N):
        length = int(case.lengths[k])
        alone = case.network.with_steps(length)
        x = case.inputs[k : k + 1, :length].reshape(1, -1)
        y = case.y[k : k + 1]
        if case.network.every:
            y = y.reshape(1, STEPS, -1)[:, :length]
            y = y[:, :, 0] if case.network.loss.target == "labels" else y.reshape(1, -1)
        batch = Batch(x, y, states=case.states[k : k + 1])
        z, _ = enter_chunk(alone, case.weights, l2, batch)
        _, own = visit_chunk(alone, case.weights, l2, l2, batch, z, settings, replace_all=True)
        total = total + own.vector
        own = kfac_chunk(alone, case.weights, None, batch, settings)
        pull = [a + b for a, b in zip(pull, own.negative_gradient, strict=True)]
        loss += evaluate_chunk(alone, case.weights, batch).loss
    np.testing.assert_allclose(together.vector, total, rtol=1e-9, atol=1e-10)
    for a, b in zip(pulled.negative_gradient, pull, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
    whole = evaluate_chunk(case.network, case.weights, case.batch)
    assert whole.loss == pytest.approx(loss, rel=1e-12)


def test_what_stands_in_the_padding_is_never_seen():
    case, other = Case("lengths, every step"), Case("lengths, every step")
    other.inputs[np.arange(STEPS) >= other.lengths[:, None]] = 1e6
    other.y[np.arange(STEPS) >= other.lengths[:, None]] = (
        1 - other.y[np.arange(STEPS) >= other.lengths[:, None]]
    )
    results = [kfac_chunk(c.network, c.weights, None, c.batch, CONVERGED, (1,)).vector for c in (case, other)]
    np.testing.assert_array_equal(*results)


def test_a_step_without_a_target_counts_for_nothing():
    case = Case("one layer, every step")
    y = case.y.copy()
    y[:, 2] = -1
    found = Pass.forward(case.network, case.weights, Batch(case.inputs, y))
    gradient = found.gradient.reshape(N, STEPS, OUTPUTS)
    assert not gradient[:, 2].any()
    full = Pass.forward(case.network, case.weights, case.batch)
    parts = full.gradient.reshape(N, STEPS, OUTPUTS) * STEPS / (STEPS - 1)
    np.testing.assert_allclose(np.delete(gradient, 2, 1), np.delete(parts, 2, 1), rtol=1e-12)


def test_float32_stays_float32():
    case = Case("two layers and a head, every step", dtype=np.float32)
    result = update(case.network, case.weights, case.mu, case.batch, case.z, NewtonSettings())
    assert {a.dtype for a in (*result.end.z, *result.end.residuals, result.end.loss)} == {
        np.dtype(np.float32)
    }
    double = Case("two layers and a head, every step")
    exact = update(double.network, double.weights, double.mu, double.batch, double.z, NewtonSettings())
    np.testing.assert_allclose(result.objective_after, exact.objective_after, rtol=1e-4)


# sequences cut along time


@pytest.mark.parametrize("cut", [1, 3])
def test_the_state_is_handed_over(cut):
    case = Case("two layers and a head, every step")
    whole = case.network.predict(case.weights, case.batch).reshape(N, STEPS, OUTPUTS)
    first, second = (
        np.ascontiguousarray(part).reshape(N, -1) for part in np.split(case.inputs, [cut], axis=1)
    )
    states = case.network.with_steps(cut).states_after(case.weights, Batch(first))
    rest = case.network.with_steps(STEPS - cut)
    found = rest.predict(case.weights, Batch(second, states=states))
    np.testing.assert_allclose(found.reshape(N, STEPS - cut, OUTPUTS), whole[:, cut:], rtol=1e-12)


def test_states_after_sequences_of_different_lengths():
    case = Case("lengths, last step")
    states = case.network.states_after(case.weights, case.batch)
    for k in range(N):
        z = naive(case, k, None)[2]
        expected = np.concatenate([np.tanh(z[0][-1]), np.tanh(z[1][-1])])
        np.testing.assert_allclose(states[k], expected, rtol=1e-12)


# building


def test_initial_weights():
    net = recurrent_network(6, 4, (5, 7), 3, (4,), "tanh")
    weights = net.initial_weights(0, np.float64)
    for layer, w in zip(net.layers, weights, strict=True):
        assert w.shape == (layer.width, layer.inputs)
        assert not w[:, -1].any()
        if layer.recurrent:
            v = w[:, layer.in_features : -1]
            np.testing.assert_allclose(v @ v.T, np.eye(layer.width), atol=1e-12)
    identity = recurrent_network(6, 4, (5, 7), 3, (4,), recurrent_init="identity").initial_weights(
        0, np.float64
    )
    np.testing.assert_array_equal(identity[0][:, 6:-1], np.eye(5))
    np.testing.assert_array_equal(net.initial_weights(0)[0], weights[0].astype(np.float32))


@every_network
def test_a_description_makes_the_network_again(name):
    network = Case(name).network
    assert build_network(network.describe()) == network


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((3, 5, (), 2), "needs at least one recurrent layer"),
        ((3, 0, (4,), 2), "steps of a recurrent network is 0; it must be at least 1"),
        ((3, 5, (4, 0), 2), "layer 2 of a recurrent network is 0"),
        ((3, 5, (4,), 2, (3,), ["tanh"]), "1 activations were given for 2 hidden layers"),
    ],
)
def test_what_cannot_be_built(arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        recurrent_network(*arguments)


def test_the_slope_is_that_of_f_along_the_step():
    case = Case("lengths and states", 4)
    step = gauss_newton_step(case.network, case.weights, case.mu, case.point(), case.targets, CONVERGED)
    delta, slope = step.delta, step.slope

    def f(t):
        return objective(case.point([z + t * d for z, d in zip(case.z, delta, strict=True)]), case.mu)

    np.testing.assert_allclose((f(1e-5) - f(-1e-5)) / 2e-5, slope, rtol=1e-5)


def test_layers_of_a_chunk_stand_side_by_side():
    case = Case("two layers, last step")
    z, statistics = enter_chunk(case.network, case.weights, L2(tuple(case.mu)), case.batch)
    for mine, expected in zip(
        split_layers(z, case.network.widths), case.network.forward(case.weights, case.batch), strict=True
    ):
        np.testing.assert_allclose(mine, expected, rtol=1e-13)
    assert statistics.residual_squares(case.weights) == pytest.approx(0, abs=1e-9)
