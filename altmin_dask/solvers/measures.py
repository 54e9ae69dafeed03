"""What is summed over samples besides the loss, chunk by chunk, for metrics to be told from the sums.

Every sum is over outputs: one of a sample, or one of each step that has a target. Each counts by its sample's weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from altmin_dask.networks.mean_loss import MeanLoss, Targets
from altmin_dask.networks.network import Network
from altmin_dask.networks.workspace import strips
from altmin_dask.solvers import metrics
from altmin_dask.solvers.packing import Layout, PackedArrays, packed_size
from altmin_dask.solvers.tallies import Tally
from altmin_dask.types import Array

EXACT_OUTPUTS = 1 << 16
"""Outputs up to which every score is kept (1 MiB); of more they are counted in as many steps, whose ties are halved."""
MOST_CONFUSED = 256
"""Classes up to which all pairs of them are counted (0.5 MiB)."""
MOST_LISTED = 4096
"""Features up to which metrics are told one by one."""
MOST_RECORDED = 100
"""Classes, outputs or features up to which every record tells of each: of more a history would be mostly that, and to
measure features takes longer the more there are."""
_NARROW, _WIDE = 1e-3, 1e3
"""Scores between which steps are even in log score; below they are even in score, beyond all is one step."""


@dataclass(frozen=True)
class Outputs:
    """Outputs of a block, one a row: of a sample, or of one of its steps.

    Attributes
    ----------
    loss : MeanLoss
        Of the network.
    z, a : ndarray, (n, …)
        Before and after φ_L, as the network gives them.
    targets : Targets
        What they are compared with.
    counts : ndarray of float64, (m,)
        How much each counts; 0 where there is no target.
    first : int
        Number of the first of them among all.
    values : ndarray, (n,)
        The loss of each sample.
    """

    loss: MeanLoss
    z: Array
    a: Array
    targets: Targets
    counts: Array
    first: int
    values: Array

    def rows(self) -> tuple[Array, Array, Array]:
        """Of all: z and a, (m, d), and targets, (m, d) or labels (m,)."""
        z, a = self.loss.each(self.z), self.loss.each(self.a)
        return z, a, self.loss.each_target(self.targets)

    def losses(self) -> Array:
        """ℓ of each, (m,); of one without a target 0."""
        if self.targets.shares is None:  # the samples' own
            return self.values
        return np.where(self.counts > 0, self.loss.base.value(*self.rows()), 0)


class Measure(Protocol):
    """Which sums are taken, where all samples take part."""

    @property
    def for_records(self) -> Measure:
        """What records have of it, without what takes long or is much to send; itself where there is no such thing."""

    @property
    def summed(self) -> Measure:
        """The same without the last of its sums, those that few samples touch; itself where there are none."""

    def layout(self) -> Layout:
        """The arrays of the sums."""

    def add(self, sums: Any, outputs: Outputs) -> None:
        """Add a block's."""

    def tally(self, outputs: Outputs) -> Tally:
        """A block's part of those that `summed` lacks, counted from the first of them."""

    def metrics(self, sums: Any, names: Sequence[Any] | None, units: Array | None) -> dict[str, Any]:
        """What the sums tell, JSON-ready; None where something is not defined.

        Parameters
        ----------
        sums : PackedArrays
            Of all samples.
        names : sequence, optional
            Of classes, outputs or features.
        units : ndarray, (d,), optional
            What one unit of a feature was before it was scaled.
        """


class _EverySum:
    """What most measures have in common: nothing is left out, and all sums are of all samples."""

    @property
    def for_records(self) -> Any:
        """All of it."""
        return self

    @property
    def summed(self) -> Any:
        """All of it."""
        return self

    def tally(self, outputs: Outputs) -> Tally:
        """Nothing."""
        return np.empty(0), np.empty(0)


class NoMeasure(_EverySum):
    """Nothing but the loss."""

    def layout(self) -> Layout:
        """No arrays."""
        return {}

    def add(self, sums: Any, outputs: Outputs) -> None:
        """Nothing."""

    def metrics(self, sums: Any, names: Sequence[Any] | None, units: Array | None) -> dict[str, Any]:
        """None."""
        return {}


NOTHING = NoMeasure()


class LabelSums(PackedArrays):
    """Sums of a `LabelMeasure`.

    Attributes
    ----------
    log_loss : ndarray, ()
        Σ −log p of the label.
    labels, predicted, right : ndarray, (K,)
        How many labels there are of each class, how often it is the largest output, and how often both.
    confusion : ndarray, (K, K)
        How many labels of a class (row) were predicted as another; empty where there are too many.
    scores : ndarray, (2, s)
        Of two classes: the score z_1 − z_0 of every output, and its count, negative of class 0; or the counts of both
        classes by steps of the score.
    """

    log_loss: Array
    labels: Array
    predicted: Array
    right: Array
    confusion: Array
    scores: Array


@dataclass(frozen=True)
class LabelMeasure(_EverySum):
    """Of classifiers.

    Attributes
    ----------
    classes : int
        K.
    outputs : int
        Of all samples.
    curve : bool
        Whether scores of two classes are kept, for the ROC curve: up to 1 MiB.
    """

    classes: int
    outputs: int
    curve: bool = True

    @property
    def summed(self) -> LabelMeasure:
        """Without scores."""
        return replace(self, curve=False) if self.classes == 2 else self

    @property
    def exact(self) -> bool:
        """Whether scores are kept one by one."""
        return self.outputs <= EXACT_OUTPUTS

    def layout(self) -> Layout:
        """As `LabelSums` has them."""
        K = self.classes
        pairs = K if K <= MOST_CONFUSED else 0
        scores = min(self.outputs, EXACT_OUTPUTS) if K == 2 and self.curve else 0
        each = dict.fromkeys(("labels", "predicted", "right"), (K,))
        return {"log_loss": (), **each, "confusion": (pairs, pairs), "scores": (2, scores)}

    def add(self, sums: Any, outputs: Outputs) -> None:
        """Count what there is, and what was predicted."""
        found = LabelSums(self.layout(), sums)
        (z, _, y), counts, K = outputs.rows(), outputs.counts, self.classes
        predicted = z.argmax(axis=1)
        found.log_loss += np.dot(counts, outputs.losses())
        found.labels += np.bincount(y, counts, K)
        found.predicted += np.bincount(predicted, counts, K)
        found.right += np.bincount(y, counts * (y == predicted), K)
        if found.confusion.size:
            found.confusion += np.bincount(y * K + predicted, counts, K * K).reshape(K, K)
        if found.scores.size:
            places, values = self.tally(outputs)
            np.add.at(found.scores.reshape(-1), places, values)

    def tally(self, outputs: Outputs) -> Tally:
        """Where in the scores a block's are, and what is added there."""
        (z, _, y), counts = outputs.rows(), outputs.counts
        size = self.layout()["scores"][1]
        assert isinstance(size, int)
        score = np.nan_to_num(z[:, 1].astype(np.float64) - z[:, 0])
        if self.exact:
            places = np.arange(outputs.first, outputs.first + len(score))
            signed = np.where(y == 1, counts, -counts)
            return np.concatenate([places, places + size]), np.concatenate([score, signed])
        step = np.arcsinh(score / _NARROW) / np.arcsinh(_WIDE / _NARROW)
        step = np.clip((step + 1) * (size / 2), 0, size - 1).astype(np.intp)
        return step + size * (y == 1), counts  # which is 0 of one without a label

    def metrics(self, sums: Any, names: Sequence[Any] | None, units: Array | None) -> dict[str, Any]:
        """Accuracies, log loss, what there is to know of each class, and of two the area under the ROC curve."""
        found = LabelSums(self.layout(), sums)
        area = {}
        if found.scores.size:
            area = metrics.roc_area(*_by_score(found.scores) if self.exact else found.scores)
            area |= {"roc_auc_error": 0.0} if self.exact and area["roc_auc"] is not None else {}
        return {
            **metrics.of_classes(found.labels, found.predicted, found.right),
            "log_loss": metrics.share(found.log_loss, found.labels.sum()),
            **area,
            "per_class": metrics.per_class(found.labels, found.predicted, found.right, names),
            "confusion_matrix": metrics.counted(found.confusion) if found.confusion.size else None,
        }


def _by_score(scores: Array) -> tuple[Array, Array]:
    """Counts of both classes, by scores that differ, in their order."""
    _, place = np.unique(scores[0], return_inverse=True)
    low, high = (np.bincount(place, np.maximum(sign * scores[1], 0)) for sign in (-1, 1))
    return low, high


class TargetSums(PackedArrays):
    """Sums of a `TargetMeasure` or a `FeatureMeasure`.

    Attributes
    ----------
    squares, absolutes : ndarray, (d,)
        Σ e² and Σ |e| of errors e.
    targets, target_squares : ndarray, (d,)
        Σ (y − c) and Σ (y − c)²; empty of features.
    counted : ndarray, ()
        Σ of the counts.
    """

    squares: Array
    absolutes: Array
    targets: Array
    target_squares: Array
    counted: Array


@dataclass(frozen=True, eq=False)
class TargetMeasure(_EverySum):
    """Of regressors, in the targets' own units.

    Attributes
    ----------
    size : int
        d.
    factors, zeros : ndarray, (d,) or of every step (T d,)
        Own units are (y − zero) · factor + c. Where the zero is some target Σ (y − ȳ)² is right to ε times the number
        of samples, however large targets are beside their deviation.
    """

    size: int
    factors: Array
    zeros: Array

    def layout(self) -> Layout:
        """As `TargetSums` has them."""
        each = dict.fromkeys(("squares", "absolutes", "targets", "target_squares"), (self.size,))
        return {**each, "counted": ()}

    def add(self, sums: Any, outputs: Outputs) -> None:
        """Errors and targets."""
        found, d = TargetSums(self.layout(), sums), self.size
        steps = len(self.factors) // d
        factors, zeros = self.factors.reshape(steps, d), self.zeros.reshape(steps, d)
        _, a, targets = outputs.rows()
        for rows in strips(*a.shape):
            step = (np.arange(rows.start, rows.stop) + outputs.first) % steps
            counts, factor = outputs.counts[rows], factors[step]
            y = targets[rows].astype(np.float64)
            _add_errors(found, (a[rows] - y) * factor, counts)
            y = (y - zeros[step]) * factor
            found.targets += counts @ y
            found.target_squares += counts @ np.square(y)

    def metrics(self, sums: Any, names: Sequence[Any] | None, units: Array | None) -> dict[str, Any]:
        """R², RMSE and MAE: the mean over outputs, and of each where there are several."""
        found = TargetSums(self.layout(), sums)
        return metrics.of_targets(
            found.squares, found.absolutes, found.targets, found.target_squares, float(found.counted), names
        )


@dataclass(frozen=True)
class FeatureMeasure(_EverySum):
    """Of auto-encoders.

    Attributes
    ----------
    size : int
        d.
    """

    size: int

    @property
    def for_records(self) -> Measure:
        """All of it of a few features; of many nothing: their errors take as long again as the loss."""
        return self if self.size <= MOST_RECORDED else NOTHING

    def layout(self) -> Layout:
        """As `TargetSums` has them."""
        d = self.size
        return {"squares": (d,), "absolutes": (d,), "targets": (0,), "target_squares": (0,), "counted": ()}

    def add(self, sums: Any, outputs: Outputs) -> None:
        """Errors."""
        found = TargetSums(self.layout(), sums)
        _, a, targets = outputs.rows()
        for rows in strips(*a.shape):
            errors = np.subtract(a[rows], targets[rows], dtype=np.float64)
            _add_errors(found, errors, outputs.counts[rows])

    def metrics(self, sums: Any, names: Sequence[Any] | None, units: Array | None) -> dict[str, Any]:
        """Mean square, its root and mean size of errors, in own units: of all features, and of each."""
        found = TargetSums(self.layout(), sums)
        listed = self.size <= MOST_LISTED
        own = np.ones(self.size) if units is None else units
        return metrics.of_features(
            found.squares * own**2, found.absolutes * own, float(found.counted), names, listed=listed
        )


def _add_errors(found: TargetSums, errors: Array, counts: Array) -> None:
    found.counted += counts.sum()
    found.absolutes += counts @ np.abs(errors)
    found.squares += counts @ np.square(errors, out=errors)


def most_numbers(network: Network, samples: int) -> int:
    """How many numbers the sums have at most, whatever is compared with the outputs."""
    steps = network.loss.steps or 1
    d = network.widths[-1] // steps
    if network.loss.target == "labels":
        return packed_size(LabelMeasure(d, samples * steps).layout())
    return 4 * d + 1
