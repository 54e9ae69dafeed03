"""Estimators of sequences: a recurrent network that reads samples of shape (steps, features)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score

from altmin_dask.data.labels import NONE
from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ConfigError, DataError, warn
from altmin_dask.estimators.explained import refuse_words
from altmin_dask.estimators.input import check_numbers
from altmin_dask.estimators.parameters import OutputParameters, parameter, parametrized
from altmin_dask.estimators.scoring import hits
from altmin_dask.estimators.sequences import RecurrentEstimator
from altmin_dask.estimators.targets import (
    announced,
    as_floats,
    classes_from_json,
    classes_to_json,
    encoded,
    find_classes,
)


@parametrized
class AltMinRecurrentClassifier(ClassifierMixin, RecurrentEstimator):  # type: ignore[misc]
    """Classifier of sequences, or of every step of them, by a recurrent network trained by alternating minimisation.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted, of whatever type.
    n_steps_in_, n_step_features_in_ : int
        Steps of the sequences trained on, and features of a step.
    %(attributes)s

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinRecurrentClassifier
    >>> x = np.random.default_rng(0).normal(size=(300, 8, 2))
    >>> y = np.where(x[:, :, 0].sum(axis=1) > 0, "up", "down")
    >>> classifier = AltMinRecurrentClassifier(16, max_sweeps=40, random_state=0).fit(x, y)
    >>> classifier.predict_proba(x).shape
    (300, 2)
    >>> classifier.score(x, y) > 0.9
    True
    """

    class_weight: Mapping[Any, float] | str | None = parameter(
        "How much sequences of a class count, besides their own weights; 'balanced' gives all classes the same. For "
        "sequences of one label.",
        default=None,
    )

    _kind = "recurrent_classifier"

    def fit(self, X: Any, y: Any = None, *, lengths: Any = None, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, list of array_like, dask array, zarr.Array, path or URL
            Sequences (rows, steps, features), or (rows, steps · features) if `steps` is given. Those of a list may be
            of different lengths, which are taken from them.
        y : array_like, dask array, zarr.Array
            Labels (rows,), or one for every step, (rows, steps). None only if X is the path of a store with labels.
        lengths : array_like of int, (rows,), optional
            How many steps of each sequence there are; what follows is padding, of whatever numbers. A store has its
            own.
        sample_weight : array_like, (rows,), optional
            How much every sequence counts.

        Raises
        ------
        DataError
            If sequences, labels or lengths cannot be used.
        ConfigError
            If a parameter cannot.
        RunError
            If training diverges.
        """
        return self._fit_sequences(X, y, lengths, sample_weight)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, *, lengths: Any = None, sample_weight: Any = None
    ) -> Self:
        """Go on with one pass over some more sequences; arguments as of `fit`, and all `classes` in the first call.

        Curvature, mean weights and the last 256 sequences, of which a step is made where a call brings fewer, are
        remembered from call to call, though not by `save`. Nothing is held out.
        """
        with announced(self, classes):
            return self._fit_sequences(X, y, lengths, sample_weight, partial=True)

    def predict(self, X: Any, *, lengths: Any = None) -> Any:
        """Labels (rows,), or (rows, steps); lazy where X is a dask array, zarr or a path."""
        return self._outputs(X, lengths, classes=getattr(self, "classes_", None))

    def predict_proba(self, X: Any, *, lengths: Any = None) -> Any:
        """Probabilities of `classes_`, (rows, classes) or (rows, steps, classes); lazy as `predict` is."""
        return self._outputs(X, lengths)

    def score(self, X: Any, y: Any = None, *, sample_weight: Any = None, lengths: Any = None) -> float:
        """Share of labels that are predicted, of all steps that are there; of a store, y and lengths are its own."""
        y, predicted, weights = self._compared(
            X, y, lengths, sample_weight, classes=getattr(self, "classes_", None)
        )
        return float(np.average(hits(y, predicted), weights=weights))

    def _at_every_step(self, shape: tuple[int, ...], steps: int) -> bool:
        return len(shape) == 2 and shape[1] == steps

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        if len(y.shape) not in (1, 2) or (len(y.shape) == 2 and y.shape[1] != self.n_steps_in_):
            raise DataError(
                f"y has shape {y.shape}; give labels of shape (rows,), or (rows, {self.n_steps_in_}) for every step"
            )
        if len(y.shape) == 2 and self.class_weight is not None:
            raise ConfigError(
                "class_weight is for sequences of one label, and y has one for every step; give sample_weight, or "
                "leave it out"
            )
        known = self.classes_ if begun else getattr(self, "_announced", None)
        warm = self.warm_start and not begun and hasattr(self, "model_")
        self.classes_ = find_classes(y, known, self.classes_ if warm else None)
        if len(y.shape) == 2 and self.classes_[:2].tolist() == [NONE, 0] and len(self.classes_) > 2:
            warn(
                f"y has the label {NONE} at some steps, which is a class here, as any other is; where it says that a "
                "step has no target, train on a store or file by `altmin train`, which takes it for that"
            )
        return encoded(y, self.classes_)

    def _network(self) -> dict[str, Any]:
        return {**super()._network(), "classes": len(self.classes_)}

    def _score_of(self, store: SampleStore) -> float:
        codes = np.arange(len(self.classes_))
        y, predicted, _ = self._compared(self._of_training(store), None, None, None, classes=codes)
        return float((predicted == y).mean())

    def _saved(self) -> dict[str, Any]:
        return {**super()._saved(), **classes_to_json(self.classes_)}

    def _from_model(self) -> dict[str, Any]:
        return {
            **super()._from_model(),
            **classes_to_json(self._class_names(self.model_.network.layers[-1].units)),
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        super()._restore(saved)
        self.classes_ = classes_from_json(saved, self.model_.network.layers[-1].units)


@parametrized
class AltMinRecurrentRegressor(RegressorMixin, RecurrentEstimator, OutputParameters):  # type: ignore[misc]
    """Regressor of sequences, or of every step of them, by a recurrent network trained by alternating minimisation.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    n_outputs_ : int
        Targets of a sequence, or of a step.
    n_steps_in_, n_step_features_in_ : int
        Steps of the sequences trained on, and features of a step.
    %(attributes)s

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinRecurrentRegressor
    >>> x = np.random.default_rng(0).normal(size=(300, 8, 2))
    >>> y = np.cumsum(x[:, :, 0], axis=1)[:, :, None]
    >>> regressor = AltMinRecurrentRegressor(16, max_sweeps=60, random_state=0).fit(x, y)
    >>> regressor.predict(x).shape
    (300, 8, 1)
    >>> regressor.score(x, y) > 0.9
    True
    """

    _kind = "recurrent_regressor"
    _checks = {"multi_output": True, "y_numeric": True}  # noqa: RUF012 - declared by the base

    def fit(self, X: Any, y: Any = None, *, lengths: Any = None, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X, lengths : as of `AltMinRecurrentClassifier.fit`
            Sequences (rows, steps, features), and how many of the steps there are.
        y : array_like, dask array, zarr.Array
            Targets of the last step, (rows,) or (rows, outputs), or of every step, (rows, steps, outputs).
        """
        return self._fit_sequences(X, y, lengths, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, *, lengths: Any = None, sample_weight: Any = None) -> Self:
        """Go on with one pass over some more sequences; arguments as of `fit`.

        Curvature, mean weights and the last 256 sequences, of which a step is made where a call brings fewer, are
        remembered from call to call, though not by `save`. Nothing is held out.
        """
        return self._fit_sequences(X, y, lengths, sample_weight, partial=True)

    def predict(self, X: Any, *, lengths: Any = None) -> Any:
        """Targets, shaped as y was; lazy where X is a dask array, zarr or a path.

        Of a list of sequences with a target at every step: one array (rows, steps, outputs), zero behind their ends.
        """
        return self._outputs(X, lengths, flat=getattr(self, "_flat", False))

    def score(self, X: Any, y: Any = None, *, sample_weight: Any = None, lengths: Any = None) -> float:
        """R² of the predictions, over all steps that are there; of a store, y and lengths are its own."""
        y, predicted, weights = self._compared(
            X, y, lengths, sample_weight, flat=getattr(self, "_flat", False)
        )
        return float(r2_score(y, predicted, sample_weight=weights))

    def _at_every_step(self, shape: tuple[int, ...], steps: int) -> bool:
        return len(shape) == 3 and shape[1] == steps

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        if (
            len(y.shape) > 3
            or y.dtype.kind not in "biuf"
            or (len(y.shape) == 3 and y.shape[1] != self.n_steps_in_)
        ):
            raise DataError(
                f"y has shape {y.shape} and dtype {y.dtype}; give numbers of shape (rows,), (rows, outputs) or "
                f"(rows, {self.n_steps_in_}, outputs)"
            )
        outputs, flat = y.shape[-1] if len(y.shape) > 1 else 1, len(y.shape) == 1
        if begun and (outputs, flat) != (self.n_outputs_, self._flat):
            raise DataError(
                f"y has shape {y.shape}, and was of {self.n_outputs_} outputs before; give such targets"
            )
        self.n_outputs_: int = outputs
        self._flat: bool = flat
        return as_floats(y)

    def _check_numbers(self, X: Any, y: Any = None) -> None:
        super()._check_numbers(X)
        if y is not None:
            refuse_words(y, "AltMinRecurrentClassifier")
            check_numbers(y, "y")

    def _network(self) -> dict[str, Any]:
        return {**super()._network(), "output_activation": self.output_activation}

    def _score_of(self, store: SampleStore) -> float:
        y, predicted, _ = self._compared(self._of_training(store), None, None, None, flat=self._flat)
        return float(r2_score(y, predicted))

    def _saved(self) -> dict[str, Any]:
        return {**super()._saved(), "outputs": self.n_outputs_, "flat": self._flat}

    def _from_model(self) -> dict[str, Any]:
        outputs = self.model_.network.layers[-1].units
        return {**super()._from_model(), "outputs": outputs, "flat": outputs == 1 and not self._every}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        super()._restore(saved)
        self.n_outputs_, self._flat = int(saved["outputs"]), bool(saved["flat"])
