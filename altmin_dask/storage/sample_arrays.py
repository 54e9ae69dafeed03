"""What a sample store is made of: the names of its arrays, and of all files of one that `ingest` wrote."""

from __future__ import annotations

from altmin_dask.storage.ownership import Layout, own_attributes, store_files

SEQUENCE_ARRAYS = ("lengths", "states")
"""Arrays that sequences may have beside x and y."""
WEIGHTS = "sample_weight"
"""The array that says how much every sample counts."""
SAMPLES = Layout(
    "a sample store that `altmin ingest` wrote",
    "zarr.json",
    lambda content: "sample_shape" in own_attributes(content),
    store_files("x", "y", *SEQUENCE_ARRAYS, WEIGHTS),
)
"""What `ingest` writes, and may replace."""
