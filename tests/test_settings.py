"""Every setting is documented, has the default that is told, and comes to what a run records where it is left open."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from command import LABELS, X, foreign, refused, write_pipeline

import altmin_dask
from altmin_dask.config import KINDS, Pipeline, load_pipeline, make_pipeline
from altmin_dask.config.catalogue import Setting, catalogue, changed, find, tables
from altmin_dask.config.pipeline import RIDGE_OF_Z
from altmin_dask.config.settings_page import page
from altmin_dask.config.uses import (
    CHOICES,
    DIFFERENCES,
    KINDS_WITH,
    LEFT_OUT,
    PARAMETERS,
    SCHEDULES,
    USES,
    estimator_of,
)
from altmin_dask.errors import ConfigError
from altmin_dask.solvers.schedules import KEEP_Z
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.build_network import DatasetSpec, make_network
from altmin_dask.training.record import read_records

ROOT = Path(__file__).parents[1]
every_setting = pytest.mark.parametrize("setting", catalogue().values(), ids=lambda setting: setting.key)


def field_of(setting: Setting) -> Any:
    return Pipeline.model_fields[setting.table].annotation.model_fields[setting.name]


# --- each is documented


@every_setting
def test_each_is_documented_with_the_default_that_it_has(setting):
    field, told = field_of(setting), setting.to_dict()
    assert len(setting.meaning) > 20
    assert setting.meaning[-1] in ".…"
    assert setting.allowed
    assert field.is_required() == setting.required == (setting.default_text == "it has to be given")
    if not setting.required:
        plain = json.loads(json.dumps(field.get_default(call_default_factory=True)))
        assert told["default"] == plain
        assert setting.default is None or make_pipeline(with_value(setting)) == make_pipeline(plainest())
    assert json.loads(json.dumps(told)) == told


def plainest() -> dict[str, Any]:
    return {"data": {"train": "somewhere"}, "network": {"kind": "recurrent_classifier"}}


def with_value(setting: Setting) -> dict[str, Any]:
    """A pipeline that says what is the default."""
    pipeline = plainest()
    pipeline.setdefault(setting.table, {})[setting.name] = setting.default
    return pipeline


def test_all_settings_are_there():
    fields = {
        f"{table}.{name}"
        for table, field in Pipeline.model_fields.items()
        for name in field.annotation.model_fields
    }
    assert set(catalogue()) == fields
    for declared in (USES, LEFT_OUT, DIFFERENCES, PARAMETERS.values()):
        assert set(declared) <= fields
    for uses in USES.values():
        assert set(uses.kinds or ()) <= set(KINDS)
        assert set(uses.schedules or ()) <= set(SCHEDULES)
    for key in LEFT_OUT:
        assert catalogue()[key].default is None, key


def test_the_page_of_the_documentation_is_what_is_generated(altmin):
    done = altmin("settings", "--markdown")
    assert (done.code, done.out) == (0, page())
    stored = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert stored == page(), "altmin settings --markdown > docs/settings.md"


# --- the command


def test_the_command_tells_all_of_them(altmin, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = altmin("settings")
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert all(line == line.rstrip() for line in done.out.splitlines())
    text = " ".join(done.out.split())
    for setting in catalogue().values():
        for part in (setting.key, setting.default_text, setting.allowed, setting.used_by, setting.meaning):
            assert " ".join(part.replace("`", "").split()) in text, (setting.key, part)
    told = json.loads(altmin("settings", "--json").out)
    assert told == {key: setting.to_dict() for key, setting in catalogue().items()}


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("solver.ridge", ["solver.ridge"]),
        ("ridge", ["solver.ridge"]),
        ("kind", ["network.kind", "cluster.kind"]),
        ("[output]", [f"output.{name}" for name in ("run", "z", "report", "performance", "title")]),
    ],
)
def test_one_or_a_table_is_found(word, keys, altmin):
    assert list(json.loads(altmin("settings", word, "--json").out)) == keys
    assert [setting.key for setting in find(word)] == keys


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rigde"], "rigde is neither a setting nor a table; did you mean solver.ridge?"),
        (["solver.rigde"], "did you mean solver.ridge?"),
        (["slover"], "did you mean solver?"),
        (["zzz"], f"zzz is neither a setting nor a table; the tables are {', '.join(tables())}"),
        (["ridge", "--markdown"], "--markdown prints the whole page; give it alone"),
    ],
)
def test_what_is_no_setting_is_told(words, message, altmin):
    refused(altmin("settings", *words), message)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("altmin settings solver.r", ["solver.residual_tol", "solver.ridge"]),
        ("altmin settings tr", ["training", *(key for key in catalogue() if key.startswith("training."))]),
        ("altmin train p.toml --set solver.ri", ["solver.ridge="]),
        ("altmin init recurrent_c", ["recurrent_classifier"]),
        ("altmin se", ["settings"]),
    ],
)
def test_a_shell_completes_them(words, completed, altmin, monkeypatch):
    monkeypatch.setenv("_ALTMIN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert altmin().out.split() == completed


# --- the same from Python


@pytest.mark.parametrize("name", [name for name in altmin_dask.__all__ if name.startswith("AltMin")])
def test_estimators_have_the_same_defaults_or_it_is_said_why_not(name):
    kind = getattr(altmin_dask, name)
    for parameter, declared in inspect.signature(kind).parameters.items():
        if parameter not in PARAMETERS:
            continue
        setting = catalogue()[PARAMETERS[parameter]]
        others = [each for each in setting.differences if kind._kind in each.kinds]
        if others:
            assert (declared.default, True) == (others[0].value, bool(others[0].reason)), parameter
        else:
            assert json.loads(json.dumps(declared.default)) == setting.default, parameter


@every_setting
def test_estimators_have_the_parameters_that_are_told(setting):
    """Of each kind the parameter is there, or it is said that it is not."""
    kinds = {kind: getattr(altmin_dask, estimator_of(kind)) for kind in KINDS}
    assert {estimator._kind: estimator for estimator in kinds.values()} == kinds
    having = [kind for kind, each in kinds.items() if setting.parameter in inspect.signature(each).parameters]
    assert list(setting.parameter_kinds) == having
    told = setting.in_python.partition(";")[0]
    if set(setting.kinds) <= set(having):
        assert not any(each.__name__ in told for each in kinds.values())
    elif setting.parameter is not None:
        of = told.partition(", by default")[0].replace(",", "").split()
        assert [word for word in of if word.startswith("AltMin")] == [kinds[kind].__name__ for kind in having]
    assert set(KINDS_WITH) <= set(PARAMETERS)


SAMPLES = {
    "inputs": DatasetSpec("samples", 60, (6,), None, False, None),
    "labels": DatasetSpec("samples", 60, (6,), (), True, 2.0),
    "real": DatasetSpec("samples", 60, (6,), (2,), False, 1.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", CHOICES)
def test_a_kind_takes_the_words_that_are_told_of_it(key, kind):
    """Every word that any kind takes is tried with each."""
    setting = catalogue()[key]
    words = {word for of_kind in setting.choices.values() for word in of_kind}
    name = key.partition(".")[2]
    taken = set()
    for word in words:
        network = {"kind": kind, "hidden_layer_sizes": [3]} | ({"steps": 3} if KINDS[kind].recurrent else {})
        tables = {"data": {"train": "somewhere"}, "network": {**network, name: word}}
        try:
            pipeline = make_pipeline(tables)
            make_network(pipeline.network, SAMPLES[pipeline.network.target])
            taken.add(word)
        except ConfigError:
            continue
    assert taken == set(setting.choices[kind])
    for word in setting.choices[kind]:
        assert f'"{word}"' in setting.allowed


@pytest.mark.parametrize("key", DIFFERENCES)
def test_no_difference_is_told_that_is_none(key):
    kinds = {
        getattr(altmin_dask, name)._kind: getattr(altmin_dask, name)
        for name in altmin_dask.__all__
        if name.startswith("AltMin")
    }
    for each in DIFFERENCES[key]:
        for kind in each.kinds:
            parameter = inspect.signature(kinds[kind]).parameters[catalogue()[key].parameter]
            assert parameter.default == each.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_ridge_is_that_of_the_kind(kind, schedule):
    tables = {"data": {"train": "somewhere"}, "network": {"kind": kind}, "training": {"schedule": schedule}}
    expected = RIDGE_OF_Z if schedule in KEEP_Z else KINDS[kind].ridge
    pipeline = make_pipeline(tables)
    assert pipeline.ridge == pipeline.identity()["solver"]["ridge"] == expected
    assert make_pipeline({**tables, "solver": {"ridge": 2.0}}).ridge == 2.0
    assert f"{KINDS[kind].ridge:g} for" in catalogue()["solver.ridge"].meaning


# --- each that is left open comes to what the run records


SEQUENCES = np.random.default_rng(5).random((60, 3, 2))
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "classifier": {"training": {"schedule": "auto", "n_iter_no_change": 2}},
    "autoencoder": {"solver": {"penalty": "l1"}, "training": {"schedule": "windows", "max_sweeps": 1}},
    "recurrent_regressor": {
        "network": {"hidden_layer_sizes": [3]},
        "training": {"schedule": "auto", "n_iter_no_change": 2},
    },
}


def test_what_is_left_open_comes_to_what_the_run_records(altmin, tmp_path):
    seen: set[str] = set()
    for kind in RUNS:
        file = pipeline_file(tmp_path, kind)
        planned = json.loads(altmin("plan", file, "--json").out)
        done = altmin("train", file, "--run", kind)
        assert (done.code, done.err) == (0, "")
        kept = json.loads((tmp_path / kind / "pipeline.json").read_text())
        told = kept["settings"]
        assert next(iter(kept)) == "changed"
        assert kept["changed"] == planned["changed"]
        assert told["network.standardize"] == "none"  # which takes a look at the samples, and no plan does
        assert {**planned["settings"], "network.standardize": "none"} == told
        assert planned["changed"] == changed(load_pipeline(file).model_dump(mode="json"))
        for key in told:  # each is a setting, is open, and comes to a value
            table, name = key.split(".")
            assert catalogue()[key].resolves, key
            assert told[key] not in (None, "auto"), key
            assert kept["pipeline"][table][name] in (None, "auto"), key
        for key, setting in catalogue().items():  # and is what training goes by
            if key in told and kept["resolved"].get(setting.name) is not None:
                assert told[key] == kept["resolved"][setting.name], key
        check_against_the_run(kind, told, RunFolder(tmp_path / kind), load_pipeline(file))
        seen |= set(told)
    assert {key for key, setting in catalogue().items() if setting.resolves} <= seen


def pipeline_file(folder: Path, kind: str) -> Path:
    """A small pipeline that leaves all open that `RUNS` does not say."""
    targets = None if kind == "autoencoder" else LABELS if kind == "classifier" else X[:, 0]
    samples = folder / f"{kind}.npz"
    np.savez(samples, x=SEQUENCES if kind.startswith("recurrent") else X, **named(targets))
    file = write_pipeline(folder / f"{kind}.toml", samples, kind, **RUNS[kind])
    file.write_text(file.read_text().replace("max_sweeps = 2\n", "").replace("workers = 2\n", ""))
    return file


def named(targets: np.ndarray | None) -> dict[str, np.ndarray]:
    return {} if targets is None else {"y": targets}


def check_against_the_run(kind: str, told: dict[str, Any], run: RunFolder, pipeline: Pipeline) -> None:
    """What the model and the records themselves say of it."""
    model, records = Model.load(run.model), read_records(run)
    network = model.network
    assert told["network.activation"] == [each.name for each in network.activations]
    assert (told["network.loss"], told["network.output_activation"]) == (
        network.loss.name,
        network.loss.output_activation,
    )
    assert records[-1].sweep <= told.get("training.max_sweeps", 1.0)
    best = min(records, key=lambda record: record.regularized_loss)
    held = sum(float((w**2).sum()) for w in model.weights)
    assert (best.regularized_loss - best.nested_loss) * len(X) == pytest.approx(
        told["solver.ridge"] * held, rel=1e-6
    )
    assert told["solver.ridge"] == pipeline.ridge
    if "solver.augmentation" in told:
        assert len(told["solver.augmentation"]) == len(network.widths)
    if kind.startswith("recurrent"):
        assert told["network.steps"] == network.sequence_steps == SEQUENCES.shape[1]
        assert told["network.recurrent_initialization"] == network.layers[0].recurrent_init
    if kind == "classifier":
        assert told["network.classes"] == network.sizes[-1] == 3
        assert told["solver.mu"] == "∞"


def test_old_runs_go_on_with_the_ridge_that_they_had(altmin, tmp_path):
    """Until there was one for each kind, a run without a ridge had recorded 0.005."""
    foreign(tmp_path / "samples.zarr", X, LABELS)
    file = write_pipeline(tmp_path / "p.toml", "samples.zarr", "classifier", training={"schedule": "kfac"})
    assert altmin("train", file, "--run", "run", "solver.ridge=0.005").code == 0
    content = json.loads(Path("run/pipeline.json").read_text())
    assert content["identity"]["solver"]["ridge"] == 0.005
    more = ("--run", "run", "--resume", "training.max_sweeps=3")
    refused(altmin("train", file, *more), "solver.ridge: 0.005 there, 1.0 here")
    assert altmin("train", file, *more, "solver.ridge=0.005").code == 0


def test_runs_without_changed_settings_go_on(altmin, tmp_path):
    """Their `pipeline.json` is older than that; it has them first from then on."""
    foreign(tmp_path / "samples.zarr", X, LABELS)
    file = write_pipeline(tmp_path / "p.toml", "samples.zarr", "classifier", training={"schedule": "kfac"})
    assert altmin("train", file, "--run", "run").code == 0
    content = json.loads(Path("run/pipeline.json").read_text())
    assert content.pop("changed")["training.max_sweeps"] == 2
    Path("run/pipeline.json").write_text(json.dumps(content))
    assert altmin("report", "run").code == 0
    assert altmin("train", file, "--run", "run", "--resume", "training.max_sweeps=3").code == 0
    now = json.loads(Path("run/pipeline.json").read_text())
    assert next(iter(now)) == "changed"
    assert now["changed"]["training.max_sweeps"] == 3
    assert now["id"] == content["id"]


# --- who uses it


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_schedule_does_not_notice_what_it_does_not_use(schedule, altmin, tmp_path):
    foreign(tmp_path / "samples.zarr", X, LABELS)
    others = {
        "output_damping": 0.5,
        "group_chunks": 2,
        "first_window": 2,
        "window_passes": 1,
        "averaging": 0.5,
        "balancing": "false",
        "residual_tol": 0.5,
    }
    file = write_pipeline(tmp_path / "p.toml", "samples.zarr", "classifier", training={"schedule": schedule})

    def weights(name: str, *words: str) -> dict[str, np.ndarray]:
        assert altmin("train", file, "--run", name, *words).code == 0
        return safetensors.numpy.load_file(next((tmp_path / name / "model").glob("*.safetensors")))

    plain = weights("plain")
    for name, value in others.items():
        setting = find(name)[0]
        changes = weights(name, f"{setting.key}={value}")
        same = all(np.array_equal(plain[key], changes[key]) for key in plain)
        if schedule not in setting.schedules:
            assert same, name
