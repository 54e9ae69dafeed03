"""Trained networks for other programs: PyTorch, ONNX, safetensors."""

from altmin_dask.export.onnx import write_onnx
from altmin_dask.export.torch import sequential, state_dict

__all__ = ["sequential", "state_dict", "write_onnx"]
