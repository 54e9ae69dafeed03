"""Every setting that a pipeline leaves open, resolved once: into what is run, recorded in the run folder, and shown.

What depends on the kind of layers, loss or penalty is declared beside these, with the row of benchmarks/LOG.md it comes
from (`altmin_dask.networks.defaults`, `altmin_dask.networks.losses`, `altmin_dask.solvers.penalties`); what depends on
how training goes stands here. The schedule is the first of the penalty's, and `[network]` says itself what activations
and initialization are: settings are checked against these before there are any data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from altmin_dask.config import MuSchedule, Pipeline
from altmin_dask.execution.resources import Resources
from altmin_dask.networks.network import Network
from altmin_dask.solvers.kfac_defaults import (
    default_input_damping,
    default_output_damping,
    default_weight_decay,
    unknowns_per_number,
)
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import Geometric, mu_at
from altmin_dask.training.grouping import SPREAD
from altmin_dask.training.step_sizes import chunk_steps, group_chunks, model_every, pieces

KFAC_SWEEPS, KFAC_STEPS = 20.0, 300
"""K-FAC steps go on for so many sweeps, or for as many as so many steps take: on small tables the steps are few in a
sweep (row 46 of benchmarks/LOG.md)."""
SAMPLES_PER_UNKNOWN = 10
"""How many samples for each unknown of a row of W the first window holds: fewer ruin the first solve for good (DESIGN,
section 5)."""
EVALUATED_ALONE, EVALUATED_BESIDE = 10_000, 2_500
"""Training rows of a record, about: where they decide when training stops, and where validation samples do."""
SHALLOW_OF_INPUTS, DEEP_OF_INPUTS = 1 / 3, 10 / 3
"""Of the loss's σ auto-encoders by squared error begin with so much, of one hidden layer and of more (rows 88 and 97 of
benchmarks/LOG.md)."""
POWERS_OF_INPUTS, POWERS_OF_TARGETS = (0.5, 0.0), (1.0, 1.6)
"""With which powers of what is left of squared errors σ and δ fall: of auto-encoders, of regressors (rows 97, 114)."""
DECAY_OF_INPUTS, MOST_DECAY_OF_INPUTS = 0.05, 0.2
"""δ of auto-encoders for one unknown per target number, and at most (row 97): inputs have no noise that could be
fitted, but a start that is better forgotten."""


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
    ridge : float
        λ of λ Σ_i ‖W̃_i‖² beside the sum of all losses.
    proximal : float
        ρ of the steps relative to the mean diagonal of a Gram matrix.
    output_damping : float or None
        σ of K-FAC steps.
    weight_decay : float or None
        δ of K-FAC steps.
    loss_powers : tuple of float, (2,), or None
        With which powers of what is left of the loss σ and δ fall.
    chunk_rows : int
        Rows in a chunk.
    group_chunks : int
        Chunks of a group.
    chunk_steps : int or None
        Steps that are taken on a chunk, one after the other, where it is (`altmin_dask.solvers.local_steps`); where
        that is 1 a group makes one step.
    first_window : int or None
        Groups in the first window, where there are windows.
    pieces : int or None
        Pieces that each chunk of a group is computed in by K-FAC steps; see `altmin_dask.execution.pieces`.
    model_every : int or None
        On every so many-th sample of a group the model along a K-FAC step is measured.
    max_sweeps : float
        Sample visits per sample after which training ends.
    evaluation_rows : int
        About how many training rows a record's nested loss is taken over.
    standardize : {"none", "inputs", "targets", "both"}, or None
        What is standardized within the network; None before samples have been looked at.
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
    ridge: float
    proximal: float
    output_damping: float | None
    weight_decay: float | None
    loss_powers: tuple[float, float] | None
    chunk_rows: int
    group_chunks: int
    chunk_steps: int | None
    first_window: int | None
    pieces: int | None
    model_every: int | None
    max_sweeps: float
    evaluation_rows: int
    standardize: str | None = None

    def mu_in_pass(self, layers: int, number: int) -> tuple[float, ...] | None:
        """μ_1 … μ_L of a pass; None for the limit of exact constraints."""
        return None if self.mu is None else mu_at(self.mu, layers, number)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


PLACES = {
    "data": ("chunk_rows",),
    "network": (
        "activation",
        "output_activation",
        "loss",
        "loss_at",
        "initialization",
        "outputs",
        "standardize",
    ),
    "solver": ("mu", "rho", "ridge", "proximal", "output_damping", "weight_decay", "loss_powers"),
    "training": (
        "schedule",
        "group_chunks",
        "chunk_steps",
        "first_window",
        "pieces",
        "model_every",
        "max_sweeps",
        "evaluation_rows",
    ),
}
"""Under which table of a pipeline each of `Settings` is shown."""
_DAMPING = "proximal", "output_damping", "weight_decay"


def resolve(
    pipeline: Pipeline,
    network: Network,
    rows: int,
    chunk_rows: int,
    *,
    samples: float | None = None,
    shuffled: bool = True,
    place: Resources | None = None,
    begun: Mapping[str, Any] | None = None,
) -> Settings:
    """Resolve everything that a pipeline leaves open.

    Parameters
    ----------
    pipeline, network : Pipeline, Network
        What was asked for, and what fits the data.
    rows, chunk_rows, samples, shuffled : int, int, float, bool
        Samples for training, in a chunk, and that the ridge is shared by (by default `rows`); whether chunks are alike.
    place, begun : Resources, mapping, optional
        Where tasks will run; what was resolved when a run began that goes on: its groups and damping stay.

    Examples
    --------
    >>> from altmin_dask.config import make_pipeline
    >>> from altmin_dask.networks.builders import dense_network
    >>> pipeline = make_pipeline({"data": {"train": "digits"}, "network": {"kind": "autoencoder"}})
    >>> settings = resolve(pipeline, dense_network([64, 100, 64], "sigmoid", "squared"), 1797, 1797)
    >>> settings.schedule, settings.mu, settings.group_chunks, settings.max_sweeps
    ('kfac', None, 2, 300)
    """
    kfac = pipeline.uses_kfac
    groups_of, steps = _sizes(pipeline, network, rows, chunk_rows, place, begun)
    in_group = min(groups_of * chunk_rows, rows) if steps == 1 else max(1, min(chunk_rows, rows) // steps)
    mu = None if not pipeline.keeps_z and pipeline.solver.mu == "auto" else finite_mu(pipeline, network)
    found = Settings(
        schedule=pipeline.schedule,
        initialization=pipeline.network.start,
        activation=tuple(activation.name for activation in network.activations),
        output_activation=network.loss.output_activation,
        loss=network.loss.name,
        loss_at=None if network.sequence_steps is None else "every" if network.every else "last",
        outputs=network.sizes[-1],
        mu=mu,
        rho=_initial_rho(pipeline, network, mu),
        ridge=pipeline.ridge,
        proximal=_proximal(pipeline, network, in_group),
        output_damping=_output_damping(pipeline, network, in_group),
        weight_decay=_weight_decay(pipeline, network, samples or rows),
        loss_powers=_loss_powers(pipeline, network),
        chunk_rows=chunk_rows,
        group_chunks=groups_of,
        chunk_steps=steps if kfac else None,
        first_window=_first_window(pipeline, network, groups_of, chunk_rows, shuffled),
        pieces=pieces(network, min(chunk_rows, rows), steps) if kfac else None,
        model_every=model_every(in_group, network) if kfac else None,
        max_sweeps=_max_sweeps(pipeline, steps * math.ceil(math.ceil(rows / chunk_rows) / groups_of)),
        evaluation_rows=pipeline.training.evaluation_rows or _evaluation_rows(pipeline),
    )
    return replace(found, **_as_it_began(pipeline, found, begun or {}))


def _sizes(
    pipeline: Pipeline,
    network: Network,
    rows: int,
    chunk_rows: int,
    place: Resources | None,
    begun: Mapping[str, Any] | None,
) -> tuple[int, int]:
    """Chunks of a group, and steps on each; in runs that are older than these one."""
    if begun and begun.get("group_chunks"):
        return begun["group_chunks"], begun.get("chunk_steps") or 1
    steps = chunk_steps(pipeline, network, rows, chunk_rows)
    return group_chunks(pipeline, network, rows, chunk_rows, place), steps


def _as_it_began(pipeline: Pipeline, found: Settings, begun: Mapping[str, Any]) -> dict[str, Any]:
    """How steps are damped in a run that goes on, where it is left open: by the rules of when it began."""
    if not pipeline.uses_kfac or "proximal" not in begun:
        return {}
    # decay is younger than some runs, and which powers there are than others: then only regressors' damping fell
    falls = pipeline.network.target != "inputs" and found.loss_powers != (0.0, 0.0)
    powers = (1.0, 1.0) if falls else (0.0, 0.0)
    known = {"weight_decay": 0.0, "loss_powers": powers, **begun}
    left_open = (name for name in _DAMPING if getattr(pipeline.solver, name) is None)
    kept = {name: known[name] for name in left_open if known.get(name) is not None}
    return {"loss_powers": tuple(known["loss_powers"]), **kept}


def _evaluation_rows(pipeline: Pipeline) -> int:
    return EVALUATED_ALONE if pipeline.data.validation is None else EVALUATED_BESIDE


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


def _initial_rho(pipeline: Pipeline, network: Network, mu: Any) -> tuple[float, ...] | None:
    """None where residuals are not split, or there are none."""
    penalty = PENALTIES[pipeline.solver.penalty]
    if not penalty.per_sample_state or mu is None:
        return None
    return penalty.initial_rho(network, mu_at(mu, len(network.widths), 0), pipeline.solver.augmentation)


def _proximal(pipeline: Pipeline, network: Network, group_rows: int) -> float:
    """None where z persists: there every solve is over all samples."""
    given = pipeline.solver.proximal
    if given is None:
        return default_input_damping(network, group_rows) if pipeline.uses_kfac else 0.0
    return given


def _output_damping(pipeline: Pipeline, network: Network, group_rows: int) -> float | None:
    """None where z persists."""
    if not pipeline.uses_kfac:
        return None
    share = 1.0
    if pipeline.network.target == "inputs" and network.loss.damped_by_loss:
        # of a start layer by layer little is left to fall from
        deep = 1.0 if pipeline.network.start == "layerwise" else DEEP_OF_INPUTS
        share = SHALLOW_OF_INPUTS if len(network.shapes) <= 2 else deep
    return pipeline.solver.output_damping or share * default_output_damping(network, group_rows)


def _weight_decay(pipeline: Pipeline, network: Network, samples: float) -> float | None:
    """None where z persists."""
    if not pipeline.uses_kfac:
        return None
    if (given := pipeline.solver.weight_decay) is not None:
        return given
    if pipeline.network.target == "inputs":
        share = DECAY_OF_INPUTS * math.sqrt(unknowns_per_number(network, samples))
        return min(share, MOST_DECAY_OF_INPUTS)
    return default_weight_decay(network, samples)


def _loss_powers(pipeline: Pipeline, network: Network) -> tuple[float, float] | None:
    """None where z persists; nought where the loss does not say how much noise there is."""
    if not pipeline.uses_kfac:
        return None
    if not network.loss.damped_by_loss:
        return 0.0, 0.0
    return POWERS_OF_INPUTS if pipeline.network.target == "inputs" else POWERS_OF_TARGETS


def _first_window(
    pipeline: Pipeline, network: Network, groups_of: int, chunk_rows: int, shuffled: bool
) -> int | None:
    if pipeline.schedule != "windows":
        return None
    needed = SAMPLES_PER_UNKNOWN * max(k for _, k in network.shapes)
    least = 1 if shuffled else SPREAD // groups_of
    return pipeline.training.first_window or max(least, math.ceil(needed / (groups_of * chunk_rows)))


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
