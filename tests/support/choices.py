"""What the default run takes of many pairings; the slow tests take all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def taking_turns(these: Iterable[Any], those: Iterable[Any]) -> list[Any]:
    """Every pairing, for `parametrize`: by default each of the longer list once, with those of the other in turn."""
    these, those = list(these), list(those)
    turns = range(max(len(these), len(those)))
    fast = {(turn % len(these), turn % len(those)) for turn in turns}
    return [
        pytest.param(this, that, marks=[] if (i, j) in fast else pytest.mark.slow)
        for i, this in enumerate(these)
        for j, that in enumerate(those)
    ]


def slow_but(chosen: Iterable[Any], values: Iterable[Any]) -> list[Any]:
    """All values, for `parametrize`: those chosen by default, the others in the slow tests."""
    chosen = list(chosen)
    return [value if value in chosen else pytest.param(value, marks=pytest.mark.slow) for value in values]
