"""Samples of an auto-encoder above what the network makes of them, as small pictures that a message can carry."""

from __future__ import annotations

import math

import numpy as np

from altmin_dask.report.images import as_images
from altmin_dask.types import Array

PICTURES = 10
SIDE, STRIPE = 64, 256
"""Pixels along an image, and along a sample that is none, at most."""

Picture = tuple[int, int, int, bytes]


def pictures(samples: Array, made: Array) -> list[list[Picture]]:
    """Two rows of pictures, (height, width, colours, values 0 … 255): the samples, and what was made of them.

    Parameters
    ----------
    samples : ndarray, (n, …)
        Images as `altmin_dask.report.images.as_images` knows them; anything else becomes a stripe of its values.
    made : ndarray, (n, …)
        As many values.
    """
    low, high = float(samples.min()), float(samples.max())
    return [_row(as_images(values, samples.shape[1:]), values, low, high) for values in (samples, made)]


def _row(images: Array | None, values: Array, low: float, high: float) -> list[Picture]:
    if images is None:
        images, most = values.reshape(len(values), 1, -1), STRIPE
    else:
        most = SIDE
    step = math.ceil(max(images.shape[1:3]) / most)
    images = images[:, ::step, ::step]
    shown = (255 * np.clip((images - low) / ((high - low) or 1.0), 0, 1)).astype(np.uint8)
    height, width = shown.shape[1:3]
    return [(height, width, 3 if shown.ndim == 4 else 1, image.tobytes()) for image in shown]
