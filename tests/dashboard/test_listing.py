"""Which runs the page lists, what it calls them, and what it says of how they are."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from bokeh.document import Document
from dashboards import begin, message, two_workers
from sklearn.model_selection import GridSearchCV

from altmin_dask import AltMinAutoencoder, AltMinRegressor
from altmin_dask.dashboard import listing
from altmin_dask.dashboard.board import Board, RunState
from altmin_dask.dashboard.curves import NamedRun
from altmin_dask.dashboard.differences import differences, texts
from altmin_dask.dashboard.page import View
from altmin_dask.dashboard.theme import DARK, LIGHT

client = pytest.fixture(scope="module", name="client")(two_workers)

RESULT = {
    "kept": {
        "sweep": 1.0,
        "on": "validation",
        "samples": 360,
        "loss": 0.25,
        "metrics": {"accuracy": 0.94444},
    },
    "stopped": {
        "reason": "no_improvement",
        "text": "the loss has not improved in 10 records",
        "next": "Evaluate the <model>.",
    },
    "resolved": {},
}


def records(*losses: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"sweep": float(i), "cpu_seconds": i / 2, "nested_loss": loss, "validation_loss": 2 * loss, **more}
        for i, loss in enumerate(losses)
    ]


def began(run: str, title: str, folder: str = "", when: float | None = None, **more: Any) -> dict[str, Any]:
    return {**begin(run, records(1.0, 0.5, 0.75)), "title": title, "folder": folder, "began": when, **more}


def board_of(*messages: dict[str, Any]) -> Board:
    board = Board()
    for each in messages:
        board.apply(each)
    return board


def viewed(board: Board) -> View:
    view = View(Document(), board, None)
    view.update()
    return view


def press(view: View, wish: str) -> None:
    view.wished.value = f"{time.monotonic_ns()} {wish}"


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def drawn(view: View) -> set[str]:
    """The runs that have curves."""
    return {label.rpartition(":")[0] for label in view.losses[0].curves.data["label"]}


def test_runs_of_one_title_are_told_apart():
    noon = time.mktime((2026, 1, 2, 12, 0, 5, 0, 0, -1))
    board = board_of(
        began("h:/a/x/run", "digits", "/a/x/run", noon),
        began("h:/a/y/run", "digits", "/a/y/run", noon + 90),
        began("h:/b", "other", "/b", noon),
        began("one", "AltMinClassifier", "", noon),
        began("two", "AltMinClassifier", "", noon),
        began("three", "AltMinClassifier", "", noon + 120),
        began("old", "", ""),
    )
    assert list(listing.names(list(board.runs.values())).values()) == [
        "digits · x/run · 02 Jan 12:00",
        "digits · y/run · 02 Jan 12:01",
        "other",
        "AltMinClassifier · 02 Jan 12:00 · 4",
        "AltMinClassifier · 02 Jan 12:00 · 5",
        "AltMinClassifier · 02 Jan 12:02",
        "old",
    ]
    now = time.time()
    assert listing.moment(now) == time.strftime("%H:%M:%S", time.localtime(now))


def settings(**changed: Any) -> dict[str, str]:
    return texts(
        {"hidden_layer_sizes": (64, 64), "ridge": "auto", "max_sweeps": None, "dtype": "auto", **changed}
    )


def test_fits_of_a_search_are_told_apart_by_the_settings_that_differ():
    tried = [{"ridge": 0.1}, {"ridge": 0.5}, {"ridge": 1e-5, "hidden_layer_sizes": (64,)}, {"max_sweeps": 5}]
    fits = [
        began(f"fit{i}", "AltMinClassifier", "", settings=settings(**each)) for i, each in enumerate(tried)
    ]
    view = viewed(board_of(*fits, began("mine", "digits", settings={"ridge": "7"})))
    names = {run: name.replace("AltMinClassifier · ", "") for run, name in view.choice.options}
    assert names == {
        "fit0": "ridge 0.1, hidden_layer_sizes [64, 64], max_sweeps –",
        "fit1": "ridge 0.5, hidden_layer_sizes [64, 64], max_sweeps –",
        "fit2": "ridge 1e-05, hidden_layer_sizes [64], max_sweeps –",
        "fit3": "ridge auto, hidden_layer_sizes [64, 64], max_sweeps 5",
        "mine": "digits",
    }
    assert all(name in text_of(view.table.text) for name in names.values())
    assert "dtype" not in view.table.text  # the same in all
    for name in ("ridge 0.1", "max_sweeps 5"):  # so are their curves
        assert any(name in label for label in drawn(view))


def test_what_differs_is_short_and_text():
    told = [
        {"solver.kind": "a" * 90, "network.kind": "/a/long/path/to/the/samples.zarr", "x": f"<b>{i}"}
        | {f"s{k}": str(i) for k in range(5)}
        for i in range(2)
    ]
    told[0]["solver.kind"], told[0]["network.kind"] = "b", "c"
    board = board_of(
        *(began(f"r{i}", "same", settings=each) for i, each in enumerate(told)), began("r2", "same")
    )
    names = listing.names(list(board.runs.values()))
    assert (
        names["r1"]
        == f"same · solver.kind {'a' * 23}…, network.kind …ath/to/the/samples.zarr, x <b>1, s0 1, …"
    )
    assert names["r2"] == "same"  # which an earlier version began
    assert "<b>" not in viewed(board).table.text
    others = texts({"a": np.int64(3), "b": np.random.RandomState(0), "c": {"x": True}, "d": [1.0, 2.5]})
    assert others == {"a": "3", "b": "RandomState", "c": "x true", "d": "[1, 2.5]"}


def test_of_a_search_a_few_runs_are_listed_and_all_on_demand():
    search = [began(f"fit{i}", "AltMinClassifier", "", 100.0 * i) for i in range(13)]
    ends = [message("end", f"fit{i}", status="done", state="finished") for i in range(1, 13)]
    view = viewed(board_of(*search, *ends, began("mine", "digits")))
    assert view.table.text.count("<tbody") == 1 + 1 + 3 + 1  # fit0 goes on
    assert "9 more called AltMinClassifier" in view.table.text
    assert len(drawn(view)) == 5
    press(view, "fold AltMinClassifier")
    assert view.table.text.count("<tbody") == 15
    assert len(drawn(view)) == 14
    press(view, "fold AltMinClassifier")
    press(view, "choose fit3")  # what is looked at is listed
    assert view.table.text.count("<tbody") == 7
    assert view.choice.value == "fit3"
    # few alike are all listed
    few = viewed(board_of(*search[:4], *(message("end", f"fit{i}", status="") for i in range(4))))
    assert few.table.text.count("<tbody") == 4


def test_a_new_run_takes_nobodys_choice_away():
    board = board_of(began("a", "mine"), message("end", "a", status="done"), began("b", "mine, too"))
    view = viewed(board)
    assert view.choice.value == "b"  # the newest that goes on
    press(view, "choose a")
    board.apply(began("c", "a colleague's"))
    view.update()
    assert view.choice.value == "a"
    assert [option[0] for option in view.choice.options] == ["c", "b", "a"]
    del board.runs["a"]
    view.update()
    assert view.choice.value == "c"
    assert viewed(Board()).choice.value == ""


def test_runs_can_be_hidden_and_keep_their_colours():
    board = board_of(*(began(f"r{i}", f"title {i}") for i in range(4)))
    view = viewed(board)
    before = dict(view.colours)
    assert len(set(before.values())) == 4
    press(view, "hide r1")
    assert drawn(view) == {"title 0", "title 2", "title 3"}
    assert "show curves" in view.table.text
    assert "title 1" in view.table.text
    press(view, "hide nobody")
    press(view, "")
    press(view, "hide r1")
    assert len(drawn(view)) == 4
    del board.runs["r0"]
    board.apply(began("r4", "title 4"))
    view.update()
    assert {run: view.colours[run] for run in ("r1", "r2", "r3")} == {
        run: before[run] for run in ("r1", "r2", "r3")
    }
    assert view.colours["r4"] == before["r0"]  # the one that is free


@pytest.mark.parametrize(
    ("state", "kind"),
    [("finished", "good"), ("interrupted", "warn"), ("failed", "bad"), ("lost", "bad"), (None, "muted")],
)
def test_how_a_run_ended_has_a_colour(state, kind):
    how = {} if state is None else {"state": state}  # which clients of earlier versions do not tell
    board = board_of(began("a", "digits"), message("end", "a", status="2 sweeps <are> done", **how))
    html = listing.line(NamedRun("digits", board.runs["a"], 0))
    assert f'<span class="badge {kind}">{state or "ended"}</span>' in html
    assert "2 sweeps &lt;are&gt; done" in html
    assert "kept" not in html
    board.apply(message("record", "a", record={"sweep": 3.0}))  # it goes on
    assert '<span class="badge busy">running</span>' in listing.line(NamedRun("", board.runs["a"], 0))


def test_a_finished_run_leads_with_the_model_that_is_kept():
    board = board_of(
        began("a", "digits", when=1000.0),
        message("end", "a", status="done", state="finished", time=1125.0, result=RESULT),
    )
    view = viewed(board)
    text = text_of(view.table.text)
    assert "kept: sweep 1, validation loss 0.25, accuracy 94.44%." in text
    assert "The loss has not improved in 10 records. Evaluate the &lt;model&gt;." in text
    assert "kept: 1 0.5 0.25 94.44%" in text  # its numbers, not those of the last record
    assert "2 min 5 s" in text
    for panel, x in zip(view.losses, (1.0, 0.5), strict=True):
        assert (panel.kept.data["x"], panel.kept.data["y"]) == ([x], [1.0])  # the record's, on its curve
        assert "the model that is kept" in panel.key.text
    assert "accuracy 94.44%.</b>" in view.table.text  # on one line
    metrics = {"accuracy": 0.94444, "balanced_accuracy": 0.94777, "log_loss": 0.25}
    state = RunState("a", result={**RESULT, "kept": {**RESULT["kept"], "metrics": metrics}})
    said = "accuracy 94.44%, balanced accuracy 94.78%, log loss 0.25."
    assert listing.kept_model(state).endswith(said)
    # where training goes on, it is not known
    board.apply(message("record", "a", record={"sweep": 3.0, "nested_loss": 0.1}))
    view.update()
    assert view.losses[0].kept.data["x"] == []
    assert "kept" not in view.table.text


def test_accuracies_are_shown_where_there_are_labels():
    plain = viewed(board_of(began("a", "digits")))
    assert not plain.metric.root.visible
    assert "validation loss" in plain.table.text
    assert "accuracy" not in plain.table.text  # no column of nothing
    labelled = {
        **begin("a", records(1.0, 0.5, nested_accuracy=0.75, validation_accuracy=0.0)),
        "title": "digits",
    }
    view = viewed(board_of(labelled))
    panel = view.metric.shares
    assert panel.root.visible
    assert [list(y) for y in panel.curves.data["ys"]] == [[0.75, 0.75], [0.0, 0.0]]  # 0 is a share
    assert "0.00%" in view.table.text


def test_layers_have_colours_of_their_own_and_a_constant_is_no_curve():
    mu = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    many = [{"sweep": float(i), "relative_residuals": [0.5, 0.25 / (i + 1)], "mu": mu[i]} for i in range(3)]
    board = board_of(begin("a", many), *(begin(f"r{i}", many) for i in range(8)))
    view = viewed(board)
    assert view.residuals.curves.data["label"] == ["layer 1", "layer 2"]
    assert not set(view.residuals.curves.data["color"]) & {*LIGHT.runs, *DARK.runs}
    assert not view.mu.root.visible
    mu[2] = [0.25, 0.25]
    many[2]["mu"] = mu[2]
    changing = viewed(board_of(begin("a", many)))
    assert changing.mu.curves.data["label"] == ["all layers"]
    assert "all layers" in changing.mu.key.text


def test_dashes_are_told_apart():
    everything = [{**record, "relaxed_objective": 0.125} for record in records(1.0, 0.5)]
    view = viewed(board_of(begin("a", everything)))
    data = view.losses[0].curves.data
    assert len(set(data["dash"])) == len(set(zip(data["width"], data["alpha"], strict=True))) == 3
    assert len(set(data["color"])) == 1
    for dash, name in zip(data["dash"], ("training", "validation", "relaxed objective"), strict=True):
        assert re.search(
            rf'stroke-dasharray="{dash.removeprefix("solid")}"/></svg>{name}', view.losses[0].key.text
        )
    samples = re.findall(r'<line x2="(\d+)"[^/]*stroke-dasharray="(\d+) (\d+)"', view.losses[0].key.text)
    assert len(samples) == 2
    for width, stroke, gap in (map(int, each) for each in samples):
        assert width % (stroke + gap) == stroke  # no stroke is cut
    assert not view.losses[0].figure.legend  # which would lie on curves


@pytest.mark.slow
def test_the_fits_of_an_estimator_are_called_after_it(client):
    x = np.random.default_rng(0).random((40, 6))
    AltMinAutoencoder((4,), max_sweeps=1.0, scheduler=client).fit(x)

    def look(dask_scheduler: Any) -> tuple[str, str, str]:
        (state,) = dask_scheduler.plugins["altmin-dashboard"].board.runs.values()
        return state.title, state.folder, state.description

    title, folder, about = client.run_on_scheduler(look)
    assert (title, folder) == ("AltMinAutoencoder", "")
    assert about == "6-4-6 autoencoder, 40 samples"


@pytest.mark.slow
def test_the_fits_of_a_grid_search_say_what_they_try(client):
    x = np.random.default_rng(0).random((40, 6))
    network = AltMinRegressor((4,), random_state=None, scheduler=client.scheduler.address)
    grid = {"ridge": [0.1, 0.5], "settings": [{"solver.output_damping": 0.01}], "max_sweeps": [1.0, 2.0]}
    GridSearchCV(network, grid, cv=2, error_score="raise").fit(x, x[:, 0])

    def look(dask_scheduler: Any) -> list[Any]:
        states = dask_scheduler.plugins["altmin-dashboard"].board.runs.values()
        return [(each.title, each.settings) for each in states]

    found = [settings for title, settings in client.run_on_scheduler(look) if title == "AltMinRegressor"]
    assert len(found) == 4 * 2 + 1
    assert all(settings["solver.output_damping"] == "0.01" for settings in found)
    tried = {f"max_sweeps {sweeps}, ridge {ridge}" for ridge in (0.1, 0.5) for sweeps in (1, 2)}
    assert set(differences(found)) == tried
