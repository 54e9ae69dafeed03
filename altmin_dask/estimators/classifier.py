"""The classifier: softmax outputs, labels of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin

from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError
from altmin_dask.estimators.dense import DenseEstimator
from altmin_dask.estimators.explained import one_hot_refused, refuse_one_hot
from altmin_dask.estimators.input import is_lazy, plain_text
from altmin_dask.estimators.parameters import parameter, parametrized
from altmin_dask.estimators.scoring import in_memory, lazy_accuracy
from altmin_dask.estimators.targets import (
    announced,
    classes_from_json,
    classes_to_json,
    encoded,
    find_classes,
)


@parametrized
class AltMinClassifier(ClassifierMixin, DenseEstimator):  # type: ignore[misc]
    """Classifier of softmax outputs trained by alternating minimisation, out of core where the samples are.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted, of whatever type.
    %(attributes)s

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from altmin_dask import AltMinClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> classifier = make_pipeline(StandardScaler(), AltMinClassifier(20, max_sweeps=20, random_state=0)).fit(x, y)
    >>> classifier.predict_proba(x).shape
    (150, 3)
    >>> classifier.score(x, y) > 0.9
    True
    """

    class_weight: Mapping[Any, float] | str | None = parameter(
        "How much samples of a class count, besides their own weights; 'balanced' gives all classes the same.",
        default=None,
    )

    _kind = "classifier"

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, frame, dask array or frame, zarr.Array, path or URL
            Samples (rows, features). What is lazy is written, block by block, to a store that is there while training
            goes on; a sample store itself is trained on where it is.
        y : array_like, dask array or series, zarr.Array
            Labels (rows,). None only if X is the path of a store or file that holds them too.
        sample_weight : as y, optional
            Weights (rows,): 2 counts as the sample twice, 0 as none; what they sum to is how many samples stand beside
            the ridge. They need K-FAC steps at ``mu="auto"``, which is the default.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If samples or labels cannot be used.
        ConfigError
            If a parameter cannot.
        RunError
            If training diverges.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None) -> Self:
        """Go on with one pass over some more samples.

        Curvature, mean weights and the last 256 samples, of which a step is made where a call brings fewer, are
        remembered from call to call, though not by `save`. Nothing is held out.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`
            Samples (rows, features), labels (rows,) and weights (rows,).
        classes : array_like, (classes,)
            All labels there will be; needed in the first call.

        Raises
        ------
        DataError
            If there are no classes in the first call, or others than in the first call.
        """
        with announced(self, classes):
            return self._fit(X, y, sample_weight, partial=True)

    def predict(self, X: Any) -> Any:
        """Classify.

        Parameters
        ----------
        X : as in `fit`
            Samples (rows, features).

        Returns
        -------
        ndarray or dask array
            Labels (rows,); lazy where X is a dask collection, zarr or a path.
        """
        return self._predict(X, self._forward(classes=getattr(self, "classes_", None)))

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes, (rows, classes), in the order of `classes_`; lazy as `predict` is."""
        return self._predict(X, self._forward())

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Share of samples whose label is predicted.

        Parameters
        ----------
        X : as in `fit`
            Samples (rows, features).
        y : as in `fit`
            Labels (rows,).
        sample_weight : array_like, optional
            Weights (rows,); only for samples in memory.
        """
        y = plain_text(y)
        if not is_lazy(X):
            return float(super().score(X, *in_memory(self, X, y, sample_weight)))
        if sample_weight is not None:
            raise DataError("sample_weight needs samples in memory; these are lazy, leave it out")
        return lazy_accuracy(*self._lazy_pair(X, y, self._forward(classes=self.classes_)))

    def _check_numbers(self, X: Any, y: Any = None) -> None:
        super()._check_numbers(X)
        refuse_one_hot(X, y)

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        if len(y.shape) != 1:
            raise one_hot_refused(y.label, y.shape)
        known = self.classes_ if begun else getattr(self, "_announced", None)
        warm = self.warm_start and not begun and hasattr(self, "model_")
        self.classes_ = find_classes(y, known, self.classes_ if warm else None)
        return encoded(y, self.classes_)

    def _network(self) -> dict[str, Any]:
        return {**super()._network(), "classes": len(self.classes_)}

    def _score_of(self, store: SampleStore) -> float:
        forward = self._forward(classes=np.arange(len(self.classes_)))
        return lazy_accuracy(*self._lazy_pair(self._of_training(store), None, forward))

    def _saved(self) -> dict[str, Any]:
        return classes_to_json(self.classes_)

    def _from_model(self) -> dict[str, Any]:
        return classes_to_json(self._class_names(self.model_.network.widths[-1]))

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.classes_ = classes_from_json(saved, self.model_.network.widths[-1])
