"""Folders of idx files, the format of MNIST: ``train-images-idx3-ubyte.gz`` and the like."""

from __future__ import annotations

import gzip
import re
import struct
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.readers import ByteStream, RowReader, read_stream, readable
from altmin_dask.data.source import Source
from altmin_dask.errors import DataError
from altmin_dask.storage.locations import local_path

_NAME = re.compile(r"(?P<part>.*?)[-_.]?(?P<role>images|labels)[-.]idx\d+-[a-z]+(\.gz)?")
_SPLITS = {"train": {"train"}, "test": {"t10k", "test"}}
_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Types by the third byte of a file (LeCun, Cortes, Burges: the MNIST database)."""


class IdxFormat:
    """Pairs of files of images and labels, a pair a part."""

    known_as = "a folder of idx files (…-images-idx3-ubyte)"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the names of the files."""
        return spec.folder is not None and bool(_pairs(spec.folder))

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Give the only pair, or that of the part."""
        options.refuse_names(spec.base)
        folder, split = local_path(spec.base), spec.split
        pairs = _pairs(folder)
        chosen = [
            files
            for part, files in pairs.items()
            if "images" in files and (split is None or _SPLITS[split] & set(re.split("[-_.]", part)))
        ]
        if len(chosen) != 1:
            found = ", ".join(sorted(path.name for files in pairs.values() for path in files.values()))
            what = f"{len(chosen) or 'no'} image files" + (f" for :{split}" if split else "")
            ambiguous = chosen and not split
            advice = (
                "add :train or :test to the path" if ambiguous else "keep one pair of files for each part"
            )
            raise DataError(f"{folder} has {what} (it has {found}); {advice}")
        images, labels = chosen[0]["images"], chosen[0].get("labels")
        return Source(spec.name, read_idx(images), None if labels is None else read_idx(labels))


def read_idx(path: Path) -> RowReader:
    """Read an idx file of any rank and dtype, plain or gzipped.

    Raises
    ------
    DataError
        If the file is damaged, is not an idx file, or has no rows.
    """

    def opened() -> AbstractContextManager[ByteStream]:
        return gzip.open(path) if path.suffix == ".gz" else path.open("rb")

    label = str(path)
    with readable(label), opened() as file:
        zeros, code, rank = struct.unpack(">HBB", file.read(4))
        if zeros or code not in _DTYPES:
            raise DataError(f"{label} does not begin like an idx file; download or write it again")
        shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    return read_stream(opened, 4 + 4 * rank, shape, np.dtype(_DTYPES[code]), label)


def _pairs(folder: Path) -> dict[str, dict[str, Path]]:
    """Find the idx files of a folder: ``{"train": {"images": path, "labels": path}, …}``."""
    pairs: dict[str, dict[str, Path]] = {}
    # backwards, because a file that is there both plain and as .gz is quicker to read plain
    for path in sorted(folder.iterdir(), reverse=True):
        if match := _NAME.fullmatch(path.name):
            pairs.setdefault(match["part"], {})[match["role"]] = path
    return pairs
