"""Sequences of one step, of different lengths, in pieces; what networks of them are made of."""

from __future__ import annotations

import numpy as np
import pytest
from recurrent_cases import (
    CONVERGED,
    FEATURES,
    NETWORKS,
    OUTPUTS,
    STEPS,
    Case,
    N,
    every_network,
    naive,
)

from altmin_dask.errors import ConfigError
from altmin_dask.networks.builders import dense_network, recurrent_network
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import build_network
from altmin_dask.solvers.evaluation import evaluate_chunk
from altmin_dask.solvers.gauss_newton import gauss_newton_step, objective, update
from altmin_dask.solvers.kernels import enter_chunk, kfac_chunk, visit_chunk
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.packing import split_layers
from altmin_dask.solvers.penalties import L2
from altmin_dask.solvers.ridge import ridge_system
from altmin_dask.types import Batch


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
