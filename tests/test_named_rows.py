"""Which row is which: names of images beside predictions, and targets by the name that their column has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, refused, write_pipeline

NAMES = np.array(["no", "maybe", "yes"])


def test_images_are_named_beside_their_predictions(altmin, tmp_path):
    """By their places in the folder, in the order of the rows; nobody has to ask for it."""
    images = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "pictures" / "ba"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((2, 2), 200 * (number % 2)) + rng.integers(0, 50, (2, 2))
        images.fromarray(np.uint8(pixels)).save(folder / f"{number}.png")
    write_pipeline(tmp_path / "p.toml", "pictures", "classifier", data={"scale": 255.0})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    names = [f"{'ba'[number % 2]}/{number}.png" for number in (*range(1, 24, 2), *range(0, 24, 2))]
    assert len(names) == len([*Path("pictures").glob("*/*")])
    assert altmin("predict", "run", "pictures", "p.csv", "--proba").code == 0
    assert altmin("predict", "run", "pictures", "p.parquet", "--keep", "file").code == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["file", "label", "a", "b"]
    assert list(found["file"]) == list(pd.read_parquet("p.parquet")["file"]) == names
    assert altmin("predict", "run", "pictures", "p.npy").code == 0
    np.testing.assert_array_equal(np.load("p.npy"), found["label"])
    refused(altmin("predict", "run", "pictures", "q.csv", "--keep", "id"), "which have no column 'id'")


def test_targets_that_are_called_otherwise(altmin, tmp_path):
    """`--y` names them: it was passed over, whatever it said."""
    new = pd.DataFrame(X, columns=list("abcdef"))
    new.assign(y=NAMES[LABELS]).to_csv("t.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    new.assign(kind=NAMES[LABELS]).to_csv("kind.csv", index=False)
    new.assign(kind=NAMES[LABELS], y=NAMES[(LABELS + 1) % 3]).to_csv("both.csv", index=False)
    refused(altmin("evaluate", "run", "kind.csv"), "name the column of its own by --y NAME")
    told = [altmin("evaluate", "run", file, "--y", "kind", "--json") for file in ("kind.csv", "both.csv")]
    assert [each.code for each in told] == [0, 0]
    ours, other = (json.loads(each.out)["metrics"] for each in told)
    assert ours == other
    assert json.loads(altmin("evaluate", "run", "both.csv", "--json").out)["metrics"] != ours
    refused(altmin("evaluate", "run", "both.csv", "--y", "gone"), "has no column 'gone'")
    refused(altmin("evaluate", "run", "both.csv", "--y", "kind,y"), "cannot be the targets, which are 1")
    refused(altmin("evaluate", "run", "both.csv", "--x", "a", "--y", "kind"), "leave out the choice of a")


@pytest.mark.filterwarnings("default::altmin_dask.errors.AltMinWarning")
def test_an_order_that_a_file_cannot_tell_is_told(altmin, tmp_path):
    """The rows of a store were shuffled; a .npy file has no place for their numbers."""
    np.savez("t.npz", x=X, y=LABELS)
    write_pipeline(tmp_path / "p.toml", "t.npz", "classifier")
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert altmin("ingest", "t.npz", "t.zarr", "--chunk-rows", "10", "--dtype", "float64").code == 0
    told = [
        altmin("predict", "run", *words)
        for words in (("t.zarr", "of_store.npy"), ("t.zarr", "of_store.csv"), ("t.npz", "p.npy"))
    ]
    assert [each.code for each in told] == [0, 0, 0]
    assert re.search(r"of_store.npy has the order of \S*t.zarr", told[0].err)
    assert [each.err for each in told[1:]] == ["", ""]
    found = pd.read_csv("of_store.csv")
    np.testing.assert_array_equal(np.load("of_store.npy"), found["label"])
    np.testing.assert_array_equal(np.load("p.npy")[found["row"]], found["label"])
    refused(altmin("ingest", "t.npz", "memory://t.zarr"), "gone when it ends")
