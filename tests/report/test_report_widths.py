"""Pages of the report in a real browser, on screens of any width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, needs_browser
from reports import make_run, result_of

from altmin_dask.report.comparison import write_comparison
from altmin_dask.report.page import write_report

pytestmark = [pytest.mark.slow, needs_browser]
OVER = "() => document.scrollingElement.scrollWidth - innerWidth"
HIDDEN = "() => [...document.querySelectorAll('.wide')].map(each => each.scrollWidth - each.clientWidth)"
HEADS = """() => [...document.querySelectorAll('.swatch')].map(each => {
  const [mark] = each.getClientRects(), [name] = each.parentElement.querySelector('a').getClientRects();
  return [mark.bottom - name.bottom, name.left - mark.right];
})"""
"""How far the mark of a run is from the line of its name."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    runs = [make_run(folder / name) for name in ("digits_autoencoder", "wide")]
    for run in runs:
        run.write_result(result_of(metrics={"rmse": 1.25}))
    first, _ = map(write_report, runs)
    return {"report": first, "comparison": write_comparison(runs, folder / "comparison.html")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [400, 700, 1400])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_pages_are_as_wide_as_the_screen(files, browser, name, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(files[name].as_uri())
    assert page.evaluate(OVER) == 0
    if name == "comparison":  # of two runs
        assert {*page.evaluate(HIDDEN)} == {0}
        heads = page.evaluate(HEADS)
        assert len(heads) >= 2
        for below, beside in heads:
            assert abs(below) < 3
            assert 0 <= beside < 8
    page.close()
