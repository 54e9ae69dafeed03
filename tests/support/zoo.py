"""Small networks, random data for them, and the plainest possible versions of the project's formulas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from scipy.special import erfc, expit, log_softmax, softmax

from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.builders import dense_network
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.network import Network
from altmin_dask.networks.point import Point
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.ridge import ridge_system
from altmin_dask.types import Batch, Weights

ACTIVATION_NAMES = tuple(ACTIVATIONS)

# Every pairing of loss and output activation.
PAIRINGS = (
    *(("squared", name) for name in ACTIVATION_NAMES),
    ("binary_cross_entropy", "sigmoid"),
    ("cross_entropy", "softmax"),
)

# Sizes and hidden activations: L = 1 … 4, widths that differ, a scalar output.
NETWORKS = {
    "one-layer": ((4, 3), ()),
    "two-layers": ((5, 4, 3), ("sigmoid",)),
    "auto-encoder": ((6, 3, 6), ("tanh",)),
    "scalar-output": ((3, 7, 1), ("softplus",)),
    "three-layers": ((3, 5, 2, 4), ("relu", "tanh")),
    "four-layers": ((4, 3, 5, 6, 2), ("softplus", "leaky_relu", "sigmoid")),
}


@dataclass
class Case:
    """A network with weights and a block of samples: everything a z-update takes."""

    network: Network
    weights: Weights
    x: np.ndarray
    y: np.ndarray
    z: list[np.ndarray]
    mu: list[float]

    @property
    def batch(self) -> Batch:
        """The samples with their targets."""
        return Batch(self.x, self.y)

    @property
    def targets(self) -> Targets:
        """The targets as losses take them."""
        return self.network.loss.targets(self.batch, self.weights[0].dtype)

    def point(self, z: list[np.ndarray] | None = None) -> Point:
        """The network evaluated at z (default: the case's own)."""
        fixed = self.network.prepare(self.weights, self.batch, Workspace())
        return self.network.evaluate(self.weights, fixed, self.targets, self.z if z is None else z)

    def rows(self, taken) -> Case:
        """The same for some of the samples."""
        z = [layer[taken] for layer in self.z]
        return Case(self.network, self.weights, self.x[taken], self.y[taken], z, self.mu)

    def f(self, z: list[np.ndarray] | None = None) -> np.ndarray:
        """F_k of every sample by its definition, in float64."""
        return naive_objective(self, self.z if z is None else z)


def targets(network: Network, n: int, rng: np.random.Generator, dtype=np.float64) -> np.ndarray:
    """Targets of the kind the loss asks for."""
    width = network.widths[-1]
    if network.loss.target == "labels":
        return rng.integers(width, size=n)
    if network.loss.output_activation == "sigmoid":
        return rng.uniform(size=(n, width)).astype(dtype)
    return rng.normal(size=(n, width)).astype(dtype)


def make_case(
    sizes,
    activations=(),
    loss="squared",
    output=None,
    *,
    n=6,
    seed=0,
    spread=1.0,
    mu=None,
    dtype=np.float64,
) -> Case:
    """A random network with biases, samples, and z up to `spread` away from a forward pass."""
    rng = np.random.default_rng(seed)
    network = dense_network(sizes, list(activations), loss, output)
    weights = tuple(
        (w + 0.3 * rng.normal(size=w.shape)).astype(dtype) for w in network.initial_weights(rng, np.float64)
    )
    x = rng.normal(size=(n, sizes[0])).astype(dtype)
    z = [
        (layer + spread * rng.normal(size=layer.shape)).astype(dtype)
        for layer in network.forward(weights, Batch(x))
    ]
    mu = rng.uniform(0.2, 2.0, len(network.widths)) if mu is None else mu
    return Case(network, weights, x, targets(network, n, rng, dtype), z, [float(m) for m in mu])


@st.composite
def cases(draw, *, dtype=np.float64, max_mu_exponent=4, max_spread=1e3) -> Case:
    """Any small network and loss, penalties over many decades, z anywhere."""
    hidden = draw(st.integers(0, 3))
    sizes = draw(st.lists(st.integers(1, 6), min_size=hidden + 2, max_size=hidden + 2))
    activations = draw(st.lists(st.sampled_from(ACTIVATION_NAMES), min_size=hidden, max_size=hidden))
    loss, output = draw(st.sampled_from(PAIRINGS))
    exponents = draw(
        st.lists(
            st.floats(-max_mu_exponent, max_mu_exponent, width=32), min_size=hidden + 1, max_size=hidden + 1
        )
    )
    return make_case(
        sizes,
        activations,
        loss,
        output,
        n=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 2**32 - 1)),
        spread=draw(st.sampled_from([s for s in (0.0, 1e-3, 1.0, 30.0, 1e3) if s <= max_spread])),
        mu=[10.0**e for e in exponents],
        dtype=dtype,
    )


def _rectifier(low, high):
    return lambda z: np.where(z > 0, high, low) * np.ones_like(z)


# Each function with its first two derivatives, as functions of z.
NAIVE = {
    "identity": (lambda z: z, np.ones_like, np.zeros_like),
    "sigmoid": (
        expit,
        lambda z: expit(z) * expit(-z),
        lambda z: expit(z) * expit(-z) * (expit(-z) - expit(z)),
    ),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2, lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)),
    "relu": (lambda z: np.where(z > 0, z, 0), _rectifier(0, 1), np.zeros_like),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), _rectifier(0.01, 1), np.zeros_like),
    "softplus": (lambda z: np.logaddexp(0, z), expit, lambda z: expit(z) * expit(-z)),
    "elu": (
        lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1, np.exp(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 0, np.exp(np.minimum(z, 0))),
    ),
    "silu": (
        lambda z: z * expit(z),
        lambda z: expit(z) + z * expit(z) * expit(-z),
        lambda z: expit(z) * expit(-z) * (2 + z * (expit(-z) - expit(z))),
    ),
    # erfc, as 1 + erf has no digits left where it is small
    "gelu": (
        lambda z: z * erfc(-z * np.sqrt(0.5)) / 2,
        lambda z: erfc(-z * np.sqrt(0.5)) / 2 + z * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
        lambda z: (2 - z**2) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi),
    ),
}


def naive_loss(case: Case, z: np.ndarray) -> np.ndarray:
    """ℓ of every sample by textbook formulas."""
    if case.network.loss.name == "squared":
        return 0.5 * ((NAIVE[case.network.loss.output_activation][0](z) - case.y) ** 2).sum(axis=1)
    if case.network.loss.name == "binary_cross_entropy":
        return (np.logaddexp(0, z) - case.y * z).sum(axis=1)
    assert case.network.loss.name == "cross_entropy"
    return -log_softmax(z, axis=1)[np.arange(len(z)), case.y]


def naive_loss_derivatives(case: Case, k: int, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∇ℓ, its Gauss–Newton curvature and its Hessian at z (d_L,) for sample k."""
    if case.network.loss.name == "squared":
        value, slope, second = (f(z) for f in NAIVE[case.network.loss.output_activation])
        error = value - case.y[k]
        return slope * error, np.diag(slope**2), np.diag(slope**2 + error * second)
    if case.network.loss.name == "binary_cross_entropy":
        curvature = np.diag(expit(z) * expit(-z))
        return expit(z) - case.y[k], curvature, curvature
    assert case.network.loss.name == "cross_entropy"
    p = softmax(z)
    curvature = np.diag(p) - np.outer(p, p)
    return p - np.eye(len(p))[case.y[k]], curvature, curvature


def naive_objective(case: Case, z: list[np.ndarray]) -> np.ndarray:
    """F_k = ℓ + Σ_i μ_i ‖z_i − W_i φ_{i−1}(z_{i−1}) − b_i‖² of every sample, in float64."""
    z = [layer.astype(np.float64) for layer in z]
    total = naive_loss(case, z[-1])
    a = case.x.reshape(len(case.x), -1).astype(np.float64)
    for i, layer in enumerate(z):
        w = case.weights[i].astype(np.float64)
        total = total + case.mu[i] * ((layer - a @ w[:, :-1].T - w[:, -1]) ** 2).sum(axis=1)
        if i + 1 < len(z):
            a = NAIVE[case.network.activations[i].name][0](layer)
    return total


def naive_derivatives(case: Case, k: int, z=None, damping=0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∇F_k, the Gauss–Newton matrix and the Hessian of sample k, dense, block by block.

    Damping adds damping · 2 JᵀMJ to both matrices, J = ∂r/∂z and M = diag μ.
    """
    z = [layer[k] for layer in (case.z if z is None else z)]
    ends = np.cumsum(case.network.widths)
    places = [slice(end - d, end) for end, d in zip(ends, case.network.widths, strict=True)]
    a = case.x[k].ravel()
    jacobian = np.eye(ends[-1])
    residual = np.empty(ends[-1])
    for i, place in enumerate(places):
        w, b = case.weights[i][:, :-1], case.weights[i][:, -1]
        residual[place] = z[i] - w @ a - b
        if i:
            slope = NAIVE[case.network.activations[i - 1].name][1](z[i - 1])
            jacobian[place, places[i - 1]] = -w * slope
        if i + 1 < len(places):
            a = NAIVE[case.network.activations[i].name][0](z[i])
    m = np.repeat(2 * np.array(case.mu), case.network.widths)
    penalty = jacobian.T @ (m[:, None] * jacobian)
    slope, curvature, second = naive_loss_derivatives(case, k, z[-1])
    gradient = jacobian.T @ (m * residual)
    gradient[places[-1]] += slope
    gauss_newton = (1 + damping) * penalty
    hessian = gauss_newton.copy()
    gauss_newton[places[-1], places[-1]] += curvature
    hessian[places[-1], places[-1]] += second
    for i in range(len(places) - 1):
        bend = NAIVE[case.network.activations[i].name][2](z[i])
        pull = case.weights[i + 1][:, :-1].T @ (m * residual)[places[i + 1]]
        hessian[places[i], places[i]] -= np.diag(bend * pull)
    return gradient, gauss_newton, hessian


def augmented(values: np.ndarray, dtype=np.float64) -> np.ndarray:
    """[values 1], (n, d + 1)."""
    values = values.reshape(len(values), -1).astype(dtype)
    return np.column_stack([values, np.ones(len(values), dtype)])


def flat(layers: list[np.ndarray]) -> np.ndarray:
    """Layers side by side, (n, D)."""
    return np.concatenate(layers, axis=1)


def split(values: np.ndarray, network: Network) -> list[np.ndarray]:
    """Layers again; the inverse of `flat`."""
    return np.split(values, np.cumsum(network.widths)[:-1], axis=-1)


def differences(function, at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of a function of rows, (n, D) → (n, …), in every coordinate: (n, …, D)."""
    columns = []
    for j in range(at.shape[1]):
        move = np.zeros_like(at)
        move[:, j] = step
        columns.append((function(at + move) - function(at - move)) / (2 * step))
    return np.stack(columns, axis=-1)


def dense(curvature) -> np.ndarray:
    """A curvature as matrices, a column per unit vector it is applied to, (n, d, d)."""
    n, d = curvature.weights.shape
    eye = np.eye(d, dtype=curvature.weights.dtype)
    return np.stack([curvature.apply(np.tile(eye[j], (n, 1))) for j in range(d)], axis=-1)


def solve_layer(cross, gram, ridge, *, previous=None, **options):
    """One layer's W-update in one call."""
    system = ridge_system(gram, ridge, **options)
    return system.solve(cross, np.zeros_like(cross) if previous is None else previous)
