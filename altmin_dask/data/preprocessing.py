"""Sources whose numbers are scaled on the way, as their `Preparation` says or as it is found here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from math import prod

import numpy as np

from altmin_dask.data.checks import check_finite, check_whole
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.streams import mapped
from altmin_dask.errors import DataError, warn
from altmin_dask.preparation import Preparation, Scaling
from altmin_dask.storage.alike import difference
from altmin_dask.types import Array

_BLOCK_BYTES = 8 << 20
"""Of rows in float64 that are held while means and deviations are found, as of a chunk."""
CONSTANT = 1e-14
"""A deviation of less than this share of the largest number, 45 ε of float64, is what rounding leaves of a constant."""


def padded_with_zeros(source: Source) -> Source:
    """A source of sequences in which zeros stand behind their ends, in x and in y of every step, where NaN did."""
    lengths = source.sequence_arrays.get("lengths")
    if lengths is None:
        return source

    def of(reader: RowReader) -> RowReader:
        def blocks(rows: int) -> Iterator[Array]:
            for values, ends in zip(reader.blocks(rows), lengths.blocks(rows), strict=True):
                bad = np.isnan(values)
                bad &= (np.arange(values.shape[1]) >= ends[:, None])[:, :, None]
                yield np.where(bad, values.dtype.type(0), values) if bad.any() else values

        return replace(reader, blocks=blocks)

    def padded(reader: RowReader | None) -> bool:
        return reader is not None and len(reader.shape) == 3 and reader.dtype.kind == "f"

    x, y = source.x, source.y
    y = of(y) if y is not None and padded(y) and y.shape[1] == x.shape[1] else y
    return replace(source, x=of(x) if padded(x) else x, y=y)


def standardized(source: Source) -> Source:
    """A source of mean 0 and variance 1 in every number of x, and of y where that is real; it is read through once.

    What is constant is only shifted; what stands for the value of a column is left as it is, and so are targets that
    are all whole numbers, in whatever dtype: they may be labels. Behind the ends of sequences nothing counts. It is
    recorded on top of what was done before.
    """
    known = source.preparation or Preparation()
    lengths = source.sequence_arrays.get("lengths")
    columns = known.names if known.columns else ()
    finite = partial(check_finite, y=None, name=source.name, where=source.where)
    x, _ = _scaling(source.x, partial(finite, x_name="x", columns=columns), lengths)
    if known.columns:
        keep = ~np.array(known.measured)
        x = Scaling(
            tuple(np.where(keep, 0.0, x.shift).tolist()), tuple(np.where(keep, 1.0, x.scale).tolist())
        )
    y = None
    if source.y is not None and source.y.dtype.kind == "f":
        every = source.y.shape[1:2] == source.x_shape[:1]
        found, whole = _scaling(source.y, partial(finite, x_name="y"), lengths if every else None)
        y = None if whole else found
    scaled = prepared(replace(source, preparation=Preparation(x=x, y=y)))
    both = replace(known, x=_then(known.x, x), y=_then(known.y, y))
    return replace(scaled, preparation=both)


def _then(first: Scaling | None, second: Scaling | None) -> Scaling | None:
    return second if first is None else first if second is None else first.then(second)


def divided(source: Source, scale: float) -> tuple[float, Preparation | None]:
    """What to record of samples whose x is divided by a number, on top of what was done to them before.

    Returns
    -------
    scale : float
        What raw samples are divided by, at first.
    preparation : Preparation or None
        What else is done to them, afterwards.
    """
    how = source.preparation
    if how is None or how.x is None or scale == 1:
        return source.scale * scale, how
    further = Scaling((0.0,) * len(how.x.shift), (scale,) * len(how.x.scale))
    return source.scale, replace(how, x=how.x.then(further))


def prepared_like(source: Source, scale: float, like: Preparation) -> tuple[Source, float]:
    """Raw samples as others were prepared: divided by a number first, then with the scalings of their preparation.

    A store that was prepared like those is left as it is.

    Returns
    -------
    source : Source
        The samples.
    scale : float
        What they are still to be divided by.

    Raises
    ------
    DataError
        If they are not raw, of another size, or have labels of another kind.
    """
    how = source.preparation or Preparation()
    if source.stored and _was_scaled(source):
        what = difference(source.scale, how.inputs, scale, like.inputs)
        if what is None and source.y is not None and (how.y, how.classes) != (like.y, like.classes):
            what = "targets that were prepared otherwise"
        if what is not None:
            raise DataError(f"{source.name} has been prepared already, and has {what}; name the raw data")
        return source, 1.0
    if source.scale != 1 or (replace(how, targets=like.targets) != like and (how.x or how.y) is not None):
        raise DataError(f"{source.name} has been scaled already; name the raw data")
    if source.stored and (what := difference(1.0, how.inputs, 1.0, replace(like.inputs, x=None))) is not None:
        raise DataError(f"{source.name} was prepared otherwise than the samples for training: it has {what}")
    if source.y is not None and how.classes != like.classes:
        theirs, ours = ("text" if classes else "numbers" for classes in (how.classes, like.classes))
        but = (
            f"and those of the samples for training are {ours}" if theirs != ours else "but of other classes"
        )
        raise DataError(f"the targets y of {source.name} are {theirs}, {but}; give data of the same kind")
    left = scale
    if scale != 1 and like.x is not None:
        reader, left = source.x, 1.0

        def divide(block: Array) -> Array:
            check_whole(block, reader.label)
            return np.divide(block, scale, dtype=np.float64)

        source = replace(source, x=mapped(reader, divide, np.float64), scale=scale)
    return prepared(replace(source, preparation=like.stored)), left


def _was_scaled(source: Source) -> bool:
    """Whether numbers were divided or scaled before."""
    how = source.preparation or Preparation()
    return source.scale != 1 or how.x is not None or how.y is not None


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


def _scaling(
    reader: RowReader, check: Callable[..., None], lengths: RowReader | None = None
) -> tuple[Scaling, bool]:
    """Mean and standard deviation of every number of a row, by blocks (Chan, Golub, LeVeque 1983).

    Of sequences with `lengths` those of the steps that are there; and whether all numbers are whole. What is not finite
    `check(values, first_row=…)` refuses, before anything is computed of it.
    """
    size = max(1, prod(reader.shape[1:]))
    mean, squares, seen, whole, row = np.zeros(size), np.zeros(size), np.zeros(size), True, 0
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    rows = max(1, _BLOCK_BYTES // (8 * size))
    ends = repeat(None) if lengths is None else lengths.blocks(rows)
    for block, end in zip(reader.blocks(rows), ends, strict=False):
        values = np.asarray(block, np.float64).reshape(len(block), size)
        there = None
        if end is not None:
            there = np.repeat(np.arange(block.shape[1]) < end[:, None], size // block.shape[1], axis=1)
            values = np.where(there, values, 0.0)
        check(values, first_row=row)
        row += len(values)
        low = np.minimum(low, values.min(axis=0, initial=np.inf, where=True if there is None else there))
        high = np.maximum(high, values.max(axis=0, initial=-np.inf, where=True if there is None else there))
        if there is None:
            count, own = np.full(size, len(values)), values.mean(axis=0)
            off = values - own
        else:
            count = there.sum(axis=0)
            own = values.sum(axis=0) / np.maximum(count, 1)
            off = np.where(there, values - own, 0.0)
        whole = whole and bool((values == np.floor(values)).all())
        both = np.maximum(seen + count, 1)
        squares += np.square(off).sum(axis=0) + np.square(own - mean) * (seen * count / both)
        mean += (own - mean) * (count / both)
        seen += count
    deviation = np.sqrt(squares / np.maximum(seen, 1))
    constant = (deviation <= CONSTANT * np.maximum(np.abs(low), np.abs(high))) | (low >= high)
    drowned = constant & (low < high)
    if drowned.any():
        place = int(np.argmax(drowned))
        warn(
            f"{reader.label} has {'numbers' if size == 1 else f'a column, {place},'} between {low[place]:.17g} and "
            f"{high[place]:.17g}, of whose differences float64 has next to nothing left: subtract an offset first"
        )
    return Scaling(tuple(mean.tolist()), tuple(np.where(constant, 1.0, deviation).tolist())), whole
