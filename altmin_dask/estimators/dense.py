"""What the estimators of rows of features share, whose networks are chains of dense layers."""

from __future__ import annotations

from math import prod
from typing import Any

import dask.array as da
from sklearn.utils.validation import validate_data

from altmin_dask.config import NetworkTable
from altmin_dask.estimators.base import FLOATS, AltMinEstimator
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_dask, is_lazy
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

    def _network(self) -> dict[str, Any]:
        return {"initialization": self.initialization}

    def _shape(self, model: Model) -> tuple[int, ...]:
        return (prod(model.sample_shape),)

    def _predict(self, X: Any, forward: Forward) -> Any:
        """Outputs for samples of any kind: lazy for what is lazy."""
        if is_lazy(X):
            return forward.lazily(self._samples(X))
        self._check_numbers(X)
        return forward(validate_data(self, X, dtype=FLOATS, reset=False))

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
