"""`altmin init`: a pipeline file to begin with, for a kind of network and some samples."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from altmin_dask.cli_options import CsvOption, DropOption, joined
from altmin_dask.errors import AltMinError, ConfigError, DataError, ExistsError, did_you_mean
from altmin_dask.table_options import TableOptions, words_of

if TYPE_CHECKING:
    from altmin_dask.data.source import Source

_DIGITS = {"train": "digits:train", "validation": "digits:test"}
_TEACHER, _ADDING = "synthetic:rows=4000,features=20,outputs=1,seed=0", "adding:rows=4000,steps=20,seed=0"
_EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "autoencoder": {"data": {**_DIGITS, "scale": 16}, "network": {"hidden_layer_sizes": [32]}},
    "classifier": {
        "data": {**_DIGITS, "standardize": True},
        "network": {"hidden_layer_sizes": [64], "activation": "relu"},
    },
    "regressor": {
        "data": {"train": f"{_TEACHER}:train", "validation": f"{_TEACHER}:test", "standardize": True},
        "network": {"hidden_layer_sizes": [64], "activation": "relu"},
    },
    "recurrent_classifier": {
        "data": {**_DIGITS, "scale": 16},
        "network": {"hidden_layer_sizes": [32]},
    },
    "recurrent_regressor": {
        "data": {"train": f"{_ADDING}:train", "validation": f"{_ADDING}:test"},
        "network": {"hidden_layer_sizes": [32]},
    },
}
"""Of every kind: samples that need no file, and a network that learns them in seconds."""
_HELD_OUT = 0.1
_FEW = 2
"""Fewer samples are not held out: nothing could be judged by them, or there would be none of a class."""
_SHOWN = 30
"""Columns that are named at most."""


def _kinds_like(incomplete: str) -> list[str]:
    return [kind for kind in _EXAMPLES if kind.startswith(incomplete)]


def init_command(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help=", ".join(_EXAMPLES), autocompletion=_kinds_like)
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="What to write; by default KIND.toml.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Samples to train on; by default some that need no file."),
    ] = None,
    x: Annotated[str | None, typer.Option(help="Name of its array of samples, or of columns.")] = None,
    y: Annotated[str | None, typer.Option(help="Name of its array of targets, or of columns.")] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Steps of a sequence that each row holds, one after the other."
        ),
    ] = None,
    csv: CsvOption = None,
    drop: DropOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Write a commented pipeline that runs as it is."""
    from altmin_dask.config import make_pipeline
    from altmin_dask.config.starting import starting_pipeline
    from altmin_dask.execution.connect import planned_resources
    from altmin_dask.planning.plan import make_plan
    from altmin_dask.storage.writable import check_folder_of, making

    _check_kind(kind, file)
    file = file or Path(f"{kind}.toml")
    if data is None and (x or y):
        raise ConfigError("--x and --y name arrays or columns of --data SOURCE; give that, too")
    if data is None and (csv or drop or steps):
        raise ConfigError("--csv, --drop and --steps are for --data SOURCE; give that, too")
    if os.path.lexists(file) and not overwrite:
        raise ExistsError(f"{file} exists already; name another file, or --overwrite to replace it")
    check_folder_of(file)
    given = (
        _EXAMPLES[kind]
        if data is None
        else _for(
            kind,
            data,
            {name: value for name, value in (("x", x), ("y", y)) if value},
            {"csv": dict(TableOptions.of(csv=words_of(csv, "--csv")).csv), "drop": joined(drop)},
            steps,
        )
    )
    given = {**given, "network": {"kind": kind, **given["network"]}}
    pipeline = make_pipeline(given)
    make_plan(pipeline, None, planned_resources(pipeline.cluster))  # what does not go together leaves no file
    name = quote(str(file))
    with making(file):
        file.write_text(starting_pipeline(given, name), encoding="utf-8")
    typer.echo(f"{file}: {kind} on {given['data']['train']}; next")
    for line in (f"plan {name}", f"train {name}", "settings"):
        typer.echo(f"  altmin {line}")


def _check_kind(kind: str, file: Path | None) -> None:
    """Refuse what is no kind of network; another order of arguments is told."""
    if kind not in _EXAMPLES and file is not None and str(file) in _EXAMPLES:
        raise ConfigError(
            f"write altmin init {file} {quote(kind)}: the kind comes first, then the file"
            if kind.endswith(".toml")
            else f"write altmin init {file} --data {quote(kind)}: the kind comes first, samples are --data"
        )
    if kind not in _EXAMPLES:
        raise ConfigError(
            f"{kind} is no kind of network; write {', '.join(_EXAMPLES)}{did_you_mean(kind, _EXAMPLES)}"
        )


def _for(
    kind: str, spec: str, names: dict[str, Any], tables: Mapping[str, Any], steps: int | None
) -> dict[str, dict[str, Any]]:
    """Settings that fit some samples, of which headers are read, and tables gone through."""
    from altmin_dask.data.find import is_ready
    from altmin_dask.data.open import is_table, open_source

    filled: dict[str, Any] = {"missing": "median"} if is_table(spec) else {}
    filled |= {name: value for name, value in tables.items() if value}
    source = open_source(spec, **names, **filled)
    _check(kind, spec, source, steps)
    data: dict[str, Any] = {"train": spec, **_validation(spec, names, source), **names, **filled}
    network = dict(_EXAMPLES[kind]["network"]) | ({"steps": steps} if steps else {})
    if kind == "autoencoder":
        network["hidden_layer_sizes"] = [_narrow(prod(source.x_shape), *network["hidden_layer_sizes"])]
    pixels = source.x_dtype.str == "|u1"
    image = pixels and (len(source.x_shape) > 1 or kind not in ("classifier", "regressor"))
    if not is_ready(spec, names.get("x"), names.get("y")):
        # what is the same at every step is standardized alike within the network
        data |= {"scale": 255} if image else {} if steps else {"standardize": True}
    if kind == "autoencoder" and "scale" not in data:  # samples that need not be in [0, 1]
        network["output_activation"] = "identity"
    return {"data": data, "network": network}


def _narrow(inputs: int, most: int) -> int:
    """The width of an auto-encoder that has something to learn: half the numbers of a sample, and not very many."""
    return max(1, min(most, inputs // 2))


def _check(kind: str, spec: str, source: Source, steps: int | None) -> None:
    """Refuse samples that no such network can be trained on, whatever else the file says."""
    from altmin_dask.config import KINDS

    if source.y is None and KINDS[kind].target != "inputs":
        there = ", ".join(column.name for column in source.columns[:_SHOWN])
        raise DataError(
            f"{spec} has no targets, which a {kind} needs; name them by --y NAME{there and f', one of {there}'}"
        )
    if steps and not KINDS[kind].recurrent:
        raise ConfigError(
            f"--steps is of sequences, and a {kind} reads none; leave it out, or write a recurrent_{kind}"
        )
    if KINDS[kind].recurrent and len(source.x_shape) < 2 and not steps:
        raise DataError(
            f"{spec} has samples of shape {source.x_shape}, which are no sequences; where each row holds a whole one, "
            "step after step, say by --steps how many; where each row is one time of many (a log), make x of shape "
            '(samples, steps, features) of them first, as "A log" in docs/sequences.md does'
        )


def _validation(spec: str, names: dict[str, Any], source: Source) -> dict[str, Any]:
    """The samples that go with those for training, if there are any; or else a share of these, if that is enough."""
    from altmin_dask.data.open import open_source

    if spec.endswith(":train"):
        others = f"{spec.removesuffix(':train')}:test"
        with suppress(AltMinError):
            open_source(others, **names)
            return {"validation": others}
    classes = (source.preparation and source.preparation.classes) or ()
    return {"validation": _HELD_OUT} if source.rows * _HELD_OUT >= max(_FEW, len(classes)) else {}
