"""The tables `[data]`, `[training]`, `[cluster]` and `[output]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from dask.utils import parse_bytes
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from altmin_dask.config.base import ONE, TABLE, WORD, Count, NonNegative, Positive, Table
from altmin_dask.errors import ConfigError
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.table_options import DATES, TABLE_SETTINGS, UNKNOWN, TableOptions, known_options

_SCHEDULES = dict.fromkeys(name for penalty in PENALTIES.values() for name in penalty.schedules)
Share = Annotated[float, Field(gt=0, lt=1)]
ScheduleName = Literal["auto", *_SCHEDULES]  # type: ignore[valid-type]


def _form_of_validation(value: Any) -> str:
    return WORD if isinstance(value, str) else ONE


def _form_of_missing(value: Any) -> str:
    return TABLE if isinstance(value, dict) else WORD


class DataTable(Table):
    """`[data]`: sample stores, or sources that are first ingested into the run folder."""

    train: str
    """Samples for training: a sample store, or a source that is ingested into the run folder first."""
    x: str | None = None
    """Name of the array of inputs of a source of named arrays, or of the columns of a table, with commas in between; by
    default ``x``, and all columns but the targets."""
    y: str | None = None
    """Name of the array, or of the columns, of the targets; by default ``y``."""
    validation: (
        Annotated[Annotated[str, Tag(WORD)] | Annotated[Share, Tag(ONE)], Discriminator(_form_of_validation)]
        | None
    ) = None
    """Samples by which the best model is chosen; or a share, such as 0.1, of the rows of `train` that is held out for
    that, drawn by `training.seed`, of every class as much. Both parts are then written into the run folder, those of a
    store, too: they take as much room as the samples. A source is read once for each, and labels of classes twice more.
    """
    scale: Positive = 1.0
    """What raw sources are divided by. With a store, which has been scaled already, it has to be what that was divided
    by; so it is with `standardize` and `chunk_rows`."""
    standardize: bool = False
    """Whether every number of raw sources is brought to mean 0 and variance 1 instead, and targets unless all of them
    are whole: those may be labels."""
    shuffle: bool = True
    """Whether rows of raw sources are brought into a random order, which the seed decides (`ingest`)."""
    chunk_rows: Count | Literal["auto"] | None = None
    """Rows in a chunk of stores made from raw sources; by default about 8 MiB of x, wherever the run takes place,
    or less, from 512 rows on, so that there are eight.

    "auto" makes tasks of about a second, but chunks small enough for the workers' memory, and for all threads to have
    some. What is computed then depends on the machine.
    """

    missing: (
        Annotated[
            Annotated[str, Tag(WORD)] | Annotated[dict[str, str], Tag(TABLE)], Discriminator(_form_of_missing)
        ]
        | None
    ) = None
    """What becomes of missing values of raw tables: "refuse" (the default), "mean", "median", "constant" or
    "constant:VALUE"; or a table of these words by columns, with "*" for all others."""
    handle_unknown: Literal[*UNKNOWN] | None = None  # type: ignore[valid-type]
    """What becomes of values that `train` has not: "ignore" (the default: all zeros), "error" or
    "infrequent_if_exist"."""
    max_categories: Count | None = None
    """Numbers that a column of text becomes at most; by default 256."""
    min_frequency: Positive | None = None
    """In how many rows, or below 1 in which share of them, a value of text has to be to have a number of its own."""
    dates: Literal[*DATES] | None = None  # type: ignore[valid-type]
    """"days" (the default), or "cyclic": with sine and cosine of month, weekday and hour beside them."""
    csv: dict[str, str | bool | int | list[str]] | None = None
    """How csv files are read, by names of `pandas.read_csv`: comment, compression, decimal, encoding, header,
    index_col, na_values, names, quotechar, sep, skiprows, thousands; and literal, columns of text in which NA, None
    and the like are values, which stand for missing ones elsewhere."""
    drop: str | None = None
    """Columns of raw tables that are left out, with commas in between, such as one that numbers the rows; predictions
    need none of them, and can keep them."""

    @field_validator("csv", mode="before")
    @classmethod
    def _are_options_of_csv(cls, value: Any) -> Any:
        """Before what their values may be: of one that is not there nothing may."""
        if isinstance(value, Mapping):
            try:
                known_options(value)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _tables_are_known(self) -> DataTable:
        try:
            TableOptions.of(**self.tables)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def tables(self) -> dict[str, Any]:
        """What is said of raw tables, as `altmin_dask.data.open.open_source` takes it."""
        said = ((name, getattr(self, name)) for name in TABLE_SETTINGS)
        return {name: value for name, value in said if value is not None}

    @field_validator("validation", mode="before")
    @classmethod
    def _is_a_share(cls, value: Any) -> Any:
        """Refuse shares as one writes them elsewhere: as text they would be names of files."""
        if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", value)):
            share = float(found[1]) / (100 if found[2] else 1)
            raise ValueError(f"write a number below 1, {share:g}, without quotes, for a share of the rows")
        if type(value) in (int, float) and 1 <= value < 100:
            raise ValueError(f"write a share of the rows below 1, such as {value / 100:g} for {value:g} %")
        return value

    @property
    def share(self) -> float | None:
        """The share of the rows of `train` that is held out, if samples for validation are no others."""
        return self.validation if isinstance(self.validation, float) else None

    @property
    def given(self) -> dict[str, Any]:
        """Settings for raw sources that were set, whatever they say."""
        names = {"scale", "standardize", "shuffle", "chunk_rows"} & self.model_fields_set
        return {name: getattr(self, name) for name in sorted(names)} | self.tables

    @field_validator("chunk_rows", mode="before")
    @classmethod
    def _are_rows(cls, value: Any) -> Any:
        if value not in (None, "auto") and (type(value) is not int or value < 1):
            raise ValueError('write "auto", or how many rows')
        return value


class TrainingTable(Table):
    """`[training]`: the schedule and when to stop."""

    schedule: ScheduleName = "auto"
    """"auto" are K-FAC steps, and windows for L1 and multipliers."""
    group_chunks: Count | None = None
    """Chunks that are visited between two solves for W; by default 1, and for K-FAC steps as many as hold about 2,000
    samples (1,000 sequences), one at least, or more on many workers. A chunk is shared by several tasks where it keeps
    more of them busy; or see `chunk_steps`."""
    chunk_steps: Count | None = None
    """K-FAC steps that the task of a chunk takes one after the other, each on a part of it. Given, they stay as many;
    by default there are as many at first as a chunk has times 2,000 samples (1,000 sequences), and half as many each
    time that steps turn out to go by noise. Where they are several, a group is of chunks that are gone through at a
    time, and the mean of what becomes of them is gone on from: by default one, and on a cluster as many as it has
    threads, up to 8 and a quarter of all chunks."""
    first_window: Count | None = None
    """Groups in the first window; by default about 10 samples for each unknown of a row of W."""
    window_passes: Count = 4
    """Passes over a window before it doubles."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """How many groups may be under way with weights that others have moved meanwhile (K-FAC), so that workers do
    not wait for each other. Steps are then taken as groups finish, and what is computed depends on timing."""
    averaging: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Share of the running mean of the weights that stays in a step (K-FAC); the mean is what is kept."""
    max_sweeps: Positive | None = None
    """How many times every sample is visited, at most. By default 10, for L1 and multipliers 80, and for K-FAC steps
    20 or as many as 300 steps take."""
    max_cpu_seconds: Positive | None = None
    """Processor seconds of training, on all processes, after which it ends; by default there is no limit."""
    n_iter_no_change: Count | None = 10
    """Training stops when the nested loss (of the validation samples, or if there are none with the ridge) has not
    improved by `tol` in so many records; as many as there are records never do, nor (behind --set) none."""
    tol: NonNegative = 1e-3
    """Relative improvement of the best loss that counts."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides the first weights, the order of rows and groups, and the samples held out."""
    evaluation_rows: Count | None = None
    """About how many training rows the nested loss of a record is taken over; by default 10,000, or 2,500 where there
    are validation samples, which judge."""
    evaluation_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """About how much of the time of training evaluation may take besides (K-FAC): where a record costs more they are
    further apart, but for the first few, and no further than a pass, or eight steps where a pass has fewer: eight
    sweeps of data that are one group."""


class ClusterTable(Table):
    """`[cluster]`: where the tasks run when no --scheduler is given."""

    kind: Literal["threads", "local"] = "threads"
    """Threads of this process, or a cluster of processes on this machine."""
    workers: Count | None = None
    """Threads, or processes of a local cluster; by default as many as there are cores."""
    threads_per_worker: Count = 1
    """Threads of each process of a local cluster."""
    memory_limit: str = "auto"
    """Memory of each worker, e.g. "2 GiB"; "auto" is its share of the machine."""
    dashboard: Annotated[str, Field(pattern=r"^[^\s:/]*:\d{1,5}$")] = ":8787"
    """Address of a local cluster's dashboard; ":0" for any free port."""
    patience: Positive = 300.0
    """Seconds that a step, or the start, waits for a worker where there is none, or none that could do it."""
    connect_timeout: Positive = 10.0
    """Seconds in which a scheduler that was named has to answer."""
    split_every: Annotated[int, Field(ge=2)] = 4
    """Statistics that are added up in one task of the tree."""

    @field_validator("memory_limit", mode="before")
    @classmethod
    def _has_a_unit(cls, value: Any) -> Any:
        number = str(value)
        if type(value) in (int, float) or (number.isdecimal() and int(number) < 1 << 20):
            raise ValueError(f"write a size such as '{number} {'MiB' if float(number) < 1e6 else 'B'}'")
        return value

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
    """Folder or URL under which z, and weights on their way to tasks, are kept, such as s3://bucket/scratch; by default
    the run folder."""
    report: bool = True
    """Whether the report is written when training has ended."""
    performance: bool = False
    """Whether Dask's performance report of the training is left in the report folder; on a cluster."""
    title: str | None = None
    """What report and page call the run; by default the folder's name."""
