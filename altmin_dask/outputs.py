"""Predictions as files that other programs read: tables of csv and parquet, arrays of npy; or else a zarr store."""

from __future__ import annotations

import importlib.util
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.lib import format as npy_format

from altmin_dask.data.open import own_columns, read_columns
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError, warn
from altmin_dask.execution.executor import Executor
from altmin_dask.inference import (
    PREDICTIONS,
    check_store,
    classes_of,
    model_of,
    names_of,
    predict_store,
    write_arrays,
)
from altmin_dask.storage.atomic import new_file, remove_killed
from altmin_dask.storage.endings import is_called_a_file
from altmin_dask.storage.locations import is_url, locate
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.sample_arrays import ROW
from altmin_dask.table_options import TableOptions, csv_like
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

_LABEL = "label"
"""The column of the classes that are predicted."""
_HEAD = 1 << 16
"""Bytes at the beginning of a file that tell whether it is text."""


def write_predictions(
    run: RunFolder,
    store: SampleStore,
    dest: str | os.PathLike[str],
    executor: Executor,
    *,
    source: str | None = None,
    proba: bool = False,
    keep: Sequence[str] = (),
    csv: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path | str:
    """Write a model's outputs for every sample of a store, in its order, as the ending of the destination says.

    ``.csv`` and ``.parquet`` are tables: the columns to keep, or of a folder of images ``file``, which of them each row
    is, or for rows that `ingest` shuffled ``row``, which row of the source each one was; of a classifier ``label``, as
    the class was called for training, and with `proba` a column for every class; of others ``prediction``, or
    ``prediction_NAME`` for each of several numbers. ``.npy`` is one array: labels, or with `proba` probabilities, or
    numbers. Any other ending is that of a zarr store (`altmin_dask.inference.predict_store`), which has both. The
    numbers are those of such a store, which is written beside the destination first. The file appears when complete.

    Parameters
    ----------
    run, store, dest, executor, overwrite
        As of `predict_store`; a file of the same kind may be replaced.
    source : str, optional
        What the store was made of, which is not replaced, and has the columns to keep.
    proba : bool
        Write the probabilities of classes, too.
    keep : sequence of str
        Columns of the source that go along, as they are written there.
    csv : mapping, optional
        How the source is read, where it is csv and otherwise than that for training.

    Raises
    ------
    ExistsError
        If there is something that may not be replaced.
    ConfigError
        If something is asked for that such a file, or a model, has not.
    DataError
        If the samples do not fit the model, or the source has no such columns.
    """
    source = store.path if source is None else source
    check_output(run, source, dest, proba=proba, keep=keep, csv=csv, overwrite=overwrite)
    location, model = locate(dest), Model.load(run.model)
    kind = FILES.get(Path(location).suffix.lower())
    if kind is None:
        return predict_store(run, store, dest, executor, overwrite=overwrite)
    final, replace = _check_file(location, kind, (store.path, locate(source)), overwrite=overwrite)
    kept, rows = _beside(source, keep, model, csv) if kind.table else ([], None)
    names = _columns(model, kept, location, proba=proba) if kind.table else []
    with new_file(final, replace=replace) as hidden:
        write_arrays(run, store, str(hidden), executor)
        group = zarr.open_group(hidden, mode="r")
        if ROW in group and not kind.table:
            _warn_of_order(dest, store)
        written = Predictions(group, model, store.chunk_rows, proba, names, rows)
        kind.write(written, hidden / final.name)
    return final


def _warn_of_order(dest: str | os.PathLike[str], store: SampleStore) -> None:
    """Tell that a file has the rows in an order that it has no place to tell."""
    warn(
        f"{dest} has the order of {store.title}, whose rows were shuffled: which row of its source each one is "
        "stands in its array row, and beside the predictions in a .csv, a .parquet file or a zarr store"
    )


def check_output(
    run: RunFolder,
    source: str,
    dest: str | os.PathLike[str],
    *,
    proba: bool = False,
    keep: Sequence[str] = (),
    csv: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> None:
    """Refuse what `write_predictions` would, before samples are read; arguments and errors as there."""
    location, model = locate(dest), model_of(run)
    kind = FILES.get(Path(location).suffix.lower())
    if proba and classes_of(model) is None:
        raise ConfigError(f"a {model.kind} gives no probabilities; leave out --proba")
    if keep and (kind is None or not kind.table):
        raise ConfigError(f"{location} has no place for columns to keep; write a .csv or .parquet file")
    if kind is None and not os.path.lexists(location) and is_called_a_file(location):
        raise ConfigError(
            f"{location} has an ending that predictions are not written in; give a name that ends in "
            f"{', '.join(FILES)}, or in .zarr for a store"
        )
    if kind is None:
        check_store(location, source, overwrite=overwrite)
        return
    _check_file(location, kind, (locate(source),), overwrite=overwrite)
    if kind.table:
        _columns(model, _beside(source, keep, model, csv)[0], location, proba=proba)


def _beside(
    source: str, keep: Sequence[str], model: Model, csv: Mapping[str, Any] | None
) -> tuple[list[str], Iterator[pd.DataFrame] | None]:
    """The columns of a source that go in front of predictions: those to keep, or what it has of its own."""
    wanted = keep or own_columns(source)
    if not wanted:
        return [], None
    known = {} if model.preparation is None else model.preparation.csv
    return read_columns(source, wanted, csv_like(known, TableOptions.of(csv=csv).csv))


def _check_file(
    location: str, kind: FileKind, samples: Sequence[str], *, overwrite: bool
) -> tuple[Path, bool]:
    """Tell where to write, and whether there is a file to be replaced; refuse what may not be.

    What a killed writer has left beside it is removed first.

    Raises
    ------
    ConfigError
        If it is a URL.
    ExistsError
        If it is that of the samples, lies among them, or is not to be replaced.
    """
    if is_url(location):
        raise ConfigError(
            f"{location} is a URL, to which predictions are written as a zarr store only; give a name that ends in "
            ".zarr, or a path on this machine"
        )
    final = Path(os.path.realpath(location))
    remove_killed(final, re.compile(f"{PREDICTIONS.files.pattern}|{re.escape(final.name)}"))
    for place in (Path(os.path.realpath(each)) for each in samples if not is_url(each)):
        if place == final or place in final.parents:
            raise ExistsError(f"{location} is where the samples themselves are; give another destination")
    if not os.path.lexists(location):
        return final, False
    if not overwrite:
        raise ExistsError(
            f"{location} exists already; give another destination, or --overwrite to replace it"
        )
    if os.path.islink(location) or not final.is_file() or not kind.is_one(final):
        raise ExistsError(
            f"{location} exists and is not {kind.called}, so it is never replaced; give another path"
        )
    return final, True


def _columns(model: Model, kept: Sequence[str], location: str, *, proba: bool) -> list[str]:
    """What the columns of a table are called, behind those that are kept.

    Raises
    ------
    ConfigError
        If there are outputs for every step of a sequence, or two columns would have one name.
    MissingError
        If pandas is not installed.
    """
    if importlib.util.find_spec("pandas") is None or importlib.util.find_spec("pyarrow") is None:
        raise MissingError(f"{location} cannot be written; `pip install 'altmin-dask[tables]'`")
    if model.network.loss.steps is not None:
        raise ConfigError(
            "the network has an output for every step of a sequence, which no table has place for; write a .npy file "
            "or a zarr store"
        )
    if (classes := classes_of(model)) is not None:
        names = [_LABEL, *(map(str, classes) if proba else ())]
    elif model.network.shapes[-1][0] == 1:
        names = ["prediction"]
    else:
        known = names_of(model).get("columns") or range(model.network.shapes[-1][0])
        names = [f"prediction_{name}" for name in known]
    if twice := [name for name, times in Counter([*kept, *names]).items() if times > 1]:
        raise ConfigError(f"{location} would have two columns {twice[0]!r}: {_both(twice[0], kept, names)}")
    return names


def _both(twice: str, kept: Sequence[str], names: Sequence[str]) -> str:
    """What would be called the same, and what to do: a column of the source, what is predicted, or a class."""
    predicted = "the class that is predicted" if names[0] == _LABEL else "what is predicted"
    probability = f"the probability of the class {twice!r}"
    if twice not in kept:
        return f"{predicted}, and {probability}; leave out --proba, or write a .npy file or a zarr store"
    if names[0] == _LABEL and twice in names[1:]:
        return f"that of the source, and {probability}; leave out --proba, or that column of --keep"
    return f"that of the source, and {predicted}; leave it out of --keep, or rename it in the source"


@dataclass(frozen=True)
class Predictions:
    """Arrays of predictions, read chunk by chunk.

    Attributes
    ----------
    group : zarr.Group
        What `altmin_dask.inference.predict_store` writes.
    model : Model
        Of which they are.
    chunk_rows : int
        Rows that are read at once.
    proba : bool
        Whether probabilities of classes are asked for.
    names : list of str
        What the columns of a table are called.
    kept : iterator of DataFrame, or None
        The columns of the source that go in front of them.
    """

    group: zarr.Group
    model: Model
    chunk_rows: int
    proba: bool
    names: list[str]
    kept: Iterator[pd.DataFrame] | None

    def array(self, name: str) -> zarr.Array[Any]:
        """That of the outputs, "prediction", or of the classes, "label"."""
        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array

    def chunks(self) -> Iterator[dict[str, Array]]:
        """Outputs, and labels by the names that classes have, of some rows after the other."""
        classes = classes_of(self.model)
        arrays = {name: self.array(name) for name in ("prediction", "label", ROW) if name in self.group}
        text = np.array(classes) if classes and isinstance(classes[0], str | bool) else None
        for start in range(0, arrays["prediction"].shape[0], self.chunk_rows):
            found = {
                name: np.asarray(array[start : start + self.chunk_rows]) for name, array in arrays.items()
            }
            if text is not None:
                found["label"] = text[found["label"]]
            yield found

    def frames(self) -> Iterator[pd.DataFrame]:
        """The same as tables, with what is kept.

        Raises
        ------
        DataError
            If the source has other rows than were predicted for.
        """
        import pandas as pd

        held: pd.DataFrame | None = None
        for chunk in self.chunks():
            labels = [chunk["label"]] if "label" in chunk else []
            outputs = chunk["prediction"].T if not labels or self.proba else ()
            columns = [pd.Series(column) for column in (*labels, *outputs)]
            frame = pd.concat(columns, axis=1, keys=self.names)
            if ROW in chunk:
                frame.insert(0, ROW, chunk[ROW])
            if self.kept is None:
                yield frame
                continue
            while held is None or len(held) < len(frame):
                if (part := next(self.kept, None)) is None:
                    raise _changed("fewer")
                held = part if held is None else pd.concat([held, part])
            beside = held.iloc[: len(frame)].reset_index(drop=True)
            held = held.iloc[len(frame) :] if len(held) > len(frame) else None
            yield pd.concat([beside, frame], axis=1)
        if self.kept is not None and (held is not None or any(map(len, self.kept))):
            raise _changed("more")


def _changed(how: str) -> DataError:
    return DataError(f"the source has {how} rows than predictions were made for; it has changed meanwhile")


def _write_csv(predictions: Predictions, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        for number, frame in enumerate(predictions.frames()):
            # numbers of float32 as they are, not the shortest ones that would be rounded to them
            exact = frame.astype(dict.fromkeys(frame.select_dtypes("float32").columns, "float64"))
            exact.to_csv(file, index=False, header=number == 0)


def _write_parquet(predictions: Predictions, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        writer = None
        for frame in predictions.frames():
            schema = None if writer is None else writer.schema
            table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(path, table.schema))
            writer.write_table(table)


def _write_npy(predictions: Predictions, path: Path) -> None:
    classes = classes_of(predictions.model)
    name = "prediction" if classes is None or predictions.proba else "label"
    array = predictions.array(name)
    dtype = np.array(classes).dtype if name == "label" and classes else array.dtype
    header = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": array.shape}
    with path.open("wb") as file:
        npy_format.write_array_header_1_0(file, header)
        for chunk in predictions.chunks():
            file.write(np.ascontiguousarray(chunk[name], dtype).tobytes())


def _is_text(file: Path) -> bool:
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    try:
        head[: -4 if len(head) == _HEAD else None].decode("utf-8")  # the last letter may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _begins(mark: bytes) -> Callable[[Path], bool]:
    def is_one(file: Path) -> bool:
        with file.open("rb") as opened:
            return opened.read(len(mark)) == mark

    return is_one


@dataclass(frozen=True)
class FileKind:
    """A kind of file.

    Attributes
    ----------
    called : str
        What messages call one.
    write : callable
        ``write(predictions, path)`` writes one.
    is_one : callable
        Whether a file is one, by its content.
    table : bool
        Whether it has columns with names.
    """

    called: str
    write: Callable[[Predictions, Path], None]
    is_one: Callable[[Path], bool]
    table: bool = True


FILES = {
    ".csv": FileKind("a csv file", _write_csv, _is_text),
    ".parquet": FileKind("a parquet file", _write_parquet, _begins(b"PAR1")),
    ".pq": FileKind("a parquet file", _write_parquet, _begins(b"PAR1")),
    ".npy": FileKind("a .npy file", _write_npy, _begins(npy_format.MAGIC_PREFIX), table=False),
}
"""By the endings of names."""
