"""Settings of a z-update, by Gauss–Newton or on the exact Hessian."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NewtonSettings:
    """How far a z-update goes.

    Attributes
    ----------
    newton_steps : int
        Linearisations per visit.
    cg_iterations : int
        At most this many conjugate-gradient iterations per step.
    cg_tolerance : float
        A sample stops iterating when its CG residual has fallen by this factor.
    damping : float
        Levenberg–Marquardt damping in residual coordinates, relative to μ_i.
    curvature : {"gauss_newton", "exact"}
        "exact" is a dense Newton step per sample on the true Hessian (`altmin_dask.solvers.exact_newton`).
    armijo, backtrack : float
        A step t is accepted when F falls by ``armijo * t`` times the slope; else t shrinks by ``backtrack``.
    max_backtracks : int
        After this many reductions a sample stays where it was.
    """

    newton_steps: int = 1
    cg_iterations: int = 3
    cg_tolerance: float = 0.0
    damping: float = 0.0
    curvature: str = "gauss_newton"
    armijo: float = 0.2
    backtrack: float = 0.25
    max_backtracks: int = 10
