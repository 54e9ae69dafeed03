"""The auxiliary pre-activations z of every sample on disk, in two generations.

z_1 … z_L of a sample lie side by side in one row of a zarr array of shape (rows, Σ d_i), chunked like the samples.
There are two such arrays. A chunk is read from one and written to the other, so a task can be run again, or killed
half-way, without changing what it would read; which of the two is valid is part of the commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import zarr

from altmin_dask.storage.views import ChunkView


@dataclass(frozen=True)
class LatentStore:
    """Both generations of z.

    Attributes
    ----------
    path : str
        Folder that holds them.
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

    def create(self) -> None:
        """Make both arrays, empty, in the place of whatever is there."""
        Path(self.path).mkdir(parents=True, exist_ok=True)
        for generation in (0, 1):
            zarr.create_array(
                self.location(generation),
                shape=(self.rows, self.width),
                chunks=(self.chunk_rows, self.width),
                dtype=self.dtype,
                compressors=None,
                overwrite=True,
                # or a chunk of zeros would be left out and look the same as a lost one
                config={"write_empty_chunks": True},
            )

    def location(self, generation: int) -> str:
        """Path of one of the two arrays; 0 and 1 alternate."""
        return str(Path(self.path) / f"generation_{generation % 2}.zarr")

    def view(self, generation: int, chunks: tuple[int, ...]) -> ChunkView:
        """Selected chunks of one generation as an array to read."""
        return ChunkView.select(
            self.location(generation), (self.rows, self.width), self.chunk_rows, self.dtype, chunks
        )
