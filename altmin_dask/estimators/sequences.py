"""What the estimators of sequences share, whose samples have shape (steps, features)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from altmin_dask.config import NetworkTable
from altmin_dask.config.messages import either
from altmin_dask.data.checks import check_finite
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.data.streams import shaped, sliced
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.estimators.base import FLOATS, GIVEN, AltMinEstimator
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_dask, is_lazy
from altmin_dask.estimators.parameters import choices, parameter, parametrized
from altmin_dask.estimators.settings import widths
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.storage.model import Model
from altmin_dask.types import Array


def checked_lengths(lengths: Any, steps: int) -> Array:
    """How many steps there are of each sequence.

    Raises
    ------
    DataError
        If they are not whole numbers from 1 to `steps`.
    """
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


def steps_there(values: Array, lengths: Any) -> Array:
    """Values of all steps that are there, (steps in all, …), of values (rows, steps, …)."""
    if lengths is None:
        return values.reshape(-1, *values.shape[2:])
    found: Array = values[np.arange(values.shape[1]) < np.asarray(lengths)[:, None]]
    return found


@parametrized
class RecurrentEstimator(AltMinEstimator):
    """An estimator that sees a sample as a sequence; use one of its subclasses."""

    hidden_layer_sizes: int | tuple[int, ...] = parameter(
        "Widths of the recurrent layers.", default=(100,), kw_only=False
    )
    activation: str | tuple[str, ...] = parameter(
        f"Of all hidden layers, or of each, recurrent ones first: {either(ACTIVATIONS)}.",
        default="tanh",
        kw_only=False,
    )
    head_layer_sizes: int | tuple[int, ...] = parameter(
        "Widths of hidden layers on top of the recurrent ones.", default=()
    )
    steps: int | None = parameter(
        "Time steps of a sample where X is (rows, values); not needed where it is (rows, steps, features).",
        default=None,
    )
    recurrent_initialization: str = parameter(
        f"What V_i are at first: {choices(NetworkTable, 'recurrent_initialization')}; "
        "'auto' is the identity for rectifiers, and orthogonal elsewhere.",
        default="auto",
    )
    ridge: float = 0.3
    max_sweeps: float | None = None

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
        with self._as_before_unless_done():
            rows, steps = self._sequences(X, reset=True)
            self._given_lengths = None if lengths is None else checked_lengths(lengths, steps)
            self._fit(rows, y)
            del self._given_lengths
        return self

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        """Targets may have more dimensions than those that scikit-learn checks."""
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        self._check_numbers(X, y)
        x = validate_data(self, X, dtype=FLOATS, ensure_min_samples=least, reset=reset)
        values = np.asarray(y)
        if values.dtype.kind == "O" and self._checks.get("y_numeric"):
            values = np.asarray(
                check_array(values, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
            )
        if values.dtype.kind == "f":
            check_finite(x, values, 0, GIVEN)
        return Source(GIVEN, array_source(x).x, sliced(values, "y"))

    def _with_targets(self, source: Source, begun: bool) -> Source:
        """The source with samples of shape (steps, features), and their lengths beside them."""
        source = super()._with_targets(source, begun)
        x = shaped(source.x, (self.n_steps_in_, self.n_step_features_in_))
        beside = dict(source.sequence_arrays)
        if self._given_lengths is not None:
            beside["lengths"] = sliced(self._given_lengths, "lengths")
        return replace(source, x=x, sequence_arrays=beside)

    def _network(self) -> dict[str, Any]:
        return {
            "head_layer_sizes": widths(self.head_layer_sizes),
            "recurrent_initialization": self.recurrent_initialization,
        }

    def _shape(self, model: Model) -> tuple[int, ...]:
        return model.sample_shape

    def _forward(self, steps: int, **options: Any) -> Forward:
        """The network for sequences of some steps."""
        model = self._fitted
        return Forward(model.network.with_steps(steps), model.weights, **options)

    def _outputs(self, X: Any, lengths: Any, **options: Any) -> Any:
        check_is_fitted(self)
        rows, steps = self._sequences(X, reset=False)
        forward = self._forward(steps, **options)
        if is_lazy(rows):
            if lengths is not None:
                raise DataError(
                    "lengths need sequences in memory; these are lazy: give a store with lengths in it"
                )
            return forward.lazily(as_dask(rows))
        values = self._checked_rows(rows)
        if lengths is None:
            return forward(values)
        checked = checked_lengths(lengths, steps)
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
        forward = self._forward(self.n_steps_in_, **options)
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
        """Whether there are outputs at every step."""
        return self._fitted.network.every
