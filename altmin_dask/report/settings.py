"""The settings of a run as tables: what was changed first, then all, with what was run where one was left open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from altmin_dask.config.catalogue import catalogue
from altmin_dask.format import setting
from altmin_dask.training.defaults import left_open

Pairs = list[tuple[str, str]]
_SELDOM = ("output",)
"""Tables that change nothing of what is computed."""


def changed_settings(settings: Mapping[str, Any]) -> Pairs:
    """Settings that differ from their defaults, by their whole names.

    Parameters
    ----------
    settings : mapping
        A pipeline, JSON-ready.
    """
    known, found = catalogue(), []
    for table, entries in settings.items():
        if table in _SELDOM or not isinstance(entries, Mapping):
            continue
        for key, value in entries.items():
            own = known.get(f"{table}.{key}")
            if own is None or own.required or own.default != value:
                found.append((f"{table}.{key}", setting(value)))
    return found


def all_settings(
    settings: Mapping[str, Any], resolved: Mapping[str, Any], more: Mapping[str, Any], where: str
) -> list[tuple[str, Pairs]]:
    """List the tables of a pipeline, each with (key, value) pairs, and what was run where it left something open.

    Parameters
    ----------
    settings : mapping
        The pipeline, JSON-ready.
    resolved : mapping
        What the run folder says of that.
    more : mapping
        The same of further settings, by their whole names ("solver.ridge").
    where : str
        On what it ran, if it is not what `[cluster]` says.
    """
    tables = {name: dict(entries) for name, entries in settings.items() if isinstance(entries, Mapping)}
    shown = {table: {key: setting(value) for key, value in each.items()} for table, each in tables.items()}
    for name, value in more.items():
        table, _, key = name.partition(".")
        if tables.get(table, {}).get(key) in (None, "auto"):
            shown.setdefault(table, {})[key] = f"{setting(value)} (by default)"
    for table, key, value in left_open(settings, resolved):
        shown.setdefault(table, {})[key] = f"{setting(value)} (by default)"
    if where:
        shown["cluster"] = {"in place of this table": where}
    return [(table, list(entries.items())) for table, entries in shown.items()]
