"""The figures by themselves: what they accept, and the pieces they are made of."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from altmin_dask.report import figures
from altmin_dask.report.columns import gap
from altmin_dask.report.images import as_images
from altmin_dask.training.record import Record


def pixels(draw: Any, theme: figures.Theme) -> np.ndarray:
    """What is drawn, (height, width, 3) in [0, 1]."""
    return imread(io.BytesIO(figures.png(draw, theme)))[..., :3]


def assert_colour(pixel: np.ndarray, colour: str) -> None:
    np.testing.assert_allclose(pixel, to_rgb(colour), atol=1 / 200)


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((28, 28), (28, 28)),
        ((5, 3), (5, 3)),
        ((784,), (28, 28)),
        ((1, 28, 28), (28, 28)),
        ((28, 28, 1), (28, 28)),
        ((9, 7, 3), (9, 7, 3)),
        ((3, 9, 7), (9, 7, 3)),
        ((49,), None),
        ((100, 1), (10, 10)),
        ((65,), None),
        ((4, 4, 4), None),
        ((2, 2, 4, 4), None),
        ((1,), None),
    ],
)
def test_what_is_an_image(shape, image):
    values = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    images = as_images(values, shape)
    assert (None if images is None else images.shape) == (image and (2, *image))
    if images is not None and shape[0] == 3:
        np.testing.assert_array_equal(images[1, :, :, 2], values[1, 2])


def test_pixels_of_reconstructions():
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (13, 8, 8)) / 255
    inputs[0, 0, :2] = 0, 1  # the range of the greys
    outputs = rng.integers(0, 256, (13, 8, 8)) / 255
    drawn = pixels(lambda theme: figures.reconstruction_images(inputs, 2 * outputs, theme), figures.DARK)
    assert drawn.shape == (20 + 4 * 120 + 2 * (8 + 28), 170 + 10 * 128, 3)
    for i in range(13):
        left, top = 170 + (i % 10) * 128, 20 + (i // 10) * (2 * 120 + 8 + 28)
        for y, values in ((top, inputs[i]), (top + 128, np.clip(2 * outputs[i], 0, 1))):
            tile = drawn[y : y + 120, left : left + 120]
            expected = np.repeat(np.kron(values, np.ones((15, 15)))[..., None], 3, axis=2)
            np.testing.assert_allclose(tile, expected, atol=1 / 200)
    assert_colour(drawn[-1, -1], figures.DARK.paper)
    assert_colour(drawn[20 + 276 + 60, 170 + 3 * 128 + 60], figures.DARK.paper)  # a place without a sample


def test_wrong_predictions_are_framed():
    images = np.linspace(0, 1, 12 * 64).reshape(12, 8, 8)
    true = np.arange(12)
    predicted = np.where((true == 3) | (true == 11), 0, true)
    drawn = pixels(lambda theme: figures.predictions(images, predicted, true, theme), figures.LIGHT)
    edges = [drawn[66 + (i // 10) * 160 + 60, 8 + (i % 10) * 128] for i in range(12)]
    framed = [np.allclose(edge, to_rgb(figures.LIGHT.validation), atol=0.01) for edge in edges]
    assert np.flatnonzero(framed).tolist() == [3, 11]


@pytest.mark.parametrize("shape", [(4, 4), (300, 200), (2, 90), (16, 16, 3)])
def test_images_of_any_size_and_colour(shape):
    images = np.random.default_rng(0).normal(size=(11, *shape))
    drawn = pixels(lambda theme: figures.reconstruction_images(images, 2 * images, theme), figures.DARK)
    assert max(drawn.shape) < 3000
    pixels(lambda theme: figures.predictions(0 * images[:1], [1], [2], theme), figures.DARK)


def test_what_the_curves_show():
    records = [
        Record(sweep=0.0, cpu_seconds=0.0, nested_loss=4.0),
        Record(sweep=0.5, cpu_seconds=3.0, nested_loss=2.0, relaxed_objective=5, validation_accuracy=0.5),
        Record(sweep=1.0, cpu_seconds=7.0, nested_loss=0.0, relaxed_objective=1, validation_accuracy=0.6),
    ]
    losses, cpu, accuracies, _ = figures.convergence(records, figures.LIGHT).axes
    assert losses.get_yscale() == "log"
    assert accuracies.get_yscale() == "linear"
    relaxed, nested = losses.lines
    np.testing.assert_array_equal(relaxed.get_ydata(), [np.nan, 5, 1])
    np.testing.assert_array_equal(nested.get_ydata(), [4, 2, losses.get_ylim()[0]])  # 0 is at the bottom
    np.testing.assert_array_equal(nested.get_xdata(), [0, 0.5, 1])
    np.testing.assert_array_equal(cpu.lines[1].get_xdata(), [0, 3, 7])
    assert [text.get_text() for text in cpu.texts] == ["nested loss  0", "relaxed objective  1"]
    np.testing.assert_array_equal(accuracies.lines[0].get_ydata(), [np.nan, 0.5, 0.6])


@pytest.mark.parametrize(
    "losses", [[0.0, 0.0], [5.0, 0.0], [3.0, 3.0], [1e-9, 1e9], [1e-3, 1.01e-3], [np.nan, np.nan], [2e-7]]
)
def test_losses_of_any_size(losses):
    records = [Record(sweep=i, cpu_seconds=i, nested_loss=loss) for i, loss in enumerate(losses)]
    assert pixels(lambda theme: figures.convergence(records, theme), figures.LIGHT).shape == (555, 1500, 3)


def test_layers():
    records = [
        Record(sweep=i, residuals=tuple(0.9**layer + i for layer in range(40)), mu=(1.1**i,) * 39 + (2.0,))
        for i in range(60)
    ]
    residuals, mu = figures.residuals(records, figures.LIGHT).axes
    assert len(residuals.lines) == 40
    assert len(residuals.texts) == 14
    assert [text.get_text() for text in mu.texts] == ["layer 40  2", "39 layers  276.8"]
    assert pixels(lambda theme: figures.residuals(records, theme), figures.LIGHT).shape == (555, 1500, 3)


@pytest.mark.parametrize(
    ("mu", "labels"),
    [
        ([[1, 1, 1], [1, 1, 1]], None),
        ([[1, 2, 3], [1, 2, 3]], None),
        ([[1, 1, 1], [2, 2, 2]], ["all layers  2"]),
        ([[1, 2, 1], [3, 2, 3]], ["layer 2  2", "layers 1, 3  3"]),
        (None, None),
    ],
)
def test_mu_is_shown_where_it_changes(mu, labels):
    records = [
        Record(sweep=i, residuals=(3.0, 2.0, 1.0), mu=None if mu is None else tuple(mu[i])) for i in range(2)
    ]
    panels = figures.residuals(records, figures.LIGHT).axes
    assert [text.get_text() for panel in panels[1:] for text in panel.texts] == (labels or [])
    assert len(panels) == 1 + (labels is not None)


def test_feasibility():
    records = [
        Record(sweep=0.0),
        Record(sweep=1.0, relative_residuals=(0.1, 0.02), zero_residuals=(0.25, 0.5)),
        Record(sweep=2.0, relative_residuals=(0.001, 0.0), zero_residuals=(0.75, 1.0)),
    ]
    relative, zeros = figures.feasibility(records, figures.LIGHT).axes
    assert relative.get_yscale() == "log"
    assert zeros.get_yscale() == "linear"
    np.testing.assert_array_equal(relative.lines[0].get_ydata(), [np.nan, 0.1, 0.001])
    np.testing.assert_array_equal(relative.lines[1].get_ydata()[1:], [0.02, relative.get_ylim()[0]])
    np.testing.assert_array_equal(zeros.lines[1].get_ydata(), [np.nan, 0.5, 1])
    assert [text.get_text() for text in zeros.texts] == ["layer 1  75.0%", "layer 2  100.0%"]
    assert figures.has_feasibility(records)
    assert pixels(lambda theme: figures.feasibility(records, theme), figures.DARK).shape == (555, 1500, 3)
    records = [replace(record, zero_residuals=None) for record in records]
    assert len(figures.feasibility(records, figures.LIGHT).axes) == 1
    assert not figures.has_feasibility([Record(sweep=0.0, relative_residuals=(0.0,)), Record(sweep=1.0)])


def test_gap():
    whole = {"relaxed_objective": 3.5, "ridge_term": 0.5, "nested_loss": 2.0}
    missing = [whole | {key: value} for key in whole for value in (None, 0.0)]
    records = [Record.from_dict({"sweep": 0.0, **values}) for values in (whole, *missing, {})]
    # without a ridge term, as older versions wrote records, the gap is not known
    expected = [0.5, np.nan, -1.25, np.nan, 0.75, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(gap(records), expected)


@pytest.mark.parametrize(
    ("low", "high"), [(1, 2), (0.9, 101), (1e-12, 1e12), (3.01, 3.05), (0.2, 9), (1e-3, 0.5)]
)
def test_ticks(low, high):
    ticks = figures.log_ticks(low, high)
    assert 3 <= len(ticks) <= 10
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks)


def test_labels_are_moved_apart():
    assert figures.spread([0.1, 0.5], 0.1) == [0.1, 0.5]
    np.testing.assert_allclose(
        figures.spread([0.5, 0.5, 0.52, 0.9], 0.1), [0.40667, 0.50667, 0.60667, 0.9], atol=1e-4
    )
    heights = figures.spread(np.sort(np.random.default_rng(0).random(20)).tolist(), 0.05)
    assert np.all(np.diff(heights) > 0.05 - 1e-9)
    assert figures.spread([], 0.1) == []
