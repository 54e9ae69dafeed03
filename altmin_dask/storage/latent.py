"""The auxiliary pre-activations z of every sample, in generations that are never overwritten.

z_1 … z_L of a sample lie side by side in one row of a zarr array of shape (rows, Σ d_i), chunked like the samples.
Each generation has an array of its own. A z-update reads a chunk of generation g and writes that of g + 1; only when
the step is committed is the old chunk removed. So a task can be run again, be killed half-way, or be finished by a
forgotten worker long after, without changing what any other task reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import zarr
from fsspec.core import url_to_fs

from altmin_dask.storage.checked import storage_options
from altmin_dask.storage.readers import is_url
from altmin_dask.storage.views import ChunkView, open_array

_ARRAY = re.compile(r"(\d{6,})\.zarr")


@dataclass(frozen=True)
class LatentStore:
    """Generations of z.

    Attributes
    ----------
    path : str
        Folder or URL that holds them, and nothing else.
    rows, width, chunk_rows : int
        Samples, Σ d_i, and samples in a chunk.
    dtype : str
        "float32" or "float64".
    """

    path: str
    rows: int
    width: int
    chunk_rows: int
    dtype: str

    def location(self, generation: int) -> str:
        """Path or URL of the array of a generation."""
        return f"{self.path}/{generation:06d}.zarr"

    def view(self, generation: int, chunks: tuple[int, ...]) -> ChunkView:
        """Selected chunks of a generation, to read or to write."""
        return ChunkView.select(
            self.location(generation), (self.rows, self.width), self.chunk_rows, self.dtype, chunks
        )

    def prepare(self, generation: int) -> None:
        """Make the array of a generation, without chunks, unless it is there."""
        try:
            open_array(self.location(generation))
        except FileNotFoundError:
            zarr.create_array(
                self.location(generation),
                shape=(self.rows, self.width),
                chunks=(self.chunk_rows, self.width),
                # a folder with a file for each chunk, no folders in between
                chunk_key_encoding={"name": "default", "separator": "."},
                **storage_options(self.dtype, compress=is_url(self.path)),
            )

    def discard(self, generation: int, chunks: Sequence[int], *, whole: bool) -> None:
        """Remove chunks of a generation that a committed one has taken the place of.

        Parameters
        ----------
        generation : int
            The generation that is not needed any more.
        chunks : sequence of int
            Its chunks.
        whole : bool
            Whether no other chunk of the generation is needed either.
        """
        filesystem, array = url_to_fs(self.location(generation))
        with suppress(FileNotFoundError):
            if whole:
                filesystem.rm(array, recursive=True)
            else:
                filesystem.rm([f"{array}/{_key(chunk)}" for chunk in chunks])

    def sweep(self, generations: Mapping[int, int]) -> None:
        """Remove everything but the chunks that a commit names, such as what an interrupted step has written.

        Parameters
        ----------
        generations : mapping of int to int
            The generation of each chunk that has one.
        """
        filesystem, root = url_to_fs(self.path)
        filesystem.invalidate_cache()
        if not filesystem.exists(root):
            return
        kept: dict[int, set[str]] = {}
        for chunk, generation in generations.items():
            kept.setdefault(generation, {"zarr.json"}).add(_key(chunk))
        for array in filesystem.ls(root, detail=False):
            match = _ARRAY.fullmatch(_name(array))
            names = kept.get(int(match[1])) if match else None
            if match and names is None:
                filesystem.rm(array, recursive=True)
            elif names:
                orphans = [file for file in filesystem.ls(array, detail=False) if _name(file) not in names]
                if orphans:
                    filesystem.rm(orphans)

    def remove(self) -> None:
        """Remove all generations, and the folder they were kept in."""
        filesystem, root = url_to_fs(self.path)
        with suppress(FileNotFoundError):
            filesystem.rm(root, recursive=True)


def _key(chunk: int) -> str:
    return f"c.{chunk}.0"


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
