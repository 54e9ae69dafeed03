"""What is said of a run is said of the model that it keeps, to the last digit, whatever is trained, and how it ends."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Altmin, foreign, write_pipeline
from rich.console import Console

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.source import array_source
from altmin_dask.display import Lines
from altmin_dask.errors import FaultError, RunError
from altmin_dask.execution.threads import Threads
from altmin_dask.inference import described, evaluate_store
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.callbacks import Callback, Outcome
from altmin_dask.training.context import RunContext
from altmin_dask.training.ending import Ending, next_step, nothing_improved, sweeps_are_done
from altmin_dask.training.record import Record, read_records
from altmin_dask.training.result import Result, read_result

RNG = np.random.default_rng(8)
ROWS, STEPS = 90, 5
X = RNG.random((ROWS, 3)) @ RNG.random((3, 6)) / 3
SEQUENCES = RNG.normal(size=(ROWS, STEPS, 3))
RUNNING = (np.cumsum(SEQUENCES[:, :, 0], axis=1) > 0).astype(np.int64)
LENGTHS = RNG.integers(1, STEPS + 1, ROWS)

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "autoencoder": ("autoencoder", {"x": X}),
    "two classes": ("classifier", {"x": X, "y": np.where(X[:, 0] > X[:, 0].mean(), 9, 5)}),
    "three classes": ("classifier", {"x": X, "y": np.arange(ROWS) % 3}),
    "regressor": ("regressor", {"x": X, "y": 1000 + X @ RNG.normal(size=(6, 2))}),
    "labels at every step": ("recurrent_classifier", {"x": SEQUENCES, "y": RUNNING, "lengths": LENGTHS}),
    "a target of a sequence": ("recurrent_regressor", {"x": SEQUENCES, "y": SEQUENCES.sum(axis=1)[:, :1]}),
}
SCHEDULES: dict[str, dict[str, Any]] = {
    "kfac": {"training": {"schedule": "kfac", "group_chunks": 2}},
    "windows": {"training": {"schedule": "windows", "first_window": 2, "window_passes": 1}},
    "incremental": {"training": {"schedule": "incremental"}},
    "batch": {"training": {"schedule": "batch"}},
    "L1": {"solver": {"penalty": "l1"}, "training": {"schedule": "incremental"}},
    "multipliers": {"solver": {"penalty": "multipliers"}, "training": {"schedule": "windows"}},
}
STOPS: dict[str, dict[str, Any]] = {
    "no_improvement": {"n_iter_no_change": 1, "tol": 0.99, "max_sweeps": 50.0},
    "max_sweeps": {"max_sweeps": 2.0},
    "max_cpu_seconds": {"max_cpu_seconds": 0.01, "max_sweeps": 1e6, "n_iter_no_change": None},
    "interrupted": {"max_sweeps": 50.0, "n_iter_no_change": None},
    "diverged": {"max_sweeps": 50.0, "n_iter_no_change": None},
}
RAISED: dict[str, BaseException] = {"interrupted": KeyboardInterrupt(), "diverged": RunError("it diverged")}


class Watching(Callback):
    """Raises something at the third record, and keeps how it ended."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.records = error, 0
        self.outcome: Outcome | None = None

    def on_record(self, record: Record) -> None:
        self.records += 1
        if self.error is not None and self.records == 3:
            raise self.error

    def on_end(self, outcome: Outcome) -> None:
        self.outcome = outcome


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Samples of each kind to train on, and every second of them for validation."""
    made: dict[str, tuple[Path, Path]] = {}

    def of(name: str) -> tuple[Path, Path]:
        if name not in made:
            folder, (kind, arrays) = tmp_path_factory.mktemp("stores"), KINDS[name]
            made[name] = folder / "train.zarr", folder / "validation.zarr"
            standardized = {"standardize": True} if kind == "regressor" else {}
            for place, step in zip(made[name], (1, 2), strict=True):
                parts = {key: values[::step] for key, values in arrays.items()}
                source = array_source(parts.pop("x"), parts.pop("y", None), **parts)
                ingest(source, place, chunk_rows=16, dtype="float64", **standardized)
        return made[name]

    return of


def settings(name: str, schedule: str, stop: str, place: tuple[Path, Path], *, judged: bool) -> Pipeline:
    kind, standardized = KINDS[name][0], name == "regressor"
    dtype = "float32" if name in ("three classes", "regressor") else "float64"
    # standardized stores differ in what was taken out
    validation = {"validation": str(place[0 if standardized else 1])} if judged else {}
    tables: dict[str, Any] = {
        "data": {"train": str(place[0]), **validation},
        "network": {"kind": kind, "hidden_layer_sizes": (4,), "dtype": dtype},
        "cluster": {"workers": 1},
        "solver": {},
        "training": {"evaluation_rows": 20},
    }
    for table, values in SCHEDULES[schedule].items():
        tables[table] |= values
    tables["training"] |= STOPS[stop]
    return Pipeline.model_validate(tables)


def trained(pipeline: Pipeline, run: RunFolder, stop: str, **options: Any) -> Watching:
    watching = Watching(RAISED.get(stop))
    with pytest.raises(type(watching.error)) if watching.error is not None else nullcontext():
        runs.train(pipeline, run, [watching], log=lambda line: None, **options)
    return watching


def evaluated(run: RunFolder, store: Path) -> dict[str, Any]:
    """What `altmin evaluate --json` prints."""
    samples = SampleStore.open(store)
    found = evaluate_store(run, samples, Threads(1))
    return described("run", "source", Model.load(run.model), samples, found)


FAST = [
    ("three classes", "kfac", "no_improvement", True),
    ("autoencoder", "windows", "max_sweeps", True),
    ("labels at every step", "incremental", "diverged", False),
]
CHOSEN = [
    *FAST,
    ("two classes", "kfac", "interrupted", False),
    ("regressor", "L1", "max_cpu_seconds", True),
]
CASES = CHOSEN + [
    case
    for number, which in enumerate(product(KINDS, SCHEDULES, STOPS))
    if (case := (*which, number % 2 == 0)) not in CHOSEN
]
ALL = [pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow) for case in CASES]


@pytest.mark.parametrize(("name", "schedule", "stop", "judged"), ALL)
def test_the_result_is_of_the_model_that_is_kept(name, schedule, stop, judged, stores, tmp_path):
    """Loss and metrics are those of `altmin evaluate`, in the file, in what is told, and after a resume, too."""
    place, run = stores(name), RunFolder(tmp_path / "run")
    pipeline = settings(name, schedule, stop, place, judged=judged)
    watching = trained(pipeline, run, stop)
    assert watching.outcome is not None
    result = watching.outcome.result
    assert result is not None
    check(result, run, pipeline)
    assert result.stopped.reason == stop
    file = (run.path / "result.json").read_bytes()
    if stop not in RAISED:  # there is nothing left to do
        again = trained(pipeline, run, stop, resume=True)
        assert again.outcome is not None
        assert again.outcome.result == result
        assert (run.path / "result.json").read_bytes() == file
    longer = pipeline.model_copy(
        update={"training": pipeline.training.model_copy(update={"max_sweeps": 4.0, "max_cpu_seconds": None})}
    )
    further = trained(longer, run, "max_sweeps", resume=True)
    assert further.outcome is not None
    assert further.outcome.result is not None
    check(further.outcome.result, run, longer)


def check(result: Result, run: RunFolder, pipeline: Pipeline) -> None:
    """A result is of the weights in the run folder, and of the best record."""
    records = read_records(run, whole=True)
    judged = pipeline.data.validation is not None
    best = min(
        records,
        key=lambda record: (
            record.regularized_loss if record.validation_loss is None else record.validation_loss
        ),
    )
    store = str(pipeline.data.validation if judged else pipeline.data.train)
    wanted, kept = evaluated(run, Path(store)), result.kept
    assert (kept.loss, kept.metrics, kept.samples) == (wanted["loss"], wanted["metrics"], wanted["samples"])
    assert (kept.unit, kept.sweep) == (wanted["loss_unit"], best.sweep)
    assert kept.on == ("validation" if judged else "training")
    if judged:
        assert best.validation_loss == kept.loss
        assert best.validation_accuracy == kept.metrics.get("accuracy")
        assert best.validation_r2 == kept.metrics.get("r2")
        singles = best.validation_metrics or {}
        numbers = {name: value for name, value in kept.metrics.items() if isinstance(value, float)}
        assert singles == {name: numbers[name] for name in numbers.keys() - {"accuracy", "r2"}} != {}
        assert best.validation_each == each_of(kept.metrics)
    assert read_result(run) == result
    content = json.loads((run.path / "result.json").read_text())
    assert content["kept"]["loss"] == kept.loss
    assert {"reason", "text", "next"} == set(content["stopped"])
    assert content["resolved"] == run.manifest.read()["settings"] != {}
    shown = io.StringIO()
    lines = Lines(Console(file=shown, width=200))
    lines.on_end(Outcome("", tuple(records), result=result))
    first = shown.getvalue().splitlines()[2]
    assert f"sweep {best.sweep:.4g}, measured on" in first
    assert f"{kept.loss:.6g}" in shown.getvalue()
    assert content["stopped"]["next"] in shown.getvalue().replace("\n", " ")


def each_of(metrics: dict[str, Any]) -> dict[str, list[Any]] | None:
    """What a record has of each class, target or feature, of what `altmin evaluate` says of them."""
    if "by_feature" in metrics:
        errors = {name: metrics["by_feature"][name] for name in ("mse", "rmse", "mae")}
        return {"feature": list(range(len(errors["mse"]))), **errors}
    names = ("class", "precision", "recall", "f1", "support")
    each = metrics.get("per_class")
    if each is None:
        names, each = ("output", "r2", "rmse", "mae"), metrics.get("by_output")
    return None if each is None else {name: [one[name] for one in each] for name in names}


def test_no_pass_more_than_is_needed(stores, tmp_path, monkeypatch):
    """The record that chose the model has been one over the same samples, or else one pass at the end is enough."""
    passes: list[int] = []
    evaluate = RunContext.evaluate

    def evaluating(self: RunContext, samples: Any, group: Any, *others: Any) -> Any:
        passes.append(group.rows(samples.store))
        return evaluate(self, samples, group, *others)

    monkeypatch.setattr(RunContext, "evaluate", evaluating)
    for name, judged in (("three classes", True), ("two classes", True), ("three classes", False)):
        run = RunFolder(tmp_path / f"{name} {judged}")
        pipeline = settings(name, "incremental", "max_sweeps", stores(name), judged=judged)
        passes.clear()
        trained(pipeline, run, "max_sweeps")
        records = len(read_records(run))
        assert len(passes) == (2 * records if judged else records + 1)
        assert judged or passes[-1] == ROWS
        passes.clear()
        trained(pipeline, run, "max_sweeps", resume=True)
        assert passes == []


def test_a_result_of_another_model_is_none(stores, tmp_path):
    """A kill may leave it beside a newer model; it goes when training goes on."""
    run = RunFolder(tmp_path / "run")
    pipeline = settings("two classes", "kfac", "max_sweeps", stores("two classes"), judged=True)
    trained(pipeline, run, "max_sweeps")
    assert read_result(run) is not None
    shutil.copytree(run.model, tmp_path / "model")
    model = Model.load(run.model)
    Model(model.kind, model.network, tuple(w / 2 for w in model.weights), model.sample_shape).save(run.model)
    assert read_result(run) is None
    shutil.copytree(tmp_path / "model", run.model, dirs_exist_ok=True)
    assert read_result(run) is not None
    (run.path / "result.json").unlink()
    assert read_result(run) is None  # as of a run of an older version
    trained(pipeline, run, "max_sweeps", resume=True)
    result = read_result(run)
    assert result is not None
    check(result, run, pipeline)


class Noting(Callback):
    """Notes whether there is a result while training goes on."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.found = run, set[bool]()

    def on_record(self, record: Record) -> None:
        self.found.add((self.run.path / "result.json").exists())


def test_there_is_no_result_while_training_goes_on(stores, tmp_path):
    run = RunFolder(tmp_path / "run")
    pipeline = settings("two classes", "incremental", "max_sweeps", stores("two classes"), judged=True)
    trained(pipeline, run, "max_sweeps")
    longer = pipeline.training.model_copy(update={"max_sweeps": 3.0})
    noting = Noting(run)
    runs.train(
        pipeline.model_copy(update={"training": longer}), run, [noting], resume=True, log=lambda line: None
    )
    assert noting.found == {False}


def test_what_fails_is_not_hidden_by_what_comes_after(stores, tmp_path):
    """Nothing is measured with a cluster that is lost; a model whose quality is known is told of."""
    for judged in (True, False):
        run, watching = RunFolder(tmp_path / str(judged)), Watching(FaultError("the cluster is lost"))
        pipeline = settings("two classes", "kfac", "diverged", stores("two classes"), judged=judged)
        with pytest.raises(FaultError, match="the cluster is lost"):
            runs.train(pipeline, run, [watching], log=lambda line: None)
        result = read_result(run)
        assert (result is not None) == judged
        assert result is None or result.stopped == Ending("failed", "the cluster is lost")


def record(sweep: float, loss: float, nested: float) -> Record:
    return Record(sweep=sweep, nested_loss=nested, regularized_loss=nested, validation_loss=loss)


def test_what_to_do_next():
    falling = [record(0, 3, 3), record(1, 2, 2), record(2, 1, 1)]
    assert "larger training.max_sweeps" in next_step(sweeps_are_done(2), falling, 2)
    worse = [record(0, 3, 3), record(1, 1, 2), record(2, 2, 1)]
    for ending in (sweeps_are_done(2), nothing_improved(1)):
        assert "over-fitting" in next_step(ending, worse, 1)
    assert "weight_decay" in next_step(nothing_improved(1), worse, 1)
    assert "weight_decay" not in next_step(nothing_improved(1), worse, 1, decays=False)
    few = [record(0, 3, 3), record(1, 1, 2), record(2, 1.06, 1)]
    assert "over-fitting" in next_step(nothing_improved(1), few, 1, 100)
    assert "over-fitting" not in next_step(nothing_improved(1), few, 1, 6)
    little = [
        record(0, 3, 3),
        record(1, 1, 1),
        record(2, 1.012, 0.996),
    ]  # which 500 rows may do by themselves
    assert "over-fitting" not in next_step(nothing_improved(1), little, 1, 500)
    assert "over-fitting" in next_step(nothing_improved(1), little, 1, 5000)
    still = [
        record(0, 3, 3),
        record(200, 0.01160, 0.0106),
        record(272, 0.01158, 0.0106),
        record(300, 0.01159, 0.0106),
    ]
    assert "Going on would change little" in next_step(sweeps_are_done(300), still, 2)
    late = [*falling, record(93, 0.5, 0.5), record(100, 0.501, 0.6)]
    assert "still falling" in next_step(sweeps_are_done(100), late, 3)
    flat = [record(0, 3, 3), record(1, 1, 1), record(2, 1.001, 1.1)]
    assert "came earlier" in next_step(sweeps_are_done(2), flat, 1)
    assert "not become better than the weights that it began with" in next_step(sweeps_are_done(2), flat, 0)
    assert "evaluate the model" in next_step(nothing_improved(1), flat, 1)
    far = [record(0, 3, 3), record(1, 3.2, 0.1), record(2, 3.21, 0.11), record(3, 3.22, 0.12)]
    for ending in (sweeps_are_done(3), nothing_improved(1)):
        assert "(validation loss 32 times the training loss), which is over-fitting" in next_step(
            ending, far, 1
        )
    assert "--resume" in next_step(Ending("interrupted", ""), falling, 2)
    assert (sweeps_are_done(1).text, sweeps_are_done(2).text) == ("1 sweep is done", "2 sweeps are done")
    assert nothing_improved(1).text == "the loss has not improved in 1 record"


def test_raw_samples_for_validation_are_measured_to_the_last_digit(altmin: Altmin, tmp_path):
    """Chunks of a source are those of the run, and text labels have their names."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(700, 4))
    words = np.array(["no", "[yes]"])[(x[:, 0] + x[:, 1] > 0).astype(int)]
    for name, rows in (("a", slice(400)), ("b", slice(400, 700))):
        lines = [
            ",".join([*map(repr, row.tolist()), word]) for row, word in zip(x[rows], words[rows], strict=True)
        ]
        Path(f"{name}.csv").write_text("\n".join(["p,q,r,s,label", *lines]))
    file = write_pipeline(
        tmp_path / "p.toml",
        "a.csv",
        "classifier",
        data={"validation": "b.csv", "y": "label", "standardize": True, "chunk_rows": 50},
        network={"dtype": "float32"},
    )
    done = altmin("train", file, "--run", "run")
    assert (done.code, done.err) == (0, "")
    found = json.loads(altmin("evaluate", "run", "b.csv", "--json").out)
    kept = json.loads(Path("run/result.json").read_text())["kept"]
    assert (found["loss"], found["metrics"]) == (kept["loss"], kept["metrics"])
    assert [each["class"] for each in found["metrics"]["per_class"]] == ["[yes]", "no"] == found["classes"]
    assert 0 < found["metrics"]["roc_auc"] <= 1
    best = next(each for each in read_records(RunFolder(Path("run"))) if each.validation_loss == kept["loss"])
    assert best.validation_metrics is not None
    assert (
        best.validation_metrics["roc_auc"] == found["metrics"]["roc_auc"]
    )  # of more chunks than one task adds up
    assert best.validation_each == each_of(found["metrics"])
    plain = altmin("evaluate", "run", "b.csv").out
    for word in ("[yes]", "cross-entropy in nats", "ROC AUC", "balanced accuracy", "precision", "Confusion"):
        assert word in plain


def test_own_units_of_regressors_and_autoencoders(altmin: Altmin, tmp_path):
    """Errors are told in the units of the raw data, by the names of columns; the loss says what it is of."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 3)) * [1, 10, 100]
    y = 500 + x @ rng.normal(size=(3, 2))
    lines = [",".join(map(repr, row)) for row in np.hstack([x, y]).tolist()]
    Path("t.csv").write_text("\n".join(["p,q,r,one,two", *lines]))
    for kind, targets in (("regressor", {"y": "one,two"}), ("autoencoder", {"x": "p,q,r"})):
        data = {**targets, "standardize": True}
        output = {"output_activation": "identity"}
        file = write_pipeline(tmp_path / f"{kind}.toml", "t.csv", kind, data=data, network=output)
        assert altmin("train", file, "--run", kind).code == 0
        found = json.loads(altmin("evaluate", kind, "t.csv", "--json").out)
        prediction = Model.load(Path(kind) / "model").predict(x)
        own = y if kind == "regressor" else x
        squares = np.square(prediction - own).mean(axis=0)
        if kind == "regressor":
            mine = {each["output"]: each["rmse"] for each in found["metrics"]["by_output"]}
            assert mine == pytest.approx(dict(zip(("one", "two"), np.sqrt(squares).tolist(), strict=True)))
            assert found["loss_unit"] == "½ Σ (output − target)², targets standardized"
            assert "R²" in altmin("evaluate", kind, "t.csv").out
        else:
            by_feature = found["metrics"]["by_feature"]
            assert by_feature["names"] == ["p", "q", "r"]
            assert by_feature["mse"] == pytest.approx(squares.tolist())
            assert "Features" in altmin("evaluate", kind, "t.csv").out


def test_weights_of_samples_in_every_metric(altmin: Altmin, tmp_path):
    """Whatever their mean is: a weight of 2 is the sample twice."""
    x, y = X, (X[:, 0] > X[:, 0].mean()).astype(int)
    times = RNG.integers(0, 3, ROWS)
    times[0] = 7
    run = RunFolder(tmp_path / "run")
    file = write_pipeline(tmp_path / "p.toml", foreign(tmp_path / "t.zarr", x, y), "classifier")
    assert altmin("train", file, "--run", run.path).code == 0
    again = np.repeat(np.arange(ROWS), times)
    np.savez(tmp_path / "w.npz", x=x, y=y, sample_weight=times.astype(float))
    np.savez(tmp_path / "r.npz", x=x[again], y=y[again])
    for name in "wr":
        assert altmin("ingest", f"{name}.npz", f"{name}.zarr", "--dtype", "float64").code == 0
    weighted, repeated = (evaluated(run, tmp_path / name)["metrics"] for name in ("w.zarr", "r.zarr"))
    assert weighted.pop("per_class") == [pytest.approx(each) for each in repeated.pop("per_class")]
    assert weighted.pop("confusion_matrix") == repeated.pop("confusion_matrix")
    assert weighted == pytest.approx(repeated)


def test_a_run_that_is_done_stays_as_it_ended(samples, make_store, pipeline, tmp_path):
    """Whoever resumes it with a limit that it was past long ago changes nothing."""
    store = make_store(samples)

    def run(sweeps: float, **more: Any) -> RunFolder:
        training = {"schedule": "kfac", "max_sweeps": sweeps}
        settings = pipeline(store.path, training=training, solver={"mu": "auto"})
        runs.train(settings, RunFolder(tmp_path / "run"), log=lambda line: None, **more)
        return RunFolder(tmp_path / "run")

    def ended(run: RunFolder) -> str:
        return str(json.loads((run.path / "result.json").read_text())["stopped"]["text"])

    done = run(3.0)
    before = {name: (done.path / name).read_bytes() for name in ("result.json", "history.jsonl")}
    assert ended(done) == "3 sweeps are done"
    again = run(1.0, resume=True)
    assert before == {name: (again.path / name).read_bytes() for name in before}
    assert ended(run(4.0, resume=True)) == "4 sweeps are done"
