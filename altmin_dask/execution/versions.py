"""Versions that what is computed depends on, and that tasks can be read by."""

from __future__ import annotations

import sys
from importlib.metadata import version


def versions() -> str:
    """Of this process."""
    packages = ("altmin-dask", "dask", "distributed", "numpy", "scipy", "zarr")
    return ", ".join(
        [
            f"python {sys.version_info.major}.{sys.version_info.minor}",
            *(f"{name} {version(name)}" for name in packages),
        ]
    )
