"""The auxiliary pre-activations z of every sample, in generations that are never overwritten.

z_1 … z_L of a sample lie side by side in one row of a zarr array of shape (rows, Σ d_i), chunked like the samples.
Each generation has an array of its own. A z-update reads a chunk of generation g and writes that of g + 1; only when
the step is committed is the old chunk removed. So a task can be run again, be killed half-way, or be finished by a
forgotten worker long after, without changing what any other task reads.

Nobody waits until a chunk is on the disk, which would take half as long again as all the rest of short steps (measured:
11 and 16 s for pipelines/digits_autoencoder.toml). Those that a power failure takes are told by their checksums.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import zarr

from altmin_dask.errors import ExistsError
from altmin_dask.storage.checksums import storage_options
from altmin_dask.storage.locations import for_zarr, is_url, names_in, remove_empty_folder, remove_files
from altmin_dask.storage.ownership import KEY
from altmin_dask.storage.zarr_chunks import ChunkView, forget_arrays, open_array

_ARRAY = re.compile(r"(\d{6,})\.zarr")
_HALF = re.compile(r"zarr\.[0-9a-f]+\.partial")
"""What zarr leaves of an array when it is killed before there is one."""
_FILE = re.compile(rf"c\.\d+(\.0|\.[0-9a-f]+\.partial)|{_HALF.pattern}")
"""A chunk, and what is left of one."""
_METADATA = "zarr.json"


@dataclass(frozen=True)
class LatentStore:
    """Generations of z.

    Attributes
    ----------
    path : str
        Folder or URL that holds them. What else may be there is left alone.
    rows, width, chunk_rows : int
        Samples, Σ d_i, and samples in a chunk.
    dtype : str
        "float32" or "float64".
    run : str
        Mark of the run, which its arrays carry: no other array is ever written to or removed.
    """

    path: str
    rows: int
    width: int
    chunk_rows: int
    dtype: str
    run: str = ""

    def location(self, generation: int) -> str:
        """Path or URL of the array of a generation."""
        return f"{self.path}/{generation:06d}.zarr"

    def view(self, generation: int, chunks: tuple[int, ...]) -> ChunkView:
        """Selected chunks of a generation, to read or to write."""
        return ChunkView.select(
            self.location(generation), (self.rows, self.width), self.chunk_rows, self.dtype, chunks
        )

    def prepare(self, generation: int) -> None:
        """Make the array of a generation, without chunks, unless it is there, and whole.

        Where the power failed there may be one whose files are empty.

        Raises
        ------
        ExistsError
            If somebody else has put something in its place.
        """
        location = self.location(generation)
        if self._carries_mark(location):
            return
        left, emptied = names_in(location), self._is_emptied(location)
        ours = _FILE if self._in_own_folder or emptied else _HALF
        free = is_url(location) or os.path.isdir(location) or not os.path.lexists(location)
        if not (free and all(ours.fullmatch(name) or (emptied and name == _METADATA) for name in left)):
            raise ExistsError(f"{location} is no array of this run; move it away, or give another --run")
        remove_files(location, left)
        self._create(location)

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
        location = self.location(generation)
        if not (self._in_own_folder or self._carries_mark(location)):
            return
        if whole:
            self._remove_array(location)
        else:
            remove_files(location, [_key(chunk) for chunk in chunks])

    def remove_orphans(self, generations: Mapping[int, int]) -> None:
        """Remove all our chunks but those that a commit names, such as what an interrupted step has written.

        Parameters
        ----------
        generations : mapping of int to int
            The generation of each chunk that has one.
        """
        kept: dict[int, set[str]] = {}
        for chunk, generation in generations.items():
            kept.setdefault(generation, set()).add(_key(chunk))
        for name in names_in(self.path):
            match, location = _ARRAY.fullmatch(name), f"{self.path}/{name}"
            if not match or not (self._in_own_folder or self._carries_mark(location)):
                continue
            chunks = kept.get(int(match[1]))
            if chunks is None:
                self._remove_array(location)
            else:
                self._remove_chunks(location, but=chunks)
        remove_empty_folder(self.path)

    def _create(self, location: str) -> None:
        zarr.create_array(
            for_zarr(location),
            shape=(self.rows, self.width),
            chunks=(self.chunk_rows, self.width),
            # a folder with a file for each chunk, no folders in between
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={KEY: {"run": self.run}},
            **storage_options(self.dtype, compress=is_url(self.path)),
        )

    @property
    def _in_own_folder(self) -> bool:
        """Whether it is kept in a folder that is named by the mark, as it is where several runs share a place."""
        return bool(self.run) and self.path.endswith(f"/{self.run}")

    def _carries_mark(self, location: str) -> bool:
        """Whether there is an array that says that this run has made it."""
        try:
            return open_array(location).attrs.asdict().get(KEY) == {"run": self.run}
        except (
            FileNotFoundError,
            NotADirectoryError,
            ValueError,
            KeyError,
            TypeError,
        ):  # of what is no array
            return False

    @staticmethod
    def _is_emptied(location: str) -> bool:
        """Whether there is nothing in the metadata, whose name came on the disk before them."""
        file = f"{location}/{_METADATA}"
        return not is_url(location) and os.path.isfile(file) and os.path.getsize(file) == 0

    def _remove_array(self, location: str) -> None:
        self._remove_chunks(location)
        remove_files(location, [_METADATA])  # the mark goes last
        remove_empty_folder(location)
        if is_url(location):
            forget_arrays()

    @staticmethod
    def _remove_chunks(location: str, but: Collection[str] = ()) -> None:
        """Remove the chunks of an array, and what zarr has left half-written."""
        names = names_in(location)
        remove_files(location, [name for name in names if _FILE.fullmatch(name) and name not in but])


def _key(chunk: int) -> str:
    return f"c.{chunk}.0"
