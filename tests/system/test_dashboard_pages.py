"""The page on a server of its own, and in a real browser where there is one."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from bokeh.document import Document
from browser import browser_page, contrast, luminance, needs_browser
from command import start
from dashboards import fetch, on_board, pipeline, train, two_workers
from sklearn.model_selection import GridSearchCV

from altmin_dask import AltMinRegressor, runs
from altmin_dask.dashboard.page import View
from altmin_dask.dashboard.plugin import install
from altmin_dask.dashboard.server import Follower
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.record import read_records

MARKUP = "<img src=x onerror=document.title='owned'>"

client = pytest.fixture(scope="module", name="client")(two_workers)


@contextmanager
def served(run: Path) -> Iterator[str]:
    process = start("dashboard", run, "--port", "0")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"http://\S+", line)
        assert match, line
        assert "this machine only" in line
        yield match[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


@pytest.mark.slow
def test_a_run_folder_is_served(client, tmp_path):
    train(pipeline(), tmp_path / "run", client)
    with served(tmp_path / "run") as url:
        assert url.startswith("http://localhost:")
        assert "bokeh" in fetch(url)


def test_a_run_folder_says_as_much_as_a_scheduler(tmp_path):
    folder = RunFolder(tmp_path / "run")
    runs.train(pipeline(), folder, log=lambda line: None)
    follower = Follower(folder)
    follower.follow()
    state = follower.board.runs[follower.name]
    assert state.records == read_records(folder)
    assert state.progress.max_sweeps == 2.0
    assert {"read", "newton", "statistics", "write", "solve", "wait"} <= set(state.progress.usage.seconds)
    ((name, used, _),) = state.progress.usage.memory
    assert (name, used > 2**20) == ("this process", True)
    assert state.plan["worker_memory"] > 2**20
    assert "sweeps are done" in state.status
    assert [len(row) for row in state.pictures] == [10, 10]
    view = View(Document(), follower.board, None)
    view.update()
    assert view.memory.text.count("this process") == 1
    assert 'class="plan"' in view.memory.text
    assert "improves z" in view.activities.text

    # somebody is writing a record, or was killed doing so
    with folder.history.open("ab") as file:
        file.write(b'{"sweep": 3.0, "cpu_')
    follower.follow()
    assert len(state.records) == len(folder.records(whole=True))
    assert "sweeps are done" in state.status
    # of a run that went back to its last commit
    whole = folder.history.read_bytes().splitlines(keepends=True)
    folder.history.write_bytes(b"".join(whole[:2]))
    follower.follow()
    assert len(state.records) == 2
    # and one that was killed
    folder.write_progress({**folder.noted(), "status": "running", "time": time.time() - 3600})
    follower.follow()
    assert state.status == "nothing was heard of it for 1 h 0 min"
    # a folder of which there is nothing but the history
    (folder.path / "progress.json").unlink()
    bare = Follower(folder)
    bare.follow()
    assert (len(bare.board.runs[bare.name].records), bare.board.runs[bare.name].status) == (2, "")


def test_what_is_no_run_is_refused(altmin, tmp_path):
    outcome = altmin("dashboard", tmp_path)
    assert outcome.code == 2
    assert "is not a run folder" in outcome.err


# in a browser


# models of the page by what stands in them
POINTS = """() => {
  const sources = Bokeh.documents[0].all_models ? [...Bokeh.documents[0].all_models] : [];
  const lines = sources.filter(m => m.type == 'ColumnDataSource' && m.data && m.data.xs);
  return Math.max(0, ...lines.map(m => (m.data.xs || []).reduce((n, x) => n + x.length, 0)));
}"""
TABLE = """() => {
  const find = root => {
    for (const el of root.querySelectorAll('*')) {
      if (el.shadowRoot) { const f = find(el.shadowRoot); if (f) return f; }
      if (el.tagName == 'TABLE') return el;
    }
  };
  const table = find(document);
  return table ? {text: table.innerText, images: table.querySelectorAll('img').length,
                  color: getComputedStyle(table).color, page: getComputedStyle(document.body).backgroundColor} : null;
}"""


@pytest.mark.slow
@needs_browser
def test_a_curve_grows_in_a_browser_and_runs_stand_side_by_side(client, tmp_path):
    train(pipeline("first " + MARKUP, max_sweeps=1.0), tmp_path / "first", client)
    url = install(client)
    assert url is not None
    with browser_page(url) as (page, errors):
        page.wait_for_function(f"({TABLE})() !== null")
        assert page.locator("a[href='altmin']").count() == 1
        before = page.evaluate(POINTS)
        made = pipeline("second", max_sweeps=400.0, max_cpu_seconds=6.0)
        thread = Thread(target=train, args=(made, tmp_path / "second", client))
        thread.start()
        page.wait_for_function(f"({POINTS})() > {before + 6}", timeout=60_000)
        middle = page.evaluate(POINTS)
        page.wait_for_function(f"({POINTS})() > {middle + 6}", timeout=60_000)
        thread.join()
        page.wait_for_function(f"({TABLE})().text.includes('CPU seconds are spent')", timeout=20_000)
        table = page.evaluate(TABLE)
        assert "first" in table["text"]
        assert "second" in table["text"]
        assert MARKUP in table["text"]  # as text
        assert table["images"] == 0
        assert page.title() != "owned"
        assert errors == []


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_readable_in_both_themes(client, tmp_path, scheme):
    train(pipeline(max_sweeps=1.0), tmp_path / "run", client)
    url = install(client)
    assert url is not None
    with browser_page(url, scheme) as (page, errors):
        page.wait_for_function(f"({TABLE})() !== null")
        page.wait_for_timeout(1500)
        table = page.evaluate(TABLE)
        assert contrast(table["color"], table["page"]) > 4.5  # WCAG's of normal text
        assert (luminance(table["page"]) > 0.5) == (scheme == "light")
        assert errors == []


@pytest.mark.slow
@needs_browser
def test_markup_in_the_name_of_a_folder_stays_text_on_dasks_own_pages(client, tmp_path):
    folder = tmp_path / MARKUP.replace("/", "")
    train(pipeline(max_sweeps=1.0), folder, client)
    url = install(client)
    assert url is not None
    # the tags of spans are choices there, as HTML
    with browser_page(url.removesuffix("altmin") + "individual-fine-performance-metrics") as (page, _):
        page.locator(".choices__item", has_text="sweep 1").first.wait_for(state="attached", timeout=30_000)
        page.wait_for_timeout(500)
        assert page.locator("img[src=x]").count() == 0
        assert page.title() != "owned"
    assert on_board(client, tmp_path).description.startswith(str(folder))  # but on ours, as it is


@pytest.mark.slow
@needs_browser
def test_a_run_folder_is_shown_and_followed(client, tmp_path):
    train(pipeline(), tmp_path / "run", client)
    with served(tmp_path / "run") as url, browser_page(url) as (page, errors):
        page.wait_for_function(f"({POINTS})() > 3")
        before = page.evaluate(POINTS)
        train(pipeline(max_sweeps=6.0), tmp_path / "run", client, resume=True)
        page.wait_for_function(f"({POINTS})() > {before}", timeout=20_000)
        assert errors == []


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_what_the_fits_of_a_search_try(client):
    x = np.random.default_rng(0).random((40, 6))
    search = GridSearchCV(
        AltMinRegressor((4,), max_sweeps=1.0, scheduler=client.scheduler.address),
        {"ridge": [0.25, 0.75]},
        cv=2,
    )
    url = install(client)
    assert url is not None
    with browser_page(url) as (page, errors):
        search.fit(x, x[:, 0])
        page.wait_for_function(f"(({TABLE})() || {{text: ''}}).text.includes('ridge 0.75')", timeout=20_000)
        assert "ridge 0.25" in page.evaluate(TABLE)["text"]
        assert errors == []
