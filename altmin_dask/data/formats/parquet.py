"""``.parquet`` files, or folders of them, as tables; columns that are in the names of folders, too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from altmin_dask.data.formats.base import in_order
from altmin_dask.data.formats.tables import TableFormat
from altmin_dask.data.tables.columns import same_columns
from altmin_dask.data.tables.parts import Table, numbered

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

BLOCK_BYTES = 16 << 20
"""Of rows that are read at once (chosen, not measured)."""
_FORMS: dict[Callable[[str], int | float | str], re.Pattern[str]] = {
    int: re.compile(r"-?(?:0|[1-9]\d*)", re.ASCII),
    float: re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII),
}
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


class ParquetFormat(TableFormat):
    """Columns with types, in groups of rows."""

    known_as = "a .parquet file or a folder of them"
    endings = (".parquet", ".pq")

    def files(self, path: Path) -> list[Path]:
        """Those in a folder, or below it in folders called ``column=value``."""
        found = super().files(path)
        if found or not path.is_dir():
            return found
        below = sorted((each for each in path.iterdir() if "=" in each.name and each.is_dir()), key=in_order)
        return [file for each in below for file in self.files(each)]

    def table(self, files: list[Path], folder: Path, csv: Mapping[str, Any]) -> Table:
        """Open them."""
        return ParquetTable(files, folder)


class ParquetTable:
    """Files of the same columns, some rows after the other."""

    written = False
    literal = ()

    def __init__(self, files: list[Path], folder: Path) -> None:
        import pyarrow.parquet as pq

        self._files = [file.absolute() for file in files]  # or `file:t.parquet` would be a URL
        self._folders = [_in_folders(file, folder) for file in files]
        self._made = {key: _kind_of(each.get(key) for each in self._folders) for key in self._folders[0]}
        schemas = [pq.read_schema(file) for file in self._files]
        headers = [
            (str(file), (*_columns(schema), *inside))
            for file, schema, inside in zip(files, schemas, self._folders, strict=True)
        ]
        self.names = list(same_columns(headers))

    def parts(
        self,
        columns: Sequence[str],
        text: Collection[str] = (),
        words: Collection[str] = (),
        first: int | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Read them, with the types of Arrow: whole numbers stay whole beside missing ones."""
        return self._read(columns)

    def as_written(self, columns: Sequence[str], first: int | None = None) -> Iterator[pd.DataFrame]:
        """The same."""
        return self._read(columns)

    def where(self, rows: Sequence[int]) -> str:
        """By their numbers, over all files."""
        return f"{numbered('row', rows)}, counted from 0"

    def _read(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        import pandas as pd
        import pyarrow.parquet as pq

        for file, inside in zip(self._files, self._folders, strict=True):
            with pq.ParquetFile(file) as opened:
                about = opened.metadata
                size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
                rows = max(1, BLOCK_BYTES * max(1, about.num_rows) // max(1, size))
                chosen = [column for column in columns if column not in inside]
                for batch in opened.iter_batches(rows, columns=chosen):
                    frame = _plain(batch).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)
                    for key in inside.keys() & set(columns):
                        frame[key] = pd.Series([self._value(key, inside[key])] * len(frame))
                    yield frame[list(columns)]

    def _value(self, key: str, value: str | None) -> int | float | str | None:
        return None if value is None else self._made[key](value)


def _in_folders(file: Path, folder: Path) -> dict[str, str | None]:
    """Columns and values by the names of the folders between."""
    if file == folder:
        return {}
    pairs = (each.split("=", 1) for each in file.relative_to(folder).parts[:-1] if "=" in each)
    return {unquote(key): None if value == _NO_VALUE else unquote(value) for key, value in pairs}


def _kind_of(values: Iterable[str | None]) -> Callable[[str], int | float | str]:
    """What is made of the values of a folder's column: numbers, if all are, or missing; ``007`` is none."""
    there = [value for value in values if value is not None]
    return next((kind for kind, form in _FORMS.items() if all(map(form.fullmatch, there))), str)


def _columns(schema: pa.Schema) -> list[str]:
    """Its columns, without those that pandas wrote as the names of rows."""
    about = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    index = {name for name in about.get("index_columns", ()) if isinstance(name, str)}
    return [name for name in schema.names if name not in index]


def _plain(batch: pa.RecordBatch) -> pa.Table:
    """A table whose dictionaries are the values that they stand for, and that has no value where it says NaN.

    Many programs write that for a missing value, and pandas does not take it for one in types of Arrow.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.Table.from_batches([batch])
    for place, column in enumerate(table.schema):
        written = values = table.column(place)
        if pa.types.is_dictionary(column.type):
            values = values.cast(column.type.value_type)
        if pa.types.is_floating(values.type):
            nan = pc.is_nan(values.cast(pa.float32()) if pa.types.is_float16(values.type) else values)
            if pc.any(nan).as_py():
                values = pc.if_else(nan, pa.scalar(None, values.type), values)
        if values is not written:
            table = table.set_column(place, column.name, values)
    return table
