"""Which samples are images, and of which shape."""

from __future__ import annotations

import math

import numpy as np

from altmin_dask.types import Array

_MIN_IMAGE = 64
"""A vector of fewer values is no image, even if their number is a square."""
_ALIKE = 0.8
"""Of an image, values one above the other differ by so much less than others do (of digits 0.3, standardised 0.5; of
random vectors 1.0 to 1.1, of smooth curves 2 and more)."""


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


def are_images(values: Array, sample_shape: tuple[int, ...]) -> bool:
    """Whether samples are images by their shape, and vectors of a square length by what they hold, too.

    A table may have 64 or 100 columns. In an image neighbours are alike: values one above the other differ less than
    those half a row apart, as they would not in a curve, and less than any two.
    """
    images = as_images(values, sample_shape)
    if images is None or sum(size > 1 for size in sample_shape) > 1:
        return images is not None
    side = images.shape[1]
    flat = values.reshape(len(values), -1).astype(np.float64)

    def apart(distance: int) -> float:
        return float(np.mean((flat[:, distance:] - flat[:, :-distance]) ** 2))

    order = np.random.default_rng(0).permutation(side * side)
    others = min(apart(side // 2), float(np.mean((flat - flat[:, order]) ** 2)))
    return apart(side) < _ALIKE * others
