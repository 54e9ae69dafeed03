"""``digits``: the 1797 images of 8 × 8 pixels that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from altmin_dask.data.formats.base import SourceOptions, SourceSpec
from altmin_dask.data.source import Source, array_source

_TRAIN_ROWS = 1437
"""Rows of ``:train``; the other 360, a fifth, are ``:test``."""


class DigitsFormat:
    """Images (8, 8) of float32, 0 to 16, and labels of int64."""

    known_as = "`digits`"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell whether they are meant; a file of that name is ``./digits``."""
        return spec.base == "digits"

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Give all, the first 1437, or the last 360."""
        options.refuse_names(spec.base)
        from sklearn.datasets import load_digits  # slow to import, and few sources need it

        digits = load_digits()
        parts = {None: slice(None), "train": slice(_TRAIN_ROWS), "test": slice(_TRAIN_ROWS, None)}
        x, y = (array[parts[spec.split]] for array in (digits.images, digits.target))
        return array_source(x.astype(np.float32), y.astype(np.int64), name=spec.name)
