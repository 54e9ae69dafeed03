"""``.npz`` files, whose members are read as they are unpacked: x, y, and what goes with them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.formats.named_arrays import no_array, source_of
from altmin_dask.data.formats.npy import read_header
from altmin_dask.data.readers import RowReader, read_stream, readable
from altmin_dask.data.source import Source
from altmin_dask.errors import DataError
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.sample_arrays import SEQUENCE_ARRAYS, WEIGHTS


class NpzFormat:
    """Named arrays in one file, which may have ``x_train`` and ``x_test`` instead of ``x``."""

    known_as = "a .npz file"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the name of the file."""
        return spec.file(".npz") is not None

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Choose the arrays by name, by part, or because there is only one."""
        path = local_path(spec.base)
        names = npz_names(path)
        if not names:
            raise DataError(f"{path} has no arrays; write it with numpy.savez")
        if spec.split is not None:
            options.refuse_names(spec.name)
            x, y = f"x_{spec.split}", f"y_{spec.split}"
        else:
            x, y = options.x or _inputs(path, names, options.y), "y"
        y_name = options.y or (y if y in names and y != x else None)

        def read(name: str, text: bool) -> RowReader:
            if name not in names:
                raise no_array(str(path), name, names)
            return read_npz(path, name, text=text)

        return source_of(spec.name, names.__contains__, read, x, y_name, options.like, names)


def npz_names(path: Path) -> list[str]:
    """Name the arrays in a ``.npz`` file, in the order of the file."""
    with readable(str(path)), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def read_npz(path: Path, name: str, *, text: bool = False) -> RowReader:
    """Read one array of a ``.npz`` file, straight from the zip member, compressed or not.

    Raises
    ------
    DataError
        If the file is damaged, the array is in Fortran order (its rows are scattered over the whole member),
        its dtype is not numeric (objects are never unpickled), or it has no rows.
    """
    label = f"array {name!r} of {path}"

    @contextmanager
    def opened() -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
            yield member

    with readable(label), opened() as member:
        shape, fortran, dtype = read_header(member, label)
        header = member.tell()
    if fortran and len(shape) > 1:
        raise DataError(
            f"{label} is stored in Fortran order and cannot be read row by row; save it again after "
            "numpy.ascontiguousarray"
        )
    return read_stream(opened, header, shape, dtype, label, text=text)


def _inputs(path: Path, names: list[str], y: str | None) -> str:
    """Choose the array that is x where the user named none."""
    others = [name for name in names if name != y and name not in (*SEQUENCE_ARRAYS, WEIGHTS)]
    if "x" in others:
        return "x"
    if len(others) == 1:
        return others[0]
    parts = "add :train or :test to the path or " if "x_train" in others else ""
    raise DataError(
        f"{path} has the arrays {', '.join(names)} and none is called x; "
        f"{parts}name two with --x NAME --y NAME"
    )
