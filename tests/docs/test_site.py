"""The pages of the site in a browser: nothing is cut on a phone, and figures suit the dark theme, too."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, contrast, luminance, needs_browser
from documents import ROOT

pytestmark = [pytest.mark.slow, needs_browser]
PHONE, DESK = (400, 800), (1400, 900)
PICTURES = {"start_reconstructions", "dashboard"}
"""Whose pixels mean something: they stay as they are."""
CUT = """() => {
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const within = e => e.getBoundingClientRect().right <= innerWidth + 1;
  const reachable = e => e.matches('article') ? false : (scrolls(e) && within(e)) || reachable(e.parentElement);
  return [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().width && getComputedStyle(e).visibility != 'hidden')
    .filter(e => !within(e) && !reachable(e)).map(e => `${e.tagName}: ${e.textContent.slice(0, 60)}`);
}"""
WIDTHS = """() => {
  const content = document.querySelector('.content');
  return [document.documentElement.scrollWidth - innerWidth, content.scrollWidth - content.clientWidth];
}"""
COLOURS = """selector => [...document.querySelectorAll(selector)].map(e => getComputedStyle(e).color)"""
PAGE = "getComputedStyle(document.body).backgroundColor"
TO_DARK = "document.body.dataset.theme = 'dark'"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    for package in ("numpydoc", "myst_parser", "furo"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site") / "html"
    words = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(ROOT / "docs"), str(folder)]
    subprocess.run(words, check=True, timeout=300, cwd=ROOT)
    return folder


def shown(page: Any, file: Path) -> Any:
    page.goto(file.as_uri())
    return page


@contextmanager
def pages(site: Path, size: tuple[int, int], scheme: str) -> Iterator[Iterator[tuple[str, Any]]]:
    """Every page, opened one after the other."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        files = sorted(site.glob("*.html"))
        assert len(files) > 15
        try:
            yield ((file.stem, shown(page, file)) for file in files)
        finally:
            browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(site, scheme):
    with pages(site, PHONE, scheme) as opened:
        for name, page in opened:
            assert max(page.evaluate(WIDTHS)) <= 0, name
            assert page.evaluate(CUT) == [], name


def pixels(figure: Any) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.open(io.BytesIO(figure.screenshot())).convert("RGB"))


def luminances(colours: np.ndarray) -> np.ndarray:
    """As browser.luminance has them, of many."""
    channels = colours / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrasts(figure: np.ndarray, paper: float) -> np.ndarray:
    """WCAG's contrast of every pixel with what it is drawn on, whose luminance is given."""
    own = luminances(figure)
    return (np.maximum(own, paper) + 0.05) / (np.minimum(own, paper) + 0.05)


def check_line_figure(light: np.ndarray, dark: np.ndarray, page: str) -> None:
    """White paper becomes the page's, and what stood out stands out."""
    white = (light == 255).all(axis=2)
    assert white.mean() > 0.25
    on_page = contrasts(dark, luminance(page))
    assert (on_page[white] < 1.05).mean() > 0.99
    drawn = contrasts(light, 1.0) >= 4.5
    assert drawn.mean() > 0.002
    assert (on_page[drawn] >= 3).mean() > 0.99


def check_picture(style: dict[str, str], light: np.ndarray, dark: np.ndarray) -> None:
    """It stands on a card with a margin, a little dimmed, and its colours are those of before."""
    assert all(style[name] not in ("", "0px") for name in ("padding", "radius"))
    assert "invert" not in style["filter"]
    assert dark.max() < 240
    assert luminances(dark).mean() > 0.5 * luminances(light).mean()


STYLE = """e => {
  const {padding, borderRadius, filter} = getComputedStyle(e);
  return {padding, radius: borderRadius, filter};
}"""


def test_figures_suit_the_dark_theme(site):
    seen = set()
    with pages(site, DESK, "light") as opened:
        for _, page in opened:
            figures = [(figure, pixels(figure)) for figure in page.locator("article p > img").all()]
            page.evaluate(TO_DARK)
            for figure, light in figures:
                seen.add(name := Path(figure.get_attribute("src")).stem)
                dark, style = pixels(figure), figure.evaluate(STYLE)
                assert style["filter"] != "none", name
                if name in PICTURES:
                    check_picture(style, light, dark)
                else:
                    check_line_figure(light, dark, page.evaluate(PAGE))
    assert seen >= PICTURES
    assert len(seen) >= len([*(ROOT / "docs" / "figures").iterdir()])


def test_the_dark_theme_of_the_system_is_that_of_the_button(site):
    def look(page: Any) -> tuple[list[dict[str, str]], str]:
        return [figure.evaluate(STYLE) for figure in page.locator("article p > img").all()], page.evaluate(
            PAGE
        )

    with pages(site, DESK, "dark") as opened:
        for name, page in opened:
            by_system = look(page)
            page.evaluate(TO_DARK)
            assert look(page) == by_system, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_links_captions_and_code_are_legible(site, scheme):
    with pages(site, DESK, scheme) as opened:
        for name, page in opened:
            paper = page.evaluate(PAGE)
            for colour in {*page.evaluate(COLOURS, "article :is(p, a, em, code, h1, h2, h3, th, td)")}:
                assert contrast(colour, paper) > 4.5, (name, colour)
