"""What `--help` shows at 80 columns: the usage, every argument and option by what it is for, and two examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand, TyperGroup

from altmin_dask.errors import AltMinError

EXAMPLES: dict[str, tuple[str, str]] = {
    "": (
        "altmin train pipelines/digits_autoencoder.toml",
        "altmin evaluate runs/digits_autoencoder digits:test",
    ),
    "init": (
        "altmin init classifier",
        "altmin init autoencoder customers.toml --data customers.csv",
    ),
    "settings": (
        "altmin settings solver.ridge",
        "altmin settings training --json",
    ),
    "ingest": (
        "altmin ingest digits:train digits.zarr --scale 16",
        "altmin ingest customers.csv customers.zarr --y churn --standardize",
    ),
    "plan": (
        "altmin plan pipelines/digits_autoencoder.toml",
        "altmin plan pipelines/digits_classifier.toml cluster.memory_limit=2GiB --json",
    ),
    "train": (
        "altmin train pipelines/digits_autoencoder.toml --run runs/ridge solver.ridge=2",
        "altmin train pipelines/digits_classifier.toml --set training.max_sweeps=20",
    ),
    "evaluate": (
        "altmin evaluate runs/digits_classifier digits:test",
        "altmin evaluate runs/digits_classifier digits:test --json",
    ),
    "predict": (
        "altmin predict runs/digits_classifier digits:test labels.csv --proba",
        "altmin predict runs/digits_classifier digits:test labels.zarr --overwrite",
    ),
    "report": (
        "altmin report runs/digits_classifier",
        "altmin report runs/digits_autoencoder runs/ridge",
    ),
    "export": (
        "altmin export runs/digits_classifier digits.onnx",
        "altmin export runs/digits_classifier digits.safetensors --overwrite",
    ),
    "dashboard": (
        "altmin dashboard runs/digits_classifier",
        "altmin dashboard runs/digits_classifier --port 0",
    ),
}
"""Of every command ("": of all of them): two that run, in this order, where the repository is and customers.csv."""
_WORD = r"('[^']*'|\S+)"
_SETTINGS = (
    (rf"by --missing {_WORD} \((.*?); data\.missing of a pipeline\)", r"by data.missing=mean (\2)"),
    (rf"by --drop {_WORD} \(data\.drop of a pipeline\)", r"by data.drop=\1"),
    (r"by --drop$", "by data.drop"),
    (r"--csv ('?)(\w+=\S*)( \(data\.csv[.\w]* of a pipeline\))?", r"\1data.csv.\2"),
    (r"or decimal=… \(data\.csv of a pipeline\)", "or data.csv.decimal=…"),
    (r"by --dtype (\w+) \(network\.dtype of a pipeline\)", r"by network.dtype=\1"),
    (
        r"by --y NAME \(data\.y of a pipeline\), and ingest a store again",
        "by data.y, or ingest a store again",
    ),
    (r"by --y NAME", "by data.y"),
    (r"with --x NAME --y NAME", "by data.x and data.y"),
)
_OPTIONS = (
    (r"by data\.y, or ingest it with --y NAME", "by --y NAME"),
    (r"by --y NAME \(data\.y of a pipeline\), and ingest", "by --y NAME, or ingest"),
)
ADVICE: Mapping[str, Sequence[tuple[str, str]]] = {
    "train": _SETTINGS,
    "plan": _SETTINGS,
    "evaluate": _OPTIONS,
    "predict": _OPTIONS,
}
"""Of commands that read samples: what they have in place of the options of `altmin ingest`, which messages name."""
_COMMAND = ContextVar("command", default="")
GAP = 2
"""Columns between what something is called and what is said of it."""


def advised(text: str, command: str | None = None) -> str:
    """A message with what a command, by default the one that runs, has in place of options of others.

    Examples
    --------
    >>> advised("say so by --csv sep=… (data.csv.sep of a pipeline)", "train")
    'say so by data.csv.sep=…'
    """
    for pattern, instead in ADVICE.get(_COMMAND.get() if command is None else command, ()):
        text = re.sub(pattern, instead, text)
    return text


def _setting_of(option: str) -> str:
    """The setting that is called as an option that there is not; nothing where none is."""
    from altmin_dask.config import Pipeline
    from altmin_dask.config.messages import ELSEWHERE, nearest

    key = option.rpartition(".")[2].replace("-", "_")
    found = nearest(key, Pipeline)
    setting = found.removeprefix("; did you mean ").removesuffix("?")
    if setting == found:  # what is said of learning rates
        return found
    exact = key in ELSEWHERE or setting.rpartition(".")[2] == key
    return f"; that is a setting: write --set {setting}=VALUE" if exact else ""


def _call(parameter: Any) -> str:
    """How a parameter is written: an argument by its name, an option with the value it takes."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    names = " / ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {parameter.metavar or parameter.name.upper()}"


def _said(parameter: Any) -> str:
    """What is said of a parameter, with its default where that says something."""
    default = parameter.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    shown = plain and default != "" and parameter.param_type_name == "option"
    if parameter.param_type_name == "option" and parameter.secondary_opts:
        shown, default = True, (parameter.opts if default else parameter.secondary_opts)[0]
    return f"{parameter.help or ''}{f'  [default: {default}]' if shown else ''}"


def _write_list(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows, col_max=30, col_spacing=GAP)


def _write_examples(formatter: Any, name: str) -> None:
    """Lines that can be copied whole, however long."""
    with formatter.section("Examples"):
        for example in EXAMPLES.get(name, ()):
            formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(TyperCommand):
    """A command whose help ends with examples, and which knows settings that are written as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words behind the command; what could be an option says which setting may have been meant."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # of Click, or of Typer's copy of it
            option = getattr(error, "option_name", "").lstrip("-")
            if option and any(each.name == "overrides" for each in self.params):
                error.message += _setting_of(option)  # type: ignore[attr-defined]
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it refuses, or warns of, names its own options."""
        token = _COMMAND.set(self.name or "")
        try:
            return super().invoke(ctx)
        except AltMinError as error:
            if len(error.args) == 1 and isinstance(error.args[0], str):
                error.args = (advised(error.args[0]),)
            raise
        finally:
            _COMMAND.reset(token)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Every argument as it is called."""
        arguments = [_call(each) for each in self.params if each.param_type_name == "argument"]
        return [self.options_metavar or "", *arguments]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options."""
        for kind in ("argument", "option"):
            found = [each for each in self.get_params(ctx) if each.param_type_name == kind]
            rows = [(_call(each), _said(each)) for each in found if not getattr(each, "hidden", False)]
            _write_list(formatter, f"{kind.capitalize()}s", rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Two examples."""
        _write_examples(formatter, self.name or "")


class Commands(TyperGroup):
    """All commands, each with the whole sentence on it, and two examples."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Every command."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, (each.help or "").split("\n\n")[0]) for name, each in found if each is not None]
        _write_list(formatter, "Commands", rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Two examples."""
        _write_examples(formatter, "")
