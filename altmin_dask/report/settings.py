"""The settings of a run as tables: what was changed first, then all, with what was run where one was left open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from altmin_dask.config.catalogue import changed
from altmin_dask.format import setting

Pairs = list[tuple[str, str]]
_SELDOM = "output."
"""Of a table that changes nothing of what is computed."""


def changed_settings(settings: Mapping[str, Any]) -> Pairs:
    """Settings that differ from their defaults, by their whole names.

    Parameters
    ----------
    settings : mapping
        A pipeline, JSON-ready.
    """
    return [(key, setting(value)) for key, value in changed(settings).items() if not key.startswith(_SELDOM)]


def all_settings(
    settings: Mapping[str, Any], resolved: Mapping[str, Any], where: str
) -> list[tuple[str, Pairs]]:
    """List the tables of a pipeline, each with (key, value) pairs, and what was run where it left something open.

    Parameters
    ----------
    settings : mapping
        The pipeline, JSON-ready.
    resolved : mapping
        What the run folder says of that, by whole names ("solver.ridge").
    where : str
        On what it ran, if it is not what `[cluster]` says.
    """
    tables = {name: entries for name, entries in settings.items() if isinstance(entries, Mapping)}
    shown = {table: {key: setting(value) for key, value in each.items()} for table, each in tables.items()}
    for name, value in resolved.items():
        table, _, key = name.partition(".")
        shown.setdefault(table, {})[key] = f"{setting(value)} (by default)"
    if tables.get("network", {}).get("layers"):
        shown["network"].pop("hidden_layer_sizes", None)  # they are in place of these
    if where:
        shown["cluster"] = {"in place of this table": where}
    return [(table, list(entries.items())) for table, entries in shown.items()]
