"""What users have as samples: arrays and frames in memory, dask collections, zarr arrays, names of stores and files.

In memory is what scikit-learn's `validate_data` takes. Everything else is *lazy*: it is read in blocks of rows to be
trained on, and seen as a dask array to be predicted for.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from numbers import Integral
from shlex import join
from typing import Any

import dask.array as da
import numpy as np
import zarr
from dask.base import compute, is_dask_collection
from scipy.sparse import issparse
from sklearn.utils.validation import validate_data

from altmin_dask.data import splitting
from altmin_dask.data.checks import WHOLE, check_whole, whole_refused
from altmin_dask.data.find import is_store, store_source
from altmin_dask.data.open import open_source
from altmin_dask.data.readers import RowReader, unmasked
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.streams import regrouped, shaped, sliced
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.errors import DataError
from altmin_dask.estimators.explained import refused_texts
from altmin_dask.estimators.order import AS_THEY_ARE, SHUFFLED, check_order
from altmin_dask.preparation import Preparation
from altmin_dask.storage.alike import inputs_of
from altmin_dask.storage.locations import as_name, locate
from altmin_dask.storage.zarr_groups import open_zarr
from altmin_dask.types import Array

_MOMENTS = {"M": "dates", "m": "durations"}
AT_ONCE = 32 << 20
"""Bytes of a dask array that are computed at once while it is written to a store; one block at least."""


def is_lazy(X: Any) -> bool:
    """Tell whether samples are read piece by piece: dask, zarr, or a path or URL."""
    return isinstance(X, str | os.PathLike | zarr.Array | zarr.Group) or is_dask_collection(X)


def check_numbers(X: Any, name: str) -> None:
    """Refuse whole numbers that float64 does not hold, in which scikit-learn hands them on, masked values, and dates.

    Raises
    ------
    DataError
        Naming the first one.
    """
    unmasked(X, name)
    if type(X).__name__ == "LazyFrame":
        raise DataError(
            f"{name} is a LazyFrame of polars; collect() it, or name a parquet file, which is streamed"
        )
    if issparse(X):
        if X.dtype.kind in "iu":
            check_whole(X.tocoo().data, name)
        return
    frame = hasattr(X, "columns") and hasattr(X, "dtypes")
    columns = list(X.columns) if frame else []
    if twice := [column for column, times in Counter(columns).items() if times > 1]:
        raise DataError(f"{name} has more than one column {twice[0]!r}; give each a name of its own")
    for column, values in [(column, X[column]) for column in columns] if frame else [(None, X)]:
        _refuse_moments(getattr(getattr(values, "dtype", None), "kind", ""), name, column)
        try:
            given = np.asarray(values)
        except (TypeError, ValueError):  # of what scikit-learn says it better
            continue
        _refuse_moments(given.dtype.kind, name, column)  # of polars
        if given.dtype.kind != "O":
            check_whole(given, name)
            continue
        for value in given.ravel():
            if isinstance(value, Integral) and not -WHOLE < int(value) < WHOLE:
                raise whole_refused(name, int(value))


def _refuse_moments(kind: str, name: str, column: object) -> None:
    if kind in _MOMENTS:
        place = "" if column is None else f" in the column {column!r}"
        more = "; make numbers of them, or name a csv or parquet file, of which dates become days"
        raise DataError(f"{name} has {_MOMENTS[kind]}{place}{more}")


def outline(X: Any, features: int) -> Any:
    """Something empty with the columns of lazy samples, for scikit-learn's checks of their number and names."""
    meta = getattr(X, "_meta", None)
    return np.empty((0, features)) if meta is None or not hasattr(meta, "columns") else meta


def check_columns(estimator: Any, X: Any, features: int, *, reset: bool) -> None:
    """Learn number and names of the columns of lazy samples, or refuse others, as scikit-learn does."""
    validate_data(estimator, outline(X, features), skip_check_array=True, reset=reset)


def as_dask(X: Any) -> da.Array:
    """Lazy samples as a dask array (rows, features), in blocks of whole rows.

    Raises
    ------
    DataError
        If they are not rows of numbers.
    """
    if isinstance(X, str | os.PathLike):
        name = as_name(X)
        if not is_store(name):
            raise DataError(f"{name} is not a zarr store; `altmin ingest` it into one first")
        node = open_zarr(locate(name))
        X = as_lazy(node) if isinstance(node, zarr.Array) else rows_of(SampleStore.open(name))
    x = in_whole_rows(X)
    return x if x.ndim == 2 else x.reshape(x.shape[0], prod(x.shape[1:]))


def in_whole_rows(X: Any) -> da.Array:
    """Lazy samples that are not in a file, in their own shape."""
    if isinstance(X, zarr.Group):
        raise DataError("X is a zarr group; give its path, or the array in it that holds the samples")
    x = as_lazy(X) if isinstance(X, zarr.Array) else _of_collection(X, "X")
    if x.ndim < 2:
        raise DataError(
            f"Expected 2D array, got {x.ndim}D array instead: X has shape {x.shape}; "
            "Reshape your data to (rows, features)"
        )
    return x.rechunk(dict.fromkeys(range(1, x.ndim), -1))


def as_rows(X: Any) -> Any:
    """Samples in memory as rows (rows, values), of whatever shape they are: images, too."""
    return X.reshape(len(X), prod(X.shape[1:])) if getattr(X, "ndim", 2) > 2 else X


def open_samples(X: Any, y: Any, sample_weight: Any = None, like: Preparation | None = None) -> Source:
    """Lazy samples, and targets of any kind, as a source that a store is written from.

    Parameters
    ----------
    X : path, zarr.Array, dask array or dask dataframe
        Samples (rows, …).
    y : array_like, dask array, dask series or frame, zarr.Array, None
        Targets (rows,) or (rows, outputs). None takes those that are in the store or file X, if there are any.
    sample_weight : as y
        Weights (rows,).
    like : Preparation, optional
        Of the samples that these are to go with: the same columns, values and classes of a table.

    Raises
    ------
    AltMinError
        If something cannot be read, or they do not belong together.
    """
    if isinstance(X, str | os.PathLike) and isinstance(y, str):
        command = ["altmin", "ingest", as_name(X), "samples.zarr", "--y", y]
        raise DataError(
            f"y is {y!r}; where that is a column of {as_name(X)}, `{join(command)}` "
            "makes a store of both (and fills in missing values by --missing), whose path is X; else give an array"
        )
    if isinstance(X, str | os.PathLike):
        source = _open_location(as_name(X), like)
    elif isinstance(X, zarr.Group):
        raise DataError("X is a zarr group; give its path, or the array in it that holds the samples")
    elif isinstance(X, zarr.Array):
        source = Source("the zarr array X", read_zarr(X, "the zarr array X"))
    else:
        source = Source("the dask collection X", _read_dask(known(in_whole_rows(X)), "X"))
    check_order(X, y, "y")
    check_order(X, sample_weight, "sample_weight")
    if y is not None:
        how = source.preparation
        own = None if how is None or inputs_of(how) == Preparation() else inputs_of(how)
        source = replace(source, y=_open_targets(y), preparation=own)
    return source if sample_weight is None else replace(source, weights=open_weights(sample_weight))


def open_weights(sample_weight: Any) -> RowReader:
    """Weights (rows,); a column of them, (rows, 1), is taken for that.

    Raises
    ------
    DataError
        If they have another shape.
    """
    weights = _open_targets(sample_weight, "sample_weight")
    return column_of(weights)


def column_of(weights: RowReader) -> RowReader:
    """Weights (rows, 1) as (rows,)."""
    if weights.dtype.kind not in "biufO":
        raise DataError(f"sample_weight has dtype {weights.dtype}; give numbers from 0 on")
    if weights.shape[1:] == (1,):
        return shaped(weights, ())
    if len(weights.shape) != 1:
        raise DataError(f"sample_weight has shape {weights.shape}; give one weight for each sample, (rows,)")
    return weights


def _open_location(name: str, like: Preparation | None) -> Source:
    if not is_store(name):
        return open_source(name, like=None if like is None else like.of_files)
    node = open_zarr(locate(name))
    if isinstance(node, zarr.Array):
        return Source(name, read_zarr(node, f"the array at {name}"))
    return store_source(SampleStore.open(name))


def _open_targets(y: Any, name: str = "y") -> RowReader:
    if isinstance(y, str | os.PathLike):
        raise DataError(
            f"{name} is a path; give an array, or a path for X alone whose store holds {name} too"
        )
    if isinstance(y, zarr.Array):
        return read_zarr(y, f"the zarr array {name}")
    if is_dask_collection(y):
        return _read_dask(known(_of_collection(y, name, labels=True)), name)
    values = np.asarray(plain_text(unmasked(y, name)))
    if values.ndim == 0:
        raise DataError(f"{name} is {y!r}; give one for each row of X")
    return sliced(values, name)


def _of_collection(X: Any, name: str, *, labels: bool = False) -> da.Array:
    """A dask array of an array or a frame."""
    if hasattr(X, "to_dask_array"):
        if not labels and (texts := _texts(X)):
            raise refused_texts(texts)
        X = _as_numpy(_uncategorized(X, name) if labels else X, name).to_dask_array()
    if not isinstance(X, da.Array):
        raise DataError(f"{name} is a {type(X).__name__}; give a dask array or a dask dataframe")
    if not labels and X.dtype.kind not in "biuf":
        raise DataError(
            f"{name} has dtype {X.dtype}; only integers and real numbers can be used: encode other columns first"
        )
    return X


def _texts(frame: Any) -> list[Any]:
    """Columns of a dask frame that hold text, or categories."""
    from pandas.api.types import CategoricalDtype, is_string_dtype

    if frame.ndim == 1:
        return []
    return [
        column
        for column, dtype in frame.dtypes.items()
        if is_string_dtype(dtype) or isinstance(dtype, CategoricalDtype)
    ]


def _uncategorized(series: Any, name: str) -> Any:
    """Categories of a series of dask as the numbers or text that they are, as NumPy has those of pandas."""
    if series.ndim != 1 or not hasattr(series.dtype, "categories"):
        return series
    series = series.cat.as_known()
    dtype = series.dtype.categories.dtype
    dtype = dtype if isinstance(dtype, np.dtype) else np.dtype(object)

    def plain(part: Any) -> Any:
        if part.isna().any():
            raise DataError(f"Input {name} contains NaN; leave such rows out")
        return part.astype(dtype)

    return series.map_partitions(plain, meta=series._meta.astype(dtype))


def _as_numpy(frame: Any, name: str) -> Any:
    """A dask frame or series of NumPy's numbers: nullable ones, Arrow's, and booleans beside others become objects."""
    from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

    dtypes = {None: frame.dtype} if frame.ndim == 1 else dict(frame.dtypes.items())
    mixed = len(set(dtypes.values())) > 1

    def as_float(dtype: Any) -> bool:
        own = isinstance(dtype, np.dtype)
        return (mixed or not own) and (is_bool_dtype(dtype) or (not own and is_numeric_dtype(dtype)))

    found = {column: "float64" for column, dtype in dtypes.items() if as_float(dtype)}
    # which float64 may not hold, in which they end beside others
    whole = [
        column for column, dtype in dtypes.items() if is_integer_dtype(dtype) and (mixed or column in found)
    ]
    if not found and not whole:
        return frame
    meta = _floats(frame._meta, found, (), name)
    return frame.map_partitions(_floats, found, tuple(whole), name, meta=meta)


def _floats(part: Any, found: dict[Any, str], whole: tuple[Any, ...], name: str) -> Any:
    """A part with some columns as float64, after whole numbers have been looked at."""
    for column in whole:
        values = part if part.ndim == 1 else part[column]
        check_whole(values.dropna().to_numpy(), name)
    return part.astype("float64" if part.ndim == 1 else found) if found else part


def plain_text(values: Any) -> Any:
    """Text of NumPy's variable width, which scikit-learn does not take, in that of a fixed one."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "T":
        return np.array(values.tolist())
    return values


def targets_like(y: Any, predicted: da.Array) -> da.Array:
    """Targets as a dask array of the shape and in the blocks of lazy predictions of known length.

    Raises
    ------
    DataError
        If they have another shape, but for a last axis of length 1.
    """
    if isinstance(y, zarr.Array):
        y = as_lazy(y)
    elif is_dask_collection(y):
        y = known(_of_collection(y, "y", labels=True))
    elif not isinstance(y, da.Array):
        y = da.from_array(np.asarray(unmasked(y, "y")), chunks=-1)
    if y.shape[0] != predicted.shape[0]:
        raise DataError(
            f"X has {predicted.shape[0]} rows and y has {y.shape[0]}; give those that belong together"
        )
    y = shaped_like(y, predicted.shape)
    return y.rechunk({0: predicted.chunks[0]})


def shaped_like(y: Any, shape: tuple[int, ...]) -> Any:
    """Targets of the shape of predictions; NumPy would compare others with every one of these.

    Raises
    ------
    DataError
        If they have another shape, but for a last axis of length 1.
    """
    if y.shape == (*shape, 1) or (*y.shape, 1) == shape:
        y = y.reshape(shape)
    if y.shape != shape:
        raise DataError(f"y has shape {y.shape} and the predictions have {shape}; give such targets")
    return y


def as_lazy(array: zarr.Array[Any], name: str = AS_THEY_ARE) -> da.Array:
    """A zarr array as a dask array of a name of its own: it may have changed since it was last read."""
    return da.from_array(array, chunks=array.chunks, name=f"{name}-{uuid.uuid4().hex}")


def rows_of(store: SampleStore) -> da.Array:
    """Samples of a store, lazy; what is made of them tells, too, whether their rows are shuffled."""
    return as_lazy(store.x, SHUFFLED if store.shuffled else AS_THEY_ARE)


def read_sparse(x: Any) -> RowReader:
    """Read sparse rows (rows, features) as dense blocks, so many at a time."""
    rows = x.tocsr()

    def blocks(count: int) -> Iterator[Array]:
        return (rows[start : start + count].toarray() for start in range(0, rows.shape[0], count))

    return RowReader("the sparse samples X", rows.shape, rows.dtype, blocks)


def known(array: da.Array) -> da.Array:
    """A dask array whose length is known, if need be by going through it once."""
    if any(np.isnan(size) for size in array.shape):
        array = array.copy().compute_chunk_sizes()  # which changes the array itself
    return array


def _read_dask(array: da.Array, label: str) -> RowReader:
    """Read a dask array of known length, a few blocks of rows at a time."""
    array = array.rechunk(dict.fromkeys(range(1, array.ndim), -1))

    row_bytes = max(1, prod(array.shape[1:]) * array.dtype.itemsize)

    def computed() -> Iterator[Array]:
        for numbers in _batches(array.chunks[0], AT_ONCE // row_bytes):
            for block in compute(*(array.blocks[number] for number in numbers)):
                yield block.toarray() if issparse(block) else np.asarray(unmasked(block, label))

    return RowReader(label, array.shape, array.dtype, lambda rows: regrouped(computed(), rows))


def _batches(sizes: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Numbers of consecutive blocks that have no more than so many rows together, but one at least."""
    batch: list[int] = []
    count = 0
    for number, size in enumerate(sizes):
        if batch and count + size > rows:
            yield batch
            batch, count = [], 0
        batch.append(number)
        count += size
    yield batch


def read_from(store: SampleStore, source: Source) -> Source:
    """The samples that a source was written to, by the names that messages call those of the source."""
    found = store_source(store)
    arrays = {name: replace(reader, label=source.arrays[name].label) for name, reader in found.arrays.items()}
    return replace(
        Source.of(source.name, arrays, found.preparation),
        scale=found.scale,
        rounded=found.rounded,
        mean_weight=found.mean_weight,
    )


def split(source: Source, fraction: float, seed: int, classes: Array | None = None) -> tuple[Source, Source]:
    """Divide samples into those to train on and those held out, as `altmin_dask.data.splitting.split` does.

    Of labels, (rows,), every class has its share in both.
    """
    labels = classes is not None and source.y is not None and len(source.y.shape) == 1
    return splitting.split(
        source,
        fraction,
        seed,
        setting="validation_fraction",
        otherwise="early_stopping=False",
        stratified=labels,
        names=classes.tolist() if labels and classes is not None else None,
    )
