"""What is wrong with a setting, in a sentence that names its place and the name that may have been meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from altmin_dask.config.base import FORMS


def describe(problem: Any, pipeline: type[BaseModel]) -> str:
    """Say what pydantic found.

    Parameters
    ----------
    problem : dict
        One of the errors of a `ValidationError`.
    pipeline : type
        Of what it is.
    """
    path = [str(part) for part in problem["loc"] if part not in FORMS]
    place = ".".join(path)
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a setting{_meant(path[-1], _settings(pipeline, path[:-1]))}"
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:  # of settings that do not go together
        return message
    if problem["type"] == "literal_error" and isinstance(problem["input"], str):
        message += _meant(problem["input"], re.findall(r"'([^']+)'", problem["ctx"]["expected"]))
    return f"{place} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _settings(table: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Names of the settings of a table; none where it is no table of its own."""
    for name in path:
        kind = table.model_fields[name].annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        table = kind
    return list(table.model_fields)


def either(names: Iterable[str]) -> str:
    """Names as one says which of them to write."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def _meant(word: str, names: Iterable[str]) -> str:
    close = get_close_matches(word, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""
