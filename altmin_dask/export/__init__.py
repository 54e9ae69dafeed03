"""Trained networks for other programs: PyTorch, ONNX, safetensors."""

from altmin_dask.export.onnx import write_onnx
from altmin_dask.export.torch import sequential, state_dict, write_pt2, write_safetensors

__all__ = ["WRITERS", "sequential", "state_dict", "write_onnx", "write_pt2", "write_safetensors"]

WRITERS = {".onnx": write_onnx, ".safetensors": write_safetensors, ".pt": write_pt2, ".pt2": write_pt2}
"""What writes a model, by the ending of the file."""
