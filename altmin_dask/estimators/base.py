"""What the three estimators share: their parameters, training through a temporary sample store, and prediction."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import prod
from numbers import Number
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import dask
import dask.array as da
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from altmin_dask import runs
from altmin_dask.data.ingest import ingest
from altmin_dask.data.readers import RowReader
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source, array_source
from altmin_dask.data.streams import sliced
from altmin_dask.errors import DataError
from altmin_dask.estimators import folder
from altmin_dask.estimators.forward import Forward, as_given
from altmin_dask.estimators.input import (
    as_dask,
    check_numbers,
    is_lazy,
    open_samples,
    outline,
    split,
    store_source,
)
from altmin_dask.estimators.settings import chunk_rows_of, dtype_of, pipeline_of, place_of, share_held_out
from altmin_dask.estimators.watch import CallbackSupportMixin, FitCallbacks, Stop, with_callbacks
from altmin_dask.estimators.weighting import weighted
from altmin_dask.solvers.kfac import KFACState
from altmin_dask.storage.locations import as_name, locate
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.algorithms import restore
from altmin_dask.training.kfac_training import KFACTrainingState
from altmin_dask.training.problem import is_store
from altmin_dask.training.record import read_records
from altmin_dask.types import Array, Weights

GIVEN = "the given arrays"
FLOATS = (np.float64, np.float32)


class AltMinEstimator(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """Parameters and methods that all estimators have; use one of them.

    Samples are taken as they are: put a `StandardScaler` in front where features differ in scale.

    Parameters
    ----------
    hidden_layer_sizes : int or tuple of int
        Widths d_1 … d_{L−1} of the hidden layers.
    activation : str or tuple of str
        "identity", "sigmoid", "tanh", "relu", "leaky_relu" or "softplus"; one for all hidden layers, or one for each.
    initialization : {"auto", "random", "whitened", "layerwise"}
        How weights begin; "auto" is "whitened" for auto-encoders of one hidden layer, and "random" elsewhere.
    penalty : {"l2", "l1", "multipliers"}
        How the constraints z_i = W_i φ(z_{i−1}) + b_i are relaxed.
    mu : float, tuple of float, dict or "auto"
        Weight of the penalty, of all layers or of each; "auto" is exact constraints for K-FAC steps.
    ridge : float
        λ of λ Σ_i ‖[W_i b_i]‖² beside the sum of all losses (scikit-learn's ``alpha`` is 2 λ). By default 1 for
        classifiers and regressors: small data sets need it, large ones hardly notice; 0.005 for auto-encoders.
    proximal : float, optional
        ρ of the steps relative to the mean diagonal of a Gram matrix; None follows from the network and the group.
    schedule : {"auto", "kfac", "windows", "incremental", "batch"}
        How sweeps over the chunks go; "auto" are K-FAC steps for "l2", and windows elsewhere.
    max_sweeps : float, optional
        Passes over the samples, at most: by default 30; for auto-encoders None, which are 20 for K-FAC steps, or as
        many as 300 steps take.
    early_stopping : bool
        Hold `validation_fraction` of the samples out (drawn at random, not by class), stop on their loss and keep the
        model that was best on them. Otherwise the same goes by the loss of the samples trained on, and the ridge.
    validation_fraction : float
        Share of samples held out if `early_stopping`.
    n_iter_no_change : int or None
        Training stops when the loss has not improved by `tol` (relatively) in so many records, about one a sweep;
        None never stops it.
    tol : float
        Relative improvement of the best loss that counts.
    warm_start : bool
        Whether another `fit` begins with the weights of the last one. Only weights are taken over.
    chunk_rows : int, optional
        Rows in a chunk of the temporary store, of which each is a task; None is about 8 MiB, and of small data sets
        2,000 rows.
    group_chunks : int, optional
        Chunks that make a step; None is as many as hold about 2,000 samples (K-FAC), or 1.
    max_staleness : int
        How many groups may be under way at once (K-FAC); above 0 results depend on timing.
    dtype : {"auto", "float32", "float64"}
        In which is computed, and what samples and targets are read in; "auto" is float32 for samples of float32, and
        float64 elsewhere, as in scikit-learn; `partial_fit` goes on in what it began with.
    random_state : int, RandomState or None
        Seed of the first weights, the order of chunks and the samples held out.
    scheduler : str, optional
        Where is trained: None is the Dask client that is active (``Client(...)``, ``client.as_current()``), or else
        threads of this process; "threads" is always these; otherwise the address of a scheduler.
    workers : int, optional
        Threads of this process; None is one for each core, or one if there is but one chunk. Weights do not depend
        on it.
    temporary_folder : path, optional
        Where the store and the run are while `fit` goes on, and which the workers of a cluster have to see; None is
        Dask's ``temporary-directory``, or else the system's.
    settings : dict, optional
        More settings as in a pipeline file, such as ``{"solver.output_damping": 0.01}``; these go first.
    verbose : bool
        Print a line for every record.
    """

    _kind: ClassVar[str]
    classes_: Array
    _checks: ClassVar[dict[str, Any]] = {}
    """More arguments of `validate_data` for samples and targets in memory."""

    def __init__(
        self,
        hidden_layer_sizes: int | tuple[int, ...] = (100,),
        activation: str | tuple[str, ...] = "relu",
        *,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.initialization = initialization
        self.penalty = penalty
        self.mu = mu
        self.ridge = ridge
        self.proximal = proximal
        self.schedule = schedule
        self.max_sweeps = max_sweeps
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.chunk_rows = chunk_rows
        self.group_chunks = group_chunks
        self.max_staleness = max_staleness
        self.dtype = dtype
        self.random_state = random_state
        self.scheduler = scheduler
        self.workers = workers
        self.temporary_folder = temporary_folder
        self.settings = settings
        self.verbose = verbose

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
        folder.save(self, self._fitted, path, overwrite)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; nothing is unpickled.

        Raises
        ------
        MissingError
            If there is no saved estimator.
        DataError
            If it is damaged, of a later version, or another kind of estimator.
        """
        return folder.load(cls, path)

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

    def _targets(self, y: RowReader, begun: bool) -> RowReader:
        """Targets as the store is to hold them; learns what there is to know of them, unless that has begun."""
        return y

    def _network(self) -> dict[str, Any]:
        """More of the table `[network]`."""
        return {}

    @with_callbacks  # type: ignore[untyped-decorator]
    def _fit(self, X: Any, y: Any, sample_weight: Any = None, *, partial: bool = False) -> Self:
        """Train on all samples, or go on with one pass over some more of them."""
        begun = partial and hasattr(self, "model_")
        streamed: tuple[Weights, KFACState] | None = getattr(self, "_streamed", None) if begun else None
        seed = self._seed() + (0 if streamed is None else streamed[1].steps)
        location = self.temporary_folder or dask.config.get("temporary-directory", None)
        with tempfile.TemporaryDirectory(prefix="altmin-", dir=location) as home:
            train, validation = self._stores(X, y, sample_weight, Path(home), seed, partial, begun)
            pipeline = pipeline_of(self, train, validation, seed, partial=partial, begun=begun)
            run = RunFolder(Path(home) / "run")
            initial = self.model_.weights if begun or (self.warm_start and hasattr(self, "model_")) else None

            def learnt() -> dict[str, Any]:
                records = read_records(run)
                held_out = [each.validation_loss for each in records if each.validation_loss is not None]
                loss_curve = [each.nested_loss for each in records]
                return {
                    "model_": as_given(Model.load(run.model)),
                    "history_": [each.to_dict() for each in records],
                    "loss_curve_": loss_curve,
                    "best_loss_": min(held_out or loss_curve),
                    "n_iter_": max(1, math.ceil(records[-1].sweep)),
                }

            watch = FitCallbacks(self, learnt, X, y, callbacks=not partial)
            with suppress(Stop):
                runs.train(
                    pipeline, run, [watch], scheduler=place_of(self.scheduler),
                    initial=streamed[0] if streamed else initial, kfac_state=streamed[1] if streamed else None,
                    log=print if self.verbose else lambda line: None,
                )  # fmt: skip
            found = learnt()
            if partial:
                found = self._streaming(run, found, pipeline.training.averaging, begun)
            else:
                self.__dict__.pop("_streamed", None)
            for name, value in found.items():
                setattr(self, name, value)
            self.best_validation_score_ = None if validation is None else self._score_of(validation)
            watch.ended()
        return self

    def _streaming(
        self, run: RunFolder, found: dict[str, Any], averaging: float, begun: bool
    ) -> dict[str, Any]:
        """What is known after some more samples: the last weights in place of those best on them."""
        checkpoint = restore(run)
        assert checkpoint is not None
        state = cast(KFACTrainingState, checkpoint.algorithm_state)  # other schedules are refused
        self._streamed = state.weights, state.kfac_state
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
        self, X: Any, y: Any, sample_weight: Any, home: Path, seed: int, partial_fit: bool, begun: bool
    ) -> tuple[SampleStore, SampleStore | None]:
        """The samples as stores: the user's own, if it will do, or new ones."""
        given, held_out = None, self.early_stopping and not partial_fit
        if is_lazy(X):
            raw = open_samples(X, y, sample_weight)
            self._learn_features(X, prod(raw.x_shape), reset=not begun)
            if raw.rows < 2 and not partial_fit:
                raise DataError("X has 1 sample; training needs at least 2")
            if y is None and isinstance(X, str | os.PathLike) and is_store(as_name(X)):
                given = SampleStore.open(X) if locate(X) == raw.name else None
        else:
            raw = self._in_memory(X, y, sample_weight, least=1 if partial_fit else 2, reset=not begun)
        source = self._with_targets(raw, begun)
        if given is not None and not held_out and self.chunk_rows is None and source is raw:
            return given, None
        source = replace(source, preparation=None)
        dtype = dtype_of(self, source.x_dtype, begun=begun)
        write = partial(ingest, chunk_rows=chunk_rows_of(self, source), dtype=dtype)
        if not held_out:
            return write(source, home / "train.zarr"), None
        if is_lazy(X) and given is None:  # computed once, and read again
            source = store_source(write(source, home / "all.zarr"))
        parts = split(source, share_held_out(self), seed)
        train, validation = (
            write(part, home / f"{name}.zarr")
            for name, part in zip(("train", "validation"), parts, strict=True)
        )
        return train, validation

    def _in_memory(self, X: Any, y: Any, sample_weight: Any, *, least: int, reset: bool) -> Source:
        self._check_numbers(X, y)
        if self._kind == "autoencoder":
            return array_source(
                validate_data(self, X, dtype=FLOATS, ensure_min_samples=least, reset=reset), name=GIVEN
            )
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_min_samples=least, reset=reset, **self._checks)
        weights = None
        if sample_weight is not None:
            given = np.full(len(X), sample_weight) if isinstance(sample_weight, Number) else sample_weight
            weights = sliced(
                check_array(given, ensure_2d=False, dtype=np.float64, input_name="sample_weight"),
                "sample_weight",
            )
        return Source(GIVEN, array_source(X).x, sliced(np.asarray(y), "y"), weights=weights)

    def _check_numbers(self, X: Any, y: Any = None) -> None:
        """Refuse whole numbers that are too large, before they are rounded."""
        check_numbers(X, "X")
        if self._kind in ("regressor", "recurrent_regressor") and y is not None:
            check_numbers(y, "y")

    def _with_targets(self, source: Source, begun: bool) -> Source:
        """Targets as the store is to hold them, and weights with mean 1; learns what there is to know of them."""
        if self._kind == "autoencoder":
            return source
        if source.y is None:
            raise DataError(
                f"{type(self).__name__} requires y to be passed, but the target y is None, and {source.name} holds none"
            )
        y = self._targets(source.y, begun)
        how = source.preparation
        if how is not None and how.classes is not None and hasattr(self, "classes_") and not begun:
            self.classes_ = np.array(how.classes)[self.classes_]
        source = source if y is source.y else replace(source, y=y)
        return weighted(source, getattr(self, "class_weight", None), getattr(self, "classes_", None))

    def _learn_features(self, X: Any, features: int, *, reset: bool) -> None:
        validate_data(self, outline(X, features), skip_check_array=True, reset=reset)

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _score_of(self, store: SampleStore) -> float:
        """Score on a store that training wrote."""
        raise NotImplementedError

    def _predict(self, X: Any, forward: Forward) -> Any:
        """Outputs for samples of any kind: lazy for what is lazy."""
        if is_lazy(X):
            return forward.lazily(self._samples(X))
        self._check_numbers(X)
        return forward(validate_data(self, X, dtype=FLOATS, reset=False))

    def _samples(self, X: Any) -> da.Array:
        """Lazy samples that fit the model."""
        x = as_dask(X)
        self._learn_features(X, x.shape[1], reset=False)
        return x

    def _forward(self, **options: Any) -> Forward:
        model = self._fitted
        return Forward(model, 0, len(model.network.widths), **options)

    def _saved(self) -> dict[str, Any]:
        """What a kind of estimator has learnt besides the model, as JSON values."""
        return {}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Undo `_saved`."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = False
        return tags
