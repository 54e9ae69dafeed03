"""JSON objects in files, and how two of them differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from altmin_dask.errors import DataError


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    DataError
        If the file does not hold one.
    """
    try:
        return parse_object(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}") from None


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises
    ------
    ValueError
        If it is none.
    """
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def differences(theirs: Any, ours: Any) -> list[str]:
    """List settings that differ, as "place: theirs there, ours here"."""
    found = []
    for place, *both in differing(theirs, ours):
        there, here = ("left out" if value is None else value for value in both)
        found.append(f"{place}: {there} there, {here} here")
    return found


def differing(theirs: Any, ours: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Give settings that differ, as (place, theirs, ours), with None for what is left out."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from differing(theirs.get(key), ours.get(key), f"{place}.{key}" if place else key)
    elif theirs != ours:
        yield place, theirs, ours
