"""Zarr groups and arrays, of format 2 or 3, at a path or a URL."""

from __future__ import annotations

from dataclasses import replace

import zarr

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.formats.named_arrays import no_array, source_of
from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.storage.ownership import own_attributes
from altmin_dask.storage.zarr_groups import array_names, is_zarr_file, is_zarr_folder, member, open_zarr


class ZarrFormat:
    """Named arrays of a group, or one array, which is x; of a sample store with what was done to its samples."""

    known_as = "a zarr store"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the files of a folder, or in a zip file; whatever is at a URL has to be zarr."""
        return spec.path is None or is_zarr_folder(spec.path) or is_zarr_file(spec.path)

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Choose the arrays by name."""
        spec.refuse_split()
        location = spec.base if spec.path is None else str(spec.path)
        node = open_zarr(location)
        if isinstance(node, zarr.Array):
            options.refuse_names(location)
            return Source(spec.name, read_zarr(node, f"the array at {location}"))

        def read(name: str, text: bool) -> RowReader:
            array = member(node, name, location)
            if not isinstance(array, zarr.Array):
                raise no_array(location, name, sorted(node.array_keys()))
            return read_zarr(array, f"array {name!r} of {location}", text=text)

        x = options.x or "x"
        y = options.y or ("y" if "y" in node and x != "y" else None)
        if x != "x" or "sample_shape" not in own_attributes({"attributes": node.attrs.asdict()}):
            names = [] if spec.path is None else array_names(node)  # at a URL they may not be listed
            return source_of(spec.name, node.__contains__, read, x, y, options.like, names)
        store = SampleStore.open(spec.base if spec.path is None else spec.path)
        how = store.preparation
        if how is not None and y != "y":
            how = replace(how, targets=(), classes=None, y=None)
        like = None if how is not None and how.classes is not None else options.like
        source = source_of(spec.name, node.__contains__, read, x, y, like)
        return store.noted(replace(source, preparation=how))
