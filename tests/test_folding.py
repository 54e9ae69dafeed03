"""Lines that are wider than a terminal."""

from __future__ import annotations

import shlex
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from altmin_dask.display import say
from altmin_dask.folding import folded, folded_command

SENTENCE = "report: runs/a_long_name/report/report.html  (pictures beside it: accuracy.png, errors.png)"
WIDE = "列の名前 " * 12


@pytest.mark.parametrize("width", [20, 40, 80, 89, 90, 200])
@pytest.mark.parametrize(
    "text", [SENTENCE, WIDE.rstrip(), "one word_without_any_space_that_is_wider_than_20", ""]
)
def test_words_stay_whole_and_lines_fit(text, width):
    lines = folded(text, width)
    assert " ".join(lines).split() == text.split()
    assert all(cell_len(line) <= width or len(line.split()) == 1 for line in lines)
    assert all(line.startswith("  ") and line == line.rstrip() for line in lines[1:])
    assert cell_len(text) > width or lines == [text] or not text


@pytest.mark.parametrize("width", [24, 40, 60, 80, 200])
@pytest.mark.parametrize(
    "words",
    [
        ["altmin", "report", "r"],
        [
            "altmin",
            "train",
            "a pipeline.toml",
            "--run",
            "it's here",
            "--resume",
            "--set",
            'output.title="a  b"',
        ],
        ["altmin", "evaluate", "x\ty\\z", "$HOME"],
    ],
)
def test_a_shell_takes_a_command_on_several_lines(words, width):
    lines = folded_command("next: ", shlex.join(words), width)
    assert lines[0].startswith("next: altmin")
    assert shlex.split("\n".join(lines).removeprefix("next: ").replace("\\\n", "")) == words
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert len(lines) == 1 or all(
        len(line) <= width or len(shlex.split(line.rstrip("\\"))) == 1 for line in lines
    )


@pytest.mark.parametrize(("terminal", "asked"), [(True, None), (False, None), (False, "60")])
def test_only_what_has_a_width_is_folded(terminal, asked, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if asked:
        monkeypatch.setenv("COLUMNS", asked)
    file = StringIO()
    say(Console(file=file, force_terminal=terminal, width=60), "word " * 30)
    assert (len(file.getvalue().splitlines()) > 1) == (terminal or asked is not None)
