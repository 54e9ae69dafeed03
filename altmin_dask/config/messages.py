"""What is wrong with a setting, in a sentence that names its place and the name that may have been meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel

from altmin_dask.config.base import FORMS
from altmin_dask.errors import did_you_mean

_TABLES_NEED = {
    "data": ": write a table [data] with train = SAMPLES",
    "network": ": write a table [network] with kind = KIND (`altmin init KIND` writes all of it)",
}
"""What is written where a table is missing."""
NOTHING = ("none", "null")
"""Words for no value behind ``--set``, as TOML has none; in quotes they are text."""
ELSEWHERE = {
    "alpha": "solver.ridge",
    "l2": "solver.ridge",
    "epochs": "training.max_sweeps",
    "max_epochs": "training.max_sweeps",
    "max_iter": "training.max_sweeps",
    "batch_size": "training.group_chunks",
    "early_stopping": "training.n_iter_no_change",
    "random_state": "training.seed",
    "validation_fraction": "data.validation",
    "validation_split": "data.validation",
    "test_size": "data.validation",
    "target": "data.y",
    "label": "data.y",
    "units": "network.hidden_layer_sizes",
}
"""Settings by what other libraries call them."""
OF_TABLE = {
    "training.patience": "training.n_iter_no_change",
    "training.early_stopping_rounds": "training.n_iter_no_change",
    "training.early_stopping_patience": "training.n_iter_no_change",
}
"""Settings by what other libraries call them, where another table has one of that name, or one that is nearer."""
NO_RATE = "; there is no learning rate: the length of a step follows from a model of the loss"
NO_DROPOUT = "; there is no dropout: ridge and weight_decay ([solver]) are what works against over-fitting"
VALUES = {
    "logistic": "sigmoid",
    "linear": "identity",
    "swish": "silu",
    "mse": "squared",
    "l2_loss": "squared",
    "mean_squared_error": "squared",
    "squared_error": "squared",
    "log_loss": "cross_entropy",
    "nll_loss": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "sparse_categorical_crossentropy": "cross_entropy",
    "bce": "binary_cross_entropy",
    "bce_loss": "binary_cross_entropy",
    "float": "float32",
    "single": "float32",
    "double": "float64",
    "glorot": "random",
    "lasso": "l1",
}
"""Words of settings by what other libraries call them."""
TRUE, FALSE = ("true", "yes", "on"), ("false", "no", "off")
"""Words for true and for false behind ``--set``."""
DEFAULT = "default"
"""The word for what a setting is if nobody says anything."""


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
        return f"{place} is not a setting{_meant(path, pipeline)}"
    if problem["type"] == "missing":
        return f"{place} is missing{_TABLES_NEED.get(place, '')}"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:  # of settings that do not go together
        return message
    if len(path) == 1 and isinstance(problem["input"], dict):  # a table, not all of which is wrong
        return message if message.startswith(f"{place}.") else f"{place}.{message}"
    message = _helped(message, problem, path, pipeline)
    by_default = f"leave it out, or write {place}={DEFAULT} behind --set, for its default"
    if str(problem["input"]).lower() in NOTHING:
        message += f"; it cannot be none: {by_default}"
    elif problem["input"] == "auto" and problem["type"].endswith("_type"):
        message += f"; {by_default}"
    return f"{place} = {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _helped(message: str, problem: Any, path: list[str], pipeline: type[BaseModel]) -> str:
    """What is wrong with a value, and what to write instead, where that is known."""
    given, place = problem["input"], ".".join(path)
    if problem["type"] == "literal_error":
        words = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
        other = VALUES.get(given.lower()) if isinstance(given, str) else None
        return message + (f"; did you mean {other}?" if other in words else did_you_mean(given, words))
    if path[:2] == ["network", "layers"] and isinstance(given, int | list):
        widths = "; widths alone are network.hidden_layer_sizes"
        if len(path) > 2:
            return message + (widths if path[2] == "0" else "")
        return 'write a list of tables such as [{kind = "dense", units = 64}]' + widths
    if problem["type"] == "tuple_type":
        return "write a list such as [64, 32], or 64,32 behind --set: quote it, or leave the spaces out"
    if problem["type"] == "dict_type":
        return f"write a table such as {{sep = \";\"}}, or {place}.KEY=VALUE behind --set, as '{place}.sep=;'"
    if problem["type"] == "bool_type":
        return "write true or false"
    if given != "auto" and "auto" in _words_of(path, pipeline):
        return message + did_you_mean(given, ["auto"])
    return message


def either(names: Iterable[str]) -> str:
    """Names as one says which of them to write."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def tables_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """Tables that a setting may be, in whatever form."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from tables_of(part)


def nearest(key: str, pipeline: type[BaseModel]) -> str:
    """The setting, with its table, that is called so, or nearly so; nothing where none is."""
    places = {
        name: f"{table}.{name}"
        for table, field in reversed(pipeline.model_fields.items())
        for kind in tables_of(field.annotation)
        for name in kind.model_fields
    }
    if key in places or key in ELSEWHERE:
        return f"; did you mean {places.get(key) or ELSEWHERE[key]}?"
    if said := absent(key):
        return said
    close = did_you_mean(key, places)
    return re.sub(r"mean (\w+)\?$", lambda found: f"mean {places[found[1]]}?", close)


def absent(key: str) -> str:
    """What is said of a setting that other libraries have, and that there is not here; nothing of others."""
    if key == "lr" or "learning_rate" in key:
        return NO_RATE
    return NO_DROPOUT if "dropout" in key else ""


def _meant(path: list[str], pipeline: type[BaseModel]) -> str:
    """What an unknown key stands for: one of its own table, or else of another."""
    if meant := OF_TABLE.get(".".join(path)):
        return f"; did you mean {meant}?"
    own = (
        ""
        if path[-1] in ELSEWHERE or absent(path[-1])
        else did_you_mean(path[-1], _settings(pipeline, path[:-1]))
    )
    near = own or nearest(path[-1], pipeline)
    return near if near or len(path) > 1 else f"; the tables are {', '.join(pipeline.model_fields)}"


def _settings(table: type[BaseModel], path: Iterable[str]) -> list[str]:
    """Names of the settings of a table; none where it is no table of its own."""
    for name in path:
        inner = list(tables_of(table.model_fields[name].annotation)) if name in table.model_fields else []
        if not inner:
            return []
        table = inner[0]
    return list(table.model_fields)


def _words_of(path: list[str], pipeline: type[BaseModel]) -> list[str]:
    """Words that stand for values of a setting, as "auto" does."""
    table, *key = path
    kinds = tables_of(pipeline.model_fields[table].annotation) if table in pipeline.model_fields else ()
    fields = [kind.model_fields[key[0]] for kind in kinds if len(key) == 1 and key[0] in kind.model_fields]
    return [word for field in fields for word in _literals(field.annotation)]


def _literals(annotation: Any) -> Iterator[str]:
    for part in get_args(annotation):
        if isinstance(part, str):
            yield part
        else:
            yield from _literals(part)
