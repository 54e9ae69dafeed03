"""What the page shows of what it is told, without a scheduler."""

from __future__ import annotations

import math
import re
import time

import numpy as np
import pytest
from bokeh.document import Document
from dashboards import begin, message, two_workers

from altmin_dask.dashboard.axes import Extent
from altmin_dask.dashboard.board import Board, by_activity
from altmin_dask.dashboard.curves import POINTS as MOST_POINTS
from altmin_dask.dashboard.page import View
from altmin_dask.dashboard.pictures import pictures
from altmin_dask.execution.timing import activity, seconds_spent

client = pytest.fixture(scope="module", name="client")(two_workers)


def test_a_board_remembers_all_runs():
    board = Board()
    board.apply(message("record", record={"sweep": 1.0}))  # of a run that nobody has heard of
    assert not board.runs
    board.apply(begin("a"))
    for sweep in range(2000):
        board.apply(message("record", "a", record={"sweep": float(sweep), "nested_loss": 1.0}))
    board.apply(begin("b"))
    board.apply({**begin("c"), "client": "here"})
    board.apply(message("end", "a", status="done"))
    board.lost("here")
    assert "--resume" in board.runs["c"].status
    board.apply(message("record", "c", record={"sweep": 1.0}))
    assert board.runs["c"].status == "running"
    assert len(board.runs["a"].records) == 2000
    assert (board.runs["a"].status, board.runs["b"].status) == ("done", "running")


def test_a_run_that_comes_back_goes_on_with_its_curve():
    board = Board()
    board.apply(begin("a"))
    for sweep in (0.0, 1.0, 2.0):
        board.apply(message("record", "a", record={"sweep": sweep}))
    board.apply(begin("a", [{"sweep": 0.0}, {"sweep": 1.0}, {"sweep": 2.0}]))
    # the last record was not committed, and is made again
    board.apply(message("record", "a", record={"sweep": 2.0}))
    board.apply(message("record", "a", record={"sweep": 3.0}))
    assert [record.sweep for record in board.runs["a"].records] == [0.0, 1.0, 2.0, 3.0]
    assert list(board.runs) == ["a"]


def test_pictures_are_of_what_are_pictures():
    x = np.random.default_rng(0).random((3, 64))
    rows = pictures(x, x)
    assert [len(row) for row in rows] == [3, 3]
    assert rows[0][0][:3] == (8, 8, 1)
    assert rows[0][0][3] == (255 * (x[0] - x.min()) / (x.max() - x.min())).astype(np.uint8).tobytes()
    # no image: a stripe; colours first or last; an image of any size is small
    shapes = {(60,): (1, 60, 1), (3, 8, 9): (8, 9, 3), (8, 9, 3): (8, 9, 3), (512, 300): (64, 38, 1)}
    for shape, drawn in shapes.items():
        samples = np.linspace(0, 1, 2 * math.prod(shape), dtype=np.float32).reshape(2, *shape)
        for row in pictures(samples, samples.reshape(2, -1)):
            assert [picture[:3] for picture in row] == [drawn, drawn]
            assert all(len(picture[3]) == math.prod(drawn) for picture in row)


def test_activities_are_counted_once():
    before, began = seconds_spent(), time.perf_counter()
    with activity("outer test"):
        time.sleep(0.02)
        with activity("inner test"):
            time.sleep(0.1)
    elapsed = time.perf_counter() - began
    spent = {name: value - before.get(name, 0.0) for name, value in seconds_spent().items()}
    assert spent["inner test"] >= 0.1
    assert 0.02 <= spent["outer test"] <= elapsed - spent["inner test"]  # however long sleeping took
    assert by_activity({"read": 1.0, "executor": 2.0}, {"read": 3.0, "wait": 0.0}) == {
        "read": 4.0,
        "other": 2.0,
    }


def test_long_histories_are_thinned():
    board = Board()
    for run in ("a", "b"):
        records = [{"sweep": float(i), "nested_loss": 1.0 + 1 / (i + 1)} for i in range(5000)]
        board.apply(begin(run, [*records, {"sweep": 5000.0, "nested_loss": 0.0}]))
    document = Document()
    view = View(document, board, None)
    view.update()
    data = view.losses[0].curves.data
    xs, ys = data["xs"], data["ys"]
    assert [len(x) for x in xs] == [len(y) for y in ys] == [MOST_POINTS, MOST_POINTS]
    zero = Extent(xs[0][1], 5000.0).zero  # where sweep 0 stands on a logarithmic axis
    assert (xs[0][0], xs[0][-1]) == (zero, 5000.0)
    assert np.isnan(ys[0][-1])  # which has no logarithm
    assert np.isfinite(ys[0][:-1]).all()


def test_of_many_workers_the_largest_are_shown():
    class Workers:
        def memory(self) -> list[tuple[str, float, float]]:
            return [(f"worker {i}", float((i * 7 % 40) << 20), float(64 << 20)) for i in range(40)]

    view = View(Document(), Board(), Workers())
    view.update()
    sizes = [int(size) for size in re.findall(r">(\d+) MiB<", view.memory.text)]
    assert len(sizes) == view.memory.text.count("worker ") == 16
    assert min(sizes) == 24
    assert "the 16 largest of 40" in view.memory.text
