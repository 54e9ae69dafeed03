"""What every network of layers keeps to, whatever its layers, activations and loss are: small ones, in float64."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import pytest
from zoo import ACTIVATION_NAMES, PAIRINGS

from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.builders import dense_network, recurrent_network, stacked_network
from altmin_dask.networks.layers import LAYERS, read_settings
from altmin_dask.networks.losses import SCRATCH, get_loss
from altmin_dask.networks.nested import Pass
from altmin_dask.networks.network import Network, build_network
from altmin_dask.networks.point import Point
from altmin_dask.networks.workspace import ArraySpec, Workspace, thread_workspace
from altmin_dask.planning.memory import Workload, kept, newton_arrays
from altmin_dask.solvers.kernels import (
    kfac_chunk,
    quadratic_model_arrays,
    quadratic_model_chunk,
    visit_chunk,
)
from altmin_dask.solvers.newton_settings import NewtonSettings
from altmin_dask.solvers.penalties import L2
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.types import Batch

OUTPUTS, N, STEPS = 2, 4, 3


def dense(activation: str, loss: str, output: str) -> Network:
    return dense_network([4, 3, 5, OUTPUTS], activation, loss, output)


def last(activation: str, loss: str, output: str) -> Network:
    return recurrent_network(2, STEPS, [3], OUTPUTS, [4, 3], activation, loss, output)


def every(activation: str, loss: str, output: str) -> Network:
    return recurrent_network(2, STEPS, [3, 2], OUTPUTS, [4], activation, loss, output, every=True)


def convolution(activation: str, loss: str, output: str) -> Network:
    hidden = [
        read_settings({"kind": "convolution", "channels": 2, "kernel_size": 2, "padding": 1}),
        read_settings({"kind": "convolution", "channels": 3, "kernel_size": 2, "stride": 2}),
        read_settings({"kind": "dense", "units": 4}),
    ]
    return stacked_network((4, 3), hidden, OUTPUTS, get_loss(loss, output), activation)


MAKERS: dict[str, Callable[[str, str, str], Network]] = {
    "dense": dense,
    "last": last,
    "every": every,
    "convolution": convolution,
}
NETWORKS = {
    **{f"{name} {phi}": (name, phi, "squared", "identity") for name in MAKERS for phi in ACTIVATION_NAMES},
    **{f"{name} {loss} {out}": (name, "tanh", loss, out) for name in MAKERS for loss, out in PAIRINGS},
}
every_network = pytest.mark.parametrize("name", NETWORKS)


class Case:
    """A network with weights, samples (of different lengths, where they are sequences), and z anywhere."""

    def __init__(self, name: str) -> None:
        kind, *names = NETWORKS[name]
        rng = np.random.default_rng(3)
        self.network = MAKERS[kind](*names)
        self.weights = tuple(
            w + 0.3 * rng.normal(size=w.shape) for w in self.network.initial_weights(1, np.float64)
        )
        sequences = self.network.sequence_steps is not None
        lengths = np.array([3, 1, 2, 3]) if sequences else None
        states = rng.normal(size=(N, sum(self.network.state_sizes))) if sequences else None
        shape = (N, STEPS) if self.network.every else (N,)
        labels = self.network.loss.target == "labels"
        y = (
            rng.integers(OUTPUTS, size=shape)
            if labels
            else rng.uniform(size=(*shape, OUTPUTS)).reshape(N, -1)
        )
        x = rng.normal(size=(N, self.network.sizes[0]))
        self.batch = Batch(x, y, lengths=lengths, states=states)
        self.z = []
        for layer, z in zip(self.network.layers, self.network.forward(self.weights, self.batch), strict=True):
            moved = z + 0.3 * rng.normal(size=z.shape)
            if lengths is not None and layer.steps > 1:
                moved.reshape(N, STEPS, -1)[np.arange(STEPS) >= lengths[:, None]] = 0
            self.z.append(moved)
        self.rng = rng

    def point(self, z: list[np.ndarray] | None = None) -> Point:
        network = self.network
        prepared = network.prepare(self.weights, self.batch, Workspace())
        targets = network.loss.targets(self.batch, np.float64)
        return network.evaluate(self.weights, prepared, targets, self.z if z is None else z)


def per_sample(parts: list[np.ndarray], others: list[np.ndarray]) -> np.ndarray:
    return sum(np.vecdot(a, b) for a, b in zip(parts, others, strict=True))


def test_every_kind_of_layer_is_in_a_network() -> None:
    networks = [make("tanh", "squared", "identity") for make in MAKERS.values()]
    assert {layer.kind for network in networks for layer in network.layers} == set(LAYERS)


@every_network
def test_a_forward_pass_has_no_residuals(name: str) -> None:
    case = Case(name)
    point = case.point(case.network.forward(case.weights, case.batch))
    assert max(np.abs(r).max() for r in point.residuals) < 1e-13
    np.testing.assert_allclose(point.output, case.network.predict(case.weights, case.batch), rtol=1e-12)


@every_network
def test_residuals_are_z_less_the_weights_times_the_rows(name: str) -> None:
    case = Case(name)
    point = case.point()
    for layer, w, z, inputs, r in zip(
        case.network.layers, case.weights, case.z, point.inputs, point.residuals, strict=True
    ):
        rows = inputs.reshape(-1, layer.inputs) @ w.T
        np.testing.assert_allclose(r.reshape(rows.shape), z.reshape(rows.shape) - rows, atol=1e-13)


@every_network
def test_the_adjoint_is_the_transpose_of_the_tangent(name: str) -> None:
    case = Case(name)
    m = list(case.rng.uniform(0.1, 10, len(case.z)))
    linear = case.network.linearise(case.weights, case.point(), m)
    u = [case.rng.normal(size=z.shape) * (z != 0) for z in case.z[:-1]]
    h = case.rng.normal(size=case.z[-1].shape) * (case.z[-1] != 0)
    e = linear.tangent([part.copy() for part in u])[1].copy()
    np.testing.assert_allclose(per_sample([e], [h]), per_sample(u, linear.adjoint(h.copy())), atol=1e-11)


@every_network
def test_the_tangent_is_the_derivative_of_the_residuals(name: str) -> None:
    """Along the steps that residual steps s cause, hidden residuals change by s, and the output's by −e."""
    case = Case(name)
    m, step = list(case.rng.uniform(0.1, 10, len(case.z))), 1e-6
    u = [case.rng.normal(size=z.shape) * (z != 0) for z in case.z[:-1]]
    steps, e = case.network.linearise(case.weights, case.point(), m).tangent([part.copy() for part in u])
    delta = [part / np.sqrt(m_i) for part, m_i in zip(steps, m, strict=False)]
    plus, minus = (
        case.point([z + t * d for z, d in zip(case.z, [*delta, 0], strict=True)]).residuals
        for t in (step, -step)
    )
    expected = [*(part / np.sqrt(m_i) for part, m_i in zip(u, m, strict=False)), -e]
    for p, q, change in zip(plus, minus, expected, strict=True):
        np.testing.assert_allclose((p - q) / (2 * step), change, rtol=1e-6, atol=1e-7)


@every_network
def test_gradients_and_directions_of_the_nested_loss_are_those_of_differences(name: str) -> None:
    case = Case(name)
    change = tuple(case.rng.normal(size=w.shape) for w in case.weights)

    def moved(t: float) -> Pass:
        return Pass.forward(
            case.network, [w + t * d for w, d in zip(case.weights, change, strict=True)], case.batch
        )  # type: ignore[arg-type]

    found, step = moved(0.0), 1e-6
    slope = (moved(step).loss - moved(-step).loss) / (2 * step)
    along = np.vecdot(found.gradient, found.directional(change))
    np.testing.assert_allclose(along, slope, rtol=1e-6, atol=1e-7)
    back = found.backward(found.gradient)
    total = sum(np.vdot(g.T @ a, d) for g, a, d in zip(back, found.inputs, change, strict=True))
    assert total == pytest.approx(slope.sum(), rel=1e-6, abs=1e-7)


@every_network
def test_a_description_makes_the_network_again(name: str) -> None:
    network = Case(name).network
    assert build_network(json.loads(json.dumps(network.describe()))) == network


def test_activations_are_the_same_ones_after_a_journey() -> None:
    import pickle

    for activation in ACTIVATIONS.values():
        assert pickle.loads(pickle.dumps(activation)) is activation


# memory


def taken(kernel: Callable[[], Any]) -> set[tuple[str, int]]:
    """Names and columns of what a kernel takes of a thread's workspace that was empty."""
    found: set[tuple[str, int]] = set()

    def run() -> None:
        kernel()
        found.update((name, columns) for name, columns, _ in thread_workspace()._arrays)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


NEVER = NewtonSettings(newton_steps=2, cg_iterations=2, armijo=1e9)
"""No step is long enough: every sample is cut."""


@pytest.mark.parametrize("name", [f"{kind} tanh" for kind in MAKERS] + ["every cross_entropy softmax"])
@pytest.mark.parametrize("kind", ["visit", "kfac", "model"])
def test_what_kernels_take_is_what_is_declared(name: str, kind: str) -> None:
    case = Case(name)
    network, weights, batch = case.network, case.weights, case.batch
    mu = (0.1,) * len(weights)
    work = Workload(
        network=network, rows=N, chunk_rows=N, x_bytes=8, itemsize=8, newton_steps=2, kfac=kind == "kfac"
    )

    def visit() -> None:
        z = np.concatenate(case.z, axis=1)
        visit_chunk(network, weights, L2(mu), L2(mu), batch, z, NEVER, replace_all=False)

    kernels: dict[str, Callable[[], Any]] = {
        "visit": visit,
        "kfac": lambda: kfac_chunk(network, weights, mu, batch, NEVER, [0]),
        "model": lambda: quadratic_model_chunk(
            network, weights, weights, tuple(0.9 * w for w in weights), batch
        ),
    }
    moves = network.inputs_move
    declared: dict[str, list[Any]] = {
        "visit": [
            newton_arrays(work),
            Statistics.arrays(network, with_inputs=moves, moved=not moves),
        ],
        "kfac": [Pass.arrays(network), Pass.sample_arrays(network), newton_arrays(work)],
        "model": [quadratic_model_arrays(network)],
    }
    planned = {(name, columns) for name, columns, _ in kept(work, chain(*declared[kind]))}
    found = taken(kernels[kind])
    assert found <= planned
    optional = {name for names in SCRATCH.values() for name in names}  # a loss may do with less
    optional |= {f"adjoint {i}" for i in range(len(weights))} if kind == "model" else set()
    unused = {part for part in planned - found if part not in network.layers[0].scratch().items()}
    assert {name for name, _ in unused} <= optional  # of the first layer no image is asked for


def test_arrays_of_a_strip_and_a_square() -> None:
    assert ArraySpec("a", 7).nbytes(1000, 4) == 28_000
    assert ArraySpec("a", 7, steps=3, rows="strip").nbytes(100_000, 8) == (1 << 15) // 21 * 21 * 8
    assert ArraySpec("a", 7, rows="square", itemsize=8).nbytes(1000, 4) == 49 * 8
