"""What the estimators share that see a sample as one row of features, or as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np

from altmin_dask.config import NetworkTable
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.data.streams import mapped, shaped
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.errors import DataError
from altmin_dask.estimators.base import AltMinEstimator
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_lazy, as_rows, known, targets_like
from altmin_dask.estimators.order import check_order
from altmin_dask.estimators.parameters import choices, parameter, parametrized
from altmin_dask.estimators.samples import Inputs, whole
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
        return {**super()._network(), "initialization": self.initialization, "layers": self.layers}

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        """Samples of any shape: scikit-learn checks them as rows."""
        return self._shaped(super()._in_memory(as_rows(X), y, sample_weight, least=least, reset=reset), X)

    @staticmethod
    def _shaped(source: Source, X: Any) -> Source:
        """Samples that were checked as rows in the shape they were given in."""
        return replace(source, x=shaped(source.x, X.shape[1:])) if getattr(X, "ndim", 2) > 2 else source

    def _shape(self, model: Model) -> tuple[int, ...]:
        return model.sample_shape

    def _predict(self, X: Any, forward: Forward) -> Any:
        """Outputs for samples of any kind: lazy for what is lazy."""
        return self._opened(X).outputs(forward)

    def _lazy_pair(self, X: Any, y: Any, forward: Forward) -> tuple[da.Array, da.Array]:
        """Targets and predictions of lazy samples, in the same blocks."""
        check_order(X, y, "y")
        samples = self._opened(X)
        predicted = known(samples.outputs(forward))
        if y is None:
            if samples.y is None:
                raise DataError("there are no targets y to compare predictions with; give them")
            y = whole(samples.y)
        return targets_like(y, predicted), predicted

    def _forward(self, first: int = 0, last: int | None = None, **options: Any) -> Forward:
        """Layers `first` + 1 … `last`, or all of them."""
        model = self._fitted
        undo = model.output_scaling if last is None else None
        prepare = model.prepare if first == 0 and model.prepares else None
        last = len(model.weights) if last is None else last
        network, weights = model.network.part(first, last), model.weights[first:last]
        return Forward(network, weights, prepare=prepare, undo=undo, **options)

    def _of_training(self, store: SampleStore) -> Inputs:
        """Samples of a store that training wrote, prepared."""
        y = None if store.y is None else read_zarr(store.y, "y")
        how = self.model_.preparation
        if y is not None and how is not None and how.y is not None and y.dtype.kind == "f":
            y = mapped(y, how.y.undo, np.float64)
        return Inputs(as_lazy(store.x), True, {}, y)
