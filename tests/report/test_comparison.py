"""Runs side by side: what is said of them, and when nothing can be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from reports import RECORDS, make_run, record, result_of, text_of

from altmin_dask.errors import ConfigError, ExistsError, MissingError
from altmin_dask.report.comparison import (
    Row,
    apart,
    differing_settings,
    not_comparable,
    own_names,
    results,
    verdict_of,
    write_comparison,
)
from altmin_dask.report.facts import Facts
from altmin_dask.report.files import breakable
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.ending import STILL_FALLING

FALLS = [record(float(i), validation_loss=3.0 * 0.5**i, cpu_seconds=2.0 * i) for i in range(4)]


def judged(
    path: Path, records: list[dict[str, Any]] = RECORDS, digits: str = "00000001", **settings: Any
) -> RunFolder:
    """A run whose validation samples have a checksum."""
    run = make_run(path, records=records, stores={"train": "t.zarr", "validation": "v.zarr"})
    manifest = run.manifest
    pipeline = manifest.pipeline()
    for key, value in settings.items():
        pipeline["solver"][key] = value
    manifest.write(pipeline, {}, fingerprints={"train": {"x": "00000000"}, "validation": {"x": digits}})
    return run


def with_targets(path: Path, x: str = "00000001", y: str = "00000003") -> RunFolder:
    """A classifier's run whose validation samples and targets have checksums."""
    run = make_run(path, "classifier", stores={"train": "t.zarr", "validation": "v.zarr"})
    prints = {"train": {"x": x, "y": y}, "validation": {"x": x, "y": y}}
    run.manifest.write(run.manifest.pipeline(), {}, fingerprints=prints)
    return run


@pytest.fixture
def pair(tmp_path: Path) -> list[RunFolder]:
    return [judged(tmp_path / "a"), judged(tmp_path / "b", FALLS, ridge=7.5)]


def test_the_page(pair, tmp_path):
    page = write_comparison(pair, tmp_path / "both.html")
    source, text = page.read_text(encoding="utf-8"), text_of(page)
    assert "b has the lowest validation loss, 0.375: 41.3% less than a, the next, with 0.6388." in text
    assert re.search(r"validation loss 0.6388\d* 0.375 ", text)
    assert 'class="best">0.375<' in source
    assert '<th scope="row">solver.<wbr>ridge</th>' in source
    assert re.search(r"Settings that differ a b solver.ridge \S+ 7.5$", text)
    assert source.count("<img") == 2  # over sweeps and over CPU seconds; there are no labels
    assert not re.search(r"https?://|<script", source)
    assert not list(tmp_path.glob("*.png"))
    write_comparison(pair, page)  # one of these is replaced


def test_what_is_the_same_in_all_runs_stands_once(pair, tmp_path):
    rows = [
        Row("validation loss", ("1", "1"), (0, 1)),
        Row("machine", ("a", "b")),
        Row("versions", ("python 3", "python 3")),
    ]
    assert apart(rows) == (rows[:2], [("versions", "python 3")])  # what is measured is compared
    text = text_of(write_comparison(pair, tmp_path / "both.html"))
    network = Facts.of(pair[0]).network
    assert text.count(network) == 1
    assert f"The same in all runs network {network}" in text


def test_names_are_broken_between_words_and_numbers_are_not():
    assert breakable("network.hidden_layer_sizes") == "network.<wbr>hidden_<wbr>layer_<wbr>sizes"
    assert breakable("a/b.csv") == "a/<wbr>b.<wbr>csv"
    assert breakable("0.125, 1e-05 of 2026.8.0") == "0.125, 1e-05 of 2026.8.0"
    assert breakable("<i>.x") == "&lt;i&gt;.<wbr>x"


def test_what_cannot_be_compared(tmp_path):
    one, other = judged(tmp_path / "a"), judged(tmp_path / "b", digits="00000002")
    every = [Facts.of(one), Facts.of(other)]
    (why,) = not_comparable(every)
    assert "not measured on the same validation samples" in why
    assert verdict_of(every, ["a", "b"], [why]) == "Which is best cannot be told from these numbers."
    assert not any(row.best for row in results(every, comparable=False))
    assert differing_settings(every) == []
    alone = make_run(
        tmp_path / "c", "classifier", records=[{**each, "validation_loss": None} for each in RECORDS]
    )
    kinds, samples = not_comparable([every[0], Facts.of(alone)])
    assert "of different kinds" in kinds
    assert "some on those that they were trained on" in samples


def test_other_columns_of_the_same_targets_can_be_compared(tmp_path):
    same = with_targets(tmp_path / "a"), with_targets(tmp_path / "b", x="00000002")
    assert not_comparable([Facts.of(run) for run in same]) == []
    assert not_comparable([Facts.of(same[0]), Facts.of(with_targets(tmp_path / "c", y="00000004"))])


def test_the_best_of_each_number(pair):
    for run, accuracy, error in zip(pair, (0.9, 0.8), (2.0, 1.0), strict=True):
        metrics = {"accuracy": accuracy, "rmse": error, "roc_auc_error": 0.0, "per_class": []}
        kept = {
            "sweep": 3.0,
            "on": "validation",
            "samples": 9,
            "loss": error,
            "unit": "½",
            "metrics": metrics,
        }
        stopped = {"reason": "max_sweeps", "text": "done", "next": "go on"}
        run.write_result({"kept": kept, "stopped": stopped, "resolved": {}})
    rows = {row.label: row for row in results([Facts.of(run) for run in pair], comparable=True)}
    assert (rows["accuracy"].cells, rows["accuracy"].best) == (("90.00%", "80.00%"), (0,))
    assert (rows["RMSE"].cells, rows["RMSE"].best) == (("2", "1"), (1,))
    assert rows["kept sweep"].best == ()
    assert "roc_auc_error" not in rows


def test_a_run_that_was_ended_by_its_limit_is_said_to_be(pair):
    pair[0].write_result(result_of(loss=0.5))
    content = result_of(loss=0.25)
    content["stopped"]["next"] = f"{STILL_FALLING}: go on with --resume and a larger training.max_sweeps."
    pair[1].write_result(content)
    said = verdict_of([Facts.of(run) for run in pair], ["a", "b"], [])
    assert said.endswith(
        "with 0.5. The loss of b was still falling at the limit of its training: with more it may be otherwise."
    )


def test_names_tell_folders_apart():
    assert own_names(["/a/x", "/a/y"]) == ["x", "y"]
    assert own_names(["/a/one/run", "/a/two/run"]) == ["one/run", "two/run"]
    assert own_names(["/run", "/a/run"]) == ["//run", "a/run"]


def test_what_is_refused(altmin, pair, tmp_path):
    with pytest.raises(ConfigError, match="named twice"):
        write_comparison([pair[0], RunFolder(tmp_path / "b" / ".." / "a")], tmp_path / "c.html")
    with pytest.raises(MissingError, match="there is no folder"):
        write_comparison(pair, tmp_path / "gone" / "c.html")
    mine = tmp_path / "mine.html"
    mine.write_text("<html>mine")
    with pytest.raises(ExistsError, match="is not of a report"):
        write_comparison(pair, mine)
    assert mine.read_text() == "<html>mine"
    with pytest.raises(MissingError, match="is not a run folder"):
        write_comparison([pair[0], RunFolder(tmp_path)], tmp_path / "c.html")
    with pytest.raises(ConfigError, match=r"c\.txt is to be an HTML page; give a name that ends in \.html"):
        write_comparison(pair, tmp_path / "c.txt")
    done = altmin("report", pair[0].path, "--to", "c.html")
    assert done.code == 2
    assert "--to is for a page that compares runs" in done.err


@pytest.mark.slow
def test_the_command(altmin, pair):
    done = altmin("report", *(run.path for run in pair))
    assert (done.code, done.out.strip().rpartition("/")[2]) == (0, "comparison.html")
    assert Path("comparison.html").is_file()
