"""Every setting of a pipeline, with its default, what it may be, what it means and who uses it: read off its tables.

`altmin settings`, the page of the documentation, the comments of `altmin init` and the help of the estimators all say
what stands here, and so what the tables say themselves.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from altmin_dask.config.messages import ELSEWHERE, nearest, tables_of
from altmin_dask.config.network import KINDS
from altmin_dask.config.pipeline import Pipeline
from altmin_dask.config.uses import (
    CHOICES,
    DIFFERENCES,
    KINDS_WITH,
    LEFT_OUT,
    PARAMETERS,
    SCHEDULES,
    USES,
    Difference,
    Uses,
    estimator_of,
)
from altmin_dask.errors import ConfigError, did_you_mean

RESOLVED = "chosen for the run"
"""In place of a default that follows from the data, the network and the machine."""
_FLAG = "true or false"


@dataclass(frozen=True)
class Setting:
    """A setting of a pipeline.

    Attributes
    ----------
    table, name : str
        The table, and its key there.
    required : bool
        Whether there is no default.
    default : object
        As JSON has it; None where it is left out.
    allowed : str
        What it may be.
    meaning : str
        What it is, a paragraph a line.
    kinds, schedules : tuple of str
        Kinds of networks and schedules that use it.
    only : str
        What else there has to be for it to be used.
    choices : mapping of str to tuple of str
        The words that each kind takes, where not all take all.
    parameter : str or None
        The parameter of the estimators that it is.
    parameter_kinds : tuple of str
        Kinds whose estimators have that.
    differences : tuple of Difference
        Other defaults of that parameter.
    is_list : bool
        Whether it may have several values.
    optional : bool
        Whether it may be none at all.
    """

    table: str
    name: str
    required: bool
    default: Any
    allowed: str
    meaning: str
    kinds: tuple[str, ...]
    schedules: tuple[str, ...]
    only: str
    choices: Mapping[str, tuple[str, ...]]
    parameter: str | None
    parameter_kinds: tuple[str, ...]
    differences: tuple[Difference, ...]
    is_list: bool
    optional: bool

    @property
    def key(self) -> str:
        """Table and name, as ``--set`` takes them."""
        return f"{self.table}.{self.name}"

    @property
    def is_flag(self) -> bool:
        """Whether it is true or false."""
        return self.allowed == _FLAG

    @property
    def resolves(self) -> bool:
        """Whether its default is no value yet, but resolved for each run."""
        return not self.required and self.default in (None, "auto") and self.key not in LEFT_OUT

    @property
    def default_text(self) -> str:
        """The default as a file would have it, or what it is the same as."""
        if self.required:
            return "it has to be given"
        return LEFT_OUT.get(self.key, RESOLVED) if self.default is None else toml_value(self.default)

    @property
    def has_value(self) -> bool:
        """Whether `default_text` is a value."""
        return not self.required and self.default is not None

    @property
    def in_python(self) -> str:
        """What the estimators call it, and which other defaults they have; nothing where they have no such thing."""
        reached = not self.required and self.table not in ("data", "output")
        by_key = f'`settings={{"{self.key}": …}}`' if reached else ""
        if self.parameter is None:
            return by_key
        others = (
            f", by default `{each.value!r}` for {_kinds_text(each.kinds)} ({each.reason})"
            for each in self.differences
        )
        missing = [kind for kind in self.kinds if kind not in self.parameter_kinds]
        having = f" of {_estimators(self.parameter_kinds)}" if missing else ""
        # a kind that takes one word has nothing to set
        more = [kind for kind in missing if len(self.choices.get(kind, "ab")) > 1]
        rest = f"; {by_key} of {_estimators(more)}" if more and by_key else ""
        return f"`{self.parameter}`{having}{''.join(others)}{rest}"

    @property
    def used_by(self) -> str:
        """Who uses it, in words."""
        kinds = "" if self.kinds == tuple(KINDS) else ", ".join(self.kinds)
        schedules = "" if self.schedules == SCHEDULES else f"schedule {_either(self.schedules)}"
        return "; ".join(filter(None, (kinds, schedules, self.only))) or "all kinds and schedules"

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return {
            "default": self.default,
            "required": self.required,
            "default_text": self.default_text,
            "allowed": self.allowed,
            "meaning": self.meaning,
            "kinds": list(self.kinds),
            "schedules": list(self.schedules),
            "only": self.only,
            "choices": {kind: list(words) for kind, words in self.choices.items()},
            "parameter": self.parameter,
            "parameter_kinds": list(self.parameter_kinds),
            "in_python": [
                {
                    "default": json.loads(json.dumps(each.value)),
                    "kinds": list(each.kinds),
                    "reason": each.reason,
                }
                for each in self.differences
            ],
        }


@cache
def catalogue() -> Mapping[str, Setting]:
    """All settings by their keys, in the order of the tables."""
    return MappingProxyType({setting.key: setting for setting in _settings()})


@cache
def tables() -> Mapping[str, str]:
    """All tables, and what each is for."""
    described = {name: inspect.getdoc(kind) or "" for name, kind in _kinds()}
    return MappingProxyType({name: text.partition(": ")[2] for name, text in described.items()})


def find(word: str | None) -> list[Setting]:
    """The settings of a table, of a key with or without its table, or all of them.

    Raises
    ------
    ConfigError
        If there is no such thing.

    Examples
    --------
    >>> [setting.key for setting in find("kind")]
    ['network.kind', 'cluster.kind']
    """
    everything = list(catalogue().values())
    if word is None:
        return everything
    name = word.strip("[]")
    found = [each for each in everything if name in (each.table, each.name, each.key)]
    if found:
        return found
    inner = name.rpartition(".")[2]
    known = nearest(inner, Pipeline) if inner in ELSEWHERE else ""
    near = known or did_you_mean(name, (*tables(), *catalogue())) or nearest(inner, Pipeline)
    raise ConfigError(f"{word} is neither a setting nor a table{near or f'; the tables are {_all_tables()}'}")


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, float) and value == int(value) and abs(value) < 1e6:
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a docstring, each in a line, with the marks of code that Markdown has."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        yield " ".join(paragraph.split()).replace("``", "`")


def _kinds_text(kinds: tuple[str, ...]) -> str:
    return "all kinds" if kinds == tuple(KINDS) else ", ".join(kinds)


def _estimators(kinds: Iterable[str]) -> str:
    *others, last = map(estimator_of, kinds)
    return f"{', '.join(others)} and {last}" if others else last


def _all_tables() -> str:
    return ", ".join(tables())


def changed(said: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a pipeline, JSON-ready, has otherwise than by default, by ``table.key``.

    Those of another version that are unknown here count as such.
    """
    known = catalogue()
    tables = {table: entries for table, entries in said.items() if isinstance(entries, Mapping)}
    every = {f"{table}.{key}": value for table, entries in tables.items() for key, value in entries.items()}
    return {
        key: value
        for key, value in every.items()
        if key not in known or known[key].required or known[key].default != value
    }


def _kinds() -> Iterator[tuple[str, Any]]:
    for name, field in Pipeline.model_fields.items():
        yield name, next(tables_of(field.annotation))


def _settings() -> Iterator[Setting]:
    schema = Pipeline.model_json_schema()["$defs"]
    parameters = {key: name for name, key in PARAMETERS.items()}
    for table, kind in _kinds():
        properties = schema[kind.__name__]["properties"]
        for name, field in kind.model_fields.items():
            key = f"{table}.{name}"
            uses, choices, parameter = USES.get(key, Uses()), CHOICES.get(key, {}), parameters.get(key)
            having = () if parameter is None else KINDS_WITH.get(parameter, tuple(KINDS))
            yield Setting(
                table,
                name,
                field.is_required(),
                properties[name].get("default"),
                _by_kinds(choices) or _allowed(properties[name], schema),
                "\n".join(paragraphs(field.description or "")),
                uses.kinds or tuple(KINDS),
                uses.schedules or SCHEDULES,
                uses.only,
                choices,
                parameter,
                having,
                DIFFERENCES.get(key, ()),
                any(form.get("type") == "array" for form in _forms(properties[name])),
                any(form.get("type") == "null" for form in properties[name].get("anyOf", ())),
            )


def _forms(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The forms that a value may have, but for none at all."""
    inner = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for form in inner:
        yield from _forms(form)
    if not inner and schema.get("type") != "null":
        yield schema


def _allowed(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    forms = list(_forms(schema))
    lists = [form["items"] for form in forms if form.get("type") == "array"]
    alone = [form for form in forms if form.get("type") != "array" or form["items"] not in forms]
    return _either(_words(form, defs) + (" (or a list of them)" if form in lists else "") for form in alone)


def _by_kinds(choices: Mapping[str, tuple[str, ...]]) -> str:
    """What each kind may say, in words; nothing where all may say the same."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for kind, words in choices.items():
        kinds.setdefault(words, []).append(kind)
    return "; ".join(f"{_either(map(toml_value, words))} ({', '.join(of)})" for words, of in kinds.items())


def _words(form: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "$ref" in form:
        names = defs[form["$ref"].rpartition("/")[2]]["properties"]
        return f"a table of {', '.join(names)}"
    if "enum" in form:
        return _either(map(toml_value, form["enum"]))
    if "const" in form:
        return toml_value(form["const"])
    kind = form.get("type")
    if kind == "array":
        one = _words(form["items"], defs).removeprefix("a ")
        return f"a list of {one.replace('number', 'numbers').replace('table', 'tables')}"
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(form)
    return {"string": "text", "boolean": _FLAG, "object": "a table"}[kind or "object"]


def _range(form: Mapping[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {form[name]:g}" for name, sign in signs.items() if name in form]
    return " " + " and ".join(bounds) if bounds else ""


def _either(parts: Iterable[str]) -> str:
    *others, last = parts
    return f"{', '.join(others)} or {last}" if others else last
