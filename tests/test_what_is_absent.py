"""Samples without a column that training never lacked, or without classes: measures say less than it seems."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, write_pipeline

FRAME = pd.DataFrame(X, columns=list("abcdef"))
NAMES = np.array(["u", "v", "w"])


@pytest.fixture
def trained(altmin, tmp_path, monkeypatch):
    """A classifier that fills in what is missing, of samples that lack nothing but some values of one column."""
    monkeypatch.setattr(
        "altmin_dask.errors.warnings.warn", lambda message, category, **_: said.append(message)
    )
    said: list[str] = []
    table = FRAME.assign(city=np.array(["Bern", "Ulm"])[LABELS % 2], y=NAMES[LABELS])
    table.assign(f=table["f"].where(table["f"] > 0.1)).to_csv("t.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier", data={"missing": "median"})
    assert altmin("train", "p.toml", "--run", "run").code == 0
    assert said == []
    return table, said


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_columns_without_any_value(command, trained, altmin):
    table, said = trained
    words = ["p.csv", "--overwrite"] if command == "predict" else []
    for columns, told in (
        (["city"], ["the column 'city'"]),
        (["a", "city"], ["the columns 'a' and 'city'"]),
        (["f"], []),  # of which samples for training lacked some, too
    ):
        table.assign(**dict.fromkeys(columns, None)).to_csv("v.csv", index=False)
        assert altmin(command, "run", "v.csv", *words).code == 0
        assert said == [
            f"v.csv has no value at all in {each}, which the data for training had in every row: what fills in missing "
            "values stands for all of them"
            for each in told
        ]
        said.clear()
    some = table.copy()
    some.loc[:58, "city"] = None
    some.to_csv("v.csv", index=False)
    assert altmin(command, "run", "v.csv", *words).code == 0
    assert said == [
        "v.csv has no value in the column 'city' of 59 rows, which the data for training had in every row: what fills "
        "in missing values stands there"
    ]
    said.clear()
    some = table.copy()
    some.loc[3, "a"], some.loc[:58, "f"] = None, None
    some.to_csv("v.csv", index=False)
    assert altmin(command, "run", "v.csv", *words).code == 0
    assert said == [
        "v.csv has no value in the column 'a' of 1 row, which the data for training had in every row: what fills in "
        "missing values stands there"
    ]


@pytest.mark.parametrize(
    ("there", "told"),
    [([0, 1, 2], None), ([0, 1], "the class 'w'"), ([1], "the classes 'u' and 'w'")],
)
def test_classes_that_are_not_there(there, told, trained, altmin, tmp_path):
    table, said = trained
    table[np.isin(LABELS, there)].to_csv("v.csv", index=False)
    sentence = f"v.csv has no samples of {told}: what is measured there says nothing of them, and balanced accuracy is"
    expected = [] if told is None else [f"{sentence} of the others"]
    assert altmin("evaluate", "run", "v.csv").code == 0
    assert said == expected
    said.clear()
    assert altmin("predict", "run", "v.csv", "p.csv").code == 0  # which measures nothing
    assert said == []
    write_pipeline(
        tmp_path / "q.toml", "t.csv", "classifier", data={"missing": "median", "validation": "v.csv"}
    )
    assert altmin("train", "q.toml", "--run", "other").code == 0
    assert said == expected
    said.clear()
    assert altmin("train", "q.toml", "--run", "other", "--resume", "training.max_sweeps=3").code == 0
    assert said == []


def test_numbers_and_truth_values_are_named_as_they_are(trained, altmin, tmp_path):
    _, said = trained
    for name, y in (("n", LABELS * 10 + 1), ("b", LABELS == 0)):
        np.savez(f"{name}.npz", x=X, y=y)
        np.savez(f"{name}-v.npz", x=X[::3], y=y[::3])
        write_pipeline(tmp_path / "q.toml", f"{name}.npz", "classifier", data={"validation": f"{name}-v.npz"})
        assert altmin("train", "q.toml", "--run", name).code == 0
    assert [each.partition(":")[0] for each in said] == [
        "n-v.npz has no samples of the classes 11 and 21",
        "b-v.npz has no samples of the class False",
    ]
