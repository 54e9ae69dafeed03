"""The horizontal axes of the page's figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dashboards import begin, message
from test_quality import recorded, viewed

from altmin_dask.dashboard.axes import Extent
from altmin_dask.report.axes import Sweeps


@pytest.mark.parametrize(
    "sweeps", [[], [0.0], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 0.2, 60], [2, 3], [math.nan, 0, 1, 9]]
)
def test_the_axis_of_the_page_is_that_of_the_report(sweeps):
    mine, theirs = Extent.of(sweeps), Sweeps(np.array(sweeps, dtype=float))
    assert mine.logarithmic == theirs.logarithmic
    assert mine.zero == pytest.approx(theirs.start)
    places = theirs.places(np.array(sweeps, dtype=float))
    np.testing.assert_allclose(np.array(mine.places(sweeps), dtype=float), places)


def test_it_becomes_logarithmic_while_a_run_grows_and_for_all_runs():
    view = viewed(begin("a", [recorded(k, 2.0) for k in range(4)]))
    place = view.losses[0]
    assert type(place.figure.x_scale).__name__ == "LinearScale"
    assert list(place.curves.data["xs"][0]) == [0, 1, 2, 3]
    view.board.apply(message("record", "a", record=recorded(40, 1.0)))
    view.update()
    assert type(place.figure.x_scale).__name__ == "LogScale"
    (x, *_) = place.curves.data["xs"]
    assert 0 < x[0] < 1
    assert list(x[1:]) == [1, 2, 3, 40]
    view.board.apply(begin("b", [recorded(0, 2.0), recorded(1, 1.0), recorded(200, 0.5)]))
    view.update()
    first, *_, last = place.curves.data["xs"]
    assert first[0] == last[0] < 1  # 0 stands in one place
