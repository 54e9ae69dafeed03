"""Missing values, categories and dates of tables: what is asked for is recorded, and done the same at prediction."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import zarr
from command import refused, write_pipeline

from altmin_dask.data.formats import csv, tables
from altmin_dask.data.open import open_source
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.data.tables import learning, median, survey
from altmin_dask.data.tables.checking import prepared_rows
from altmin_dask.data.tables.parts import Walk
from altmin_dask.errors import AltMinWarning, ConfigError, DataError
from altmin_dask.preparation import Preparation
from altmin_dask.storage.model import Model
from altmin_dask.table_options import TableOptions

RNG = np.random.default_rng(11)
TABLE = "age,town,y\n10,Ulm,0\n,Bonn,1\n40,,1\n20,Ulm,0\n"


def whole(source):
    return np.concatenate([x for x, _ in source.blocks(3)])


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(TABLE)
    return "t.csv"


@pytest.mark.parametrize(
    ("words", "age", "town"),
    [
        (["mean"], 70 / 3, "Ulm"),
        (["median"], 20, "Ulm"),
        (["constant"], 0, "missing_value"),
        (["constant", "age=mean"], 70 / 3, "missing_value"),
        (["age=constant:7.5", "town=constant:Bonn"], 7.5, "Bonn"),
        (["median", "town=constant:nowhere"], 20, "nowhere"),
    ],
)
def test_missing_values_are_filled_in(words, age, town, table, altmin):
    """The same from the command line, from Python, and of other samples; with a number that says so."""
    options = [word for each in words for word in ("--missing", each)]
    done = altmin("ingest", "--no-shuffle", table, "t.zarr", *options, "--dtype", "float64")
    assert (done.code, done.err) == (0, "")
    store = SampleStore.open("t.zarr")
    towns = sorted({"Bonn", "Ulm", town})
    expected = np.zeros((4, len(towns) + 3))
    expected[:, 0], expected[1, 1], expected[2, -1] = [10, age, 40, 20], 1, 1
    for row, name in enumerate(["Ulm", "Bonn", town, "Ulm"]):
        expected[row, 2 + towns.index(name)] = 1
    np.testing.assert_array_equal(store.x[:], expected)
    names = ["age", "age is missing", *(f"town={name}" for name in towns), "town is missing"]
    assert store.preparation.names == names
    given = {"*" if "=" not in word else word.split("=")[0]: word.split("=")[-1] for word in words}
    np.testing.assert_array_equal(whole(open_source(table, missing=given)), expected)

    with open("n.csv", "w") as file:
        file.write("town,age\n,\nBonn,3\n")
    assert (
        altmin("ingest", "--no-shuffle", "n.csv", "n.zarr", "--like", "t.zarr", "--dtype", "float64").code
        == 0
    )
    again = SampleStore.open("n.zarr")
    np.testing.assert_array_equal(again.x[0], [age, 1, *(name == town for name in towns), 1])
    np.testing.assert_array_equal(again.x[1], [3, 0, *(name == "Bonn" for name in towns), 0])
    assert again.preparation == store.preparation


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            [],
            "missing values in the column 'age', in 1 row (line 3), and in 'town'; fill them in, by --missing age=mean "
            "(median, constant; "
            "data.missing of a pipeline)",
        ),
        (["--missing", "age=mean"], "missing values in the column 'town', in 1 row"),
        (["--missing", "mean", "--missing", "town=refuse"], "missing values in the column 'town', in 1 row"),
        (
            ["--missing", "zero"],
            "missing is 'zero'; write mean, median, constant or refuse, or constant:VALUE",
        ),
        (["--missing", "age=best"], "missing is 'best' for the column 'age'"),
        (["--missing", "agee=mean"], "missing names the column 'agee', which is no input of t.csv"),
        (["--missing", "constant:none", "--x", "age"], "which has numbers; write one"),
        (["--missing", "mean", "--missing", "median"], "--missing is given twice for all columns"),
        (
            ["--handle-unknown", "zeros"],
            "handle_unknown is 'zeros'; write ignore, error or infrequent_if_exist",
        ),
        (["--max-categories", "0"], "max_categories is 0"),
        (["--min-frequency", "1.5"], "min_frequency is 1.5"),
        (["--dates", "years"], "dates is 'years'; write days or cyclic"),
        (["--csv", "sepp=;"], "csv has no option 'sepp'; it has"),
        (["--csv", "sep"], "--csv sep says nothing; write --csv KEY=VALUE"),
        (["--csv", "sep=;;"], "write a single character"),
        (["--csv", "header=maybe"], "write true or false"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(words, sentence, table, altmin, tmp_path):
    refused(altmin("ingest", "--no-shuffle", table, "t.zarr", *words), sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


PIPELINE = """
[data]
train = "raw.csv"
validation = 0.2
standardize = true
missing = { "*" = "mean", a = "median" }
max_categories = 2
dates = "cyclic"
csv = { sep = ";", decimal = "," }
[network]
kind = "classifier"
hidden_layer_sizes = [4]
[training]
max_sweeps = 2
[output]
report = false
"""


def test_tables_of_a_pipeline_take_the_same(table, altmin, tmp_path):
    frame = pd.DataFrame({"a": RNG.random(60), "when": pd.date_range("2024-01-01", periods=60).astype(str)})
    frame["kind"], frame["y"] = RNG.choice(["u", "v", "w"], 60), np.where(frame.a > 0.5, "yes", "no")
    frame.loc[[3, 7], "a"], frame.loc[5, "kind"], frame.loc[9, "when"] = None, None, None
    frame.to_csv("raw.csv", index=False, sep=";", decimal=",")
    file = tmp_path / "p.toml"
    file.write_text(PIPELINE)
    assert altmin("plan", file).code == 0
    done = altmin("train", file, "--run", "r")
    assert (done.code, done.err) == (0, "")
    how = Model.load(tmp_path / "r" / "model").preparation
    assert len(how.names) == 2 + 8 + 3
    frame.drop(columns="y").head(9).to_csv("n.csv", index=False, sep=";", decimal=",")
    assert altmin("predict", "r", "n.csv", "p.csv", "--keep", "kind").code == 0
    assert pd.read_csv("p.csv")["kind"].fillna("").tolist() == frame.kind.head(9).fillna("").tolist()
    refused(altmin("train", file, "--run", "q", "data.missing=refuse"), "missing values in the column")
    refused(altmin("train", file, "--run", "q", "data.missing=zero"), "missing is 'zero'")
    store = tmp_path / "r" / "data" / "train.zarr"
    refused(altmin("train", file, "--run", "q", f"data.train={store}"), "is for raw tables, and")


def test_medians_are_exact_however_many_values_there_are(monkeypatch):
    values = np.concatenate(
        [RNG.normal(size=501), -RNG.random(200) * 1e-300, [0.0, -0.0, 1e308, -1e308, np.nan]]
    )
    table = np.stack([RNG.permutation(values), RNG.permutation(values), np.round(values)], axis=1)
    table[5, 0] = table[6, 2] = np.nan
    names, counts = list("abc"), (~np.isnan(table)).sum(axis=0).tolist()
    passes = []

    def blocks(columns):
        passes.append(columns)
        chosen = table[:, [names.index(column) for column in columns]]
        return iter(np.array_split(chosen, 7))

    expected = np.nanmedian(table, axis=0).tolist()
    for held, count in ((1 << 20, 1), (8 * 1500, 2), (8 * 600, None)):
        monkeypatch.setattr(median, "HELD_BYTES", held)
        passes.clear()
        assert median.medians(names, counts, blocks) == expected
        assert count is None or len(passes) == count


def test_values_that_are_new(table, altmin):
    with open("n.csv", "w") as file:
        file.write("town,age,y\nRome,1,0\nUlm,2,1\nRome,3,0\nParis,4,0\n")
    for unknown in ("ignore", "infrequent_if_exist"):
        how = open_source(table, missing="mean", handle_unknown=unknown).preparation
        words = (
            r"'Paris', 'Rome' in the column 'town' of 3 rows, which the data for training had not: all zeros"
        )
        with pytest.warns(AltMinWarning, match=words) as told:
            found = open_source("n.csv", like=how)
        assert len(told) == 1
        np.testing.assert_array_equal(whole(found)[:, 2:], [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]])
    how = open_source(table, missing="mean", handle_unknown="error").preparation
    with pytest.raises(DataError, match="has 'Paris', 'Rome' in the column 'town' of 3 rows"):
        open_source("n.csv", like=how)
    assert (
        altmin(
            "ingest", "--no-shuffle", table, "t.zarr", "--missing", "mean", "--handle-unknown", "error"
        ).code
        == 0
    )
    refused(
        altmin("ingest", "--no-shuffle", "n.csv", "n.zarr", "--like", "t.zarr"),
        "which the data for training had not; leave",
    )
    assert altmin("ingest", "--no-shuffle", table, "u.zarr", "--missing", "mean").code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("always", AltMinWarning)
        done = altmin("ingest", "--no-shuffle", "n.csv", "n.zarr", "--like", "u.zarr")
    assert done.code == 0
    assert done.err.count("altmin: warning: ") == done.err.count("of 3 rows") == 1


def test_a_frame_in_memory_is_prepared_the_same(table, altmin):
    assert (
        altmin(
            "ingest",
            "--no-shuffle",
            table,
            "t.zarr",
            "--missing",
            "mean",
            "--standardize",
            "--dtype",
            "float64",
        ).code
        == 0
    )
    store = SampleStore.open("t.zarr")
    frame = pd.read_csv(table)[["y", "town", "age"]]
    np.testing.assert_allclose(prepared_rows(frame, store.preparation), store.x[:], atol=1e-12)
    with pytest.warns(AltMinWarning, match="the frame has 'Rome' in the column 'town' of 4 rows"):
        x = prepared_rows(frame.assign(town="Rome"), store.preparation, "the frame")
    assert not x[:, 2:4].any()
    with pytest.raises(DataError, match="has no column 'age'"):
        prepared_rows(frame[["town"]], store.preparation)


def test_many_categories_share_a_number(tmp_path, monkeypatch, altmin):
    """Of 4,000 tails of planes 255 have a number, and those that are new are told from those that are rare."""
    monkeypatch.chdir(tmp_path)
    tails = [f"N{number:04d}" for number in range(4000)]
    frame = pd.DataFrame({"tail": tails + tails[:300] + tails[:255], "b": 1.0, "y": 0})
    frame.to_csv("t.csv", index=False)
    assert altmin("ingest", "--no-shuffle", "t.csv", "t.zarr").code == 0
    how = SampleStore.open("t.zarr").preparation
    column = how.columns[0]
    assert column.values == tuple(tails[:255])
    assert len(column.infrequent) == 3745
    assert column.names[-1] == "tail infrequent"
    assert Preparation.from_json(how.to_json()) == how
    pd.DataFrame({"tail": ["N0003", "N3999", "N9999"], "b": 1}).to_csv("n.csv", index=False)
    with pytest.warns(AltMinWarning, match="'N9999' in the column 'tail' of 1 row,"):
        x = whole(open_source("n.csv", like=how))
    assert [np.flatnonzero(row[:-1]).tolist() for row in x] == [[3], [255], []]

    monkeypatch.setattr(learning, "MOST_RECORDED", 100)
    how = open_source("t.csv").preparation
    assert how.columns[0].infrequent == ()
    with warnings.catch_warnings():
        warnings.simplefilter("error", AltMinWarning)
        assert whole(open_source("n.csv", like=how))[2, 255] == 1
    monkeypatch.setattr(survey, "MOST", 3000)
    refused(
        altmin("ingest", "--no-shuffle", "t.csv", "u.zarr"),
        "more than 3000 values in the column 'tail', which tell rows apart",
    )


def test_dates_are_days_and_cycles(tmp_path, monkeypatch, altmin):
    monkeypatch.chdir(tmp_path)
    when = pd.Series(pd.to_datetime(["2024-07-01 06:00", "1969-12-31 00:00", "2000-02-29 18:00"]))
    pd.DataFrame({"when": when.astype(str), "y": 0}).to_csv("t.csv", index=False)
    pd.DataFrame({"when": when, "y": 0}).to_parquet("t.parquet")
    angles = (
        np.stack([(when.dt.month - 1) / 12, when.dt.day_of_week / 7, when.dt.hour / 24], axis=1) * 2 * np.pi
    )
    days = (when - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    cycles = np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(3, 6)
    for name in ("t.csv", "t.parquet"):
        np.testing.assert_array_equal(whole(open_source(name)), days.to_numpy()[:, None])
        words = ["--dates", "cyclic", "--dtype", "float64", "--overwrite", "--standardize"]
        assert altmin("ingest", "--no-shuffle", name, "t.zarr", *words).code == 0
        store = SampleStore.open("t.zarr")
        np.testing.assert_allclose(store.x[:, 0], (days - days.mean()) / days.std(ddof=0), atol=1e-12)
        np.testing.assert_allclose(store.x[:, 1:], cycles, atol=1e-12)
        assert store.preparation.names[:3] == ["when", "when month sin", "when month cos"]


def test_a_store_prepares_other_samples(table, altmin, tmp_path):
    """What was found on the first is done to others, and settings that the store has are not given again."""
    assert altmin("ingest", "--no-shuffle", table, "t.zarr", "--missing", "mean", "--standardize").code == 0
    first = SampleStore.open("t.zarr")
    assert altmin("ingest", "--no-shuffle", table, "u.zarr", "--like", "t.zarr").code == 0
    again = SampleStore.open("u.zarr")
    np.testing.assert_array_equal(again.x[:], first.x[:])
    np.testing.assert_array_equal(again.y[:], first.y[:])
    assert again.preparation == first.preparation
    for words, sentence in (
        (["--standardize"], "--standardize does not go with --like"),
        (["--scale", "2"], "--scale does not go with --like"),
        (["--missing", "mean"], "--missing does not go with --like"),
        (["--max-categories", "3"], "--max-categories does not go with --like"),
    ):
        refused(altmin("ingest", "--no-shuffle", table, "v.zarr", "--like", "t.zarr", *words), sentence)
    np.savez("raw.npz", x=np.full((5, 2), 51.0))
    assert altmin("ingest", "--no-shuffle", "raw.npz", "a.zarr", "--scale", "255").code == 0
    assert altmin("ingest", "--no-shuffle", "raw.npz", "b.zarr", "--like", "a.zarr").code == 0
    assert (zarr.open_array("b.zarr/x", mode="r")[:] == np.float32(0.2)).all()
    refused(altmin("ingest", "--no-shuffle", "raw.npz", "c.zarr", "--missing", "mean"), "is no table")
    same = ("--missing", "refuse")  # as without a word
    assert altmin("ingest", "--no-shuffle", "raw.npz", "d.zarr", *same).code == 0


def test_options_are_checked_in_python_too(table):
    how = open_source(table, missing="mean").preparation
    with pytest.raises(ConfigError, match="is prepared as other samples were"):
        open_source(table, like=how, missing="median")
    for given in ({"missing": "zero"}, {"dates": "x"}, {"csv": {"engine": "c"}}, {"min_frequency": 0}):
        with pytest.raises(ConfigError):
            TableOptions.of(**given)


def test_blocks_of_any_size_give_the_same(table, monkeypatch):
    expected = whole(open_source(table, missing="median"))
    for size in (1, 9, 15):
        monkeypatch.setattr(csv, "BLOCK_BYTES", size)
        np.testing.assert_array_equal(whole(open_source(table, missing="median")), expected)


def test_ingest_tells_what_it_did(altmin, tmp_path):
    frame = pd.DataFrame({"width": [1, 5000, 3, None], "one": 7.0, "town": ["Ulm", "Bonn", "Ulm", "Rome"]})
    frame = frame.assign(when="2024-02-03", thin=[0.1, 0.2, 0.3, 0.4], y=["no", "yes", "no", "no"])
    frame.to_csv("t.csv", index=False)
    words = ("ingest", "t.csv", "t.zarr", "--missing", "width=mean", "--overwrite")
    lines = altmin(*words).out.splitlines()
    for wanted in (
        ("width", "number", "1", "1 … 5000"),
        ("town", "one-hot of 3"),
        ("when", "date"),
        ("no", "3"),
        ("yes", "1"),
    ):
        assert any(set(wanted) <= {cell.strip() for cell in line.split("│")} for line in lines), wanted
    assert "constant, and of no use: one, when" in lines
    assert any("times as wide as thin: ingest with --standardize for auto-encoders" in line for line in lines)
    assert "t.zarr: 4 samples of 8 float32, targets int64" in lines[-1]
    assert "as wide as" not in altmin(*words, "--standardize").out


@pytest.mark.parametrize(
    "target", [[0] * 10 + [1] * 10, list(np.arange(20.0, 0, -1) / 3), ["a"] * 15 + ["b"] * 5]
)
def test_ingest_tells_of_rows_that_are_sorted_and_stay_so(target, altmin, tmp_path):
    """In chunks, too; not where they are shuffled, nor where they are not sorted, or all the same."""
    words, told = (
        ("ingest", "t.csv", "t.zarr", "--overwrite", "--chunk-rows", "6"),
        "rows are sorted by the target",
    )
    frame = pd.DataFrame({"x": np.arange(20) % 7, "y": target})
    frame.to_csv("t.csv", index=False)
    assert told in altmin(*words, "--no-shuffle").out
    assert told not in altmin(*words).out
    for other in (target[::2] + target[1::2], target[:1] * 20):
        frame.assign(y=other).to_csv("t.csv", index=False)
        assert told not in altmin(*words, "--no-shuffle").out


@pytest.mark.parametrize(("word", "said"), [("?", r"'\?' in 8 rows"), ("n.d.", r"'n\.d\.' in 8 rows")])
def test_numbers_that_are_text_because_of_a_word_are_told_of(word, said, altmin, tmp_path):
    """A column of numbers with a marker for missing values that pandas does not know would be one-hot in silence."""
    lines = [f"{word if i % 7 == 0 else i / 2},{'12A'[i % 3]},{i % 2}" for i in range(50)]
    (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(lines))
    with pytest.warns(
        AltMinWarning,
        match=rf"numbers in the column 'a', but {said} \(lines 2, 9 and 16, and more\): all its values",
    ):
        table_preparation = open_source(tmp_path / "t.csv").preparation
    assert [len(column.names) for column in table_preparation.columns] == [43, 3]
    done = altmin("ingest", "t.csv", "t.zarr", "--csv", f"na_values={word}", "--missing", "median")
    assert (done.code, done.err) == (0, "")
    assert SampleStore.open("t.zarr").preparation.names == ["a", "a is missing", "b=1", "b=2", "b=A"]


@pytest.mark.parametrize("validation", [{}, {"validation": 0.25}])
def test_a_run_finds_out_once_what_a_table_holds(validation, altmin, tmp_path, monkeypatch):
    """For its plan; and no part of the table is held on to when the stores are made."""
    walks, learnt = [], []
    made, learn = Walk.__init__, tables.learn
    monkeypatch.setattr(Walk, "__init__", lambda self, *words: walks.append(self) or made(self, *words))
    monkeypatch.setattr(tables, "learn", lambda *words: learnt.append(words) or learn(*words))
    pd.DataFrame({"a": np.linspace(0, 1, 60), "b": list("uvw") * 20, "y": [0, 1] * 30}).to_csv(
        "t.csv", index=False
    )
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier", data=validation)
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert len(learnt) == 1
    assert len(walks) == 1
    assert walks[0]._held == {}
