"""The adding problem: sequences that can only be learnt by remembering, ``adding:rows=20000,steps=100,seed=0``.

Every step has a number, uniform on [0, 1], and a mark. Two steps are marked, one in each half of the sequence; the
target is the sum of their numbers (Hochreiter & Schmidhuber 1997, "Long short-term memory", section 5.4). Who always
says 1, their mean, has a mean squared error of 1/6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from altmin_dask.data.formats.generated import PARTS, made_in_blocks, parse_settings, whole_numbers
from altmin_dask.data.readers import RowReader
from altmin_dask.errors import DataError
from altmin_dask.types import Array

EXAMPLE = "adding:rows=20000,steps=100"
_LEAST = {"rows": 1, "steps": 2, "seed": 0}
_BLOCK_ROWS = 1024
"""That share a random stream."""


@dataclass(frozen=True)
class Adding:
    """How many sequences of which length, the seed, and which part."""

    rows: int
    steps: int
    seed: int
    part: int

    @classmethod
    def parse(cls, text: str, split: str | None = None) -> Adding:
        """Understand ``rows=…,steps=…,seed=…``, and the split of ``adding:…:test``.

        Raises
        ------
        DataError
            If a key is unknown, missing or given twice, or its value cannot be used.
        """
        found = parse_settings(text, tuple(_LEAST), ("rows", "steps"), _refused)
        whole = whole_numbers(found, _LEAST, _refused)
        return cls(whole["rows"], whole["steps"], whole.get("seed", 0), PARTS[split])

    def readers(self, name: str) -> tuple[RowReader, RowReader]:
        """X, (rows, steps, 2), and the targets, (rows,); float32."""
        single = np.dtype(np.float32)
        size = (self.rows, _BLOCK_ROWS)
        x = made_in_blocks(f"x of {name}", *size, (self.steps, 2), single, self._fill_x)
        return x, made_in_blocks(f"y of {name}", *size, (), single, self._fill_y)

    def _numbers(self, block: int) -> tuple[Array, Array, Array]:
        """The numbers, and which steps are marked."""
        rng = np.random.default_rng([self.seed, self.part, block])
        numbers = rng.random((_BLOCK_ROWS, self.steps), np.float32)
        half = self.steps // 2
        return numbers, rng.integers(0, half, _BLOCK_ROWS), rng.integers(half, self.steps, _BLOCK_ROWS)

    def _fill_x(self, block: int, out: Array) -> None:
        numbers, first, second = self._numbers(block)
        rows = np.arange(len(out))
        out[:, :, 0], out[:, :, 1] = numbers, 0
        out[rows, first, 1] = out[rows, second, 1] = 1

    def _fill_y(self, block: int, out: Array) -> None:
        numbers, first, second = self._numbers(block)
        rows = np.arange(len(out))
        out[:] = numbers[rows, first] + numbers[rows, second]


def _refused(what: str) -> DataError:
    return DataError(f"sequences to add cannot be made: {what}; write for example {EXAMPLE}")
