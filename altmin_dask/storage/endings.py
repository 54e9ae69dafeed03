"""How files are called that are no stores."""

from __future__ import annotations

OF_SAMPLES = (
    *(".npz", ".npy", ".h5", ".hdf5", ".mat", ".nc", ".xlsx", ".xls", ".ods", ".jsonl", ".ndjson"),
    *(".feather", ".arrow", ".ipc", ".orc", ".avro", ".sas7bdat", ".dta", ".sav"),
)
"""Endings of files that may hold samples, beside those of text and parquet."""
_FILES = (
    *OF_SAMPLES,
    *(".csv", ".tsv", ".txt", ".json", ".parquet", ".pq", ".gz", ".bz2", ".xz", ".zst", ".zip", ".tar"),
    *(".pkl", ".pickle", ".pt", ".onnx", ".safetensors", ".html", ".md", ".xml", ".yaml", ".toml", ".db"),
    ".sqlite",
)
"""Endings of what whoever opens it would take for a file of another kind."""


def is_called_a_file(location: str) -> bool:
    """Whether a name ends as those of files of another kind do."""
    return location.lower().endswith(_FILES)
