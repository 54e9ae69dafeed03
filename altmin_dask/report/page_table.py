"""A table on a page: what it is of, what stands over its columns, and its cells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PageTable:
    """A table of a page.

    Attributes
    ----------
    name : str
        What it is of.
    head : list of str
        What stands over its columns.
    rows : list of list of str
        Its cells.
    shown : bool
        Whether it is there at once, or when one asks for it.
    """

    name: str
    head: list[str]
    rows: list[list[str]]
    shown: bool = False
