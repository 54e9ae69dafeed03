"""Training with z that persists: z-updates of groups of chunks, and exact solves for W from the sums over all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from altmin_dask.errors import ChunkError, RepairWarning, RunError
from altmin_dask.execution import task_graphs
from altmin_dask.execution.task_graphs import Step
from altmin_dask.execution.timing import activity
from altmin_dask.solvers.admm import ADMMState, relative
from altmin_dask.solvers.evaluation import RelaxedSums
from altmin_dask.solvers.kernels import VisitSums, latent_width, sends_inputs
from altmin_dask.solvers.kronecker import KroneckerSums
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.penalty import Penalty
from altmin_dask.solvers.ridge import RidgeSystem, ridge_system
from altmin_dask.solvers.schedules import Action, Enter, Visit, mu_at, window_schedule
from altmin_dask.solvers.statistics import ROUNDING, Statistics, ridge_term
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.locations import is_url
from altmin_dask.training.checkpoint import State
from altmin_dask.training.context import RunContext
from altmin_dask.training.problem import mu_of
from altmin_dask.types import Array, Weights

ROUNDED = 1e-6, 0.01
"""F as it follows from the sums is reported if rounding has moved it by at most the first share, and no residual by
more than the second; else residuals are formed and squared, which takes another look at x and z."""
SAMPLES_PER_UNKNOWN = 10
"""How many samples for each unknown of a row of W the first window holds: fewer ruin the first solve for good."""


class AlternatingMinimization:
    """Block coordinate descent on F, one action of `window_schedule` after the other."""

    def __init__(self, session: RunContext) -> None:
        self.session, self.kind = session, PENALTIES[session.pipeline.solver.penalty]
        training, store = session.pipeline.training, session.problem.train.store
        network = session.problem.kernel.network
        self.latent = LatentStore(
            session.run.latent,
            store.rows,
            latent_width(network, self.kind),
            store.chunk_rows,
            session.problem.kernel.dtype,
            session.run.id,
        )
        batch = session.pipeline.schedule == "batch"
        size = store.n_chunks if batch else training.group_chunks or 1
        self.groups = session.in_groups(size, shuffled=not batch)
        self.first_window = len(self.groups)
        if session.pipeline.schedule == "windows":
            needed = SAMPLES_PER_UNKNOWN * max(k for _, k in network.shapes)
            self.first_window = training.first_window or math.ceil(needed / (size * store.chunk_rows))
        self.first_system: tuple[tuple[float, float], RidgeSystem] | None = None
        self.weights_file = ""

    @property
    def weights(self) -> Weights:
        """The weights to evaluate."""
        return self.session.state.weights

    @property
    def under_way(self) -> int:
        """No samples: every group is waited for."""
        return 0

    @property
    def group_count(self) -> int:
        """How many groups are in the sums."""
        return round(len(self.groups) * self.statistics.samples / self.session.rows)

    @property
    def statistics(self) -> Statistics:
        """The sums over all that has entered."""
        statistics = self.session.state.statistics
        assert statistics is not None
        return statistics

    @property
    def mu(self) -> tuple[float, ...]:
        """What the penalty of the current pass weighs."""
        return self.penalty.mu

    @property
    def penalty(self) -> Penalty:
        """That of the current pass."""
        splitting, mu = self.session.state.splitting, self._scheduled_mu()
        return self.kind(mu) if splitting is None else splitting.penalty(self.kind, mu)

    def _scheduled_mu(self) -> tuple[float, ...]:
        """μ_1 … μ_L by the settings."""
        network = self.session.problem.kernel.network
        return mu_at(mu_of(self.session.pipeline, network), len(network.widths), self.session.state.passes)

    @property
    def settled(self) -> bool:
        """Whether ADMM has come to rest, with all samples in the sums.

        Small gaps alone may be small steps: a penalty that is exact must also have brought the gradient of the real
        network's objective down to the same share of what it was at first (row 50 of benchmarks/LOG.md). Others rest
        elsewhere, where residuals are worth it.
        """
        splitting, tolerance = self.session.state.splitting, self.session.pipeline.solver.residual_tol
        if splitting is None or not self._gaps_met(splitting):
            return False
        if not self.kind.exact or splitting.first_gradient is None:
            return True
        self._check_gradient(splitting)
        return splitting.gradient is not None and splitting.gradient < tolerance * splitting.first_gradient

    def _gaps_met(self, splitting: ADMMState) -> bool:
        """Whether a pass over all samples has found the gaps small."""
        tolerance = self.session.pipeline.solver.residual_tol
        return (
            splitting.gap is not None and splitting.gap < tolerance and splitting.covered == self.session.rows
        )

    def _check_gradient(self, splitting: ADMMState) -> None:
        """Take the gradient over all samples, once for every time that the gaps were measured."""
        if splitting.checked < splitting.balanced:
            splitting.gradient = self._gradient_norm(tuple(range(self.session.problem.train.store.n_chunks)))
            splitting.checked = splitting.balanced

    def _previous(self, group: int) -> Penalty:
        """The penalty under which a group was visited last."""
        splitting = self.session.state.splitting
        return self.penalty if splitting is None else splitting.previous(self.kind, group)

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning."""
        return window_schedule(
            len(self.groups), self.first_window, self.session.pipeline.training.window_passes
        )

    def restore(self, initial: Callable[[RunContext, tuple[int, ...]], Weights]) -> None:
        """Take up the last committed state, and remove what was written after it; or begin with initial weights."""
        run = self.session.run
        run.remove_orphans()
        state = run.restore()
        generations = np.full(len(self.groups), -1) if state is None else state.generations
        self.latent.remove_orphans(
            {
                chunk: int(generation)
                for group, generation in zip(self.groups, generations, strict=True)
                for chunk in group
                if generation >= 0
            }
        )
        if state is None:
            chunks = tuple(chunk for group in self.groups[: self.first_window] for chunk in group)
            weights = initial(self.session, chunks)
            statistics = Statistics(self.session.problem.kernel.network.shapes, with_inputs=True)
            state = State(weights, statistics, generations)
            self.session.state = state
            if self.kind.per_sample_state:
                network, augmentation = (
                    self.session.problem.kernel.network,
                    self.session.pipeline.solver.augmentation,
                )
                rho = self.kind.initial_rho(network, self._scheduled_mu(), augmentation)
                state.splitting = ADMMState.start(rho, len(self.groups), weights)
            self.commit()
        else:
            self.session.state = state
            self._use(str(run.state_file(state.cursor)))
        if state.stale:
            self._renew_statistics()
        splitting = state.splitting
        if (
            self.kind.exact
            and splitting is not None
            and splitting.first_gradient is None
            and not state.visits
            and self.session.pipeline.solver.residual_tol
        ):
            # its size is what is wanted: a chunk will do, and samples are not read once more for it
            splitting.first_gradient = self._gradient_norm(self.groups[0][:1])

    def commit(self) -> None:
        """Make the state the one to go on from, and its weights those of the next step."""
        self._use(self.session.commit())

    def _use(self, file: str) -> None:
        """Let the next step take its weights from the file of the committed state, or where all workers see them."""
        self.weights_file, state = file, self.session.state
        if is_url(self.latent.path):
            self.weights_file = self.session.weight_store.publish(
                state.weights, f"{state.cursor:08d}", keep=1
            )

    def drain(self) -> None:
        """Nothing is under way."""

    def commit_is_due(self) -> bool:
        """Whether to commit now: after every action, as z has changed."""
        return True

    def act(self, action: Action) -> None:
        """Carry out an action."""
        if isinstance(action, Enter):
            self._enter(action)
        elif isinstance(action, Visit):
            self._visit(action)

    def committed(self, action: Action) -> None:
        """Remove the z that the committed one of a group has taken the place of."""
        if isinstance(action, Visit):
            generations = self.session.state.generations
            old = generations[action.group] - 1
            self.latent.discard(int(old), self.groups[action.group], whole=old not in generations)

    def publish_evaluated(self) -> str:
        """The file of the weights to evaluate."""
        return self.weights_file

    def describe(self) -> dict[str, Any]:
        """What a record says of F and of the residuals.

        Where samples remember more than z, it is what the last visits found, before they moved z.
        """
        statistics, solver, state = self.statistics, self.session.pipeline.solver, self.session.state
        found: dict[str, Any] = dict.fromkeys(
            (
                "relaxed_objective",
                "ridge_term",
                "residuals",
                "relative_residuals",
                "zero_residuals",
                "rho",
                "shortened",
                "gradient_norm",
            )
        )
        found["samples_in_sum"] = int(statistics.samples)
        if self.kind.exact and state.splitting is not None and self._gaps_met(state.splitting):
            self._check_gradient(state.splitting)
            found["gradient_norm"] = state.splitting.gradient
        if not state.visits:
            return found
        found["shortened"] = float(statistics.diagnostics[1])
        ridge = ridge_term(state.weights, solver.ridge, solver.penalize_bias) / statistics.samples
        found["ridge_term"] = ridge
        if state.splitting is None:
            rows = statistics.samples
            fit, squares, norms = self._measured()
            found["relaxed_objective"] = (fit + float(np.dot(self.mu, squares))) / rows + ridge
        else:
            total = state.splitting.total
            rows, norms, squares = max(float(total.totals[0]), 1.0), total.squares, total.residuals
            found["relaxed_objective"] = total.objective + ridge
            found["rho"] = state.splitting.rho.tolist()
            if self.kind.sparse:
                widths = np.array(self.session.problem.kernel.network.widths)
                found["zero_residuals"] = (total.zeros / (rows * widths)).tolist()
        found["residuals"] = np.sqrt(squares / rows).tolist()
        found["relative_residuals"] = relative(squares, np.maximum(norms, squares)).tolist()
        return found

    def _measured(self) -> tuple[float, Array, Array]:
        """Σ ℓ, Σ ‖r_i‖² and Σ ‖z_i‖² of all that is in the sums, under the weights of the moment."""
        statistics, state, layers = self.statistics, self.session.state, len(self.session.state.weights)
        fit, squares = float(statistics.totals[0]), statistics.residual_squares(state.weights)
        rounding = statistics.rounding(state.weights)
        # Σ ℓ is a running sum of differences, from when it was largest
        error = ROUNDING * state.largest_loss + float(np.dot(self.mu, rounding))
        share, residual_share = ROUNDED
        whole = fit + float(np.dot(self.mu, squares))
        if error <= share * whole and (rounding <= 2 * residual_share * squares).all():
            return fit, squares, statistics.squares
        total = RelaxedSums(layers)
        for generation in np.unique(state.generations[state.generations >= 0]):
            groups = np.flatnonzero(state.generations == generation)
            chunks = tuple(chunk for group in groups for chunk in self.groups[group])
            total.vector += self._compute(
                partial(task_graphs.objective, latent=self.latent, generation=int(generation)), chunks
            )
        return float(total.loss), total.residuals, total.squares

    def _gradient_norm(self, chunks: tuple[int, ...]) -> float:
        """‖∇‖ of the real network's loss and its ridge, a mean over the samples of some chunks."""
        solver, weights = self.session.pipeline.solver, self.session.state.weights
        packed = self._compute(task_graphs.gradient, chunks)
        sums = KroneckerSums(self.session.problem.kernel.network.shapes, False, packed)
        return sums.gradient_norm(weights, solver.ridge / self.session.rows, solver.penalize_bias)

    @property
    def objective(self) -> float:
        """Mean F_k of the last group after its z-update."""
        return float(self.statistics.diagnostics[0])

    def _compute(self, make: Callable[[Step], da.Array], chunks: tuple[int, ...]) -> Array:
        """Carry out a step; where z was lost or altered meanwhile, make it anew first."""
        while True:
            try:
                return self.session.compute(make, self.session.problem.train, chunks, self.weights_file)
            except ChunkError as error:
                self._repair(error)

    def _repair(self, error: ChunkError) -> None:
        """Make a chunk of z anew by a forward pass, and the sums that it is part of.

        Raises
        ------
        ChunkError
            If it is a chunk of the samples.
        """
        state = self.session.state
        group = next((g for g, chunks in enumerate(self.groups) if error.chunk in chunks), None)
        if group is None or self.latent.location(int(state.generations[group])) != error.location:
            raise error
        warnings.warn(
            f"chunk {error.chunk} of z in {error.location} {error.reason}; "
            "it is made anew by a forward pass, so the run may differ from one without the damage",
            RepairWarning,
            stacklevel=2,
        )
        state.stale = True  # from now on, until the sums are those of the new z
        self.commit()
        generation = int(state.generations[group])
        penalty = self._previous(group)
        self._compute(lambda step: task_graphs.enter(step, self.latent, generation, penalty), (error.chunk,))
        self._renew_statistics()

    def _renew_statistics(self) -> None:
        """Sum the statistics of all z anew."""
        state = self.session.state
        statistics = Statistics(self.session.problem.kernel.network.shapes, with_inputs=True)
        for group, generation in enumerate(state.generations):
            if generation >= 0:
                statistics.merge(self._unpack(self._collect(group, int(generation)), with_inputs=True))
        statistics.diagnostics[:] = self.statistics.diagnostics
        state.statistics, state.stale = statistics, False
        self.first_system = None
        self.commit()

    def _collect(self, group: int, generation: int) -> Array:
        penalty = self._previous(group)
        return self._compute(
            lambda step: task_graphs.collect(step, self.latent, generation, penalty), self.groups[group]
        )

    def _enter(self, action: Enter) -> None:
        """Bring new groups into the sums."""
        chunks = tuple(chunk for group in self.groups[action.first : action.stop] for chunk in group)
        if not chunks:
            return
        self.latent.prepare(0)
        penalty = self.penalty
        packed = self._compute(lambda step: task_graphs.enter(step, self.latent, 0, penalty), chunks)
        self.statistics.merge(self._unpack(packed, with_inputs=True))
        state = self.session.state
        state.largest_loss = max(state.largest_loss, float(self.statistics.totals[0]))
        state.generations[action.first : action.stop] = 0
        if state.splitting is not None:
            for group in range(action.first, action.stop):
                state.splitting.hold(group, penalty)

    def _visit(self, action: Visit) -> None:
        """Update z of a group, then W."""
        state, chunks, splitting = self.session.state, self.groups[action.group], self.session.state.splitting
        if splitting is not None and action.number > state.passes:
            solver = self.session.pipeline.solver
            splitting.balance(
                self.statistics, state.weights, move=solver.balancing, enough=solver.residual_tol
            )
        state.passes = action.number
        whole, generation = len(self.groups) == 1, int(state.generations[action.group])
        self.latent.prepare(generation + 1)
        penalty, previous = self.penalty, self._previous(action.group)
        packed = self._compute(
            lambda step: task_graphs.visit(
                step, self.latent, generation, penalty, previous, replace_all=whole
            ),
            chunks,
        )
        network = self.session.problem.kernel.network
        with_inputs = sends_inputs(network, penalty, previous)
        sums = VisitSums(network.shapes, with_inputs, packed)
        if splitting is not None:
            splitting.hold(action.group, penalty, sums.residuals)
        if whole:
            self.statistics.replace_all(sums.statistics)
        else:
            self.statistics.merge(sums.statistics)
        if with_inputs:
            self.first_system = None
        state.largest_loss = max(state.largest_loss, float(self.statistics.totals[0]))
        state.generations[action.group] += 1
        rows = self.session.group_rows(chunks)
        state.visits += rows
        with activity("solve"):
            state.weights = self._solve()
        self.statistics.diagnostics /= rows

    def _solve(self) -> Weights:
        """The W-update of every layer."""
        weights = []
        for layer, old in enumerate(self.session.state.weights):
            new = self._system(layer).solve(self.statistics.cross[layer], old).astype(old.dtype)
            if not np.isfinite(new).all():
                raise RunError(
                    f"the weights of layer {layer + 1} are no longer finite; "
                    "try a larger solver.ridge or solver.mu, or float64"
                )
            weights.append(new)
        return tuple(weights)

    def _system(self, layer: int) -> RidgeSystem:
        """The factorised normal equations; the first layer's stay the same while its Gram matrix does."""
        solver, statistics = self.session.pipeline.solver, self.statistics
        scale = self.penalty.ridge_scale(layer)
        key = statistics.samples, scale
        stays = layer == 0 and not self.session.problem.kernel.network.inputs_move
        if stays and self.first_system is not None and self.first_system[0] == key:
            return self.first_system[1]
        system = ridge_system(
            statistics.gram[layer], solver.ridge / scale, penalize_bias=solver.penalize_bias,
            proximal=solver.proximal or 0.0, precision=float(np.finfo(self.session.problem.kernel.dtype).eps),
        )  # fmt: skip
        if layer == 0:
            self.first_system = key, system
        return system

    def _unpack(self, packed: Array, with_inputs: bool) -> Statistics:
        return Statistics(self.session.problem.kernel.network.shapes, with_inputs, packed)
