"""Named arrays in one vector, which is what travels between processes and is added up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from altmin_dask.types import Array

Shape = tuple[int, ...]

Layout = Mapping[str, Shape | list[Shape]]
"""The shape of every array by its name, in the order of the vector; a list of shapes is a list of arrays."""


def packed_size(layout: Layout) -> int:
    """How many numbers the arrays of a layout have together."""
    return sum(prod(shape) for shapes in layout.values() for shape in _listed(shapes))


class PackedArrays:
    """Arrays that are views into one vector: to add such objects, add their vectors.

    A subclass gives its layout as a function of what decides it, so that the size is known without any array.

    Parameters
    ----------
    layout : Layout
        Names and shapes; every name becomes an attribute.
    vector : ndarray, (packed_size(layout),), optional
        What the arrays are views of; zeros by default.
    dtype : dtype
        Of the zeros.

    Raises
    ------
    ValueError
        If the vector has another size than the layout.

    Examples
    --------
    >>> class Moments(PackedArrays):
    ...     total: Array
    ...     grams: list[Array]
    >>> moments = Moments({"total": (), "grams": [(2, 2), (1, 1)]})
    >>> moments.grams[0][0, 1] = 5
    >>> moments.vector
    array([0., 0., 5., 0., 0., 0.])
    """

    vector: Array

    def __init__(
        self, layout: Layout, vector: Array | None = None, dtype: npt.DTypeLike = np.float64
    ) -> None:
        size = packed_size(layout)
        self.vector = np.zeros(size, dtype) if vector is None else vector
        if self.vector.shape != (size,):
            raise ValueError(f"{type(self).__name__} takes {size} numbers, not {self.vector.shape}")
        parts = self._parts(layout)
        for name, shapes in layout.items():
            arrays = [next(parts) for _ in _listed(shapes)]
            setattr(self, name, arrays if isinstance(shapes, list) else arrays[0])

    def _parts(self, layout: Layout) -> Iterator[Array]:
        """Every array of the layout, one after the other."""
        start = 0
        for shapes in layout.values():
            for shape in _listed(shapes):
                stop = start + prod(shape)
                yield self.vector[start:stop].reshape(shape)
                start = stop


def split_layers(rows: Array, widths: Sequence[int]) -> list[Array]:
    """Views of z_1 … z_L in rows that hold them side by side, (n, Σ d_i)."""
    return np.split(rows, np.cumsum(widths)[:-1], axis=1)


def _listed(shapes: Shape | list[Shape]) -> list[Shape]:
    return shapes if isinstance(shapes, list) else [shapes]
