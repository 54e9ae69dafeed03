"""Samples to read: a `Source` knows shapes and dtypes from the start, and streams the values when asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from altmin_dask.data.readers import RowReader, read_memory, unmasked
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.preparation import Preparation
from altmin_dask.storage.sample_arrays import SEQUENCE_ARRAYS, WEIGHTS
from altmin_dask.types import Array


@dataclass(frozen=True)
class ColumnReport:
    """What was found of a column of a table.

    Attributes
    ----------
    name, becomes : str
        What it is called, and what becomes of it, in words.
    missing : int
        Rows that have no value.
    low, high : float or None
        Range of numbers; None of others.
    """

    name: str
    becomes: str
    missing: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Source:
    """Samples to read: inputs and, where there are any, targets, with the same number of rows.

    Attributes
    ----------
    name : str
        What the user called it, for messages.
    x : RowReader
        The inputs, of rank 2 or more: one row per sample.
    y : RowReader or None
        The targets, of rank 1 or more.
    sequence_arrays : mapping of str to RowReader
        Of sequences: ``lengths`` (rows,), integers from 1 to the number of steps, where they are padded; ``states``
        (rows, Σ d_i), where they begin with given states.
    weights : RowReader or None
        How much every sample counts, (rows,), if not all the same.
    preparation : Preparation or None
        What the columns and classes are, and how their numbers are to be scaled.
    scale : float
        What x has been divided by already: of a store that `ingest` wrote.
    rounded : tuple of str
        Names of arrays that have lost digits of float64 already.
    columns : tuple of ColumnReport
        Of a table that was learnt from: its inputs.
    stored : bool
        Whether the preparation was carried out already: of a store that `ingest` wrote.
    reading_bytes : int
        What is held while blocks are read, beside the blocks: of a table, its parts.
    where : callable or None
        ``where(rows)`` says where rows are, counted from 0, for who looks at what is read: on which lines of a file.
    mean_weight : float
        What the weights have been divided by, so that their mean is 1.

    Raises
    ------
    DataError
        If ``x`` has rank 1, its samples are empty, or the arrays differ in length.
    """

    name: str
    x: RowReader
    y: RowReader | None = None
    sequence_arrays: Mapping[str, RowReader] = field(default_factory=dict)
    weights: RowReader | None = None
    preparation: Preparation | None = None
    scale: float = 1.0
    rounded: tuple[str, ...] = ()
    columns: tuple[ColumnReport, ...] = ()
    stored: bool = False
    reading_bytes: int = 0
    where: Callable[[Sequence[int]], str] | None = None
    mean_weight: float = 1.0

    def __post_init__(self) -> None:
        if len(self.x.shape) < 2:
            raise DataError(
                f"{self.x.label} has rank 1; x needs rank 2 or more, one row per sample: "
                "reshape it to (rows, features)"
            )
        if math.prod(self.x_shape) == 0:
            raise DataError(f"{self.x.label} has shape {self.x.shape}; a sample needs at least one value")
        for name, array in self.arrays.items():
            if array.shape[0] != self.rows:
                which = "x and y" if name == "y" else "arrays"
                raise DataError(
                    f"{self.x.label} has {self.rows} rows and {array.label} has {array.shape[0]}; "
                    f"give {which} that belong together"
                )

    @classmethod
    def of(cls, name: str, arrays: Mapping[str, RowReader], preparation: Preparation | None = None) -> Source:
        """Make a source of arrays by the names they have in a store, as `arrays` gives them."""
        sequence_arrays = {key: arrays[key] for key in SEQUENCE_ARRAYS if key in arrays}
        return cls(name, arrays["x"], arrays.get("y"), sequence_arrays, arrays.get(WEIGHTS), preparation)

    @property
    def arrays(self) -> dict[str, RowReader]:
        """All there are, by the names they have in a store: x, y, lengths, states, sample_weight."""
        found = {"x": self.x, "y": self.y, **self.sequence_arrays, WEIGHTS: self.weights}
        return {name: reader for name, reader in found.items() if reader is not None}

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return self.x.shape[0]

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.x.shape[1:]

    @property
    def x_dtype(self) -> np.dtype[Any]:
        """Dtype of the inputs."""
        return self.x.dtype

    @property
    def y_shape(self) -> tuple[int, ...] | None:
        """Shape of one target: ``()`` for labels, None without targets."""
        return None if self.y is None else self.y.shape[1:]

    @property
    def y_dtype(self) -> np.dtype[Any] | None:
        """Dtype of the targets, None without targets."""
        return None if self.y is None else self.y.dtype

    def blocks(self, rows: int) -> Iterator[tuple[Array, Array | None]]:
        """Stream the samples, holding about one block.

        Parameters
        ----------
        rows : int
            Rows in each block, at least 1; the last block may be shorter.

        Yields
        ------
        x : numpy.ndarray
            ``(rows, *x_shape)`` of dtype `x_dtype`. May be a view of shared memory: do not write to it.
        y : numpy.ndarray or None
            ``(rows, *y_shape)`` of dtype `y_dtype`.

        Raises
        ------
        ConfigError
            If `rows` is less than 1.
        DataError
            If the file turns out to be damaged on the way.
        """
        if rows < 1:
            raise ConfigError(f"blocks of {rows} rows cannot be read; ask for at least 1")
        x_blocks = self.x.blocks(rows)
        y_blocks: Iterator[Array | None] = repeat(None) if self.y is None else self.y.blocks(rows)
        # zip() would keep the last block alive while the next one is read
        for _ in range(0, self.rows, rows):
            yield next(x_blocks), next(y_blocks)


def array_source(
    x: ArrayLike,
    y: ArrayLike | None = None,
    *,
    name: str = "the given arrays",
    lengths: ArrayLike | None = None,
    states: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> Source:
    """Make a source of arrays in memory.

    Parameters
    ----------
    x : array_like
        Inputs ``(rows, …)`` of rank 2 or more, boolean, integer or float.
    y : array_like, optional
        Targets ``(rows,)`` or ``(rows, …)``.
    name : str
        What messages call it.
    lengths, states : array_like, optional
        Of sequences, as in `Source`.
    sample_weight : array_like, optional
        How much every sample counts, (rows,).

    Raises
    ------
    DataError
        If the arrays cannot be samples.

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import array_source
    >>> source = array_source(np.zeros((10, 28, 28), np.uint8), np.arange(10))
    >>> source.rows, source.x_shape, source.y_dtype
    (10, (28, 28), dtype('int64'))
    """
    given = {"x": x, "y": y, "lengths": lengths, "states": states, WEIGHTS: sample_weight}
    readers = {
        key: read_memory(np.asarray(unmasked(values, f"{key} of {name}")), f"{key} of {name}")
        for key, values in given.items()
        if values is not None
    }
    return Source.of(name, readers)
