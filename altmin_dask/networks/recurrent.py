"""Recurrent networks, z_i^t = W_i φ_{i−1}(z_{i−1}^t) + V_i s_i^{t−1} + b_i with s_i^t = φ_i(z_i^t).

A sample is a sequence of T steps. Stacked recurrent layers may have a chain on top, which reads the last step or
every step. Weights are shared over time and kept as W̃_i = [W_i V_i b_i], which act on ã = [φ(z_{i−1}^t); s_i^{t−1}; 1],
so that the statistics are sums over samples and steps. Where z is given, all steps are evaluated at once: only forward
passes, tangents and adjoints go through time.

Sequences of different lengths are padded to T: inputs and z of the padding are zero, so it enters no sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import Activation, get_activation, remainder
from altmin_dask.networks.chain import Point
from altmin_dask.networks.losses import Loss, get_loss
from altmin_dask.networks.mean_loss import MeanLoss, Targets
from altmin_dask.networks.sequences import Layer, SequenceLinearisation, Sequences
from altmin_dask.networks.workspace import Workspace, strips
from altmin_dask.types import Array, Batch, Weights

if TYPE_CHECKING:
    import numpy.typing as npt


BLOCK_STEPS = 8192
"""Steps of all sequences of a block together, if they are short enough for so many of them."""
BLOCK_RANGE = 64, 1024


def sequence_block_rows(steps: int) -> int:
    """How many sequences are computed with at a time."""
    least, most = BLOCK_RANGE
    return max(least, min(most, BLOCK_STEPS // steps))


@dataclass(frozen=True)
class Recurrent:
    """Stacked recurrent layers, a chain on top, and a loss at the last step or at every step.

    Attributes
    ----------
    features, steps : int
        d_0 of one step, and T.
    recurrent_sizes, head_sizes : tuple of int
        Widths of the recurrent layers, and of the hidden layers on top.
    outputs : int
        d_L.
    activations : tuple of Activation
        Of all hidden layers, recurrent ones first.
    step_loss : Loss
        ℓ with its output activation.
    every : bool
        Whether there is a loss at every step, or at the last one of a sequence.
    start : {"orthogonal", "identity"}
        What V_i are at first.
    """

    features: int
    steps: int
    recurrent_sizes: tuple[int, ...]
    head_sizes: tuple[int, ...]
    outputs: int
    activations: tuple[Activation, ...]
    step_loss: Loss
    every: bool = False
    start: Literal["orthogonal", "identity"] = "orthogonal"

    inputs_move = True
    """The first layer's inputs hold states, which move with z."""

    @classmethod
    def build(
        cls,
        features: int,
        steps: int,
        recurrent_sizes: Sequence[int],
        outputs: int,
        head_sizes: Sequence[int] = (),
        activation: str | Sequence[str] = "tanh",
        loss: str = "squared",
        output_activation: str | None = None,
        **settings: Any,
    ) -> Recurrent:
        """Make a network from names; see the attributes.

        Raises
        ------
        ConfigError
            If a width or the number of steps is not positive, there is no recurrent layer, a name is unknown, or
            the lengths do not match.
        """
        if not recurrent_sizes:
            raise ConfigError("a recurrent network needs at least one recurrent layer")
        named = {"features": features, "steps": steps, "outputs": outputs}
        named |= {f"layer {i}": d for i, d in enumerate((*recurrent_sizes, *head_sizes), 1)}
        for name, size in named.items():
            if size < 1:
                raise ConfigError(f"{name} of a recurrent network is {size}; it must be at least 1")
        hidden = len(recurrent_sizes) + len(head_sizes)
        names = [activation] * hidden if isinstance(activation, str) else list(activation)
        if len(names) != hidden:
            raise ConfigError(
                f"{len(names)} activations were given for {hidden} hidden layers; give one for each"
            )
        return cls(
            int(features), int(steps), tuple(map(int, recurrent_sizes)), tuple(map(int, head_sizes)), int(outputs),
            tuple(get_activation(name) for name in names), get_loss(loss, output_activation), **settings,
        )  # fmt: skip

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """All layers, the output's last."""
        found, below = [], self.features
        for width in self.recurrent_sizes:
            found.append(Layer(below, width, self.steps, True))
            below = width
        for width in (*self.head_sizes, self.outputs):
            found.append(Layer(below, width, self.steps if self.every else 1, False))
            below = width
        return tuple(found)

    @cached_property
    def loss(self) -> MeanLoss:
        """ℓ of a sample: of its last step, or the mean over its steps."""
        return MeanLoss(self.step_loss, self.steps if self.every else None)

    @property
    def block_rows(self) -> int:
        """How many samples are best computed with at a time."""
        return sequence_block_rows(self.steps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in a sample's inputs, then the widths of all layers."""
        return (self.steps * self.features, *self.recurrent_sizes, *self.head_sizes, self.outputs)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers in z_i of a sample: T d_i, or d_i where only the last step is read."""
        return tuple(layer.steps * layer.width for layer in self.layers)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each W̃_i."""
        return tuple((layer.width, layer.inputs) for layer in self.layers)

    def initial_weights(
        self, seed: int | np.random.Generator = 0, dtype: npt.DTypeLike = np.float32
    ) -> Weights:
        """Random W_i (Glorot, or He before a rectifier without a loop), V_i as `start` says, zero biases."""
        rng = np.random.default_rng(seed)
        weights = []
        rules = [a.initialization for a in self.activations] + ["glorot"]
        for layer, rule in zip(self.layers, rules, strict=True):
            below, d = layer.in_features, layer.width
            he = rule == "he" and not layer.recurrent
            limit = np.sqrt(6 / below) if he else np.sqrt(6 / (below + d))
            w = np.zeros((d, layer.inputs))
            w[:, :below] = rng.uniform(-limit, limit, (d, below))
            if layer.recurrent:
                q, r = np.linalg.qr(rng.normal(size=(d, d)))
                w[:, below:-1] = np.eye(d) if self.start == "identity" else q * np.sign(np.diagonal(r))
            weights.append(w.astype(dtype))
        return tuple(weights)

    def forward(self, weights: Weights, batch: Batch) -> list[Array]:
        """Pre-activations of a forward pass, (n, T d_i) or (n, d_i) each."""
        work = Workspace()
        return self.passed(weights, self.prepare(weights, batch, work), work).z

    def predict(self, weights: Weights, batch: Batch) -> Array:
        """φ_L of a forward pass, (n, d_L) or (n, T d_L); of a padded step that of zero z."""
        return self.loss.predict(self.forward(weights, batch)[-1])

    def states_after(self, weights: Weights, batch: Batch) -> Array:
        """s_i at the last step of every sequence, (n, Σ d_i) over recurrent layers: `states` of what follows it."""
        sequences = self.prepare(weights, batch, Workspace())
        values = self.passed(weights, sequences, Workspace()).values
        looped = [v for v, layer in zip(values, self.layers, strict=False) if layer.recurrent]
        return np.concatenate([sequences.final(v.reshape(len(v), self.steps, -1)) for v in looped], axis=1)

    def prepare(self, weights: Weights, batch: Batch, work: Workspace) -> Sequences:
        """What does not depend on z: the inputs, where sequences end, and their first states."""
        dtype, mask, last, states = weights[0].dtype, None, None, None
        inputs = batch.x.reshape(len(batch), self.steps, self.features).astype(dtype, copy=False)
        if batch.lengths is not None:
            last = batch.lengths.astype(np.intp) - 1
            mask = (np.arange(self.steps) <= last[:, None])[:, :, None].astype(dtype)
            inputs = inputs * mask
        if batch.states is not None:
            ends = np.cumsum(self.recurrent_sizes)[:-1]
            states = np.split(batch.states.astype(dtype, copy=False), ends, axis=1)
        return Sequences(inputs, mask, last, states)

    def passed(self, weights: Weights, sequences: Sequences, work: Workspace) -> Point:
        """A forward pass: a point without residuals, output or loss."""
        n, dtype = len(sequences.x), weights[0].dtype
        z: list[Array] = []
        point = Point(z, [], [], [], np.empty(0), np.empty(0), [], sequences)
        below = sequences.x
        for i, (layer, w) in enumerate(zip(self.layers, weights, strict=True)):
            inputs = self._inputs(i, sequences, below, work, "pass")
            drive = work.take(f"pass z {i}", n, layer.steps * layer.width, dtype)
            drive = drive.reshape(n, layer.steps, layer.width)
            np.matmul(
                inputs[:, :, : layer.in_features].reshape(-1, layer.in_features), w[:, : layer.in_features].T,
                out=drive.reshape(-1, layer.width),
            )  # fmt: skip
            drive += w[:, -1]
            values = None
            if i < len(self.activations):
                activation = self.activations[i]
                values = work.take(f"pass values {i}", n, layer.steps * layer.width, dtype).reshape(
                    drive.shape
                )
                if layer.recurrent:
                    across, first = w[:, layer.in_features : -1], layer.in_features
                    product = work.take("across", n, layer.width, dtype)
                    state = inputs[:, 0, first:-1].copy()  # of one sample even a slice is contiguous
                    if sequences.states is not None:
                        drive[:, 0] += np.matmul(state, across.T, out=product)
                    for t in range(layer.steps):
                        if t:
                            drive[:, t] += np.matmul(state, across.T, out=product)
                        activation.value(drive[:, t], out=state)
                        values[:, t] = state
                        if t + 1 < layer.steps:
                            inputs[:, t + 1, first:-1] = state
                else:
                    activation.value(drive.reshape(n, -1), out=values.reshape(n, -1))
                sequences.masked(values)
                point.values.append(values.reshape(n, -1))
                below = values
            sequences.masked(inputs)
            sequences.masked(drive)
            z.append(drive.reshape(n, -1))
            point.inputs.append(inputs.reshape(n, -1))
        return point

    def _inputs(self, i: int, sequences: Sequences, below: Array, work: Workspace, name: str) -> Array:
        """ã of layer i without its own states, but the first, (n, T, k)."""
        layer, n = self.layers[i], len(below)
        out = work.take(f"{name} inputs {i}", n, layer.steps * layer.inputs, below.dtype)
        inputs = out.reshape(n, layer.steps, layer.inputs)
        if layer.steps < below.shape[1]:
            inputs[:, 0, : layer.in_features] = sequences.final(below)
        else:
            inputs[:, :, : layer.in_features] = below
        if layer.recurrent:
            inputs[:, 0, layer.in_features : -1] = 0 if sequences.states is None else sequences.states[i]
        inputs[:, :, -1] = 1
        return inputs

    def evaluate(
        self,
        weights: Weights,
        sequences: Sequences,
        targets: Targets,
        z: list[Array],
        work: Workspace | None = None,
        name: str = "",
        offsets: Sequence[Array] | None = None,
    ) -> Point:
        """Everything at z, all steps at once; as `altmin_dask.networks.chain.Chain.evaluate`."""
        work = work or Workspace()
        n, dtype = len(sequences.x), weights[0].dtype
        all_inputs, residuals, squares, all_values = [], [], [], []
        below = sequences.x
        for i, (layer, w) in enumerate(zip(self.layers, weights, strict=True)):
            inputs = self._inputs(i, sequences, below, work, name)
            if i < len(self.activations):
                values = work.like(f"{name} values {i}", z[i])
                for rows in strips(*values.shape):
                    self.activations[i].value(z[i][rows], out=values[rows])
                below = sequences.masked(values.reshape(n, layer.steps, layer.width))
                if layer.recurrent:
                    inputs[:, 1:, layer.in_features : -1] = below[:, :-1]
                all_values.append(values)
            sequences.masked(inputs)
            residual = work.take(f"{name} residual {i}", n, layer.steps * layer.width, dtype)
            np.matmul(inputs.reshape(-1, layer.inputs), w.T, out=residual.reshape(-1, layer.width))
            np.subtract(z[i], residual, out=residual)
            if offsets is not None:
                residual += offsets[i]
            all_inputs.append(inputs.reshape(n, -1))
            residuals.append(residual)
            squares.append(np.vecdot(residual, residual))
        output = work.like(f"{name} output", z[-1])
        self.loss.predict(z[-1], output)
        loss = self.loss.value(z[-1], output, targets, work)
        return Point(z, all_inputs, residuals, squares, output, loss, all_values, sequences)

    def linearise(
        self,
        weights: Weights,
        point: Point,
        m: Sequence[float],
        work: Workspace | None = None,
    ) -> SequenceLinearisation:
        """The tangent map at a point, for penalties m_i as in `altmin_dask.networks.chain.Chain.linearise`."""
        work = work or Workspace()
        slopes, sequences = [], point.sequences
        for i, (activation, values) in enumerate(zip(self.activations, point.values, strict=True)):
            slope = work.like(f"slope {i}", values)
            for rows in strips(*slope.shape):
                activation.derivative(values[rows], out=slope[rows])
            layer = self.layers[i]
            slopes.append(sequences.masked(slope.reshape(len(slope), layer.steps, layer.width)))
        scales = [*(np.sqrt(m[i]) for i in range(len(slopes))), 1.0]
        down = tuple(
            w[:, : layer.in_features] * w.dtype.type(scales[i] / scales[i - 1] if i else 1.0)
            for i, (layer, w) in enumerate(zip(self.layers, weights, strict=True))
        )
        across = tuple(
            np.ascontiguousarray(w[:, layer.in_features : -1]) if layer.recurrent else None
            for layer, w in zip(self.layers, weights, strict=True)
        )
        return SequenceLinearisation(self.layers, down, across, tuple(slopes), sequences, work)

    def remainders(
        self, weights: Weights, sequences: Sequences, z: list[Array], delta: list[Array], work: Workspace
    ) -> Iterator[Array]:
        """What a step δ changes W̃_i ã_{i−1} by beyond the tangent; as `altmin_dask.networks.chain.Chain.remainders`."""
        below: Array | None = None
        for i, (layer, w) in enumerate(zip(self.layers, weights, strict=True)):
            out = work.like("remainder", z[i])
            steps = out.reshape(-1, layer.steps, layer.width)
            if below is None:
                out[:] = 0
            else:
                read = below if layer.steps == below.shape[1] else sequences.final(below)
                np.matmul(
                    read.reshape(-1, layer.in_features),
                    w[:, : layer.in_features].T,
                    out=out.reshape(-1, layer.width),
                )
            if i < len(self.activations):
                curved = work.like(f"curved {i}", z[i])
                for rows in strips(*curved.shape):
                    curved[rows] = remainder(self.activations[i], z[i][rows], delta[i][rows])
                below = curved.reshape(steps.shape)
                if layer.recurrent:
                    steps[:, 1:] += below[:, :-1] @ w[:, layer.in_features : -1].T
            sequences.masked(steps)
            yield out

    def with_steps(self, steps: int) -> Recurrent:
        """The same network, weights included, for sequences of another length."""
        return replace(self, steps=steps)

    def describe(self) -> dict[str, Any]:
        """The network as JSON-ready settings; `Recurrent.build(**network.describe())` makes it again."""
        return {
            "features": self.features,
            "steps": self.steps,
            "recurrent_sizes": list(self.recurrent_sizes),
            "outputs": self.outputs,
            "head_sizes": list(self.head_sizes),
            "activation": [activation.name for activation in self.activations],
            "loss": self.step_loss.name,
            "output_activation": self.step_loss.output_activation,
            "every": self.every,
            "start": self.start,
        }
