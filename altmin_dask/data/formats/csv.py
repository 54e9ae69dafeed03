"""``.csv`` and ``.tsv`` files, compressed or not, or folders of them, as tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TextIO

from fsspec.implementations.local import LocalFileSystem

from altmin_dask.data.formats.tables import TableFormat
from altmin_dask.data.tables.columns import same_columns
from altmin_dask.data.tables.kinds import undated
from altmin_dask.data.tables.parts import Table, numbered
from altmin_dask.data.tables.values import is_number
from altmin_dask.data.tables.words import WORDS
from altmin_dask.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BLOCK_BYTES = 16 << 20
"""Of text that is read at once (chosen, not measured)."""
_LEAST, _MOST_BLOCKS = 256, 4
"""Rows that are read at once of lines that are so long that there are fewer in a block, and how many blocks they may
take: pandas needs as long for a column of a block as for some 300 numbers."""
_SAMPLE = 1 << 20
"""Letters of a file of which the length of a line is taken."""
_OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}
_RARE = ":^~!¦§\x01\x02\x1e\x1f"
"""Characters that are between columns now and then."""
_ZSTD = "zstd"
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip", ".zst": _ZSTD}


class CsvFormat(TableFormat):
    """Text with commas or tabs, and names of columns in the first line of every file, in any order."""

    known_as = "a .csv file or a folder of them"
    endings = tuple(kind + packed for kind in (".csv", ".tsv") for packed in ("", *_PACKED))

    def table(self, files: list[Path], folder: Path, csv: Mapping[str, Any]) -> Table:
        """Open them; columns are matched by name.

        Raises
        ------
        DataError
            If one is there twice, packed in some way or not: its rows would be.
        """
        found: dict[str, Path] = {}
        for file in files:
            name = file.name.lower()
            name = name.removesuffix(next((packed for packed in _PACKED if name.endswith(packed)), ""))
            if (other := found.setdefault(name, file)) is not file:
                raise DataError(
                    f"{folder} has {other.name} beside {file.name}, and all rows of both would be read; keep one of "
                    "them, or call them otherwise if they are not the same table"
                )
        return CsvTable(files, csv)


class CsvTable:
    """Lines of text, a block after the other.

    Files are read by pandas from the first line to the last, whatever they are packed by: a block may then end anywhere
    between two lines, also where text in quotes has lines of its own.

    Parameters
    ----------
    files : list of Path
        With the same columns.
    options : mapping
        As `altmin_dask.table_options` has them.

    Raises
    ------
    DataError
        If a first line does not name the columns, or files have columns of different names.
    """

    written = True

    def __init__(self, files: list[Path], options: Mapping[str, Any]) -> None:
        self._files = [CsvFile(file, options) for file in files]
        self.literal = (*options.get("literal", ()),)
        headers = [(str(file.path), file.names) for file in self._files]
        self.names = list(same_columns(headers))

    def parts(
        self,
        columns: Sequence[str],
        text: Collection[str] = (),
        words: Collection[str] = (),
        first: int | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Read them; of columns that are not said to be text pandas makes numbers in blocks that have nothing else."""
        for file in self._files if first is None else self._files[:1]:
            how = file.missing({*words}) | {"dtype": dict.fromkeys(text, "str"), "nrows": first}
            yield from file.read(columns, **how)

    def as_written(self, columns: Sequence[str], first: int | None = None) -> Iterator[pd.DataFrame]:
        """Read them as text, missing values, too."""
        some = {} if len(columns) == len(self.names) else {"usecols": list(columns)}
        for file in self._files:
            yield from file.read(
                columns, dtype="str", keep_default_na=False, na_values=None, nrows=first, **some
            )

    def where(self, rows: Sequence[int]) -> str:
        """By their lines, as an editor counts them."""
        left, found = list(rows), []
        row = 0
        for file in self._files:
            lines = []
            for line in file.lines():
                if left and row == left[0]:
                    lines.append(line)
                    del left[0]
                row += 1
                if not left:
                    break
            if lines:
                of = f" of {file.path}" if len(self._files) > 1 else ""
                found.append(numbered("line", lines) + of)
            if not left:
                break
        return "; ".join(found)


class CsvFile:
    """One of these files.

    Attributes
    ----------
    path : Path
        Where it is.
    names : tuple of str
        Its columns, without one that names the rows.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path, self._options = path, dict(options)
        self._place = path.absolute()  # or `file:t.csv` would be a URL
        self._sep_given, self._header_given = "sep" in self._options, "header" in self._options
        self._options.setdefault("sep", "\t" if ".tsv" in path.name.lower() else ",")
        self._header = self._options.pop("header", True)
        self._literal = {*self._options.pop("literal", ())}
        self._absent = ["", *self._options.pop("na_values", ())]
        self._options.setdefault("compression", _PACKED.get(path.suffix.lower()))
        self._all, index = self._columns()
        self.names = tuple(name for place, name in enumerate(self._all) if place != index)

    def read(self, columns: Sequence[str], **how: Any) -> Iterator[pd.DataFrame]:
        """Blocks of some columns.

        Raises
        ------
        DataError
            If a line has more fields than there are names.
        """
        import pandas as pd

        options = {**self._options, "names": list(self._all), "header": 0 if self._header else None}
        options = {name: value for name, value in options.items() if name != "index_col"} | how
        row = 0
        options |= {"chunksize": self._block_rows(), "low_memory": False}
        with ExitStack() as opened:
            place: Any = self._place
            if options["compression"] == _ZSTD:
                place, options["compression"] = opened.enter_context(self._unpacked()), None
            for block in opened.enter_context(pd.read_csv(place, **options)):
                if not block.index.equals(pd.RangeIndex(row, row + len(block))):
                    raise DataError(  # pandas takes the first one for the name of the row
                        f"{self.path} has a line that begins with {block.index[0]!r} and has more fields than there "
                        "are names of columns; mend or leave out such lines"
                    )
                row += len(block)
                block.index = pd.RangeIndex(len(block))
                # pandas takes columns out one by one, and there may be tens of thousands
                yield block if tuple(columns) == self._all else block[list(columns)]

    def missing(self, words: set[str]) -> dict[str, Any]:
        """Options by which values are missing, but for words in some columns."""
        usual, kept = [*WORDS, *self._absent], self._literal | words
        if kept:
            values = {name: self._absent if name in kept else usual for name in self._all}
            return {"keep_default_na": False, "na_values": values}
        return {"keep_default_na": False, "na_values": usual}

    def lines(self) -> Iterator[int]:
        """The line of the file, from 1 on, in which each row begins: text in quotes may have several."""
        before = skipped = self._options.get("skiprows", 0)
        header = self._header
        with self._opened() as stream:
            rows = self._reader(stream)
            for row in rows:
                start, before = before + 1, skipped + rows.line_num
                if not self._is_full(row):
                    continue
                if not header:
                    yield start
                header = False

    def _reader(self, stream: TextIO) -> Any:
        return csv.reader(
            stream, delimiter=self._options["sep"], quotechar=self._options.get("quotechar", '"')
        )

    def _is_full(self, row: Sequence[str]) -> bool:
        """Whether a line is a row: pandas passes over empty ones, and comments."""
        comment = self._options.get("comment")
        if len(row) == 1 and not row[0].strip():
            return False
        return bool(row) and not (comment and row[0].startswith(comment))

    def _unpacked(self) -> Any:
        """Bytes that are packed by Zstandard: Arrow knows it always, pandas and fsspec with one more package only."""
        import pyarrow as pa

        return pa.input_stream(str(self._place), compression=_ZSTD)

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        encoding = self._options.get("encoding", "utf-8")
        packed = self._options["compression"]
        kind = {"gz": "gzip"}.get(packed, packed)
        opened = (
            self._unpacked()
            if packed == _ZSTD
            else LocalFileSystem().open(str(self._place), "rb", compression=kind)
        )
        with opened as raw:
            if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
                encoding = "utf-8-sig"
            with io.TextIOWrapper(raw, encoding=encoding, newline="") as stream:
                for _ in range(self._options.get("skiprows", 0)):
                    stream.readline()
                yield stream

    def _block_rows(self) -> int:
        """Lines in a block, by the mean length of the first ones."""
        with self._opened() as stream:
            text = stream.read(_SAMPLE)
        lines = max(1, text.count("\n") or text.count("\r"))
        rows = BLOCK_BYTES * lines // max(1, len(text))
        return max(1, rows, min(_LEAST, _MOST_BLOCKS * BLOCK_BYTES * lines // max(1, len(text))))

    def _columns(self) -> tuple[tuple[str, ...], int | None]:
        """The names of all columns, and which of them names the rows.

        Raises
        ------
        DataError
            If the first line cannot be names, or the second has more fields.
        """
        with self._opened() as stream:
            lines = list(islice(filter(self._is_full, self._reader(stream)), 2))
        if not lines:
            raise DataError(f"{self.path} is empty; its first line names the columns")
        names = lines[0]
        self._check_comment(lines)
        if len(names) == 1 and (other := next((sign for sign in _OTHERS if sign in names[0]), None)):
            raise self._separated_by(other)
        if (
            len(names) == 1
            and len(lines) == 2
            and not self._sep_given
            and (sign := _rare_sign(names[0], lines[1][0]))
        ):
            raise DataError(
                f"{self.path} has a single column, {names[0]!r}, with {sign!r} in every line; write it with commas "
                f"between its columns, or say by --csv {quote(f'sep={sign}')} (data.csv.sep of a pipeline) that this "
                "is between them (sep=, if it is not)"
            )
        words = len(names[0].split())
        if (
            len(names) == 1
            and not self._sep_given
            and len(lines) == 2
            and 1 < words == len(lines[1][0].split())
        ):
            raise DataError(
                f"{self.path} has a single column, {names[0]!r}, whose lines have {words} words each; "
                "write it with commas between its columns, or say by --csv sep=… (data.csv.sep of a pipeline) what "
                "is between them (sep=, if that is right)"
            )
        given = self._options.pop("names", None)
        if given is not None or not self._header:
            self._check_replaced(given, lines)
            names = self._named(given, len(names))
        else:
            self._check_header(names, lines)
        names, index = self._with_index(names)
        if "" in names:
            raise DataError(
                f"{self.path} has no name for column {names.index('') + 1}; a row's number is no input: write it "
                "without (index=False in pandas), leave it out by --csv index_col=0, or name it"
            )
        return tuple(names), index

    def _check_comment(self, lines: Sequence[Sequence[str]]) -> None:
        """Refuse a first line that is no names, as it begins as comments do and what follows has other fields."""
        if len(lines) == 2 and lines[0][0].startswith("#") and len(lines[0]) != len(lines[1]):
            raise DataError(
                f"{self.path} begins with {','.join(lines[0])[:40]!r}, which has not the fields of what follows; if "
                "such lines are comments, say so by --csv 'comment=#' (data.csv.comment of a pipeline)"
            )

    def _separated_by(self, other: str) -> DataError:
        """What is said of a single column with another sign in its name that is between columns."""
        option = "sep=tab" if other == "\t" else f"sep={other}"
        read = self._options["sep"]
        known = f"{self.path} has {_OTHERS[other]} between its columns"
        if self._sep_given:
            return DataError(
                f"{known}, and is read with {_OTHERS.get(read, repr(read))}, as --csv says or the samples for training "
                f"were; say so by --csv {quote(option)} (data.csv.sep of a pipeline)"
            )
        return DataError(
            f"{known}; write it with commas, or say so by --csv {quote(option)} (data.csv.sep of a pipeline)"
        )

    def _named(self, given: Sequence[str] | None, fields: int) -> list[str]:
        """The names that are given for the columns, or their numbers."""
        if given is None:
            return list(map(str, range(fields)))
        if len(given) != fields:
            raise DataError(
                f"{self.path} has {fields} fields in a line, but {len(given)} names are given; name all of them"
            )
        return list(given)

    def _check_replaced(self, given: Sequence[str] | None, lines: Sequence[Sequence[str]]) -> None:
        """Refuse names in place of a first line that may well be a row, as any number in it tells."""
        if given is None or self._header_given or not (_numbers(self._plain(lines[0])) or _has_date(*lines)):
            return
        raise DataError(
            f"{self.path} begins with {', '.join(lines[0][:5])}, which names={','.join(given[:5])} would stand in "
            "place of; say by --csv header=false (data.csv.header of a pipeline) that this is a row, or by header=true "
            "that these are names"
        )

    def _check_header(self, names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
        if not self._header_given and (_are_data(self._plain(names)) or _has_date(*lines)):
            raise DataError(
                f"{self.path} begins with {', '.join(names[:5])}, which are no names of columns; add a first line of "
                "names, or say by --csv header=false that there is none (header=true, if these are names)"
            )
        if len(lines) == 2 and len(lines[1]) > len(names):
            last = len(lines[1]) == len(names) + 1 and not lines[1][-1].strip()
            raise DataError(
                f"{self.path} has {len(lines[1])} fields in a line, but names for {len(names)}; "
                + (
                    "its lines end in a separator, which the first does not: leave it out" * last
                    or "name all of them"
                )
            )

    def _plain(self, fields: Sequence[str]) -> list[str]:
        """Fields with numbers as Python writes them, whatever the decimal sign is."""
        return [field.replace(self._options.get("decimal", "."), ".") for field in fields]

    def _with_index(self, names: list[str]) -> tuple[list[str], int | None]:
        """Which column is left out, as it names the rows; it may have no name."""
        wanted = self._options.get("index_col")
        if wanted is None:
            return names, None
        if wanted in names:
            return names, names.index(wanted)
        if not wanted.isdecimal() or int(wanted) >= len(names):
            raise DataError(f"{self.path} has no column {wanted!r} for index_col; it has {', '.join(names)}")
        place = int(wanted)
        return [name or "index" if each == place else name for each, name in enumerate(names)], place


def _are_data(names: Sequence[str]) -> bool:
    """Whether a first line is a row of a table without names: a decimal, or whole numbers that do not count columns."""
    numbers = _numbers(names)
    if any(not name.strip().isdecimal() for name in numbers):
        return True
    return len(numbers) == len(names) and [int(name) for name in numbers] != list(range(len(names)))


def _numbers(fields: Sequence[str]) -> list[str]:
    """Those that are numbers; `nan` and `inf` may well be names."""
    return [field for field in fields if is_number(field) and math.isfinite(float(field))]


def _has_date(names: Sequence[str], row: Sequence[str] = ()) -> bool:
    """Whether a column of dates is called by a date; there may be no row."""
    written = {*undated(list(names))}  # at once: there may be tens of thousands
    below = [value for name, value in zip(names, row, strict=False) if name not in written]
    return len(undated(below)) < len(below)


def _rare_sign(name: str, row: str) -> str | None:
    """What is as often in the first line as in the second, and seldom anywhere but between columns."""
    return next((sign for sign in _RARE if 0 < name.count(sign) == row.count(sign)), None)
