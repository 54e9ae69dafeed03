"""Layers of one unit, whose columns of z have strides of any size: everything a run does, against plain float64.

z of all layers stand side by side in the rows of one array, so the stride of a layer of one unit is the sum of all
widths: 8 for 4-1-6-1. NumPy's loops for such strides are their own, and one of them errs (CONTRIBUTING.md).
"""

from __future__ import annotations

import numpy as np
import pytest
from choices import slow_but
from zoo import (
    ACTIVATION_NAMES,
    NAIVE,
    PAIRINGS,
    Case,
    flat,
    make_case,
    naive_derivatives,
    naive_loss,
    naive_objective,
    split,
)

from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.kernels import enter_chunk, kfac_chunk, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.penalties import L2
from altmin_dask.types import Batch

SIZES = [
    (1, 1),
    (5, 1),
    (3, 1, 3),
    (4, 1, 6, 1),
    (3, 1, 1, 1, 4),
    (2, 7, 1),
    (1, 1, 1),
    (6, 2, 1, 5),
    (3, 15, 1),
]
CONVERGED = NewtonSettings(cg_iterations=20)
N = 9

both_dtypes = pytest.mark.parametrize("dtype", slow_but([np.float32], [np.float32, np.float64]))


def doubled(case: Case) -> Case:
    """The same numbers in float64."""
    y = case.y if case.network.loss.target == "labels" else case.y.astype(np.float64)
    weights = tuple(w.astype(np.float64) for w in case.weights)
    z = [layer.astype(np.float64) for layer in case.z]
    return Case(case.network, weights, case.x.astype(np.float64), y, z, case.mu)


def forward(case: Case, weights) -> list[np.ndarray]:
    """A forward pass by the definition."""
    a, z = case.x, []
    for i, w in enumerate(weights):
        z.append(a @ w[:, :-1].T + w[:, -1])
        if i + 1 < len(weights):
            a = NAIVE[case.network.activations[i].name][0](z[-1])
    return z


def damped_step(case: Case, k: int, armijo: float = 0.2, backtrack: float = 0.25) -> np.ndarray:
    """z of sample k after a Gauss–Newton step, cut until F falls by enough."""
    gradient, matrix, _ = naive_derivatives(case, k)
    step, one, t = np.linalg.solve(matrix, -gradient), case.rows(slice(k, k + 1)), 1.0
    start = flat(one.z)
    for _ in range(11):
        moved = start + t * step
        if one.f(split(moved, case.network))[0] <= one.f()[0] + armijo * t * gradient @ step:
            return moved[0]
        t *= backtrack
    return start[0]


def cases():
    """Every place for one unit with every activation, and every loss."""
    for sizes in SIZES:
        for number, activation in enumerate(ACTIVATION_NAMES if len(sizes) > 2 else ("identity",)):
            loss, output = PAIRINGS[(number + len(sizes) * sizes[0]) % len(PAIRINGS)]
            yield sizes, activation, loss, output
    for loss, output in PAIRINGS:
        yield (4, 1, 6, 1), "sigmoid", loss, output
        yield (3, 1, 3), "sigmoid", loss, output
        yield (6, 1), "sigmoid", loss, output


every_case = pytest.mark.parametrize(
    ("sizes", "activation", "loss", "output"),
    sorted(set(cases())),
    ids=lambda part: "-".join(map(str, part)) if isinstance(part, tuple) else part,
)


@both_dtypes
@every_case
def test_a_chain_with_one_unit_is_the_definition(sizes, activation, loss, output, dtype):
    """Entering, a z-update, its statistics, the objective of any weights, the nested loss and its gradient."""
    hidden = [activation] * (len(sizes) - 2)
    case = make_case(sizes, hidden, loss, output, n=N, seed=sum(sizes), spread=0.5, dtype=dtype)
    true, near = doubled(case), 40 * float(np.finfo(dtype).eps)
    arguments = case.network, case.weights

    l2 = L2(case.mu)
    z, _ = enter_chunk(*arguments, l2, case.batch)
    entered = flat(forward(true, true.weights))
    np.testing.assert_allclose(z, entered, rtol=0, atol=near * (1 + np.abs(entered).max()))

    z = flat(case.z)
    moved, sums = visit_chunk(*arguments, l2, l2, case.batch, z, CONVERGED, replace_all=True)
    statistics = sums.statistics
    expected = np.array([damped_step(true, k) for k in range(N)])
    # of the condition of a step not more than this, in these cases
    np.testing.assert_allclose(moved, expected, rtol=0, atol=100 * near * (1 + np.abs(expected).max()))

    f = naive_objective(true, split(moved.astype(np.float64), case.network))
    assert statistics.diagnostics[0] == pytest.approx(f.sum(), rel=near)
    after = Case(
        case.network, true.weights, true.x, true.y, split(moved.astype(float), case.network), case.mu
    )
    other = tuple(w + 0.1 for w in true.weights)
    statistics.gram[0] = augmented_gram(true.x)
    for weights in (true.weights, other):
        after.weights = weights
        mean = statistics.objective(weights, case.mu, 0.0)
        assert mean == pytest.approx(naive_objective(after, after.z).mean(), rel=100 * near)

    nested = evaluate_chunk(*arguments, case.batch)

    def mean_loss(weights):
        return naive_objective(true, forward(true, weights)).sum()

    assert nested.loss == pytest.approx(mean_loss(true.weights), rel=near)
    pull = kfac_chunk(*arguments, None, case.batch, CONVERGED).negative_gradient
    for layer, w in enumerate(true.weights):
        for at in np.ndindex(w.shape):
            step = np.zeros_like(w)
            step[at] = 1e-5
            ahead, behind = (
                mean_loss([*true.weights[:layer], w + s * step, *true.weights[layer + 1 :]]) for s in (1, -1)
            )
            scale = max(float(np.abs(p).max()) for p in pull)
            assert pull[layer][at] == pytest.approx((behind - ahead) / 2e-5, abs=(1e-6 + near) * (1 + scale))


def augmented_gram(x):
    x = np.column_stack([x, np.ones(len(x))])
    return x.T @ x


def recurrent_f(network, weights, x, y, z, mu) -> np.ndarray:
    """F_k of a recurrent network, step by step, in float64; a forward pass where z is None, which it fills in."""
    total = np.zeros(len(x))
    for k in range(len(x)):
        below = list(x[k].reshape(network.sequence_steps, -1))
        for i, (layer, w) in enumerate(zip(network.layers, weights, strict=True)):
            values, state = [], np.zeros(layer.width)
            for t, a in enumerate(below[-layer.steps :]):
                drive = w[:, : layer.in_features] @ a + w[:, -1]
                if layer.recurrent:
                    drive = drive + w[:, layer.in_features : -1] @ state
                own = z[i][k].reshape(layer.steps, -1)
                if mu is None:
                    own[t] = drive
                else:
                    total[k] += mu[i] * np.sum((own[t] - drive) ** 2)
                if i + 1 < len(weights):
                    state = NAIVE[network.activations[i].name][0](own[t])
                values.append(state)
            below = values
    last = network.layers[-1]
    outputs = dense_network((1, last.width), [], network.loss.name, network.loss.output_activation)
    rows = Case(
        outputs, (), np.zeros((len(x) * last.steps, 1)), y.reshape(len(x) * last.steps, *y.shape[2:]), [], []
    )
    return total + naive_loss(rows, z[-1].reshape(-1, last.width)).reshape(len(x), -1).mean(axis=1)


@both_dtypes
@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize(
    ("activation", "loss", "output"),
    [(name, *PAIRINGS[number]) for number, name in enumerate(ACTIVATION_NAMES)]
    + [("sigmoid", *pairing) for pairing in PAIRINGS],
)
@pytest.mark.parametrize(("widths", "head"), [((1,), ()), ((1, 2), (1,)), ((3, 1), ())])
def test_a_recurrent_network_with_one_unit_is_the_definition(
    widths, head, activation, loss, output, every, dtype
):
    rng = np.random.default_rng(3)
    network = recurrent_network(1, 4, widths, 1, head, activation, loss, output, every=every)
    weights = tuple((w + 0.3 * rng.normal(size=w.shape)).astype(dtype) for w in network.initial_weights(0))
    true, near = tuple(w.astype(np.float64) for w in weights), 40 * float(np.finfo(dtype).eps)
    x = rng.normal(size=(N, 4)).astype(dtype)
    shape = (N, network.layers[-1].steps, 1)
    given = np.zeros(shape[:2], int) if loss == "cross_entropy" else rng.uniform(size=shape).astype(dtype)
    y = given.reshape(N, -1) if every or loss != "cross_entropy" else given[:, 0]
    z = [np.zeros((N, d)) for d in network.widths]
    double = given if loss == "cross_entropy" else given.astype(np.float64)

    nested = recurrent_f(network, true, x.astype(np.float64), double, z, None)
    assert evaluate_chunk(network, weights, Batch(x, y)).loss == pytest.approx(
        nested.sum(), rel=near, abs=near
    )
    mu = [0.5 + 0.25 * i for i in range(len(weights))]
    l2 = L2(tuple(mu))
    entered, _ = enter_chunk(network, weights, l2, Batch(x, y))
    np.testing.assert_allclose(entered, flat(z), rtol=near, atol=near)

    start = (flat(z) + 0.3 * rng.normal(size=flat(z).shape)).astype(dtype)
    parts = np.cumsum(network.widths)[:-1]
    before = recurrent_f(
        network, true, x.astype(np.float64), double, np.split(start.astype(float), parts, axis=1), mu
    )
    moved, sums = visit_chunk(network, weights, l2, l2, Batch(x, y), start, CONVERGED, replace_all=True)
    statistics = sums.statistics
    layers = np.split(moved.astype(np.float64), parts, axis=1)
    after = recurrent_f(network, true, x.astype(np.float64), double, layers, mu)
    assert (after < before).all()
    assert statistics.diagnostics[0] == pytest.approx(after.sum(), rel=near)
    other = tuple(w + 0.1 for w in true)
    expected = recurrent_f(network, other, x.astype(np.float64), double, layers, mu).mean()
    assert statistics.objective(other, mu, 0.0) == pytest.approx(expected, rel=100 * near)
