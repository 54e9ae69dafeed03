"""The training loop: carries out a schedule's actions on an executor and commits after each."""

from __future__ import annotations

import math
import time
import uuid
import warnings
from collections.abc import Callable
from functools import partial
from itertools import count, islice
from typing import Any

import dask.array as da
import numpy as np

from altmin_dask.config import Pipeline
from altmin_dask.engine import sweep
from altmin_dask.engine.blas import single_threaded_blas
from altmin_dask.engine.executors import Executor
from altmin_dask.engine.faults import explained_faults
from altmin_dask.engine.interrupts import deferred_interrupts
from altmin_dask.engine.problem import Problem, mu_of
from altmin_dask.engine.progress import Clock, Observer, Progress
from altmin_dask.engine.sweep import Samples, Step
from altmin_dask.errors import ChunkError, RepairWarning, RunError
from altmin_dask.networks.activations import Array
from altmin_dask.networks.chain import Weights
from altmin_dask.networks.whitening import whitened_weights
from altmin_dask.solvers.chunks import Evaluation
from altmin_dask.solvers.ridge import RidgeSystem, ridge_system
from altmin_dask.solvers.schedules import Enter, Record, Visit, penalties, window_schedule
from altmin_dask.solvers.statistics import Statistics
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.model import Model
from altmin_dask.storage.readers import is_url
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.state import State
from altmin_dask.storage.weights import publish_weights

SAMPLES_PER_UNKNOWN = 10
"""How many samples for each unknown of a row of W the first window holds: fewer ruin the first solve for good."""


class Trainer:
    """One run, from its last committed state on.

    Parameters
    ----------
    pipeline : Pipeline
        All settings.
    problem : Problem
        The checked data and network.
    run : RunFolder
        Where everything is kept; already claimed.
    executor : Executor
        Where the tasks run.
    observer : Observer
        Told about progress and records.
    """

    def __init__(
        self, pipeline: Pipeline, problem: Problem, run: RunFolder, executor: Executor, observer: Observer
    ) -> None:
        self.pipeline, self.problem, self.run, self.executor = pipeline, problem, run, executor
        self.observer = observer
        training, store, network = pipeline.training, problem.train.store, problem.kernel.network
        self.rows = store.rows
        self.latent = LatentStore(
            run.latent,
            store.rows,
            sum(network.widths),
            store.chunk_rows,
            problem.kernel.dtype,
        )
        order = np.arange(store.n_chunks)
        size = store.n_chunks
        if training.schedule != "batch":
            order = np.random.default_rng([training.seed, 1]).permutation(order)
            size = training.group_chunks
        self.groups = tuple(
            tuple(int(i) for i in order[start : start + size]) for start in range(0, len(order), size)
        )
        first = len(self.groups)
        if training.schedule == "windows":
            needed = SAMPLES_PER_UNKNOWN * max(k for _, k in network.shapes)
            first = training.first_window or math.ceil(needed / (size * store.chunk_rows))
        self.first_window = first
        self.actions = partial(window_schedule, len(self.groups), first, training.window_passes)
        self.first_system: tuple[tuple[float, float], RidgeSystem] | None = None
        self.key, self.steps, self.weights_file = uuid.uuid4().hex[:8], count(), ""
        self.evaluated = tuple(
            int(i) for i in order[: max(1, math.ceil(training.evaluation_rows / store.chunk_rows))]
        )

    def train(self) -> list[dict[str, Any]]:
        """Go on until a limit of `[training]` is reached; returns all records of the run.

        Raises
        ------
        RunError
            If the loss or the weights stop being finite.
        FaultError
            If a disk, a worker or the scheduler fails.
        ChunkError
            If samples were altered or lost.
        KeyboardInterrupt
            After the step in flight has been committed, or at once if interrupted twice.
        """
        with (
            explained_faults(str(self.run.path)),
            single_threaded_blas(),
            deferred_interrupts() as check_interrupted,
        ):
            self._train(check_interrupted)
        return self.run.records()

    def _train(self, check_interrupted: Callable[[], None]) -> None:
        self.mark = Clock.now(self.executor)
        self._restore()
        self.begun = self.mark, self.state.visits
        self.last = (self.run.records() or [{}])[-1]
        # a run that is resumed with nothing left to do is not recorded once more
        recorded_at = round(self.last["sweep"] * self.rows) if self.last else -1
        for action in islice(self.actions(), self.state.cursor, None):
            if isinstance(action, Record):
                recorded_at = self.state.visits
                self._record()
            elif self._finished():
                break
            elif isinstance(action, Enter):
                self._enter(action)
            else:
                self._visit(action)
            self.state.cursor += 1
            self._commit()
            if isinstance(action, Visit):
                self._discard(action.group)
            check_interrupted()
        if recorded_at != self.state.visits:
            self._record()
            self._commit()

    def _restore(self) -> None:
        """Take up the last committed state, and remove what was written after it."""
        self.run.sweep()
        state = self.run.restore()
        generations = np.full(len(self.groups), -1) if state is None else state.generations
        self.latent.sweep(
            {
                chunk: int(generation)
                for group, generation in zip(self.groups, generations, strict=True)
                for chunk in group
                if generation >= 0
            }
        )
        if state is None:
            weights = self._initial_weights()
            statistics = Statistics(self.problem.kernel.network.shapes, with_inputs=True)
            state = State(weights, statistics, generations)
        self.state = state
        self._commit()
        if state.stale:
            self._renew_statistics()

    def _commit(self) -> None:
        """Make the state the one to go on from, and its weights those of the next step."""
        self.weights_file = str(self.run.commit(self.state))
        if is_url(self.latent.path):
            self.weights_file = publish_weights(
                self.state.weights, f"{self.latent.path}/weights", self.state.cursor
            )

    def _discard(self, group: int) -> None:
        """Remove the z that the committed one of a group has taken the place of."""
        old = self.state.generations[group] - 1
        self.latent.discard(int(old), self.groups[group], whole=old not in self.state.generations)

    def _compute(self, make: Callable[[Step], da.Array], samples: Samples, chunks: tuple[int, ...]) -> Array:
        """Carry out a step; where z was lost or altered meanwhile, make it anew first."""
        while True:
            step = Step(
                self.problem.kernel, samples, chunks, f"{self.key}-{next(self.steps)}",
                self.weights_file, self.pipeline.cluster.split_every,
            )  # fmt: skip
            try:
                result: Array = self.executor.compute(make(step))
                return result
            except ChunkError as error:
                self._repair(error)

    def _repair(self, error: ChunkError) -> None:
        """Make a chunk of z anew by a forward pass, and the sums that it is part of.

        Raises
        ------
        ChunkError
            If it is a chunk of the samples.
        """
        group = next((g for g, chunks in enumerate(self.groups) if error.chunk in chunks), None)
        if group is None or self.latent.location(int(self.state.generations[group])) != error.location:
            raise error
        warnings.warn(
            f"chunk {error.chunk} of z in {error.location} {error.reason}; "
            "it is made anew by a forward pass, so the run may differ from one without the damage",
            RepairWarning,
            stacklevel=2,
        )
        self.state.stale = True  # from now on, until the sums are those of the new z
        self._commit()
        generation = int(self.state.generations[group])
        self._compute(
            lambda step: sweep.enter(step, self.latent, generation), self.problem.train, (error.chunk,)
        )
        self._renew_statistics()

    def _renew_statistics(self) -> None:
        """Sum the statistics of all z anew."""
        statistics = Statistics(self.problem.kernel.network.shapes, with_inputs=True)
        for group, generation in enumerate(self.state.generations):
            if generation >= 0:
                statistics.merge(self._unpack(self._collect(group, int(generation)), with_inputs=True))
        statistics.diagnostics[:] = self.state.statistics.diagnostics
        self.state.statistics, self.state.stale = statistics, False
        self.first_system = None
        self._commit()

    def _collect(self, group: int, generation: int) -> Array:
        return self._compute(
            lambda step: sweep.collect(step, self.latent, generation), self.problem.train, self.groups[group]
        )

    def _initial_weights(self) -> Weights:
        """Random weights, or weights from the moments of the first window."""
        kernel, seed = self.problem.kernel, self.pipeline.training.seed
        if self.pipeline.network.initialization == "random":
            return kernel.network.initial_weights(seed, kernel.dtype)
        chunks = tuple(chunk for group in self.groups[: self.first_window] for chunk in group)
        packed = self._compute(sweep.moments, self.problem.train, chunks)
        k = kernel.network.shapes[0][1]
        gram, targets = packed[: k * k].reshape(k, k), packed[k * k :]
        return whitened_weights(kernel.network, gram, targets / gram[-1, -1], seed, kernel.dtype)

    def _finished(self) -> bool:
        limits, state = self.pipeline.training, self.state
        if limits.max_cpu_seconds is not None:
            self._charge()
            if state.cpu_seconds >= limits.max_cpu_seconds:
                return True
        return state.visits >= limits.max_sweeps * self.rows

    def _enter(self, action: Enter) -> None:
        """Bring new groups into the sums."""
        chunks = tuple(chunk for group in self.groups[action.first : action.stop] for chunk in group)
        if not chunks:
            return
        self.latent.prepare(0)
        packed = self._compute(lambda step: sweep.enter(step, self.latent, 0), self.problem.train, chunks)
        self.state.statistics.merge(self._unpack(packed, with_inputs=True))
        self.state.generations[action.first : action.stop] = 0

    def _visit(self, action: Visit) -> None:
        """Update z of a group, then W."""
        state, chunks = self.state, self.groups[action.group]
        state.passes = action.number
        renew, generation = len(self.groups) == 1, int(state.generations[action.group])
        self.latent.prepare(generation + 1)
        packed = self._compute(
            lambda step: sweep.visit(step, self.latent, generation, self.mu, renew=renew),
            self.problem.train,
            chunks,
        )
        change = self._unpack(packed, with_inputs=False)
        if renew:
            state.statistics.renew(change)
        else:
            state.statistics.merge(change)
        state.generations[action.group] += 1
        rows = sum(self._chunk_rows(chunk) for chunk in chunks)
        state.visits += rows
        state.weights = self._solve()
        state.statistics.diagnostics /= rows
        self._show(action, state.statistics.diagnostics[0])

    def _solve(self) -> Weights:
        """The W-update of every layer."""
        statistics = self.state.statistics
        weights = []
        for layer, old in enumerate(self.state.weights):
            new = self._system(layer).solve(statistics.cross[layer], old).astype(old.dtype)
            if not np.isfinite(new).all():
                raise RunError(
                    f"the weights of layer {layer + 1} are no longer finite; "
                    "try a larger solver.ridge or solver.mu, or float64"
                )
            weights.append(new)
        return tuple(weights)

    def _system(self, layer: int) -> RidgeSystem:
        """The factorised normal equations; the first layer's stay the same while no samples enter."""
        solver, statistics = self.pipeline.solver, self.state.statistics
        key = statistics.samples, self.mu[0]
        if layer == 0 and self.first_system is not None and self.first_system[0] == key:
            return self.first_system[1]
        system = ridge_system(
            statistics.gram[layer], solver.ridge / self.mu[layer], penalize_bias=solver.penalize_bias,
            proximal=solver.proximal, precision=float(np.finfo(self.problem.kernel.dtype).eps),
        )  # fmt: skip
        if layer == 0:
            self.first_system = key, system
        return system

    @property
    def mu(self) -> tuple[float, ...]:
        """μ_1 … μ_L of the current pass."""
        return penalties(mu_of(self.pipeline), len(self.problem.kernel.network.widths), self.state.passes)

    def _record(self) -> None:
        """Evaluate the network, off the clock, and write a record, the model and its state."""
        self._charge()
        state, problem = self.state, self.problem
        nested = self._evaluate(problem.train, self.evaluated)
        validation = None
        if problem.validation is not None:
            validation = self._evaluate(problem.validation, tuple(range(problem.validation.store.n_chunks)))
        if not math.isfinite(nested.loss):
            raise RunError("the nested loss is no longer finite; try a larger solver.mu or solver.ridge")
        statistics, solver = state.statistics, self.pipeline.solver
        samples, labels = statistics.samples, problem.train.target == "labels"
        record: dict[str, Any] = {
            "sweep": state.visits / self.rows,
            "cpu_seconds": state.cpu_seconds,
            "wall_seconds": state.wall_seconds,
            "relaxed_objective": None,
            "nested_loss": nested.mean_loss,
            "validation_loss": validation and validation.mean_loss,
            "nested_accuracy": nested.accuracy if labels else None,
            "validation_accuracy": validation.accuracy if validation and labels else None,
            "residuals": None,
            "mu": list(self.mu),
            "shortened": None,
            "samples_in_sum": int(samples),
        }
        if state.visits:
            squares = statistics.residual_squares(state.weights)
            record["relaxed_objective"] = statistics.objective(
                state.weights, self.mu, solver.ridge, solver.penalize_bias
            )
            record["shortened"] = float(statistics.diagnostics[1])
            record["residuals"] = np.sqrt(squares / samples).tolist()
        self.last = record
        state.history_bytes = self.run.append(record)
        Model(
            self.pipeline.network.kind, problem.kernel.network, state.weights,
            problem.train.store.sample_shape, problem.scale,
        ).save(self.run.model)  # fmt: skip
        self.observer.recorded(record)
        self.mark = Clock.now(self.executor)

    def _evaluate(self, samples: Samples, chunks: tuple[int, ...]) -> Evaluation:
        packed = self._compute(sweep.evaluate, samples, chunks)
        return Evaluation(*(float(value) for value in packed))

    def _show(self, action: Visit, objective: float) -> None:
        state, limits = self.state, self.pipeline.training
        clock, visits = self.begun
        done = max(state.visits - visits, 1)
        left = (limits.max_sweeps * self.rows - state.visits) / done * (time.perf_counter() - clock.wall)
        if limits.max_cpu_seconds is not None and state.cpu_seconds > 0:
            spent = state.wall_seconds / state.cpu_seconds
            left = min(left, (limits.max_cpu_seconds - state.cpu_seconds) * spent)
        self.observer.progressed(
            Progress(
                state.visits / self.rows, limits.max_sweeps, action.group + 1,
                round(len(self.groups) * state.statistics.samples / self.rows), float(objective),
                self.last.get("nested_loss"), self.last.get("validation_loss"), state.cpu_seconds, max(left, 0.0),
            )
        )  # fmt: skip

    def _charge(self) -> None:
        """Book the time since the last mark as training."""
        now = Clock.now(self.executor)
        self.state.cpu_seconds += now.cpu - self.mark.cpu
        self.state.wall_seconds += now.wall - self.mark.wall
        self.mark = now

    def _unpack(self, packed: Array, with_inputs: bool) -> Statistics:
        return Statistics(self.problem.kernel.network.shapes, with_inputs, packed)

    def _chunk_rows(self, chunk: int) -> int:
        size = self.problem.train.store.chunk_rows
        return min(size, self.rows - chunk * size)
