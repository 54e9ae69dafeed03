"""What the page says of the time and the memory of workers, and that its colours can be read."""

from __future__ import annotations

import math
import re
import time

import pytest
from browser import contrast
from dashboards import pipeline, train

from altmin_dask import runs
from altmin_dask.dashboard.board import SILENT_SECONDS, TRAINER, RunState
from altmin_dask.dashboard.curves import SOLID
from altmin_dask.dashboard.publisher import Rhythm
from altmin_dask.dashboard.server import Follower
from altmin_dask.dashboard.theme import DARK, LIGHT
from altmin_dask.dashboard.workers import memory_bars, time_shares
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Callback
from altmin_dask.training.progress import Progress, Usage
from altmin_dask.training.record import Record

SECONDS = {"newton": 6.0, "read": 3.0, "executor": 1.0, "wait": 30.0, "solve": 2.0, "commit": 12.0}


def state_of(seconds: dict[str, float], thread_seconds: float) -> RunState:
    progress = Progress(1.0, 2.0, 1, 1, 1.0, None, None, 1.0, 1.0, usage=Usage(seconds))
    return RunState("r", progress=progress, thread_seconds=thread_seconds)


def widths(html: str) -> list[float]:
    return [float(width) for width in re.findall(r"width:([\d.]+)%", html)]


def test_shares_are_of_the_time_of_threads_and_waiting_is_none_of_it():
    html = time_shares(state_of(SECONDS, 40.0), alone=True)
    assert "busy 25%, idle 75% of 40 s that their threads had" in html
    assert widths(html) == [7.5, 15.0, 2.5]  # read, newton, other
    for said in ("reads samples 8%", "improves z 15%", "other (Dask, transfers) 2%"):
        assert said in html
    assert (
        "The process that trains solved for 2.0 s, waited for workers for 30 s and committed for 12 s."
        in html
    )
    assert "or busy with other runs" in time_shares(state_of(SECONDS, 40.0), alone=False)
    # workers tell of work a moment later than of time
    assert "busy 100%, idle 0% of 10 s" in time_shares(state_of(SECONDS, 9.5), alone=True)
    assert "busy for 10 s; nobody knows" in time_shares(state_of(SECONDS, 0.0), alone=True)
    assert time_shares(state_of({"wait": 1.0}, 4.0), alone=True) == time_shares(None, alone=True) == ""


@pytest.mark.parametrize(("objective", "said"), [(None, "computes gradients"), (0.5, "improves z")])
def test_what_a_step_computes_goes_by_its_right_name(objective, said):
    state = state_of(SECONDS, 40.0)
    state.records = [
        Record(sweep=1.0, cpu_seconds=2.0, wall_seconds=3.0, relaxed_objective=objective, nested_loss=0.4)
    ]
    assert f"{said} 15%" in time_shares(state, alone=True)


def test_memory_is_within_its_plan_or_marked():
    mib = float(2**20)
    html = memory_bars([("<a>", 50 * mib, 0.0), ("b", 125 * mib, 150 * mib)], 100 * mib)
    assert "&lt;a&gt;" in html
    within, limit, beyond = 50 / 1.25 / 1.05, 100 / 1.25 / 1.05, 25 / 1.25 / 1.05
    assert widths(html) == pytest.approx([within, limit, beyond], abs=0.01)
    assert html.count('class="beyond"') == html.count("said bad") == 1
    assert "125 MiB: 25 MiB beyond the plan, 83% of its limit" in html
    assert re.findall(r"left:([\d.]+)%", html) == [f"{limit:.2f}"] * 2
    assert "planned" not in memory_bars([("a", mib, 0.0)], None)
    assert "planned at most 100 MiB each (the mark)" in html
    assert "planned at most 100 MiB (the mark)" in memory_bars([("this process", mib, 0.0)], 100 * mib)
    assert memory_bars([], 1.0) == ""


def test_a_run_notes_when_it_was_and_what_its_threads_had(tmp_path):
    class Stops(Callback):
        def on_record(self, record: Record) -> None:
            if record.sweep >= 1.0:
                raise KeyboardInterrupt

    before, folder = time.time(), RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        runs.train(pipeline(), folder, [Stops()], log=lambda line: None)
    follower = Follower(folder)
    follower.follow()
    state = follower.board.runs[follower.name]
    assert state.state == "interrupted"
    assert before <= state.began <= state.ended <= time.time()
    work = sum(value for name, value in state.progress.usage.seconds.items() if name not in TRAINER)
    assert 0 < work <= state.thread_seconds
    # and goes on
    train(pipeline(), folder.path, None, resume=True)
    follower.follow()
    assert (state.state, state.result) == ("finished", folder.result())
    assert state.kept["sweep"] == state.records[-1].sweep
    assert state.elapsed <= time.time() - before
    # of earlier versions there is a sentence only
    older = {
        key: value for key, value in folder.noted().items() if key not in ("state", "began", "thread_seconds")
    }
    folder.write_progress({**older, "time": older["time"] + 1})
    follower.follow()
    assert (state.state, state.began, state.elapsed) == ("ended", None, None)


def test_a_run_that_says_nothing_is_lost_when_nobody_holds_its_folder(tmp_path):
    """A long step on threads of its own process says nothing, and a process that was killed holds nothing."""
    folder = RunFolder(tmp_path / "run")
    runs.train(pipeline(), folder, log=lambda line: None)
    silent = {"status": "running", "state": "running", "time": time.time() - 10 * SILENT_SECONDS}
    folder.write_progress({**folder.noted(), **silent})
    follower = Follower(folder)
    state = follower.board.runs[follower.name]
    with folder.locked():
        follower.follow()
        assert state.state == "running"
    follower.follow()
    assert state.state == "lost"
    assert "nothing was heard of it for 10 min" in state.status


def test_notes_are_never_so_far_apart_that_a_run_seems_lost(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for most, then in ((SILENT_SECONDS / 2, 30.0), (math.inf, 2000.0)):
        rhythm = Rhythm(2.0, most)
        with rhythm.beat():
            now += 10.0  # a slow disk
        assert rhythm.next == pytest.approx(now + then)


def blended(colour: str, paper: str, alpha: float) -> str:
    """What is seen of a colour through which the paper shines."""
    parts = [[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in (colour, paper)]
    return "#" + "".join(f"{round(alpha * a + (1 - alpha) * b):02x}" for a, b in zip(*parts, strict=True))


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_colours_stand_out_from_the_paper(theme):
    """By WCAG: 4.5 for text, 3 for what is drawn."""
    words = (theme.ink, theme.muted, theme.good, theme.busy, theme.warn, theme.bad)
    assert min(contrast(colour, theme.paper) for colour in words) >= 4.5
    assert min(contrast(colour, theme.paper) for colour in theme.runs) >= 3
    wide = [blended(colour, theme.paper, SOLID.alpha) for colour in theme.runs]
    assert min(contrast(colour, theme.paper) for colour in wide) >= 3
    assert (
        len({*theme.runs, *theme.activities, *theme.layer_colours(8)})
        == len(theme.runs) + len(theme.activities) + 8
    )
