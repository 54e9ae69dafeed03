"""The regressor: one output or several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError
from altmin_dask.estimators.dense import DenseEstimator
from altmin_dask.estimators.explained import refuse_ragged, refuse_words
from altmin_dask.estimators.input import check_numbers, is_lazy
from altmin_dask.estimators.parameters import LossParameters, parametrized
from altmin_dask.estimators.scoring import in_memory, lazy_r2
from altmin_dask.estimators.targets import as_floats


@parametrized
class AltMinRegressor(RegressorMixin, DenseEstimator, LossParameters):  # type: ignore[misc]
    """Regressor of one or several outputs trained by alternating minimisation, out of core where the samples are.

    Targets and predictions are in whatever unit you have (`standardize`).

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    n_outputs_ : int
        Columns of y.
    %(attributes)s

    Examples
    --------
    >>> import numpy as np
    >>> from altmin_dask import AltMinRegressor
    >>> x = np.random.default_rng(0).normal(size=(400, 3))
    >>> y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2]
    >>> regressor = AltMinRegressor(30, max_sweeps=60, random_state=0).fit(x, y)
    >>> regressor.predict(x).shape
    (400,)
    >>> regressor.score(x, y) > 0.9
    True
    """

    _kind = "regressor"
    _checks = {"multi_output": True, "y_numeric": True}  # noqa: RUF012 - declared by the base

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, frame, dask array or frame, zarr.Array, path or URL
            Samples (rows, features). What is lazy is written, block by block, to a store that is there while training
            goes on; a sample store itself is trained on where it is.
        y : array_like, frame, dask array, series or frame, zarr.Array
            Targets (rows,) or (rows, outputs). None only if X is the path of a store or file that holds them too.
        sample_weight : as y, optional
            Weights (rows,): 2 counts as the sample twice, 0 as none; what they sum to is how many samples stand beside
            the ridge. They need K-FAC steps at ``mu="auto"``, which is the default.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If samples or targets cannot be used.
        ConfigError
            If a parameter cannot.
        RunError
            If training diverges.
        """
        return self._fit(X, y, sample_weight)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go on with one pass over some more samples; arguments as of `fit`.

        Curvature, mean weights and the last 256 samples, of which a step is made where a call brings fewer, are
        remembered from call to call, though not by `save`. Nothing is held out.
        """
        return self._fit(X, y, sample_weight, partial=True)

    def predict(self, X: Any) -> Any:
        """Predict targets.

        Parameters
        ----------
        X : as in `fit`
            Samples (rows, features).

        Returns
        -------
        ndarray or dask array
            (rows,) or (rows, outputs), as y was; lazy where X is a dask collection, zarr or a path.
        """
        return self._predict(X, self._forward(flat=getattr(self, "_flat", False)))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R² of the predictions, averaged over outputs.

        Parameters
        ----------
        X, y : as in `fit`
            Samples (rows, features) and targets.
        sample_weight : array_like, optional
            Weights (rows,); only for samples in memory.
        """
        if not is_lazy(X):
            return float(super().score(X, *in_memory(self, X, y, sample_weight)))
        if sample_weight is not None:
            raise DataError("sample_weight needs samples in memory; these are lazy, leave it out")
        return lazy_r2(*self._lazy_pair(X, y, self._forward(flat=self._flat)))

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        if len(y.shape) > 2 or y.dtype.kind not in "biuf":
            raise DataError(
                f"y has shape {y.shape} and dtype {y.dtype}; give numbers of shape (rows,) or (rows, outputs)"
            )
        outputs = y.shape[1] if len(y.shape) == 2 else 1
        if begun and (outputs, len(y.shape) == 1) != (self.n_outputs_, self._flat):
            raise DataError(
                f"y has shape {y.shape}, and was of {self.n_outputs_} outputs before; give such targets"
            )
        self.n_outputs_: int = outputs
        self._flat: bool = len(y.shape) == 1
        return as_floats(y)

    def _network(self) -> dict[str, Any]:
        return {**super()._network(), "output_activation": self.output_activation, "loss": self.loss}

    def _check_numbers(self, X: Any, y: Any = None) -> None:
        super()._check_numbers(X)
        if y is not None:
            refuse_ragged(y)
            refuse_words(y, "AltMinClassifier")
            check_numbers(y, "y")

    def _score_of(self, store: SampleStore) -> float:
        return lazy_r2(*self._lazy_pair(self._of_training(store), None, self._forward(flat=self._flat)))

    def _saved(self) -> dict[str, Any]:
        return {"outputs": self.n_outputs_, "flat": self._flat}

    def _from_model(self) -> dict[str, Any]:
        outputs = self.model_.network.widths[-1]
        return {"outputs": outputs, "flat": outputs == 1}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.n_outputs_, self._flat = int(saved["outputs"]), bool(saved["flat"])

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
