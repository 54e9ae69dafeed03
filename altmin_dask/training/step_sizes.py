"""How many rows a step is made from, in how many chunks, and where it is computed: what follows from sizes alone."""

from __future__ import annotations

import math

from altmin_dask.config import Pipeline
from altmin_dask.errors import ConfigError
from altmin_dask.execution.pieces import pieces_of
from altmin_dask.execution.resources import Resources
from altmin_dask.networks.network import Network
from altmin_dask.solvers.kronecker import Forms
from altmin_dask.solvers.local_steps import remembered_numbers

NOISE_ROWS = 2.5
"""In groups of a default group's rows, as many rows as make the noise of a step as large as what it goes by: so many
times as many steps are taken as without noise, plus one (row 71 of benchmarks/LOG.md)."""
MOST_ROWS = 4.0
"""Of those rows a group has so many times as many at most: a quarter more steps than without noise are taken then."""
MOST_PATHS, LEAST_ROUNDS = 8, 4
"""So many chunks at most are gone through at a time in several steps each, and no more than one in so many of all (row
109; the latter chosen, not measured)."""
LEAST_STEPS = 8
"""A sweep has so many steps at least."""
FLOPS, ROW_SECONDS = 4e10, 1e-6
"""About what a core multiplies in a second, and what a row takes besides."""
PIECES_OF_GROUP = 4
"""A chunk is computed in pieces of a quarter of a default group's rows, or more (chosen, not measured)."""
ROWS_PER_CLASS = 2
"""A group of a K-FAC step has so many rows for each class at least: a step that has not seen a class rules it out, and
is taken back by the next group (row 67)."""
MODEL_ROWS = 8192
"""The model along a K-FAC step is measured on so many samples of a group at most: its noise is small then (row 43)."""

MOST_NUMBERS = 4_000_000
"""What is remembered from step to step is sent and fetched for every task: no more than so many numbers."""


def chunk_steps(pipeline: Pipeline, network: Network, rows: int, chunk_rows: int) -> int:
    """How many steps are taken on a chunk where it is: as many as it has times the rows that a step wants.

    One where it has not, or steps are taken as groups finish, or of rows that are known one by one.

    Raises
    ------
    ConfigError
        If several are asked for of such rows.
    """
    training = pipeline.training
    if (training.chunk_steps or 1) > 1 and Forms.of(network, rows).rows:
        raise ConfigError(
            f"training.chunk_steps = {training.chunk_steps} is not for samples of many more values than there are "
            "rows, where a step knows each row by itself; leave it out"
        )
    if not pipeline.uses_kfac or training.max_staleness or Forms.of(network, rows).rows:
        return 1
    if training.chunk_steps:
        return min(training.chunk_steps, chunk_rows, rows)
    return steps_of(min(chunk_rows, rows), step_rows(network))


def steps_of(chunk_rows: int, step_rows: int) -> int:
    """How often a chunk has the rows of a step."""
    return max(1, round(chunk_rows / step_rows))


def group_chunks(
    pipeline: Pipeline, network: Network, rows: int, chunk_rows: int, place: Resources | None = None
) -> int:
    """How many chunks make a group: all in batch sweeps, else one, or as many as K-FAC steps want samples.

    Where several steps are taken on a chunk it is the `paths` that there are at a time.
    """
    if pipeline.training.group_chunks or pipeline.schedule == "batch" or not pipeline.uses_kfac:
        chunks = math.ceil(rows / chunk_rows)
        return chunks if pipeline.schedule == "batch" else pipeline.training.group_chunks or 1
    if chunk_steps(pipeline, network, rows, chunk_rows) > 1:
        threads = 1 if place is None or place.in_process else place.workers * place.threads
        return paths(math.ceil(rows / chunk_rows), threads)
    return math.ceil(group_rows(network, rows, place) / chunk_rows)


def paths(chunks: int, threads: int) -> int:
    """How many chunks are gone through at a time in several steps each, with as many threads on a cluster.

    More than `MOST_PATHS` bring little, and a pass wants `LEAST_ROUNDS` of them. In this process it is one, so that
    what is computed depends on no machine.
    """
    return max(1, min(threads, MOST_PATHS, chunks // LEAST_ROUNDS))


def step_rows(network: Network) -> int:
    """About how many samples a K-FAC step begins with."""
    classes = network.sizes[-1] if network.loss.target == "labels" else 0
    return max(network.defaults.group_rows, ROWS_PER_CLASS * classes)


def halved(steps: int) -> list[int]:
    """How many steps there are on a chunk, from so many on, as they get twice as many rows, until it is one."""
    counts = [steps]
    while counts[-1] > 1:
        counts.append(round(counts[-1] / 2))
    return counts


def group_rows(network: Network, rows: int, place: Resources | None = None) -> int:
    """About how many samples a K-FAC step is made from.

    To a given loss it takes S (1 + G*/G) steps of G rows: beyond G*, `NOISE_ROWS` default groups, noise is no longer
    what limits a step. With K threads in all, c seconds a row and t seconds that all of them wait, for messages and the
    solve, S (1 + G*/G) (t + c G/K) is least for G = √(G* K t / c). On workers of a cluster that is what a group has if
    it is more than by default, up to `MOST_ROWS` G*; in this process, where t is small, always the default.
    """
    default = step_rows(network)
    if place is None or place.in_process:
        return default
    noise = NOISE_ROWS * default
    row = 6 * sum(layer.size * layer.inputs for layer in network.layers) / FLOPS + ROW_SECONDS
    solve = sum(2 * d * k * (d + k) for d, k in network.shapes) / FLOPS
    best = math.sqrt(noise * place.workers * place.threads * (place.latency + solve) / row)
    return max(default, int(min(best, MOST_ROWS * noise, rows / LEAST_STEPS)))


def may_join(network: Network, forms: Forms, group_chunks: int, chunk_steps: int, max_staleness: int) -> bool:
    """Whether one task of a cluster may take the steps of several groups (`altmin_dask.training.together`).

    They are of a chunk each, one after the other, and not too much is remembered from step to step.
    """
    alone = group_chunks == chunk_steps == 1 and not max_staleness and not forms.rows
    return alone and remembered_numbers(network.shapes, forms) <= MOST_NUMBERS


def piece_rows(network: Network) -> int:
    """So many rows at least are computed together."""
    return network.defaults.group_rows // PIECES_OF_GROUP


def pieces(network: Network, chunk_rows: int, steps: int) -> int:
    """Of a chunk; steps that are taken where it is are not shared."""
    return 1 if steps > 1 else pieces_of(chunk_rows, piece_rows(network))


def model_every(rows: int, network: Network) -> int:
    """Which part of a group of so many samples the model along the step is measured on: every so many-th."""
    least, every = network.defaults.model_rows, network.defaults.model_every
    return max(1, min(every, rows // least), math.ceil(rows / MODEL_ROWS))
