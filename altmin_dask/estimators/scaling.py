"""scikit-learn's scaler, also for samples that are larger than memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import dask.array as da
import numpy as np
from sklearn import preprocessing
from sklearn.utils.validation import check_is_fitted

from altmin_dask.errors import DataError
from altmin_dask.estimators.containers import lazy_stays_lazy
from altmin_dask.estimators.input import as_dask, check_columns, is_lazy
from altmin_dask.estimators.order import check_order
from altmin_dask.estimators.scaled import Numbers, warn_of_others
from altmin_dask.types import Array

_LEARNT = ("mean_", "var_", "scale_", "n_samples_seen_")


@lazy_stays_lazy
class StandardScaler(preprocessing.StandardScaler):  # type: ignore[misc]
    """`sklearn.preprocessing.StandardScaler` that also takes dask collections, zarr arrays and stores, block by block.

    What is in memory goes to scikit-learn as it is. Of lazy samples, `fit` reads one block after the other, and
    `transform` and `inverse_transform` are lazy dask arrays in the same blocks.

    Parameters
    ----------
    copy, with_mean, with_std : bool
        As in scikit-learn.

    Attributes
    ----------
    mean_, var_, scale_ : ndarray, (features,)
        As in scikit-learn.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.pipeline import make_pipeline
    >>> from altmin_dask import AltMinRegressor, StandardScaler
    >>> x = da.random.default_rng(0).normal(5, 3, size=(1000, 4), chunks=(250, 4))
    >>> pipeline = make_pipeline(StandardScaler(), AltMinRegressor(10, max_sweeps=5, random_state=0))
    >>> pipeline.fit(x, x[:, 0] * x[:, 1]).predict(x)
    dask.array<..., shape=(1000,), dtype=float64, chunksize=(250,), chunktype=numpy.ndarray>
    """

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find means and variances.

        Parameters
        ----------
        X : array_like, frame, dask array or frame, zarr.Array, path or URL of a store
            Samples (rows, features).
        y : None
            Ignored, but for that it is refused beside a store whose rows are shuffled.
        sample_weight : array_like, (rows,), optional
            Only for samples in memory.

        Raises
        ------
        DataError
            If lazy samples have weights, or are not rows of numbers, or are a store that was shuffled, and y is given.
        """
        if not is_lazy(X):
            fitted: Self = super().fit(X, y, sample_weight)
            self._numbers = None
            return fitted
        _refuse_weights(sample_weight)
        check_order(X, y, "y")  # which goes on to what stands behind it in a pipeline
        x = as_dask(X)
        found = self._over(preprocessing.StandardScaler(with_mean=self.with_mean, with_std=self.with_std), x)
        self._reset()  # what was fitted before is there until all is read
        self.__dict__ |= found | {"_numbers": Numbers.of(X)}
        self.__dict__.pop("feature_names_in_", None)
        check_columns(self, X, x.shape[1], reset=True)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go on with more samples, whose columns are named and ordered as they were; arguments as of `fit`."""
        if not is_lazy(X):
            fitted: Self = super().partial_fit(X, y, sample_weight)
            return fitted
        if not hasattr(self, "scale_"):
            return self.fit(X, y, sample_weight)
        self._check_alike(X)
        _refuse_weights(sample_weight)
        check_order(X, y, "y")
        x = as_dask(X)
        check_columns(self, X, x.shape[1], reset=False)
        self.__dict__ |= self._over(self._plain(), x)
        return self

    @staticmethod
    def _over(plain: preprocessing.StandardScaler, x: da.Array) -> dict[str, Any]:
        """What a scaler of scikit-learn has learnt when it has gone on over all blocks, of which some may be empty."""
        for block in x.blocks:
            values = block.compute()
            if len(values):
                plain.partial_fit(values)
        check_is_fitted(plain, msg="X has no samples; give one or more")
        learnt = {name: getattr(plain, name) for name in _LEARNT}
        return learnt | {"n_features_in_": plain.n_features_in_}

    def _plain(self) -> preprocessing.StandardScaler:
        """The same as scikit-learn's, for blocks, which have no names."""
        plain = preprocessing.StandardScaler(with_mean=self.with_mean, with_std=self.with_std)
        plain.__dict__ |= {name: copy.copy(getattr(self, name)) for name in (*_LEARNT, "n_features_in_")}
        return plain.set_output(transform="default")

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Scale samples (rows, features), whose columns are named and ordered as they were; lazy where X is."""
        check_is_fitted(self)
        self._check_alike(X)
        if not is_lazy(X):
            return super().transform(X, copy)
        return self._mapped(X, "transform")

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Undo `transform`; lazy where X is."""
        if not is_lazy(X):
            return super().inverse_transform(X, copy)
        return self._mapped(X, "inverse_transform")

    def _check_alike(self, X: Any) -> None:
        """Tell of numbers of a store that was scaled beside raw ones, or others."""
        own, numbers = getattr(self, "_numbers", None), Numbers.of(X) if is_lazy(X) else None
        if numbers != own:
            warn_of_others(numbers, type(self).__name__, "was fitted to", own)

    def _mapped(self, X: Any, name: str) -> da.Array:
        x = as_dask(X)
        check_is_fitted(self)
        if name == "transform":  # what comes back has no names
            check_columns(self, X, x.shape[1], reset=False)
        dtype = x.dtype if x.dtype in (np.float32, np.float16) else np.dtype(np.float64)
        scaled = partial(_scaled, getattr(self._plain(), name), dtype)
        return da.map_blocks(scaled, x, dtype=dtype, meta=np.empty((0, 0), dtype))


def _scaled(method: Callable[[Array], Array], dtype: np.dtype[Any], block: Array) -> Array:
    """A block that is scaled; an empty one scikit-learn would refuse."""
    return method(block) if len(block) else block.astype(dtype)


def _refuse_weights(sample_weight: Any) -> None:
    if sample_weight is not None:
        raise DataError("sample_weight needs samples in memory; these are lazy, leave it out")
