"""Modules of PyTorch that a network needs and PyTorch has not; imported where PyTorch is known to be there."""

from __future__ import annotations

from typing import Any

import torch


class Affine(torch.nn.Module):
    """(x − shift) / scale of every number of a sample, or x · scale + shift where it is to be undone.

    Parameters
    ----------
    shift, scale : sequence of float
        One for each number.
    undo : bool
        Give numbers their own units again.
    """

    def __init__(self, shift: Any, scale: Any, *, undo: bool = False) -> None:
        super().__init__()
        self.undo, self.numbers = undo, len(shift)
        self.register_buffer("shift", torch.as_tensor(shift))
        self.register_buffer("scale", torch.as_tensor(scale))

    def forward(self, x: Any) -> Any:
        """Rows (rows, …) of as many numbers."""
        flat = x.reshape(x.shape[0], -1)
        return flat * self.scale + self.shift if self.undo else (flat - self.shift) / self.scale

    def extra_repr(self) -> str:
        """How many numbers, and which way."""
        return f"{self.numbers}{', undo=True' if self.undo else ''}"
