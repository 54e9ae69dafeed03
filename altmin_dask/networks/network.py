"""The network z_i = W̃_i ã_{i−1}, layer by layer, with a loss on top; its quantities at any z, for a block of samples.

Weights are kept in augmented form W̃_i = [W_i b_i] and act on augmented inputs ã = […; 1], so a forward pass and the
least-squares statistics are plain matrix products with no separate bias. z of a layer is (n, size), whatever its rows
are (`altmin_dask.networks.layers.layer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import IDENTITY, Activation, remainder
from altmin_dask.networks.defaults import DEFAULTS, Defaults
from altmin_dask.networks.layers import Block, Layer, build_layer
from altmin_dask.networks.linearisation import Linearisation
from altmin_dask.networks.losses import Squared, get_loss
from altmin_dask.networks.mean_loss import MeanLoss, Targets
from altmin_dask.networks.point import Point, Prepared
from altmin_dask.networks.workspace import ArraySpec, Fresh, Workspace, strips
from altmin_dask.types import Array, Batch, Weights

BLOCK_ROWS, LEAST_ROWS = 1024, 64
"""At most and at least so many samples are computed with at a time,"""
BLOCK_STEPS = 8192
"""and in between so many that their rows are not more than this together."""


@dataclass(frozen=True)
class Network:
    """Layers, each of which reads the one below, and a loss.

    Attributes
    ----------
    layers : tuple of Layer
        The output's last, whose activation is the loss's.
    loss : MeanLoss
        ℓ with its output activation φ_L: of a sample's one output, or the mean over its steps.

    Raises
    ------
    ConfigError
        If there is no layer, or one does not fit the one below or the loss.
    """

    layers: tuple[Layer, ...]
    loss: MeanLoss

    def __post_init__(self) -> None:
        if not self.layers:
            raise ConfigError("a network needs at least one layer")
        for number, (below, layer) in enumerate(pairwise(self.layers), 2):
            if layer.in_size != below.size:
                raise ConfigError(
                    f"layer {number} reads {layer.in_size} values a sample, and layer {number - 1} gives {below.size}"
                )
        if self.layers[-1].recurrent or self.layers[-1].activation is not IDENTITY:
            raise ConfigError("the last layer has a loss on top, and no activation of its own")
        if (steps := self.layers[-1].steps) != (self.loss.steps or 1):
            raise ConfigError(
                f"the last layer has {steps} outputs a sample; its loss is of {self.loss.steps or 1}"
            )

    # --- shape

    @cached_property
    def activations(self) -> tuple[Activation, ...]:
        """φ_1 … φ_{L−1}."""
        return tuple(layer.activation for layer in self.layers[:-1])

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Numbers in a sample, then the units of all layers."""
        return (self.layers[0].in_size, *(layer.units for layer in self.layers))

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Numbers in z_i of a sample."""
        return tuple(layer.size for layer in self.layers)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The shape of each W̃_i."""
        return tuple(layer.weight_shape for layer in self.layers)

    @property
    def inputs_move(self) -> bool:
        """Whether the first layer's inputs hold states, which move with z, or nothing but the samples."""
        return self.layers[0].recurrent

    @property
    def every(self) -> bool:
        """Whether there is a loss at every step, or one of a sample."""
        return self.loss.steps is not None

    @cached_property
    def sequence_steps(self) -> int | None:
        """T, if samples are sequences to a layer."""
        return next((T for layer in self.layers if (T := layer.sequence_steps) is not None), None)

    def called(self, kind: str) -> str:
        """What people call it, of some kind: its widths, those of a step where samples are sequences."""
        first, *units = self.sizes
        steps = self.sequence_steps or 1
        name = f"{'-'.join(map(str, (first // steps, *units)))} {kind}"
        return name if steps == 1 else f"{name}, {steps} steps"

    @cached_property
    def state_sizes(self) -> tuple[int, ...]:
        """Numbers in the state s_i of each recurrent layer."""
        return tuple(layer.units for layer in self.layers if layer.recurrent)

    @cached_property
    def block_rows(self) -> int:
        """How many samples are best computed with at a time."""
        return max(LEAST_ROWS, min(BLOCK_ROWS, BLOCK_STEPS // max(layer.steps for layer in self.layers)))

    @cached_property
    def defaults(self) -> Defaults:
        """What settings are unless they are given."""
        return next((layer.defaults for layer in self.layers if layer.defaults is not None), DEFAULTS)

    @property
    def default_mu(self) -> tuple[float, ...]:
        """μ_1 … μ_L where z persists."""
        mine = self.defaults
        return tuple(mine.mu if layer.defaults is mine else mine.mu_elsewhere for layer in self.layers)

    # --- weights

    def initial_weights(
        self, seed: int | np.random.Generator = 0, dtype: npt.DTypeLike = np.float32
    ) -> Weights:
        """Random weights as each layer has them, with zero biases.

        All are drawn in float64 from one generator, so float32 and float64 start alike.
        """
        rng = np.random.default_rng(seed)
        return tuple(layer.initial_weights(rng).astype(dtype) for layer in self.layers)

    # --- forward passes

    def prepare(self, weights: Weights, batch: Batch, work: Workspace) -> Prepared:
        """What does not depend on z: the first layer's part, where sequences end, and their first states."""
        first, w = self.layers[0], weights[0]
        blocks = self._blocks(batch, w.dtype, work)
        if self.inputs_move:
            x = batch.x.reshape(len(batch), first.in_size).astype(w.dtype, copy=False)
            return Prepared(x, None, None, blocks)
        inputs = self._fill_first(batch, w.dtype, blocks[0])
        drive = _product(first, w, inputs, work.take("drive", len(batch), first.size, w.dtype))
        return Prepared(None, inputs, drive, blocks)

    def first_inputs(self, batch: Batch, dtype: npt.DTypeLike, work: Workspace) -> Array:
        """ã of the first layer, row by row, (n · steps, inputs)."""
        inputs = self._fill_first(batch, dtype, self._blocks(batch, dtype, work)[0])
        return inputs.reshape(-1, self.layers[0].inputs)

    def _fill_first(self, batch: Batch, dtype: npt.DTypeLike, block: Block) -> Array:
        first, n = self.layers[0], len(batch)
        inputs = block.work.take("inputs", n, first.steps * first.inputs, dtype)
        first.fill(inputs, batch.x.reshape(n, first.in_size), None, block)
        return inputs

    def _blocks(self, batch: Batch, dtype: npt.DTypeLike, work: Workspace) -> tuple[Block, ...]:
        mask = last = None
        if batch.lengths is not None:
            last = batch.lengths.astype(np.intp) - 1
            mask = (np.arange(self.sequence_steps or 1) <= last[:, None])[:, :, None].astype(dtype)
        states: list[Array] = []
        if batch.states is not None:
            ends = np.cumsum(self.state_sizes)[:-1]
            states = np.split(batch.states.astype(dtype, copy=False), ends, axis=1)
        rest = iter(states)
        return tuple(
            Block(mask, last, next(rest, None) if layer.recurrent else None, work) for layer in self.layers
        )

    def propagate(
        self, weights: Weights, batch: Batch, work: Workspace
    ) -> Iterator[tuple[Block, Array, Array, Array | None]]:
        """Go forward layer by layer: each layer's block, ã, z, and values (None at the output), (n, …) each.

        Arrays of z are nobody's afterwards.
        """
        n, dtype = len(batch), weights[0].dtype
        below: Array | None = batch.x.reshape(n, self.layers[0].in_size)
        inputs = self._take_inputs(0, n, dtype, work, "pass")
        for i, (layer, w, block) in enumerate(
            zip(self.layers, weights, self._blocks(batch, dtype, work), strict=True)
        ):
            layer.fill(inputs, below, None, block)
            z, values, following, below = work.take(f"pass z {i}", n, layer.size, dtype), None, None, None
            if i < len(self.activations):
                following = self._take_inputs(i + 1, n, dtype, work, "pass")
                values, below = self._take_values(i, following, work, "pass")
            layer.propagate(w, inputs, z, values, block)
            yield block, inputs, z, values
            if following is not None:
                inputs = following

    def _take_inputs(self, i: int, n: int, dtype: npt.DTypeLike, work: Workspace, name: str) -> Array:
        layer = self.layers[i]
        return work.take(f"{name} inputs {i}", n, layer.steps * layer.inputs, dtype)

    def _take_values(
        self, i: int, following: Array, work: Workspace, name: str
    ) -> tuple[Array, Array | None]:
        """Where values of a layer are to stand, and what the inputs above are yet to be filled from, if at all."""
        place = self.layers[i + 1].place(following)
        if place is not None:
            return place, None
        values = work.take(f"{name} values {i}", len(following), self.layers[i].size, following.dtype)
        return values, values

    def forward(self, weights: Weights, batch: Batch) -> list[Array]:
        """Pre-activations z_1 … z_L of a forward pass, (n, size) each."""
        return [z for _, _, z, _ in self.propagate(weights, batch, Fresh())]

    def predict(self, weights: Weights, batch: Batch) -> Array:
        """φ_L of a forward pass, (n, size); of a padded step that of zero z."""
        return self.loss.predict(self.forward(weights, batch)[-1])

    def states_after(self, weights: Weights, batch: Batch) -> Array:
        """s_i at the last step of every sequence, (n, Σ units) over recurrent layers: `states` of what follows it."""
        found = []
        for layer, (block, _, _, values) in zip(
            self.layers, self.propagate(weights, batch, Fresh()), strict=True
        ):
            if layer.recurrent and values is not None:
                found.append(block.final(values.reshape(len(values), layer.steps, layer.units)))
        return np.concatenate(found, axis=1)

    # --- at any z

    def evaluate(
        self,
        weights: Weights,
        prepared: Prepared,
        targets: Targets,
        z: list[Array],
        work: Workspace | None = None,
        name: str = "",
        offsets: Sequence[Array] | None = None,
    ) -> Point:
        """Everything at z.

        Parameters
        ----------
        weights : tuple of ndarray
            W̃_1 … W̃_L.
        prepared : Prepared
            As `prepare` gives it.
        targets : Targets
            As `loss.targets` gives them.
        z : list of ndarray, (n, size)
            Pre-activations.
        work, name : Workspace, str
            Where the point's arrays are kept, and a name that no other point in use has there.
        offsets : sequence of ndarray, (n, size), optional
            o_1 … o_L: what the point calls residuals is r_i + o_i then.
        """
        work = work or Workspace()
        n, dtype = len(z[0]), weights[0].dtype
        all_inputs, all_values, residuals = [], [], []
        squares = [np.empty(n, dtype) for _ in z]
        inputs, below, drive = prepared.inputs, prepared.x, prepared.drive
        if inputs is None:
            inputs = self._take_inputs(0, n, dtype, work, name)
        for i, (layer, block) in enumerate(zip(self.layers, prepared.blocks, strict=True)):
            values, following, rest = None, None, None
            if i < len(self.activations):
                following = self._take_inputs(i + 1, n, dtype, work, name)
                values, rest = self._take_values(i, following, work, name)
                layer.activate(z[i], values, block)
                all_values.append(values)
            residual = work.take(f"{name} residual {i}", n, layer.size, dtype)
            if drive is None:
                layer.fill(inputs, below, values if layer.recurrent else None, block)
                drive = _product(layer, weights[i], inputs, residual)
            _subtract(z[i], drive, None if offsets is None else offsets[i], residual, squares[i])
            all_inputs.append(inputs)
            residuals.append(residual)
            if following is not None:
                inputs, below, drive = following, rest, None
        output, loss = work.like(f"{name} output", residuals[-1]), np.empty(n, dtype)
        for rows in strips(*output.shape):
            self.loss.predict(z[-1][rows], output[rows])
            loss[rows] = self.loss.value(z[-1][rows], output[rows], targets[rows], work)
        return Point(z, all_inputs, all_values, residuals, squares, output, loss, prepared)

    def prepared_arrays(self) -> Iterator[ArraySpec]:
        """What `prepare` takes of a workspace."""
        first = self.layers[0]
        if not self.inputs_move:
            yield ArraySpec("inputs", first.steps * first.inputs)
            yield ArraySpec("drive", first.size)

    def input_arrays(self, name: str, first: int) -> Iterator[ArraySpec]:
        """ã of layers from `first` on, and values that do not stand in them."""
        for i, layer in enumerate(self.layers):
            columns = layer.steps * layer.inputs
            if i >= first:
                yield ArraySpec(f"{name} inputs {i}", columns)
            if i and layer.place(np.empty((0, columns))) is None:
                yield ArraySpec(f"{name} values {i - 1}", layer.in_size)

    def point_arrays(self, name: str) -> Iterator[ArraySpec]:
        """What `evaluate` takes of a workspace."""
        yield from self.input_arrays(name, 0 if self.inputs_move else 1)
        for i, layer in enumerate(self.layers):
            yield ArraySpec(f"{name} residual {i}", layer.size)
        yield ArraySpec(f"{name} output", self.widths[-1])
        yield from self.loss.arrays(self.widths[-1], "value")

    def linearise(
        self, weights: Weights, point: Point, m: Sequence[float], work: Workspace | None = None
    ) -> Linearisation:
        """The tangent map at a point, for penalties m_i (½ m_i ‖s_i‖² is the cost of a residual step)."""
        return Linearisation.at(
            self.layers, weights, point.z, point.values, m, point.prepared.blocks, work or Workspace()
        )

    def remainders(
        self,
        weights: Weights,
        prepared: Prepared,
        z: list[Array],
        delta: list[Array],
        work: Workspace,
    ) -> Iterator[Array]:
        """What a step δ changes W̃_i ã_{i−1} by beyond the tangent, (n, size) for each layer; valid until the next."""
        below: Array | None = None
        for i, (layer, block) in enumerate(zip(self.layers, prepared.blocks, strict=True)):
            curved = None
            if i < len(self.activations):
                curved = work.like(f"curved {i}", z[i])
                for rows in strips(*curved.shape):
                    curved[rows] = remainder(layer.activation, z[i][rows], delta[i][rows])
            own = curved if layer.recurrent else None
            if below is None and own is None:
                yield np.zeros((), z[i].dtype)
            else:
                if below is None:
                    below = np.zeros((len(z[i]), layer.in_size), z[i].dtype)
                out = work.like("remainder", z[i])
                layer.image(weights[i], below, own, out, block)
                block.masked(out.reshape(len(out), layer.steps, layer.units))
                yield out
            below = curved

    def remainder_arrays(self) -> Iterator[ArraySpec]:
        """What `remainders` takes of a workspace, layers' own arrays left out."""
        for i, layer in enumerate(self.layers):
            if i or layer.recurrent:
                yield ArraySpec("remainder", layer.size)
            if i < len(self.activations):
                yield ArraySpec(f"curved {i}", layer.size)

    # --- parts and settings

    def part(self, first: int, last: int) -> Network:
        """Layers `first` + 1 … `last` as a network of their own, whose outputs are the values of the last of them."""
        if last == len(self.layers):
            return replace(self, layers=self.layers[first:])
        top = self.layers[last - 1]
        loss = MeanLoss(Squared(top.activation), top.steps if top.steps > 1 else None)
        return Network((*self.layers[first : last - 1], top.linear()), loss)

    def with_steps(self, steps: int) -> Network:
        """The same network, weights included, for sequences of another length."""
        loss = replace(self.loss, steps=steps) if self.every else self.loss
        return replace(self, layers=tuple(layer.with_steps(steps) for layer in self.layers), loss=loss)

    def describe(self) -> dict[str, Any]:
        """The network as JSON-ready settings; `build_network` makes it again."""
        return {
            "layers": [layer.describe() for layer in self.layers],
            "loss": self.loss.name,
            "output_activation": self.loss.output_activation,
            "loss_steps": self.loss.steps,
        }


def build_network(description: Mapping[str, Any]) -> Network:
    """Make a network of what `Network.describe` gave.

    Raises
    ------
    ConfigError
        If the settings fit no network.
    KeyError, TypeError
        If they are no settings of a network at all.
    """
    loss = get_loss(description["loss"], description["output_activation"])
    layers = tuple(build_layer(layer) for layer in description["layers"])
    return Network(layers, MeanLoss(loss, description["loss_steps"]))


def _product(layer: Layer, w: Array, inputs: Array, out: Array) -> Array:
    """W̃ ã of all rows of a block."""
    np.matmul(inputs.reshape(-1, layer.inputs), w.T, out=out.reshape(-1, layer.units))
    return out


def _subtract(z: Array, drive: Array, offset: Array | None, out: Array, squares: Array) -> None:
    """Write z − drive + offset, and the squared norm of every row, strip by strip; `drive` may be `out`."""
    for rows in strips(*out.shape):
        np.subtract(z[rows], drive[rows], out=out[rows])
        if offset is not None:
            out[rows] += offset[rows]
        np.vecdot(out[rows], out[rows], out=squares[rows])
