"""What a message tells to type works as it is printed; what was meant is said where something else was written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, files_below, foreign, refused, write_pipeline

from altmin_dask import load_pipeline, open_source
from altmin_dask.errors import AltMinError
from altmin_dask.hints import resuming
from altmin_dask.report.writer import ReportWriter
from altmin_dask.storage.run import RunFolder

# --- commands to type


class Interrupting(ReportWriter):
    """Presses Ctrl-C at the second record."""

    records = 0

    def on_record(self, record):
        self.records += 1
        if self.records == 2:
            raise KeyboardInterrupt


def typed(altmin, command):
    program, *words = shlex.split(command)
    assert program == "altmin"
    return altmin(*words)


def test_a_run_goes_on_by_what_its_interruption_says(altmin, tmp_path, monkeypatch):
    """Settings that replaced others are repeated, and all of it is quoted."""
    (tmp_path / "my files").mkdir()
    np.savez(tmp_path / "my files" / "a.npz", x=X)
    file = write_pipeline(tmp_path / "it's  mine.toml", "my files/a.npz", output={"report": True})
    with monkeypatch.context() as patch:
        patch.setattr("altmin_dask.report.writer.ReportWriter", Interrupting)
        done = altmin(
            *("train", file.name, "--run", "my  run", "--set", "network.hidden_layer_sizes=[4, 3]"),
            *("solver.mu=0.2", 'output.title="a $title"', "output.report=true"),
        )
    refused(done, "interrupted; go on by `altmin train ", 1)
    hint = re.search("`(.*)`", done.err)[1]
    before = len(RunFolder(Path("my  run")).records())
    again = typed(altmin, hint + " output.report=false")
    assert (again.code, again.err) == (0, "")
    records = RunFolder(Path("my  run")).records()
    assert [record["sweep"] for record in records] == [0, 1, 2]
    assert before < 3
    assert "6-4-3-6 autoencoder" in again.out


def test_a_fault_says_the_whole_command(altmin, trained, tmp_path, monkeypatch):
    def full(self, record):
        raise OSError(28, "No space left on device", "x")

    file = trained / "autoencoder.toml"
    with monkeypatch.context() as patch:
        patch.setattr("altmin_dask.display.Lines.on_record", full)
        done = altmin("train", file, "--run", "run", "solver.ridge=0.5")
    refused(done, "make room on the disk; what was committed is kept: go on by `altmin train ", 1)
    again = typed(altmin, re.search("`(.*)`", done.err)[1])
    assert (again.code, again.err) == (0, "")


def test_a_run_whose_loss_still_falls_says_how_to_go_on(altmin, tmp_path):
    """Overrides are repeated, and the limit is another one: by default, too."""
    foreign(tmp_path / "s.zarr", X, LABELS)
    write_pipeline(
        tmp_path / "p.toml", "s.zarr", "classifier", training={"schedule": "kfac", "max_sweeps": 2}
    )
    done = altmin("train", "p.toml", "--run", "run", "solver.ridge=0.5", "training.max_sweeps=3")
    hint = re.search("next: (altmin train .*)", done.out)[1]
    assert hint == "altmin train p.toml --run run --resume --set solver.ridge=0.5 --set training.max_sweeps=6"
    assert "a larger training.max_sweeps and every other --set as before" in " ".join(
        re.sub("[│\\s]+", " ", done.out).split()
    )
    again = typed(altmin, hint)
    assert (again.code, again.err) == (0, "")
    assert RunFolder(Path("run")).records()[-1]["sweep"] == 6


def test_the_scheduler_is_repeated():
    words = resuming(Path("-p.toml"), RunFolder(Path("run")), ["a.b=1"], "tcp://h:1", None)
    assert words == "altmin train ./-p.toml --run run --resume --scheduler tcp://h:1 --set a.b=1"
    words = resuming(Path("p.toml"), RunFolder(Path("run")), (), None, "s f.json")
    assert words == "altmin train p.toml --run run --resume --scheduler-file 's f.json'"


@pytest.mark.parametrize(
    ("data", "samples"),
    [
        ({"train": "d.csv", "validation": 0.25}, "NEW_SAMPLES"),
        ({"train": "d.csv", "x": "a,b", "y": "y"}, "NEW_SAMPLES"),
        ({"train": "d.csv", "x": "a,b", "y": "y", "validation": "d.csv"}, "run/data/validation.zarr"),
        ({"train": "d.csv", "validation": "d.csv"}, "d.csv"),
    ],
)
def test_what_to_type_after_a_run(data, samples, altmin, tmp_path):
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(y=LABELS)
    frame.to_csv(tmp_path / "d.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "", "classifier", data=data, training={"max_sweeps": 1})
    done = altmin("train", "p.toml", "--run", "run")
    assert (done.code, done.err) == (0, "")
    *_, evaluate, report, dashboard = done.out.splitlines()
    assert evaluate.removeprefix("next:").strip() == f"altmin evaluate run {samples}"
    assert report.strip() == "altmin report run"
    assert dashboard.strip() == "altmin dashboard run"
    command = evaluate.removeprefix("next:").strip().replace("NEW_SAMPLES", "d.csv")
    assert typed(altmin, command).code == 0


# --- something else than was meant

MISTAKES = {
    "evaluate swapped": (["evaluate", "s.zarr", "{run}"], "write `altmin evaluate {run} s.zarr`"),
    "evaluate swapped with a csv": (["evaluate", "d.csv", "{run}"], "write `altmin evaluate {run} d.csv`"),
    "evaluate two runs": (["evaluate", "{run}", "{run}"], "is a run folder and holds no samples"),
    "evaluate a pipeline": (
        ["evaluate", "p.toml", "s.zarr"],
        "p.toml is a TOML file: it is not a run folder",
    ),
    "evaluate a store": (["evaluate", "s.zarr", "s.zarr"], "s.zarr is a zarr store: it is not a run folder"),
    "evaluate nothing": (["evaluate", "empty", "s.zarr"], "empty is an empty folder: it is not a run folder"),
    "predict swapped": (["predict", "s.zarr", "{run}", "p.csv"], "write `altmin predict {run} s.zarr p.csv`"),
    "predict to other samples": (
        ["predict", "{run}", "out.csv", "d.csv"],
        "write `altmin predict {run} d.csv out.csv`",
    ),
    "init a file first": (
        ["init", "mine.toml", "classifier"],
        "write altmin init classifier mine.toml: the kind",
    ),
    "init samples first": (
        ["init", "d.csv", "classifier"],
        "write altmin init classifier --data d.csv: the kind",
    ),
    "train a setting first": (
        ["train", "training.max_sweeps=3", "p.toml", "--run", "new", "--set", "solver.mu=1"],
        "write `altmin train p.toml training.max_sweeps=3 --set solver.mu=1 --run new`",
    ),
    "plan a setting": (
        ["plan", "training.max_sweeps=3"],
        "write `altmin plan PIPELINE.toml training.max_sweeps=3`",
    ),
    "missing for training": (
        ["train", "p.toml", "data.train=nan.csv"],
        "fill them in, by data.missing=mean (median, constant) or in the table, or leave the column out by data.drop",
    ),
    "semicolons for training": (["train", "p.toml", "data.train=semi.csv"], "or say so by 'data.csv.sep=;'"),
    "evaluate without targets": (
        ["evaluate", "{run}", "noy.csv"],
        "noy.csv has no targets y; name them by --y NAME",
    ),
    "predict to the samples": (
        ["predict", "{run}", "p.csv", "d.csv"],
        "write `altmin predict {run} d.csv p.csv`",
    ),
    "export swapped": (["export", "m.onnx", "{run}"], "write `altmin export {run} m.onnx`"),
    "ingest a URL": (
        ["ingest", "memory://nothing/iris.zarr", "s.zarr", "--overwrite"],
        "there is no zarr store at memory://nothing/iris.zarr",
    ),
    "ingest a file at a URL": (
        ["ingest", "s3://b/iris.csv", "n.zarr"],
        "only zarr stores are read from URLs",
    ),
    "go on without a setting": (
        ["train", "{run}.toml", "--resume", "--run", "{run}", "network.hidden_layer_sizes=[7]"],
        "repeat `--set 'network.hidden_layer_sizes=[5]'` to go on with it, or give another --run",
    ),
    "ingest swapped": (["ingest", "new.zarr", "d.csv"], "write `altmin ingest d.csv new.zarr`"),
    "ingest swapped onto a store": (["ingest", "s.zarr", "d.csv"], "write `altmin ingest d.csv s.zarr`"),
    "ingest with a slip over a store": (
        ["ingest", "nna.csv", "s.zarr", "--overwrite"],
        "nna.csv; did you mean nan.csv?",
    ),
    "predict with a slip over a file": (
        ["predict", "{run}", "noi.csv", "d.csv", "--overwrite"],
        "noi.csv; did you mean noy.csv?",
    ),
    "ingest nothing": (["ingest", "empty", "n.zarr"], "empty is an empty folder and holds no samples"),
    "ingest a folder of something": (
        ["ingest", "sub", "n.zarr"],
        "sub is a folder with deep/ in it, not a kind of",
    ),
    "ingest a run": (["ingest", "{run}", "n.zarr"], "is a run folder and holds no samples"),
    "ingest with a slip": (["ingest", "d.cvs", "n.zarr"], "did you mean d.csv?"),
    "ingest digit": (["ingest", "digit", "n.zarr"], "did you mean digits?"),
    "ingest no part": (["ingest", "digits:tset", "n.zarr"], "write digits:train or digits:test"),
    "train a run": (
        ["train", "{run}"],
        "is a run folder, not a pipeline; to go on with the run, name the TOML",
    ),
    "train a store": (["train", "s.zarr"], 'name a TOML file that has train = "s.zarr" under [data]'),
    "train a csv": (["train", "d.csv"], "d.csv is a file of samples, not a pipeline"),
    "train nothing": (["train", "empty"], "empty is an empty folder, not a pipeline; name a TOML file"),
    "train with a slip": (["train", "q.toml"], "there is no file or folder q.toml"),
    "train into a word": (["train", "p.toml", "{run}"], "the folder of a run is named by --run"),
    "train on nothing": (
        ["train", "p.toml", "data.train=empty"],
        "empty is an empty folder and holds no samples",
    ),
    "plan a run": (["plan", "{run}"], "is a run folder, not a pipeline"),
    "go on with nothing": (
        ["train", "p.toml", "--resume", "--run", "new"],
        "leave --resume out to begin one",
    ),
    "report a store": (["report", "s.zarr"], "s.zarr is a zarr store: it is not a run folder"),
    "no targets": (
        ["train", "p.toml", "data.train=noy.csv"],
        "name them by data.y, or ingest it with --y NAME",
    ),
    "dashboard of nothing": (["dashboard", "empty"], "empty is an empty folder: it is not a run folder"),
    "one-hot": (["train", "p.toml", "data.train=hot.npz"], "(y.argmax(axis=1))"),
    "one-hot of integers": (["ingest", "hots.npz", "n.zarr"], "y.argmax(axis=1)"),
    "missing": (
        ["ingest", "nan.csv", "n.zarr"],
        "in the column 'b', in 2 rows (lines 3 and 6), and in 'c'; fill them in",
    ),
    "missing targets": (["train", "p.toml", "data.train=nan.csv", "data.y=c"], "(line 4)"),
    "infinite": (
        ["ingest", "inf.csv", "n.zarr"],
        "inf.csv has numbers up to 1e+39 in x, in the column 'd' (line 5), which float32 does not hold; repair",
    ),
    "missing to evaluate": (["evaluate", "{run}", "nan.csv"], "in 2 rows (lines 3 and 6)"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, trained):
    """A folder with what newcomers have."""
    home = tmp_path_factory.mktemp("place")
    for name in ("empty", "sub/deep"):
        (home / name).mkdir(parents=True)
    foreign(home / "s.zarr", X, LABELS)
    frame = pd.DataFrame(X.round(3), columns=list("abcdef")).assign(y=LABELS)
    frame.to_csv(home / "d.csv", index=False)
    frame.assign(d=np.where(np.arange(60) == 3, 1e39, 0)).to_csv(home / "inf.csv", index=False)
    frame.drop(columns="y").to_csv(home / "noy.csv", index=False)
    frame.loc[[1, 4], "b"] = np.nan
    frame.loc[2, "c"] = np.nan
    frame.to_csv(home / "nan.csv", index=False)
    frame.to_csv(home / "semi.csv", index=False, sep=";")
    frame.to_csv(home / "multi.csv", index=False)  # which out.csv is like, but no slip of
    np.savez(home / "hot.npz", x=X, y=np.eye(3)[LABELS])
    np.savez(home / "hots.npz", x=X, y=np.eye(3, dtype=int)[LABELS])
    write_pipeline(home / "p.toml", "s.zarr", "classifier")
    return home


@pytest.mark.parametrize("case", MISTAKES)
def test_what_was_meant(case, altmin, place, trained, monkeypatch):
    monkeypatch.chdir(place)
    before = files_below(place)
    words, sentence = MISTAKES[case]
    run = str(trained / "classifier")
    refused(altmin(*(word.format(run=run) for word in words)), sentence.format(run=run))
    assert files_below(place) == before


@pytest.mark.parametrize("what", ["run", "empty", "d.csv", "gone"])
def test_the_same_from_python(what, place, trained, monkeypatch):
    monkeypatch.chdir(place)
    path = str(trained / "classifier") if what == "run" else what
    with pytest.raises(AltMinError, match=r"run folder|empty folder|file of samples|no file or folder"):
        load_pipeline(path)
    if what != "d.csv":
        with pytest.raises(AltMinError, match=r"run folder|empty folder|no file or folder"):
            open_source(path)


def test_no_message_names_a_folder_that_is_gone(altmin, trained, place, monkeypatch):
    """What is made of a source on the way is called by the source."""
    monkeypatch.chdir(place)
    for name, x in (("narrow", X[:, :3]), ("x", X)):
        np.savez(place / f"{name}.npz", x=x, y=LABELS)
    done = altmin("evaluate", trained / "classifier", "narrow.npz")
    refused(done, "altmin: narrow.npz has samples of 3 values; the network reads 6")
    done = altmin("train", "p.toml", "data.train=x.npz", "data.validation=narrow.npz", "--run", "new")
    refused(done, "altmin: narrow.npz has samples of 3 values; the network reads 6")


def test_lines_of_a_csv_are_those_of_an_editor(altmin, tmp_path):
    """Empty lines, comments, and text that has lines of its own count."""
    (tmp_path / "l.csv").write_text(
        '# made by hand\na,b,y\n1,2,u\n\n3,,v\n"x\ny",4,u\n5,,v\n6,,u\n7,,u\n8,,u\n'
    )
    refused(
        altmin("ingest", "l.csv", "l.zarr", "--csv", "comment=#"), "in 5 rows (lines 5, 8 and 9, and more)"
    )
    (tmp_path / "two").mkdir()
    for name in "ab":
        (tmp_path / "two" / f"{name}.csv").write_text("a;b\n1;2\n3;\n")
    refused(
        altmin("ingest", "two", "l.zarr", "--csv", "sep=;"),
        "(line 3 of two/a.csv; line 3 of two/b.csv)",
    )
    pd.DataFrame({"a": [1.0, np.nan]}).to_parquet(tmp_path / "p.parquet")
    refused(altmin("ingest", "p.parquet", "l.zarr"), "in 1 row (row 1, counted from 0)")


def test_one_is_no_plural(altmin, tmp_path):
    np.savez(tmp_path / "a.npz", x=X)
    assert ", 1 chunk of 60 rows" in altmin("ingest", "a.npz", "a.zarr").out
    write_pipeline(tmp_path / "p.toml", "a.npz", training={"max_sweeps": 1})
    assert "60 samples in 1 chunk of 60, " in altmin("train", "p.toml").out


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("syntetic:rows=9,features=2", "synthetic:rows=9,features=2"),
        ("ading:rows=3:train", "adding:rows=3:train"),
        ("digit:train", "digits"),
    ],
)
def test_a_misspelt_word_for_samples(written, meant, altmin):
    refused(altmin("ingest", written, "s.zarr"), f"; did you mean {meant}?")


def test_what_cannot_be_resumed_says_how_to_name_it(altmin, tmp_path):
    write_pipeline(tmp_path / "p.toml", "digits:train")
    refused(altmin("train", "p.toml", "--resume"), "name its folder by --run DIR, or leave --resume out")


def test_endings_of_exported_files(altmin, trained):
    refused(altmin("export", trained / "classifier", "m.pth"), "FILE.pt2 (or FILE.pt, which is the same")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.epochs=3", "did you mean training.max_sweeps?"),
        ("network.alpha=3", "did you mean solver.ridge?"),
        ("epochs=3", "did you mean training.max_sweeps?"),
        (
            "training.lr=0.1",
            "there is no learning rate: the length of a step follows from a model of the loss",
        ),
        ("solver.learning_rate_init=0.1", "there is no learning rate"),
    ],
)
def test_settings_by_what_other_libraries_call_them(word, message, altmin, tmp_path):
    write_pipeline(tmp_path / "p.toml", "digits:train")
    refused(altmin("plan", "p.toml", "--set", word), message)


def test_settings_are_found_by_other_names():
    from altmin_dask.config.catalogue import catalogue
    from altmin_dask.config.messages import ELSEWHERE

    assert set(ELSEWHERE.values()) <= set(catalogue())
    assert not set(ELSEWHERE) & {setting.name for setting in catalogue().values()}


def test_a_run_that_is_elsewhere(altmin, trained, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(trained / "classifier")
    Path("mine.toml").write_text("")
    refused(altmin("predict", "mine", "digits", "p.csv"), "did you mean the run folder runs/mine?")


def test_predictions_that_no_file_is_written_for(altmin, trained):
    message = "give a name that ends in .csv, .parquet, .pq, .npy, or in .zarr for a store"
    refused(altmin("predict", trained / "classifier", trained / "samples.zarr", "p.xlsx"), message)


def test_damaged_files_of_a_run_are_made_again_as_is_said(altmin, tmp_path):
    """Its own samples, and the last state: with the same weights in the end as without the damage."""
    np.savez("t.npz", x=X, y=LABELS)
    write_pipeline(
        tmp_path / "p.toml", "t.npz", "classifier", data={"chunk_rows": 20}, training={"schedule": "kfac"}
    )
    for run in ("whole", "broken"):
        assert altmin("train", "p.toml", "--run", run, "--set", "training.max_sweeps=3").code == 0
    resume = ("train", "p.toml", "--resume", "--set", "training.max_sweeps=5", "--run")
    assert altmin(*resume, "whole").code == 0

    (tmp_path / "broken/data/train.zarr/x/c/1/0").unlink()
    refused(altmin(*resume, "broken"), "is missing; remove broken/data: --resume makes its samples again")
    shutil.rmtree(tmp_path / "broken" / "data")
    *_, last = sorted((tmp_path / "broken" / "state").iterdir())
    last.write_bytes(last.read_bytes()[:100])
    refused(altmin(*resume, "broken"), "; remove it, and --resume goes on from the one before, 0")
    last.unlink()
    assert altmin(*resume, "broken").code == 0
    weights = [(tmp_path / run / "model" / "weights.safetensors").read_bytes() for run in ("whole", "broken")]
    assert weights[0] == weights[1]


@pytest.mark.filterwarnings("always::altmin_dask.errors.AltMinWarning")
def test_a_run_that_is_not_at_its_end_is_told_of(altmin, trained, tmp_path):
    """Whoever exports or evaluates it may not know that it was killed, or still goes on."""
    run, said = tmp_path / "run", "run has not come to its end: its model is the best one so far"
    shutil.copytree(trained / "autoencoder", run)
    words = ("evaluate", run, trained / "samples.zarr"), ("export", run, "w.safetensors", "--overwrite")
    assert [altmin(*each).err for each in words] == ["", ""]
    RunFolder(run).remove_result()
    for each in words:
        done = altmin(*each)
        assert done.code == 0
        assert said in done.err


def test_a_run_folder_is_no_samples_and_samples_without_targets_are_called_so(altmin, trained, tmp_path):
    run = trained / "classifier"
    refused(altmin("evaluate", run, trained / "autoencoder"), "is a run folder and holds no samples")
    foreign(tmp_path / "plain.zarr", X)
    refused(altmin("evaluate", run, "plain.zarr"), "has no targets y")


def test_a_limit_that_is_behind_is_not_what_is_done(altmin, tmp_path):
    np.savez("t.npz", x=X)
    write_pipeline(tmp_path / "p.toml", "t.npz")
    assert altmin("train", "p.toml", "--run", "run", "--set", "training.max_sweeps=4").code == 0
    RunFolder(Path("run")).remove_result()  # as of a run that was killed
    done = altmin("train", "p.toml", "--run", "run", "--resume", "--set", "training.max_sweeps=2")
    assert (done.code, done.err) == (0, "")
    assert "4 sweeps are done" in done.out
