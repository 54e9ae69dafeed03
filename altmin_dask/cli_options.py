"""Arguments and options of all commands: what they are called, and what `--help` says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from altmin_dask.errors import ConfigError


def overrides_like(incomplete: str) -> list[str]:
    """What --set takes, of settings that begin so, for a shell to complete."""
    from altmin_dask.config.catalogue import catalogue

    return [f"{name}=" for name in catalogue() if name.startswith(incomplete)]


SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="digits, synthetic:rows=N,features=N, a .npz, .npy, .csv or .parquet file, a folder of idx files, tables "
        "or images, or a zarr path or URL; append :train or :test for a split",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder that `altmin train` made.")]
PipelineArgument = Annotated[Path, typer.Argument(metavar="PIPELINE.toml", help="What to train on what.")]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE ...]",
        help="Settings that replace those of the file, as --set does: solver.ridge=0.1.",
    ),
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a setting; may be given again.",
        autocompletion=overrides_like,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
XOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME,…", help="The array of samples, or the columns of a table; by default x, or all others."
    ),
]
YOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,…", help="The array of targets, or the columns of a table; by default y."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that is there, or a store of this command's.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on the Dask scheduler at this address.")
]
SchedulerFileOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Run on the scheduler that writes this file (`dask scheduler` has it, too)."
    ),
]
PrefixOption = Annotated[
    str, typer.Option(metavar="PATH", help="Path in front of the page's, where a proxy passes it on.")
]
OriginOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST[:PORT]", help="The address that browsers have of a proxy; may be given again."
    ),
]
MissingOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[COLUMN=]mean|median|constant[:VALUE]|refuse",
        help="What becomes of missing values of a table; refused if nothing is said.",
    ),
]
HandleUnknownOption = Annotated[
    str | None,
    typer.Option(metavar="ignore|error|infrequent_if_exist", help="What becomes of values that are new."),
]
MaxCategoriesOption = Annotated[
    int | None, typer.Option(metavar="N", help="Numbers that a column of text becomes at most.")
]
MinFrequencyOption = Annotated[
    float | None, typer.Option(metavar="ROWS|SHARE", help="Rarer values of text share one number.")
]
DatesOption = Annotated[
    str | None,
    typer.Option(metavar="days|cyclic", help="With month, weekday and hour as cycles, or not."),
]
CsvOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE", help="How csv is read: sep, decimal, header, encoding, na_values, literal, …"
    ),
]
DropOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME,…", help="Columns of a table to leave out, such as one that numbers rows."),
]
LikeOption = Annotated[
    str | None, typer.Option(metavar="STORE", help="Prepare samples exactly as those of this store are.")
]
ShuffleOption = Annotated[
    bool, typer.Option(help="Bring rows into a random order, whatever they are sorted by.")
]
SeedOption = Annotated[int, typer.Option(metavar="N", min=0, help="Decides that order.")]
ScaleOption = Annotated[float, typer.Option(metavar="DIVISOR", help="Divide samples by this.")]
StandardizeOption = Annotated[
    bool,
    typer.Option(
        "--standardize", help="Bring numbers, and targets that are not all whole, to mean 0, variance 1."
    ),
]
DtypeOption = Annotated[
    str,
    typer.Option(
        metavar="float32|float64",
        help="Of the store; float64 keeps all digits, for networks of that dtype.",
    ),
]
ChunkRowsOption = Annotated[
    int | None, typer.Option(metavar="N", help="Rows in a chunk; by default about 8 MiB.")
]


def joined(names: list[str] | None) -> str | None:
    """Names that were given one by one as one gives them together."""
    return ",".join(names) if names else None


def sets(settings: list[str] | None) -> list[str]:
    """Options that replace settings, as they were written."""
    return [word for each in settings or () for word in ("--set", each)]


def scheduler_at(address: str | None, file: str | None) -> str | None:
    """The address of the scheduler that is named by it, or by a file; None where none is."""
    if file is None:
        return address
    if address is not None:
        raise ConfigError("--scheduler and --scheduler-file both name a scheduler; give one of them")
    from altmin_dask.execution.connect import address_in

    return address_in(file)
