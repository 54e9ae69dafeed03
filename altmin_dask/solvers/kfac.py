"""Kronecker-factored steps (K-FAC): the limit μ → ∞ of alternating minimisation, in which no z is kept.

A group of n samples starts from a forward pass, where all residuals vanish. For a large μ their z-update leaves
residuals with 2μ_i r_i → −g_i, g_i = ∂ℓ/∂z_i being the gradient of the nested loss, as back-propagation has it
(Carreira-Perpiñán & Wang 2014, "Distributed optimization of deeply nested systems", section 3): the negative gradient
of F in W̃_i, 2μ_i Σ r_i ãᵀ, becomes −Σ g_i ãᵀ. To fit W̃_i to these z by least squares moves it by

    (Σ r_i ãᵀ) (Σ ã ãᵀ)⁻¹  =  (2μ_i)⁻¹ (2μ_i Σ r_i ãᵀ) (Σ ã ãᵀ)⁻¹,

a step that vanishes with 1/μ_i, since z is held and F has the curvature 2μ_i I in W̃_i ã. With z minimised out that
curvature is (S_i⁻¹ + I/2μ_i)⁻¹, where S_i = J_iᵀ H J_i, J_i = ∂z_L/∂z_i, is the Gauss–Newton curvature of the loss in
z_i (H that in z_L); and it tends to S_i. If inputs and curvature are independent, the Gauss–Newton matrix of W̃_i is
E[ã ãᵀ] ⊗ E[S_i], and the step is that of K-FAC (Martens & Grosse 2015, "Optimizing neural networks with
Kronecker-factored approximate curvature"):

    D_i = (S̄_i + σI)⁻¹ (2μ_i Σ r_i ãᵀ / n − 2λ W̃_i / N) (Ḡ_i + ρ_i I)⁻¹,

with running means Ḡ_i of ã ãᵀ, the input factor, and S̄_i of S_i, the output factor (the covariance of J_iᵀ H^½ ε for
random signs ε, so that one backward pass samples it), and damping on both.

How far, and how much of the step before is repeated, is no setting: α D + β (W̃ − W̃_previous) minimises the Gauss–Newton
model of the nested loss (Martens & Grosse 2015, section 7), with the slopes of the whole group, and a curvature that is
measured on a part of it by two directional derivatives. What is evaluated and kept is a running mean of the weights
(Polyak & Juditsky 1992), with those after the last step in it as long as there are few.

Hidden layers decay besides (Loshchilov & Hutter 2019; with K-FAC Zhang et al. 2019, "Three mechanisms of weight decay
regularization"), biases included: W̃_i ← (1 − αδ) W̃_i + …, where α counts as 1 at most, and as 0 if negative. A ridge
is divided by the same curvature as the gradient is, so it holds what samples say little about; a decay is not, and
comes to rest where the gradient is δ S̄_i W̃_i Ḡ_i, that of ½ δ ⟨W̃_i, S̄_i W̃_i Ḡ_i⟩: what samples say much about is
held as well, in the metric of the Gauss–Newton matrix. The last layer is left out, so that a linear model is that of
its loss and ridge.

Where the loss is a squared error, σ and δ are those of the beginning, times powers of the share of the first loss that
is left: of targets the first, as what is left in the end is noise, and where there is none neither is wanted (as
Levenberg–Marquardt by the residual: Yamashita & Fukushima 2001, "On the rate of convergence of the Levenberg–Marquardt
method"); of an auto-encoder's inputs σ times the root, while δ, which is small there, stays.

ρ_i relative to Ḡ_i's mean diagonal is, unless given, a tenth of the unknowns for each target number of a group (of
labels a fifth): the fewer numbers determine a weight, the more of what a group says about it is noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.solvers.kronecker import MATRICES, Forms, KroneckerSums
from altmin_dask.solvers.linalg import between
from altmin_dask.types import Array, Weights

CURVATURE_EVERY, CURVATURE_EARLY = 8, (1, 2, 3, 5)
"""Curvature costs a backward pass, and factors that are made anew (rows 6 and 86 of benchmarks/LOG.md): it is measured
in every eighth step, and in these."""
CURVATURE_DECAY = 0.8
"""Share of the running means that stays when curvature is measured again."""
AVERAGED_PART = 8
"""At first the mean of the weights reaches back over an eighth of the steps; with a long memory the first seconds are
lost (row 4)."""
LEAST_LEFT = 1e-3
"""What is left of the loss counts as so much at least."""
LOSS_SHARE = 0.1
"""Share of the running mean of the loss, and of its variance, that is new in a step."""
REJECTED, STANDARD_ERRORS = 2.0, 6
"""A step is taken back when the loss exceeds this multiple of its running mean, and so many of its standard errors
(row 45)."""
DAMPING_GROWTH = 4.0
"""Factor of ρ and σ after a step was taken back; it fades with steps that are not."""
DAMPING_FADE = 0.95
"""What a step leaves of it; of several at once when factors are made anew, as each time costs a factorisation."""
JUDGED_DECAY, LEAST_JUDGED = 0.9, 8
NOISY, NOISIER = 0.75, 1.15
"""Steps that may have more rows get twice as many where noise is so many times what they go by, in a running mean of
so many steps at least; and each time so many times as much noise is borne (row 108)."""
PATHS_POWER = 0.25
"""Where a mean is made of several paths as much less as this power of their number (row 109)."""
ARRAYS = "input_factors", "output_factors", "previous_weights", "average"
"""What of `KFACState` are arrays, one for every layer."""


@dataclass(frozen=True)
class KFACSettings:
    """How the weights move.

    Attributes
    ----------
    input_damping : float
        ρ_i relative to the mean diagonal of Ḡ_i. In pipelines it is `solver.proximal`, as it is one in the W-update of
        `altmin_dask.solvers.ridge`, too: both add a multiple of I to the Gram matrix that the step is solved with.
    output_damping : float
        σ, in units of the loss's curvature; absolute, so that it lasts where curvature fades (row 20).
    averaging : float
        Share of the mean weights that stays in a step (row 4).
    ridge : float
        λ / N for N samples altogether.
    weight_decay : float
        δ (row 87).
    damping_power, decay_power : float
        σ and δ are those of the beginning, and fall with these powers of what is left of the loss (rows 93 and 97).
    penalize_bias : bool
        Whether the ridge also holds biases.
    """

    input_damping: float
    output_damping: float
    averaging: float = 0.95
    ridge: float = 0.0
    weight_decay: float = 0.0
    damping_power: float = 0.0
    decay_power: float = 0.0
    penalize_bias: bool = True

    def sigma(self, state: KFACState) -> float:
        """σ of the moment."""
        return self.output_damping * state.left**self.damping_power

    def delta(self, state: KFACState) -> float:
        """δ of the moment: less of it, as of all of a step, where one was taken back."""
        return self.weight_decay * state.left**self.decay_power / state.damping_scale


def curvature_due(step: int) -> bool:
    """Whether curvature is measured in a step."""
    return step % CURVATURE_EVERY == 0 or step in CURVATURE_EARLY


def since_curvature(step: int) -> int:
    """How many steps ago curvature was measured last when it is in this one."""
    return next((ago for ago in range(1, step) if curvature_due(step - ago)), 1)


@dataclass
class KFACState:
    """What is remembered from step to step, besides the weights.

    Attributes
    ----------
    input_factors, output_factors : list of ndarray
        Ḡ_i and S̄_i, lower triangles; of `forms` that say so Ḡ_1 as the weight of every row, and S̄_L as a diagonal.
    previous_weights, average : tuple of ndarray
        The weights before the last step, and a running mean of those that were not taken back.
    steps, curvature_updates, rejections : int
        Steps that moved the weights, measurements of curvature, and steps taken back since one was confirmed.
    damping_scale : float
        Factor of the damping, 1 unless a step was taken back lately.
    loss_ema : float
        Running mean of the loss before each step, the ridge included; NaN at first.
    loss_variance_ema : float
        Running mean of its variance over samples. That of a group whose loss has exploded would excuse it (row 45).
    first_loss, left : float
        The loss that training began with, of the first group, NaN in runs that did not look at it; and which share of
        it the running mean was when curvature was measured last.
    gradient : float
        Norm of the gradient by the last group that was not refused, before its step; NaN at first.
    signal, noise : float
        Running means of what a step goes by, and how much of it is noise, since it has as many rows as now
        (`altmin_dask.solvers.local_steps`).
    judged, doublings : int
        Steps that these are of, and how often there have been twice as many rows since.
    """

    input_factors: list[Array]
    output_factors: list[Array]
    previous_weights: Weights
    average: Weights
    steps: int = 0
    curvature_updates: int = 0
    rejections: int = 0
    damping_scale: float = 1.0
    loss_ema: float = math.nan
    loss_variance_ema: float = 0.0
    first_loss: float = math.nan
    left: float = 1.0
    gradient: float = math.nan
    signal: float = 0.0
    noise: float = 0.0
    judged: int = 0
    doublings: int = 0

    @classmethod
    def start(cls, weights: Weights, forms: Forms = MATRICES) -> KFACState:
        """Before the first step."""
        dtype, shapes = weights[0].dtype, [(w.shape[0], w.shape[1]) for w in weights]
        inputs = [_zeros(shape, dtype) for shape in forms.input_shapes(shapes)]
        outputs = [np.zeros(shape, dtype) for shape in forms.output_shapes(shapes)]
        return cls(inputs, outputs, weights, weights)

    @property
    def forms(self) -> Forms:
        """How factors are kept."""
        first = self.input_factors[0]
        return Forms(len(first) if first.ndim == 1 else 0, self.output_factors[-1].ndim == 1)

    @property
    def lacks_inputs(self) -> bool:
        """Whether the first input factor is yet to be measured."""
        mean = self.input_factors[0]
        # the mean of 1 · 1, or the sum of the weights, is 1 from the first time on
        return not (mean[-1, -1] if mean.ndim == 2 else mean.any())

    def on_rows(self, forms: Forms) -> KFACState:
        """The same for other samples: weights of rows are those of the samples before, so they are begun anew."""
        if forms.rows or self.forms.rows:
            shape = forms.input_shapes([(w.shape[0], w.shape[1]) for w in self.average])[0]
            self.input_factors[0] = _zeros(shape, self.average[0].dtype)
        return self

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """All arrays by name."""
        for kind in ARRAYS:
            for layer, array in enumerate(getattr(self, kind)):
                yield f"{kind}_{layer}", array

    def scalars(self) -> dict[str, int | float]:
        """All that is not an array; what is NaN is left out."""
        names = [own.name for own in fields(self) if own.name not in ARRAYS]
        return {name: value for name in names if not math.isnan(value := getattr(self, name))}

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> KFACState:
        """Undo `tensors` and `scalars`."""
        layers = sum(name.startswith("input_factors_") for name in tensors)
        inputs, outputs, previous, average = (
            [tensors[f"{kind}_{layer}"] for layer in range(layers)] for kind in ARRAYS
        )
        return cls(inputs, outputs, tuple(previous), tuple(average), **scalars)

    @property
    def curvature_due(self) -> bool:
        """Whether curvature is measured in the next step."""
        return curvature_due(self.steps) or self.lacks_inputs

    def is_suspect(self, sums: KroneckerSums, ridge: float = 0.0) -> bool:
        """Whether the weights look worse than chance would have it, beside groups of samples that are like this one.

        A group's mean loss is judged with the `ridge` of the weights it has seen, λ Σ ‖W̃_i‖² / N: a step that makes
        that fall may well raise the loss.
        """
        n, loss, _ = (float(total) for total in sums.totals)
        if not sums.is_finite:
            return True
        if math.isnan(self.loss_ema):
            return False
        error = math.sqrt(self.loss_variance_ema / n)
        return loss / n + ridge > REJECTED * self.loss_ema + STANDARD_ERRORS * error

    def did_harm(self, sums: KroneckerSums, ridge: float, before: float) -> bool:
        """Whether it was the steps that made a group's loss what it is, so that the last one is taken back.

        Parameters
        ----------
        sums : KroneckerSums
            Of a group that is suspect.
        ridge : float
            λ Σ ‖W̃_i‖² / N of the weights that it has seen.
        before : float
            The same group's mean loss, with its ridge, by the mean of the weights, which would be gone back to.
        """
        n, loss, _ = (float(total) for total in sums.totals)
        return not loss / n + ridge <= REJECTED * before

    def judge(self, signal: float, noise: float) -> None:
        """Take what a step goes by, and the noise in it, into the means."""
        keep = JUDGED_DECAY if self.judged else 0.0
        self.signal = keep * self.signal + (1 - keep) * signal
        self.noise = keep * self.noise + (1 - keep) * noise
        self.judged += 1

    def is_noisy(self, paths: int = 1) -> bool:
        """Whether noise is much of what steps go by, so that they should be of more rows; less of a mean of `paths`."""
        borne = NOISY * NOISIER**self.doublings * self.signal
        return self.judged >= LEAST_JUDGED and self.noise / paths**PATHS_POWER > borne

    def double_rows(self) -> None:
        """Let steps be of twice as many rows from now on."""
        self.doublings += 1
        self.judged = 0

    def reject_step(self) -> Weights:
        """The mean weights, to go on from with more damping."""
        self.previous_weights = self.average
        self.damping_scale *= DAMPING_GROWTH
        self.rejections += 1
        return self.average

    def averaged(self, weights: Weights, averaging: float) -> Weights:
        """The mean with these weights in it, too: in the first steps they are most of it."""
        keep = min(averaging, 1 - 1 / (1 + self.steps / AVERAGED_PART))
        share = weights[0].dtype.type(1 - keep)
        return tuple(between(mean, w, share) for mean, w in zip(self.average, weights, strict=True))

    @property
    def young(self) -> bool:
        """Whether the mean is of so few steps that the last is most of what they have done."""
        return self.steps < AVERAGED_PART

    def update_averages(
        self,
        sums: KroneckerSums,
        weights: Weights,
        averaging: float,
        ridge: float = 0.0,
        rows: Array | None = None,
    ) -> None:
        """Take a group's samples into the means, and the weights, which it did not refuse (row 28).

        Parameters
        ----------
        sums : KroneckerSums
            Of the group.
        weights : tuple of ndarray
            Those of the moment.
        averaging : float
            As in `KFACSettings`.
        ridge : float
            λ Σ ‖W̃_i‖² / N of the weights that the group has seen.
        rows : ndarray of int, (n,), optional
            Which rows the group has, where Ḡ_1 is known by the weights of all.
        """
        if not np.array_equal(weights[-1], self.previous_weights[-1]):  # or it is what was gone back to
            self.rejections = 0
        self.average = self.averaged(weights, averaging)
        n, loss, squares = (float(total) for total in sums.totals)
        variance = max(squares / n - (loss / n) ** 2, 0.0)
        if math.isnan(self.loss_ema):
            self.loss_ema, self.loss_variance_ema = loss / n + ridge, variance
            if math.isnan(self.first_loss):  # of a stream, that of its first rows
                self.first_loss = self.loss_ema
        else:
            keep = 1 - LOSS_SHARE
            self.loss_ema = keep * self.loss_ema + LOSS_SHARE * (loss / n + ridge)
            self.loss_variance_ema = keep * self.loss_variance_ema + LOSS_SHARE * variance
        if not sums.curvature:
            return
        keep = min(CURVATURE_DECAY, 1 - 1 / (self.curvature_updates + 1))
        first = 0.0 if self.lacks_inputs else keep
        for layer, (mean, total) in enumerate(zip(self.input_factors, sums.input_factors, strict=True)):
            share = keep if layer else first
            if mean.ndim == 2:
                # Σ 1·1, the rows that were summed: of a recurrent network every step is one
                _average(mean, total, share, rows=float(total[-1, -1]))
            else:
                assert rows is not None
                mean *= share
                mean[rows] += (1 - share) / len(rows)
        for mean, total in zip(self.output_factors, sums.output_factors, strict=True):
            _average(mean, total, keep, rows=n)
        self.curvature_updates += 1
        if self.first_loss > 0:
            self.left = min(1.0, max(LEAST_LEFT, self.loss_ema / self.first_loss))
        # with the factors that are made anew now, and not in between (row 67)
        self.damping_scale = max(1.0, DAMPING_FADE ** since_curvature(self.steps) * self.damping_scale)

    def move(
        self,
        weights: Weights,
        direction: Weights,
        previous: Weights,
        coefficients: Array,
        weight_decay: float = 0.0,
    ) -> Weights:
        """W̃ + α (D − δ W̃) + β (W̃ − W̃_previous), the last layer without its δ; beside δ α is in [0, 1].

        A step that is not finite is not made: it counts as one taken back.

        Parameters
        ----------
        weights, direction, previous : tuple of ndarray
            W̃, D, and the weights before those that D was found with.
        coefficients : ndarray, (2,)
            (α, β).
        weight_decay : float
            δ.
        """
        moved = moved_by(weights, direction, previous, coefficients, weight_decay)
        if not are_finite(moved):
            return self.reject_step()
        self.previous_weights = weights
        self.steps += 1
        return moved


def moved_by(
    weights: Weights, direction: Weights, previous: Weights, coefficients: Array, weight_decay: float = 0.0
) -> Weights:
    """What `KFACState.move` moves the weights to."""
    scalar = weights[0].dtype.type
    alpha, beta = (scalar(value) for value in coefficients)
    # a longer step is one that curvature allows, which is not what decays go by
    hidden = scalar(1 - weight_decay * min(max(float(coefficients[0]), 0.0), 1.0))
    keep = [hidden] * (len(weights) - 1) + [scalar(1)]
    return tuple(
        _moved(w, some, alpha, d, beta, old)
        for w, some, d, old in zip(weights, keep, direction, previous, strict=True)
    )


def are_finite(weights: Weights) -> bool:
    """Whether all numbers are."""
    return all(np.isfinite(w).all() for w in weights)


@dataclass(frozen=True)
class Stream:
    """Samples that come little by little, of which a run has the last ones.

    Attributes
    ----------
    rows : int
        How many there have been, those of the run included.
    state : KFACState or None
        What the steps on those before remember; None at first.
    """

    rows: int
    state: KFACState | None = None

    def samples(self, network: Network) -> int:
        """Those that the ridge is shared by: all that have been, and as many at least as a group has."""
        return max(self.rows, network.defaults.group_rows)


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Of an input factor: weights of rows in float64, of which there are few."""
    return np.zeros(shape, dtype if len(shape) == 2 else np.float64)


def _moved(w: Array, keep: Any, alpha: Any, d: Array, beta: Any, old: Array) -> Array:
    """(1 − αδ) W̃ + α D + β (W̃ − W̃_previous), with one array besides the result."""
    result: Array = alpha * d
    term = keep * w
    result += term
    np.subtract(w, old, out=term)
    term *= beta
    result += term
    return result


def _average(mean: Array, total: Array, keep: float, rows: float) -> None:
    """Take the mean of so many rows into a running mean, in place."""
    mean *= keep
    mean += mean.dtype.type((1 - keep) / rows) * total
