"""Zarr groups and arrays, of format 2 or 3, at a path or a URL."""

from __future__ import annotations

import zarr

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.formats.named_arrays import no_array, source_of
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.storage.zarr_groups import is_zarr_folder, open_zarr


class ZarrFormat:
    """Named arrays of a group, or one array, which is x."""

    known_as = "a zarr store"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the files of a folder; whatever is at a URL has to be zarr."""
        return spec.path is None or is_zarr_folder(spec.path)

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Choose the arrays by name."""
        spec.refuse_split()
        location = spec.base if spec.path is None else str(spec.path)
        node = open_zarr(location)
        if isinstance(node, zarr.Array):
            options.refuse_names(location)
            return Source(spec.name, read_zarr(node, f"the array at {location}"))

        def read(name: str) -> RowReader:
            array = node.get(name)
            if not isinstance(array, zarr.Array):
                raise no_array(location, name, sorted(node.array_keys()))
            return read_zarr(array, f"array {name!r} of {location}")

        y = options.y or ("y" if "y" in node and options.x != "y" else None)
        return source_of(spec.name, node.__contains__, read, options.x or "x", y)
