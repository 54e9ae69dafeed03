"""A pipeline to begin with, as text: what is given stands there, and what one changes next is commented out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from altmin_dask.config.catalogue import catalogue, toml_value

_WIDTH = 100
_KINDS = {
    "autoencoder": "An auto-encoder: it learns to give its samples back, through fewer numbers than they have",
    "classifier": "A classifier: which class a sample is of",
    "regressor": "A regressor: one number for each sample, or several",
    "recurrent_classifier": "A classifier of sequences, or of every step of them",
    "recurrent_regressor": "A regressor of sequences, or of every step of them",
}
_NEXT: Mapping[str, Any] = {
    "network.activation": "relu",
    "solver.ridge": "auto",
    "training.max_sweeps": 50.0,
    "training.n_iter_no_change": 10,
    "training.seed": 0,
    "cluster.kind": "local",
    "cluster.workers": 4,
    "output.title": "My first run",
}
"""What one changes next, with an example of each."""


def starting_pipeline(given: Mapping[str, Mapping[str, Any]], file: str) -> str:
    """The text of a pipeline file.

    Parameters
    ----------
    given : mapping of str to mapping
        Settings by table; those of `[data]` and `[network]` have to be there.
    file : str
        What the file is called in what one types next.
    """
    return "\n".join(_lines(given, file)) + "\n"


def _lines(given: Mapping[str, Mapping[str, Any]], file: str) -> Iterator[str]:
    yield f"# {_KINDS[given['network']['kind']]}."
    yield f"#   altmin plan {file}     what it will need, and what every setting comes to"
    yield f"#   altmin train {file}"
    yield "# All settings: altmin settings. A line behind one # is an example; without the # it is a setting."
    table = ""
    for setting in catalogue().values():
        value = given.get(setting.table, {}).get(setting.name)
        example = _NEXT.get(setting.key)
        if value is None and example is None:
            continue
        if setting.table != table:
            table = setting.table
            yield f"\n[{table}]"
        first = setting.meaning.split("\n")[0]
        yield from (f"## {line}" for line in wrap(first, _WIDTH))
        yield (
            f"# {setting.name} = {toml_value(example)}"
            if value is None
            else f"{setting.name} = {_toml(value)}"
        )


def _toml(value: Any) -> str:
    """A value, of which a table of words is one in a line."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{toml_value(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return toml_value(value)
