"""``.parquet`` files, or folders of them, as tables."""

from __future__ import annotations

from typing import Any

from altmin_dask.data.formats.tables import TableFormat


class ParquetFormat(TableFormat):
    """Columns with types, in groups of rows."""

    known_as = "a .parquet file or a folder of them"
    endings = (".parquet", ".pq")

    def frame(self, files: list[str]) -> Any:
        """Open them, a file a partition, or as dask divides them."""
        import dask.dataframe as dd

        return dd.read_parquet(files)

    def as_written(self, files: list[str]) -> Any:
        """Open them with the types of Arrow."""
        import dask.dataframe as dd

        return dd.read_parquet(files, dtype_backend="pyarrow")
