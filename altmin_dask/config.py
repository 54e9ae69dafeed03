"""Pipelines: what to train on what, and how, as TOML tables checked by pydantic."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from altmin_dask.errors import ConfigError, MissingError
from altmin_dask.networks.activations import ACTIVATIONS
from altmin_dask.networks.layers import LayerSettings, read_settings
from altmin_dask.networks.losses import LOSSES
from altmin_dask.solvers.penalties import PENALTIES

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Width = Annotated[int, Field(ge=1)]
ActivationName = Literal[*ACTIVATIONS]  # type: ignore[valid-type]
LossName = Literal[*LOSSES]  # type: ignore[valid-type]
PenaltyName = Literal[*PENALTIES]  # type: ignore[valid-type]
Layer = Annotated[
    LayerSettings,
    PlainValidator(read_settings),
    PlainSerializer(lambda layer: layer.describe(), return_type=dict[str, Any]),
]
"""A table of any kind of layer: what it may hold is declared beside the layer."""
_FORMS = ("<one>", "<each>", "<table>", "<word>")


def _form(value: Any) -> str:
    """Which form a setting was given in, so that only what is wrong with that form is reported."""
    if isinstance(value, list | tuple):
        return "<each>"
    return "<table>" if isinstance(value, dict | BaseModel) else "<one>"


def _mu_form(value: Any) -> str:
    return "<word>" if value == "auto" else _form(value)


class Table(BaseModel):
    """A table of a pipeline: unknown keys are refused, numbers are never guessed from strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DataTable(Table):
    """`[data]`: sample stores, or sources that are first ingested into the run folder."""

    train: str
    validation: str | None = None
    scale: Positive = 1.0
    """What raw sources are divided by; a store has been scaled already."""
    standardize: bool = False
    """Whether every number of raw sources, and real targets, are brought to mean 0 and variance 1 instead."""
    chunk_rows: int | Literal["auto"] | None = None
    """Rows in a chunk of stores made from raw sources; by default about 8 MiB of x, wherever the run takes place.

    "auto" makes tasks of about a second, but chunks small enough for the workers' memory, and for all threads to have
    some. What is computed then depends on the machine.
    """

    @field_validator("chunk_rows", mode="before")
    @classmethod
    def _are_rows(cls, value: Any) -> Any:
        if value not in (None, "auto") and (type(value) is not int or value < 1):
            raise ValueError('write "auto", or how many rows')
        return value


class NetworkTable(Table):
    """`[network]`: a chain or a recurrent network; input and output widths follow from the data."""

    kind: Literal["autoencoder", "classifier", "regressor", "recurrent_classifier", "recurrent_regressor"]
    hidden_layer_sizes: tuple[Width, ...] = Field(strict=False, default=(100,))
    """Of recurrent networks, the recurrent layers."""
    layers: Annotated[tuple[Layer, ...], Field(strict=False)] | None = None
    """All hidden layers, one table for each, in place of hidden_layer_sizes; what a kind of layer can be told is
    declared beside it (`altmin_dask.networks.layers`)."""
    activation: (
        Annotated[
            Annotated[ActivationName, Tag("<one>")]
            | Annotated[tuple[ActivationName, ...], Field(strict=False), Tag("<each>")],
            Discriminator(_form),
        ]
        | None
    ) = None
    """One for all hidden layers, or one for each; by default sigmoid, and tanh in recurrent networks."""
    output_activation: str | None = None
    loss: LossName | None = None
    classes: Annotated[int, Field(ge=2)] | None = None
    """How many classes a classifier tells apart; by default one more than the largest label for training."""
    dtype: Literal["float32", "float64"] = "float32"
    """In which is computed, and in which raw sources are ingested; a store has a dtype of its own (ingest --dtype)."""
    initialization: Literal["auto", "random", "whitened", "layerwise"] = "auto"
    """Glorot or He by activation; or a first layer whitened, and an output bias set, from the first samples; or every
    hidden layer trained by itself as a shallow auto-encoder of what is below. "auto" whitens auto-encoders of one
    hidden layer, which begin close to principal components, and is random elsewhere."""
    head_layer_sizes: tuple[Width, ...] = Field(strict=False, default=())
    """Hidden layers on top of the recurrent ones."""
    steps: Width | None = None
    """Time steps of a sample, where x is (samples, values); by default x is (samples, steps, features)."""
    loss_at: Literal["auto", "last", "every"] | None = None
    """Whether recurrent networks have a target at the last step of a sequence, or at every step; "auto", which they
    have by default, goes by the shape of y: labels (samples, steps), or numbers (samples, steps, outputs), are one
    for each step."""
    recurrent_initialization: Literal["auto", "orthogonal", "identity"] | None = None
    """What V_i are at first; "auto", the default, is the identity for rectifiers and orthogonal elsewhere."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> NetworkTable:
        if self.layers is not None:
            fields = type(self).model_fields
            for name in ("hidden_layer_sizes", "head_layer_sizes", "recurrent_initialization"):
                if getattr(self, name) != fields[name].default:
                    raise ValueError(f"network.layers names all hidden layers; leave network.{name} out")
        if self.recurrent:
            if self.initialization in ("whitened", "layerwise"):
                raise ValueError(
                    f"network.initialization = {self.initialization!r} is for chains; leave it out, and see "
                    "network.recurrent_initialization"
                )
            if self.hidden_layers == 0:
                raise ValueError(
                    "network.hidden_layer_sizes is empty; give a recurrent network one layer or more"
                )
            return self
        for name in ("head_layer_sizes", "steps", "loss_at", "recurrent_initialization"):
            if getattr(self, name):
                raise ValueError(f"network.{name} is for recurrent networks; network.kind is {self.kind!r}")
        return self

    @property
    def recurrent(self) -> bool:
        """Whether samples are sequences."""
        return self.kind.startswith("recurrent_")

    @property
    def hidden_activation(self) -> str | list[str]:
        """One activation, or one for each hidden layer."""
        if self.activation is None:
            return "tanh" if self.recurrent else "sigmoid"
        return self.activation if isinstance(self.activation, str) else list(self.activation)

    @property
    def start(self) -> Literal["random", "whitened", "layerwise"]:
        """The initialization, "auto" resolved."""
        if self.initialization != "auto":
            return self.initialization
        return "whitened" if self.kind == "autoencoder" and self.hidden_layers == 1 else "random"

    @property
    def hidden_layers(self) -> int:
        """How many there are."""
        short = len(self.hidden_layer_sizes) + len(self.head_layer_sizes)
        return short if self.layers is None else len(self.layers)


class MuSchedule(Table):
    """μ that moves geometrically from `start` to `stop`, by `factor` a pass over the samples in the sum."""

    start: Positive
    factor: Positive
    stop: Positive

    @model_validator(mode="after")
    def _reaches_stop(self) -> MuSchedule:
        if self.stop != self.start and (self.stop - self.start) * (self.factor - 1) <= 0:
            raise ValueError(f"factor {self.factor} never leads from {self.start} to {self.stop}")
        return self


class SolverTable(Table):
    """`[solver]`: the relaxation, the z-update and the W-update."""

    penalty: PenaltyName = "l2"
    """How residuals are held: Σ μ_i ‖r_i‖², Σ μ_i ‖r_i‖₁, or at zero, by multipliers."""
    mu: Annotated[
        Annotated[Positive, Tag("<one>")]
        | Annotated[tuple[Positive, ...], Field(strict=False, min_length=1), Tag("<each>")]
        | Annotated[MuSchedule, Tag("<table>")]
        | Annotated[Literal["auto"], Tag("<word>")],
        Discriminator(_mu_form),
    ] = "auto"
    """μ of all layers, of each layer, or a schedule; "auto": the limit of exact constraints for K-FAC steps, which
    restart z by a forward pass, 0.03 where z persists (100 for recurrent layers, 10 for those on top of them), and 0.1
    for L1. For multipliers it is what the quadratic begins with: 0.03, but 0.5 for squared error of an output that is
    no sigmoid, and 10 for recurrent networks."""
    augmentation: Positive | None = None
    """ρ of the quadratic by which L1 is split, at first; by default as for multipliers."""
    balancing: bool = True
    """Whether ρ of L1 and multipliers follows their residuals."""
    residual_tol: NonNegative = 1e-4
    """Training with L1 or multipliers stops when every layer's primal and dual residuals are relatively smaller."""
    ridge: NonNegative = 0.005
    """λ of F; the Gram matrix of layer i gets λ/μ_i."""
    penalize_bias: bool = True
    proximal: NonNegative | None = None
    """ρ relative to the mean diagonal of a Gram matrix; by default 0, and for K-FAC steps a tenth of the unknowns for
    each target number of a group."""
    output_damping: Positive | None = None
    """σ of K-FAC steps, in units of the loss's curvature; by default 0.03 for squared error and recurrent networks,
    and 0.003 for the cross entropies of chains."""
    newton_steps: Annotated[int, Field(ge=1)] = 1
    cg_iterations: Annotated[int, Field(ge=1)] = 2
    cg_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    damping: NonNegative = 0.0
    curvature: Literal["gauss_newton", "exact"] = "gauss_newton"


class TrainingTable(Table):
    """`[training]`: the schedule and when to stop."""

    schedule: Literal["auto", "kfac", "windows", "incremental", "batch"] = "auto"
    """"auto" are K-FAC steps, and windows for L1 and multipliers."""
    group_chunks: Annotated[int, Field(ge=1)] | None = None
    """Chunks that are visited between two solves for W; by default 1, and for K-FAC steps as many as hold about 2,000
    samples."""
    first_window: Annotated[int, Field(ge=1)] | None = None
    """Groups in the first window; by default about 10 samples for each unknown of a row of W."""
    window_passes: Annotated[int, Field(ge=1)] = 4
    """Passes over a window before it doubles."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """How many groups may be under way with weights that others have moved meanwhile (K-FAC), so that workers do
    not wait for each other. Steps are then taken as groups finish, and what is computed depends on timing."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Share of the running mean of the weights that stays in a step (K-FAC); the mean is what is kept."""
    max_sweeps: Positive | None = None
    """By default 10, for L1 and multipliers 80, and for K-FAC steps 20 or as many as 300 steps take."""
    max_cpu_seconds: Positive | None = None
    n_iter_no_change: Annotated[int, Field(ge=1)] | None = 10
    """Training stops when the nested loss (of the validation samples, or if there are none with the ridge) has not
    improved by `tol` in so many records; None never stops it."""
    tol: NonNegative = 1e-3
    """Relative improvement of the best loss that counts."""
    seed: Annotated[int, Field(ge=0)] = 0
    evaluation_rows: Annotated[int, Field(ge=1)] = 10_000
    """About how many training rows (whole chunks) the nested loss of a record is taken over."""


class ClusterTable(Table):
    """`[cluster]`: where the tasks run when no --scheduler is given."""

    kind: Literal["threads", "local"] = "threads"
    workers: Annotated[int, Field(ge=1)] | None = None
    threads_per_worker: Annotated[int, Field(ge=1)] = 1
    memory_limit: str = "auto"
    """Of each worker, e.g. "2 GiB"."""
    dashboard: Annotated[str, Field(pattern=r"^[^\s:/]*:\d{1,5}$")] = ":8787"
    """Address of a local cluster's dashboard; ":0" for any free port."""
    patience: Positive = 300.0
    """Seconds that a step waits for a worker when the last one is gone."""
    split_every: Annotated[int, Field(ge=2)] = 4
    """Statistics that are added up in one task of the tree."""

    @field_validator("memory_limit")
    @classmethod
    def _is_size(cls, value: str) -> str:
        if value != "auto":
            try:
                parse_bytes(value)
            except ValueError:
                raise ValueError('write "auto" or a size such as "2 GiB"') from None
        return value


class OutputTable(Table):
    """`[output]`: what is left behind."""

    run: str | None = None
    """Run folder when --run is not given; by default a new one under runs/."""
    z: str | None = None
    """Folder or URL under which z is kept, such as s3://bucket/scratch; by default the run folder."""
    report: bool = True
    """Write the report when training has ended."""
    performance: bool = False
    """On a cluster, leave Dask's performance report of the training in the report folder."""
    title: str | None = None


class Pipeline(Table):
    """A whole pipeline: the tables of a TOML file.

    Examples
    --------
    >>> from altmin_dask import Pipeline
    >>> network = {"kind": "classifier", "hidden_layer_sizes": [20]}
    >>> pipeline = Pipeline.model_validate({"data": {"train": "digits:train"}, "network": network})
    >>> pipeline.schedule, pipeline.solver.mu
    ('kfac', 'auto')
    """

    data: DataTable
    network: NetworkTable
    solver: SolverTable = SolverTable()
    training: TrainingTable = TrainingTable()
    cluster: ClusterTable = ClusterTable()
    output: OutputTable = OutputTable()

    @model_validator(mode="after")
    def _max_staleness_is_of_kfac(self) -> Pipeline:
        if self.training.max_staleness and not self.uses_kfac:
            raise ValueError(
                f"training.max_staleness is for K-FAC steps; training.schedule = {self.training.schedule!r} "
                "waits for every group"
            )
        return self

    @model_validator(mode="after")
    def _penalty_has_its_schedule(self) -> Pipeline:
        name = self.solver.penalty
        penalty = PENALTIES[name]
        if self.schedule not in penalty.schedules:
            raise ValueError(
                f"solver.penalty = {name!r} keeps z, which training.schedule = {self.schedule!r} does not; "
                f"write {_either(penalty.schedules)}"
            )
        if not penalty.augmented and self.solver.augmentation is not None:
            augmented = _either([other for other, kind in PENALTIES.items() if kind.augmented])
            raise ValueError(f"solver.augmentation is for penalty = {augmented}; solver.penalty is {name!r}")
        if not penalty.mu_moves and isinstance(self.solver.mu, MuSchedule):
            raise ValueError(
                f"solver.mu is only what {name} begin with; write one number, or one for each layer"
            )
        return self

    @model_validator(mode="after")
    def _curvature_is_known(self) -> Pipeline:
        if self.network.recurrent and self.solver.curvature == "exact":
            raise ValueError("solver.curvature = 'exact' is for chains; leave it out for recurrent networks")
        return self

    @property
    def schedule(self) -> str:
        """The schedule, "auto" resolved: the first one of the penalty."""
        wish = self.training.schedule
        if wish != "auto":
            return wish
        return PENALTIES[self.solver.penalty].schedules[0]

    @property
    def uses_kfac(self) -> bool:
        """Whether W moves by K-FAC steps, and no z is kept."""
        return self.schedule == "kfac"

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is computed: all but where it runs, when it stops and what it leaves."""
        settings: dict[str, Any] = self.model_dump(mode="json", exclude={"cluster", "output"})
        for limit in ("max_sweeps", "max_cpu_seconds", "n_iter_no_change", "tol"):
            settings["training"].pop(limit)
        return settings


def load_pipeline(file: str | Path, overrides: Iterable[str] = ()) -> Pipeline:
    r"""Read a pipeline from a TOML file.

    Parameters
    ----------
    file : path
        The TOML file.
    overrides : iterable of str
        ``table.key=value`` settings that replace those of the file; a value is TOML, or else a bare string.

    Raises
    ------
    MissingError
        If the file does not exist.
    ConfigError
        If it is not TOML, or a key is unknown or has a wrong value; every such place is named.

    Examples
    --------
    >>> from pathlib import Path
    >>> from altmin_dask import load_pipeline
    >>> _ = Path("p.toml").write_text('[data]\ntrain = "digits:train"\n[network]\nkind = "autoencoder"')
    >>> load_pipeline("p.toml", ["solver.ridge=0.1"]).solver.ridge
    0.1
    """
    file = Path(file)
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingError(f"pipeline {file} cannot be read ({error.strerror}); name a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    for override in overrides:
        _apply(settings, override)
    return make_pipeline(settings, f"{file}: ")


def make_pipeline(settings: dict[str, Any], where: str = "") -> Pipeline:
    """Make a pipeline of tables of settings.

    Parameters
    ----------
    settings : dict
        A dict of settings for every table.
    where : str
        What messages begin with.

    Raises
    ------
    ConfigError
        If a key is unknown or has a wrong value; every such place is named.

    Examples
    --------
    >>> from altmin_dask.config import make_pipeline
    >>> make_pipeline({"data": {"train": "digits"}, "network": {"kind": "autoencoder"}}).network.start
    'whitened'
    >>> make_pipeline({"data": {"train": "digits"}, "network": {"kind": "autoencoder", "width": 3}})
    Traceback (most recent call last):
    altmin_dask.errors.ConfigError: network.width is not a setting
    """
    try:
        return Pipeline.model_validate(settings)
    except ValidationError as error:
        places = "; ".join(dict.fromkeys(_describe(problem) for problem in error.errors()))
        raise ConfigError(f"{where}{places}") from None


def _either(names: Sequence[str]) -> str:
    """Names as one says which of them to write."""
    *others, last = map(repr, names)
    return f"{', '.join(others)} or {last}" if others else last


def _apply(settings: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(f"--set {override}: write table.key=value, for example solver.mu=0.1")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    table = settings
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: {key} is not a table")
    table[keys[-1]] = value


def _describe(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"] if part not in _FORMS)
    if problem["type"] == "extra_forbidden":
        return f"{place} is not a setting"
    if problem["type"] == "missing":
        return f"{place} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:  # of settings that do not go together
        return message
    return f"{place} = {problem['input']!r}: {message[0].lower()}{message[1:]}"
