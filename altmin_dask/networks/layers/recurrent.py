"""The recurrent layer z^t = W a^t + V s^{t−1} + b with s^t = φ(z^t): every step also reads what the last one gave.

Weights are shared over time and kept as W̃ = [W V b], which act on ã^t = [a^t; s^{t−1}; 1], so that statistics are sums
over samples and steps. Where z is given, all steps are evaluated at once: only forward passes, tangents and adjoints
go through time. Sequences of different lengths are padded to T: ã and z of the padding are zero, so it enters no sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import Activation
from altmin_dask.networks.defaults import SEQUENCES, Defaults
from altmin_dask.networks.layers.layer import Block, Layer, positive, uniform
from altmin_dask.networks.layers.settings import LayerSettings, choice, whole
from altmin_dask.types import Array


@dataclass(frozen=True)
class Recurrent(Layer):
    """W̃ [a^t; s^{t−1}; 1] at every step t.

    Attributes
    ----------
    in_features, width : int
        Numbers in a step that is read, and in one of z.
    in_steps : int
        T.
    recurrent_init : {"orthogonal", "identity"}
        What V is at first.
    """

    in_features: int
    width: int
    in_steps: int
    recurrent_init: Literal["orthogonal", "identity"] = "orthogonal"

    kind: ClassVar[str] = "recurrent"
    recurrent: ClassVar[bool] = True
    defaults: ClassVar[Defaults | None] = SEQUENCES

    def __post_init__(self) -> None:
        positive(self, "in_features", "width", "in_steps")

    @property
    def weight_shape(self) -> tuple[int, int]:
        return self.width, self.in_features + self.width + 1

    @property
    def in_size(self) -> int:
        return self.in_steps * self.in_features

    @property
    def steps(self) -> int:
        return self.in_steps

    @property
    def sequence_steps(self) -> int | None:
        return self.in_steps

    @property
    def scalable(self) -> int | None:
        return self.in_features

    @property
    def out_shape(self) -> tuple[int, ...]:
        return self.steps, self.width

    def fill(self, inputs: Array, below: Array | None, own: Array | None, block: Block) -> None:
        assert below is not None  # there is no place for it
        rows, first = self._rows(inputs, self.inputs), self.in_features
        rows[:, :, :first] = self._rows(below, first)
        rows[:, 0, first:-1] = 0 if block.state is None else block.state
        rows[:, :, -1] = 1
        if own is not None:  # otherwise `propagate` writes states, and masks them
            rows[:, 1:, first:-1] = self._rows(own, self.width)[:, :-1]
            block.masked(rows)

    def propagate(self, w: Array, inputs: Array, z: Array, values: Array | None, block: Block) -> None:
        rows, first = self._rows(inputs, self.inputs), self.in_features
        assert values is not None  # it is never the last layer
        drive, found = self._rows(z, self.width), self._rows(values, self.width)
        np.matmul(rows[:, :, :first].reshape(-1, first), w[:, :first].T, out=drive.reshape(-1, self.width))
        drive += w[:, -1]
        across = w[:, first:-1]
        product = block.work.take("across", len(z), self.width, z.dtype)
        state = rows[:, 0, first:-1].copy()  # of one sample even a slice is contiguous
        for t in range(self.steps):
            if t or block.state is not None:
                drive[:, t] += np.matmul(state, across.T, out=product)
            self.activation.value(drive[:, t], out=state)
            if t + 1 < self.steps:
                rows[:, t + 1, first:-1] = state
            found[:, t] = state
        for part in (rows, drive, found):
            block.masked(part)

    def scratch(self) -> dict[str, int]:
        return {"carried": self.width, "across": self.width}

    def image(self, w: Array, below: Array, own: Array | None, out: Array, block: Block) -> Array:
        first = self.in_features
        np.matmul(
            self._rows(below, first).reshape(-1, first), w[:, :first].T, out=out.reshape(-1, self.width)
        )
        if own is not None:
            self._rows(out, self.width)[:, 1:] += self._rows(own, self.width)[:, :-1] @ w[:, first:-1].T
        return out

    def adjoint(self, w: Array, back: Array, out: Array, block: Block) -> Array:
        first = self.in_features
        np.matmul(back.reshape(-1, self.width), w[:, :first], out=out.reshape(-1, first))
        return out

    def carry(self, w: Array, slope: Array, u: Array, out: Array, block: Block) -> None:
        across = np.ascontiguousarray(w[:, self.in_features : -1])
        given, moving, slopes = (self._rows(array, self.width) for array in (u, out, slope))
        carried, product = (
            block.work.take(name, len(u), self.width, u.dtype) for name in ("carried", "across")
        )
        moving[:, 0] = given[:, 0]
        for t in range(1, self.steps):
            np.multiply(slopes[:, t - 1], moving[:, t - 1], out=carried)
            np.add(given[:, t], np.matmul(carried, across.T, out=product), out=moving[:, t])
        block.masked(moving)

    def carry_back(self, w: Array, slope: Array, back: Array, block: Block) -> None:
        across = np.ascontiguousarray(w[:, self.in_features : -1])
        steps, slopes = self._rows(back, self.width), self._rows(slope, self.width)
        product = block.work.take("across", len(back), self.width, back.dtype)
        steps[:, -1] *= slopes[:, -1]
        for t in reversed(range(self.steps - 1)):
            steps[:, t] += np.matmul(steps[:, t + 1], across, out=product)
            steps[:, t] *= slopes[:, t]

    def _rows(self, values: Array, columns: int) -> Array:
        """Numbers of samples, (n, T · columns), step by step: (n, T, columns)."""
        return values.reshape(len(values), self.steps, columns)

    def initial_weights(self, rng: np.random.Generator) -> Array:
        weights, first, d = np.zeros(self.weight_shape), self.in_features, self.width
        weights[:, :first] = uniform(rng, (d, first), first, d, he=False)
        q, r = np.linalg.qr(rng.normal(size=(d, d)))
        identity = self.recurrent_init == "identity"
        weights[:, first:-1] = np.eye(d) if identity else q * np.sign(np.diagonal(r))
        return weights

    def with_steps(self, steps: int) -> Self:
        return replace(self, in_steps=steps)


@dataclass(frozen=True, kw_only=True)
class RecurrentSettings(LayerSettings):
    """`{kind = "recurrent", units = 64}`.

    Attributes
    ----------
    units : int
        Numbers in a step of z, and in the state.
    recurrent_init : {"auto", "orthogonal", "identity"}
        What V is at first; "auto" is the identity for rectifiers (Le et al. 2015), and orthogonal elsewhere.
    """

    layer: ClassVar[type[Layer]] = Recurrent
    units: int
    recurrent_init: Literal["auto", "orthogonal", "identity"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.units, "units")
        choice(self.recurrent_init, "recurrent_init", "auto", "orthogonal", "identity")

    def build(self, in_shape: Sequence[int], activation: Activation) -> Recurrent:
        """Make the layer for sequences (steps, features).

        Raises
        ------
        ConfigError
            If it is given something else.
        """
        if len(in_shape) != 2:
            raise ConfigError(
                f"a recurrent layer reads values of shape (steps, features); it is given {tuple(in_shape)}"
            )
        steps, features = in_shape
        init = self.recurrent_init
        if init == "auto":
            init = "identity" if activation.rectifier else "orthogonal"
        return Recurrent(activation, features, self.units, steps, init)
