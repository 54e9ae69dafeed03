"""What the estimators share that see a sample as one row of features, or as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import dask.array as da
import numpy as np
from sklearn.utils.validation import validate_data

from altmin_dask.config import NetworkTable
from altmin_dask.data.source import Source
from altmin_dask.data.streams import shaped
from altmin_dask.estimators.base import FLOATS, AltMinEstimator
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_dask, as_rows, is_lazy
from altmin_dask.estimators.parameters import choices, parameter, parametrized
from altmin_dask.storage.model import Model


@parametrized
class DenseEstimator(AltMinEstimator):
    """An estimator that sees a sample as a row of features; use one of its subclasses."""

    initialization: str = parameter(
        f"How weights begin: {choices(NetworkTable, 'initialization')}; "
        "'auto' is 'whitened' for auto-encoders of one hidden layer, and 'random' elsewhere.",
        default="auto",
    )

    layers: Sequence[Mapping[str, Any]] | None = parameter(
        "All hidden layers, in place of `hidden_layer_sizes`, as tables such as "
        "``{'kind': 'convolution', 'channels': 8}``; convolutions take images X (rows, height, width) or (rows, "
        "height, width, channels).",
        default=None,
    )

    def _network(self) -> dict[str, Any]:
        return {"initialization": self.initialization, "layers": self.layers}

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        """Samples of any shape: scikit-learn checks them as rows."""
        return self._shaped(super()._in_memory(as_rows(X), y, sample_weight, least=least, reset=reset), X)

    @staticmethod
    def _shaped(source: Source, X: Any) -> Source:
        """Samples that were checked as rows in the shape they were given in."""
        return replace(source, x=shaped(source.x, np.shape(X)[1:])) if np.ndim(X) > 2 else source

    def _shape(self, model: Model) -> tuple[int, ...]:
        return (prod(model.sample_shape),)

    def _predict(self, X: Any, forward: Forward) -> Any:
        """Outputs for samples of any kind: lazy for what is lazy."""
        if is_lazy(X):
            return forward.lazily(self._samples(X))
        self._check_numbers(X)
        return forward(validate_data(self, as_rows(X), dtype=FLOATS, reset=False))

    def _samples(self, X: Any) -> da.Array:
        """Lazy samples that fit the model."""
        x = as_dask(X)
        self._learn_features(X, x.shape[1], reset=False)
        return x

    def _forward(self, first: int = 0, last: int | None = None, **options: Any) -> Forward:
        """Layers `first` + 1 … `last`, or all of them."""
        model = self._fitted
        last = len(model.weights) if last is None else last
        return Forward(model.network.part(first, last), model.weights[first:last], **options)
