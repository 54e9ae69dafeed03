"""Pipelines in TOML: defaults, overrides, and sentences that name the place of what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from altmin_dask.config import MuSchedule, Pipeline, load_pipeline
from altmin_dask.errors import ConfigError, MissingError

SMALL = '[data]\ntrain = "digits"\n[network]\nkind = "autoencoder"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text(SMALL)
    return path


def test_defaults(file):
    pipeline = load_pipeline(file)
    assert pipeline.network.hidden_layer_sizes == (100,)
    assert pipeline.solver.mu == "auto"
    assert pipeline.training.schedule == "auto"
    assert pipeline.uses_kfac
    assert pipeline.cluster.kind == "threads"
    assert load_pipeline(str(file)) == pipeline
    assert Pipeline.model_validate(pipeline.model_dump()) == pipeline
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("solver.mu=0.5", "solver", "mu", 0.5),
        ("solver.mu = 2", "solver", "mu", 2.0),
        ("solver.mu=auto", "solver", "mu", "auto"),
        ("solver.output_damping=0.1", "solver", "output_damping", 0.1),
        ("solver.mu=[0.5, 1]", "solver", "mu", (0.5, 1.0)),
        (
            "solver.mu={start=1, factor=0.5, stop=0.1}",
            "solver",
            "mu",
            MuSchedule(start=1, factor=0.5, stop=0.1),
        ),
        ("network.hidden_layer_sizes=[3,4]", "network", "hidden_layer_sizes", (3, 4)),
        ("network.hidden_layer_sizes=[]", "network", "hidden_layer_sizes", ()),
        ("network.activation=tanh", "network", "activation", "tanh"),
        ('network.activation="tanh"', "network", "activation", "tanh"),
        ('network.activation=["tanh"]', "network", "activation", ("tanh",)),
        ("network.activation=tanh, relu", "network", "activation", ("tanh", "relu")),
        ("network.hidden_layer_sizes=32", "network", "hidden_layer_sizes", (32,)),
        ("network.hidden_layer_sizes=64,32", "network", "hidden_layer_sizes", (64, 32)),
        ("solver.mu=0.1,0.2", "solver", "mu", (0.1, 0.2)),
        ("data.y=a,b", "data", "y", "a,b"),
        ("solver.penalize_bias=false", "solver", "penalize_bias", False),
        ("data.train=a=b.npz:train", "data", "train", "a=b.npz:train"),
        ("output.title=Two words", "output", "title", "Two words"),
        ("cluster.memory_limit=2 GiB", "cluster", "memory_limit", "2 GiB"),
        ("cluster.dashboard=:0", "cluster", "dashboard", ":0"),
        ("cluster.dashboard=0.0.0.0:8787", "cluster", "dashboard", "0.0.0.0:8787"),
        ("output.report=no", "output", "report", False),
        ("output.report=Yes", "output", "report", True),
        ("data.standardize=True", "data", "standardize", True),
        ("output.title=no", "output", "title", "no"),
    ],
)
def test_overrides(override, table, key, value, file):
    assert getattr(getattr(load_pipeline(file, [override]), table), key) == value


def test_later_overrides_win_and_tables_are_completed(file):
    pipeline = load_pipeline(file, ["solver.mu=1", "solver.ridge=2", "solver.mu=3"])
    assert (pipeline.solver.mu, pipeline.solver.ridge) == (3, 2)
    schedule = load_pipeline(file, ["solver.mu.start=1", "solver.mu.factor=2", "solver.mu.stop=4"]).solver.mu
    assert schedule == MuSchedule(start=1, factor=2, stop=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("solver.nu=1", "solver.nu is not a setting"),
        ("extra.mu=1", "extra is not a setting"),
        ("solver.rigde=1", "solver.rigde is not a setting; did you mean ridge?"),
        ("network.hiden=1", "network.hiden is not a setting; did you mean hidden_layer_sizes?"),
        ("slover.ridge=1", "slover is not a setting; did you mean solver?"),
        ("solver.penalty=multiplier", "; did you mean multipliers?"),
        ("network.activation=[sigmoyd]", "; did you mean sigmoid?"),
        ("solver.mu=0", "solver.mu = 0: input should be greater than 0"),
        ("solver.mu=-0.1", "solver.mu = -0.1: input should be greater than 0"),
        ("solver.mu=nan", "solver.mu = nan: input should be"),
        ("solver.mu=inf", "solver.mu = inf: input should be a finite number"),
        ("solver.mu=[]", "solver.mu = []: "),
        ("solver.mu=[1, 0]", "solver.mu.1 = 0: input should be greater than 0"),
        ("solver.mu={start=1, factor=0.5}", "solver.mu.stop is missing"),
        ("solver.mu={start=1, factor=2, stop=0.5}", "factor 2.0 never leads from 1.0 to 0.5"),
        ("solver.mu={start=1, factor=1, stop=0.5}", "factor 1.0 never leads from 1.0 to 0.5"),
        ("solver.mu=much", "solver.mu = 'much': input should be a valid number"),
        ("solver.output_damping=inf", "solver.output_damping = inf: input should be a finite number"),
        ("solver.output_damping=0", "solver.output_damping = 0: input should be greater than 0"),
        ("solver.ridge=-1", "solver.ridge = -1: input should be greater than or equal to 0"),
        ("solver.ridge=true", "solver.ridge = True: input should be a valid number"),
        ("solver.newton_steps=1.5", "solver.newton_steps = 1.5: input should be a valid integer"),
        ("solver.curvature=full", "solver.curvature = 'full': input should be 'gauss_newton' or 'exact'"),
        ("solver.cg_tolerance=1", "solver.cg_tolerance = 1: "),
        ("network.kind=forest", "network.kind = 'forest': "),
        ("network.hidden_layer_sizes=[0]", "network.hidden_layer_sizes.0 = 0: "),
        ("network.hidden_layer_sizes=[2, -1]", "network.hidden_layer_sizes.1 = -1: "),
        ("network.hidden_layer_sizes=4.5", "network.hidden_layer_sizes.0 = 4.5: "),
        ("network.hidden_layer_sizes=4 5", "write a list such as [64, 32], or 64,32 behind --set"),
        ("network.hidden_layer_sizes=4,x", "network.hidden_layer_sizes.1 = 'x': "),
        (
            "network.hidden_layer_sizes=true",
            "network.hidden_layer_sizes = True: write a list such as [64, 32]",
        ),
        ("training.ridge=1", "training.ridge is not a setting; did you mean solver.ridge?"),
        ("training.rigde=1", "training.rigde is not a setting; did you mean solver.ridge?"),
        (
            "ridge=1",
            "--set ridge=1: write table.key=value, for example solver.mu=0.1; did you mean solver.ridge?",
        ),
        ("solver.mu.strat=1", "solver.mu.strat is not a setting; did you mean start?"),
        ("solver.mu=atuo", "; did you mean auto?"),
        ("solver.ridge=Auto", "; did you mean auto?"),
        ("network.output_activation=sofmax", "; did you mean softmax?"),
        ("data.handle_unknown=ignroe", "; did you mean ignore?"),
        (
            "data.missing=meen",
            "data.missing is 'meen'; write mean, median, constant or refuse, or constant:VALUE; did",
        ),
        ("data.csv.seperator=;", "; did you mean sep?"),
        ('network.layers=[{kind="dens", units=3}]', "; did you mean dense?"),
        ('network.layers=[{kind="dense", unit=3}]', "; did you mean units?"),
        (
            "nowhere.mu=1",
            "nowhere is not a setting; the tables are data, network, solver, training, cluster, output",
        ),
        ("network.activation=swish", "network.activation = 'swish': "),
        ("network.activation=[1]", "network.activation.0 = 1: "),
        ("network.loss=hinge", "network.loss = 'hinge': "),
        ("training.max_sweeps=0", "training.max_sweeps = 0: "),
        ("training.seed=-1", "training.seed = -1: "),
        (
            "data.csv={dtype = {zip = 'str'}}",
            "csv has no option 'dtype'; it has comment, compression, decimal, ",
        ),
        ("training.group_chunks=0", "training.group_chunks = 0: "),
        ("data.scale=0", "data.scale = 0: "),
        ("data.chunk_rows=0", "data.chunk_rows = 0: "),
        ("data.train=5", "data.train = 5: input should be a valid string"),
        ("cluster.workers=0", "cluster.workers = 0: "),
        ("cluster.memory_limit=much", "cluster.memory_limit = 'much': write \"auto\" or a size"),
        (
            "network.hidden_layer_sizes=(8,4)",
            ": write a list such as [64, 32], or 64,32 behind --set: quote it, or",
        ),
        ("network.hidden_layer_sizes=[8,", ": write a list such as [64, 32]"),
        ("network.hidden_layer_sizes=[8,4", ": write a list such as [64, 32]"),
        (
            "training.patience=3",
            "training.patience is not a setting; did you mean training.n_iter_no_change?",
        ),
        ("output.report=maybe", "output.report = 'maybe': write true or false"),
        ("output.report=1", "output.report = 1: write true or false"),
        (
            "cluster.workers=auto",
            "integer; leave it out, or write cluster.workers=default behind --set, for its default",
        ),
        ("network.activation=logistic", "or 'gelu'; did you mean sigmoid?"),
        ("network.loss=MSE", "; did you mean squared?"),
        ("network.loss=log_loss", "; did you mean cross_entropy?"),
        ("network.dropout=0.5", "is not a setting; there is no dropout: ridge and weight_decay ([solver])"),
        ("data.csv=sep:x", """write a table such as {sep = ";"}, or data.csv.KEY=VALUE behind --set"""),
        ("network.layers=32", 'a list of tables such as [{kind = "dense", units = 64}]; widths alone are'),
        (
            "network.layers=[64, 32]",
            "units = 64}; widths alone are network.hidden_layer_sizes; network.layers.1",
        ),
        ("training.early_stopping=true", "did you mean training.n_iter_no_change?"),
        ("training.early_stopping_rounds=3", "did you mean training.n_iter_no_change?"),
        ("cluster.memory_limit=380", "cluster.memory_limit = 380: write a size such as '380 MiB'"),
        ("cluster.memory_limit='380'", "cluster.memory_limit = '380': write a size such as '380 MiB'"),
        ("cluster.memory_limit=2147483648", "write a size such as '2147483648 B'"),
        ("cluster.dashboard=8787", "cluster.dashboard = 8787: "),
        ("cluster.dashboard=:port", "cluster.dashboard = ':port': "),
        ("solver", "--set solver: write table.key=value"),
        ("mu=1", "--set mu=1: write table.key=value"),
        (".mu=1", "--set .mu=1: write table.key=value"),
        ("data.train.x=1", "--set data.train.x=1: train is not a table"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(override, message, file):
    with pytest.raises(ConfigError) as caught:
        load_pipeline(file, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_named(tmp_path):
    (tmp_path / "p.toml").write_text(
        '[data]\ntrian = "digits"\n[network]\nkind = "autoencoder"\n[solver]\nmu = 0\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_pipeline(tmp_path / "p.toml")
    for part in ("data.train is missing", "data.trian is not a setting", "solver.mu = 0: "):
        assert part in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(MissingError, match=r"there is no file or folder .*gone.toml; name a pipeline"):
        load_pipeline(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="is an empty folder, not a pipeline; name a TOML file"):
        load_pipeline(tmp_path)
    for content in (b"[data\n", b"\xff", b"[data]\n[data]\n"):
        (tmp_path / "p.toml").write_bytes(content)
        with pytest.raises(ConfigError, match="not valid TOML"):
            load_pipeline(tmp_path / "p.toml")


def test_identity_leaves_out_where_and_how_long(file):
    one = load_pipeline(file)
    same = ["training.max_sweeps=99", "training.max_cpu_seconds=5", "cluster.workers=3", "output.title=x"]
    assert load_pipeline(file, same).identity() == one.identity()
    for other in ("solver.mu=1", "training.seed=1", "data.scale=2", "network.dtype=float64"):
        assert load_pipeline(file, [other]).identity() != one.identity()


def test_nothing_and_the_default_behind_set(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text(
        '[data]\ntrain = "digits:train"\nvalidation = "digits:test"\n[network]\nkind = "autoencoder"\n'
        "[training]\nn_iter_no_change = 3\n[solver]\nridge = 0.5\n"
    )
    for word in ("none", "None", "null"):
        pipeline = load_pipeline(file, [f"training.n_iter_no_change={word}", f"data.validation={word}"])
        assert (pipeline.training.n_iter_no_change, pipeline.data.validation) == (None, None)
    pipeline = load_pipeline(
        file, ["training.n_iter_no_change=default", "solver.ridge=default", "solver.mu=default"]
    )
    assert (pipeline.training.n_iter_no_change, pipeline.solver.ridge) == (10, "auto")
    assert load_pipeline(file, ['data.x="none"']).data.x == "none"
    assert load_pipeline(file, ["data.train=default"]).data.train == "default"
    with pytest.raises(ConfigError, match=r"it cannot be none: leave it out, or write solver\.ridge=default"):
        load_pipeline(file, ["solver.ridge=none"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20%", "write a number below 1, 0.2, without quotes"),
        ('"0.25"', "write a number below 1, 0.25, without quotes"),
        ("20", "such as 0.2 for 20 %"),
        ("1", "a share of the rows below 1"),
    ],
)
def test_shares_as_one_writes_them_elsewhere(text, message, tmp_path):
    file = tmp_path / "p.toml"
    file.write_text('[data]\ntrain = "digits:train"\n[network]\nkind = "autoencoder"\n')
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_pipeline(file, [f"data.validation={text}"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("y = species  # the kind", "text needs quotes: y = 'species'"),
        ("train = ../a/b.csv", "text needs quotes: train = '../a/b.csv'"),
        ("shuffle = True", "write it in small letters: shuffle = true"),
        ("y = [species]", r"column 6\)$"),
    ],
)
def test_words_without_quotes(line, said, tmp_path):
    file = tmp_path / "p.toml"
    file.write_text(f"[data]\n{line}\n")
    with pytest.raises(ConfigError, match=rf"is not valid TOML: Invalid value \(at line 2, .*{said}"):
        load_pipeline(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'[data]\ntrain = "C:\\Users\\a.csv"\n', "write paths with / or in single quotes"),
        (b'[data]\ntrain = "C:\\data\\a.csv"\n', "write paths with / or in single quotes"),
        (b'[data]\ntrain = "a"\n[data]\ny = "b"\n', "put all keys of a table below one heading"),
        (b'[data]\ntrain = "a"\ntrain = "b"\n', "write each key once"),
        (b'[data]\ntrain = "\xe4.csv"\n', "save it as UTF-8"),
        (
            b"[network]\nhidden_layer_sizes = (8, 4)\n",
            r"lists have square brackets: hidden_layer_sizes = \[8, 4\]",
        ),
    ],
)
def test_what_is_no_toml_is_told_with_what_to_write(text, said, tmp_path):
    file = tmp_path / "p.toml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=f"is not valid TOML: .*; {said}"):
        load_pipeline(file)


def test_a_mark_that_editors_put_in_front_is_no_part_of_a_pipeline(tmp_path):
    file = tmp_path / "p.toml"
    file.write_text('[data]\ntrain = "digits:train"\n[network]\nkind = "autoencoder"\n', encoding="utf-8-sig")
    assert load_pipeline(file).data.train == "digits:train"
