"""Lines that are wider than a terminal, broken between words; no word is, as it may be a path that one copies."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console

_WORDS_OF_A_SHELL = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"[^"]*")+""")
LESS = 2
"""What follows the first line of a sentence begins so much further to the right."""


def line_width(console: Console) -> int:
    """Columns of a terminal, or that are asked for; in files and pipes, where lines are searched, all there may be."""
    return console.width if console.is_terminal or os.environ.get("COLUMNS") else sys.maxsize


def folded(text: str, width: int) -> list[str]:
    """A sentence as lines of a width; one that fits stays as it is."""
    return [part for line in text.splitlines() for part in _folded(line, line.split(" "), width, LESS)]


def folded_command(title: str, command: str, width: int) -> list[str]:
    """A command as lines that a shell takes together, with something in front of the first."""
    words = _WORDS_OF_A_SHELL.findall(command)
    lines = _folded(title + command, [title + words[0], *words[1:]], width, len(title) + LESS, " \\")
    return lines if len(lines) > 1 else [title + command]


def _folded(whole: str, words: Sequence[str], width: int, indent: int, end: str = "") -> list[str]:
    """Words in lines, of which all but the last have the same end, and all but the first stand further right."""
    if cell_len(whole) <= width:
        return [whole]
    lines = [words[0]]
    for word in words[1:]:
        if cell_len(lines[-1]) + 1 + cell_len(word) + len(end) <= width:
            lines[-1] += f" {word}"
        elif word:  # of two spaces one is left where a line ends
            lines[-1] = lines[-1].rstrip() + end
            lines.append(" " * indent + word)
    return [*lines[:-1], lines[-1].rstrip()]
