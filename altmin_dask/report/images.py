"""Which samples are images, and of which shape."""

from __future__ import annotations

import math

import numpy as np

from altmin_dask.types import Array

_MIN_IMAGE = 64
"""A vector of fewer values is no image, even if their number is a square."""


def as_images(values: Array, sample_shape: tuple[int, ...]) -> Array | None:
    """Reshape samples to images (n, height, width[, 3]); None where they are not images.

    Images are samples of two axes, of three of which the first or last holds three colours, and vectors whose
    length is a square of 8 or more; axes of length 1 do not count.
    """
    shape = tuple(size for size in sample_shape if size > 1)
    side = math.isqrt(math.prod(shape))
    if len(shape) == 1 and side * side == shape[0] >= _MIN_IMAGE:
        shape = (side, side)
    images = values.reshape(len(values), *shape)
    if len(shape) == 3 and shape[0] == 3:
        return np.moveaxis(images, 1, -1)
    return images if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3) else None
