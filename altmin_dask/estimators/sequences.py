"""What the estimators of sequences share, whose samples have shape (steps, features)."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any, Self

import dask.array as da
import numpy as np
from scipy.sparse import issparse
from sklearn.utils import Tags
from sklearn.utils.validation import _check_feature_names, check_array, check_is_fitted

from altmin_dask.config import NetworkTable
from altmin_dask.config.messages import either
from altmin_dask.data.checks import check_finite
from altmin_dask.data.readers import unmasked
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.data.streams import along, mapped, shaped, sliced
from altmin_dask.data.zarr_reader import read_zarr
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.estimators.base import FLOATS, GIVEN, AltMinEstimator
from altmin_dask.estimators.explained import refuse_ragged, validated
from altmin_dask.estimators.forward import Forward, without_padding, zeroed
from altmin_dask.estimators.input import (
    as_lazy,
    as_rows,
    in_whole_rows,
    is_lazy,
    known,
    shaped_like,
)
from altmin_dask.estimators.order import check_order
from altmin_dask.estimators.parameters import choices, parameter, parametrized
from altmin_dask.estimators.ragged import (
    are_sequences,
    checked_lengths,
    filled,
    is_ragged,
    padded,
    padded_like,
    steps_there,
)
from altmin_dask.estimators.recent import everything
from altmin_dask.estimators.samples import Inputs, as_table, beside_of, is_frame, of_location, with_units
from altmin_dask.estimators.scaled import is_ready
from altmin_dask.estimators.settings import is_count, widths
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.network import Network
from altmin_dask.storage.locations import as_name
from altmin_dask.storage.model import Model
from altmin_dask.types import Array


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
    max_sweeps: float | None = None

    def _sequences(self, X: Any, lengths: Any, steps: int | None = None) -> tuple[Any, Any]:
        """Lists of sequences that need not be equally long as an array of so many steps, and lengths."""
        if self.steps is not None and not is_count(self.steps):
            raise ConfigError(f"steps = {self.steps!r}: give a whole number from 1 on, or None")
        check_order(X, lengths, "lengths")
        if isinstance(X, str | os.PathLike) or is_lazy(X):
            return X, lengths
        if issparse(X):
            check_array(X)  # which says that they have to be dense
        if is_ragged(X):
            if lengths is not None:
                raise DataError("lengths are those of the sequences in the list; leave them out")
            if self.steps is None and all(np.ndim(row) == 1 for row in X):
                raise DataError(
                    "X is a list of rows of numbers; each sequence is an array (steps, features): make [[1], [2]] of "
                    "[1, 2], or set steps"
                )
            return padded(X, self.steps or steps)
        unlike = are_sequences(X) and len({np.shape(row)[1] for row in X}) > 1
        if lengths is None and are_sequences(X) and (self._has_lengths or unlike):
            return padded(X, self.steps or steps)
        return X if hasattr(X, "ndim") or is_frame(X) else np.asarray(X), lengths

    def _steps_of(self, shape: tuple[int, ...], *, reset: bool) -> int:
        """Steps of samples of a shape, (rows, …), whose features are those that were fitted."""
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
        values = prod(shape[1:])
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
        return steps

    def _fit_sequences(
        self, X: Any, y: Any, lengths: Any, sample_weight: Any, *, partial: bool = False
    ) -> Self:
        with self._as_before_unless_done():
            begun = partial and hasattr(self, "model_")
            X, self._given_lengths = self._sequences(X, lengths, self.n_steps_in_ if begun else None)
            if is_ragged(y) and self._given_lengths is not None:
                steps = X.shape[1]
                y = padded_like(y, steps, checked_lengths(self._given_lengths, steps, X.shape[0]))
            self._fit(X, y, sample_weight, partial=partial)
            del self._given_lengths
        return self

    def _learn_features(self, X: Any, features: int, *, reset: bool) -> None:
        """Of sequences the steps may differ, and `_steps_of` looks at the features of a step."""
        if reset:
            super()._learn_features(X, features, reset=True)
        elif is_frame(X) or getattr(X, "ndim", None) == 2:
            _check_feature_names(self, getattr(X, "_meta", X), reset=False)

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        """Targets may have more dimensions than those that scikit-learn checks."""
        if y is None:
            raise DataError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        steps, shape = self._steps_of(X.shape, reset=reset), X.shape
        refuse_ragged(y)
        lengths = self._given_lengths
        y = np.asarray(unmasked(y, "y"))
        if lengths is not None:
            unmasked(X, "X")
            lengths = self._given_lengths = checked_lengths(lengths, steps, len(X))
            X = _without_padding(X, steps, lengths)
            y = filled(y, lengths) if self._at_every_step(y.shape, steps) else y
        X = as_rows(X)
        self._check_numbers(X, y)
        x = validated(self, X, dtype=FLOATS, ensure_min_samples=least, reset=reset)
        values = y
        if values.dtype.kind == "O" and self._checks.get("y_numeric"):
            values = np.asarray(
                check_array(values, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
            )
        if values.dtype.kind == "f":
            check_finite(x, values, 0, GIVEN)
        weights = None if sample_weight is None else self._weights(sample_weight, len(x))
        return Source(GIVEN, shaped(array_source(x).x, shape[1:]), sliced(values, "y"), weights=weights)

    @abstractmethod
    def _at_every_step(self, shape: tuple[int, ...], steps: int) -> bool:
        """Whether targets of a shape, (rows, …), are one for every step."""

    def _with_targets(self, source: Source, begun: bool) -> Source:
        """The source with samples of shape (steps, features), and their lengths beside them."""
        steps = self._steps_of(source.x.shape, reset=not begun)
        beside = dict(source.sequence_arrays)
        if self._given_lengths is not None:
            lengths = checked_lengths(self._given_lengths, steps, source.rows)
            beside["lengths"] = sliced(lengths, "lengths")
            every = source.y is not None and self._at_every_step(source.y.shape, steps)
            y = along(source.y, lengths, filled) if every and source.y is not None else source.y
            x = shaped(source.x, (steps, self.n_step_features_in_))
            source = replace(source, x=along(x, lengths, zeroed), y=y, sequence_arrays=beside)
        if not begun:
            self._has_lengths = "lengths" in beside
        elif self._has_lengths != ("lengths" in beside):
            raise DataError(
                "lengths were given before or are given now, and not both; give them in every call"
            )
        source = super()._with_targets(source, begun)
        if source.x_shape == (steps, self.n_step_features_in_):
            return source
        return replace(source, x=shaped(source.x, (steps, self.n_step_features_in_)))

    def _network(self) -> dict[str, Any]:
        return {
            **super()._network(),
            "head_layer_sizes": widths(self.head_layer_sizes),
            "recurrent_initialization": self.recurrent_initialization,
        }

    def _shape(self, model: Model) -> tuple[int, ...]:
        return model.sample_shape

    def _sequences_to_predict(self, X: Any, lengths: Any) -> tuple[Inputs, int]:
        """Samples with their lengths, and the number of their steps."""
        check_is_fitted(self)
        if isinstance(X, Inputs):
            return X, self._steps_of(tuple(X.x.shape), reset=False)
        X, lengths = self._sequences(X, lengths)
        if isinstance(X, str | os.PathLike):
            samples = of_location(as_name(X), self.model_, self._numbers)
        elif (table := as_table(self, X)) is not None:
            samples = table
        else:
            lazy = is_lazy(X)
            ready = lazy and is_ready(X, self.model_, self._numbers)
            samples = Inputs(in_whole_rows(X) if lazy else X, ready)
            self._learn_features(X, prod(samples.shape), reset=False)
        steps = self._steps_of(tuple(samples.x.shape), reset=False)
        beside = dict(samples.beside)
        if (lengths := beside.get("lengths") if lengths is None else lengths) is not None:
            rows = known(samples.x).shape[0] if isinstance(samples.x, da.Array) else samples.x.shape[0]
            beside["lengths"] = checked_lengths(lengths, steps, rows)
            if isinstance(samples.x, da.Array):
                samples = replace(samples, x=known(samples.x))
        if self._has_lengths and "lengths" not in beside:
            raise DataError(
                f"this {type(self).__name__} was fitted with lengths; give lengths, how many steps there are of every "
                "sequence, here too"
            )
        if not samples.lazy:
            x = as_rows(samples.x)
            if "lengths" in beside:
                x = without_padding(np.asarray(x), beside["lengths"], self._network_of(steps))
            samples = replace(samples, x=self._checked_rows(x))
            if "lengths" not in beside:  # or the zeros behind an end would count
                with_units(samples, self.model_)
        return replace(samples, beside=beside), steps

    def _network_of(self, steps: int) -> Network:
        return self._fitted.network.with_steps(steps)

    def _outputs(self, X: Any, lengths: Any, **options: Any) -> Any:
        samples, steps = self._sequences_to_predict(X, lengths)
        return samples.outputs(self._forward(steps, **options))

    def _forward(self, steps: int, **options: Any) -> Forward:
        """The network for sequences of some steps."""
        model = self._fitted
        prepare = model.prepare if model.prepares else None
        undo = model.output_scaling
        return Forward(self._network_of(steps), model.weights, prepare=prepare, undo=undo, **options)

    def _checked_rows(self, rows: Any) -> Array:
        self._check_numbers(rows)
        checked: Array = check_array(rows, dtype=FLOATS)
        return checked

    def _compared(
        self, X: Any, y: Any, lengths: Any, sample_weight: Any, **options: Any
    ) -> tuple[Array, Array, Array | None]:
        """Targets, predictions and weights, of all steps that are there where there are targets at every step."""
        check_order(X, y, "y")
        samples, steps = self._sequences_to_predict(X, lengths)
        predicted = np.asarray(samples.outputs(self._forward(steps, **options)))
        if y is None:
            if samples.y is None:
                raise DataError("there are no targets y to compare predictions with; give them")
            y = np.concatenate([np.asarray(block) for block in samples.y.blocks(1 << 14)])
        if is_ragged(y):
            lengths = samples.beside.get("lengths")
            y = padded(y, steps)[0] if lengths is None else padded_like(y, steps, lengths)
        y = np.asarray(unmasked(y, "y"))
        weights = None if sample_weight is None else everything(self._weights(sample_weight, len(predicted)))
        if len(y) != len(predicted):
            raise DataError(
                f"X has {len(predicted)} rows and y has {len(y)}; give those that belong together"
            )
        y = shaped_like(y, predicted.shape)
        if self._every:
            there = samples.beside.get("lengths")
            if weights is not None:
                weights = steps_there(np.repeat(weights[:, None], steps, axis=1), there)
            y, predicted = steps_there(y, there), steps_there(predicted, there)
        return y, predicted, weights

    def _of_training(self, store: SampleStore) -> Inputs:
        """Samples of a store that training wrote, prepared."""
        beside = beside_of(store)
        assert store.y is not None
        y, how = read_zarr(store.y, "y"), self.model_.preparation
        if how is not None and how.y is not None and y.dtype.kind == "f":
            y = mapped(y, how.y.undo, np.float64)
        return Inputs(as_lazy(store.x), True, beside, y)

    def _saved(self) -> dict[str, Any]:
        return {
            "steps": self.n_steps_in_,
            "step_features": self.n_step_features_in_,
            "lengths": self._has_lengths,
        }

    def _from_model(self) -> dict[str, Any]:
        network = self.model_.network
        assert network.sequence_steps is not None
        return {"steps": network.sequence_steps, "step_features": network.sizes[0] // network.sequence_steps}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        self.n_steps_in_, self.n_step_features_in_ = int(saved["steps"]), int(saved["step_features"])
        if len(self.model_.sample_shape) == 1:  # of a run on a table, whose rows are sequences
            self.steps = self.n_steps_in_
        self._has_lengths = bool(saved.get("lengths", False))

    @property
    def _every(self) -> bool:
        """Whether there are outputs at every step."""
        return self._fitted.network.every

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags


def _without_padding(X: Any, steps: int, lengths: Array) -> Any:
    """Samples in memory as rows with zeros behind the ends of sequences; a frame keeps its columns."""
    rows = as_rows(zeroed(np.asarray(X).reshape(len(X), steps, -1), lengths))
    if not is_frame(X):
        return rows
    names = "columns" if hasattr(X, "iloc") else "schema"  # of pandas, or polars
    return type(X)(rows, **{names: list(X.columns)})
