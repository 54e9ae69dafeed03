"""Every setting that a pipeline leaves open, resolved once: into what is run, recorded in the run folder, and shown.

What depends on the kind of layers, loss or penalty is declared beside these, with the row of benchmarks/LOG.md it comes
from (`altmin_dask.networks.defaults`, `altmin_dask.networks.losses`, `altmin_dask.solvers.penalties`); what depends on
how training goes stands here. The schedule is the first of the penalty's, and `[network]` says itself what activations
and initialization are: settings are checked against these before there are any data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from altmin_dask.config import MuSchedule, Pipeline
from altmin_dask.networks.network import Network
from altmin_dask.solvers.kfac import default_input_damping, default_output_damping
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import Geometric, mu_at
from altmin_dask.training.grouping import SPREAD

KFAC_SWEEPS, KFAC_STEPS = 20.0, 300
"""K-FAC steps go on for so many sweeps, or for as many as so many steps take: on small tables the steps are few in a
sweep (row 46 of benchmarks/LOG.md)."""
SAMPLES_PER_UNKNOWN = 10
"""How many samples for each unknown of a row of W the first window holds: fewer ruin the first solve for good (DESIGN,
section 5)."""
ROWS_PER_CLASS = 2
"""A group of a K-FAC step has so many rows for each class at least: a step that has not seen a class rules it out, and
is taken back by the next group (row 67)."""
MODEL_ROWS = 8192
"""The model along a K-FAC step is measured on so many samples of a group at most: its noise is small then (row 43)."""


DEFAULT_LOSS = {"inputs": "squared", "labels": "cross_entropy", "real": "squared"}
"""By what the output is compared with."""


@dataclass(frozen=True)
class Settings:
    """What is run where a pipeline leaves it open: nothing is "auto", and None says that there is no such thing.

    Attributes
    ----------
    schedule : str
        How sweeps over the chunks go; decides the algorithm.
    initialization : str
        How weights begin.
    activation : tuple of str
        φ_1 … φ_{L−1}.
    output_activation, loss : str
        φ_L, and the loss.
    loss_at : {"every", "last"} or None
        Where a sequence has targets; None where samples are no sequences.
    outputs : int
        Units of the last layer: of a classifier, its classes.
    mu : float, tuple of float, Geometric or None
        μ of all layers, of each, or by pass; None is the limit of exact constraints.
    rho : tuple of float or None
        ρ_1 … ρ_L that ADMM begins with, where the penalty is split.
    proximal : float
        ρ of the steps relative to the mean diagonal of a Gram matrix.
    output_damping : float or None
        σ of K-FAC steps.
    chunk_rows : int
        Rows in a chunk.
    group_chunks : int
        Chunks of a group.
    first_window : int or None
        Groups in the first window, where there are windows.
    model_every : int or None
        On every so many-th sample of a group the model along a K-FAC step is measured.
    max_sweeps : float
        Sample visits per sample after which training ends.
    """

    schedule: str
    initialization: str
    activation: tuple[str, ...]
    output_activation: str
    loss: str
    loss_at: str | None
    outputs: int
    mu: float | tuple[float, ...] | Geometric | None
    rho: tuple[float, ...] | None
    proximal: float
    output_damping: float | None
    chunk_rows: int
    group_chunks: int
    first_window: int | None
    model_every: int | None
    max_sweeps: float

    def mu_in_pass(self, layers: int, number: int) -> tuple[float, ...] | None:
        """μ_1 … μ_L of a pass; None for the limit of exact constraints."""
        return None if self.mu is None else mu_at(self.mu, layers, number)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


PLACES = {
    "data": ("chunk_rows",),
    "network": ("activation", "output_activation", "loss", "loss_at", "initialization", "outputs"),
    "solver": ("mu", "rho", "proximal", "output_damping"),
    "training": ("schedule", "group_chunks", "first_window", "model_every", "max_sweeps"),
}
"""Under which table of a pipeline each of `Settings` is shown."""


def resolve(
    pipeline: Pipeline, network: Network, rows: int, chunk_rows: int, *, shuffled: bool = True
) -> Settings:
    """Resolve everything that a pipeline leaves open.

    Parameters
    ----------
    pipeline : Pipeline
        What was asked for.
    network : Network
        That fits the data.
    rows, chunk_rows : int
        Samples for training, and those in a chunk.
    shuffled : bool
        Whether chunks are all alike (`SampleStore.shuffled`).

    Examples
    --------
    >>> from altmin_dask.config import make_pipeline
    >>> from altmin_dask.networks.builders import dense_network
    >>> pipeline = make_pipeline({"data": {"train": "digits"}, "network": {"kind": "autoencoder"}})
    >>> settings = resolve(pipeline, dense_network([64, 100, 64], "sigmoid", "squared"), 1797, 1797)
    >>> settings.schedule, settings.mu, settings.group_chunks, settings.max_sweeps
    ('kfac', None, 2, 300)
    """
    solver = pipeline.solver
    kfac, penalty = pipeline.uses_kfac, PENALTIES[solver.penalty]
    groups_of = group_chunks(pipeline, network, rows, chunk_rows)
    group_rows = min(groups_of * chunk_rows, rows)
    groups = math.ceil(math.ceil(rows / chunk_rows) / groups_of)
    mu = None if not pipeline.keeps_z and solver.mu == "auto" else finite_mu(pipeline, network)
    rho = None
    if penalty.per_sample_state and mu is not None:
        rho = penalty.initial_rho(network, mu_at(mu, len(network.widths), 0), solver.augmentation)
    return Settings(
        schedule=pipeline.schedule,
        initialization=pipeline.network.start,
        activation=tuple(activation.name for activation in network.activations),
        output_activation=network.loss.output_activation,
        loss=network.loss.name,
        loss_at=None if network.sequence_steps is None else "every" if network.every else "last",
        outputs=network.sizes[-1],
        mu=mu,
        rho=rho,
        proximal=_proximal(pipeline, network, group_rows),
        output_damping=(solver.output_damping or default_output_damping(network)) if kfac else None,
        chunk_rows=chunk_rows,
        group_chunks=groups_of,
        first_window=_first_window(
            pipeline, network, groups_of * chunk_rows, 1 if shuffled else SPREAD // groups_of
        ),
        model_every=model_every(group_rows, network) if kfac else None,
        max_sweeps=_max_sweeps(pipeline, groups),
    )


def default_loss(loss: str | None, output_activation: str | None, target: str) -> tuple[str, str | None]:
    """The loss, and the output's activation if it is not the loss's own: samples in [0, 1] are what is encoded."""
    loss = loss or DEFAULT_LOSS[target]
    if output_activation is None and target == "inputs" and loss == "squared":
        output_activation = "sigmoid"
    return loss, output_activation


def finite_mu(pipeline: Pipeline, network: Network) -> float | tuple[float, ...] | Geometric:
    """μ as `altmin_dask.solvers.schedules.mu_at` takes it, where it is finite."""
    mu = pipeline.solver.mu
    if isinstance(mu, MuSchedule):
        return Geometric(mu.start, mu.factor, mu.stop)
    return PENALTIES[pipeline.solver.penalty].default_mu(network) if mu == "auto" else mu


def group_chunks(pipeline: Pipeline, network: Network, rows: int, chunk_rows: int) -> int:
    """How many chunks make a step: all in batch sweeps, else one, or as many as K-FAC steps want samples."""
    if pipeline.schedule == "batch":
        return math.ceil(rows / chunk_rows)
    wanted = 1
    if pipeline.uses_kfac:
        classes = network.sizes[-1] if network.loss.target == "labels" else 0
        wanted = max(network.defaults.group_rows, ROWS_PER_CLASS * classes)
    return pipeline.training.group_chunks or math.ceil(wanted / chunk_rows)


def model_every(rows: int, network: Network) -> int:
    """Which part of a group of so many samples the model along the step is measured on: every so many-th."""
    least, every = network.defaults.model_rows, network.defaults.model_every
    return max(1, min(every, rows // least), math.ceil(rows / MODEL_ROWS))


def _proximal(pipeline: Pipeline, network: Network, group_rows: int) -> float:
    """None where z persists: there every solve is over all samples."""
    given = pipeline.solver.proximal
    if given is None:
        return default_input_damping(network, group_rows) if pipeline.uses_kfac else 0.0
    return given


def _first_window(pipeline: Pipeline, network: Network, group_rows: int, least: int) -> int | None:
    if pipeline.schedule != "windows":
        return None
    needed = SAMPLES_PER_UNKNOWN * max(k for _, k in network.shapes)
    return pipeline.training.first_window or max(least, math.ceil(needed / group_rows))


def _max_sweeps(pipeline: Pipeline, groups: int) -> float:
    if pipeline.training.max_sweeps is not None:
        return pipeline.training.max_sweeps
    if pipeline.uses_kfac:
        return max(KFAC_SWEEPS, math.ceil(KFAC_STEPS / groups))
    return PENALTIES[pipeline.solver.penalty].sweeps


def left_open(pipeline: Mapping[str, Any], resolved: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Table, key and value of what a pipeline leaves open and applies to it, both JSON-ready."""
    for table, names in PLACES.items():
        given = pipeline.get(table, {})
        for name in names:
            value = resolved.get(name)
            if value is not None and given.get(name) in (None, "auto"):
                yield table, name, value
    if resolved and resolved.get("mu") is None:
        yield "solver", "mu", "∞"
