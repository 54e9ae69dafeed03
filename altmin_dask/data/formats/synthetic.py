"""Samples of any number from a seeded teacher that a network can learn: ``synthetic:rows=1e6,features=784``.

A sample has a hidden cause u of few dimensions, uniform on [−1, 1]. What is observed is a fixed random network of u,

    h = tanh(u A),    x = (1 − w) (1 + tanh(h B)) / 2 + w ε,    ε uniform on [0, 1],

so x lies in [0, 1] near a curved surface of the cause's dimension, which is what an auto-encoder finds. The label is
the largest of the first K coordinates of u, which stands out by a margin; real targets are smooth: y = h C + noise.

Samples are made in fixed blocks of rows, each with a random stream of its own, so that they do not depend on how
they are read, and the first rows of a longer set are those of a shorter one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from threadpoolctl import ThreadpoolController

from altmin_dask.data.formats.generated import PARTS, made_in_blocks, parse_settings, whole_numbers
from altmin_dask.data.readers import RowReader
from altmin_dask.errors import DataError
from altmin_dask.types import Array

EXAMPLE = "synthetic:rows=1e5,features=784,classes=10"
_LEAST = {"rows": 1, "features": 1, "classes": 2, "outputs": 1, "seed": 0, "latent": 1}
"""What settings are whole numbers, and from where on."""
# What follows says which samples they are: whoever changes a number makes all that is logged of them history.
_LATENT = 16
"""Dimension of the cause, unless there are fewer features or more classes."""
_NOISE, _MAX_NOISE = 0.02, 0.25
"""Of x, whose range is 1: what is added if nothing is said, and at most."""
_MARGIN = 0.4
"""By which a label's coordinate is the largest, of a range of 2, or classes would touch."""
_BLOCK_VALUES, _BLOCK_ROWS = 1 << 18, 8192
"""Of x that share a random stream: 1 MiB, and no more rows than that."""
_TEACHER_VALUES = 1 << 28
"""Of a teacher's matrices at most: 1 GiB."""


@dataclass(frozen=True)
class Synthetic:
    """A teacher, and how many of its samples are wanted.

    Attributes
    ----------
    rows, features : int
        Shape of x.
    classes, outputs : int or None
        Labels 0 … classes − 1, or real targets of so many columns, or neither.
    seed : int
        Of the teacher and of the samples.
    latent : int
        Dimension of the cause.
    noise : float
        Standard deviation of what is added to x, and relative one of what is added to real targets.
    part : int
        Samples of another part have the same teacher.
    """

    rows: int
    features: int
    classes: int | None
    outputs: int | None
    seed: int
    latent: int
    noise: float
    part: int = 0

    @classmethod
    def parse(cls, text: str, split: str | None = None) -> Synthetic:
        """Understand ``rows=…,features=…`` with more keys, and the split of ``synthetic:…:test``.

        Raises
        ------
        DataError
            If a key is unknown, missing or given twice, or its value cannot be used.
        """
        found = parse_settings(text, (*_LEAST, "noise"), ("rows", "features"), _refused)
        if "classes" in found and "outputs" in found:
            raise _refused("classes make labels and outputs make real targets; give one of them")
        whole = whole_numbers(found, _LEAST, _refused)
        features, classes = whole["features"], whole.get("classes")
        latent = whole.get("latent", min(max(_LATENT, classes or 1), max(1, features - 1)))
        if latent > features:
            raise _refused(f"latent is {latent}, more than the {features} features")
        if 2 * latent * (features + whole.get("outputs", 0)) > _TEACHER_VALUES:
            raise _refused(f"{features} features of {latent} latent ones make a teacher of more than 1 GiB")
        if whole["rows"] * features > 1 << 60:
            raise _refused(f"{whole['rows']} rows of {features} features fit on no disk")
        return cls(
            rows=whole["rows"],
            features=features,
            classes=classes,
            outputs=whole.get("outputs"),
            seed=whole.get("seed", 0),
            latent=latent,
            noise=_noise(found.get("noise")),
            part=PARTS[split],
        )

    def readers(self, name: str) -> tuple[RowReader, RowReader | None]:
        """X, float32 in [0, 1], and the labels (int64) or targets (float32) that belong to it."""
        size, single = (self.rows, self.block_rows), np.dtype(np.float32)
        x = made_in_blocks(f"x of {name}", *size, (self.features,), single, self._fill_x)
        if self.classes is not None:
            return x, made_in_blocks(f"y of {name}", *size, (), np.dtype(np.int64), self._fill_labels)
        if self.outputs is not None:
            return x, made_in_blocks(f"y of {name}", *size, (self.outputs,), single, self._fill_targets)
        return x, None

    @property
    def block_rows(self) -> int:
        """Rows that share a random stream: about 1 MiB of x, which stays in a core's cache."""
        return max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // self.features))

    @cached_property
    def _teacher(self) -> tuple[Array, Array, Array]:
        """The matrices A, B and C; tanh bends most samples, and flattens few."""
        rng = self._rng()
        hidden = 2 * self.latent
        a = _gaussian(rng, (self.latent, hidden), 2.0)
        b = _gaussian(rng, (hidden, self.features), 2.0)
        return a, b, _gaussian(rng, (hidden, self.outputs or 0), 1.5)

    def _rng(self, *stream: int) -> np.random.Generator:
        # SFC64 is the quickest of NumPy's generators, and noise is most of the work
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence(self.seed, spawn_key=stream)))

    def _causes(self, block: int) -> Array:
        u = self._rng(self.part, block, 0).random((self.block_rows, self.latent), np.float32)
        u *= 2
        u -= 1
        if self._by_largest:
            first = u[:, : self.classes]
            largest = first.argmax(axis=1)
            first *= 1 - _MARGIN / 2
            first -= _MARGIN / 2
            first[np.arange(len(u)), largest] += _MARGIN
        return u

    @property
    def _by_largest(self) -> bool:
        """Whether the largest coordinate is the label; with too few of them it is the slice of one they lie in."""
        return self.classes is not None and self.classes <= self.latent

    def _hidden(self, block: int) -> Array:
        h = np.empty((self.block_rows, 2 * self.latent), np.float32)
        self._multiply(self._causes(block), self._teacher[0], h)
        return np.tanh(h, out=h)

    def _multiply(self, a: Array, b: Array, out: Array) -> None:
        # products are so small that a second thread only gets in the way
        with _threadpools().limit(limits=1, user_api="blas"):
            np.matmul(a, b, out=out)

    def _fill_x(self, block: int, out: Array) -> None:
        width = np.float32(self.noise * math.sqrt(12))
        half = (1 - width) / np.float32(2)
        self._multiply(self._hidden(block), self._teacher[1], out)
        np.tanh(out, out=out)
        out *= half
        out += half
        if width:
            noise = self._rng(self.part, block, 1).random(out.shape, np.float32)
            noise *= width
            out += noise
        np.clip(out, 0, 1, out=out)  # what rounding may have added

    def _fill_labels(self, block: int, out: Array) -> None:
        assert self.classes is not None
        u = self._causes(block)
        if self._by_largest:  # coordinates are independent and alike, so each is the largest equally often
            np.argmax(u[:, : self.classes], axis=1, out=out)
        else:
            np.clip(((u[:, 0] + 1) * (self.classes / 2)).astype(np.int64), 0, self.classes - 1, out=out)

    def _fill_targets(self, block: int, out: Array) -> None:
        self._multiply(self._hidden(block), self._teacher[2], out)
        if self.noise:
            out += self.noise * self._rng(self.part, block, 2).standard_normal(out.shape, np.float32)


@cache
def _threadpools() -> ThreadpoolController:
    return ThreadpoolController()


def _gaussian(rng: np.random.Generator, shape: tuple[int, int], gain: float) -> Array:
    return rng.standard_normal(shape, np.float32) * np.float32(gain / math.sqrt(shape[0]))


def _noise(text: str | None) -> float:
    try:
        noise = _NOISE if text is None else float(text)
    except ValueError:
        noise = math.nan
    if not 0 <= noise <= _MAX_NOISE:
        raise _refused(f"noise is {text}, not a number from 0 to {_MAX_NOISE}")
    return noise


def _refused(what: str) -> DataError:
    return DataError(f"synthetic samples cannot be made: {what}; write for example {EXAMPLE}")
