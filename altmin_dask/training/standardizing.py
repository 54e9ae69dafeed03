"""What training standardizes within the network: numbers that are of very different scale, or far from 0.

From those little is learnt. The damping of a step goes by the mean diagonal of a Gram matrix, the first weights by how
many inputs there are, and the ridge by the unit of the loss. Where all columns are alike, as pixels are, they stay as
they are: to divide each by its own deviation would only make noise of those that hardly change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from altmin_dask.config import NetworkTable, Pipeline
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import Source
from altmin_dask.errors import ConfigError, DataError, warn
from altmin_dask.networks.activations import get_activation
from altmin_dask.networks.network import Network
from altmin_dask.networks.standardization import Scale, Standardization
from altmin_dask.solvers.kfac import Stream
from altmin_dask.storage.units import Units
from altmin_dask.training.scales import (
    AWAY,
    LEAST_ROWS,
    UNLIKE,
    Scales,
    measured_in,
    scales_of,
    some_rows,
)
from altmin_dask.types import Array

SMALL, LARGE = 0.15, 3.0
"""Sizes of inputs that are left as they are where all columns are alike: those of pixels in [0, 1] are 0.3 and 0.6.

Iris by default: 0.96 right; 0.92 and 0.33 of a tenth and a hundredth of its numbers; 0.89 of ten times them. Digits
from 0 to 16, of size 5.6: 0.963, and 0.980 of a tenth of them."""
UNSEEN = 0.02
"""Samples that deviate less are too much alike for outputs that reach from 0 to 1; pixels deviate by 0.3 and more."""
CONSTANT = 1e-3
"""A constant target is divided by this share of itself: what a network is off by is as little then."""
_REACH = {"float32": (1e-35, 1e35), "float64": (1e-150, 1e150)}
"""Sizes beyond these are not divided by: weights, or their squares, would be 0 or ∞."""


def bytes_beside(settings: NetworkTable, source: Source) -> int:
    """What a sample of a store takes beside what is stored of it, where it may be read into larger numbers."""
    size = np.dtype(settings.dtype).itemsize
    larger = settings.standardize != "none" and source.x_dtype.itemsize < size
    return size * prod(source.x_shape) if larger else 0


@dataclass(frozen=True, eq=False)
class Deciding:
    """Decides for one run.

    Attributes
    ----------
    pipeline, network, store : Pipeline, Network, SampleStore
        What is trained on what.
    stream : Stream, optional
        Of samples that come little by little: most of them are still to come, so that nothing is known of their scale.
    log : callable
        Is told what "auto" standardizes, and why, when a run begins.
    """

    pipeline: Pipeline
    network: Network
    store: SampleStore
    stream: Stream | None = None
    log: Callable[[str], object] = print

    def standardization(self, begun: Mapping[str, Any] | None = None) -> Standardization:
        """What is standardized: as `network.standardize` says, or as it was when a run began that goes on.

        Raises
        ------
        ConfigError
            If something is asked for that cannot be.

        Warns
        -----
        AltMinWarning
            Of a column that is far off where "auto" can do nothing about it.
        """
        wanted = self.pipeline.network.standardize
        if wanted not in ("auto", "none"):
            self._check(wanted)
        if begun is not None and begun.get("standardize") in (None, "none"):
            wanted = "none"
        first = self.network.layers[0]
        columns = first.scalable or first.inputs - 1
        if self.pipeline.network.target == "inputs":
            scale = None if wanted == "none" else self._of_autoencoder()
            return Standardization(scale, scale, columns)
        return Standardization(self._inputs(wanted), self._targets(wanted), columns)

    def _check(self, wanted: str) -> None:
        """Refuse what cannot be."""
        first, loss = self.network.layers[0], self.network.loss
        if wanted in ("inputs", "both") and first.scalable is None:
            raise ConfigError(
                f"network.standardize = {wanted!r} is not for a first layer that is a {first.kind}, whose weights read "
                "different numbers by turns; leave it out"
            )
        if wanted in ("targets", "both") and not self._real:
            raise ConfigError(
                f"network.standardize = {wanted!r} is for the squared loss of identity outputs, and these are "
                f"{loss.name} and {loss.output_activation}; write 'inputs', or leave it out"
            )
        if self.stream is not None:
            raise ConfigError(
                "samples that come little by little are not standardized by what is still to come; leave standardize "
                "out, and give partial_fit what a StandardScaler has made of them"
            )

    @property
    def _real(self) -> bool:
        """Whether outputs are numbers of any size, by the square of whose error they are judged."""
        loss = self.network.loss
        return loss.name == "squared" and loss.output_activation == "identity"

    @cached_property
    def _looked_at(self) -> tuple[Array, Array | None] | None:
        """Some rows of the inputs, which are read once, and which of their columns have a unit; None of too few."""
        if self.store.rows < LEAST_ROWS:
            return None
        columns = self.network.layers[0].scalable or self.store.features
        rows = some_rows(self.store, "x", columns)
        return (rows, measured_in(self.store, columns)) if len(rows) else None

    @cached_property
    def _scales(self) -> Scales | None:
        """Of the inputs."""
        return None if self._looked_at is None else Scales.of(*self._looked_at)

    @property
    def units(self) -> Units | None:
        """In what units inputs are, but for dates, which go on; None where they are not looked at, or too few.

        Of a stream, too, which has seen but some.
        """
        looks = self.pipeline.network.standardize not in ("none", "targets") and self.stream is None
        if not looks or self._looked_at is None:
            return None
        rows, measured = self._looked_at
        if measured is not None and self.store.preparation is not None:
            measured = measured & ~np.array(self.store.preparation.dated)
        return Units.of(rows, measured)

    def _of_autoencoder(self) -> Scale | None:
        """What samples that are to be given back are shifted and divided by, all by the same number."""
        scales, dtype = self._scales, self.pipeline.network.dtype
        if scales is None:
            return None
        self._check_size(scales)
        column, size, away = scales.far_off, scales.typical, scales.away
        able = self._real and self.stream is None
        self._warn_of_reach(size)
        if column is not None and (scales.unlike or (self._real and not able)):
            self._warn(scales, column)
        if not able or not (away or self._is_odd(size)):
            return None
        self.log(
            f"samples are {'shifted and ' if away else ''}divided by {size:.3g} within the network "
            f"(network.standardize), which is how far numbers of x in {self.store.title} deviate"
        )
        if away and self.network.layers[0].scalable is not None:
            return Scale(
                np.where(np.isfinite(scales.mean), scales.mean, 0.0), np.full(len(scales.mean), size), dtype
            )
        return Scale.common(size, dtype)

    def _warn_of_reach(self, size: float) -> None:
        """Tell of samples that hardly differ, for what outputs reach."""
        output = get_activation(self.network.loss.output_activation)
        if size < UNSEEN and np.isfinite(output.low) and np.isfinite(output.high):
            warn(
                f"numbers of x in {self.store.title} deviate by {size:.3g}, and {output.name} outputs reach from "
                f"{output.low:g} to {output.high:g}: nothing is learnt of differences so small; divide them by less "
                "(data.scale), or choose the output_activation identity"
            )

    @property
    def _reach(self) -> tuple[float, float]:
        """Sizes that can be divided by."""
        return _REACH[self.pipeline.network.dtype]

    def _is_odd(self, size: float) -> bool:
        """Whether numbers that deviate so far as a whole are divided by that."""
        least, most = self._reach
        return least <= size <= most and not SMALL <= size <= LARGE

    def _warn(self, scales: Scales, column: int) -> None:
        """Tell of a column that is far off, once in a stream."""
        image = len(self.store.sample_shape) > 1 and not self.pipeline.network.recurrent
        if image and not (scales.mean < 0).any():  # pixels have one unit, and a plain border is no other
            return
        if self.stream is None or self.stream.state is None:
            warn(
                f"{self._described(scales, column)}: from numbers of such different scale little is learnt; "
                "standardize them (data.standardize = true, `altmin ingest --standardize`, or a StandardScaler in "
                "front of an estimator)"
            )

    def _inputs(self, wanted: str) -> Scale | None:
        """What inputs are shifted and divided by: each column by its own, or all by the same number."""
        scales = None if wanted in ("none", "targets") else self._scales
        if scales is None:
            return None
        self._check_size(scales)
        if wanted != "auto":
            return self._each(scales)
        settings, column, size = self.pipeline.network, scales.far_off, scales.typical
        if column is None:
            if self.stream is not None or not self._is_odd(size):
                return None
            self.log(
                f"inputs are divided by {size:.3g} within the network (network.standardize), which is how far numbers "
                f"of x in {self.store.title} deviate"
            )
            return Scale.common(size, settings.dtype)
        image = len(self.store.sample_shape) > 1 and not settings.recurrent
        if image or self.network.layers[0].scalable is None or self.stream is not None:
            self._warn(scales, column)
            return None
        self.log(
            f"inputs are standardized within the network (network.standardize): {self._described(scales, column)}"
        )
        return self._each(scales)

    def _check_size(self, scales: Scales) -> None:
        """Refuse inputs that are so small, or large, that their squares are 0 or infinite."""
        least, most = self._reach
        sizes = np.maximum(scales.size, np.abs(scales.mean))
        if (scales.varies | scales.drowned).any() and not (sizes >= least).any():
            what = f"smaller than {least:g}"
        elif not scales.typical <= most:
            what = f"larger than {most:g}"
        else:
            return
        raise DataError(
            f"x in {self.store.title} has numbers {what}, whose squares {self.pipeline.network.dtype} does not hold; "
            "give them in other units"
        )

    def _each(self, scales: Scales) -> Scale:
        """What makes all that is measured of mean 0 and size 1, and a constant 0."""
        size = np.where(scales.varies, scales.size, np.maximum(np.abs(scales.mean), 1.0))
        least, most = self._reach
        use = scales.measured & np.isfinite(scales.mean) & (size >= least) & (size <= most)
        self._warn_of_lost(scales, scales.measured & ~use)
        shift, scale = np.where(use, scales.mean, 0.0), np.where(use, size, 1.0)
        return Scale(shift, scale, self.pipeline.network.dtype)

    def _warn_of_lost(self, scales: Scales, beyond: Array) -> None:
        """Tell of columns of which nothing is left: far too far from 0, or of sizes that cannot be divided by."""
        for column in np.flatnonzero(scales.drowned | (beyond & scales.varies))[:1].tolist():
            warn(
                f"{self._described(scales, column)}, of which {self.pipeline.network.dtype} leaves nothing to learn "
                "from: subtract an offset from it, or give it in other units"
            )

    def _targets(self, wanted: str) -> Scale | None:
        """What targets are shifted and divided by, all of them by the same number."""
        settings = self.pipeline.network
        if wanted in ("none", "inputs") or settings.target != "real" or not self._real:
            return None
        scales = scales_of(self.store, "y", self.network.widths[-1] // (self.network.loss.steps or 1))
        if scales is None:
            return None
        if wanted == "auto" and self.stream is not None:
            if scales.unlike:
                self._warn_of_targets(scales)
            return None
        if scales.unlike:
            return self._each_target(scales, wanted)
        mean = float(np.abs(scales.mean).max())
        size = float(np.sqrt(np.square(scales.deviation).mean())) if scales.varies.any() else CONSTANT * mean
        least, most = self._reach
        lost = scales.varies.any() and not least <= size <= most
        if scales.drowned.any() or lost or not np.isfinite(mean):
            raise DataError(
                f"y in {self.store.title} has a mean of up to {mean:.3g} and a standard deviation of {size:.3g}, which "
                f"{self.pipeline.network.dtype} cannot tell apart, or not hold; subtract an offset, or divide them"
            )
        if not least <= size <= most:  # nothing but 0
            return None
        if wanted == "auto":
            if 1 / UNLIKE <= size <= UNLIKE and mean <= AWAY * size:
                return None
            self.log(
                f"targets are standardized within the network (network.standardize): y in {self.store.title} has "
                f"{'means of up to' if len(scales.mean) > 1 else 'a mean of'} {mean:.3g} and a standard deviation of "
                f"{size if scales.varies.any() else 0:.3g}"
            )
        return Scale(scales.mean, np.full(len(scales.mean), size), settings.dtype)

    def _each_target(self, scales: Scales, wanted: str) -> Scale:
        """What targets of unlike size are shifted and divided by: each by its own, so that small ones count."""
        least, most = self._reach
        size = np.where(scales.varies, scales.deviation, np.maximum(CONSTANT * np.abs(scales.mean), least))
        if wanted == "auto":
            low, high = scales.deviation[scales.varies].min(), scales.deviation.max()
            self.log(
                f"each target is standardized within the network (network.standardize), so that all count alike: y in "
                f"{self.store.title} has standard deviations from {low:.3g} to {high:.3g}"
            )
            self._warn_of_choice(scales)
        return Scale(scales.mean, np.clip(size, least, most), self.pipeline.network.dtype)

    def _warn_of_choice(self, scales: Scales) -> None:
        """Tell that losses are in the targets' own units, and by which of them a model is chosen, then."""
        how, most = self.store.preparation, int(scales.deviation.argmax())
        names = () if how is None else how.targets
        largest = repr(names[most]) if len(names) == len(scales.mean) else str(most)
        warn(
            f"losses are in the units of y in {self.store.title}, whose column {largest} is most of them: it decides "
            "which model is kept, and when training stops; if all columns are to, standardize them (data.standardize = "
            "true, `altmin ingest --standardize`, or TransformedTargetRegressor of scikit-learn)"
        )

    def _warn_of_targets(self, scales: Scales) -> None:
        """Tell of targets whose errors hardly count beside those of others, once in a stream."""
        if self.stream is None or self.stream.state is None:
            least, most = scales.deviation[scales.varies].min(), scales.deviation.max()
            warn(
                f"y in {self.store.title} has columns with standard deviations from {least:.3g} to {most:.3g}: beside "
                "the errors of large ones those of small ones hardly count; if all are to be learnt, standardize them "
                "(data.standardize = true, `altmin ingest --standardize`, or TransformedTargetRegressor of "
                "scikit-learn)"
            )

    def _described(self, scales: Scales, column: int) -> str:
        """What is unlike about a column that is far off."""
        how, small = self.store.preparation, scales.small
        names = [] if how is None else how.names
        name = repr(names[column]) if len(names) == len(scales.mean) else str(column)
        mean, deviation = scales.mean[column], scales.deviation[column]
        away = f"a mean of {mean:.3g} and " if scales.is_away(column) else ""
        return (
            f"column {name} of x in {self.store.title} has {away}a standard deviation of {deviation:.3g}, and others "
            f"{small:.3g}"
        )
