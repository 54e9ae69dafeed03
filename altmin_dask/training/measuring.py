"""What is measured of a model on samples, in the units of the raw data, and what its loss is a number of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from altmin_dask.config import KINDS
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.networks.network import Network
from altmin_dask.preparation import Preparation, Scaling
from altmin_dask.solvers.evaluation import Evaluation
from altmin_dask.solvers.measures import FeatureMeasure, LabelMeasure, Measure, TargetMeasure
from altmin_dask.types import Array


@dataclass(frozen=True, eq=False)
class Measuring:
    """How good a model is on a store, in words that its user knows.

    Attributes
    ----------
    measure : Measure
        What is summed.
    names : sequence or None
        Of classes, outputs or features; None where they have only numbers.
    units : ndarray, (d,), or None
        Of an auto-encoder, what one unit of each feature was before it was scaled.
    loss_unit : str
        What the loss is.
    """

    measure: Measure
    names: Sequence[Any] | None
    units: Array | None
    loss_unit: str

    @classmethod
    def of(
        cls, kind: str, network: Network, store: SampleStore, scale: float, preparation: Preparation | None
    ) -> Self:
        """For a network of a kind on a store, whose model has that scale and preparation."""
        target, how = KINDS[kind].target, preparation or Preparation()
        steps = network.loss.steps or 1
        size = network.widths[-1] // steps
        if target == "labels":
            names = how.called
            return cls(LabelMeasure(size, store.rows * steps), names, None, network.loss.unit)
        if target == "inputs":
            units = np.full(size, scale) * (1.0 if how.x is None else np.array(how.x.scale))
            what = "standardized" if how.x else "raw" if scale == 1 else f"divided by {scale:g}"
            return cls(FeatureMeasure(size), how.names or None, units, f"{network.loss.unit}, numbers {what}")
        what = "standardized" if how.y else "as given"
        unit = f"{network.loss.unit}, targets {what}"
        return cls(_of_targets(store, how.y, size, steps), how.targets or None, None, unit)

    def metrics(self, quality: Evaluation) -> dict[str, Any]:
        """What sums of the measure tell, JSON-ready."""
        return quality.metrics(self.names, self.units)


def _of_targets(store: SampleStore, scaling: Scaling | None, size: int, steps: int) -> TargetMeasure:
    """The measure of targets, with zeros near them: the first one of the store that is there."""
    assert store.y is not None
    first = np.asarray(store.y[:1], np.float64).reshape(-1, size)
    shifts, factors = np.zeros(steps * size), np.ones(steps * size)
    if scaling is not None:
        shifts, factors = np.array(scaling.shift), np.array(scaling.scale)
    own = first * factors.reshape(steps, size) + shifts.reshape(steps, size)
    there = np.flatnonzero(np.isfinite(own).all(axis=1))
    near = own[there[0]] if there.size else np.zeros(size)
    if steps == 1 and there.size:  # without rounding
        zeros = first[0]
    else:
        zeros = ((near - shifts.reshape(steps, size)) / factors.reshape(steps, size)).ravel()
    return TargetMeasure(size, factors, zeros)
