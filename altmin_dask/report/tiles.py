"""Figures of images: reconstructions with their errors, and samples that are classified wrongly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from altmin_dask.report.style import DPI, WIDTH, Theme
from altmin_dask.types import Array

COLUMNS = 8
"""Images in a row."""
_GAP, _HEAD, _TEXT, _TITLE = 6, 30, 24, 40
"""Pixels between images, above a row that has a name, of a line of text below an image, and of a title."""
_PIXELS = round(WIDTH * DPI)
_TILE = (_PIXELS - (COLUMNS - 1) * _GAP) // COLUMNS
_LETTERS = 9
"""Of a name that fits below an image."""


class _Tiles:
    """A figure measured in pixels, on which images are enlarged by whole factors so that they stay sharp."""

    def __init__(self, images: Array, heads: Sequence[int], tails: Sequence[int]) -> None:
        """Make room for rows of images, with so many pixels above and below each row."""
        self.step = math.ceil(max(images.shape[1:3]) / (2 * _TILE))
        rows, columns = images[0, :: self.step, :: self.step].shape[:2]
        factor = max(1, _TILE // max(rows, columns))
        self.height, self.width = min(rows * factor, 2 * _TILE), min(columns * factor, _TILE)
        self.tops, place = [], 0
        for head, tail in zip(heads, tails, strict=True):
            self.tops.append(place + head)
            place += head + self.height + tail
        self.figure = Figure(figsize=(_PIXELS / DPI, place / DPI))
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, _PIXELS), ylim=(place, 0))
        self.axes.set_axis_off()

    def title(self, text: str) -> None:
        """Write what it shows above all, as other figures have it."""
        height = self.axes.get_ylim()[0]
        self.figure.text(0.006, 1 - 0.45 * _TITLE / height, text, va="center", fontsize=10, fontweight="bold")

    def show(
        self, image: Array, row: int, column: int, low: float, high: float, colours: object = "gray"
    ) -> tuple[int, int]:
        """Put an image into the grid, its values from `low` to `high`; returns where its top left corner is."""
        x, y = column * (_TILE + _GAP), self.tops[row]
        self.axes.imshow(
            np.clip((image[:: self.step, :: self.step] - low) / ((high - low) or 1.0), 0, 1),
            cmap=colours,  # type: ignore[arg-type]
            vmin=0,
            vmax=1,
            interpolation="nearest",
            aspect="auto",
            extent=(x, x + self.width, y + self.height, y),
        )
        return x, y

    def name(self, row: int, text: str, about: str, theme: Theme, colour: str = "") -> None:
        """Write a name, and something about it, above a row."""
        y = self.tops[row] - _HEAD / 2
        made = self.axes.text(0, y, text, va="center", color=theme.ink)
        self.axes.annotate(
            about, (1, 0.5), (6, 0), xycoords=made, textcoords="offset points", va="center"
        ).set(color=colour or theme.muted, fontsize=8)


def error_colours(theme: Theme) -> LinearSegmentedColormap:
    """From too little over none to too much; none is the paper."""
    return LinearSegmentedColormap.from_list("errors", [theme.training, theme.paper, theme.validation])


def reconstructions(inputs: Array, outputs: Array, theme: Theme) -> Figure:
    """Images, below them their reconstructions, and below these the errors; of shape (n, height, width[, 3])."""
    groups = math.ceil(len(inputs) / COLUMNS)
    tiles = _Tiles(inputs, [_HEAD] * 3 * groups, [_GAP, _GAP, 2 * _GAP] * groups)
    low, high = value_range(inputs)
    errors = outputs - inputs
    signed = errors if errors.ndim == 3 else np.abs(errors).mean(axis=3)
    most = float(np.abs(signed).max()) or 1.0
    least = -most if errors.ndim == 3 else 0.0
    span = f"{low:.3g} (black) to {high:.3g} (white)"
    beyond = ", cut at the range of the inputs" if outputs.min() < low or outputs.max() > high else ""
    made = f"{outputs.min():.2g} to {outputs.max():.2g}{beyond}"
    kinds = f"blue {-most:.2g}, none 0, orange +{most:.2g}" if least else f"none 0 (black) to {most:.2g}"
    for group in range(groups):
        names = (("input", span), ("reconstruction", made), ("reconstruction − input", kinds))
        for place, (text, about) in enumerate(names):
            tiles.name(3 * group + place, text, about, theme)
    colours = error_colours(theme) if least else "magma"
    for i, (given, output, error) in enumerate(zip(inputs, outputs, signed, strict=True)):
        row, across = 3 * (i // COLUMNS), i % COLUMNS
        tiles.show(given, row, across, low, high)
        tiles.show(output, row + 1, across, low, high)
        tiles.show(error, row + 2, across, least, most, colours)
    return tiles.figure


def value_range(images: Array) -> tuple[float, float]:
    """The least and the largest value that is drawn."""
    return float(images.min()), float(images.max())


def errors(images: Array, true: Sequence[str], predicted: Sequence[str], theme: Theme) -> Figure:
    """Images that are classified wrongly, with the true class and below it what the network says."""
    rows = math.ceil(len(images) / COLUMNS)
    tiles = _Tiles(images, [_TITLE + _HEAD] + [_GAP] * (rows - 1), [2 * _TEXT] * rows)
    tiles.title("Samples that are classified wrongly")
    tiles.name(0, "true class", "below it the one predicted", theme, theme.validation)
    low, high = value_range(images)
    for i, image in enumerate(images):
        x, y = tiles.show(image, i // COLUMNS, i % COLUMNS, low, high)
        for line, (name, colour) in enumerate(((true[i], theme.ink), (predicted[i], theme.validation))):
            tiles.axes.text(
                x + tiles.width / 2,
                y + tiles.height + _TEXT * (line + 0.55),
                short(name, _LETTERS),
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
                fontweight="bold" if line else "normal",
            )
    return tiles.figure


def short(name: str, letters: int) -> str:
    """A name cut where there is no more room."""
    return name if len(name) <= letters else name[: letters - 1] + "…"


def short_in_front(name: str, letters: int) -> str:
    """A name of which the end stays where there is no more room: names that begin alike differ there."""
    return name if len(name) <= letters else "…" + name[len(name) - letters + 1 :]
