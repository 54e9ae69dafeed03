"""The page in a real browser: on screens of any width, in both themes, with its buttons and its axes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from browser import browser_page, luminance, needs_browser
from dashboards import pipeline, train, two_workers

from altmin_dask.dashboard.plugin import install
from altmin_dask.storage.run import RunFolder

client = pytest.fixture(scope="module", name="client")(two_workers)

# whatever stands anywhere, also behind the borders of components
FIND = """
const all = [];
const walk = root => { for (const each of root.querySelectorAll('*')) {
  all.push(each);
  if (each.shadowRoot) walk(each.shadowRoot);
} };
walk(document);
const seen = elements => elements.filter(each => each.getBoundingClientRect().width > 0);
"""
BOXES = f"""(choice) => {{
  {FIND}
  return seen(all.filter(each => each.matches(choice))).map(each => {{
    const {{left, right, top, bottom}} = each.getBoundingClientRect();
    return {{left, right, top, bottom, text: each.innerText || ''}};
  }});
}}"""
PAPER = (
    """() => [document.documentElement, document.body].map(each => getComputedStyle(each).backgroundColor)"""
)
TICKS = """() => [...Bokeh.documents[0].all_models]
  .filter(each => each.type == 'Figure' && each.y_scale.type == 'LogScale' && each.left[0].ticker.ticks.length)
  .map(each => [each.y_range.start, each.y_range.end, each.left[0].ticker.ticks])"""
ALONG = """() => [...Bokeh.documents[0].all_models]
  .filter(each => each.type == 'Figure' && each.y_range.type == 'DataRange1d' && each.below[0].ticker.ticks.length)
  .map(each => [each.x_scale.type, each.x_range.start, each.x_range.end, each.below[0].ticker.ticks])"""
ZOOM = """() => {
  for (const each of Bokeh.documents[0].all_models)
    if (each.type == 'Figure' && each.y_scale.type == 'LogScale') each.y_range.setv({start: 0.21, end: 0.2345});
}"""


@pytest.fixture(scope="module")
def url(client: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with three runs on it, of which two have one title."""
    folder = tmp_path_factory.mktemp("runs")
    for name, how in (("a", {}), ("b", {}), ("windows", {"schedule": "windows"})):
        made = pipeline("digits" if name != "windows" else "digits, z kept", max_sweeps=3.0, **how)
        train(made, folder / name, client)
    assert RunFolder(folder / "windows").records()[-1]["relative_residuals"]
    found = install(client)
    assert found is not None
    return found


@contextmanager
def opened(url: str, width: int, scheme: str = "light") -> Iterator[Any]:
    with browser_page(url, scheme, (width, 900)) as (page, errors):
        page.wait_for_function(f"({BOXES})('.badge').length == 3")
        page.wait_for_function(f"({BOXES})('.bk-Figure').length == 4")
        yield page
        assert errors == []


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "columns"), [(400, 1), (480, 1), (700, 1), (1400, 3)])
def test_figures_stand_below_each_other_where_there_is_no_room(url, width, columns):
    with opened(url, width) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        figures = page.evaluate(BOXES, ".bk-Figure")
        lines = figures[:-1]  # the last one has pictures
        assert len({round(box["left"]) for box in lines}) == min(columns, len(lines))
        for choice in (".badge", ".bk-Figure", "td.about", "td[data-name]", ".bar", "h3", ".key", "select"):
            for box in page.evaluate(BOXES, choice):
                assert 0 <= box["left"] < box["right"] <= width, (choice, box)
        # those beside each other are level, whatever stands above them
        if columns > 1:
            assert len({round(box["bottom"]) for box in lines[:columns]}) == 1
        (chosen,) = page.evaluate(BOXES, "tbody.chosen")
        (runs,) = page.evaluate(BOXES, "table")
        assert [round(chosen[side] - runs[side]) for side in ("left", "right")] == [0, 0]
        # what the lines are stands above the figure, and on none
        for key in page.evaluate(BOXES, ".key"):
            assert not any(
                box["left"] < key["right"]
                and key["left"] < box["right"]
                and box["top"] + 1 < key["bottom"]
                and key["top"] < box["bottom"]
                for box in figures
            )


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_of_the_page_has_the_theme_and_one_can_have_the_other(url, scheme):
    with opened(url, 700, scheme) as page:
        page.wait_for_function(f"({PAPER})()[0] != 'rgba(0, 0, 0, 0)'")
        root, body = page.evaluate(PAPER)
        assert root == body
        assert (luminance(root) > 0.5) == (scheme == "light")
        other = {"light": "dark", "dark": "light"}[scheme]  # it says what it does
        page.get_by_role("button", name=f"{other} theme").click()
        page.wait_for_function(f"({PAPER})()[0] != '{root}'")
        root, body = page.evaluate(PAPER)
        assert root == body
        assert (luminance(root) > 0.5) == (scheme == "dark")


@pytest.mark.slow
@needs_browser
def test_ticks_are_spread_over_logarithmic_axes(url):
    with opened(url, 1400) as page:
        axes = page.evaluate(TICKS)
        assert len(axes) >= 3
        for start, end, ticks in axes:
            assert 3 <= len(ticks) <= 9
            assert start <= ticks[0] < ticks[-1] <= end
            gaps = [later / earlier for earlier, later in pairwise([start, *ticks, end])]
            assert max(gaps) <= max(5, (end / start) ** 0.5)
        for scale, start, end, ticks in page.evaluate(ALONG):
            assert scale in ("LinearScale", "LogScale")
            assert 3 <= len(ticks) <= 9
            assert start <= ticks[0] < ticks[-1] <= end
            assert ticks == sorted(ticks)
        # of whatever is in view
        page.evaluate(ZOOM)
        page.wait_for_function(
            f"({TICKS})().every(([, , ticks]) => ticks[0] >= 0.21 && ticks.at(-1) <= 0.2345)"
        )
        assert all(len(ticks) >= 3 for _, _, ticks in page.evaluate(TICKS))


@pytest.mark.slow
@needs_browser
def test_buttons_choose_and_hide_runs(url):
    curves = """() => [...Bokeh.documents[0].all_models]
      .filter(each => each.type == 'ColumnDataSource' && each.data.dash).map(each => each.data.label.join())"""
    with opened(url, 1000) as page:
        assert any("digits · a" in labels for labels in page.evaluate(curves))
        row = page.locator("tbody", has_text="digits · a")
        row.get_by_role("button", name="hide curves").click()
        page.wait_for_function(f"!({curves})().some(labels => labels.includes('digits · a'))")
        assert row.get_by_role("button", name="show curves").is_visible()
        # by keys, too
        row.locator("td.name button").focus()
        page.keyboard.press("Enter")
        page.locator("tbody.chosen", has_text="digits · a").wait_for()
        chosen = page.locator(
            "select option:checked", has_text="digits · a"
        )  # which may come in the next message
        chosen.wait_for(state="attached")
