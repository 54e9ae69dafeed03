"""What a user may say of a table: how missing values are filled in, categories counted, dates read, and csv written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from altmin_dask.errors import ConfigError, did_you_mean

ALL = "*"
"""In place of a column's name: all that are not named."""
FILLS = ("mean", "median", "constant", "refuse")
UNKNOWN = ("ignore", "error", "infrequent_if_exist")
DATES = ("days", "cyclic")
MAX_CATEGORIES = 256
"""Numbers that a column of text becomes at most: room for countries, states or airports, not for the tails of planes.

Chosen, not measured: a quarter of what was refused before there were infrequent values.
"""
TABLE_SETTINGS = ("missing", "handle_unknown", "max_categories", "min_frequency", "dates", "csv", "drop")
"""What `TableOptions.of` takes, by the names that `open_source` and the table ``[data]`` have for it."""
_ALIASES = {"separator": "sep", "delimiter": "sep"}
_WHOLE = ("skiprows",)
_TEXT = ("sep", "decimal", "thousands", "encoding", "quotechar", "comment", "compression", "index_col")
_LISTS = ("names", "na_values", "literal")
CSV = (*_TEXT, *_LISTS, *_WHOLE, "header")
"""Options of `pandas.read_csv` that can be given, and `literal`: columns in which words such as NA are values."""
_TYPES = ("dtype", "dtypes", "converters")
"""Options of `pandas.read_csv` by which others make text of numbers."""
_SIGNS = ("sep", "decimal", "thousands", "quotechar", "comment")
"""Those that are a single character."""
_TAKEN_BACK = ("thousands", "comment", "index_col", "names", "na_values", "literal")
"""Those that no value turns off: an empty one does."""
_POINT = "."
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class TableOptions:
    """How the columns of a table become numbers.

    Attributes
    ----------
    missing : mapping of str to str
        By the name of a column, ``"*"`` for all others: "refuse"; "mean" or "median" of a column of numbers or dates,
        and the most frequent value of one of text; "constant", which is 0 or the category "missing_value", or
        "constant:VALUE". Columns that have missing values get a number more, which is 1 where the value was missing.
        These are the strategies of scikit-learn's ``SimpleImputer(add_indicator=True)``.
    handle_unknown : {"ignore", "error", "infrequent_if_exist"}
        What a value becomes that the samples for training had not, as of scikit-learn's ``OneHotEncoder``: all zeros,
        an error, or infrequent where there is such a number.
    max_categories, min_frequency : int or float, optional
        Of ``OneHotEncoder``, too: how many numbers a column of text becomes at most, and how many rows, or which share
        of them, a value must have. Values beyond share the number "infrequent".
    dates : {"days", "cyclic"}
        Whether dates are days since 1970-01-01 alone, or have sine and cosine of month, weekday and hour beside them.
    csv : mapping
        Options of `pandas.read_csv`, by its names; and ``literal``, columns of text in which ``NA``, ``None`` and the
        like are values: elsewhere they stand for missing ones.
    drop : str or None
        Columns that are no inputs, with commas in between, where all others are.
    """

    missing: Mapping[str, str] = field(default_factory=dict)
    handle_unknown: str = UNKNOWN[0]
    max_categories: int | None = MAX_CATEGORIES
    min_frequency: float | None = None
    dates: str = DATES[0]
    csv: Mapping[str, Any] = field(default_factory=dict)
    drop: str | None = None

    def __post_init__(self) -> None:
        for column, word in self.missing.items():
            if word not in FILLS and not str(word).startswith("constant:"):
                where = "" if column == ALL else f" for the column {column!r}"
                raise ConfigError(
                    f"missing is {word!r}{where}; write {_either(FILLS)}, or constant:VALUE{did_you_mean(word, FILLS)}"
                )
        for name, known in (("handle_unknown", UNKNOWN), ("dates", DATES)):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ConfigError(f"{name} is {value!r}; write {_either(known)}{did_you_mean(value, known)}")
        if self.max_categories is not None and self.max_categories < 1:
            raise ConfigError(
                f"max_categories is {self.max_categories}; a column of text becomes 1 number or more"
            )
        least = self.min_frequency
        if least is not None and not (0 < least < 1 or (least >= 1 and least == int(least))):
            raise ConfigError(
                f"min_frequency is {least:g}; write a whole number of rows, or a share between 0 and 1"
            )

    @classmethod
    def of(
        cls,
        missing: str | Mapping[str, str] | None = None,
        handle_unknown: str | None = None,
        max_categories: int | None = None,
        min_frequency: float | None = None,
        dates: str | None = None,
        csv: Mapping[str, Any] | None = None,
        drop: str | None = None,
    ) -> TableOptions:
        """Make options of what was given; what was not has its default.

        Raises
        ------
        ConfigError
            If one of them has a value that means nothing.
        """
        words = {ALL: missing} if isinstance(missing, str) else dict(missing or {})
        given = {
            "handle_unknown": handle_unknown,
            "max_categories": max_categories,
            "min_frequency": min_frequency,
            "dates": dates,
            "drop": drop or None,
        }
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return cls(words, csv=_csv(csv or {}), **chosen)

    @property
    def ask_for_something(self) -> bool:
        """Whether they are others than by default: to refuse missing values is what there is without a word, too."""
        return bool(set(self.missing.values()) - {"refuse"}) or replace(self, missing={}) != TableOptions()

    def fill(self, column: str) -> str:
        """What is done with missing values of a column."""
        return self.missing.get(column, self.missing.get(ALL, "refuse"))


def table_settings(*values: Any) -> dict[str, Any]:
    """Values of `TABLE_SETTINGS`, in order, by their names; those that are None or empty were not given."""
    return {
        name: value for name, value in zip(TABLE_SETTINGS, values, strict=True) if value not in (None, {})
    }


def for_like(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What of such settings is said of samples that are prepared like others: how their files are written."""
    return {name: value for name, value in tables.items() if name == "csv"}


def csv_like(known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """How csv files are read that are written like others, but for what is said of them.

    A sign that means something now has no meaning of before beside it; and names that stood for a header that was not
    there do not replace one that is.

    Parameters
    ----------
    known, given : mapping
        Options for the others, and those that are said, as `TableOptions` has them; empty ones turn others off.

    Returns
    -------
    dict
        Options of `pandas.read_csv`.

    Raises
    ------
    ConfigError
        If thousands and decimals have the same sign: pandas would take 1.5 for 15.
    """
    signs = [given[name] for name in _SIGNS if name in given]
    kept = {name: value for name, value in known.items() if name not in _SIGNS or value not in signs}
    if given.get("header") and known.get("header") is False:
        kept.pop("names", None)
    found = {name: value for name, value in {**kept, **given}.items() if value != ""}
    if found.get("thousands") == (decimal := found.get("decimal", _POINT)):
        if "thousands" in given:
            raise ConfigError(
                f"csv has {decimal!r} for thousands and for decimals; say which sign the other has"
            )
        del found["thousands"]  # of before, when the decimal sign was what is between columns now
    return found


def words_of(given: list[str] | None, option: str, *, alone: str | None = None) -> dict[str, str]:
    """``KEY=VALUE`` words of the command line as a mapping; a word without a key is of the key `alone`.

    Raises
    ------
    ConfigError
        If there is no ``=``, or a key is given twice.
    """
    found: dict[str, str] = {}
    for word in given or ():
        key, sign, value = word.rpartition("=") if alone is not None else word.partition("=")
        if not sign:
            if alone is None:
                raise ConfigError(f"{option} {word} says nothing; write {option} KEY=VALUE")
            key, value = alone, word
        if key in found:
            raise ConfigError(f"{option} is given twice for {'all columns' if key == alone else key}")
        found[key] = value
    return found


def left_out(column: str) -> str:
    """How to leave a column out, to put behind what is wrong with it."""
    return f"leave it out by --drop {quote(column)} (data.drop of a pipeline)"


def known_options(given: Iterable[str]) -> None:
    """Refuse names that csv files have no option of.

    Raises
    ------
    ConfigError
        If there is one.
    """
    for name in given:
        if _ALIASES.get(name, name) in CSV:
            continue
        meant = did_you_mean(name, (*CSV, *_ALIASES))
        for alias, known in _ALIASES.items():  # which are not in the list
            meant = meant.replace(f" {alias}?", f" {known}?")
        codes = "; a column of codes counts as text where they have a letter" if name in _TYPES else ""
        raise ConfigError(f"csv has no option {name!r}; it has {', '.join(sorted(CSV))}{meant}{codes}")


def _csv(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of csv, of which those from a command line are text."""
    found: dict[str, Any] = {}
    known_options(given)
    for name, value in given.items():
        key = _ALIASES.get(name, name)
        if value == "" and key in _TAKEN_BACK:
            found[key] = value
        elif key in _LISTS:
            found[key] = _several(key, value)
        elif key == "header":
            header = _WORDS.get(value.lower()) if isinstance(value, str) else value
            if not isinstance(header, bool):
                raise ConfigError(f"csv header is {value!r}; write true or false")
            found[key] = header
        elif key in _WHOLE:
            if not str(value).isdecimal():
                raise ConfigError(f"csv {key} is {value!r}; write how many lines")
            found[key] = int(value)
        else:
            found[key] = {"\\t": "\t", "tab": "\t"}.get(str(value), str(value))
    for key in _SIGNS:
        if key in found and len(found[key]) != 1 and not (key in _TAKEN_BACK and found[key] == ""):
            raise ConfigError(f"csv {key} is {found[key]!r}; write a single character")
    return found


def _several(key: str, value: Any) -> list[str]:
    """Values of an option as text; one alone may be a number."""
    if isinstance(value, Mapping):
        raise ConfigError(f"csv {key} is {value!r}; write a list of values, which is for all columns")
    if isinstance(value, str):
        return value.split(",")
    return [str(each) for each in (value if isinstance(value, Collection) else [value])]


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
