"""The auto-encoder: a transformer that can be undone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_array

from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import DataError
from altmin_dask.estimators.base import FLOATS, AltMinEstimator
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_dask, is_lazy, known
from altmin_dask.estimators.scoring import lazy_r2


class AltMinAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, AltMinEstimator):  # type: ignore[misc]
    """Auto-encoder trained by alternating minimisation, out of core where the samples are.

    Samples x (rows, features) are encoded by the layers up to the narrowest hidden one, and decoded by those above.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int
        Widths of the hidden layers; `transform` gives the values of the narrowest (the first of these, if several).
    output_activation : str, optional
        None is "identity" for the squared loss; "sigmoid" for samples in [0, 1].
    loss : {"squared", "binary_cross_entropy"}
        ½ ‖x̂ − x‖², or with sigmoid outputs the cross entropy, for samples in [0, 1].
    activation, initialization, penalty, mu, ridge, proximal, schedule, max_sweeps, early_stopping, \
validation_fraction, n_iter_no_change, tol, warm_start, chunk_rows, group_chunks, max_staleness, dtype, random_state, \
scheduler, workers, temporary_folder, settings, verbose
        See `AltMinEstimator`.

    Attributes
    ----------
    model_ : Model
        The network with its weights.
    coefs_, intercepts_ : list of ndarray
        Weights (inputs, outputs) and biases (outputs,) of every layer.
    history_ : list of dict
        All records of the run: losses, seconds, sweeps.
    loss_curve_ : list of float
        The loss of the samples trained on, from every record.
    best_loss_ : float
        The loss by which the model was chosen.
    best_validation_score_ : float or None
        Score of the samples held out, with `early_stopping`.
    n_iter_ : int
        Sweeps begun.
    n_features_in_ : int
        Features of a sample.
    feature_names_in_ : ndarray of str
        Their names, where X was a frame.

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

    _kind = "autoencoder"

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (32,),
        activation: str | tuple[str, ...] = "sigmoid",
        *,
        output_activation: str | None = None,
        loss: str = "squared",
        initialization: str = "auto",
        penalty: str = "l2",
        mu: Any = "auto",
        ridge: float = 0.005,
        proximal: float | None = None,
        schedule: str = "auto",
        max_sweeps: float | None = None,
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
        self.output_activation = output_activation
        self.loss = loss

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, frame, dask array or frame, zarr.Array, path or URL
            Samples (rows, features). What is lazy is written, block by block, to a store that is there while training
            goes on; a sample store itself is trained on where it is.
        y : None
            Ignored.

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
        return self._fit(X, None)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on with one pass over some more samples; arguments as of `fit`.

        Curvature and mean weights are remembered from call to call, though not by `save`. Nothing is held out.
        """
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
        return self._predict(X, Forward(self._fitted, 0, self._code_layer))

    def inverse_transform(self, X: Any) -> Any:
        """Decode what `transform` gave: codes (rows, code) to samples (rows, features)."""
        model = self._fitted
        forward = Forward(model, self._code_layer, len(model.network.widths))
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
        if is_lazy(X):
            samples = known(self._samples(X))
            return lazy_r2(samples, self._forward().lazily(samples), weighted=True)
        reconstructed = self.reconstruct(X)
        values = check_array(X, dtype=FLOATS)
        return float(r2_score(values, reconstructed, multioutput="variance_weighted"))

    @property
    def _code_layer(self) -> int:
        return 1 + int(np.argmin(self._fitted.network.widths[:-1]))

    @property
    def _n_features_out(self) -> int:
        return self._fitted.network.widths[self._code_layer - 1]

    def _network(self) -> dict[str, Any]:
        if np.size(self.hidden_layer_sizes) == 0:
            raise DataError("hidden_layer_sizes is empty; an auto-encoder needs a hidden layer to encode in")
        output = self.output_activation
        if output is None and self.loss == "squared":
            output = "identity"
        return {"output_activation": output, "loss": self.loss}

    def _score_of(self, store: SampleStore) -> float:
        return self.score(store.path)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if self.dtype == "auto":
            tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        else:
            tags.transformer_tags.preserves_dtype = []
        return tags
