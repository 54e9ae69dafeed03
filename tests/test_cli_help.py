"""What `--help` shows: within 80 columns, in words, and with two examples that run."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pandas as pd
import pytest
import typer

from altmin_dask import cli
from altmin_dask.cli_help import EXAMPLES

COMMANDS = typer.main.get_command(cli.app).commands
PIPELINES = Path(cli.__file__).parents[1] / "pipelines"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_at_80_columns(command, altmin, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = altmin(*([command] if command else []), "--help")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    assert not re.search(r"<\w+>|<\w+ range>|list\[|\[\[|\{", done.out), done.out
    *_, examples = done.out.split("Examples:\n")
    assert [line.strip() for line in examples.splitlines()] == list(EXAMPLES[command])
    assert len(examples.splitlines()) == 2


def test_every_command_and_option_is_explained():
    for command in cli.app.registered_commands:
        assert command.callback.__doc__
        hints = get_type_hints(command.callback, include_extras=True)
        for name in inspect.signature(command.callback).parameters:
            assert hints[name].__metadata__[0].help, (command.callback.__name__, name)


@pytest.mark.parametrize("example", [each for examples in EXAMPLES.values() for each in examples])
def test_examples_are_commands(example):
    """They parse, and mean the same to every shell."""
    program, command, *words = shlex.split(example)
    assert program == "altmin"
    COMMANDS[command].make_context(command, words)
    assert not set(example) & set("*?[]{}$&;<>|~#!"), "a shell would make something else of it"


@pytest.mark.slow
def test_examples_run_in_their_order(altmin, tmp_path):
    shutil.copytree(PIPELINES, "pipelines")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": rng.integers(18, 90, 60), "plan": ["a", "b"] * 30, "churn": rng.integers(0, 2, 60)}
    )
    frame.to_csv("customers.csv", index=False)
    for examples in EXAMPLES.values():
        for example in examples:
            _, command, *words = shlex.split(example)
            if command == "dashboard":  # which serves until it is stopped
                continue
            if "runs/digits_autoencoder" in words:
                assert Path("runs/digits_autoencoder").is_dir()
            done = altmin(command, *words)
            assert (done.code, done.err) == (0, ""), example


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--epochs", "write --set training.max_sweeps=VALUE"),
        ("--max-sweeps", "write --set training.max_sweeps=VALUE"),
        ("--network.kind", "write --set network.kind=VALUE"),
        ("--lr", "there is no learning rate"),
        ("--ressume", "--resume"),
    ],
)
def test_settings_that_are_written_as_options(word, said, altmin):
    for command in ("train", "plan"):
        told = altmin(command, "p.toml", word, "3")
        if (command, word) != ("plan", "--ressume"):
            assert said in told.err
        assert told.code == 2
    assert "setting" not in altmin("evaluate", "run", "digits", word, "3").err
    assert "write" not in altmin("train", "p.toml", "--version").err
