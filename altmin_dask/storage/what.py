"""What is at a path, for messages about what is there in place of what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from altmin_dask.storage.zarr_groups import is_zarr_file, is_zarr_folder

MANIFEST = "pipeline.json"
"""What is in every run folder."""
DATA = (".csv", ".tsv", ".parquet", ".npz", ".npy")
"""How files of samples end."""
_PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
_SHOWN = 3


def is_run(path: Path) -> bool:
    """Whether there is a run folder."""
    return (path / MANIFEST).is_file()


def is_data(path: Path) -> bool:
    """Whether there is what looks like samples: a zarr store, or a file that ends as such files do."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in _PACKED]
    file = path.is_file() and bool(suffixes) and suffixes[-1].lower() in DATA
    return file or is_zarr_folder(path) or is_zarr_file(path)


def what_is(path: Path) -> str:
    """What is at a path, in words that go on a sentence: "run is a run folder"; the path alone where it is a mere file.

    Parameters
    ----------
    path : Path
        Where there is something, or nothing.
    """
    if is_run(path):
        return f"{path} is a run folder"
    if is_data(path):
        return f"{path} is {'a file of samples' if path.is_file() else 'a zarr store'}"
    if path.suffix == ".toml" and path.is_file():
        return f"{path} is a TOML file"
    if path.is_file():
        return f"{path} is a file"
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {path.readlink()}, where there is nothing"
    if not path.is_dir():
        return f"there is no file or folder {path}"
    names = sorted(each.name + "/" * each.is_dir() for each in path.iterdir())
    if not names:
        return f"{path} is an empty folder"
    more = ", …" if len(names) > _SHOWN else ""
    return f"{path} is a folder with {', '.join(names[:_SHOWN])}{more} in it"


def not_a_run(path: Path) -> str:
    """What is said where there is no run: what is there instead, and what to name."""
    there = f"{what_is(path)}: it is not a run folder" if path.exists() else f"there is no folder {path}"
    if not path.exists() and (near := _run_meant(path)):
        return f"{there}; did you mean the run folder {near}?"
    return f"{there}; name a run folder, which `altmin train` makes (it has a {MANIFEST})"


def _run_meant(path: Path) -> Path | None:
    """The run folder, beside it or under ``runs/``, that may have been meant."""
    places = [each for each in (path.parent, path.parent / "runs") if each.is_dir()]
    runs = {each.name: each for place in reversed(places) for each in place.iterdir() if is_run(each)}
    close = get_close_matches(path.name, runs, n=1, cutoff=0.75)
    return runs[close[0]] if close else None


def meant(path: Path, others: Iterable[str] = ()) -> str:
    """The name beside it, or of the others, that may have been meant, as the end of a sentence; often nothing."""
    if path.is_symlink():
        return ""
    try:
        there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError:  # a folder that may not be read
        there = []
    close = get_close_matches(path.name, [*others, *there], n=1, cutoff=0.75)
    # names may be alike by their endings alone
    if not close or not get_close_matches(path.stem, [Path(close[0]).stem], cutoff=0.5):
        return ""
    return f"; did you mean {close[0] if close[0] in others else path.parent / close[0]}?"
