"""What tells runs of one title apart: the settings that differ between them, as a search for parameters has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from altmin_dask.format import setting

MOST = 4
"""Settings that stand in the name of a run."""
LETTERS = 24
"""Of a value there; of a path the end says more."""


def texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings by their names as they are shown, which any message can carry."""
    return {name: _text(value).encode("utf-8", "replace").decode("utf-8") for name, value in settings.items()}


def of_pipeline(said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a pipeline, JSON-ready, by ``table.key``; what is only of where things are put is none."""
    tables = {
        name: entries for name, entries in said.items() if name != "output" and isinstance(entries, Mapping)
    }
    return {f"{table}.{key}": value for table, entries in tables.items() for key, value in entries.items()}


def differences(runs: Sequence[Mapping[str, str]]) -> list[str]:
    """For each of some runs, given their settings as `texts`, those that differ, as "max_sweeps 5, ridge 0.1".

    Settings of the most values come first, and what is no setting of a run is left out there.
    """
    found: dict[str, dict[str | None, None]] = {}
    for settings in runs:
        found |= {key: {} for key in settings if key not in found}
    told = [settings for settings in runs if settings]  # clients of earlier versions tell none
    for key, values in found.items():
        values.update(dict.fromkeys(settings.get(key) for settings in told))
    differing = sorted((key for key in found if len(found[key]) > 1), key=lambda key: -len(found[key]))
    ends = [key.rpartition(".")[2] for key in differing]
    names = [end if ends.count(end) == 1 else key for key, end in zip(differing, ends, strict=True)]
    return [_named(settings, dict(zip(differing, names, strict=True))) for settings in runs]


def _named(settings: Mapping[str, str], names: Mapping[str, str]) -> str:
    own = [f"{name} {_short(settings[key])}" for key, name in names.items() if key in settings]
    return ", ".join(own[:MOST] + ["…"] * (len(own) > MOST))


def _short(text: str) -> str:
    if len(text) <= LETTERS:
        return text
    return f"…{text[1 - LETTERS :]}" if "/" in text else f"{text[: LETTERS - 1]}…"


def _text(value: Any) -> str:
    """A value, in which a layer is one even where all are alike; of what is neither number nor text its kind."""
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items())
    plain = value is None or isinstance(value, bool | int | float | str)
    return setting(value) if plain else type(value).__name__
