"""What the default is: the limit of exact constraints, whose step of W is K-FAC's, against plain dense algebra.

Where z is best for given W, ∂F/∂z_L = g_L + 2μ_L r_L = 0 and ∂F/∂z_i = 2μ_i r_i − D_i W_{i+1}ᵀ 2μ_{i+1} r_{i+1} = 0. So
p_i = 2μ_i r_i obeys p_L = −g_L, p_i = D_i W_{i+1}ᵀ p_{i+1}: backpropagation at that z. As μ → ∞, r_i = p_i/2μ_i → 0,
z is the forward pass, p_i = −∂ℓ/∂z_i, and 2μ_i Σ r_i ãᵀ is the negative gradient of the nested loss. Nothing here uses
the package's own forward, backward or tangent sweeps as the oracle.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from zoo import make_case

from altmin_dask.solvers.gauss_newton import update
from altmin_dask.solvers.kernels import kfac_chunk
from altmin_dask.solvers.kfac import KFACSettings, KFACState
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.preconditioner import KroneckerPreconditioner
from altmin_dask.types import Batch

RELATIVE_MU = np.array([0.5, 2.0, 1.0])
"""Of the three layers: in the limit it does not matter."""
TO_THE_END = NewtonSettings(newton_steps=30, cg_iterations=20)
LOSSES = pytest.mark.parametrize(("loss", "output"), [("squared", "sigmoid"), ("cross_entropy", None)])


def problem(loss, output, n=7):
    case = make_case((5, 4, 6, 3), ("tanh", "sigmoid"), loss, output, n=n, seed=4)
    return case.network, case.weights, case.x, case.y


def slopes(z):
    """φ_1'(z_1) and φ_2'(z_2)."""
    return [1 - np.tanh(z[0]) ** 2, expit(z[1]) * (1 - expit(z[1]))]


def forward(weights, x):
    """ã_0, ã_1, ã_2, and z_1, z_2, z_3, row by row."""
    inputs, z = [], []
    for w, activation in zip(weights, (np.tanh, expit, None), strict=True):
        inputs.append(np.column_stack([x, np.ones(len(x))]))
        z.append(inputs[-1] @ w.T)
        x = activation(z[-1]) if activation else None
    return inputs, z


def output_gradient(loss, z, y):
    """∂ℓ/∂z_L."""
    if loss == "cross_entropy":
        return softmax(z, axis=1) - np.eye(z.shape[1])[y]
    a = expit(z)
    return (a - y) * a * (1 - a)


def output_curvature(loss, z):
    """The Gauss–Newton H of ℓ in z_L, of one sample."""
    if loss == "cross_entropy":
        p = softmax(z)
        return np.diag(p) - np.outer(p, p)
    return np.diag((expit(z) * (1 - expit(z))) ** 2)


def backpropagated(weights, z, last):
    """v_L = last, v_i = D_i W_{i+1}ᵀ v_{i+1}."""
    found = [last]
    for w, slope in zip(weights[:0:-1], slopes(z)[::-1], strict=True):
        found.insert(0, slope * (found[0] @ w[:, :-1]))
    return found


def factors(loss, weights, x):
    """Ḡ_i and S̄_i of all layers from one dense Jacobian a sample."""
    inputs, z = forward(weights, x)
    grams = [layer.T @ layer / len(x) for layer in inputs]
    metrics = [np.zeros((len(w), len(w))) for w in weights]
    for k in range(len(x)):
        rows = [np.tile(layer[k], (len(weights[-1]), 1)) for layer in z]
        jacobians = backpropagated(weights, rows, np.eye(len(weights[-1])))  # ∂z_L/∂z_i, (d_L, d_i)
        h = output_curvature(loss, z[-1][k])
        for total, jacobian in zip(metrics, jacobians, strict=True):
            total += jacobian.T @ h @ jacobian / len(x)
    return grams, metrics


@LOSSES
def test_what_residuals_pull_with_is_backpropagated_at_the_z_that_is_best(loss, output):
    network, weights, x, y = problem(loss, output)
    mu = list(3 * RELATIVE_MU)
    end = update(network, weights, mu, Batch(x, y), network.forward(weights, Batch(x)), TO_THE_END).end
    pulls = [2 * m * r for m, r in zip(mu, end.residuals, strict=True)]
    expected = backpropagated(weights, end.z, -output_gradient(loss, end.z[-1], y))
    for pull, backward in zip(pulls, expected, strict=True):
        assert np.abs(pull - backward).max() < 1e-6 * np.abs(backward).max()
    # and that is not the gradient of the nested loss yet
    _, z = forward(weights, x)
    nested = backpropagated(weights, z, -output_gradient(loss, z[-1], y))
    assert np.abs(pulls[0] - nested[0]).max() > 1e-3 * np.abs(nested[0]).max()


@LOSSES
def test_the_pull_of_large_penalties_is_the_gradient_of_the_nested_loss_up_to_one_over_mu(loss, output):
    network, weights, x, y = problem(loss, output)
    inputs, z = forward(weights, x)
    nested = backpropagated(weights, z, -output_gradient(loss, z[-1], y))
    errors = []
    for scale in (1e2, 1e3, 1e4):  # beyond, the z-step ends where F no longer tells
        mu = list(scale * RELATIVE_MU)
        end = update(network, weights, mu, Batch(x, y), network.forward(weights, Batch(x)), TO_THE_END).end
        errors.append(
            max(
                np.abs(2 * m * r - v).max() / np.abs(v).max()
                for m, r, v in zip(mu, end.residuals, nested, strict=True)
            )
        )
    assert errors[0] < 0.1
    assert np.array(errors[:-1]) / errors[1:] == pytest.approx(10.0, rel=0.15)
    limit = kfac_chunk(network, weights, None, Batch(x, y), NewtonSettings())
    for pull, v, layer in zip(limit.negative_gradient, nested, inputs, strict=True):
        np.testing.assert_allclose(pull, v.T @ layer, rtol=1e-10, atol=1e-13)


@LOSSES
@pytest.mark.parametrize("sigma", [0.003, 10.0])
def test_the_step_of_w_is_in_the_direction_of_kfac(loss, output, sigma):
    network, weights, x, y = problem(loss, output)
    share = 0.07
    grams, metrics = factors(loss, weights, x)
    memory = KFACState(
        [np.tril(g) for g in grams], [np.tril(s) for s in metrics], weights, weights, curvature_updates=1
    )
    ascent = kfac_chunk(network, weights, None, Batch(x, y), NewtonSettings())
    inputs, z = forward(weights, x)
    nested = backpropagated(weights, z, -output_gradient(loss, z[-1], y))
    directions = KroneckerPreconditioner(memory, KFACSettings(share, sigma)).direction(ascent, weights)
    for d, g, s, v, layer in zip(directions, grams, metrics, nested, inputs, strict=True):
        right = np.linalg.inv(g + share * np.trace(g) / len(g) * np.eye(len(g)))
        left = np.linalg.inv(s + sigma * np.eye(len(s)))
        p = v.T @ layer / len(x)
        dense = np.kron(right, left) @ p.ravel(order="F")
        np.testing.assert_allclose(d.ravel(order="F"), dense, rtol=1e-8, atol=1e-12)


@LOSSES
def test_the_kronecker_product_is_the_gauss_newton_matrix_of_one_sample_and_near_it_for_many(loss, output):
    """Of one layer's W̃; for many samples it takes inputs and curvature for independent, which is K-FAC's step."""
    _, weights, x, _ = problem(loss, output, n=40)
    for rows, exact in ((x[:1], True), (x, False)):
        grams, metrics = factors(loss, weights, rows)
        for layer, w in enumerate(weights):
            dense = np.zeros((w.size, w.size))
            for k in range(len(rows)):
                jacobian = np.empty((len(weights[-1]), w.size))
                for place in range(w.size):  # column-major, by central differences
                    change = np.zeros(w.size)
                    change[place] = 1e-5
                    ends = []
                    for sign in (1, -1):
                        moved = list(weights)
                        moved[layer] = w + sign * change.reshape(w.shape, order="F")
                        ends.append(forward(moved, rows[k : k + 1])[1][-1][0])
                    jacobian[:, place] = (ends[0] - ends[1]) / 2e-5
                h = output_curvature(loss, forward(weights, rows[k : k + 1])[1][-1][0])
                dense += jacobian.T @ h @ jacobian / len(rows)
            error = np.abs(np.kron(grams[layer], metrics[layer]) - dense).max() / np.abs(dense).max()
            assert (error < 1e-6) if exact else (1e-6 < error < 1)
