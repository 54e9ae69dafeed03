"""Estimators of sequences: a recurrent network that reads samples of shape (steps, features)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.delayed import delayed
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, validate_data

from altmin_dask.data.checks import check_finite, check_whole
from altmin_dask.data.conversion import real
from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.data.streams import mapped, sliced
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.estimators.base import FLOATS, GIVEN, AltMinEstimator
from altmin_dask.estimators.input import as_dask, is_lazy
from altmin_dask.execution.blas import single_threaded_blas
from altmin_dask.networks.network import Network
from altmin_dask.storage.model import Model
from altmin_dask.types import Array, Batch

STRIP_ROWS = 1024
"""Sequences in memory go through the network so many at a time."""


@dataclass(frozen=True, eq=False)
class SequenceForward:
    """A trained recurrent network over sequences in memory, (rows, steps · features).

    Attributes
    ----------
    model : Model
        With its weights.
    steps : int
        Of these sequences.
    flat : bool
        Give the only output without a dimension of its own.
    classes : ndarray or None
        Give the name of the largest output.
    """

    model: Model
    steps: int
    flat: bool = False
    classes: Array | None = None

    @property
    def network(self) -> Network:
        """The network for sequences of these steps."""
        return self.model.network.with_steps(self.steps)

    @property
    def meta(self) -> Array:
        """An empty result."""
        network = self.network
        shape: tuple[int, ...] = (0, self.steps) if network.every else (0,)
        if self.classes is not None:
            return np.empty(shape, self.classes.dtype)
        return np.empty(
            shape if self.flat else (*shape, network.layers[-1].units), self.model.weights[0].dtype
        )

    def __call__(self, x: Array, lengths: Array | None = None) -> Array:
        """Outputs for sequences in memory, and how many of their steps are there."""
        network, weights, meta = self.network, self.model.weights, self.meta
        batch, starts = Batch(x, lengths=lengths), range(0, len(x), STRIP_ROWS)
        found = [network.predict(weights, batch.rows(slice(start, start + STRIP_ROWS))) for start in starts]
        values = np.concatenate(found) if found else np.empty((0, network.widths[-1]), meta.dtype)
        if self.classes is not None:
            values = self.classes[values.reshape(-1, network.layers[-1].units).argmax(axis=1)]
        return values.reshape(len(x), *meta.shape[1:])

    def lazily(self, x: da.Array) -> da.Array:
        """The same for a dask array in blocks of whole rows; the model is one node of the graph."""
        token = tokenize(self.steps, self.flat, self.classes, self.network.describe(), *self.model.weights)
        forward = delayed(self, name=f"altmin_model-{token}", traverse=False)
        meta = self.meta
        more = {1: {"drop_axis": 1}, 2: {}, 3: {"new_axis": 2}}[meta.ndim]
        return da.map_blocks(
            _block, x, forward=forward, name=f"altmin_predict-{tokenize(x.name, token)}", dtype=meta.dtype, meta=meta,
            chunks=(x.chunks[0], *((size,) for size in meta.shape[1:])), **more,
        )  # fmt: skip


def _block(x: Any, *, forward: SequenceForward) -> Array:
    values = np.asarray(x)
    if not np.isfinite(values).all():
        raise DataError("Input X contains NaN or infinity; repair those rows, or leave them out")
    check_whole(values, "X")
    with single_threaded_blas():
        return forward(values)


class RecurrentEstimator(AltMinEstimator):
    """What the estimators of sequences share; use one of them."""

    head_layer_sizes: int | tuple[int, ...]
    steps: int | None
    recurrent_initialization: str

    def _sequences(self, X: Any, *, reset: bool) -> tuple[Any, int]:
        """Samples as rows (rows, steps · features), and the number of steps."""
        if isinstance(X, str | os.PathLike):
            shape: tuple[int, ...] = SampleStore.open(X).x.shape
        else:
            X = X if hasattr(X, "ndim") else np.asarray(X)
            shape = X.shape
        if len(shape) == 2 and self.steps is None:
            raise DataError(
                f"X has shape {shape}, which are no sequences; give X of shape (rows, steps, features), or set steps"
            )
        if len(shape) not in (2, 3) or (len(shape) == 3 and 0 in shape[1:]):
            raise DataError(
                f"X has shape {shape}; Reshape your data to sequences of shape (rows, steps, features)"
            )
        steps = self.steps if len(shape) == 2 else shape[1]
        assert steps is not None
        values = int(np.prod(shape[1:]))
        if values % steps:
            raise ConfigError(f"steps = {steps} does not divide the {values} values of a sample")
        features = values // steps
        if reset:
            self.n_steps_in_, self.n_step_features_in_ = steps, features
        elif features != self.n_step_features_in_ and len(shape) == 2:
            raise DataError(
                f"X has {values} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input"
            )
        elif features != self.n_step_features_in_:
            raise DataError(
                f"X has {features} features in a step, but {type(self).__name__} is expecting "
                f"{self.n_step_features_in_} features as input"
            )
        if len(shape) == 3 and not isinstance(X, str | os.PathLike):
            X = X.reshape(shape[0], values)
        return X, steps

    def _fit_sequences(self, X: Any, y: Any, lengths: Any) -> Self:
        rows, steps = self._sequences(X, reset=True)
        self._given_lengths = None if lengths is None else _checked_lengths(lengths, steps)
        try:
            return self._fit(rows, y)
        finally:
            del self._given_lengths

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        """Targets may have more dimensions than those that scikit-learn checks."""
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        self._check_numbers(X, y)
        x = validate_data(self, X, dtype=FLOATS, ensure_min_samples=least, reset=reset)
        values = np.asarray(y)
        if values.dtype.kind == "O" and self._kind == "recurrent_regressor":
            values = np.asarray(
                check_array(values, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
            )
        if values.dtype.kind == "f":
            check_finite(x, values, 0, GIVEN)
        return Source(GIVEN, array_source(x).x, sliced(values, "y"))

    def _with_targets(self, source: Source, begun: bool) -> Source:
        """The source with samples of shape (steps, features), and their lengths beside them."""
        source = super()._with_targets(source, begun)
        x, shape = source.x, (self.n_steps_in_, self.n_step_features_in_)
        shaped = mapped(x, lambda block: block.reshape(len(block), *shape), x.dtype)
        beside = dict(source.sequence_arrays)
        if self._given_lengths is not None:
            beside["lengths"] = sliced(self._given_lengths, "lengths")
        return replace(source, x=replace(shaped, shape=(source.rows, *shape)), sequence_arrays=beside)

    def _network(self) -> dict[str, Any]:
        head: Any = self.head_layer_sizes
        return {
            "head_layer_sizes": (head,) if np.ndim(head) == 0 else tuple(head),
            "recurrent_initialization": self.recurrent_initialization,
        }

    def _outputs(self, X: Any, lengths: Any, **options: Any) -> Any:
        model = self._fitted
        rows, steps = self._sequences(X, reset=False)
        forward = SequenceForward(model, steps, **options)
        if is_lazy(rows):
            if lengths is not None:
                raise DataError(
                    "lengths need sequences in memory; these are lazy: give a store with lengths in it"
                )
            return forward.lazily(as_dask(rows))
        values = self._checked_rows(rows)
        if lengths is None:
            return forward(values)
        checked = _checked_lengths(lengths, steps)
        if len(checked) != len(values):
            raise DataError(f"X has {len(values)} rows and lengths has {len(checked)}; give one for each")
        return forward(values, checked)

    def _checked_rows(self, rows: Any) -> Array:
        self._check_numbers(rows)
        checked: Array = check_array(rows, dtype=FLOATS)
        return checked

    def _of_store(self, store: SampleStore, **options: Any) -> tuple[Array, Array | None, Array]:
        """Targets, lengths and predictions of all samples of a store, whose inputs are read chunk by chunk."""
        lengths = store.sequence_arrays.get("lengths")
        forward = SequenceForward(self._fitted, self.n_steps_in_, **options)
        found = []
        for start in range(0, store.rows, store.chunk_rows):
            rows = slice(start, start + store.chunk_rows)
            x = np.asarray(store.x[rows]).reshape(-1, store.features)
            found.append(forward(x, None if lengths is None else np.asarray(lengths[rows])))
        assert store.y is not None
        return (
            np.asarray(store.y[:]),
            None if lengths is None else np.asarray(lengths[:]),
            np.concatenate(found),
        )

    def _saved(self) -> dict[str, Any]:
        return {"steps": self.n_steps_in_, "step_features": self.n_step_features_in_}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.n_steps_in_, self.n_step_features_in_ = int(saved["steps"]), int(saved["step_features"])

    @property
    def _every(self) -> bool:
        return self._fitted.network.every


def _checked_lengths(lengths: Any, steps: int) -> Array:
    values = np.asarray(lengths)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"lengths have shape {values.shape} and dtype {values.dtype}; give one whole number for each row"
        )
    if ((values < 1) | (values > steps)).any():
        raise DataError(
            f"lengths are from {values.min()} to {values.max()}; sequences have 1 to {steps} steps here"
        )
    return values.astype(np.int64)


def _steps_there(values: Array, lengths: Any) -> Array:
    """Values of all steps that are there, (steps in all, …), of values (rows, steps, …)."""
    if lengths is None:
        return values.reshape(-1, *values.shape[2:])
    found: Array = values[np.arange(values.shape[1]) < np.asarray(lengths)[:, None]]
    return found


class AltMinRecurrentClassifier(ClassifierMixin, RecurrentEstimator):  # type: ignore[misc]
    """Classifier of sequences, or of every step of them, by a recurrent network trained by alternating minimisation.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int
        Widths of the recurrent layers.
    activation : str or tuple of str
        Of all hidden layers, or of each, recurrent ones first.
    head_layer_sizes : int or tuple of int
        Widths of hidden layers on top of them.
    steps : int, optional
        Time steps of a sample where X is (rows, values); not needed where it is (rows, steps, features).
    recurrent_initialization : {"auto", "orthogonal", "identity"}
        What V_i are at first; "auto" is the identity for rectifiers.
    penalty, mu, ridge, proximal, schedule, max_sweeps, early_stopping, validation_fraction, n_iter_no_change, tol, \
warm_start, chunk_rows, group_chunks, max_staleness, dtype, random_state, scheduler, workers, temporary_folder, \
settings, verbose
        See `AltMinEstimator`. A step is made of about 1,000 sequences.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted, of whatever type.
    n_steps_in_, n_step_features_in_ : int
        Steps of the sequences trained on, and features of a step.
    model_, history_, loss_curve_, best_loss_, best_validation_score_, n_iter_
        As those of `AltMinAutoencoder`; scores are accuracies.

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

    _kind = "recurrent_classifier"
    classes_: Array

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (100,),
        activation: str | tuple[str, ...] = "tanh",
        *,
        head_layer_sizes: int | tuple[int, ...] = (),
        steps: int | None = None,
        recurrent_initialization: str = "auto",
        penalty: str = "l2",
        mu: Any = "auto",
        ridge: float = 0.3,
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
            hidden_layer_sizes, activation, penalty=penalty, mu=mu, ridge=ridge, proximal=proximal, schedule=schedule,
            max_sweeps=max_sweeps, early_stopping=early_stopping, validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change, tol=tol, warm_start=warm_start, chunk_rows=chunk_rows,
            group_chunks=group_chunks, max_staleness=max_staleness, dtype=dtype, random_state=random_state,
            scheduler=scheduler, workers=workers, temporary_folder=temporary_folder, settings=settings, verbose=verbose,
        )  # fmt: skip
        self.head_layer_sizes = head_layer_sizes
        self.steps = steps
        self.recurrent_initialization = recurrent_initialization

    def fit(self, X: Any, y: Any = None, lengths: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array_like, dask array, zarr.Array, path or URL
            Sequences (rows, steps, features), or (rows, steps · features) if `steps` is given.
        y : array_like, dask array, zarr.Array
            Labels (rows,), or one for every step, (rows, steps). None only if X is the path of a store with labels.
        lengths : array_like of int, (rows,), optional
            How many steps of each sequence there are; what follows is padding.

        Raises
        ------
        DataError
            If sequences, labels or lengths cannot be used.
        ConfigError
            If a parameter cannot.
        RunError
            If training diverges.
        """
        return self._fit_sequences(X, y, lengths)

    def predict(self, X: Any, lengths: Any = None) -> Any:
        """Labels (rows,), or (rows, steps); lazy where X is a dask array, zarr or a path."""
        return self._outputs(X, lengths, classes=getattr(self, "classes_", None))

    def predict_proba(self, X: Any, lengths: Any = None) -> Any:
        """Probabilities of `classes_`, (rows, classes) or (rows, steps, classes); lazy as `predict` is."""
        return self._outputs(X, lengths)

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        """Share of labels that are predicted, of all steps that are there."""
        hits = np.asarray(self.predict(X, lengths)) == np.asarray(y)
        if self._every:
            if sample_weight is not None:
                raise DataError("sample_weight is for sequences of one label; leave it out")
            return float(_steps_there(hits, lengths).mean())
        return float(np.average(hits, weights=sample_weight))

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        if len(y.shape) not in (1, 2) or (len(y.shape) == 2 and y.shape[1] != self.n_steps_in_):
            raise DataError(
                f"y has shape {y.shape}; give labels of shape (rows,), or (rows, {self.n_steps_in_}) for every step"
            )
        found = None
        for block in y.blocks(1 << 16):
            own = np.unique(block)
            found = own if found is None else np.union1d(found, own)
        assert found is not None
        check_classification_targets(found)
        if len(found) < 2:
            raise DataError(f"y has only one class, {found.tolist()[0]!r}; a classifier needs at least two")
        if self.warm_start and hasattr(self, "model_") and not np.array_equal(found, self.classes_):
            raise DataError(
                f"warm_start goes on with the classes {self.classes_.tolist()}, and y has {found.tolist()}"
            )
        self.classes_ = classes = found
        return mapped(y, lambda block: np.asarray(np.searchsorted(classes, block)), np.int64)

    def _network(self) -> dict[str, Any]:
        return {**super()._network(), "classes": len(self.classes_)}

    def _score_of(self, store: SampleStore) -> float:
        y, lengths, codes = self._of_store(store, classes=np.arange(len(self.classes_)))
        hits = codes == y
        return float(_steps_there(hits, lengths).mean() if self._every else hits.mean())

    def _saved(self) -> dict[str, Any]:
        return {
            **super()._saved(),
            "classes": self.classes_.tolist(),
            "classes_dtype": self.classes_.dtype.str,
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        super()._restore(saved)
        self.classes_ = np.array(saved["classes"], dtype=np.dtype(saved["classes_dtype"]))


class AltMinRecurrentRegressor(RegressorMixin, RecurrentEstimator):  # type: ignore[misc]
    """Regressor of sequences, or of every step of them, by a recurrent network trained by alternating minimisation.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int
        Widths of the recurrent layers.
    activation : str or tuple of str
        Of all hidden layers, or of each, recurrent ones first.
    head_layer_sizes : int or tuple of int
        Widths of hidden layers on top of them.
    steps : int, optional
        Time steps of a sample where X is (rows, values); not needed where it is (rows, steps, features).
    recurrent_initialization : {"auto", "orthogonal", "identity"}
        What V_i are at first; "auto" is the identity for rectifiers.
    output_activation : str, optional
        None is "identity"; "sigmoid" for targets in [0, 1].
    penalty, mu, ridge, proximal, schedule, max_sweeps, early_stopping, validation_fraction, n_iter_no_change, tol, \
warm_start, chunk_rows, group_chunks, max_staleness, dtype, random_state, scheduler, workers, temporary_folder, \
settings, verbose
        See `AltMinEstimator`. A step is made of about 1,000 sequences.

    Attributes
    ----------
    n_outputs_ : int
        Targets of a sequence, or of a step.
    n_steps_in_, n_step_features_in_ : int
        Steps of the sequences trained on, and features of a step.
    model_, history_, loss_curve_, best_loss_, best_validation_score_, n_iter_
        As those of `AltMinAutoencoder`; scores are R².

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
    n_outputs_: int
    _flat: bool
    _checks = {"multi_output": True, "y_numeric": True}  # noqa: RUF012 - declared above

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (100,),
        activation: str | tuple[str, ...] = "tanh",
        *,
        head_layer_sizes: int | tuple[int, ...] = (),
        steps: int | None = None,
        recurrent_initialization: str = "auto",
        output_activation: str | None = None,
        penalty: str = "l2",
        mu: Any = "auto",
        ridge: float = 0.3,
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
            hidden_layer_sizes, activation, penalty=penalty, mu=mu, ridge=ridge, proximal=proximal, schedule=schedule,
            max_sweeps=max_sweeps, early_stopping=early_stopping, validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change, tol=tol, warm_start=warm_start, chunk_rows=chunk_rows,
            group_chunks=group_chunks, max_staleness=max_staleness, dtype=dtype, random_state=random_state,
            scheduler=scheduler, workers=workers, temporary_folder=temporary_folder, settings=settings, verbose=verbose,
        )  # fmt: skip
        self.head_layer_sizes = head_layer_sizes
        self.steps = steps
        self.recurrent_initialization = recurrent_initialization
        self.output_activation = output_activation

    def fit(self, X: Any, y: Any = None, lengths: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X, lengths : as of `AltMinRecurrentClassifier.fit`
            Sequences (rows, steps, features), and how many of the steps there are.
        y : array_like, dask array, zarr.Array
            Targets of the last step, (rows,) or (rows, outputs), or of every step, (rows, steps, outputs).
        """
        return self._fit_sequences(X, y, lengths)

    def predict(self, X: Any, lengths: Any = None) -> Any:
        """Targets, shaped as y was; lazy where X is a dask array, zarr or a path."""
        return self._outputs(X, lengths, flat=getattr(self, "_flat", False))

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        """R² of the predictions, over all steps that are there."""
        y, predicted = np.asarray(y), np.asarray(self.predict(X, lengths))
        if self._every:
            y, predicted = _steps_there(y, lengths), _steps_there(predicted, lengths)
        return float(r2_score(y, predicted, sample_weight=sample_weight))

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
        self.n_outputs_, self._flat = y.shape[-1] if len(y.shape) > 1 else 1, len(y.shape) == 1
        return y if y.dtype.kind == "f" else mapped(y, real, "float64")

    def _network(self) -> dict[str, Any]:
        return {**super()._network(), "output_activation": self.output_activation}

    def _score_of(self, store: SampleStore) -> float:
        y, lengths, predicted = self._of_store(store, flat=self._flat)
        if self._every:
            y, predicted = _steps_there(y, lengths), _steps_there(predicted, lengths)
        return float(r2_score(y, predicted))

    def _saved(self) -> dict[str, Any]:
        return {**super()._saved(), "outputs": self.n_outputs_, "flat": self._flat}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        super()._restore(saved)
        self.n_outputs_, self._flat = int(saved["outputs"]), bool(saved["flat"])
