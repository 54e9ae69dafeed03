"""A source of arrays that have names, as in a ``.npz`` file or a zarr group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from altmin_dask.data.checks import warn_of_unread
from altmin_dask.data.labels import TEXT, listed, text_labels
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.streams import mapped, shaped
from altmin_dask.errors import DataError, MissingError, did_you_mean
from altmin_dask.preparation import TRUTH, Preparation
from altmin_dask.storage.sample_arrays import SEQUENCE_ARRAYS, WEIGHTS
from altmin_dask.types import Array


def source_of(
    name: str,
    has: Callable[[str], bool],
    read: Callable[[str, bool], RowReader],
    x: str,
    y: str | None,
    like: Preparation | None = None,
    names: Iterable[str] = (),
) -> Source:
    """Make a source of the arrays `x` and `y`, with those beside them that belong to every sample.

    Beside ``x_train`` these may be ``lengths_train`` and so on.

    Labels that are text become integers, as `with_labels` has it.

    Parameters
    ----------
    name : str
        What messages call it.
    has : callable
        Tells whether there is something of a name.
    read : callable
        ``read(name, text)`` gives the reader of an array, which may be text if that is said, or raises what `no_array`
        gives where there is none.
    x, y : str
        The arrays that are inputs and targets; `y` may be None.
    like : Preparation, optional
        Of the samples that these are to go with.
    names : iterable of str
        All arrays there are, if they are known, so that those can be told of that were likely meant to be read.
    """
    arrays = {"x": read(x, False)} | ({} if y is None else {"y": read(y, True)})
    part = x.removeprefix("x") if x.startswith("x_") else ""
    for key in (*SEQUENCE_ARRAYS, WEIGHTS):
        called = key + part if has(key + part) else key
        if has(called) and called not in (x, y):
            arrays[key] = read(called, False)
    source = with_labels(Source.of(name, arrays), like)
    known = [key for key in (*SEQUENCE_ARRAYS, WEIGHTS) if key not in arrays]
    unread = {}
    for other in names:
        plain = other.removesuffix(part)
        if (
            other.endswith(part)
            and other not in (x, y)
            and plain not in arrays
            and did_you_mean(plain, known)
        ):
            with suppress(DataError):  # of text, which is none of them
                unread[other] = read(other, False)
    warn_of_unread(name, unread, source.x_shape, source.rows, known, part)
    return source


def with_labels(source: Source, like: Preparation | None) -> Source:
    """A source with the classes that its targets are, if these are text, in their place; a column of them is flat.

    Raises
    ------
    DataError
        If there are classes that the samples it is to go with had not, or it has numbers where those had text.
    """
    known = None if like is None else like.classes
    if source.y is None:
        return source
    if source.y.shape[1:] == (1,) != source.x_shape[:1]:  # but for sequences of one step
        source = replace(source, y=shaped(source.y, ()))
    assert source.y is not None
    if source.y.dtype.kind not in TEXT:
        truth = source.y.dtype.kind == "b"
        if known is not None and truth and known == tuple(text for _, text in TRUTH):
            return replace(
                source, y=mapped(source.y, _as_numbers, np.int64), preparation=Preparation(classes=known)
            )
        if known is not None:
            raise DataError(
                f"{source.y.label} has numbers, and the samples for training had text ({listed(known)}); give such "
                "labels"
            )
        return source
    y, classes = text_labels(source.y, known)
    return replace(source, y=y, preparation=Preparation(classes=classes))


def _as_numbers(block: Array) -> Array:
    return block.astype(np.int64)


def no_array(where: str, name: str, names: Iterable[str]) -> MissingError:
    """What is said of an array that is not there."""
    return MissingError(
        f"{where} has no array {name!r}; it has {', '.join(names) or 'none'}: name two with --x NAME --y NAME"
    )
