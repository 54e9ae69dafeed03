"""Time zones of dates: all become moments in UTC, and where they differ in a column, or from before, that is told.

But for an hour's difference, which a place has by itself in summer: moments are the right ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from altmin_dask.errors import warn

if TYPE_CHECKING:
    import pandas as pd

NONE = ""
"""In place of a zone where a time has none."""
_UTC = ("Z", "+00:00", "-00:00", "UTC")
_BEGIN = 16
"""Letters of a date and a time of minutes, behind which a zone begins at the earliest."""
_SHOWN = 5


def zones_of(values: pd.Series[Any]) -> Counter[str]:
    """Rows of each zone that dates have, text or moments."""
    dtype: Any = values.dtype
    rows = int(values.notna().sum())
    if zone := getattr(dtype, "tz", None) or getattr(getattr(dtype, "pyarrow_dtype", None), "tz", None):
        return Counter({_named(str(zone)): rows})
    if str(dtype).startswith(("datetime64", "timestamp", "date32")):
        return Counter({NONE: rows})
    there = values.dropna().tolist()
    # times of a day are many, and what stands behind their minutes is little else than the zone
    ends = Counter(value[_BEGIN:] if isinstance(value, str) else value for value in there)
    found: Counter[str] = Counter()
    for end, count in ends.items():
        found[_zone(end)] += count
    return found


def _zone(end: Any) -> str:
    """That of a date or a moment, or of what stands behind the minutes of text."""
    if not isinstance(end, str):  # a date has none, a moment may
        zone = getattr(end, "tzinfo", None)
        return NONE if zone is None else _named(end.isoformat()[_BEGIN:].lstrip(":.0123456789"))
    zone = end.lstrip(":.0123456789")
    return _named(zone) if zone else NONE


def _named(zone: str) -> str:
    """A zone by one name, however it is written: +0100, +01 and UTC+01:00 are +01:00."""
    zone = zone.removeprefix("UTC") or "UTC"
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        zone = f"{zone[0]}{digits[:2]}:{digits[2:4]}"
    return "UTC" if zone in _UTC else zone


def all_zoned(zones: Mapping[str, int]) -> bool | None:
    """Whether all times have a zone, or none has; None where some have, or there are no times."""
    kinds = {bool(zone) for zone, rows in zones.items() if rows}
    return kinds.pop() if len(kinds) == 1 else None


def warn_of_zones(zones: Mapping[str, Mapping[str, int]], name: str) -> None:
    """Tell of columns of dates that are in several zones, or of which some have none.

    Parameters
    ----------
    zones : mapping
        Rows of each zone, by columns.
    name : str
        What messages call the table.
    """
    for column, counts in zones.items():
        there = {zone: rows for zone, rows in counts.items() if rows}
        if len(there) < 2 or _of_a_place(there):
            continue
        without = ", and those without a zone are taken for UTC" if NONE in there else ""
        warn(
            f"{name} has times of several zones in the column {column!r}, {_listed(there)}: all are converted to UTC"
            f"{without}; if that is not what is meant, write all of them in one zone"
        )


def _of_a_place(zones: Iterable[str]) -> bool:
    """Whether zones may be those of one place: a winter's and a summer's."""
    hours = [_hours(zone) for zone in zones]
    known = [each for each in hours if each is not None]
    return len(known) == len(hours) == 2 and abs(known[0] - known[1]) <= 1


def _hours(zone: str) -> float | None:
    """East of Greenwich; None of what is no number."""
    if zone == "UTC":
        return 0.0
    if zone[:1] not in ("+", "-"):
        return None
    return (-1 if zone[0] == "-" else 1) * (int(zone[1:3]) + int(zone[4:6]) / 60)


def warn_of_other_zones(column: str, zones: Mapping[str, int], trained: bool | None, name: str) -> None:
    """Tell of dates with a zone where those for training had none, or without one where all of them had.

    Parameters
    ----------
    column, zones, name : str, mapping, str
        As of `warn_of_zones`.
    trained : bool or None
        As of `all_zoned`, of the data for training.
    """
    odd = {zone: rows for zone, rows in zones.items() if rows and bool(zone) != trained}
    if trained is None or not odd:
        return
    then = (
        "all had a zone: these are taken for UTC" if trained else "none had one: these are converted to UTC"
    )
    warn(
        f"{name} has times in the column {column!r}, {_listed(odd)}, and in the data for training {then}; write them "
        "as there"
    )


def _listed(zones: Mapping[str, int]) -> str:
    first = sorted(zones, key=lambda zone: (-zones[zone], zone))
    parts = [
        f"{zone if zone else 'without a zone'} in {zones[zone]} row{'s' * (zones[zone] > 1)}"
        for zone in first[:_SHOWN]
    ]
    return ", ".join(parts) + (", …" if len(zones) > _SHOWN else "")
