"""Whether values for each row are in the order of the rows: those of a source are not, beside a shuffled store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import dask.array as da
import zarr
from dask.blockwise import Blockwise
from zarr.storage import FsspecStore, LocalStore, StorePath

from altmin_dask.data.find import is_store
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError
from altmin_dask.storage.locations import as_name, locate
from altmin_dask.storage.ownership import own_attributes
from altmin_dask.storage.zarr_groups import open_zarr

SHUFFLED = "altmin_shuffled"
"""How layers of dask graphs are called that read the rows of a store as `ingest` has shuffled them."""
_ORIGINAL = "original-"
"""How dask calls the layer with the array itself that blocks are read from."""
AS_THEY_ARE = "altmin_zarr"
"""How layers are called that read other rows."""
_JOINED = "concatenate"
_OTHERS = "rechunk", "reshape", "astype", "getitem", "blocks", "transpose", _JOINED
_SAME = (_ORIGINAL, "from-zarr", "array-", SHUFFLED, AS_THEY_ARE, *_OTHERS)
"""How layers are called that leave numbers as they are."""


def check_order(X: Any, values: Any, name: str) -> None:
    """Refuse values for each row of a store whose rows `ingest` has shuffled: they are likely in the source's order.

    The store may be named by its path, or X one of its arrays, or be made of it row by row.

    Raises
    ------
    DataError
        Unless they are of that store, too, or made of it.
    """
    if values is None:
        return
    notes = _of_rows(X)
    if notes.get("shuffled") is None or any(_notes(array) == notes for array in _arrays_in(values)):
        return
    which = as_name(X) if isinstance(X, str | os.PathLike) else "the store that X is made of"
    raise DataError(
        f"the rows of {which} were shuffled when it was made, and {name} is given beside it; ingest both "
        "together, or with --no-shuffle (the store's array `row` says which row is where)"
    )


def store_at(X: Any) -> SampleStore | None:
    """The sample store that samples are the path or URL of; None if they are none."""
    if not isinstance(X, str | os.PathLike) or not is_store(as_name(X)):
        return None
    return None if isinstance(open_zarr(locate(X)), zarr.Array) else SampleStore.open(X)


def notes_of_numbers(X: Any) -> dict[str, Any]:
    """What `ingest` has noted of the store whose samples X has, number by number; nothing if there is none."""
    if isinstance(X, str | os.PathLike):
        X = open_zarr(locate(X)) if is_store(as_name(X)) else None
    if isinstance(X, zarr.Group):
        return own_attributes({"attributes": X.attrs.asdict()})
    if isinstance(X, da.Array) and not all(str(name).startswith(_SAME) for name in X.dask.layers):
        return {}
    found = [_notes(array) for array in _arrays_in(X) if _placed(array)[1].rpartition("/")[2] == "x"]
    if isinstance(X, da.Array) and any(str(name).startswith(_JOINED) for name in X.dask.layers):
        read = [name for name, before in X.dask.dependencies.items() if not before]
        if len(found) < len(read) or any(each != found[0] for each in found):
            return {}  # what is of no store beside it, or of several
    return next(iter(found), {})


def _placed(array: zarr.Array[Any]) -> tuple[Any, str]:
    """A store of zarr, and the path of an array in it, where its group is, too; no path where there can be none."""
    store, path = array.store, array.path
    if not path and isinstance(store, LocalStore):
        root = store.root.absolute()
        return LocalStore(root.parent, read_only=True), root.name
    if not path and isinstance(store, FsspecStore):  # as dask opens paths
        folder, _, name = store.path.rstrip("/").rpartition("/")
        return FsspecStore(store.fs, read_only=True, path=folder), name
    return store, path


def _of_rows(X: Any) -> dict[str, Any]:
    """What `ingest` has noted of the store that has the rows of X in their order; nothing if there is none."""
    if isinstance(X, str | os.PathLike):
        X = open_zarr(locate(X)) if is_store(as_name(X)) else None
    if isinstance(X, zarr.Group):
        return own_attributes({"attributes": X.attrs.asdict()})
    if isinstance(X, da.Array) and not _keeps_rows(X):
        return {}
    return next((notes for array in _arrays_in(X) if (notes := _notes(array))), {})


def _keeps_rows(array: da.Array) -> bool:
    """Whether rows are those of what is read: our transformers keep them, and what is done block by block."""
    layers = {str(name): layer for name, layer in getattr(array.dask, "layers", {}).items()}
    return any(name.startswith(SHUFFLED) for name in layers) or all(
        isinstance(layer, Blockwise) or name.startswith((_ORIGINAL, "rechunk"))
        for name, layer in layers.items()
    )


def _arrays_in(values: Any) -> Iterator[zarr.Array[Any]]:
    """Arrays of zarr that values are, or are made of by dask."""
    if isinstance(values, zarr.Array):
        yield values
    if not isinstance(values, da.Array):
        return
    for name, layer in getattr(values.dask, "layers", {}).items():
        inside: list[Any] = []
        if isinstance(layer, Blockwise):
            inside = [argument for argument, _ in layer.indices]
        elif str(name).startswith(_ORIGINAL):
            inside = list(layer.values())
        # they are in nodes of dask's graphs, or by themselves
        yield from (each for node in inside if isinstance(each := getattr(node, "value", node), zarr.Array))


def _notes(array: zarr.Array[Any]) -> dict[str, Any]:
    """What `ingest` has noted in the group that an array is in; nothing where it is in none."""
    store, path = _placed(array)
    if not path:
        return {}
    with suppress(ValueError, OSError):  # of zarr, where there is no group
        group = zarr.Group.open(StorePath(store, path.rpartition("/")[0]))
        return own_attributes({"attributes": group.attrs.asdict()})
    return {}
