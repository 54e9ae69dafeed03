"""What a sample store is made of: the names of its arrays, and of all files of one that `ingest` wrote."""

from __future__ import annotations

import re

from altmin_dask.storage.ownership import Layout, own_attributes, store_files

SEQUENCE_ARRAYS = ("lengths", "states")
"""Arrays that sequences may have beside x and y."""
WEIGHTS = "sample_weight"
"""The array that says how much every sample counts."""
ROW = "row"
"""The array that says which row of the source each one was, where they are in another order."""
_ARRAYS = ("x", "y", *SEQUENCE_ARRAYS, WEIGHTS, ROW)
SAMPLES = Layout(
    "a sample store that `altmin ingest` wrote",
    "zarr.json",
    lambda content: "sample_shape" in own_attributes(content),
    re.compile(rf"{store_files(*_ARRAYS).pattern}|({'|'.join(_ARRAYS)})\.unshuffled"),
)
"""What `ingest` writes, and may replace."""
