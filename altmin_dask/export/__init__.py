"""Trained networks for other programs: PyTorch, ONNX, safetensors."""
