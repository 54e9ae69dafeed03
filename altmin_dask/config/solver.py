"""The table `[solver]`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from altmin_dask.config.base import EACH, ONE, TABLE, WORD, Count, NonNegative, Positive, Table, form_of
from altmin_dask.solvers.penalties import PENALTIES

PenaltyName = Literal[*PENALTIES]  # type: ignore[valid-type]


def _mu_form(value: Any) -> str:
    return WORD if value == "auto" else form_of(value)


def _number_form(value: Any) -> str:
    return WORD if value == "auto" else ONE


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
    """How residuals are held: Σ μ_i ‖r_i‖²; or, where z is kept, Σ μ_i ‖r_i‖₁, or at zero, by multipliers."""
    mu: Annotated[
        Annotated[Positive, Tag(ONE)]
        | Annotated[tuple[Positive, ...], Field(strict=False, min_length=1), Tag(EACH)]
        | Annotated[MuSchedule, Tag(TABLE)]
        | Annotated[Literal["auto"], Tag(WORD)],
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
    ridge: Annotated[
        Annotated[NonNegative, Tag(ONE)] | Annotated[Literal["auto"], Tag(WORD)], Discriminator(_number_form)
    ] = "auto"
    """λ of λ Σ_i ‖[W_i b_i]‖² beside the sum of all losses (scikit-learn's `alpha` is 2 λ). Small data sets need it,
    large ones hardly notice. "auto": 1 for classifiers and regressors, which is made for standardised samples and more
    than smaller ones need; 0.3 for recurrent networks; 0.005 for auto-encoders, and wherever z persists."""
    penalize_bias: bool = True
    """Whether the ridge also holds the biases."""
    proximal: NonNegative | None = None
    """ρ relative to the mean diagonal of a Gram matrix; by default 0, and for K-FAC steps a tenth of the unknowns for
    each target number of a group, a fifth for classes and recurrent networks."""
    output_damping: Positive | None = None
    """σ of K-FAC steps, in units of the loss's curvature; by default 0.03 for squared error and recurrent networks, and
    0.003 for the cross entropies of chains. With n unknowns for each target number of a group, classes have 1.5 / n of
    it (down to a sixth). Auto-encoders by squared error begin with 0.01 where they have one hidden layer and with 0.1
    where they have more. By squared error what it is, given or not, falls: of regressors as the loss does, of
    auto-encoders as its root."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    """δ of K-FAC steps: α δ of all weights and biases but the last layer's is taken from them in a step (α counts as 1
    at most), whatever their curvature, which the ridge goes by. It is held against noise that is fitted: less of it is
    learnt, and accuracies, scores and losses of new samples are better; targets without any may be learnt a little less
    exactly. 0 is none. By default 0.15 times the root of how many unknowns there are for each target number of all
    samples, at most 0.2; of squared error 0.8 times it, at most 0.95, which falls as the loss does and faster; of
    auto-encoders 0.05 times it, at most 0.2, so that their start is forgotten; and 0 for recurrent networks."""
    newton_steps: Count = 1
    """Newton steps of z in a visit."""
    cg_iterations: Count = 2
    """Iterations of conjugate gradients in a Newton step, at most."""
    cg_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """They end for a sample when their residual has fallen by this factor."""
    damping: NonNegative = 0.0
    """Of the z-update (Levenberg–Marquardt), relative to μ_i."""
    curvature: Literal["gauss_newton", "exact"] = "gauss_newton"
    """Of the z-update: Gauss–Newton by conjugate gradients, or dense Newton on the exact Hessian, for chains."""
