"""Samples to predict for, of whatever kind, with what belongs to them, and whether they are ready for the network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.base import is_dask_collection
from dask.delayed import delayed

from altmin_dask.data.checks import check_finite
from altmin_dask.data.find import is_store
from altmin_dask.data.labels import numbered
from altmin_dask.data.open import open_source
from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.streams import mapped
from altmin_dask.data.tables.checking import prepared_rows
from altmin_dask.errors import DataError
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_lazy, rows_of
from altmin_dask.estimators.scaled import Numbers, is_ready
from altmin_dask.preparation import Preparation, as_spelled
from altmin_dask.storage.alike import check_alike
from altmin_dask.storage.locations import locate
from altmin_dask.storage.model import Model
from altmin_dask.storage.units import ENOUGH, LOOKED_AT
from altmin_dask.storage.zarr_groups import open_zarr
from altmin_dask.types import Array


@dataclass(frozen=True, eq=False)
class Inputs:
    """Samples to predict for.

    Attributes
    ----------
    x : ndarray, sparse matrix, dask array or RowReader, (rows, …)
        In memory, lazy, or to be streamed.
    ready : bool
        Whether they are prepared as the network reads them.
    beside : dict
        ``lengths``, in memory, and ``states``, as x is, where the samples have some.
    y : RowReader or None
        Targets, in their own units and names, where the samples have some.
    """

    x: Any
    ready: bool = False
    beside: Mapping[str, Any] = field(default_factory=dict)
    y: RowReader | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        shape: tuple[int, ...] = tuple(self.x.shape[1:])
        return shape

    @property
    def lazy(self) -> bool:
        """Whether predictions are a dask array."""
        return isinstance(self.x, da.Array | RowReader)

    def outputs(self, forward: Forward) -> Any:
        """What a network gives for them."""
        forward = replace(forward, prepare=None) if self.ready else forward
        if isinstance(self.x, da.Array):
            return forward.lazily(self.x, **self.beside)
        if isinstance(self.x, RowReader):
            return forward.streamed(self.x, **self.beside)
        return forward(self.x, **self.beside)

    def as_targets(self, model: Model) -> da.Array:
        """Lazy samples (rows, values) in the units of the raw data, as an auto-encoder's outputs are."""
        x = self.x if isinstance(self.x, da.Array) else whole(self.x)
        x = x if x.ndim == 2 else x.reshape(x.shape[0], prod(x.shape[1:]))
        if not self.ready or (scaling := model.output_scaling) is None:
            return x
        return da.map_blocks(scaling.undo, x, dtype=np.float64, meta=np.empty((0, 0)))


def whole(reader: RowReader) -> da.Array:
    """A stream as a dask array of one block."""
    values = delayed(_everything, pure=False)(delayed(reader, traverse=False))
    return da.from_delayed(values, reader.shape, dtype=reader.dtype)


def _everything(reader: RowReader) -> Array:
    return np.concatenate([np.asarray(block) for block in reader.blocks(1 << 14)])


def of_location(name: str, model: Model, trained: Numbers | None = None) -> Inputs:
    """Samples of a store, or of a file that nothing was done to; `trained` is that of `is_ready`.

    Raises
    ------
    AltMinError
        If they cannot be read, or were prepared otherwise than those for training.
    """
    if is_store(name):
        node = open_zarr(locate(name))
        if isinstance(node, zarr.Array):
            return Inputs(as_lazy(node), is_ready(name, model, trained))
        store = SampleStore.open(name)
        if store.attributes:
            check_alike(store.title, store.scale, store.preparation, model)
        return Inputs(rows_of(store), bool(store.attributes), beside_of(store), targets_of(store, model))
    how = model.preparation
    source = open_source(name, like=None if how is None else how.of_files)
    if how is None or not how.columns:
        check_alike(name, model.scale, _scaled_as(source.preparation, how), model)
    beside = {
        key: _everything(reader) if key == "lengths" else reader
        for key, reader in source.sequence_arrays.items()
    }
    return Inputs(source.x, False, beside, _as_classes(source.y, source.preparation, model))


def beside_of(store: SampleStore) -> dict[str, Any]:
    """What sequences of a store have besides: lengths in memory, a number each; states, which may be many, lazy."""
    return {
        key: np.asarray(array[:]) if key == "lengths" else as_lazy(array)
        for key, array in store.sequence_arrays.items()
    }


def _scaled_as(own: Preparation | None, how: Preparation | None) -> Preparation | None:
    """The preparation of raw samples, as if they were scaled: only what is asked of their columns is of interest."""
    return own if how is None else replace(own or Preparation(), x=how.x)


def targets_of(store: SampleStore, model: Model) -> RowReader | None:
    """Targets of a store in their own units, or as the classes of a model are called."""
    from altmin_dask.data.zarr_reader import read_zarr

    if store.y is None:
        return None
    y, how = read_zarr(store.y, f"y of {store.path}"), store.preparation
    if how is not None and how.y is not None:
        return mapped(y, how.y.undo, np.float64)
    return _as_classes(y, how, model)


def _as_classes(y: RowReader | None, how: Preparation | None, model: Model) -> RowReader | None:
    theirs = None if model.preparation is None else model.preparation.called
    return (
        None
        if y is None
        else named(y, how, spelled=theirs is not None and isinstance(theirs[0], str | bool)).y
    )


@dataclass(frozen=True)
class Named:
    """Targets by their names, where they have some.

    Attributes
    ----------
    y : RowReader
        Names, or numbers where there are none.
    places : ndarray or None
        The name of each of 0 … K − 1, where these were the numbers.
    """

    y: RowReader
    places: Array | None = None


def named(y: RowReader, how: Preparation | None, *, spelled: bool) -> Named:
    """Targets as they were before they were numbered; where they are `spelled` otherwise than numbers, labels, too."""
    if how is None or (how.classes is None and not (spelled and how.spelled)):
        return Named(y)
    if how.classes is None:
        labels: tuple[int, ...] | None = tuple(label for label, _ in how.spelled)
        names = np.array(as_spelled(tuple(text for _, text in how.spelled)))
    else:
        labels, names = how.labels, np.array(how.called)
    if labels is None or labels == tuple(range(len(labels))):
        return Named(mapped(y, lambda block: names[block.astype(np.intp)], names.dtype), names)
    return Named(mapped(y, lambda block: names[numbered(block, labels)], names.dtype))


def of_table(X: Any, how: Preparation) -> Inputs:
    """Raw rows of a frame, in memory or of dask, whose columns are found by their names.

    Raises
    ------
    DataError
        If a column is missing, or has values that it had not before.
    """
    width = len(how.names)
    rows = partial(_rows_of, how=replace(how, targets=(), classes=None))
    if not is_dask_collection(X):
        values = rows(X.to_pandas() if hasattr(X, "to_pandas") else X)
        if len(values):
            check_finite(values, None, 0, "X")
        return Inputs(values)
    missing = [column.name for column in how.columns if column.name not in map(str, X.columns)]
    if missing:
        raise DataError(f"X has no column {missing[0]!r}; it has {', '.join(map(str, X.columns))}")
    parts = [
        da.from_delayed(delayed(rows)(part), (np.nan, width), dtype=np.float64) for part in X.to_delayed()
    ]
    return Inputs(da.concatenate(parts))


def _rows_of(frame: Any, how: Preparation) -> Array:
    # not by way of a dask frame: parts of a frame of Arrow's text have the same name there, whatever is in them
    if len(frame) == 0:
        return np.empty((0, len(how.names)))
    return prepared_rows(frame.rename(columns=str), replace(how, x=None), "X")


def as_table(estimator: Any, X: Any) -> Inputs | None:
    """Raw rows of a frame, if a table was trained on whose columns only its preparation knows; None otherwise."""
    how = estimator.model_.preparation
    if how is None or not how.columns or hasattr(estimator, "feature_names_in_") or not is_frame(X):
        return None
    return of_table(X, how)


def with_units(inputs: Inputs, model: Model) -> Inputs:
    """The same samples, of which columns in other units than in training are told where they are in memory."""
    x = inputs.x
    if isinstance(x, np.ndarray) and model.units is not None and len(x):
        rows = max(2 * ENOUGH, LOOKED_AT // x[0].size)
        some = x[:: max(1, len(x) // rows)]
        prepared = some if inputs.ready else model.prepare(some)
        model.check_units(
            "X", prepared.reshape(-1, len(model.units.mean))
        )  # of a sequence, every step is a row
    return inputs


def is_frame(X: Any) -> bool:
    """Whether samples have named columns."""
    return hasattr(X, "columns") and hasattr(X, "dtypes") and not isinstance(X, str | os.PathLike)


def check_fits(estimator: Any, shape: tuple[int, ...]) -> None:
    """Refuse samples of another size, or shape, than those that an estimator was fitted to.

    Raises
    ------
    DataError
        If they are.
    """
    values = prod(shape)
    if values != estimator.n_features_in_:
        raise DataError(
            f"X has {values} features, but {type(estimator).__name__} is expecting {estimator.n_features_in_} features "
            "as input"
        )
    estimator.model_.check_shape("X", shape)
