"""Training with z that persists: z-updates of groups of chunks, and exact solves for W from the sums over all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import ClassVar

import dask.array as da
import numpy as np

from altmin_dask.errors import ChunkError, RunError
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
from altmin_dask.solvers.schedules import Action, Enter, Visit, window_schedule
from altmin_dask.solvers.statistics import ROUNDING, Statistics, ridge_term
from altmin_dask.storage.latent import LatentStore
from altmin_dask.storage.locations import is_url
from altmin_dask.training.algorithm import Initial
from altmin_dask.training.alternating_state import AlternatingState
from altmin_dask.training.checkpoint import AlgorithmState
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup, all_rows, together, whole_chunks
from altmin_dask.training.lost_chunks import lost_chunks
from altmin_dask.training.record import Metrics
from altmin_dask.types import Array, Weights

ROUNDED = 1e-6, 0.01
"""F as it follows from the sums is reported if rounding has moved it by at most the first share, and no residual by
more than the second; else residuals are formed and squared, which takes another look at x and z."""


class AlternatingMinimization:
    """Block coordinate descent on F, one action of `window_schedule` after the other."""

    state_type: ClassVar[type[AlgorithmState]] = AlternatingState
    commits_every_step: ClassVar[bool] = True  # z has changed
    state: AlternatingState

    def __init__(self, context: RunContext) -> None:
        self.context, self.kind = context, PENALTIES[context.pipeline.solver.penalty]
        settings, store = context.settings, context.problem.train.store
        self.latent = LatentStore(
            context.run.latent,
            store.rows,
            latent_width(context.network, self.kind),
            store.chunk_rows,
            context.problem.task_context.dtype,
            context.run.id,
        )
        seed = None if settings.schedule == "batch" else context.pipeline.training.seed
        self.groups = whole_chunks(store, settings.group_chunks, seed)
        self.first_window = settings.first_window or len(self.groups)
        self.first_system: tuple[tuple[float, float], RidgeSystem] | None = None
        self.weights_file = ""
        self.superseded: int | None = None
        """The group whose z before the last step can go as soon as the step is committed."""

    @property
    def remedy(self) -> str:
        """Settings to try when training diverges."""
        return "a larger solver.mu, solver.ridge or solver.proximal"

    @property
    def weights(self) -> Weights:
        """The weights to evaluate."""
        return self.state.weights

    @property
    def pending_samples(self) -> int:
        """No samples: every group is waited for."""
        return 0

    @property
    def samples_in_sum(self) -> float:
        """Samples of the groups that have entered."""
        return self.state.statistics.samples

    @property
    def group_count(self) -> int:
        """How many groups are in the sums."""
        return round(len(self.groups) * self.state.statistics.samples / self.context.rows)

    @property
    def mu(self) -> tuple[float, ...]:
        """What the penalty of the current pass weighs."""
        return self.penalty.mu

    @property
    def penalty(self) -> Penalty:
        """That of the current pass."""
        admm, mu = self.state.admm, self._scheduled_mu()
        return self.kind(mu) if admm is None else admm.penalty(self.kind, mu)

    def _scheduled_mu(self) -> tuple[float, ...]:
        """μ_1 … μ_L by the settings."""
        mu = self.context.settings.mu_in_pass(len(self.state.weights), self.state.passes)
        assert mu is not None  # only K-FAC steps go to the limit
        return mu

    @property
    def converged(self) -> bool:
        """Whether ADMM has come to rest, with all samples in the sums.

        Small gaps alone may be small steps: a penalty that is exact must also have brought the gradient of the real
        network's objective down to the same share of what it was at first (row 50 of benchmarks/LOG.md). Others rest
        elsewhere, where residuals are worth it.
        """
        admm, tolerance = self.state.admm, self.context.pipeline.solver.residual_tol
        if admm is None or not self._gaps_met(admm):
            return False
        if not self.kind.exact or admm.first_gradient is None:
            return True
        self._check_gradient(admm)
        return admm.gradient is not None and admm.gradient < tolerance * admm.first_gradient

    def _gaps_met(self, admm: ADMMState) -> bool:
        """Whether a pass over all samples has found the gaps small."""
        tolerance = self.context.pipeline.solver.residual_tol
        return admm.gap is not None and admm.gap < tolerance and admm.covered == self.context.rows

    def _check_gradient(self, admm: ADMMState) -> None:
        """Take the gradient over all samples, once for every time that the gaps were measured."""
        if admm.checked < admm.balanced:
            admm.gradient = self._gradient_norm(all_rows(self.context.problem.train.store))
            admm.checked = admm.balanced

    def _previous(self, group: int) -> Penalty:
        """The penalty under which a group was visited last."""
        admm = self.state.admm
        return self.penalty if admm is None else admm.previous(self.kind, group)

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning."""
        return window_schedule(
            len(self.groups), self.first_window, self.context.pipeline.training.window_passes
        )

    def init(self, initial: Initial) -> None:
        """Begin with initial weights, no samples in the sums, and no z."""
        self.latent.remove_orphans({})
        network = self.context.network
        weights = initial(self.context, together(self.groups[: self.first_window]))
        statistics = Statistics(network.shapes, with_inputs=True)
        self.state = AlternatingState(weights, statistics, np.full(len(self.groups), -1))
        rho = self.context.settings.rho
        if rho is not None:
            self.state.admm = ADMMState.start(rho, len(self.groups), weights)

    def restore(self, state: AlternatingState) -> None:
        """Take up a committed state, and remove z that was written after it; sum the statistics anew if need be."""
        self.state = state
        for generation in np.unique(state.generations[state.generations >= 0]).tolist():
            self.latent.prepare(
                generation
            )  # or where a power failure has taken it, nothing could be made anew
        self.latent.remove_orphans(
            {
                chunk: int(generation)
                for group, generation in zip(self.groups, state.generations, strict=True)
                for chunk in group.chunks
                if generation >= 0
            }
        )
        self.committed(str(self.context.run.state_file(self.context.checkpoint.cursor)))
        if state.stale:
            self._renew_statistics()

    def committed(self, file: str) -> None:
        """Let the next step take its weights from the file of a commit, or where all workers see them; remove old z."""
        self.weights_file, state = file, self.state
        if is_url(self.latent.path):
            name = f"{self.context.checkpoint.cursor:08d}"
            self.weights_file = self.context.weight_store.publish(state.weights, name, keep=1)
        if self.superseded is not None:
            group, self.superseded = self.superseded, None
            old = int(state.generations[group]) - 1
            self.latent.discard(old, self.groups[group].chunks, whole=old not in state.generations)

    def drain(self) -> int:
        """Nothing is pending."""
        return 0

    def step(self, action: Action, cursor: int) -> int:
        """Carry out an action."""
        if action.kind == "enter":
            self._enter(action)
            return 0
        assert action.kind == "visit"  # there is no other in `window_schedule` but records
        return self._visit(action)

    def publish(self) -> str:
        """The file of the weights to evaluate."""
        context = self.context
        if not context.problem.standardized:
            return self.weights_file
        name = f"{context.key}-{context.checkpoint.records:08d}-folded"
        return context.weight_store.publish(context.problem.fold(self.weights), name, 1)

    @property
    def tentative(self) -> bool:
        """Never: steps are not taken back."""
        return False

    def leave_last_out(self) -> None:
        """No step is tentative."""

    @property
    def objective(self) -> float:
        """Mean F_k of the last group after its z-update."""
        return float(self.state.statistics.diagnostics[0])

    @property
    def metrics(self) -> Metrics:
        """What a record says of F and of the residuals.

        Where samples remember more than z, it is what the last visits found, before they moved z.
        """
        statistics, solver, state = self.state.statistics, self.context.pipeline.solver, self.state
        gradient = None
        if self.kind.exact and state.admm is not None and self._gaps_met(state.admm):
            self._check_gradient(state.admm)
            gradient = state.admm.gradient
        known = Metrics(mu=self.mu, gradient_norm=gradient, samples_in_sum=int(statistics.samples))
        if not self.context.checkpoint.visits:
            return known
        ridge = (
            ridge_term(state.weights, self.context.settings.ridge, solver.penalize_bias) / statistics.samples
        )
        known = replace(known, ridge_term=ridge, shortened=float(statistics.diagnostics[1]))
        if state.admm is None:
            rows = statistics.samples
            fit, squares, norms = self._measured()
            known = replace(known, relaxed_objective=(fit + float(np.dot(self.mu, squares))) / rows + ridge)
        else:
            total = state.admm.total
            rows, norms, squares = max(float(total.totals[0]), 1.0), total.squares, total.residuals
            known = replace(known, relaxed_objective=total.objective + ridge, rho=_tuple(state.admm.rho))
            if self.kind.sparse:
                widths = np.array(self.context.network.widths)
                known = replace(known, zero_residuals=_tuple(total.zeros / (rows * widths)))
        return replace(
            known,
            residuals=_tuple(np.sqrt(squares / rows)),
            relative_residuals=_tuple(relative(squares, np.maximum(norms, squares))),
        )

    def _measured(self) -> tuple[float, Array, Array]:
        """Σ ℓ, Σ ‖r_i‖² and Σ ‖z_i‖² of all that is in the sums, under the weights of the moment."""
        statistics, state, layers = self.state.statistics, self.state, len(self.state.weights)
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
            visited = together([self.groups[group] for group in groups])
            total.vector += self._compute(
                partial(task_graphs.objective, latent=self.latent, generation=int(generation)), visited
            )
        return float(total.loss), total.residuals, total.squares

    def _gradient_norm(self, group: RowGroup) -> float:
        """‖∇‖ of the real network's loss and its ridge, a mean over the samples of a group."""
        context, weights = self.context, self.state.weights
        packed = self._compute(task_graphs.gradient, group)
        sums = KroneckerSums(self.context.network.shapes, False, packed)
        return sums.gradient_norm(
            weights, context.settings.ridge / context.rows, context.pipeline.solver.penalize_bias
        )

    def _compute(self, make: Callable[[Step], da.Array], group: RowGroup) -> Array:
        """Carry out a step; where z was lost or altered meanwhile, make it anew first, and the sums it is part of."""
        while True:
            try:
                return self._computed(make, group)
            except ChunkError as error:
                self._make_anew(error)
                self._renew_statistics()

    def _computed(self, make: Callable[[Step], da.Array], group: RowGroup) -> Array:
        """Carry out a step with the weights of the moment."""
        return self.context.compute(make, self.context.problem.train, group, self.weights_file)

    def _make_anew(self, error: ChunkError) -> None:
        """Make all chunks of z anew by a forward pass that are as the one that was met: lost, or altered.

        Raises
        ------
        ChunkError
            If that is a chunk of the samples.
        """
        state = self.state
        lost = lost_chunks(error, self.context, self.latent, self.groups, state.generations)
        state.stale = True  # from now on, until the sums are those of the new z
        self.committed(self.context.commit(state))
        for group, chunks in lost.items():
            generation, penalty = int(state.generations[group]), self._previous(group)
            make = partial(task_graphs.enter, latent=self.latent, generation=generation, penalty=penalty)
            self._computed(make, RowGroup(tuple(sorted(chunks))))

    def _renew_statistics(self) -> None:
        """Sum the statistics of all z anew; where more of it is lost meanwhile, that is made anew and summed again."""
        state = self.state
        while True:
            statistics = Statistics(self.context.network.shapes, with_inputs=True)
            try:
                for group, generation in enumerate(state.generations):
                    if generation >= 0:
                        statistics.merge(self._collect(group, int(generation)))
                break
            except ChunkError as error:
                self._make_anew(error)
        statistics.diagnostics[:] = self.state.statistics.diagnostics
        state.statistics, state.stale = statistics, False
        self.first_system = None
        self.committed(self.context.commit(state))

    def _collect(self, group: int, generation: int) -> Statistics:
        """The statistics of the z of a group."""
        make = partial(
            task_graphs.collect, latent=self.latent, generation=generation, penalty=self._previous(group)
        )
        return self._unpack(self._computed(make, self.groups[group]), with_inputs=True)

    def _enter(self, action: Enter) -> None:
        """Bring new groups into the sums."""
        entering = together(self.groups[action.first : action.stop])
        if not entering.chunks:
            return
        self._measure_first_gradient()
        self.latent.prepare(0)
        penalty = self.penalty
        packed = self._compute(lambda step: task_graphs.enter(step, self.latent, 0, penalty), entering)
        self.state.statistics.merge(self._unpack(packed, with_inputs=True))
        state = self.state
        state.largest_loss = max(state.largest_loss, float(self.state.statistics.totals[0]))
        state.generations[action.first : action.stop] = 0
        if state.admm is not None:
            for group in range(action.first, action.stop):
                state.admm.hold(group, penalty)

    def _measure_first_gradient(self) -> None:
        """Take the gradient that a penalty that is exact is to bring down, before anything has entered.

        Its size is what is wanted: a chunk will do, and samples are not read once more for it.
        """
        admm = self.state.admm
        if admm is None or not (self.kind.exact and self.context.pipeline.solver.residual_tol):
            return
        if admm.first_gradient is None and not self.context.checkpoint.visits:
            admm.first_gradient = self._gradient_norm(RowGroup(self.groups[0].chunks[:1]))

    def _begin_pass(self, number: int) -> Penalty:
        """Balance ρ if a pass begins, and count it; gives the penalty, which follows from both."""
        state, solver = self.state, self.context.pipeline.solver
        if state.admm is not None and number > state.passes:
            state.admm.balance(
                state.statistics, state.weights, move=solver.balancing, enough=solver.residual_tol
            )
        state.passes = number
        return self.penalty

    def _visit(self, action: Visit) -> int:
        """Update z of a group, then W; gives its samples."""
        state, visited, admm = self.state, self.groups[action.group], self.state.admm
        penalty, previous = self._begin_pass(action.number), self._previous(action.group)
        whole, generation = len(self.groups) == 1, int(state.generations[action.group])
        self.latent.prepare(generation + 1)
        packed = self._compute(
            lambda step: task_graphs.visit(
                step, self.latent, generation, penalty, previous, replace_all=whole
            ),
            visited,
        )
        network = self.context.network
        with_inputs = sends_inputs(network, penalty, previous)
        sums = VisitSums(network.shapes, with_inputs, packed)
        if admm is not None:
            admm.hold(action.group, penalty, sums.residuals)
        if whole:
            state.statistics.replace_all(sums.statistics)
        else:
            state.statistics.merge(sums.statistics)
        if with_inputs:
            self.first_system = None
        state.largest_loss = max(state.largest_loss, float(self.state.statistics.totals[0]))
        state.generations[action.group] += 1
        self.superseded = action.group
        rows = visited.rows(self.context.problem.train.store)
        with activity("solve"):
            state.weights = self._solve()
        state.statistics.diagnostics /= rows
        return rows

    def _solve(self) -> Weights:
        """The W-update of every layer."""
        weights = []
        for layer, old in enumerate(self.state.weights):
            new = self._system(layer).solve(self.state.statistics.cross[layer], old).astype(old.dtype)
            if not np.isfinite(new).all():
                raise RunError(
                    f"the weights of layer {layer + 1} are no longer finite; "
                    "try a larger solver.ridge or solver.mu, or float64"
                )
            weights.append(new)
        return tuple(weights)

    def _system(self, layer: int) -> RidgeSystem:
        """The factorised normal equations; the first layer's stay the same while its Gram matrix does."""
        solver, statistics = self.context.pipeline.solver, self.state.statistics
        scale = self.penalty.ridge_scale(layer)
        key = statistics.samples, scale
        stays = layer == 0 and not self.context.network.inputs_move
        if stays and self.first_system is not None and self.first_system[0] == key:
            return self.first_system[1]
        system = ridge_system(
            statistics.gram[layer],
            self.context.settings.ridge / scale,
            penalize_bias=solver.penalize_bias,
            proximal=self.context.settings.proximal,
            precision=float(np.finfo(self.context.problem.task_context.dtype).eps),
        )
        if layer == 0:
            self.first_system = key, system
        return system

    def _unpack(self, packed: Array, with_inputs: bool) -> Statistics:
        return Statistics(self.context.network.shapes, with_inputs, packed)


def _tuple(values: Array) -> tuple[float, ...]:
    return tuple(values.tolist())
