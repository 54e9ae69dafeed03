"""Whether the limit of sweeps ended a fit that had still something to gain, as scikit-learn's networks tell, too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from altmin_dask.errors import AltMinWarning, warn
from altmin_dask.format import counted_as
from altmin_dask.training.ending import Ending
from altmin_dask.training.record import Record

FALLING = 0.15
"""Share of the loss that is still gained in the last quarter of a fit that has not converged (chosen: default fits of
standardized iris, wine, breast cancer, digits and diabetes gain 1–10 %, of raw ones 16–30 %, those ended by 10 sweeps
17–32 %)."""
_LAST = 0.25
SOLVED = 0.01
"""Share of the first loss below which what is still gained is no matter (R² of some 0.99; chosen)."""


class NotConvergedWarning(AltMinWarning, ConvergenceWarning):  # type: ignore[misc]
    """The loss was still falling when `max_sweeps` ended a fit."""


def warn_if_falling(name: str, ending: Ending | None, records: Sequence[Record]) -> None:
    """Tell that more sweeps would have made a difference, if their limit ended a fit.

    Parameters
    ----------
    name : str
        Of the estimator.
    ending : Ending or None
        Why training ended; None where somebody else has stopped it.
    records : sequence of Record
        The history.

    Warns
    -----
    NotConvergedWarning
        If it is so.
    """
    if ending is None or ending.reason != "max_sweeps" or (share := gained(records)) <= FALLING:
        return
    warn(
        f"{name} has not converged: the loss still fell by {share:.0%} in the last quarter of "
        f"{counted_as(records[-1].sweep, 'sweep')}, all that max_sweeps allows; give a larger max_sweeps",
        NotConvergedWarning,
    )


def gained(records: Sequence[Record]) -> float:
    """Which share of the loss that decides, the best till then, went in the last quarter of the sweeps.

    None of a loss of next to nothing, which may go on falling for ever.
    """
    losses = [
        each.regularized_loss if each.validation_loss is None else each.validation_loss for each in records
    ]
    best, sweeps = np.minimum.accumulate(losses), np.array([each.sweep for each in records])
    if best[-1] <= SOLVED * best[0]:
        return 0.0
    before = float(np.interp(sweeps[-1] - _LAST * (sweeps[-1] - sweeps[0]), sweeps, best))
    return 1 - float(best[-1]) / before
