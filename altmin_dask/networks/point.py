"""A block of samples: what does not depend on z, and all that a network has at one z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmin_dask.networks.layers import Block
from altmin_dask.types import Array


@dataclass(frozen=True)
class Prepared:
    """What does not depend on z, of a block of samples.

    Attributes
    ----------
    x : ndarray, (n, in_size), or None
        The samples in the weights' dtype; None where `inputs` hold them.
    inputs, drive : ndarray, or None
        ã_0 of the first layer, (n, steps · inputs), and W̃_1 ã_0, (n, size); None where ã_0 moves with z.
    blocks : tuple of Block
        The samples, as each layer sees them.
    """

    x: Array | None
    inputs: Array | None
    drive: Array | None
    blocks: tuple[Block, ...]

    def rows(self, rows: Array) -> Prepared:
        """Some of the samples."""
        x, inputs, drive = (None if a is None else a[rows] for a in (self.x, self.inputs, self.drive))
        return Prepared(x, inputs, drive, tuple(block.rows(rows) for block in self.blocks))


@dataclass
class Point:
    """All per-sample quantities at one z; the arrays of layer i sit at index i − 1.

    Attributes
    ----------
    z : list of ndarray, (n, size)
        Pre-activations.
    inputs : list of ndarray, (n, steps · inputs)
        Augmented inputs ã_{i−1} of each layer; the first holds the samples.
    values : list of ndarray, (n, size)
        φ_i(z_i) of the hidden layers: parts of `inputs`, where they stand there as they are.
    residuals : list of ndarray, (n, size)
        r_i = z_i − W̃_i ã_{i−1}.
    squares : list of ndarray, (n,)
        ‖r_i‖².
    output : ndarray, (n, size)
        φ_L(z_L).
    loss : ndarray, (n,)
        ℓ(φ_L(z_L), y).
    prepared : Prepared
        The samples.
    """

    z: list[Array]
    inputs: list[Array]
    values: list[Array]
    residuals: list[Array]
    squares: list[Array]
    output: Array
    loss: Array
    prepared: Prepared

    def assign(self, rows: Array, other: Point, taken: Array | slice = slice(None)) -> None:
        """Overwrite `rows` of this point by the rows `taken` of another."""
        for mine, theirs in zip(self._arrays(), other._arrays(), strict=True):
            mine[rows] = theirs[taken]

    def _arrays(self) -> Iterator[Array]:
        # the first inputs may be the samples themselves: the same at every point; values may be parts of inputs
        yield from (*self.z, *self.residuals, *self.squares, self.output, self.loss)
        yield from self.inputs if self.prepared.inputs is None else self.inputs[1:]
        for values, above in zip(self.values, self.inputs[1:], strict=True):
            if values.base is not above.base:
                yield values
