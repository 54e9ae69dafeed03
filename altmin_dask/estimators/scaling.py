"""scikit-learn's scaler, also for samples that are larger than memory."""

from __future__ import annotations

from typing import Any, Self

import dask.array as da
import numpy as np
from sklearn import preprocessing
from sklearn.utils.validation import check_is_fitted

from altmin_dask.errors import DataError
from altmin_dask.estimators.containers import lazy_stays_lazy
from altmin_dask.estimators.input import as_dask, check_columns, is_lazy


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
            Ignored.
        sample_weight : array_like, (rows,), optional
            Only for samples in memory.

        Raises
        ------
        DataError
            If lazy samples have weights, or are not rows of numbers.
        """
        if not is_lazy(X):
            fitted: Self = super().fit(X, y, sample_weight)
            return fitted
        if sample_weight is not None:
            raise DataError("sample_weight needs samples in memory; these are lazy, leave it out")
        self._reset()
        x = as_dask(X)
        for block in x.blocks:
            self.partial_fit(block.compute())
        check_columns(self, X, x.shape[1], reset=True)
        return self

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Scale samples (rows, features), whose columns are named and ordered as they were; lazy where X is."""
        if not is_lazy(X):
            return super().transform(X, copy)
        return self._mapped(X, "transform")

    def inverse_transform(self, X: Any, copy: bool | None = None) -> Any:
        """Undo `transform`; lazy where X is."""
        if not is_lazy(X):
            return super().inverse_transform(X, copy)
        return self._mapped(X, "inverse_transform")

    def _mapped(self, X: Any, name: str) -> da.Array:
        x = as_dask(X)
        check_is_fitted(self)
        if name == "transform":  # what comes back has no names
            check_columns(self, X, x.shape[1], reset=False)
        plain = preprocessing.StandardScaler(with_mean=self.with_mean, with_std=self.with_std)
        other = ("feature_names_in_", "_sklearn_output_config")
        plain.__dict__ |= {key: value for key, value in self.__dict__.items() if key not in other}
        plain.set_output(transform="default")  # of a block
        dtype = x.dtype if x.dtype in (np.float32, np.float16) else np.dtype(np.float64)
        return da.map_blocks(getattr(plain, name), x, dtype=dtype, meta=np.empty((0, 0), dtype))
