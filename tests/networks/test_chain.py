"""The chain: forward pass, residuals, the tangent map and its adjoint, initial weights, settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import NAIVE, NETWORKS, PAIRINGS, cases, flat, make_case, naive_loss, split

from altmin_dask.errors import ConfigError
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.network import build_network
from altmin_dask.networks.workspace import Workspace
from altmin_dask.types import Batch

every_network = pytest.mark.parametrize(("sizes", "activations"), NETWORKS.values(), ids=NETWORKS)


def plain_forward(case):
    """A loop over samples and layers."""
    rows = []
    for x in case.x.reshape(len(case.x), -1):
        a, z = x, []
        for i, w in enumerate(case.weights):
            z.append(w[:, :-1] @ a + w[:, -1])
            if i < len(case.network.activations):
                a = NAIVE[case.network.activations[i].name][0](z[-1])
        rows.append(np.concatenate(z))
    return np.array(rows)


@every_network
def test_forward_is_a_plain_loop(sizes, activations):
    case = make_case(sizes, activations)
    z = case.network.forward(case.weights, case.batch)
    assert [layer.shape for layer in z] == [(6, d) for d in sizes[1:]]
    np.testing.assert_allclose(flat(z), plain_forward(case), rtol=1e-12, atol=1e-13)


def test_samples_of_any_rank_and_type():
    case = make_case((12, 5, 3), ("tanh",))
    pixels = np.random.default_rng(0).integers(256, size=(6, 3, 4), dtype=np.uint8)
    expected = case.network.forward(case.weights, Batch(pixels.reshape(6, 12).astype(float)))
    for mine, theirs in zip(case.network.forward(case.weights, Batch(pixels)), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    single = tuple(w.astype(np.float32) for w in case.weights)
    assert {z.dtype for z in case.network.forward(single, Batch(pixels))} == {np.dtype(np.float32)}


def test_the_first_inputs_are_augmented_samples():
    x = np.arange(12).reshape(2, 3, 2)
    inputs = dense_network((6, 1)).first_inputs(Batch(x), np.float32, Workspace())
    np.testing.assert_array_equal(inputs[1], [6, 7, 8, 9, 10, 11, 1])
    assert inputs.dtype == np.float32


@pytest.mark.parametrize(("loss", "output"), PAIRINGS)
def test_predict_is_the_output_of_a_forward_pass(loss, output):
    case = make_case((4, 5, 3), ("relu",), loss, output)
    z = case.network.forward(case.weights, case.batch)[-1]
    np.testing.assert_array_equal(
        case.network.predict(case.weights, case.batch), case.network.loss.predict(z)
    )


@every_network
def test_residuals_vanish_on_a_forward_pass_and_only_there(sizes, activations):
    case = make_case(sizes, activations)
    z = case.network.forward(case.weights, case.batch)
    np.testing.assert_allclose(flat(case.point(z).residuals), 0, atol=1e-14)
    for layer in range(len(z)):
        moved = [part + (index == layer) for index, part in enumerate(z)]
        residuals = case.point(moved).residuals
        np.testing.assert_allclose(residuals[layer], 1, rtol=1e-12)
        for index, residual in enumerate(residuals):
            if index not in (layer, layer + 1):
                np.testing.assert_allclose(residual, 0, atol=1e-14)


@given(case=cases(max_spread=30))
@settings(max_examples=50, deadline=None)
def test_evaluate_agrees_with_the_definition(case):
    point = case.point()
    np.testing.assert_allclose(point.loss, naive_loss(case, case.z[-1]), rtol=1e-12, atol=1e-12)
    a = case.x
    for i, (inputs, residual) in enumerate(zip(point.inputs, point.residuals, strict=True)):
        np.testing.assert_allclose(inputs[:, :-1], a, rtol=1e-13, atol=1e-300)
        np.testing.assert_array_equal(inputs[:, -1], 1)
        expected = case.z[i] - a @ case.weights[i][:, :-1].T - case.weights[i][:, -1]
        scale = 1 + np.abs(case.z[i]).max() + np.abs(a).max()
        np.testing.assert_allclose(residual, expected, rtol=1e-12, atol=1e-13 * scale)
        if i < len(case.network.activations):
            a = NAIVE[case.network.activations[i].name][0](case.z[i])


def test_point_assign_takes_rows():
    case = make_case((5, 4, 3), ("tanh",), "cross_entropy")
    here, there = case.point(), case.point(case.network.forward(case.weights, case.batch))
    mixed = case.point([z.copy() for z in case.z])
    mixed.assign(np.array([4, 0]), there, np.array([4, 0]))
    for name in ("z", "inputs", "residuals", "output", "loss"):
        parts = zip(*(_as_list(getattr(point, name)) for point in (mixed, here, there)), strict=True)
        for mine, old, new in parts:
            np.testing.assert_array_equal(mine[[4, 0]], new[[4, 0]])
            np.testing.assert_array_equal(mine[[1, 2, 3, 5]], old[[1, 2, 3, 5]])


def _as_list(value):
    return value if isinstance(value, list) else [value]


# the linearisation


def hidden_steps(case, rng):
    """A random residual step u_1 … u_{L−1} in scaled coordinates, and penalties m."""
    m = list(rng.uniform(0.01, 10, len(case.network.widths)))
    return m, [rng.normal(size=z.shape) for z in case.z[:-1]]


@given(case=cases(max_spread=30), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_adjoint_is_the_transpose_of_the_tangent(case, seed):
    if not case.network.activations:
        return
    rng = np.random.default_rng(seed)
    m, u = hidden_steps(case, rng)
    linear = case.network.linearise(case.weights, case.point(), m)
    h = rng.normal(size=case.z[-1].shape)
    _, e = linear.tangent([part.copy() for part in u])
    back = linear.adjoint(h.copy())
    assert len(back) == len(u)
    left = np.vecdot(e, h)
    right = sum(np.vecdot(a, b) for a, b in zip(u, back, strict=True))
    scale = np.linalg.norm(e, axis=1) * np.linalg.norm(h, axis=1) + sum(
        np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1) for a, b in zip(u, back, strict=True)
    )
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-12 * scale.max() + 1e-300)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "one-layer"])
def test_tangent_is_the_derivative_of_the_residuals(name):
    """Moving z along the steps of a tangent sweep changes each hidden residual by s, and the last by −e."""
    case = make_case(*NETWORKS[name])
    rng = np.random.default_rng(1)
    m, u = hidden_steps(case, rng)
    steps, e = case.network.linearise(case.weights, case.point(), m).tangent([part.copy() for part in u])
    delta = [step / np.sqrt(m[layer]) for layer, step in enumerate(steps)]
    delta.append(np.zeros_like(case.z[-1]))
    h = 1e-6
    plus, minus = (
        case.point([z + sign * h * d for z, d in zip(case.z, delta, strict=True)]).residuals
        for sign in (1, -1)
    )
    change = [(p - q) / (2 * h) for p, q in zip(plus, minus, strict=True)]
    for layer, part in enumerate(u):
        np.testing.assert_allclose(change[layer], part / np.sqrt(m[layer]), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(change[-1], -e, rtol=1e-6, atol=1e-7)


# initial weights


@pytest.mark.parametrize(
    ("activation", "limit"),
    [("sigmoid", np.sqrt(6 / 500)), ("tanh", np.sqrt(6 / 500)), ("relu", np.sqrt(6 / 300))],
)
def test_initial_weights_follow_the_rule(activation, limit):
    first, last = dense_network((300, 200, 100), activation).initial_weights(3, np.float64)
    assert np.abs(first[:, :-1]).max() <= limit
    # uniform: mean 0 and variance limit² / 3, within five standard errors of 60,000 draws
    assert abs(first[:, :-1].mean()) < 5 * limit / np.sqrt(3 * 60_000)
    np.testing.assert_allclose(first[:, :-1].var(), limit**2 / 3, rtol=5 * np.sqrt(0.8 / 60_000))
    # the output layer is Glorot whatever comes before it
    np.testing.assert_allclose(last[:, :-1].var(), 2 / 300, rtol=5 * np.sqrt(0.8 / 20_000))
    for layer in (first, last):
        np.testing.assert_array_equal(layer[:, -1], 0)


def test_seeding():
    network = dense_network((4, 5, 3), "tanh")
    one, again, other = (network.initial_weights(seed, np.float64) for seed in (1, 1, 2))
    for a, b, c in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a[:, :-1] != c[:, :-1]).all()
    single = network.initial_weights(1)
    for a, b in zip(one, single, strict=True):
        assert b.dtype == np.float32
        np.testing.assert_array_equal(a.astype(np.float32), b)
    drawn = network.initial_weights(np.random.default_rng(1), np.float64)
    np.testing.assert_array_equal(drawn[1], one[1])
    assert [w.shape for w in one] == list(network.shapes) == [(5, 5), (3, 6)]
    assert network.widths == (5, 3)


# settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4,),), "input and an output"),
        (((4, 0, 3),), "layer 1 has width 0"),
        (((-1, 3),), "layer 0 has width -1"),
        (((4, 5, 3), ["relu", "tanh"]), "2 activations were given for 1 hidden"),
        (((4, 5, 6, 3), ["relu"]), "1 activations were given for 2 hidden"),
        (((4, 5, 3), "swish"), "'swish' is unknown"),
        (((4, 5, 3), "tanh", "huber"), "'huber' is unknown"),
        (((4, 5, 3), "tanh", "cross_entropy", "sigmoid"), "'cross_entropy' goes with"),
    ],
)
def test_impossible_chains_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        dense_network(*arguments)


@given(case=cases())
@settings(max_examples=50, deadline=None)
def test_a_description_builds_the_same_chain(case):
    description = json.loads(json.dumps(case.network.describe()))
    rebuilt = build_network(description)
    assert rebuilt.describe() == case.network.describe()
    assert rebuilt == case.network
    np.testing.assert_array_equal(
        rebuilt.predict(case.weights, case.batch), case.network.predict(case.weights, case.batch)
    )


def test_one_activation_name_serves_all_hidden_layers():
    chain = dense_network((2, 3, 4, 5), "relu", "squared", "sigmoid")
    assert [a.name for a in chain.activations] == ["relu", "relu"]
    assert chain.loss.output_activation == "sigmoid"
    assert dense_network((2, 5), "relu").activations == ()


def test_flat_and_split_are_inverse():
    case = make_case((3, 5, 2, 4), ("relu", "tanh"))
    for mine, theirs in zip(split(flat(case.z), case.network), case.z, strict=True):
        np.testing.assert_array_equal(mine, theirs)
