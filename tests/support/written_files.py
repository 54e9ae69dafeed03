"""The same three columns and targets, written as every kind of file that has both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import foreign


def npz(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, list[str]]:
    np.savez(folder / "a.npz", x=x, y=y)
    return "a.npz", []


def npy(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, list[str]]:
    np.save(folder / "a.npy", x)
    np.save(folder / "b.npy", y)
    return "a.npy", ["--y", "b.npy"]


def frame(x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y})


def csv(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, list[str]]:
    frame(x, y).to_csv(folder / "a.csv", index=False)
    return "a.csv", []


def parquet(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, list[str]]:
    frame(x, y).to_parquet(folder / "a.parquet")
    return "a.parquet", []


def zarr_group(folder: Path, x: np.ndarray, y: np.ndarray) -> tuple[str, list[str]]:
    foreign(folder / "a.zarr", x, y)
    return "a.zarr", []


every_file = pytest.mark.parametrize("write", [npz, npy, csv, parquet, zarr_group])
