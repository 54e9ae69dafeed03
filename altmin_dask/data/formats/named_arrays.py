"""A source of arrays that have names, as in a ``.npz`` file or a zarr group."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.errors import MissingError
from altmin_dask.storage.sample_arrays import SEQUENCE_ARRAYS, WEIGHTS


def source_of(
    name: str, has: Callable[[str], bool], read: Callable[[str], RowReader], x: str, y: str | None
) -> Source:
    """Make a source of the arrays `x` and `y`, with those beside them that belong to every sample.

    Parameters
    ----------
    name : str
        What messages call it.
    has : callable
        Tells whether there is something of a name.
    read : callable
        Gives the reader of an array, or raises what `no_array` gives where there is none.
    x, y : str
        The arrays that are inputs and targets; `y` may be None.
    """
    arrays = {"x": read(x)} | ({} if y is None else {"y": read(y)})
    beside = (key for key in (*SEQUENCE_ARRAYS, WEIGHTS) if has(key) and key not in (x, y))
    return Source.of(name, arrays | {key: read(key) for key in beside})


def no_array(where: str, name: str, names: Iterable[str]) -> MissingError:
    """What is said of an array that is not there."""
    return MissingError(
        f"{where} has no array {name!r}; it has {', '.join(names) or 'none'}: name two with --x NAME --y NAME"
    )
