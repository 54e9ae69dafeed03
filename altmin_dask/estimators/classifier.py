"""The classifier: softmax outputs, labels of any type."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.streams import mapped
from altmin_dask.errors import DataError
from altmin_dask.estimators.base import AltMinEstimator
from altmin_dask.estimators.input import is_lazy, known, targets_like
from altmin_dask.estimators.scoring import lazy_accuracy
from altmin_dask.types import Array

_BLOCK = 1 << 16


class AltMinClassifier(ClassifierMixin, AltMinEstimator):  # type: ignore[misc]
    """Classifier of softmax outputs trained by alternating minimisation, out of core where the samples are.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
        How much samples of a class count, besides their own weights; "balanced" gives all classes the same.
    hidden_layer_sizes, activation, initialization, penalty, mu, ridge, proximal, schedule, max_sweeps, \
early_stopping, validation_fraction, n_iter_no_change, tol, warm_start, chunk_rows, group_chunks, max_staleness, \
dtype, random_state, scheduler, workers, temporary_folder, settings, verbose
        See `AltMinEstimator`.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted, of whatever type.
    model_, coefs_, intercepts_, history_, loss_curve_, best_loss_, best_validation_score_, n_iter_, n_features_in_, \
feature_names_in_
        As those of `AltMinAutoencoder`; scores are accuracies.

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

    _kind = "classifier"
    classes_: Array

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (100,),
        activation: str | tuple[str, ...] = "relu",
        *,
        class_weight: Any = None,
        initialization: str = "auto",
        penalty: str = "l2",
        mu: Any = "auto",
        ridge: float = 1.0,
        proximal: float | None = None,
        schedule: str = "auto",
        max_sweeps: float | None = 30,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | None = 10,
        tol: float = 1e-3,
        warm_start: bool = False,
        chunk_rows: int | None = None,
        group_chunks: int | None = None,
        max_staleness: int = 0,
        dtype: str = "auto",
        random_state: Any = None,
        scheduler: str | None = None,
        workers: int | None = None,
        temporary_folder: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, activation, initialization=initialization, penalty=penalty, mu=mu, ridge=ridge,
            proximal=proximal, schedule=schedule, max_sweeps=max_sweeps, early_stopping=early_stopping,
            validation_fraction=validation_fraction, n_iter_no_change=n_iter_no_change, tol=tol, warm_start=warm_start,
            chunk_rows=chunk_rows, group_chunks=group_chunks, max_staleness=max_staleness, dtype=dtype,
            random_state=random_state, scheduler=scheduler, workers=workers, temporary_folder=temporary_folder,
            settings=settings, verbose=verbose,
        )  # fmt: skip
        self.class_weight = class_weight

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
            Weights (rows,): 2 counts as the sample twice, 0 as none. Only their ratios matter. They need K-FAC steps
            at ``mu="auto"``, which is the default.

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

        Curvature and mean weights are remembered from call to call, though not by `save`. Nothing is held out.

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
        if classes is not None:
            announced = np.unique(np.asarray(classes))
            if hasattr(self, "model_") and not np.array_equal(announced, self.classes_):
                raise DataError(
                    f"classes are {announced.tolist()}, and were {self.classes_.tolist()} in the first call"
                )
            self._announced = announced
        elif not hasattr(self, "model_"):
            raise DataError("classes must be passed on the first call to partial_fit")
        try:
            return self._fit(X, y, sample_weight, partial=True)
        finally:
            self.__dict__.pop("_announced", None)

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
        if not is_lazy(X):
            return float(super().score(X, y, sample_weight))
        if sample_weight is not None:
            raise DataError("sample_weight needs samples in memory; these are lazy, leave it out")
        samples = known(self._samples(X))
        forward = self._forward(classes=self.classes_)
        return lazy_accuracy(targets_like(X, y, samples), forward.lazily(samples))

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        if len(y.shape) != 1:
            raise DataError(
                f"y should be a 1d array, got an array of shape {y.shape} instead; give one label a row"
            )
        found: Array | None = None
        for block in y.blocks(_BLOCK):
            own = np.unique(block)
            found = own if found is None else np.union1d(found, own)
        assert found is not None
        check_classification_targets(found)
        classes = self.classes_ if begun else getattr(self, "_announced", found)
        if len(classes) < 2:
            raise DataError(f"y has only one class, {classes.tolist()[0]!r}; a classifier needs at least two")
        if classes is not found and not np.isin(found, classes).all():
            raise DataError(
                f"y has the labels {found.tolist()}, which are not all among the classes {classes.tolist()}"
            )
        if (
            self.warm_start
            and not begun
            and hasattr(self, "model_")
            and not np.array_equal(found, self.classes_)
        ):
            raise DataError(
                f"warm_start goes on with the classes {self.classes_.tolist()}, and y has {found.tolist()}; "
                "give samples of all of them, or warm_start=False"
            )
        self.classes_ = classes
        if y.dtype.kind in "iu" and np.array_equal(classes, np.arange(len(classes))):
            return y
        return mapped(y, lambda block: np.asarray(np.searchsorted(classes, block)), np.int64)

    def _network(self) -> dict[str, Any]:
        return {"classes": len(self.classes_)}

    def _score_of(self, store: SampleStore) -> float:
        samples = known(self._samples(store.path))
        forward = self._forward(classes=np.arange(len(self.classes_)))
        return lazy_accuracy(targets_like(store.path, None, samples), forward.lazily(samples))

    def _saved(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "classes_dtype": self.classes_.dtype.str}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.classes_ = np.array(saved["classes"], dtype=np.dtype(saved["classes_dtype"]))
        if self.classes_.shape != self.model_.network.widths[-1:]:
            raise ValueError(
                f"it has {self.classes_.shape} classes for {self.model_.network.widths[-1]} outputs"
            )
