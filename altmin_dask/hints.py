"""Commands that a message tells to type: whole, and quoted, so that a shell takes them as they are printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import join

from altmin_dask.config import Pipeline
from altmin_dask.storage.run import RunFolder


def resuming(
    file: Path,
    run: RunFolder,
    overrides: Sequence[str] = (),
    scheduler: str | None = None,
    scheduler_file: str | None = None,
) -> str:
    """The command that goes on with a run, with the settings and the scheduler that it was started with.

    Parameters
    ----------
    file : path
        The pipeline.
    run : RunFolder
        Its folder.
    overrides : sequence of str
        Settings that replaced those of the file: without them it would be another pipeline.
    scheduler, scheduler_file : str, optional
        Where it ran.
    """
    where = ["--scheduler", scheduler] if scheduler else []
    where += ["--scheduler-file", scheduler_file] if scheduler_file else []
    words = ["altmin", "train", _word(file), "--run", _word(run.path), "--resume", *where]
    return join([*words, *(part for each in overrides for part in ("--set", each))])


def following(pipeline: Pipeline, run: RunFolder) -> list[str]:
    """What one types next: commands on a run that has ended.

    Parameters
    ----------
    pipeline, run : Pipeline, RunFolder
        What was trained where.
    """
    folder = _word(run.path)
    commands = [["evaluate", folder, _samples(pipeline, run)], ["report", folder], ["dashboard", folder]]
    return [join(["altmin", *words]) for words in commands]


def _samples(pipeline: Pipeline, run: RunFolder) -> str:
    """Samples to evaluate a run on: what they are called, if that says all of them, or the store made of them."""
    data, role = pipeline.data, "train" if pipeline.data.validation is None else "validation"
    spec = data.train if data.validation is None else data.validation
    said = {"x", "y", *data.given} - {"scale", "chunk_rows", "shuffle"}
    if isinstance(spec, str) and all(getattr(data, name) is None for name in said):
        return _word(spec)
    store = run.manifest.stores()[role]
    return _word(os.path.relpath(store) if Path(store).is_relative_to(run.path.absolute()) else store)


def _word(word: str | os.PathLike[str]) -> str:
    """A path that is not taken for an option."""
    text = os.fspath(word)
    return f"./{text}" if text.startswith("-") else text
