"""Pages of the documentation as tests and writers take them: their blocks are run, and what these print is compared.

    python tests/support/documents.py README.md docs/start.md …     # runs pages, writes anew what they print

A block is fenced, and begins with its language. A comment on the line before it says what is special about it:

    <!-- file: NAME -->             it is written to the file NAME of the page's folder
    <!-- output -->                 it is what the block before it printed
    <!-- output: first 3 last 4 --> the same, of which so many lines are shown
    <!-- refused -->                its commands end with an error, whose sentence is what is compared
    <!-- smaller: OLD -> NEW -->    it is run with less data
    <!-- bucket -->                 it is run where s3://bucket is one of an S3 service in this process
    <!-- not run: REASON -->        it is only parsed

All blocks of a page are run in one folder, in order, in this process: `sh` by line, `python` with the names of the
blocks before it. What `altmin` and scripts print is compared by its words, each once: numbers depend on the machine.
"""

from __future__ import annotations

import io
import logging
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import pytest
import typer
from command import run_here
from distributed.cli import dask_scheduler, dask_worker
from object_store import running_server, s3

from altmin_dask import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "examples" / "README.md"]
_FENCE = re.compile(r"^```(\S*)(?: .*)?$")
_MARK = re.compile(r"^<!-- (file|output|refused|smaller|bucket|not run|newcomer)(?:: (.+?))? -->$")
DASK = click.Group(commands={"scheduler": dask_scheduler.main, "worker": dask_worker.main})
_NUMBER = re.compile(r"[-−]?(?:\d[\d,]*\.?\d*|∞)(?:e[-+]?\d+)?")


@dataclass
class Block:
    """A fenced block.

    Attributes
    ----------
    language, text : str
        What stands behind the fence's beginning, and in it.
    line, end : int
        Where the text begins in its page and where it has ended, counted from 0.
    mark, said : str
        What the comment before it says, and what stands behind the colon there.
    """

    language: str
    text: str
    line: int
    end: int
    mark: str = ""
    said: str = ""


@dataclass
class Page:
    """A page and its blocks."""

    file: Path
    lines: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = self.file.read_text(encoding="utf-8").splitlines()
        self.blocks = list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        begun, language = None, ""
        for number, line in enumerate(self.lines):
            if begun is not None:
                if line == "```":
                    text = "\n".join(self.lines[begun:number]) + "\n"
                    mark = _MARK.match(self.lines[begun - 2]) if begun > 1 else None
                    yield Block(language, text, begun, number, *(mark.groups("") if mark else ("", "")))
                    begun = None
            elif fence := _FENCE.match(line):
                begun, language = number + 1, fence[1]
        assert begun is None, f"{self.file}:{begun}: the block has no end"

    @property
    def needs_bucket(self) -> bool:
        """Whether some block takes an object store."""
        return any(block.mark == "bucket" for block in self.blocks)

    def run(self) -> Iterator[tuple[Block, str]]:
        """Run all blocks in the current folder; yields what is to be compared and what was printed."""
        names: dict[str, Any] = {"__name__": "__main__"}
        said = ""
        for block in self.blocks:
            where = f"{self.file.name}:{block.line + 1}"
            if block.mark == "output":
                yield block, said
            elif block.mark == "file":
                Path(block.said).parent.mkdir(parents=True, exist_ok=True)
                Path(block.said).write_text(block.text, encoding="utf-8")
            elif block.mark != "not run":
                said = _run(block, names, where)


def _run(block: Block, names: dict[str, Any], where: str) -> str:
    text = block.text.replace(*block.said.split(" -> ")) if block.mark == "smaller" else block.text
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        if block.language == "python":
            exec(compile(text, where, "exec"), names)
        elif block.language == "sh":
            for words in commands(text):
                code = _command(words)
                told = f"{where}: {shlex.join(words)}\n{out.getvalue()}{err.getvalue()}"
                assert (code != 0) == (block.mark == "refused"), told
    said = err if block.mark == "refused" else out
    return said.getvalue().replace(f"{Path.cwd()}/", "")


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block, one after the other."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield words
                words = []


def parse(words: list[str]) -> None:
    """Refuse options that a command of altmin or Dask does not have."""
    group: Any = {"altmin": typer.main.get_command(cli.app), "dask": DASK}[words[0]]
    general = words[1].startswith("-")
    command = group if general else group.commands[words[1]]
    command.make_parser(command.context_class(command)).parse_args(words[2 - general :])


def _command(words: list[str]) -> int:
    match words:
        case ["altmin", *options]:
            return run_here(*options)
        case (
            ["pip", *_] | ["python", "-m", "pytest"] | ["sphinx-build", *_] | ["export", *_]
        ):  # .ci/run has them, and newcomers; and tests have an environment of their own
            return 0
        case ["python", file, *options]:
            return _script(file, options)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def _script(file: str, options: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [file, *options])
        try:
            runpy.run_path(file, run_name="__main__")
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def shown(block: Block, printed: str) -> list[str]:
    """The lines of what was printed that a page shows."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    if found := re.fullmatch(r"first (\d+) last (\d+)", block.said):
        first, last = map(int, found.groups())
        return lines if len(lines) <= first + last else [*lines[:first], "…", *lines[len(lines) - last :]]
    return lines


def outline(lines: list[str]) -> list[str]:
    """The words of lines, each once, without numbers: records may be fewer, columns wider, and threads one or many."""
    text = _NUMBER.sub("#", " ".join(lines))
    text = re.sub(r"# (\w+?)s\b", r"# \1", re.sub("[\u2500-\u257f]", " ", text))
    return list(dict.fromkeys(text.split()))


def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a folder in which pages can be run: with the pipelines and scripts that they name."""
    shutil.copytree(ROOT / "pipelines", folder / "pipelines")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("*.png", "*.ipynb"))
    patch.setenv("COLUMNS", "80")
    patch.setenv("NO_COLOR", "1")


def make_bucket() -> None:
    """The bucket that pages name, in the service that the environment names."""
    s3().mkdir("bucket")


def write(file: Path) -> None:
    """Run a page and write what its blocks print."""
    page = Page(file.resolve())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # of every request
    service = running_server() if page.needs_bucket else nullcontext()
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch, chdir(name), service:
        prepare(Path(name), patch)
        if page.needs_bucket:
            make_bucket()
        found = [(block, shown(block, printed)) for block, printed in page.run()]
    for block, lines in reversed(found):
        page.lines[block.line : block.end] = lines
    page.file.write_text("\n".join(page.lines) + "\n", encoding="utf-8")
    print(f"{file}: {len(found)} outputs")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
