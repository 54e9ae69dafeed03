"""Tables that nobody prepared for us: read by name and by value, or refused in a sentence, never by position."""

from __future__ import annotations

import datetime
import gzip
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import refused, write_pipeline
from PIL import Image

from altmin_dask.data.formats import csv
from altmin_dask.data.open import open_source
from altmin_dask.data.tables.parts import unreadable
from altmin_dask.errors import AltMinWarning, DataError

# of dask with the newest pandas
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


def folder_of(tmp_path, *contents, ending="csv"):
    (tmp_path / "d").mkdir()
    for number, content in enumerate(contents):
        text = content.encode()
        (tmp_path / "d" / f"{number}.{ending}").write_bytes(
            gzip.compress(text) if ending.endswith("gz") else text
        )
    return tmp_path / "d"


def rows_of(source):
    x, y = zip(*source.blocks(100), strict=True)
    return np.concatenate(x).tolist(), np.concatenate(y).tolist()


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_files_of_a_folder_are_matched_by_name(ending, tmp_path, monkeypatch):
    """In the order of the files, whatever order their columns have."""
    monkeypatch.setattr(csv, "BLOCK_BYTES", 20)
    contents = [
        "age,income,y\n1,2,0\n3,4,1\n5,6,2\n",
        "y,income,age\n3,8,7\n4,10,9\n",
        "\ufeffage,income,y\r\n11,12,5\r\n",
        "age,income,y\n13,14,6\n",
    ]
    source = open_source(folder_of(tmp_path, *contents, ending=ending))
    assert source.preparation.names == ["age", "income"]
    assert rows_of(source) == ([[i, i + 1] for i in range(1, 14, 2)], list(range(7)))


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (
            ["a,b,y\n1,2,0\n", "a,c,y\n1,2,0\n"],
            r"1\.csv has other columns than .*0\.csv: 'c' only here, 'b' only there",
        ),
        (["a,b,y\n1,2,0\n", "a,b,c,y\n1,2,3,0\n"], "'c' only here"),
        (["a,b,y\n1,2,0\n", "1,2,0\n3,4,1\n"], r"1\.csv begins with 1, 2, 0, which are no names"),
        (["5.1,3.5,setosa\n4.9,3.0,setosa\n"], "begins with 5.1, 3.5, setosa, which are no names"),
        (["-1,2,3\n4,5,6\n"], "begins with -1, 2, 3, which are no names"),
        (["a,b,y\n1,2,0,7\n3,4,1,8\n"], "has 4 fields in a line, but names for 3"),
        (["a,b,y\n1,2,0\n3,4,1,8\n"], "cannot be read as a table"),
        (["a;b;y\n1;2;0\n"], "has semicolons between its columns"),
        (["a\tb\ty\n1\t2\t0\n"], "has tabs between its columns"),
        ([",a,y\n0,1,0\n1,1,1\n"], "has no name for column 1"),
        (["a,a,y\n1,2,0\n"], "more than one column 'a'"),
        ([""], "is empty"),
    ],
)
def test_what_would_be_read_by_position_is_refused(contents, words, tmp_path):
    with pytest.raises(DataError, match=words):
        rows_of(open_source(folder_of(tmp_path, *contents)))


def test_a_field_too_many_is_noticed_wherever_a_block_begins(tmp_path, monkeypatch):
    """pandas takes the first one for the name of the row, where the first line of a block has one too many."""
    lines = ["1,2,0"] * 50
    for place in range(1, 50):
        monkeypatch.setattr(csv, "BLOCK_BYTES", 6 * place)
        bad = [*lines[:place], "1,2,0,7", *lines[place:]]
        (tmp_path / "t.csv").write_text("a,b,y\n" + "\n".join(bad) + "\n")
        with pytest.raises(DataError):
            rows_of(open_source(tmp_path / "t.csv"))


@pytest.mark.parametrize("header", ["0,1,y", "nan,inf,y", "2019,2020,y", "1_0,٣,y", '"a, b","q ""r""",y'])
def test_odd_names_are_names(header, tmp_path):
    assert rows_of(open_source(folder_of(tmp_path, f"{header}\n1,2,0\n"))) == ([[1, 2]], [0])


def test_columns_are_named_once_and_spaces_do_no_harm(tmp_path):
    table = folder_of(tmp_path, "a,b c,y,z\n1,2,3,4\n")
    assert rows_of(open_source(table, x="a, b c", y="y, z")) == ([[1, 2]], [[3, 4]])
    for x, y in (("a,a", "y"), ("a,y", "y"), ("a", "y,y")):
        with pytest.raises(DataError, match="is named twice"):
            open_source(table, x=x, y=y)


def test_decimals_are_numbers(tmp_path):
    amounts = [Decimal("102.5"), Decimal("97.4"), Decimal("-3.25")]
    pd.DataFrame({"a": amounts, "y": amounts}).to_parquet(tmp_path / "t.parquet")
    assert rows_of(open_source(tmp_path / "t.parquet")) == (
        [[102.5], [97.4], [-3.25]],
        [102.5, 97.4, -3.25],
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([b"x", b"y"], "binary"),
        ([{"b": 1}, {"b": 2}], "struct"),
        ([datetime.time(1), datetime.time(2)], "time"),
        ([datetime.timedelta(1)] * 2, "duration"),
    ],
)
def test_other_objects_are_refused_by_name(values, words, tmp_path):
    pd.DataFrame({"a": values, "y": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match=f"has {words}.* in the column 'a'; give numbers, text, dates"):
        open_source(tmp_path / "t.parquet")


@pytest.mark.parametrize("swapped", [False, True])
def test_labels_are_not_cut_where_another_file_has_decimals(swapped, tmp_path):
    (tmp_path / "d").mkdir()
    files = [pd.DataFrame({"a": [1.0, 2.0], "y": y}) for y in ([0, 1], [0.5, 1.7])]
    for number, frame in enumerate(reversed(files) if swapped else files):
        frame.to_parquet(tmp_path / "d" / f"{number}.parquet")
    assert rows_of(open_source(tmp_path / "d"))[1] == ([0.5, 1.7, 0, 1] if swapped else [0, 1, 0.5, 1.7])


@pytest.mark.parametrize("kind", ["regressor", "recurrent_regressor"])
def test_text_has_no_distances_for_a_regressor(kind, altmin, tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n" + "1,2,small\n3,4,medium\n5,6,large\n" * 5)
    network = {"steps": 2} if kind.startswith("recurrent") else {}
    file = write_pipeline(tmp_path / "p.toml", tmp_path / "t.csv", kind, network=network)
    outcome = altmin("train", file, "--run", "r")
    refused(outcome, "is text (large, medium, small, …)")
    assert kind.replace("regressor", "classifier") in outcome.err


def test_a_folder_of_two_kinds_is_refused(tmp_path):
    folder = folder_of(tmp_path, "a,y\n1,0\n")
    pd.DataFrame({"a": [1], "y": [0]}).to_parquet(folder / "t.parquet")
    with pytest.raises(DataError, match=r"could be a \.csv file or a folder of them or a \.parquet file"):
        open_source(folder)
    (folder / "t.parquet").unlink()
    Image.new("L", (2, 2)).save(folder / "i.png")
    with pytest.raises(DataError, match="or a folder of images; move what does not belong"):
        open_source(folder)


def test_images_beside_classes_of_images_are_refused(tmp_path):
    (tmp_path / "cats").mkdir()
    for file in (tmp_path / "cats" / "a.png", tmp_path / "b.png"):
        Image.new("L", (2, 2)).save(file)
    with pytest.raises(DataError, match=r"images beside folders of images \(cats, …\)"):
        open_source(tmp_path)


@pytest.mark.parametrize("first", ["L", "RGB"])
def test_grey_images_beside_coloured_ones_are_told_of(first, tmp_path):
    """Whichever comes first: nothing of a colour is lost."""
    modes = [first, "L", "RGB", "RGBA", "LA"]
    for number, mode in enumerate(modes):
        Image.new("RGB", (3, 2), (200, 10, 0)).convert(mode).save(tmp_path / f"{number}.png")
    grey = modes.count("L") + 1
    with pytest.warns(AltMinWarning) as told:
        x = np.concatenate([x for x, _ in open_source(tmp_path).blocks(2)])
    sentences = [str(each.message) for each in told]
    assert f"has {grey} grey images beside {5 - grey} coloured ones: all are read in colour" in sentences[0]
    assert "has 2 images with transparency, which is left out" in sentences[1]
    assert x.shape == (5, 2, 3, 3)
    assert (x[2:4] == [200, 10, 0]).all()
    assert (x[1] == 66).all()  # of Pillow: 0.299, 0.587 and 0.114 of the colours


@pytest.mark.parametrize("ending", ["csv", "parquet", "NPY", "feather", "arrow", "zip", "csv.bz2", "xls"])
def test_a_store_is_not_called_like_a_file(ending, altmin, tmp_path):
    """There would be a folder of that name."""
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,0\n3,4,1\n")
    name = "out.csv.zarr" if ending == "csv.bz2" else "out.zarr"
    refused(altmin("ingest", "t.csv", f"out.{ending}"), f"give a name like {name}")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_below_a_folder_are_not_passed_over(kind, tmp_path):
    """But those that are hidden, as copies of editors and systems are."""
    frame = pd.DataFrame({"a": [1, 2], "y": [0, 1]})

    def write(name):
        path = tmp_path / "f" / f"{name}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
        return path

    write("1")
    for hidden in (".ipynb_checkpoints/1", "_delta_log/1"):
        write(hidden)
    (tmp_path / "f" / f"._1.{kind}").write_bytes(b"\0\1")
    assert open_source(tmp_path / "f").rows == 2
    for below in ("2024/1", "k=v/1"):
        path = write(below)
        with pytest.raises(DataError, match=rf"has tables in a folder below it, too \({below}\.{kind}\)"):
            open_source(tmp_path / "f")
        path.unlink()


@pytest.mark.parametrize("name", ["2.xlsx", "2.npz", "2.feather"])
def test_files_of_samples_that_are_passed_over_are_told_of(name, tmp_path):
    (tmp_path / "1.csv").write_text("a,y\n1,0\n")
    (tmp_path / "notes.txt").write_text("which hold no samples")
    assert open_source(tmp_path).rows == 1
    (tmp_path / name).write_bytes(b"")
    with pytest.warns(AltMinWarning, match=f"{name} in .* may hold samples, too, and is not read"):
        open_source(tmp_path)


@pytest.mark.parametrize("sign", [":", "^", "\x01"])
def test_what_is_seldom_between_columns_is_noticed(sign, tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,0\n3,4,1\n".replace(",", sign))
    with pytest.raises(DataError, match=r"has a single column, .* in every line; write it with commas"):
        open_source(tmp_path / "t.csv")
    source = open_source(tmp_path / "t.csv", csv={"sep": sign})
    assert source.preparation.names == ["a", "b"]
    (tmp_path / "t.csv").write_text("when:utc\n2024-03-01 12:30:00\n")
    assert open_source(tmp_path / "t.csv").preparation.names == ["when:utc"]


def test_names_that_are_a_row_are_noticed(tmp_path):
    """Refused where that is sure, and told of where it is likely."""
    (tmp_path / "t.csv").write_text("a,b,y\n1,2,u\n2,3,v\na,b,y\n3,4,u\n")
    with pytest.raises(DataError, match=r"names of its columns once more as a row \(line 4\)"):
        open_source(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("2024-01-01,3,u\n2024-01-02,4,v\n")
    with pytest.raises(DataError, match="begins with 2024-01-01, 3, u, which are no names of columns"):
        open_source(tmp_path / "t.csv")
    assert open_source(tmp_path / "t.csv", csv={"header": True}).rows == 1
    assert open_source(tmp_path / "t.csv", csv={"header": False}).rows == 2
    (tmp_path / "t.csv").write_text("2024-01-01,2024-01-02\n5,7\n")  # a column for each day
    assert open_source(tmp_path / "t.csv").preparation.names == ["2024-01-01", "2024-01-02"]
    (tmp_path / "t.csv").write_text("red,small,yes\nblue,large,no\nred,large,yes\n")
    with pytest.warns(
        AltMinWarning, match="has 'red' among the values of the column 'red'; if its first line"
    ):
        open_source(tmp_path / "t.csv")
    for text in ("a,y\n1,y\n2,n\n3,y\n", "size,y\nlarge,y\nsmall,n\n"):
        (tmp_path / "t.csv").write_text(text)  # a value that is called as its column
        assert open_source(tmp_path / "t.csv").rows == text.count("\n") - 1


@pytest.mark.parametrize("column", ["a", "y"])
@pytest.mark.parametrize("number", [-(2**63) - 1, 2**64, -(2**70)])
def test_whole_numbers_beyond_64_bits_are_refused(column, number, tmp_path):
    values = {"a": 1, "y": 0} | {column: number}
    (tmp_path / "t.csv").write_text(f"a,y\n{values['a']},{values['y']}\n1,1\n")
    with pytest.raises(DataError, match=rf"column '{column}'"):
        list(open_source(tmp_path / "t.csv").blocks(2))


def test_dates_are_no_classes(altmin, tmp_path):
    lines = "".join(f"{row % 7},2024-01-{1 + row % 3:02}\n" for row in range(60))
    (tmp_path / "t.csv").write_text("a,when\n" + lines)
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier", data={"y": "when"})
    refused(altmin("train", "p.toml", "--run", "run"), "targets of t.csv are dates, which are no classes")


@pytest.mark.parametrize("dtype", ["double", "float", "halffloat", "dictionary"])
def test_nan_in_parquet_is_a_missing_value(dtype, tmp_path):
    """As polars, Spark and DuckDB write it; it counted as 0 in means, and was filled in without being told."""
    nan = float("nan")
    a = pa.array(np.array([10, nan, 20, nan]), pa.float64())
    a = (
        a.dictionary_encode()
        if dtype == "dictionary"
        else a.cast(getattr(pa, {"double": "float64", "float": "float32", "halffloat": "float16"}[dtype])())
    )
    table = pa.table({"a": a, "b": [1.0, 2.0, 3.0, 4.0], "y": [0, 1, 0, 1]})
    pq.write_table(table, tmp_path / "n.parquet")
    for missing in ("mean", "median"):
        source = open_source(tmp_path / "n.parquet", missing=missing)
        assert source.preparation.columns[0].fill == 15
        assert source.columns[0].missing == 2
        assert rows_of(source)[0] == [[10, 0, 1], [15, 1, 2], [20, 0, 3], [15, 1, 4]]
    (tmp_path / "t.csv").write_text("a,b,y\n1,1,0\n2,2,1\n")
    like = open_source(tmp_path / "t.csv").preparation
    with pytest.raises(DataError, match=r"has missing values in the column 'a', in 2 rows \(rows 1 and 3"):
        open_source(tmp_path / "n.parquet", like=like)


def test_columns_are_quoted_in_what_is_to_be_typed(tmp_path):
    (tmp_path / "t.csv").write_text("petal length (cm),y\n1,0\n,1\n")
    words = r"by --missing 'petal length \(cm\)=mean' \(median"
    with pytest.raises(DataError, match=words):
        open_source(tmp_path / "t.csv")
    (tmp_path / "l.csv").write_text("petal length (cm),y\n1,0\n2,1\n")
    like = open_source(tmp_path / "l.csv").preparation
    with pytest.raises(DataError, match=r"altmin ingest --missing 'petal length \(cm\)=mean'\)"):
        rows_of(open_source(tmp_path / "t.csv", like=like))


def test_a_constant_that_training_never_filled_in_is_told(tmp_path):
    """No place stands for it, so such rows have zeros there, as those with any other new value."""
    (tmp_path / "t.csv").write_text("a,town,y\n1,Ulm,0\n2,Bonn,1\n")
    (tmp_path / "n.csv").write_text("a,town\n1,\n2,Ulm\n")
    known = {
        how: open_source(tmp_path / "t.csv", missing="constant", handle_unknown=how).preparation
        for how in ("ignore", "error")
    }
    with pytest.warns(AltMinWarning, match="in the column 'town' of 1 row"):
        open_source(tmp_path / "n.csv", like=known["ignore"])
    with pytest.raises(DataError, match="in the column 'town' of 1 row, which the data for training had not"):
        open_source(tmp_path / "n.csv", like=known["error"])


def test_values_of_a_column_that_was_empty_are_told(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,y\n1,,0\n2,,1\n")
    (tmp_path / "n.csv").write_text("a,b\n1,7\n2,\n3,8\n")
    with pytest.warns(AltMinWarning, match="no value at all in the column 'b'"):
        like = open_source(tmp_path / "t.csv", missing="mean").preparation
    with pytest.warns(AltMinWarning, match="'7.0' in the column 'b' of 2 rows"):
        open_source(tmp_path / "n.csv", like=like)


@pytest.mark.parametrize(
    "log", ["_delta_log/00000000000000000000.json", "metadata/v1.metadata.json", ".hoodie/hoodie.properties"]
)
@pytest.mark.parametrize("part", ["", "k=1", "data"])
def test_tables_with_a_log_are_refused(part, log, tmp_path):
    """Rows that the log says were removed are in files that are still there, and were read."""
    for name in (log, f"./{part}/1.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / log).write_text("")
    pd.DataFrame({"a": [1.5, 2], "y": [0, 1]}).to_parquet(tmp_path / part / "1.parquet")
    with pytest.raises(
        DataError, match=r"is a table of (Delta Lake|Iceberg|Hudi), whose files also have rows"
    ):
        open_source(tmp_path / part)
    assert open_source(tmp_path / part / "1.parquet").rows == 2  # if that is what is meant


@pytest.mark.parametrize("names", [("a.csv", "a.csv.gz"), ("a.csv.gz", "A.csv.zip")])
def test_a_file_that_is_there_twice_is_refused(names, tmp_path):
    """Packed and not: its rows were double, and some of them held out."""
    frame = pd.DataFrame({"a": [1.5, 2], "y": [0, 1]})
    for name in names:
        frame.to_csv(tmp_path / name, index=False)
    with pytest.raises(DataError, match=r"\.csv.* beside a\.csv\.gz.*; keep one of them"):
        open_source(tmp_path)
    (tmp_path / names[0]).rename(tmp_path / "b.csv")
    pd.DataFrame({"a": [1.5, 2], "y": [0, 1]}).to_csv(tmp_path / "b.csv", index=False)
    assert open_source(tmp_path).rows == 4


def test_a_file_that_may_not_be_read():
    error = unreadable("t.csv", PermissionError(13, "Permission denied", "t.csv"))
    assert str(error) == "t.csv cannot be read: permission denied; change its permissions"


def test_files_are_read_in_the_order_of_their_numbers(tmp_path):
    """As Dask writes and reads them; part.10 came before part.2, and predictions with it."""
    pytest.importorskip("dask.dataframe")
    import dask.dataframe as dd

    frame = pd.DataFrame({"a": np.arange(120) * 1.5, "y": np.arange(120) % 7})
    dd.from_pandas(frame, npartitions=12, sort=False).to_parquet(tmp_path / "parquet")
    dd.from_pandas(frame, npartitions=12, sort=False).to_csv(str(tmp_path / "csv" / "*.csv"), index=False)
    for folder in ("parquet", "csv"):
        (x,) = (np.concatenate([block for block, *_ in open_source(tmp_path / folder, y="y").blocks(50)]),)
        np.testing.assert_allclose(x[:, 0], frame["a"])
    read = dd.read_parquet(tmp_path / "parquet").compute()
    np.testing.assert_allclose(read["a"], frame["a"])


def test_a_column_of_several_types_in_parquet_is_told_of(tmp_path):
    """It became text, of which each value is a category, and the best column was said to be of names."""
    numbers = pd.DataFrame({"a": np.arange(60) * 0.5, "y": np.arange(60) % 2})
    numbers.to_parquet(tmp_path / "0.parquet")
    numbers.astype({"a": str}).to_parquet(tmp_path / "1.parquet")
    with pytest.warns(AltMinWarning) as told:
        open_source(tmp_path, y="y")
    assert any(
        "text in the column 'a' in some of its files or parts, and numbers" in str(w.message) for w in told
    )
