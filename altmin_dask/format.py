"""Numbers and durations as people read them, wherever they are shown: terminal, report, page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def number(value: float) -> str:
    """Write a quantity with four significant digits, or whole with separators where that says more."""
    return f"{value:,.0f}" if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Write seconds as 4 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def counted_as(count: float, word: str) -> str:
    """Write how many there are of something, as 1 sweep or 2 sweeps."""
    return f"{count:g} {word}" if count == 1 else f"{count:,.15g} {word}s"


def known(value: float | None, show: Callable[[float], str] = number, unknown: str = "–") -> str:
    """Write a value that may not be known: None, NaN and infinity are not."""
    return unknown if value is None or not math.isfinite(value) else show(value)


def setting(value: Any) -> str:
    """Write a value of a pipeline; one for each layer as one where they are all the same."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting(part)}" for key, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        parts = [setting(part) for part in value]
        return parts[0] if parts and len(set(parts)) == 1 else ", ".join(parts) or "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
