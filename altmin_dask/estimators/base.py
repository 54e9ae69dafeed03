"""What the three estimators share: their parameters, training through a temporary sample store, and prediction."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Self

import dask
import dask.array as da
import numpy as np
from distributed import Client, get_worker
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from altmin_dask import runs
from altmin_dask.config import Pipeline, make_pipeline
from altmin_dask.engine.problem import is_store
from altmin_dask.engine.progress import Progress
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.estimators import folder
from altmin_dask.estimators.forward import Forward
from altmin_dask.estimators.input import as_dask, is_lazy, open_samples, outline, split, store_source
from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Weights
from altmin_dask.storage.model import Model
from altmin_dask.storage.readers import RowReader, locate
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.samples import SampleStore, ingest
from altmin_dask.storage.sources import Source, array_source

FLOATS = (np.float64, np.float32)


class AltMinEstimator(BaseEstimator):  # type: ignore[misc]
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
        Weight of the penalty, of all layers or of each; "auto" is exact constraints for increments.
    ridge : float
        λ of λ Σ_i ‖[W_i b_i]‖² beside the sum of all losses (scikit-learn's ``alpha`` is 2 λ).
    proximal : float, optional
        ρ of the steps relative to the mean diagonal of a Gram matrix; None follows from the network and the group.
    schedule : {"auto", "increments", "windows", "incremental", "batch"}
        How sweeps over the chunks go; "auto" are increments for "l2", and windows elsewhere.
    max_sweeps : float, optional
        Passes over the samples, at most; None are 20 for increments, or as many as 300 steps take.
    early_stopping : bool
        Hold `validation_fraction` of the samples out (drawn at random, not by class), stop on their loss and keep the
        model that was best on them. Otherwise the same goes by the loss of the samples trained on.
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
        Rows in a chunk of the temporary store, of which each is a task; None is about 8 MiB.
    group_chunks : int, optional
        Chunks that make a step; None is as many as hold about 2,000 samples (increments), or 1.
    staleness : int
        How many groups may be under way at once (increments); above 0 results depend on timing.
    dtype : {"auto", "float32", "float64"}
        In which is computed; "auto" is float32 for samples of float32, and float64 elsewhere, as in scikit-learn.
    random_state : int, RandomState or None
        Seed of the first weights, the order of chunks and the samples held out.
    scheduler : str, optional
        Where is trained: None is the Dask client that is active (``Client(...)``, ``client.as_current()``), or else
        threads of this process; "threads" is always these; otherwise the address of a scheduler.
    workers : int, optional
        Threads of this process; None is one for each core. Weights do not depend on it.
    temporary_folder : path, optional
        Where the store and the run are while `fit` goes on, and which the workers of a cluster have to see; None is
        Dask's ``temporary-directory``, or else the system's.
    settings : dict, optional
        More settings as in a pipeline file, such as ``{"solver.metric_damping": 0.01}``; these go first.
    verbose : bool
        Print a line for every record.
    """

    _kind: ClassVar[str]
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
        staleness: int = 0,
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
        self.staleness = staleness
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
        from altmin_dask.estimators.torch import sequential

        return sequential(self._fitted)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    @property
    def _fitted(self) -> Model:
        check_is_fitted(self)
        model: Model = self.model_
        return model

    def _targets(self, y: RowReader) -> RowReader:
        """Targets as the store is to hold them; learns what there is to know of them."""
        return y

    def _network(self) -> dict[str, Any]:
        """More of the table `[network]`."""
        return {}

    def _fit(self, X: Any, y: Any) -> Self:
        seed = self._seed()
        location = self.temporary_folder or dask.config.get("temporary-directory", None)
        with tempfile.TemporaryDirectory(prefix="altmin-", dir=location) as home:
            train, validation = self._stores(X, y, Path(home), seed)
            pipeline = self._pipeline(train, validation, seed)
            run = RunFolder(Path(home) / "run")
            records = runs.train(
                pipeline, run, _Watch(self.verbose), scheduler=_place(self.scheduler),
                initial=self._initial(), announce=print if self.verbose else lambda line: None,
            )  # fmt: skip
            self.model_ = Model.load(run.model)
            held_out = "nested_loss" if validation is None else "validation_loss"
            self.history_ = records
            self.loss_curve_ = [record["nested_loss"] for record in records]
            self.best_loss_ = min(record[held_out] for record in records)
            self.best_validation_score_ = None if validation is None else self._score_of(validation)
            self.n_iter_ = max(1, math.ceil(records[-1]["sweep"]))
        return self

    def _stores(self, X: Any, y: Any, home: Path, seed: int) -> tuple[SampleStore, SampleStore | None]:
        """The samples as stores: the user's own, if it will do, or new ones."""
        given = None
        if is_lazy(X):
            source = open_samples(X, y)
            self._learn_features(X, prod(source.x_shape), reset=True)
            if source.rows < 2:
                raise DataError("X has 1 sample; training needs at least 2")
            if y is None and isinstance(X, str | os.PathLike) and is_store(os.fspath(X)):
                given = SampleStore.open(X) if locate(X) == source.name else None
        else:
            source = self._in_memory(X, y)
        kept, source = source.y, self._with_targets(source)
        if given is not None and not self.early_stopping and self.chunk_rows is None and source.y is kept:
            return given, None
        write = partial(ingest, chunk_rows=self.chunk_rows, dtype=self._dtype(source.x_dtype))
        if not self.early_stopping:
            return write(source, home / "train.zarr"), None
        if is_lazy(X) and given is None:  # computed once, and read again
            source = store_source(write(source, home / "all.zarr"))
        fraction = self.validation_fraction
        if not (isinstance(fraction, float | np.floating) and 0 < fraction < 1):
            raise ConfigError(f"validation_fraction = {fraction!r}: give a number between 0 and 1")
        parts = split(source, float(fraction), seed)
        train, validation = (
            write(part, home / f"{name}.zarr")
            for name, part in zip(("train", "validation"), parts, strict=True)
        )
        return train, validation

    def _in_memory(self, X: Any, y: Any) -> Source:
        if self._kind == "autoencoder":
            return array_source(validate_data(self, X, dtype=FLOATS, ensure_min_samples=2))
        X, y = validate_data(self, X, y, dtype=FLOATS, ensure_min_samples=2, **self._checks)
        y = np.asarray(y)
        targets = RowReader(
            "y", y.shape, y.dtype, lambda rows: (y[i : i + rows] for i in range(0, len(y), rows))
        )
        return Source("the given arrays", array_source(X).x, targets)

    def _with_targets(self, source: Source) -> Source:
        if self._kind == "autoencoder":
            return source
        if source.y is None:
            raise DataError(
                f"{type(self).__name__} requires y to be passed, but the target y is None, and {source.name} holds none"
            )
        return Source(source.name, source.x, self._targets(source.y))

    def _learn_features(self, X: Any, features: int, *, reset: bool) -> None:
        validate_data(self, outline(X, features), skip_check_array=True, reset=reset)

    def _dtype(self, given: np.dtype[Any]) -> str:
        if self.dtype == "auto":
            return "float32" if given == np.float32 else "float64"
        return self.dtype

    def _pipeline(self, train: SampleStore, validation: SampleStore | None, seed: int) -> Pipeline:
        """The settings of a run; a wrong one is refused by its name."""
        hidden = self.hidden_layer_sizes
        tables: dict[str, dict[str, Any]] = {
            "data": {"train": train.path, "validation": None if validation is None else validation.path},
            "network": {
                "kind": self._kind,
                "hidden_layer_sizes": (hidden,) if np.ndim(hidden) == 0 else tuple(hidden),  # type: ignore[arg-type]
                "activation": self.activation,
                "initialization": self.initialization,
                "dtype": self._dtype(train.x.dtype),
                **self._network(),
            },
            "solver": {
                name: getattr(self, name) for name in ("penalty", "mu", "ridge", "proximal")
            },
            "training": {
                **{
                    name: getattr(self, name)
                    for name in (
                        "schedule", "max_sweeps", "n_iter_no_change", "tol", "group_chunks", "staleness",
                    )
                },
                "seed": seed,
            },
            "cluster": {"workers": self.workers},
        }  # fmt: skip
        for name, value in (self.settings or {}).items():
            table, dot, key = name.partition(".")
            if not dot or table in ("data", "output"):
                raise ConfigError(
                    f"settings has {name!r}; write 'network.…', 'solver.…', 'training.…' or 'cluster.…'"
                )
            tables.setdefault(table, {})[key] = value
        return make_pipeline(_plain(tables))

    def _initial(self) -> Weights | None:
        return self.model_.weights if self.warm_start and hasattr(self, "model_") else None

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


class _Watch:
    """Prints records, if at all."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose

    def progressed(self, progress: Progress) -> None:
        """Nothing is shown between records."""

    def recorded(self, record: dict[str, Any]) -> None:
        """Print a line."""
        if self.verbose:
            held_out = record["validation_loss"]
            more = "" if held_out is None else f", held-out loss {held_out:.6g}"
            print(f"sweep {record['sweep']:.4g}: loss {record['nested_loss']:.6g}{more}")


def _place(scheduler: str | None) -> str | Client | None:
    """The client that is active, an address, or None for threads."""
    if scheduler is not None:
        return None if scheduler == "threads" else scheduler
    try:
        get_worker()
    except ValueError:
        try:
            return Client.current()
        except ValueError:
            return None
    return None  # within a task: one that waited for tasks of its own could wait forever


def _plain(value: Any) -> Any:
    """Settings without NumPy scalars, which a grid search makes."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value
