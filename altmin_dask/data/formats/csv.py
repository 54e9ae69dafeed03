"""``.csv`` and ``.csv.gz`` files, or folders of them, as tables."""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

from altmin_dask.data.formats.tables import TableFormat
from altmin_dask.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BLOCK_BYTES = 16 << 20
"""Of a csv file, read at once (chosen, not measured); compressed ones are read whole."""
_OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class CsvFormat(TableFormat):
    """Text with commas, and names of columns in the first line of every file, in any order."""

    known_as = "a .csv file or a folder of them"
    endings = (".csv", ".csv.gz")

    def frame(self, files: list[str]) -> Any:
        """Open them in blocks of lines; columns are matched by name.

        Raises
        ------
        DataError
            If a first line does not name the columns, or files have columns of different names.
        """
        return self._matched(files)

    def as_written(self, files: list[str]) -> Any:
        """Open them with all columns as text, in the same blocks."""
        return self._matched(files, dtype=str, keep_default_na=False)

    def _matched(self, files: list[str], **how: Any) -> Any:
        import dask.dataframe as dd

        headers = [(file, header_of(file)) for file in files]
        first, names = headers[0]
        for file, others in headers[1:]:
            if set(others) != set(names):
                differing = [f"{name!r} only here" for name in sorted(set(others) - set(names))]
                differing += [f"{name!r} only there" for name in sorted(set(names) - set(others))]
                raise DataError(f"{file} has other columns than {first}: {', '.join(differing)}")
        # Dask reads all by the first one's order: those of another order are opened apart, and stay in their place
        runs = [[file for file, _ in run] for _, run in groupby(headers, key=lambda each: each[1])]
        frames = [self._opened(run, how).map_partitions(_whole_rows)[list(names)] for run in runs]
        return dd.concat(frames) if len(frames) > 1 else frames[0]

    def _opened(self, files: list[str], how: dict[str, Any]) -> Any:
        import dask.dataframe as dd

        if files[0].endswith(".gz"):
            return dd.read_csv(files, blocksize=None, compression="gzip", **how)
        return dd.read_csv(files, blocksize=BLOCK_BYTES, compression=None, **how)


def header_of(file: str) -> tuple[str, ...]:
    """The names of the columns of a file.

    Raises
    ------
    DataError
        If its first line cannot be names, or the second has more fields.
    """
    opened = gzip.open if file.endswith(".gz") else open
    with opened(file, "rt", encoding="utf-8-sig", newline="") as stream:
        lines = list(islice((line for line in csv.reader(stream) if line), 2))
    if not lines:
        raise DataError(f"{file} is empty; its first line names the columns")
    names = lines[0]
    if len(names) == 1 and (other := next((sign for sign in _OTHERS if sign in names[0]), None)):
        raise DataError(f"{file} has {_OTHERS[other]} between its columns; write it with commas")
    if _are_data(names):
        raise DataError(
            f"{file} begins with {', '.join(names[:5])}, which are no names of columns; add a first line of names"
        )
    if len(lines) == 2 and len(lines[1]) > len(names):
        raise DataError(
            f"{file} has {len(lines[1])} fields in a line, but names for {len(names)}; name all of them"
        )
    if "" in names:
        raise DataError(
            f"{file} has no name for column {names.index('') + 1}; a row's number is no input: write it without "
            "(index=False in pandas), or name it and choose columns by --x NAME,NAME,…"
        )
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise DataError(f"{file} has more than one column {twice[0]!r}; give each a name of its own")
    return tuple(names)


def _are_data(names: Sequence[str]) -> bool:
    """Whether a first line is a row of a table without names: a decimal, or whole numbers that do not count columns."""
    numbers = [name for name in names if _is_number(name)]
    if any(not name.strip().isdecimal() for name in numbers):
        return True
    return len(numbers) == len(names) and [int(name) for name in names] != list(range(len(names)))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))  # `nan` and `inf` may well be names
    except ValueError:
        return False


def _whole_rows(part: pd.DataFrame) -> pd.DataFrame:
    """Refuse a block whose first line has more fields than there are names: pandas takes the first for an index."""
    import pandas as pd

    if not part.index.equals(pd.RangeIndex(len(part))):
        raise DataError(
            f"a line that begins with {part.index[0]!r} has more fields than there are names of columns; mend or "
            "leave out such lines"
        )
    return part
