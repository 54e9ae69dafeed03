"""Pipelines from TOML files and dicts, with overrides; whatever is wrong is one `ConfigError`."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import ValidationError

from altmin_dask.config.catalogue import catalogue
from altmin_dask.config.messages import DEFAULT, FALSE, NOTHING, TRUE, describe, nearest
from altmin_dask.config.pipeline import Pipeline
from altmin_dask.errors import AltMinError, ConfigError, MissingError
from altmin_dask.storage.what import is_data, is_run, meant, what_is


def load_pipeline(file: str | Path, overrides: Iterable[str] = ()) -> Pipeline:
    r"""Read a pipeline from a TOML file.

    Parameters
    ----------
    file : path
        The TOML file.
    overrides : iterable of str
        ``table.key=value`` settings that replace those of the file; a value is TOML, or else a bare string; ``none`` is
        no value, ``yes`` and ``no`` are true and false, and ``default`` takes out what the file says.

    Raises
    ------
    MissingError
        If the file does not exist.
    ConfigError
        If it is not TOML, or a key is unknown or has a wrong value; every such place is named.

    Examples
    --------
    >>> from pathlib import Path
    >>> from altmin_dask import load_pipeline
    >>> _ = Path("p.toml").write_text('[data]\ntrain = "digits:train"\n[network]\nkind = "autoencoder"')
    >>> load_pipeline("p.toml", ["solver.ridge=0.1"]).solver.ridge
    0.1
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")  # editors on Windows put a mark in front
        settings = tomllib.loads(text)
    except OSError as error:
        raise _not_read(file, error) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        if is_data(file):
            raise ConfigError(_not_a_pipeline(file)) from None
        raise ConfigError(
            f"{file} is not valid TOML: {error}{_unquoted(file, error)}{_cure(error)}"
        ) from None
    for override in overrides:
        _apply(settings, override)
    return make_pipeline(settings, f"{file}: ")


_PATHS = "write paths with / or in single quotes, where a backslash is no escape"
_CURES = {
    "'utf-8' codec": "save it as UTF-8",
    "Invalid hex value": _PATHS,
    "Unescaped": _PATHS,
    "Cannot declare": "put all keys of a table below one heading",
    "Cannot overwrite a value": "write each key once",
}
"""What of an error of TOML tells what to do."""


def _cure(error: ValueError) -> str:
    """What to do about an error of TOML, where that is known."""
    return next((f"; {cure}" for mark, cure in _CURES.items() if mark in str(error)), "")


def _unquoted(file: Path, error: ValueError) -> str:
    """What to write in place of a word without quotes, if one is at fault; often nothing."""
    where = re.search(r"Invalid value \(at line (\d+)", str(error))
    if where is None:
        return ""
    line = file.read_text(encoding="utf-8-sig").splitlines()[int(where[1]) - 1]
    if pair := re.match(r"\s*([\w.-]+)\s*=\s*\((.*?),?\)\s*(#.*)?$", line):
        return f"; lists have square brackets: {pair[1]} = [{pair[2]}]"
    found = re.match(r"\s*([\w.-]+)\s*=\s*([A-Za-z_./~][^\"'#\[\]{}]*?)\s*(#.*)?$", line)
    if found is None:
        return ""
    key, word = found[1], found[2]
    if word.lower() in ("true", "false"):
        return f"; write it in small letters: {key} = {word.lower()}"
    return f"; text needs quotes: {key} = {word!r}"


def _not_read(file: Path, error: OSError) -> AltMinError:
    """What is said of a pipeline that is no file, or may not be read."""
    if file.is_dir():
        return ConfigError(_not_a_pipeline(file))
    if not file.exists():
        return MissingError(f"{what_is(file)}{meant(file) or '; name a pipeline, which is a TOML file'}")
    return MissingError(f"pipeline {file} cannot be read ({error.strerror}); name a TOML file")


def _not_a_pipeline(file: Path) -> str:
    """What is said of samples and folders in place of a pipeline."""
    if is_run(file):
        again = f"--run {quote(str(file))} --resume"
        instead = f"to go on with the run, name the TOML file that it was started with, and {again}"
    elif is_data(file):
        instead = (
            f"name a TOML file that has train = {json.dumps(str(file), ensure_ascii=False)} under [data]"
        )
    else:
        instead = "name a TOML file"
    return f"{what_is(file)}, not a pipeline; {instead}"


def training_pipeline(settings: dict[str, Any], where: str = "") -> Pipeline:
    """Make a pipeline of tables of settings: what a TOML file holds, as dicts.

    Parameters
    ----------
    settings : dict
        A dict of settings for every table.
    where : str
        What messages begin with.

    Raises
    ------
    ConfigError
        If a key is unknown or has a wrong value; every such place is named.

    Examples
    --------
    >>> from altmin_dask import training_pipeline
    >>> training_pipeline({"data": {"train": "digits"}, "network": {"kind": "autoencoder"}}).network.start
    'whitened'
    >>> training_pipeline({"data": {"train": "digits"}, "network": {"kind": "autoencoder", "width": 3}})
    Traceback (most recent call last):
    altmin_dask.errors.ConfigError: network.width is not a setting
    """
    try:
        return Pipeline.model_validate(settings)
    except ValidationError as error:
        places = "; ".join(dict.fromkeys(describe(problem, Pipeline) for problem in error.errors()))
        raise ConfigError(f"{where}{places}") from None


make_pipeline = training_pipeline
"""What it is called within the package."""


def _not_a_setting(word: str) -> str:
    """The beginning of a sentence on a word that is no setting, and may be a folder for the run."""
    path = Path(word)
    if re.fullmatch(r"[\w.]+[\]),]", word):
        return f"--set {word}: part of a list that was cut at a space; quote it, or leave the spaces out; "
    if "=" in word or not word or not (path.exists() or "/" in word):
        return f"--set {word}: "
    there = f"{what_is(path)}, not a setting" if path.exists() else f"{word} is not a setting"
    return f"{there}; the folder of a run is named by --run {quote(word)}; "


def _apply(settings: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        meant = nearest(keys[0], Pipeline) if equals and len(keys) == 1 else ""
        raise ConfigError(
            f"{_not_a_setting(override)}write table.key=value, for example solver.mu=0.1{meant}"
        )
    setting = catalogue().get(".".join(keys))
    word = text.strip().lower()
    value = None if word in NOTHING and setting is not None and setting.optional else _value(text, keys)
    if setting is not None and setting.is_flag and word in (*TRUE, *FALSE):
        value = word in TRUE
    table = settings
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {key} is not a table")
    if word == DEFAULT and setting is not None and not setting.required:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _value(text: str, keys: list[str]) -> Any:
    """What the text of an override says: a value as TOML has them, values with commas in between, or a word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        setting = catalogue().get(".".join(keys))
        brackets = text.startswith(("(", "["))  # of Python, or of a list that a shell has cut
        if "," in text and not brackets and setting is not None and setting.is_list:
            return [_value(part.strip(), []) for part in text.split(",") if part.strip()]
        return text
