"""One K-FAC step: from what a group says about the weights to the next ones (`altmin_dask.solvers.kfac`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from altmin_dask.solvers.kernels import since
from altmin_dask.solvers.kfac import KFACSettings, KFACState, are_finite, moved_by
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.preconditioner import PreconditionerCache
from altmin_dask.solvers.statistics import ridge_term
from altmin_dask.types import Array, Weights

TRIED_STEPS, SHARES = 3, (1.0, 0.25, 0.0625)
"""In the first steps, of which there may be few in all, a group's loss is looked at before W is moved, and a share of
the step is taken if the whole one would raise it: its model may be far off where nothing is learnt yet (row 83)."""

Activity = Callable[[str], AbstractContextManager[Any]]
"""Counts what a block spends, by a name."""


class StepSamples(Protocol):
    """What can be asked about the samples of a step beside their sums."""

    def loss(self, weights: Weights) -> float:
        """Their mean loss by some weights that are finite, without a ridge."""

    def model(self, direction: Weights, repeated: Weights) -> QuadraticModel:
        """The model of their loss along a direction, and along what the step before has done, on a part of them."""


@dataclass(frozen=True)
class Sent:
    """What a group was sent out with.

    Attributes
    ----------
    previous_weights : tuple of ndarray
        The weights before those. What has been done since, of which the group knew nothing, is part of the step that
        is repeated, or undone, by as much as the model wants.
    ridge : float
        λ Σ ‖W̃_i‖² / N of those.
    """

    previous_weights: Weights
    ridge: float


@dataclass
class Stepper:
    """Takes steps.

    Attributes
    ----------
    settings : KFACSettings
        How weights move.
    preconditioners : PreconditionerCache
        Of the same settings.
    tries : bool
        Whether the first few steps are tried.
    exact_slopes : bool
        Whether sums are of the nested loss's gradient at the weights of the moment: by exact constraints, one group
        after the other.
    activity : callable
        Counts what is spent with "solve".
    """

    settings: KFACSettings
    preconditioners: PreconditionerCache
    tries: bool = True
    exact_slopes: bool = False
    activity: Activity = nullcontext

    def ridge(self, weights: Weights) -> float:
        """λ Σ ‖W̃_i‖² / N."""
        return ridge_term(weights, self.settings.ridge, self.settings.penalize_bias)

    def step(
        self,
        state: KFACState,
        weights: Weights,
        sums: KroneckerSums,
        sent: Sent,
        group: StepSamples,
        rows: Array | None = None,
        half: KroneckerSums | None = None,
    ) -> Weights:
        """The next weights, by what a group says; the state is changed in place.

        Parameters
        ----------
        state, weights : KFACState, tuple of ndarray
            Of the moment.
        sums, sent, group : KroneckerSums, Sent, StepSamples
            What has been measured, at which weights, and on what.
        rows : ndarray of int, (n,), optional
            Which rows the group has, where Ḡ_1 is known by the weights of all.
        half : KroneckerSums, optional
            The sums of every second row, where it is to be known how much of a step is noise.
        """
        # the first group of more samples of a stream has no mean of losses to be beside
        unknown = math.isnan(state.loss_ema) and state.steps > 0
        if (unknown or state.is_suspect(sums, sent.ridge)) and self._did_harm(state, sums, sent, group):
            return state.reject_step()
        settings, known = self.settings, self.preconditioners
        state.gradient = sums.gradient_norm(weights, settings.ridge, settings.penalize_bias, known.space)
        state.update_averages(sums, weights, settings.averaging, sent.ridge, rows)
        with self.activity("solve"):
            preconditioner = known.of(state)
            direction = preconditioner.direction(sums, weights)
            if half is not None:
                state.judge(*preconditioner.signal_and_noise(sums, half, weights, direction))
        repeated = since(sent.previous_weights, weights)
        model = group.model(direction, repeated)
        if self.exact_slopes and not state.forms.rows:
            # known of all rows: a part of them has another minimum, at which steps would end
            model.slope[:] = [model.samples * sums.slope(way) for way in (direction, repeated)]
        coefficients = preconditioner.step_coefficients(model, weights, direction, repeated)
        delta = settings.delta(state)
        if self.tries and state.steps < TRIED_STEPS:
            before = float(sums.totals[1] / sums.totals[0]) + sent.ridge
            for share in SHARES:
                shorter: Array = share * coefficients
                tried = moved_by(weights, direction, sent.previous_weights, shorter, delta)
                if self._loss(group, tried) <= before:
                    break
            coefficients = shorter
        return state.move(weights, direction, sent.previous_weights, coefficients, delta)

    def _loss(self, group: StepSamples, weights: Weights) -> float:
        """A group's mean loss by some weights, with their ridge."""
        return group.loss(weights) + self.ridge(weights) if are_finite(weights) else math.inf

    def _did_harm(self, state: KFACState, sums: KroneckerSums, sent: Sent, group: StepSamples) -> bool:
        """Whether a group's loss is due to the weights: by the mean of the weights it would be far lower.

        Groups may differ, where samples are sorted in some way: what one finds bad may be no worse than it was.
        """
        if not sums.is_finite:
            return True
        return state.did_harm(sums, sent.ridge, self._loss(group, state.average))
