"""``.csv`` and ``.csv.gz`` files, or folders of them, as tables."""

from __future__ import annotations

from typing import Any

from altmin_dask.data.formats.tables import TableFormat

BLOCK_BYTES = 16 << 20
"""Of a csv file, read at once (chosen, not measured); compressed ones are read whole."""


class CsvFormat(TableFormat):
    """Text with commas, and names of columns in the first line of every file."""

    known_as = "a .csv file or a folder of them"
    endings = (".csv", ".csv.gz")

    def frame(self, files: list[str]) -> Any:
        """Open them in blocks of lines."""
        import dask.dataframe as dd

        if files[0].endswith(".gz"):
            return dd.read_csv(files, blocksize=None, compression="gzip")
        return dd.read_csv(files, blocksize=BLOCK_BYTES, compression=None)
