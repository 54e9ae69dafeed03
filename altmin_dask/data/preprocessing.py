"""Sources whose numbers are scaled on the way, as their `Preparation` says or as it is found here."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from altmin_dask.data.checks import check_whole
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.streams import mapped
from altmin_dask.errors import DataError
from altmin_dask.preparation import Preparation, Scaling
from altmin_dask.types import Array

_BLOCK_BYTES = 8 << 20
"""Of rows in float64 that are held while means and deviations are found, as of a chunk."""
_CONSTANT = 1e-12
"""A deviation of less than this share of the mean, 4500 ε of float64, is what rounding leaves of a constant."""


def standardized(source: Source) -> Source:
    """A source of mean 0 and variance 1 in every number of x, and of y where that is real; it is read through once.

    What is constant is only shifted; what stands for the value of a column is left as it is.
    """
    known = source.preparation or Preparation()
    x = _scaling(source.x)
    if known.columns:
        keep = np.concatenate([[column.values is not None] * len(column.names) for column in known.columns])
        x = Scaling(
            tuple(np.where(keep, 0.0, x.shift).tolist()), tuple(np.where(keep, 1.0, x.scale).tolist())
        )
    y = _scaling(source.y) if source.y is not None and source.y.dtype.kind == "f" else None
    return prepared(replace(source, preparation=replace(known, x=x, y=y)))


def prepared(source: Source) -> Source:
    """A source with the scalings of its preparation carried out.

    Raises
    ------
    DataError
        If these are for samples or targets of another size.
    """
    how = source.preparation
    if how is None:
        return source
    x, y = source.x, source.y
    if how.x is not None:
        x = _scaled(x, how.x)
    if how.y is not None and y is not None:
        y = _scaled(y, how.y)
    return replace(source, x=x, y=y)


def _scaled(reader: RowReader, scaling: Scaling) -> RowReader:
    size = prod(reader.shape[1:])
    if size != len(scaling.shift):
        raise DataError(
            f"{reader.label} has {size} numbers in a row, and those of training had {len(scaling.shift)}; "
            "give data of the same kind"
        )

    def apply(block: Array) -> Array:
        check_whole(block, reader.label)
        return scaling.apply(block)

    return mapped(reader, apply, np.float64)


def _scaling(reader: RowReader) -> Scaling:
    """Mean and standard deviation of every number of a row, by blocks (Chan, Golub, LeVeque 1983)."""
    size = max(1, prod(reader.shape[1:]))
    mean, squares, seen = np.zeros(size), np.zeros(size), 0
    for block in reader.blocks(max(1, _BLOCK_BYTES // (8 * size))):
        rows = np.asarray(block, np.float64).reshape(len(block), size)
        own = rows.mean(axis=0)
        squares += np.square(rows - own).sum(axis=0) + np.square(own - mean) * (
            seen * len(rows) / (seen + len(rows))
        )
        mean += (own - mean) * (len(rows) / (seen + len(rows)))
        seen += len(rows)
    deviation = np.sqrt(squares / seen)
    constant = deviation <= _CONSTANT * np.maximum(np.abs(mean), _CONSTANT)
    return Scaling(tuple(mean.tolist()), tuple(np.where(constant, 1.0, deviation).tolist()))
