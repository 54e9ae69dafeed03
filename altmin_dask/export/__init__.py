"""Trained networks for other programs: PyTorch, ONNX, safetensors."""

from altmin_dask.export.onnx import write_onnx
from altmin_dask.export.torch import sequential, state_dict, write_safetensors, write_torchscript

__all__ = ["WRITERS", "sequential", "state_dict", "write_onnx", "write_safetensors", "write_torchscript"]

WRITERS = {".onnx": write_onnx, ".safetensors": write_safetensors, ".pt": write_torchscript}
"""What writes a model, by the ending of the file."""
