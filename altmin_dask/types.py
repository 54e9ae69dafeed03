"""Names of types that every layer of the package uses."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

Weights = tuple[Array, ...]
"""W̃_1 … W̃_L, each of shape (d_i, d_{i−1} + 1), the bias in the last column."""
