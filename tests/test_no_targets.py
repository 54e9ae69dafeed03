"""Samples without targets: what is missing is said by what kind of data they are, and what they were given for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from command import LABELS, X, refused, write_pipeline
from PIL import Image

FRAME = pd.DataFrame(X, columns=list("abcdef"))
OF_CLASSES = "put the images of each class into a folder of its own, which is called as the class"


@pytest.fixture
def images(tmp_path):
    """The same images in a folder, and in folders of classes."""
    rng = np.random.default_rng(0)
    for folder in ("flat", "of/a", "of/b"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(12):
        image = Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8))
        for folder in ("flat", f"of/{'ab'[number % 2]}"):
            image.save(tmp_path / folder / f"{number}.png")


def test_images_without_folders_of_classes(images, altmin, tmp_path):
    data = {"scale": 255}
    for given in ({}, {"validation": 0.2}, {"validation": "flat"}):
        write_pipeline(tmp_path / "p.toml", "flat", "classifier", data=data | given)
        for command in ("plan", "train"):
            refused(
                altmin(command, "p.toml"), f"flat has no targets y, which a classifier needs; {OF_CLASSES}"
            )
    write_pipeline(tmp_path / "p.toml", "flat", "regressor", data=data)
    refused(
        altmin("train", "p.toml"),
        "which a regressor needs; numbers to fit go with images in arrays only: give x",
    )
    write_pipeline(tmp_path / "p.toml", "of", "classifier", data=data | {"validation": "flat"})
    refused(altmin("train", "p.toml", "--run", "run"), f"flat has no targets y; {OF_CLASSES}")
    assert altmin("train", "p.toml", "data.validation=none", "--run", "of-run").code == 0
    refused(altmin("evaluate", "of-run", "flat"), f"flat has no targets y; {OF_CLASSES}")


def test_tables(altmin, tmp_path):
    FRAME.to_csv("t.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "t.csv", "classifier")
    refused(
        altmin("train", "p.toml"),
        "t.csv has no targets y, which a classifier needs; name them by data.y",
    )


@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_validation_without_the_column(kind, altmin, tmp_path):
    FRAME.assign(species=LABELS).to_csv("t.csv", index=False)
    FRAME.to_csv("v.csv", index=False)
    write_pipeline(tmp_path / "p.toml", "t.csv", kind, data={"y": "species", "validation": "v.csv"})
    refused(
        altmin("train", "p.toml", "--run", "run"),
        "v.csv has no values of 'species', the target of the samples for training; give it that column, and a value",
    )


def test_files_of_other_kinds_at_a_url(altmin, tmp_path):
    for name in ("t.csv", "t.csv.gz", "T.PARQUET"):
        for words in ([], ["--missing", "median"]):
            refused(
                altmin("ingest", f"memory://nothing/{name}", "t.zarr", *words),
                f"memory://nothing/{name} is called a file of another kind, and only zarr stores are read from URLs; "
                "copy it to this machine first",
            )
        write_pipeline(tmp_path / "p.toml", f"memory://nothing/{name}", "classifier")
        refused(altmin("train", "p.toml"), "only zarr stores are read from URLs")
    refused(altmin("ingest", "memory://nothing/t", "t.zarr"), "there is no zarr store at memory://nothing/t")
    refused(altmin("ingest", "memory://nothing/t", "t.zarr", "--missing", "median"), "is no table")
