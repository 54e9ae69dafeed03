"""Axes of the page's figures: scales, ticks and labels as the report has them, wherever one zooms to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import CustomJS, CustomJSHover, CustomJSTickFormatter, FixedTicker, LinearScale, LogScale

EARLY = 4
"""What grows along an axis is logarithmic where the last is so many times the first, as of the report's `Sweeps`."""

# Round numbers spread over an axis, as `altmin_dask.report.axes.log_ticks` chooses them, of whatever is in view.
TICKS = """
function even(low, high) {
  const raw = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 2.5, 5, 10].find(m => m * unit >= raw * 0.999), ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(Number((i * step).toPrecision(6)));
  return ticks;
}
function spread(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  const step = Math.max(1, Math.ceil((last - first) / 8));
  for (const mantissas of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
    let ticks = [];
    for (let e = first; e <= last; e += mantissas.length == 1 ? step : 1)
      for (const m of mantissas) ticks.push(Number(`${m}e${e}`));
    ticks = ticks.filter(tick => low <= tick && tick <= high);
    if (ticks.length >= 4) return ticks;
  }
  return even(low, high);
}
const low = Math.min(range.start, range.end), high = Math.max(range.start, range.end);
"""
LOG_TICKS = TICKS + "if (low > 0 && isFinite(high) && low < high) ticker.ticks = spread(low, high);"
GROWING_TICKS = (
    TICKS
    + """
const [logarithmic, first, zero] = ticker.tags;
if (isFinite(low) && isFinite(high) && low < high) {
  if (!logarithmic) {
    ticker.ticks = even(low, high);
  } else {
    const from = Math.max(low, first * 0.999), all = from < high ? spread(from, high) : [];
    const some = all.filter((tick, place) => place % Math.ceil(all.length / 5) == 0);
    ticker.ticks = low <= zero && zero <= high ? [zero, ...some] : some;
  }
}
"""
)
LOG_LABEL = """
const place = value => Math.floor(Math.log10(value) + 1e-9);
if (ticks.every(each => -5 < place(each) && place(each) < 5)) return String(Number(tick.toPrecision(6)));
const exponent = place(tick), raised = String(exponent).replace(/./g, c => c == '-' ? '⁻' : '⁰¹²³⁴⁵⁶⁷⁸⁹'[c]);
const mantissa = Number((tick / 10 ** exponent).toPrecision(6));
return (mantissa == 1 ? '' : mantissa + '·') + '10' + raised;
"""
GROWING_LABEL = """
const [logarithmic, first] = ticker.tags;
const own = logarithmic && tick < first * 0.999 ? 0 : tick;
return Math.abs(own) < 1e4 ? String(Number(own.toPrecision(4))) : Math.round(own).toLocaleString('en-US');
"""


@dataclass(frozen=True)
class Extent:
    """How far what grows along an axis goes; 0 stands at the left end of a logarithmic axis, a step before the first.

    Attributes
    ----------
    first, last : float
        The least that is not 0, and the greatest.
    """

    first: float
    last: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Extent:
        """That of values."""
        there = [value for value in values if value is not None and math.isfinite(value) and value > 1e-9]
        return cls(min(there, default=1.0), max(there, default=1.0))

    @property
    def logarithmic(self) -> bool:
        """Whether most happens at first: on a linear axis that would be one vertical line."""
        return self.last >= EARLY * self.first

    @property
    def zero(self) -> float:
        """Where 0 stands."""
        return self.first / (self.last / self.first) ** 0.1 if self.logarithmic else 0.0

    def places(self, values: Sequence[float | None]) -> list[float | None]:
        """Where values stand."""
        if not self.logarithmic:
            return list(values)
        return [self.zero if value is not None and value < self.first else value for value in values]


class GrowingAxis:
    """The horizontal axis of a figure: sweeps, or seconds, logarithmic or not as its curves want it by now.

    Parameters
    ----------
    made : bokeh figure
        Whose.
    """

    def __init__(self, made: Any) -> None:
        self.figure = made
        self.ticker = FixedTicker(ticks=[], tags=[False, 1.0, 0.0])
        made.xaxis.ticker = self.ticker
        made.xaxis.minor_tick_line_color = None
        made.xaxis.formatter = CustomJSTickFormatter(args={"ticker": self.ticker}, code=GROWING_LABEL)
        made.x_range.range_padding = 0.04
        follow = _follow(made.x_range, self.ticker, GROWING_TICKS)
        self.ticker.js_on_change("tags", follow)

    def told(self) -> CustomJSHover:
        """How a place on it is told where one points at it."""
        return CustomJSHover(
            args={"ticker": self.ticker}, code=f"const tick = value, ticks = [];{GROWING_LABEL}"
        )

    def fit(self, extent: Extent) -> None:
        """Have it as such values want it."""
        tags = [extent.logarithmic, extent.first, extent.zero]
        if tags == self.ticker.tags:
            return
        if extent.logarithmic != self.ticker.tags[0]:
            self.figure.x_scale = LogScale() if extent.logarithmic else LinearScale()
        self.ticker.tags = tags


def log_axis(made: Any) -> None:
    """Give the logarithmic vertical axis of a figure its ticks and labels."""
    made.yaxis.ticker = ticker = FixedTicker(ticks=[])
    made.ygrid.ticker = ticker
    made.yaxis.minor_tick_line_color = None
    made.yaxis.formatter = CustomJSTickFormatter(code=LOG_LABEL)
    _follow(made.y_range, ticker, LOG_TICKS)


def _follow(range_: Any, ticker: FixedTicker, code: str) -> CustomJS:
    """Make ticks anew whenever another part of an axis is in view."""
    follow = CustomJS(args={"range": range_, "ticker": ticker}, code=code)
    range_.js_on_change("start", follow)
    range_.js_on_change("end", follow)
    return follow
