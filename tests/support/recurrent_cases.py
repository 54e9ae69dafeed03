"""Recurrent networks for tests, and their plainest versions: loops over samples and steps, dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

from altmin_dask.networks.builders import recurrent_network
from altmin_dask.networks.mean_loss import Targets
from altmin_dask.networks.workspace import Workspace
from altmin_dask.solvers.newton_settings import NewtonSettings
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
