"""Trained networks for other programs: PyTorch, ONNX, safetensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from altmin_dask.errors import ConfigError, ExistsError
from altmin_dask.export.onnx import write_onnx
from altmin_dask.export.torch import sequential, state_dict, write_pt2, write_safetensors
from altmin_dask.storage.model import Model
from altmin_dask.storage.writable import check_folder_of

__all__ = [
    "WRITERS",
    "described",
    "sequential",
    "state_dict",
    "write_onnx",
    "write_pt2",
    "write_safetensors",
    "writer_for",
]

SHOWN = 30
"""Inputs that are named one by one."""
WRITERS = {".onnx": write_onnx, ".safetensors": write_safetensors, ".pt": write_pt2, ".pt2": write_pt2}
"""What writes a model, by the ending of the file."""


def described(model: Model) -> str:
    """What an exported network is, and what the numbers in a row of its input are, in order, where they have names."""
    names = [] if model.preparation is None else model.preparation.names
    more = (
        f" and {len(names) - SHOWN} more (`inputs` of what is in the file beside the network)"
        if len(names) > SHOWN
        else ""
    )
    reads = f"; reads, in this order: {', '.join(names[:SHOWN])}{more}" if names else ""
    return f"{'-'.join(map(str, model.network.sizes))} {model.kind}{reads}"


def writer_for(file: Path, *, overwrite: bool) -> Callable[[Any, Path], Any]:
    """What writes a model as the ending of a file says.

    Raises
    ------
    ConfigError
        If it says nothing.
    ExistsError, MissingError
        If there is a file already, unless `overwrite` is given, or no folder for it.
    """
    if file.suffix not in WRITERS:
        raise ConfigError(
            f"{file} ends in no format known here; write FILE.onnx, FILE.pt2 (or FILE.pt, which is the same: for "
            "torch.export.load) or FILE.safetensors (weights alone, by PyTorch's names)"
        )
    if os.path.lexists(file) and not overwrite:
        raise ExistsError(
            f"{file} exists already; give another name, or --overwrite to replace an exported model"
        )
    check_folder_of(file)
    return WRITERS[file.suffix]
