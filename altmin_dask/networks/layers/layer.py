"""What a layer is to a network: the rows ã that its weights act on, and the linear map between two layers.

A layer reads the values φ(z) of the layer below, (n, in_size), and has pre-activations z, (n, size), which a sample
holds as `steps` rows of `units` numbers: one row of a dense layer, one for each time step of a recurrent one, one for
each position of a convolution. Every row of z is W̃ ã for a row ã of `inputs` numbers that the layer makes of what it
reads; the last number of ã is 1, so that the last column of W̃ = [W b] is the bias. What all layers have in common
follows from that: residuals are z − ã W̃ᵀ, and a layer's statistics are sums over the rows of all samples.

Of a new layer, write the abstract methods in a file of its own, and beside it a table of its settings
(`altmin_dask.networks.layers.settings`), which is named in `LAYERS` (`altmin_dask.networks.layers`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

import numpy as np

from altmin_dask.errors import ConfigError
from altmin_dask.networks.activations import IDENTITY, Activation
from altmin_dask.networks.defaults import Defaults
from altmin_dask.networks.workspace import Workspace, strips
from altmin_dask.types import Array


@dataclass(frozen=True)
class Block:
    """What a layer is told of a block of samples: where sequences end, its own first states, and room to work in.

    Attributes
    ----------
    mask : ndarray, (n, T, 1), or None
        1 where a sequence is, 0 where it is padded; None where no sample is padded.
    last : ndarray of int, (n,), or None
        The last step of every sequence; None where it is T − 1.
    state : ndarray, (n, units), or None
        s⁰ of this layer; None for zero.
    work : Workspace
        Where scratch arrays are taken from, under names of the layer's own.
    """

    mask: Array | None = None
    last: Array | None = None
    state: Array | None = None
    work: Workspace = field(default_factory=Workspace)

    def rows(self, rows: Array) -> Block:
        """The same of some of the samples."""
        mask, last, state = (
            None if array is None else array[rows] for array in (self.mask, self.last, self.state)
        )
        return Block(mask, last, state, self.work)

    def final(self, values: Array) -> Array:
        """Values (n, T, d) at the last step of every sequence, (n, d)."""
        return values[:, -1] if self.last is None else values[np.arange(len(values)), self.last]

    def scatter_last(self, values: Array, steps: Array) -> None:
        """Undo `final`: write values (n, d) into zeros (n, T, d)."""
        steps[:] = 0
        if self.last is None:
            steps[:, -1] = values
        else:
            steps[np.arange(len(values)), self.last] = values

    def masked(self, values: Array) -> Array:
        """Set (n, T, d) to zero in the padding, in place; what has no row for each time step stays as it is."""
        if self.mask is not None and values.shape[1] == self.mask.shape[1]:
            values *= self.mask
        return values


@dataclass(frozen=True)
class Layer(ABC):
    """Plain settings, in a frozen dataclass; weights and arrays are given to its methods, and nothing is kept.

    Arrays of a block of n samples are two-dimensional, (n, size) and (n, in_size), the numbers of a sample in the
    order (steps, units), and contiguous within a sample; where nothing else is said there may be gaps between
    samples. They have the dtype of the weights.

    Attributes
    ----------
    activation : Activation
        φ of its z. That of a network's last layer is the identity, as φ_L belongs to the loss.
    """

    activation: Activation

    kind: ClassVar[str]
    """The name in `LAYERS`, in settings, and in files of models."""
    recurrent: ClassVar[bool] = False
    """Whether ã holds values of the layer itself, at earlier steps. Then it moves with z even where samples are read,
    and z follows from ã step by step: such a layer has a `propagate`, `carry` and `carry_back` of its own."""
    defaults: ClassVar[Defaults | None] = None
    """Settings that a network with such a layer begins with; None where they need not differ."""

    # --- shape

    @property
    @abstractmethod
    def weight_shape(self) -> tuple[int, int]:
        """The shape of W̃: (units, inputs)."""

    @property
    @abstractmethod
    def in_size(self) -> int:
        """Numbers that are read of one sample: those of the layer below, or the sample's own."""

    @property
    def steps(self) -> int:
        """Rows of z, and of ã, of one sample."""
        return 1

    @property
    def units(self) -> int:
        """Numbers in a row of z."""
        return self.weight_shape[0]

    @property
    def inputs(self) -> int:
        """Numbers in a row of ã, the 1 included."""
        return self.weight_shape[1]

    @property
    def size(self) -> int:
        """Numbers in z of one sample."""
        return self.steps * self.units

    @property
    def sequence_steps(self) -> int | None:
        """T, if sequences are read step by step; None where samples are no sequences to the layer."""
        return None

    @property
    def takes_whole(self) -> bool:
        """Whether ã of a sample is all that is read of it, as it is, and the 1: one row, the same whatever z is."""
        return False

    @property
    def scalable(self) -> int | None:
        """How many numbers each row of ã begins with that are read as they are; None where rows have different ones."""
        return None

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of the values of one sample, as it is told to the layer above: `size` numbers."""
        return (self.units,) if self.steps == 1 else (self.steps, self.units)

    # --- the rows that weights act on

    def place(self, inputs: Array) -> Array | None:
        """Where in ã, (n, steps · inputs), values (n, in_size) stand as they are: they are computed right there then.

        None where ã is made of values that stand elsewhere.
        """
        return None

    @abstractmethod
    def fill(self, inputs: Array, below: Array | None, own: Array | None, block: Block) -> None:
        """Make ã of the values of the layer below.

        Parameters
        ----------
        inputs : ndarray, (n, steps · inputs), contiguous
            To be written, all of it: in each row what is read, in whatever order, and in the last place the 1. Rows of
            padding are zero, their 1 included (`Block.masked`).
        below : ndarray, (n, in_size), or None
            Values of the layer below, or samples of any dtype; None where they are at `place` in `inputs` already.
        own : ndarray, (n, size), or None
            Values of the layer itself, if it is `recurrent`; None where `propagate` is still to find them.
        block : Block
            The samples.
        """

    def propagate(self, w: Array, inputs: Array, z: Array, values: Array | None, block: Block) -> None:
        """Write z, (n, size), of a forward pass, and its values φ(z), (n, size), if there is a place for them.

        Parameters
        ----------
        w : ndarray, (units, inputs)
            W̃.
        inputs : ndarray, (n, steps · inputs), contiguous
            ã as `fill` made it; a recurrent layer completes it.
        z : ndarray, (n, size), contiguous
            To be written.
        values : ndarray, (n, size), or None
            To be written; None at the output.
        block : Block
            The samples.
        """
        units, k = self.weight_shape
        np.matmul(inputs.reshape(-1, k), w.T, out=z.reshape(-1, units))
        if values is not None:
            self.activate(z, values, block)

    def activate(self, z: Array, out: Array, block: Block) -> None:
        """Write φ(z), zero in the padding, strip by strip."""
        for rows in strips(*z.shape):
            self.activation.value(z[rows], out=out[rows])
        self._mask(out, block)

    def differentiate(self, z: Array, values: Array, out: Array, block: Block, scale: float = 1.0) -> None:
        """Write `scale` times φ'(z), zero in the padding, strip by strip; all (n, size), and `out` may be `z`."""
        factor = out.dtype.type(scale)
        for rows in strips(*z.shape):
            self.activation.derivative(z[rows], values[rows], out=out[rows])
            if factor != 1:
                out[rows] *= factor
        self._mask(out, block)

    def _mask(self, values: Array, block: Block) -> None:
        if block.mask is not None:
            block.masked(values.reshape(len(values), self.steps, self.units))

    def scratch(self) -> dict[str, int]:
        """The arrays that the layer takes from a block's workspace: names, and numbers of a sample."""
        return {}

    # --- the linear map from values to z, and its transpose

    @abstractmethod
    def image(self, w: Array, below: Array, own: Array | None, out: Array, block: Block) -> Array:
        """How z changes as values do: what `fill` makes of the changes, but for the 1, times W̃ᵀ.

        Parameters
        ----------
        w : ndarray, (units, inputs)
            W̃, perhaps times a number.
        below : ndarray, (n, in_size)
            Changes of the values below.
        own : ndarray, (n, size), or None
            Changes of the layer's own values, if it is `recurrent`; None for none.
        out : ndarray, (n, size), contiguous
            To be written, and returned.
        block : Block
            The samples.
        """

    @abstractmethod
    def adjoint(self, w: Array, back: Array, out: Array, block: Block) -> Array:
        """The transpose of ``below ↦ image``: `back`, (n, size), to `out`, (n, in_size), contiguous and returned."""

    def carry(self, w: Array, slope: Array, u: Array, out: Array, block: Block) -> None:
        """Solve δ = u + image of the layer's own changes φ'(z) δ, step by step, into `out`: u if it is not recurrent.

        Parameters
        ----------
        w : ndarray, (units, inputs)
            W̃ itself.
        slope : ndarray, (n, size)
            φ'(z).
        u : ndarray, (n, size)
            What the step is before it is carried; may be `out` itself.
        """
        np.copyto(out, u)

    def carry_back(self, w: Array, slope: Array, back: Array, block: Block) -> None:
        """The transpose of ``u ↦ φ'(z) δ``, (n, size), in place: of `carry`, or without it of ``u ↦ φ'(z) u``."""
        back *= slope

    def matrix(self, w: Array) -> Array:
        """The map ``below ↦ image`` as one matrix, (size, in_size), for solvers that form it.

        Raises
        ------
        ConfigError
            If it is none, or not the same for every sample.
        """
        raise ConfigError(
            f"solver.curvature = 'exact' is for dense layers; it takes no {self.kind} layers: leave it out"
        )

    # --- weights to begin with, files, other programs

    @abstractmethod
    def initial_weights(self, rng: np.random.Generator) -> Array:
        """W̃ at first, (units, inputs), float64, uniform by the rule of the activation; biases zero."""

    def with_steps(self, steps: int) -> Self:
        """The same layer, weights included, of a network for sequences of another length."""
        return self

    def mirror(self) -> Layer:
        """The layer without φ that reads what this one gives, and gives what this one reads.

        Raises
        ------
        ConfigError
            If there is none.
        """
        raise ConfigError(f"network.initialization = 'layerwise' takes no {self.kind} layers; leave it out")

    def linear(self) -> Self:
        """The same layer without φ, as the last one of a network."""
        return replace(self, activation=IDENTITY)

    def describe(self) -> dict[str, Any]:
        """The kind and all fields, JSON-ready; `build_layer` makes the layer again."""
        settings = {part.name: getattr(self, part.name) for part in fields(self)}
        return {"kind": self.kind, **settings, "activation": self.activation.name}

    def to_torch(self, w: Array, torch: Any) -> Any:
        """A module that maps values of the layer below, (n, in_size), to z, (n, size); `torch` is the package.

        Raises
        ------
        ConfigError
            If such layers are not exported.
        """
        raise self._not_exported()

    def _not_exported(self) -> ConfigError:
        return ConfigError(
            f"{self.kind} layers on sequences cannot be exported; their weights are in the run folder's model"
        )

    def torch_tensors(self, w: Array) -> dict[str, Array]:
        """The tensors of the module of `to_torch`, by the names that they have there.

        Raises
        ------
        ConfigError
            If such layers are not exported.
        """
        raise self._not_exported()

    def to_onnx(self, w: Array, graph: Any, values: str) -> str:
        """Add nodes that map `values`, (n, in_size), to z, (n, size), and name z.

        Parameters
        ----------
        w : ndarray, (units, inputs)
            W̃.
        graph : altmin_dask.export.onnx.Graph
            ``graph.node(operator, inputs, **attributes)`` and ``graph.constant(array)`` name what they add.
        values : str
            Name of what is read.

        Raises
        ------
        ConfigError
            If such layers are not exported.
        """
        raise self._not_exported()


def positive(layer: Layer, *names: str) -> None:
    """Refuse a layer whose settings of these names are below 1.

    Raises
    ------
    ConfigError
        If one is.
    """
    for name in names:
        if getattr(layer, name) < 1:
            raise ConfigError(
                f"{name} of a {layer.kind} layer is {getattr(layer, name)}; it must be at least 1"
            )


def uniform(
    rng: np.random.Generator, shape: tuple[int, int], fan_in: int, fan_out: int, *, he: bool
) -> Array:
    """Draw weights of variance 2/(fan_in + fan_out) (Glorot & Bengio 2010), or 2/fan_in (He et al. 2015)."""
    limit = np.sqrt(6 / fan_in) if he else np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape)
