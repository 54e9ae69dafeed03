"""Columns of several files that make up a table: matched by name, never by position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from altmin_dask.errors import DataError


def same_columns(headers: Sequence[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """The columns of the first file, which all others have to have, in any order.

    Parameters
    ----------
    headers : sequence of (str, sequence of str)
        Files, and the names of their columns.

    Raises
    ------
    DataError
        If a file has others, or one of them twice.
    """
    first, names = headers[0]
    for file, others in headers:
        if twice := [name for name, times in Counter(others).items() if times > 1]:
            raise DataError(f"{file} has more than one column {twice[0]!r}; give each a name of its own")
        if set(others) != set(names):
            differing = [f"{name!r} only here" for name in sorted(set(others) - set(names))]
            differing += [f"{name!r} only there" for name in sorted(set(names) - set(others))]
            raise DataError(f"{file} has other columns than {first}: {', '.join(differing)}")
    return tuple(names)
