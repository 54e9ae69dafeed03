"""The nested network's derivatives, against finite differences and dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from zoo import NETWORKS, PAIRINGS, Case, cases, make_case

from altmin_dask.networks.losses import Curvature
from altmin_dask.networks.nested import Pass
from altmin_dask.types import Weights


def passed(case: Case, weights: Weights | None = None) -> Pass:
    weights = case.weights if weights is None else weights
    return Pass.forward(case.network, weights, case.batch)


def random_change(case: Case, seed: int = 1) -> Weights:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=w.shape) for w in case.weights)


def along(case: Case, change: Weights, step: float) -> Weights:
    return tuple(w + step * d for w, d in zip(case.weights, change, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("loss", "output"), PAIRINGS)
def test_forward_and_gradient(name, loss, output):
    case = make_case(*NETWORKS[name], loss=loss, output=output, seed=2)
    found = passed(case)
    z = case.network.forward(case.weights, case.batch)
    assert np.allclose(found.output, case.network.loss.predict(z[-1].copy()), rtol=1e-12)
    value = case.network.loss.value(z[-1], case.network.loss.predict(z[-1].copy()), case.targets)
    assert np.allclose(found.loss, value, rtol=1e-12)
    change = random_change(case)
    # kinks: a step so small that no rectifier changes sides
    slope = (
        passed(case, along(case, change, 1e-6)).loss - passed(case, along(case, change, -1e-6)).loss
    ) / 2e-6
    back = found.backward(found.gradient)
    exact = sum(((g @ d) * a).sum(axis=1) for g, d, a in zip(back, change, found.inputs, strict=True))
    assert np.allclose(exact, slope, rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(case=cases(max_spread=1.0))
def test_directional_and_backward_are_adjoint(case):
    found, change = passed(case), random_change(case)
    rows = np.random.default_rng(3).normal(size=found.output.shape)
    forward = np.vdot(rows, found.directional(change))
    back = found.backward(rows.copy())
    total = sum(float(np.vdot(g.T @ a, d)) for g, a, d in zip(back, found.inputs, change, strict=True))
    scale = 1 + sum(float(np.abs(g.T @ a).sum()) for g, a in zip(back, found.inputs, strict=True))
    assert abs(forward - total) <= 1e-10 * scale


def test_directional_is_a_derivative():
    case = make_case((4, 3, 5, 2), ("tanh", "sigmoid"), seed=4)
    change = random_change(case)
    plus, minus = (case.network.forward(along(case, change, h), case.batch)[-1] for h in (1e-6, -1e-6))
    assert np.allclose(passed(case).directional(change), (plus - minus) / 2e-6, atol=1e-8)


@pytest.mark.parametrize("centred", [False, True])
def test_samples_have_the_curvature_as_covariance(centred):
    rng = np.random.default_rng(0)
    q = np.tile(rng.uniform(0, 1, 4), (200_000, 1))
    noise = rng.choice([-1.0, 1.0], q.shape)
    curvature = Curvature(q, centred)
    u = curvature.sample(noise)
    expected = curvature[:4].apply(np.eye(4))
    assert np.allclose(u.T @ u / len(u), expected, atol=6e-3)
    assert np.abs(noise).max() == 1  # left as it was
