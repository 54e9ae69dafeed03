"""Commands that a message tells to type: whole, and quoted, so that a shell takes them as they are printed.

What is in the wrong order is refused with the command in the right one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import join

from altmin_dask.config import Pipeline
from altmin_dask.errors import ConfigError
from altmin_dask.storage.locations import is_url
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.what import DATA, is_data, is_run, meant, what_is
from altmin_dask.storage.zarr_groups import is_zarr_folder
from altmin_dask.training.ending import STILL_FALLING
from altmin_dask.training.result import read_result

NEW_SAMPLES = "NEW_SAMPLES"
"""In a command, where training has seen all samples that there are, or chosen the model by them."""
LIKE = 0.6
"""How like a name has to be to that of a file to be a slip of it, as nna is to nan, and out is not to multi."""


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


def longer(
    file: Path,
    pipeline: Pipeline,
    run: RunFolder,
    overrides: Sequence[str] = (),
    scheduler: str | None = None,
    scheduler_file: str | None = None,
) -> list[str]:
    """The command that trains twice as long, where a limit has ended a run whose loss was still falling; or nothing.

    Parameters
    ----------
    file, run, overrides, scheduler, scheduler_file : path, RunFolder, sequence of str, str, str
        As `resuming` takes them.
    pipeline : Pipeline
        What was trained.
    """
    result = read_result(run)
    if result is None or not result.next.startswith(STILL_FALLING):
        return []
    key = f"training.{result.stopped.reason}"
    limit = getattr(pipeline.training, result.stopped.reason) or result.resolved.get(key)
    if limit is None:
        return []
    others = [each for each in overrides if each.partition("=")[0].strip() != key]
    return [resuming(file, run, [*others, f"{key}={2 * limit:.12g}"], scheduler, scheduler_file)]


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


def check_pipeline_first(command: str, pipeline: Path, words: Sequence[str], *more: str) -> None:
    """Refuse a setting in front of the pipeline, with the command as it was meant.

    Parameters
    ----------
    command, pipeline, words, more : str, path, sequence of str, str
        The command, its arguments, and options as they were given.

    Raises
    ------
    ConfigError
        If the first is a setting.
    """
    setting = os.fspath(pipeline)
    if "=" not in setting or pipeline.exists():
        return
    file = next((each for each in words if "=" not in each and Path(each).suffix == ".toml"), None)
    others = [setting, *(each for each in words if each != file), *more]
    raise ConfigError(
        "the pipeline comes first, and then what replaces its settings; write "
        f"`{join(['altmin', command, file or 'PIPELINE.toml', *others])}`"
    )


def check_run_first(command: str, run: str, other: str, *more: str) -> None:
    """Refuse a run and what goes with it in the wrong order, with the command as it was meant.

    Raises
    ------
    ConfigError
        If the second is the run folder, and the first is none.
    """
    if not is_run(Path(run)) and is_run(Path(other)):
        raise _swapped(other, command, other, run, *more)


def check_source_first(command: str, source: str, dest: str, *before: str) -> None:
    """Refuse samples and what is to be written in the wrong order, with the command as it was meant.

    Raises
    ------
    ConfigError
        If samples are in the second place, and in the first is nothing (but no slip), or a store where the second
        cannot be one; or if what is written would be gone with the command.
    """
    if command in ("ingest", "predict") and dest.startswith("memory://"):
        raise ConfigError(
            f"{dest} is memory of this command, and gone when it ends; name a folder, or a URL of an object store"
        )
    first, second = Path(source), Path(dest)
    if is_url(source) or not is_data(second) or first == second:
        return
    # another name that was meant is told where the source is opened
    near = meant(first).removeprefix("; did you mean ").removesuffix("?")
    slip = near not in ("", str(second)) and bool(
        get_close_matches(first.stem, [Path(near).stem], cutoff=LIKE)
    )
    if not first.exists() and first.suffix in (".zarr", *DATA) and not slip:
        raise _swapped(dest, command, *before, dest, source)
    if second.is_file() and is_zarr_folder(first):
        raise _swapped(dest, command, *before, dest, source)


def _swapped(named: str, *words: str) -> ConfigError:
    return ConfigError(
        f"{what_is(Path(named))}: the arguments are swapped; write `{join(['altmin', *words])}`"
    )


def _samples(pipeline: Pipeline, run: RunFolder) -> str:
    """Samples to evaluate a run on: what those for validation are called, or if that does not say all, their store.

    Where they are none, or a share of the rows, the place of new ones.
    """
    data = pipeline.data
    spec = data.validation
    if not isinstance(spec, str):
        return NEW_SAMPLES
    said = {"x", "y", *data.given} - {"scale", "chunk_rows", "shuffle"}
    if all(getattr(data, name) is None for name in said):
        return _word(spec)
    store = run.manifest.stores()["validation"]
    return _word(os.path.relpath(store) if Path(store).is_relative_to(run.path.absolute()) else store)


def _word(word: str | os.PathLike[str]) -> str:
    """A path that is not taken for an option."""
    text = os.fspath(word)
    return f"./{text}" if text.startswith("-") else text
