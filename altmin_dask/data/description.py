"""What `altmin ingest` tells of a table: its columns, its classes, and what may harm training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from rich.table import Table
from rich.text import Text

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import ColumnReport, Source
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.format import number

_SHOWN = 30
"""Columns, and classes, that are shown one by one."""
_BLOCK = 1 << 20
"""Lengths of sequences that are held at a time."""
_FEW = 8
"""Rows that may well be sorted by chance."""
_APART = 100
"""Times that the widest column may be as wide as the narrowest before it is told (chosen, not measured)."""


def stored(store: SampleStore) -> str:
    """What a store holds, in a line."""
    targets = "no targets" if store.y is None else f"targets {store.y.dtype}"
    steps = ""
    if (lengths := store.sequence_arrays.get("lengths")) is not None:
        ends = np.array(
            [(block.min(), block.max()) for block in read_zarr(lengths, "lengths").blocks(_BLOCK)]
        )
        steps = f"sequences of {ends[:, 0].min()} to {ends[:, 1].max()} steps, "
    return (
        f"{store.path}: {store.rows} samples of {'×'.join(map(str, store.sample_shape))} {store.x.dtype}, {steps}"
        f"{targets}, {store.n_chunks} chunk{'s' if store.n_chunks > 1 else ''} of {store.chunk_rows} rows"
    )


def described(source: Source, store: SampleStore, *, standardize: bool) -> Iterator[Table | Text]:
    """A table of the columns, one of the classes with their counts, and sentences on what may harm.

    Parameters
    ----------
    source : Source
        A table that was learnt from; of others nothing is told.
    store : SampleStore
        What it became.
    standardize : bool
        Whether its numbers have been brought to one scale.
    """
    if not source.columns:
        return
    yield _of_columns(source.columns)
    counts = _counts(store)
    if counts:
        yield _of_classes(counts, store)
    if constant := [
        column.name for column in source.columns if column.low is not None and column.low == column.high
    ]:
        yield Text(f"constant, and of no use: {_listed(constant)}")
    if _is_sorted(store):
        yield Text("rows are sorted by the target, and were not shuffled: leave out --no-shuffle")
    wide = {
        column.name: (column.high or 0) - column.low for column in source.columns if column.low is not None
    }
    spread = {name: width for name, width in wide.items() if width > 0}
    if not standardize and spread and max(spread.values()) > _APART * min(spread.values()):
        names = max(spread, key=spread.__getitem__), min(spread, key=spread.__getitem__)
        ratio = spread[names[0]] / spread[names[1]]
        yield Text(
            f"{names[0]} is {number(ratio)} times as wide as {names[1]}: ingest with --standardize for auto-encoders; "
            "classifiers and regressors standardize it themselves"
        )


def _of_columns(columns: tuple[ColumnReport, ...]) -> Table:
    table = Table("column", "becomes", "missing", "range", title="Columns", title_justify="default")
    for column in columns[:_SHOWN]:
        span = (
            ""
            if column.low is None or column.high is None
            else f"{number(column.low)} … {number(column.high)}"
        )
        table.add_row(Text(column.name), column.becomes, str(column.missing or ""), span)
    if len(columns) > _SHOWN:
        table.add_row(
            f"{len(columns) - _SHOWN} more", "", str(sum(c.missing for c in columns[_SHOWN:]) or ""), ""
        )
    return table


def _counts(store: SampleStore) -> Counter[int]:
    """How many samples each class has, where targets are labels."""
    counts: Counter[int] = Counter()
    if store.y is None or store.y.dtype.kind not in "iu" or len(store.y.shape) != 1:
        return counts
    for start in range(0, store.rows, store.chunk_rows):
        values, found = np.unique(np.asarray(store.y[start : start + store.chunk_rows]), return_counts=True)
        for value, count in zip(values.tolist(), found.tolist(), strict=True):
            counts[value] += count
    return counts


def _is_sorted(store: SampleStore) -> bool:
    """Whether targets, which are not all the same, only grow or only fall from row to row."""
    if store.y is None or len(store.y.shape) != 1 or store.shuffled or store.rows < _FEW:
        return False
    first, rises, falls, before = None, True, True, np.empty(0)
    for start in range(0, store.rows, store.chunk_rows):
        values = np.concatenate([before, np.asarray(store.y[start : start + store.chunk_rows])])
        first, before = values[0] if first is None else first, values[-1:]
        rises &= bool((values[1:] >= values[:-1]).all())
        falls &= bool((values[1:] <= values[:-1]).all())
        if not (rises or falls):
            return False
    return bool(before[0] != first)


def _of_classes(counts: Counter[int], store: SampleStore) -> Table:
    how = store.preparation
    names = {} if how is None else dict(how.spelled if how.classes is None else enumerate(how.classes))
    table = Table("class", "samples", title="Classes", title_justify="default")
    for value in sorted(counts)[:_SHOWN]:
        table.add_row(Text(names.get(value, str(value))), str(counts[value]))
    if len(counts) > _SHOWN:
        table.add_row(
            f"{len(counts) - _SHOWN} more", str(sum(counts[value] for value in sorted(counts)[_SHOWN:]))
        )
    return table


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
