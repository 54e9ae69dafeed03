"""The fully connected layer z = W a + b: of a whole sample, of every step of a sequence, or of its last step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar, Literal, Self

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import Activation
from altmin_dask.networks.layers.layer import Block, Layer, positive, uniform
from altmin_dask.networks.layers.settings import LayerSettings, choice, whole
from altmin_dask.types import Array


@dataclass(frozen=True)
class Dense(Layer):
    """W̃ [a; 1] for the rows a that the layer reads.

    Attributes
    ----------
    in_features, width : int
        Numbers in a row that is read, and in one of z.
    reads : {"all", "each", "last"}
        All that is below as one row, or each step of sequences, or their last step.
    in_steps : int
        Steps T of the sequences that are read; 1 where all is one row.
    """

    in_features: int
    width: int
    reads: Literal["all", "each", "last"] = "all"
    in_steps: int = 1

    kind: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        positive(self, "in_features", "width", "in_steps")

    @property
    def weight_shape(self) -> tuple[int, int]:
        return self.width, self.in_features + 1

    @property
    def in_size(self) -> int:
        return self.in_steps * self.in_features

    @property
    def steps(self) -> int:
        return 1 if self.reads == "last" else self.in_steps

    @property
    def sequence_steps(self) -> int | None:
        return None if self.reads == "all" else self.in_steps

    @property
    def takes_whole(self) -> bool:
        return self.in_steps == 1

    @property
    def scalable(self) -> int | None:
        return self.in_features

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.steps, self.width) if self.reads == "each" else (self.width,)

    def place(self, inputs: Array) -> Array | None:
        return inputs[:, :-1] if self.in_steps == 1 else None

    def fill(self, inputs: Array, below: Array | None, own: Array | None, block: Block) -> None:
        rows = inputs.reshape(len(inputs), self.steps, self.inputs)
        if below is not None:
            rows[:, :, :-1] = self._read(below, block)
        rows[:, :, -1] = 1
        block.masked(rows)

    def image(self, w: Array, below: Array, own: Array | None, out: Array, block: Block) -> Array:
        rows = self._read(below, block).reshape(-1, self.in_features)
        np.matmul(rows, w[:, :-1].T, out=out.reshape(-1, self.width))
        return out

    def adjoint(self, w: Array, back: Array, out: Array, block: Block) -> Array:
        rows = back.reshape(-1, self.width)
        if self.steps < self.in_steps:
            steps = out.reshape(-1, self.in_steps, self.in_features)
            block.scatter_last(np.matmul(rows, w[:, :-1]), steps)
        else:
            np.matmul(rows, w[:, :-1], out=out.reshape(-1, self.in_features))
        return out

    def _read(self, values: Array, block: Block) -> Array:
        """The rows that are read of values (n, in_size), as (n, steps, in_features)."""
        rows = values.reshape(len(values), self.in_steps, self.in_features)
        return block.final(rows)[:, None] if self.steps < self.in_steps else rows

    def matrix(self, w: Array) -> Array:
        return w[:, :-1] if self.in_steps == 1 else super().matrix(w)

    def initial_weights(self, rng: np.random.Generator) -> Array:
        weights = np.zeros(self.weight_shape)
        shape, he = (self.width, self.in_features), self.activation.initialization == "he"
        weights[:, :-1] = uniform(rng, shape, self.in_features, self.width, he=he)
        return weights

    def mirror(self) -> Layer:
        if self.reads != "all":
            return super().mirror()
        return replace(self.linear(), in_features=self.width, width=self.in_features)

    def with_steps(self, steps: int) -> Self:
        return self if self.reads == "all" else replace(self, in_steps=steps)

    def to_torch(self, w: Array, torch: Any) -> Any:
        module = torch.nn.Linear(self.in_features, self.width, dtype=torch.tensor(w).dtype)
        module.load_state_dict({name: torch.tensor(values) for name, values in self.torch_tensors(w).items()})
        return module

    def torch_tensors(self, w: Array) -> dict[str, Array]:
        if self.reads != "all":
            raise self._not_exported()
        return {"weight": w[:, :-1], "bias": w[:, -1]}

    def to_onnx(self, w: Array, graph: Any, values: str) -> str:
        if self.reads != "all":
            raise self._not_exported()
        weight, bias = graph.constant(w[:, :-1]), graph.constant(w[:, -1])
        name: str = graph.node("Gemm", [values, weight, bias], transB=1)
        return name


@dataclass(frozen=True, kw_only=True)
class DenseSettings(LayerSettings):
    """`{kind = "dense", units = 64}`.

    Attributes
    ----------
    units : int
        Numbers in a row of z.
    reads : {"all", "each", "last"}
        All values of a sample as one row, or each step of sequences, or their last step.
    """

    layer: ClassVar[type[Layer]] = Dense
    units: int
    reads: Literal["all", "each", "last"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self.units, "units")
        choice(self.reads, "reads", "all", "each", "last")

    def build(self, in_shape: Sequence[int], activation: Activation) -> Dense:
        """Make the layer for values of a shape, which is (steps, features) unless it reads all of them.

        Raises
        ------
        ConfigError
            If there are no steps to read.
        """
        if self.reads == "all":
            return Dense(activation, prod(in_shape), self.units)
        if len(in_shape) != 2:
            raise ConfigError(
                f"a dense layer with reads = '{self.reads}' needs values of shape (steps, features); it is given "
                f"{tuple(in_shape)}"
            )
        steps, features = in_shape
        return Dense(activation, features, self.units, self.reads, steps)
