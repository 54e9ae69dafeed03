"""What all estimators share: training by way of a temporary sample store, and what is kept of it."""

from __future__ import annotations

import functools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from math import prod
from numbers import Number
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted

from altmin_dask import runs
from altmin_dask.config import KINDS
from altmin_dask.data.ingest import ingest
from altmin_dask.data.readers import RowReader, unmasked
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.data.streams import sliced
from altmin_dask.errors import DataError
from altmin_dask.estimators import saving
from altmin_dask.estimators.explained import (
    in_own_words,
    nothing_kept,
    refuse_sequences,
    told,
    validated,
    without_targets,
)
from altmin_dask.estimators.home import temporary_home
from altmin_dask.estimators.input import (
    as_rows,
    check_columns,
    check_numbers,
    column_of,
    in_whole_rows,
    is_lazy,
    open_samples,
    plain_text,
    read_from,
    read_sparse,
    split,
)
from altmin_dask.estimators.order import store_at
from altmin_dask.estimators.parameters import Parameters
from altmin_dask.estimators.preparing import like_the_model, prepared_as
from altmin_dask.estimators.recent import everything, joined, recent
from altmin_dask.estimators.samples import Inputs, as_table, check_fits, named, of_location, with_units
from altmin_dask.estimators.scaled import Numbers, is_ready, trained_on
from altmin_dask.estimators.settings import (
    SHARING,
    chunk_rows_of,
    dtype_of,
    pipeline_of,
    place_of,
    share_held_out,
    told_settings,
)
from altmin_dask.estimators.watch import CallbackSupportMixin, FitCallbacks, Stop, with_callbacks
from altmin_dask.estimators.weighting import weighted
from altmin_dask.preparation import Preparation
from altmin_dask.solvers.kfac import REJECTED, Stream
from altmin_dask.storage.locations import as_name
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.training.kfac_training import KFACTrainingState
from altmin_dask.training.record import read_records
from altmin_dask.types import Array

GIVEN = "the given arrays"
FLOATS = (np.float64, np.float32)
SPARSE = {"accept_sparse": "csr"}
"""Sparse rows stay so, and are made dense a block at a time."""


class AltMinEstimator(CallbackSupportMixin, BaseEstimator, Parameters, ABC):  # type: ignore[misc]
    """Everything but what is trained on what; use one of the estimators.

    Of a sample store or table the model keeps how raw samples were prepared, and prepares others in the same way.
    """

    _given_lengths: Any = None  # of sequences, while they are trained on
    _has_lengths: bool = False
    _how: Preparation | None
    _scale: float
    _numbers: Numbers | None = None  # of arrays of a store
    _recent: dict[str, Array] | None
    _streamed_rows: int
    _kind: ClassVar[str]
    _checks: ClassVar[dict[str, Any]] = {}
    """More arguments of `validate_data` for samples and targets in memory."""
    model_: Model
    classes_: Array

    @property
    def coefs_(self) -> list[Array]:
        """Weights of every layer, (inputs, outputs), as scikit-learn's networks have them."""
        return [w[:, :-1].T for w in self._fitted.weights]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of every layer, (outputs,)."""
        return [w[:, -1] for w in self._fitted.weights]

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the fitted estimator to a folder of safetensors and JSON, which appears when it is complete.

        `altmin predict` and `altmin evaluate` take the folder in place of that of a run.

        Parameters
        ----------
        path : path
            The folder.
        overwrite : bool
            Replace a saved estimator that is there. Anything else is never replaced.

        Raises
        ------
        ExistsError
            If there is something that may not be replaced.
        """
        check_is_fitted(self)
        saving.save(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, or the model in the folder of a run; nothing is unpickled.

        Raises
        ------
        MissingError
            If there is no saved estimator.
        DataError
            If it is damaged, of a later version, or another kind of estimator.
        """
        return saving.load(cls, path)

    def to_torch(self) -> Any:
        """The network as a new ``torch.nn.Sequential`` of the same outputs, by its own copy of the weights.

        Raises
        ------
        MissingError
            If PyTorch is not installed.
        """
        from altmin_dask.export.torch import sequential

        return sequential(self._fitted)

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as an ONNX file of float32 (`altmin_dask.export.onnx.write_onnx`); may replace another one.

        Its input ``x`` are samples (rows, features); its outputs ``output`` (rows, outputs) and, of a classifier,
        ``label`` (rows,), an index into `classes_`, which are in the file's metadata ``classes``, too.

        Raises
        ------
        MissingError
            If the package onnx is not installed.
        """
        from altmin_dask.export.onnx import write_onnx

        classes = getattr(self, "classes_", None)
        write_onnx(self._fitted, path, None if classes is None else classes.tolist())

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @property
    def _fitted(self) -> Model:
        check_is_fitted(self)
        model: Model = self.model_
        return model

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, *, partial: bool = False) -> Self:
        """Train on all samples, or go on with one pass over some more of them."""
        with self._as_before_unless_done(), in_own_words(self):
            self._train(X, y, sample_weight, partial=partial)
        return self

    @contextmanager
    def _as_before_unless_done(self) -> Iterator[None]:
        """After an error nothing is of a training that did not end: the model and what is known of it stay together."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    @with_callbacks  # type: ignore[untyped-decorator]
    def _train(self, X: Any, y: Any, sample_weight: Any, *, partial: bool) -> None:
        begun = partial and hasattr(self, "model_")
        streamed: KFACTrainingState | None = getattr(self, "_streamed", None) if begun else None
        if streamed is None:
            self._recent, self._streamed_rows = None, getattr(self, "_trained_rows", 0) if begun else 0
        seed = self._seed() + (0 if streamed is None else streamed.kfac_state.steps)
        # its arrays change with every step, of which the last may be one that fails
        remembered = None if streamed is None else deepcopy(streamed.kfac_state)
        with temporary_home(self.temporary_folder) as home:
            train, validation = self._stores(X, y, sample_weight, home, seed, partial=partial, begun=begun)
            network = {
                "kind": self._kind,
                "dtype": dtype_of(self, train.x.dtype, begun=begun),
                **self._network(),
            }
            pipeline = pipeline_of(self, network, train, validation, seed=seed, partial=partial)
            run = RunFolder(home / "run")
            learnt = functools.partial(self._learnt, run)
            initial = self.model_.weights if self._goes_on(begun) else None
            watch = FitCallbacks(self, learnt, X, y, callbacks=not partial)
            with suppress(Stop), nothing_kept():
                runs.train(
                    pipeline,
                    run,
                    [watch],
                    scheduler=place_of(self.scheduler, train),
                    initial=initial if streamed is None else streamed.weights,
                    stream=Stream(self._streamed_rows, remembered) if partial else None,
                    first_loss=math.nan if initial is None else getattr(self, "_first_loss", math.nan),
                    log=told(run) if self.verbose else lambda line: None,
                    sharing=SHARING,
                    measured=False,
                    settings=told_settings(self),
                )
            found = learnt()
            if partial:
                self._recent = recent(train, self.__dict__.pop("_given_weights"))
                found = self._streaming(run, found, pipeline.training.averaging, begun)
            else:
                for name in ("_streamed", "_streamed_rows", "_recent"):
                    self.__dict__.pop(name, None)
                # more training goes on from here, whose damping is by what the loss was before all of it
                self._trained_rows, self._first_loss = train.rows, watch.first_loss
            for name, value in found.items():
                setattr(self, name, value)
            self.best_validation_score_ = None if validation is None else self._score_of(validation)
            watch.ended()

    def _goes_on(self, begun: bool) -> bool:
        """Whether training begins with the model that is there."""
        return begun or (self.warm_start and hasattr(self, "model_"))

    def _learnt(self, run: RunFolder) -> dict[str, Any]:
        """Fitted attributes as they would be if training ended now."""
        model, records = Model.load(run.model), read_records(run)
        losses = [record.nested_loss for record in records]
        held_out = [record.validation_loss for record in records if record.validation_loss is not None]
        return {
            "model_": replace(
                model, sample_shape=self._shape(model), scale=self._scale, preparation=prepared_as(self)
            ),
            "history_": [record.to_dict() for record in records],
            "loss_curve_": losses,
            "best_loss_": min(held_out or losses),
            "n_iter_": max(1, math.ceil(records[-1].sweep)),
        }

    def _streaming(
        self, run: RunFolder, found: dict[str, Any], averaging: float, begun: bool
    ) -> dict[str, Any]:
        """What is known after some more samples: the last weights in place of those best on them."""
        checkpoint = restore(run)
        assert checkpoint is not None
        state = cast(KFACTrainingState, checkpoint.algorithm_state)  # other schedules are refused
        self._streamed = state
        losses = [record["regularized_loss"] for record in found["history_"]]
        if losses[-1] > REJECTED * losses[0]:  # of the same samples
            state.weights = state.kfac_state.reject_step()
        # by which a step is judged next time, too: by its own samples, not by the loss of others
        state.kfac_state.loss_ema = math.nan
        weights = state.kfac_state.averaged(state.weights, averaging)
        before = (self.history_, self.loss_curve_, self.n_iter_) if begun else ([], [], 0)
        return {
            **found,
            "model_": replace(found["model_"], weights=weights),
            "history_": [*before[0], *found["history_"]],
            "loss_curve_": [*before[1], *found["loss_curve_"]],
            "n_iter_": before[2] + 1,
        }

    def _stores(
        self, X: Any, y: Any, sample_weight: Any, home: Path, seed: int, *, partial: bool, begun: bool
    ) -> tuple[SampleStore, SampleStore | None]:
        """The samples as stores: the user's own, if it will do, or new ones."""
        known = self.model_ if self._goes_on(begun) else None
        store = given = None
        held_out = self.early_stopping and not partial
        if is_lazy(X):
            raw = open_samples(X, y, sample_weight, None if known is None else known.preparation)
            self._learn_features(X, prod(raw.x_shape), reset=not begun)
            if raw.rows < 2 and not partial:
                some = "1 sample" if raw.rows else "no samples"
                raise DataError(f"X has {some}; training needs at least 2")
            store = store_at(X)
            given = store if y is None and sample_weight is None else None
        else:
            raw = self._in_memory(X, y, sample_weight, least=1 if partial else 2, reset=not begun)
        ready = is_lazy(X) and store is None and known is not None and is_ready(X, known, self._numbers)
        if known is None:
            self._numbers = trained_on(X) if is_lazy(X) and store is None else None
            self._how, self._scale = raw.preparation, 1.0 if store is None else store.scale
        else:
            raw = like_the_model(raw, store, known, own_targets=y is None, ready=ready)
        source = self._with_targets(raw, begun)
        if partial:
            self._streamed_rows = raw.rows + (self._streamed_rows if begun else 0)
            source = joined(self._recent if begun else None, source)
            self._given_weights = None if source.weights is None else everything(source.weights)
        classes = getattr(self, "classes_", None)
        source = weighted(source, getattr(self, "class_weight", None), classes)
        if given is not None and not held_out and self.chunk_rows is None and source is raw:
            return given, None
        source = replace(source, preparation=None)
        dtype = dtype_of(self, source.x_dtype, begun=begun)
        settings: dict[str, Any] = {"chunk_rows": chunk_rows_of(self, source), "dtype": dtype, "seed": seed}

        def write(source: Source, place: Path, shuffle: bool = not partial) -> SampleStore:
            return ingest(source, place, shuffle=shuffle, on_the_way=True, **settings)

        if not held_out:
            return write(source, home / "train.zarr"), None
        if is_lazy(X) and store is None:  # computed once, and read again
            source = read_from(write(source, home / "all.zarr", shuffle=False), source)
        parts = split(source, share_held_out(self), seed, getattr(self, "classes_", None))
        validation = write(parts[1], home / "validation.zarr", shuffle=False)
        return write(parts[0], home / "train.zarr"), validation

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        """Samples in memory, checked as scikit-learn does."""
        unmasked(y, "y")
        self._check_numbers(X, y)
        X, y = validated(
            self,
            X,
            plain_text(y),
            dtype=FLOATS,
            ensure_min_samples=least,
            reset=reset,
            **SPARSE,
            **self._checks,
        )
        weights = None if sample_weight is None else self._weights(sample_weight, X.shape[0])
        x = read_sparse(X) if issparse(X) else array_source(X).x
        return Source(GIVEN, x, sliced(np.asarray(y), "y"), weights=weights)

    @staticmethod
    def _weights(sample_weight: Any, rows: int) -> RowReader:
        """Weights in memory, or one for all."""
        given = np.full(rows, sample_weight) if isinstance(sample_weight, Number) else sample_weight
        checked = check_array(
            unmasked(given, "sample_weight"), ensure_2d=False, dtype=np.float64, input_name="sample_weight"
        )
        return column_of(sliced(checked, "sample_weight"))

    def _check_numbers(self, X: Any, y: Any = None) -> None:
        """Refuse sequences, and whole numbers that are too large, before they are rounded."""
        refuse_sequences(X)
        check_numbers(X, "X")

    def _with_targets(self, source: Source, begun: bool) -> Source:
        """Targets as the store is to hold them; learns what there is to know of them."""
        if source.y is None:
            raise without_targets(self, source.name)
        called = named(source.y, source.preparation, spelled=KINDS[self._kind].target == "labels")
        y = self._targets(called.y, begun)
        if called.places is not None and np.array_equal(self.classes_, called.places):  # numbered so already
            y = source.y
        return source if y is source.y else replace(source, y=y)

    def _learn_features(self, X: Any, features: int, *, reset: bool) -> None:
        check_columns(self, X, features, reset=reset)

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _opened(self, X: Any) -> Inputs:
        """Samples to predict for, of whatever kind, that fit the model."""
        if isinstance(X, Inputs):
            return X
        model = self._fitted
        if isinstance(X, str | os.PathLike):
            samples = of_location(as_name(X), model, self._numbers)
            check_fits(self, samples.shape)
            return samples
        if (table := as_table(self, X)) is not None:
            return with_units(table, model)
        if is_lazy(X):
            rows = in_whole_rows(X)
            self._learn_features(X, prod(rows.shape[1:]), reset=False)
            model.check_shape("X", rows.shape[1:])
            return Inputs(rows, is_ready(X, model, self._numbers))
        self._check_numbers(X)
        model.check_shape("X", getattr(X, "shape", ())[1:])
        return with_units(Inputs(validated(self, as_rows(X), dtype=FLOATS, reset=False, **SPARSE)), model)

    # what kinds of estimators say

    def _network(self) -> dict[str, Any]:
        """More of the table `[network]`."""
        return {"standardize": self.standardize}

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        """Targets, if there are any, as the store is to hold them; learns of them, unless that has begun."""
        return y

    @abstractmethod
    def _shape(self, model: Model) -> tuple[int, ...]:
        """Shape of a sample as it was given, whatever was done before it came into a store."""

    @abstractmethod
    def _score_of(self, store: SampleStore) -> float:
        """Score on a store that training wrote."""

    def _saved(self) -> dict[str, Any]:
        """What is learnt besides the model, as JSON values."""
        return {}

    def _from_model(self) -> dict[str, Any]:
        """What `_saved` would have given, as far as the model of a run tells."""
        return {}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Undo `_saved`."""

    def _class_names(self, outputs: int) -> Array:
        """Names of classes that the model of a run knows, or their numbers."""
        how = self.model_.preparation
        return np.arange(outputs) if how is None or how.called is None else np.array(how.called)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
