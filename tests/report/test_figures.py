"""The figures by themselves: what they accept, and the pieces they are made of."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from matplotlib.text import Text

from altmin_dask.report import curves, quality, tiles, together
from altmin_dask.report.axes import Sweeps, below, log_ticks, spread, tick_label
from altmin_dask.report.columns import gap
from altmin_dask.report.images import are_images, as_images
from altmin_dask.report.style import DARK, DPI, LIGHT, WIDTH, Theme, png
from altmin_dask.training.record import Record


def pixels(draw: Any, theme: Theme) -> np.ndarray:
    """What is drawn, (height, width, 3) in [0, 1]."""
    return imread(io.BytesIO(png(draw, theme)))[..., :3]


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


def test_vectors_are_images_by_what_they_hold():
    from sklearn.datasets import load_digits

    x = load_digits().data[:200]
    rng = np.random.default_rng(0)
    assert are_images(x, (64,))
    assert are_images((x - x.mean(0)) / (x.std(0) + 1e-9), (64,))
    assert not are_images(rng.random((200, 64)), (64,))  # a table of 64 columns
    assert not are_images(rng.normal(size=(200, 4)) @ rng.normal(size=(4, 100)), (100,))
    assert not are_images(np.sin(np.arange(100) / 7 + 6 * rng.random((200, 1))), (100,))  # curves
    assert are_images(rng.random((3, 8, 8)), (8, 8))  # their shape says so
    assert not are_images(rng.random((3, 63)), (63,))


def test_pixels_of_reconstructions():
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (11, 8, 8)) / 255
    inputs[0, 0, :2] = 0, 1  # the range of the greys
    outputs = 2 * rng.integers(0, 256, (11, 8, 8)) / 255
    drawn = pixels(lambda theme: tiles.reconstructions(inputs, outputs, theme), DARK)
    tile, side = tiles._TILE, 8 * (tiles._TILE // 8)
    most = np.abs(outputs - inputs).max()
    for i in range(11):
        left, top = (i % 8) * (tile + 6), (i // 8) * 3 * (30 + side) + (i // 8) * 4 * 6
        for place, values in ((0, inputs[i]), (1, np.clip(outputs[i], 0, 1))):
            y = top + 30 + place * (side + 36)
            seen = drawn[y : y + side, left : left + side]
            expected = np.repeat(np.kron(values, np.ones((side // 8, side // 8)))[..., None], 3, axis=2)
            np.testing.assert_allclose(seen, expected, atol=1 / 200)
        y = top + 30 + 2 * (side + 36)
        seen = drawn[y : y + side, left : left + side][side // 16 :: side // 8, side // 16 :: side // 8]
        wanted = tiles.error_colours(DARK)(((outputs - inputs)[i] + most) / (2 * most))[..., :3]
        np.testing.assert_allclose(seen, wanted, atol=1 / 60)
    assert_colour(drawn[-1, -1], DARK.paper)
    assert drawn.shape[1] == int(WIDTH * DPI)


def test_errors_have_both_classes():
    images = np.linspace(0, 1, 10 * 64).reshape(10, 8, 8)
    figure = tiles.errors(images, ["a long name"] * 9 + ["3"], ["5"] * 10, LIGHT)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text.get_text() for text in figure.texts] == ["Samples that are classified wrongly"]
    assert texts[:2] == ["true class", "below it the one predicted"]
    assert texts[2:4] == ["a long n…", "5"]
    assert texts[-2:] == ["3", "5"]
    assert len(figure.axes[0].images) == 10


@pytest.mark.parametrize(
    "shape", [(2, 90), *(pytest.param(s, marks=pytest.mark.slow) for s in [(4, 4), (300, 200), (16, 16, 3)])]
)
def test_images_of_any_size_and_colour(shape):
    images = np.random.default_rng(0).normal(size=(9, *shape))
    drawn = pixels(lambda theme: tiles.reconstructions(images, 2 * images, theme), DARK)
    assert max(drawn.shape) < 1500
    pixels(lambda theme: tiles.errors(0 * images[:1], ["1"], ["2"], theme), DARK)


def test_confusion():
    matrix = np.array([[30, 0, 1], [2, 8, 0], [0, 0, 0]])  # a class of which there is none
    axes = quality.confusion(matrix, ["cat", "dog", "a very long name"], LIGHT).axes[0]
    assert [text.get_text() for text in axes.texts] == ["30", "1", "2", "8"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["cat", "dog", "a very long…"]
    right, wrong = (image.get_array() for image in axes.images)
    np.testing.assert_allclose(np.ma.getdata(right)[1, 1], 0.8)
    np.testing.assert_allclose(np.ma.getdata(wrong)[1, 0], np.sqrt(0.2))
    many = quality.confusion(np.eye(200, dtype=int), [str(i) for i in range(200)], DARK).axes[0]
    assert not many.texts


def test_the_confusion_of_weights():
    axes = quality.confusion(np.array([[0.3, 0.1 + 0.2], [0.0, 1.0]]), ["a", "b"], LIGHT).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.3", "0.3", "1"]
    np.testing.assert_allclose(
        np.ma.getdata(axes.images[0].get_array())[0, 0], 0.5
    )  # a class of little weight


def test_dollars_in_names_are_no_mathematics():
    """They were read as formulas, of which some cannot be: that ended the training."""
    names, drawn = ["$0-$50K", "in_$_out_$"], []

    def draw(theme):
        drawn.append(quality.confusion(np.eye(2, dtype=int), names, theme))
        return drawn[-1]

    png(draw, LIGHT)
    assert not any(text.get_parse_math() for text in drawn[0].findobj(Text))
    assert [tick_label(value) for value in (1e-12, 3e-5, 0.01, 2e5)] == ["10⁻¹²", "3·10⁻⁵", "0.01", "2·10⁵"]


@pytest.mark.parametrize(
    ("lowest", "written"),
    [
        (1e-4, ["0.0001", "0.001", "0.01", "0.1", "1"]),
        (1e-5, ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]),
    ],
)
def test_an_axis_has_labels_of_one_form(lowest, written):
    records = [Record(sweep=k, cpu_seconds=k, nested_loss=lowest**k) for k in range(2)]
    (axes,) = curves.loss(records, 1, LIGHT).axes
    label = axes.yaxis.get_major_formatter()
    assert [label(tick) for tick in axes.get_yticks()] == written


def test_predictions_and_what_is_left():
    true = np.array([[0.0], [1.0], [2.0]])
    made = np.array([[0.5], [1.0], [1.0]])
    points = quality.against_targets(true, made, [], LIGHT).axes[0]
    np.testing.assert_array_equal(points.collections[0].get_offsets(), np.c_[true, made])
    assert points.get_xlim() == points.get_ylim()
    left = quality.residuals_of(true, made, [], LIGHT).axes[0]
    np.testing.assert_array_equal(left.collections[0].get_offsets(), np.c_[made, made - true])
    several = quality.against_targets(np.tile(true, 9), np.tile(made, 9), list("abcdefghi"), LIGHT)
    assert [axes.get_title() for axes in several.axes] == ["a", "b", "c", "d"]


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2, 3])
@pytest.mark.parametrize("size", [3e-6, 2e-4, 0.0213, 1.0, 3e4, 7e8])
def test_what_stands_below_ticks_does_not_overlap(size, outputs):
    true = size * np.linspace(-1.3, 1, 9).reshape(-1, 1) * np.ones(outputs)
    for draw in (quality.against_targets, quality.residuals_of):
        figures = []

        def kept(theme: Theme, draw: Any = draw, figures: list[Any] = figures) -> Any:
            figures.append(draw(true, 0.9 * true, [], theme))
            return figures[0]

        png(kept, LIGHT)
        boxes = sorted(
            (label.get_window_extent() for axes in figures[0].axes[:2] for label in axes.get_xticklabels()),
            key=lambda box: box.x0,
        )
        assert len(boxes) >= 2 * min(outputs, 2)
        assert all(right.x0 > left.x1 + 5 for left, right in pairwise(boxes))


def test_sequences_end_where_they_end():
    true = np.arange(24.0).reshape(6, 4, 1)
    true[0, 2:] = np.nan
    figure = quality.sequences(true, true + 1, [], LIGHT)
    assert len(figure.axes) == 4
    np.testing.assert_array_equal(figure.axes[0].lines[1].get_ydata(), [1, 2, np.nan, np.nan])


def test_errors_of_features_are_relative():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(100, 40)) * np.arange(40)  # the first does not vary
    errors = quality.relative_errors(inputs, np.tile(inputs.mean(0), (100, 1)))
    assert np.isnan(errors[0])
    np.testing.assert_allclose(errors[1:], 1)  # the mean is what one knows without a network
    axes = quality.features(inputs, 0.5 * inputs, [], LIGHT).axes[0]
    assert len(axes.patches) == 24
    assert "feature 0" not in [label.get_text() for label in axes.get_yticklabels()]


def ends(axes: Any) -> list[str]:
    """What stands beside curves."""
    return [text.get_text() for text in axes.texts if not text.get_text().startswith("kept")]


def test_what_the_curves_show():
    records = [
        Record(sweep=0.0, cpu_seconds=0.0, nested_loss=4.0),
        Record(sweep=0.5, cpu_seconds=3.0, nested_loss=2.0, relaxed_objective=5, residuals=(1.0,)),
        Record(sweep=1.0, cpu_seconds=7.0, nested_loss=0.0, relaxed_objective=1, validation_accuracy=0.6),
    ]
    (axes,) = curves.loss(records, 1, LIGHT).axes
    assert axes.get_yscale() == "log"
    nested, relaxed = axes.lines[:2]
    np.testing.assert_array_equal(relaxed.get_ydata(), [np.nan, 5, 1])
    np.testing.assert_array_equal(nested.get_ydata(), [4, 2, axes.get_ylim()[0]])  # 0 is at the bottom
    np.testing.assert_array_equal(nested.get_xdata(), [0, 0.5, 1])
    # the values are of the kept record, which is marked on every curve
    assert ends(axes) == ["training  kept: 2", "relaxed  kept: 5"]
    assert "kept: sweep 0.5" in [text.get_text() for text in axes.texts]
    rings = [line for line in axes.lines if line.get_label() == "kept"]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(0.5, 2), (0.5, 5)]
    assert "CPU seconds below" in axes.get_xlabel()
    (axes,) = curves.accuracy(records, 2, LIGHT).axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [np.nan, np.nan, 0.6])
    assert ends(axes) == ["validation  60.00%"]


def test_recalls_are_curves_of_a_few_classes():
    def record(sweep: float, *recalls: float | None) -> Record:
        each = {"class": [f"class number {k}" for k in range(len(recalls))], "recall": list(recalls)}
        return Record(sweep=sweep, validation_each=each)

    # the first is of a version that knew of none, and one class has no samples
    records = [Record(sweep=0.0), record(1.0, 0.5, None, 1.0), record(2.0, 0.75, None, 0.5)]
    assert curves.has_recalls(records)
    (axes,) = curves.recalls(records, 2, LIGHT).axes
    assert sorted(ends(axes)) == ["class number 0  75.00%", "class number 2  50.00%"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [np.nan, 0.5, 0.75])
    for without in (
        records[:1],
        [record(1.0, *[0.5] * 13)],
        [record(1.0, None, None)],
        [Record(sweep=1.0, validation_each={"output": ["a"], "r2": [0.5]})],
    ):
        assert not curves.has_recalls(without)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_recalls_of_many_classes_are_told_apart(theme):
    recalls = [0.1 * (k % 5) for k in range(12)]
    each = {"class": [str(k) for k in range(12)], "recall": recalls}
    records = [Record(sweep=float(k), validation_each=each) for k in range(2)]
    (axes,) = curves.recalls(records, 1, theme).axes
    assert len({line.get_color() for line in axes.lines if line.get_label() != "kept"}) >= 12
    named = [text for text in axes.texts if "%" in text.get_text()]
    order = [float(text.get_text().split()[1].rstrip("%")) for text in named]
    assert order == sorted(order, reverse=True)
    heights = [text.get_position()[1] for text in named]
    assert all(upper - lower >= 13 for upper, lower in pairwise(heights))
    assert [text.xy[1] for text in named] == heights  # the lines beside them are level: none crosses another


def test_names_of_runs_that_begin_alike_stay_apart():
    assert tiles.short_in_front("digits_classifier_run_1", 26) == "digits_classifier_run_1"
    assert tiles.short_in_front("a_rather_long_name_of_run_1", 10) == "…_of_run_1"


def test_the_relaxed_objective_of_exact_constraints_is_no_curve_of_its_own():
    records = [Record(sweep=i, cpu_seconds=i, nested_loss=2.0, relaxed_objective=2.1) for i in range(3)]
    assert not curves.has_relaxed(records)
    assert not curves.has_residuals(records)
    assert ends(curves.loss(records, 2, LIGHT).axes[0]) == ["training  2"]


def test_sweeps_are_logarithmic_where_most_happens_at_first():
    even = Sweeps(np.arange(4.0))
    assert not even.logarithmic
    np.testing.assert_array_equal(even.places(np.array([0.0, 3])), [0, 3])
    uneven = Sweeps(np.array([0, 1, 2, 4, 50, 100.0]))
    assert uneven.logarithmic
    assert 0 < uneven.start < 1  # where 0 stands
    np.testing.assert_array_equal(uneven.places(np.array([0.0, 1, 100])), [uneven.start, 1, 100])
    records = [Record(sweep=s, cpu_seconds=s, nested_loss=1 + s) for s in (0, 1, 2, 4, 50, 100)]
    (axes,) = curves.loss(records, 3, LIGHT).axes
    assert axes.get_xscale() == "log"
    label = axes.xaxis.get_major_formatter()
    assert label(uneven.start) == "0"
    assert label(100) == "100\n100"


@pytest.mark.parametrize(
    "losses", [[0.0, 0.0], [5.0, 0.0], [3.0, 3.0], [1e-9, 1e9], [1e-3, 1.01e-3], [np.nan, np.nan], [2e-7]]
)
def test_losses_of_any_size(losses):
    records = [Record(sweep=i, cpu_seconds=i, nested_loss=loss) for i, loss in enumerate(losses)]
    assert pixels(lambda theme: curves.loss(records, 0, theme), LIGHT).shape == (511, 742, 3)


def test_layers():
    records = [
        Record(sweep=i, residuals=tuple(0.9**layer + i for layer in range(40)), mu=(1.1**i,) * 39 + (2.0,))
        for i in range(60)
    ]
    (axes,) = curves.residuals(records, 59, LIGHT).axes
    assert sum(line.get_label() != "kept" for line in axes.lines) == 41  # and the line at the kept sweep
    assert len(ends(axes)) == 14
    assert ends(curves.penalty(records, 59, LIGHT).axes[0]) == ["layer 40  2", "39 layers  276.8"]


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
    assert curves.has_penalty(records) == (labels is not None)
    if labels is not None:
        assert ends(curves.penalty(records, 1, LIGHT).axes[0]) == labels


def test_constraints():
    records = [
        Record(sweep=0.0),
        Record(sweep=1.0, residuals=(5.0, 5.0), relative_residuals=(0.1, 0.02), zero_residuals=(0.25, 0.5)),
        Record(sweep=2.0, residuals=(5.0, 5.0), relative_residuals=(0.001, 0.0), zero_residuals=(0.75, 1.0)),
    ]
    (relative,) = curves.residuals(records, 2, LIGHT).axes  # one panel: those in other units fall alike
    assert relative.get_yscale() == "log"
    np.testing.assert_array_equal(relative.lines[0].get_ydata(), [np.nan, 0.1, 0.001])
    np.testing.assert_array_equal(relative.lines[1].get_ydata()[1:], [0.02, relative.get_ylim()[0]])
    (zeros,) = curves.zeros(records, 2, LIGHT).axes
    np.testing.assert_array_equal(zeros.lines[1].get_ydata(), [np.nan, 0.5, 1])
    assert ends(zeros) == ["layer 1  75.0%", "layer 2  100.0%"]
    records = [replace(record, zero_residuals=None, relative_residuals=None) for record in records]
    assert not curves.has_zeros(records)
    assert "root mean square" in curves.residual_columns(records)[1]
    assert not curves.has_residuals([Record(sweep=0.0, relative_residuals=(0.0,)), Record(sweep=1.0)])


def test_runs_together():
    records = tuple(Record(sweep=i, cpu_seconds=0.01 + i, nested_loss=2.0**-i) for i in range(5))
    runs = [together.Curve(f"run {i}", records[: 5 - i], 1, False) for i in range(2)]
    (axes,) = together.losses(runs, LIGHT).axes
    assert [text.get_text() for text in axes.texts] == ["run 0  0.5", "run 1  0.5"]
    (axes,) = together.costs(runs, DARK).axes
    assert axes.lines[0].get_xdata()[0] == 0  # before training
    assert not together.has_accuracies(runs)
    many = [together.Curve(f"{i}", records, 4, False) for i in range(20)]
    assert len(together.losses(many, LIGHT).axes[0].texts) == 14


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
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 10
    assert all(low <= tick <= high for tick in ticks)
    assert ticks == sorted(ticks)


def test_labels_are_moved_apart():
    assert spread([0.1, 0.5], 0.1) == [0.1, 0.5]
    np.testing.assert_allclose(
        spread([0.5, 0.5, 0.52, 0.9], 0.1), [0.40667, 0.50667, 0.60667, 0.9], atol=1e-4
    )
    heights = spread(np.sort(np.random.default_rng(0).random(20)).tolist(), 0.05)
    assert np.all(np.diff(heights) > 0.05 - 1e-9)
    assert spread([], 0.1) == []
    assert below(1.0, [0.1, 0.5], 0.1) == [0.1, 0.5]
    assert below(1.0, [0.1, 0.95, 1.05], 0.1) == pytest.approx([0.1, 0.9, 1.0])
    assert below(1.0, [], 0.1) == []
