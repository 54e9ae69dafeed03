"""What a kind of data that a user can name has to offer, and what it is told."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from altmin_dask.data.source import Source
from altmin_dask.errors import DataError
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import as_name, is_url, local_path, locate
from altmin_dask.table_options import TableOptions

_SPLIT = re.compile(r"(?P<base>.+):(?P<split>train|test)", re.DOTALL)


@dataclass(frozen=True)
class SourceSpec:
    """What a user wrote to name samples.

    Attributes
    ----------
    name : str
        The whole of it, as messages call the samples.
    base : str
        Without the part at its end.
    split : {"train", "test"}, optional
        The part.
    """

    name: str
    base: str
    split: str | None = None

    @classmethod
    def parse(cls, spec: str | os.PathLike[str]) -> SourceSpec:
        """Take ``BASE:train`` or ``BASE:test`` apart."""
        name = as_name(spec)
        match = _SPLIT.fullmatch(name)
        return cls(name, name) if match is None else cls(name, match["base"], match["split"])

    @cached_property
    def path(self) -> Path | None:
        """The base as a path on this machine, where there may be nothing; None if it is a URL.

        Raises
        ------
        ConfigError
            If it is a chain of URLs.
        """
        return None if is_url(locate(self.base)) else local_path(self.base)

    def file(self, *endings: str) -> Path | None:
        """The path, if there is a file with one of these endings."""
        path = self.path
        return path if path is not None and path.name.endswith(endings) and path.is_file() else None

    @property
    def folder(self) -> Path | None:
        """The path, if there is a folder."""
        path = self.path
        return path if path is not None and path.is_dir() else None

    def refuse_split(self) -> None:
        """Say that there are no parts, if one is asked for.

        Raises
        ------
        DataError
            If one is.
        """
        if self.split is not None:
            raise DataError(f"{self.base} has no parts to choose from; leave out :{self.split}")


class NamesError(DataError):
    """Arrays were named where there are none to choose from."""


def in_order(path: Path) -> tuple[list[str | int], str]:
    """By which files are ordered: numbers in their names by what they are, as Dask's part.2 before part.10.

    Where these are the same, as of 1 and 01, by their names: not as a file system happens to list them.
    """
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name


@dataclass(frozen=True)
class SourceOptions:
    """What else a user may say of samples; a format refuses what means nothing to it.

    Attributes
    ----------
    x, y : str, optional
        Names of arrays or columns.
    like : Preparation, optional
        Of the samples that these are to go with: the same columns, values and classes.
    tables : TableOptions
        What becomes of the columns of tables.
    """

    x: str | None = None
    y: str | None = None
    like: Preparation | None = None
    tables: TableOptions = field(default_factory=TableOptions)

    def refuse_names(self, where: str) -> None:
        """Say that there are no arrays to choose from, if some are named.

        Raises
        ------
        NamesError
            If some are.
        """
        if self.x is not None or self.y is not None:
            raise NamesError(
                f"{where} leaves no arrays to choose from; leave out the names given for x and y"
            )


class SourceFormat(Protocol):
    """A kind of data: one file of this folder, and one entry in `altmin_dask.data.open.FORMATS`."""

    @property
    def known_as(self) -> str:
        """What to write or to give, for the list of what can be read: "a .npz file"."""
        ...

    def matches(self, spec: SourceSpec) -> bool:
        """Tell whether what is named, and there, is of this kind; formats before it in the list did not match."""
        ...

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Give the samples of what matched; only what their shapes and dtypes take is read.

        Raises
        ------
        DataError
            If the file is damaged, has no such part, or its arrays cannot be samples.
        MissingError
            If an array that was named is not there.
        """
        ...
