"""The auto-encoder: a transformer that can be undone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import dask.array as da
import numpy as np
from dask.delayed import delayed
from scipy.sparse import issparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.data.splitting import PIECE
from altmin_dask.errors import DataError
from altmin_dask.estimators.base import FLOATS, GIVEN, SPARSE
from altmin_dask.estimators.containers import lazy_stays_lazy
from altmin_dask.estimators.dense import DenseEstimator
from altmin_dask.estimators.explained import validated
from altmin_dask.estimators.input import as_dask, as_rows, is_lazy, known, read_sparse
from altmin_dask.estimators.order import check_order
from altmin_dask.estimators.parameters import LossParameters, parameter, parametrized
from altmin_dask.estimators.samples import Inputs
from altmin_dask.estimators.scoring import lazy_r2


@lazy_stays_lazy
@parametrized
class AltMinAutoencoder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    DenseEstimator,
    LossParameters,
):
    """Auto-encoder trained by alternating minimisation, out of core where the samples are.

    Samples x (rows, features) are encoded by the layers up to the narrowest hidden one, and decoded by those above.

    Parameters
    ----------
    %(parameters)s

    Attributes
    ----------
    %(attributes)s

    Notes
    -----
    Like scikit-learn's transformers, it takes no weights of samples.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from altmin_dask import AltMinAutoencoder
    >>> x = load_digits().data[:500] / 16
    >>> autoencoder = AltMinAutoencoder(8, output_activation="sigmoid", max_sweeps=30, random_state=0).fit(x)
    >>> autoencoder.transform(x).shape
    (500, 8)
    >>> autoencoder.reconstruct(x).shape
    (500, 64)
    >>> autoencoder.score(x) > 0.6
    True
    """

    hidden_layer_sizes: int | tuple[int, ...] = parameter(
        "Widths of the hidden layers; `transform` gives the values of the narrowest (the first of these, if several).",
        default=(32,),
        kw_only=False,
    )
    activation: str | tuple[str, ...] = parameter(default="sigmoid", kw_only=False)
    max_sweeps: float | None = None

    _kind = "autoencoder"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, frame, dask array or frame, zarr.Array, path or URL
            Samples (rows, features). What is lazy is written, block by block, to a store that is there while training
            goes on; a sample store itself is trained on where it is.
        y : None
            Ignored, but for that it is refused beside a store whose rows are shuffled.

        Returns
        -------
        self

        Raises
        ------
        DataError
            If the samples cannot be used.
        ConfigError
            If a parameter cannot.
        RunError
            If training diverges.
        """
        check_order(X, y, "y")  # which goes on to what stands behind it in a pipeline
        return self._fit(X, None)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on with one pass over some more samples; arguments as of `fit`.

        Curvature, mean weights and the last 256 samples, of which a step is made where a call brings fewer, are
        remembered from call to call, though not by `save`. Nothing is held out.
        """
        check_order(X, y, "y")
        return self._fit(X, None, partial=True)

    def transform(self, X: Any) -> Any:
        """Encode.

        Parameters
        ----------
        X : as in `fit`
            Samples (rows, features).

        Returns
        -------
        ndarray or dask array
            Values of the narrowest layer, (rows, code); lazy where X is a dask collection, zarr or a path.
        """
        return self._predict(X, self._forward(last=self._code_layer, whole=True))

    def inverse_transform(self, X: Any) -> Any:
        """Decode what `transform` gave: codes (rows, code) to samples (rows, features)."""
        forward = self._forward(first=self._code_layer)
        lazy = is_lazy(X)
        codes: Any = as_dask(X) if lazy else check_array(X, dtype=FLOATS)
        if codes.shape[1] != self._n_features_out:
            raise DataError(
                f"X has {codes.shape[1]} features, but the codes of this {type(self).__name__} have "
                f"{self._n_features_out}; give what transform returned"
            )
        return forward.lazily(codes) if lazy else forward(codes)

    def reconstruct(self, X: Any) -> Any:
        """Encode and decode: samples (rows, features) to what the network makes of them, of the same shape."""
        return self._predict(X, self._forward())

    def score(self, X: Any, y: Any = None) -> float:
        """Share of the samples' variance that reconstructions explain, 1 − Σ ‖x − x̂‖² / Σ ‖x − x̄‖².

        Parameters
        ----------
        X : as in `fit`
            Samples (rows, features).
        y : None
            Ignored.
        """
        return self._score_on(self._opened(X))

    def _score_on(self, samples: Inputs) -> float:
        if not samples.lazy:
            samples = replace(samples, x=_in_blocks(samples.x))
        given, reconstructed = samples.as_targets(self._fitted), samples.outputs(self._forward())
        if np.isnan(given.shape[0]):
            given, reconstructed = known(given), known(reconstructed)
        return lazy_r2(given.rechunk({0: reconstructed.chunks[0]}), reconstructed, weighted=True)

    @property
    def _code_layer(self) -> int:
        return 1 + int(np.argmin(self._fitted.network.widths[:-1]))

    @property
    def _n_features_out(self) -> int:
        return self._fitted.network.widths[self._code_layer - 1]

    def _network(self) -> dict[str, Any]:
        hidden = "hidden_layer_sizes" if self.layers is None else "layers"
        if np.size(getattr(self, hidden)) == 0:
            raise DataError(f"{hidden} is empty; an auto-encoder needs a hidden layer to encode in")
        output = self.output_activation
        if output is None and self.loss == "squared":
            output = "identity"
        return {**super()._network(), "output_activation": output, "loss": self.loss}

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        self._check_numbers(X)
        x = validated(self, as_rows(X), dtype=FLOATS, ensure_min_samples=least, reset=reset, **SPARSE)
        if issparse(x):
            return Source(GIVEN, read_sparse(x))
        return self._shaped(array_source(x, name=GIVEN), X)

    def _with_targets(self, source: Source, begun: bool) -> Source:
        """Samples are their own targets."""
        return source

    def _score_of(self, store: SampleStore) -> float:
        return self._score_on(self._of_training(store))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if self.dtype == "auto":
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        else:
            tags.transformer_tags.preserves_dtype = []
        return tags


def _in_blocks(x: Any) -> da.Array:
    """Samples in memory as a dask array, of which sparse ones are made dense block by block."""
    if not issparse(x):
        return da.from_array(x, chunks=(max(1, len(x)), *x.shape[1:]))
    starts = range(0, x.shape[0], PIECE)
    blocks = (delayed(x[start : start + PIECE].toarray)() for start in starts)
    shapes = ((min(PIECE, x.shape[0] - start), x.shape[1]) for start in starts)
    return da.concatenate(
        [da.from_delayed(block, shape, x.dtype) for block, shape in zip(blocks, shapes, strict=True)]
    )
