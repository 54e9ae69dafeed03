"""`altmin settings`: every setting of a pipeline, for people, for programs, and as the page of the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from altmin_dask.errors import ConfigError

if TYPE_CHECKING:
    from altmin_dask.config.catalogue import Setting

WIDTH = 100
"""Lines are no longer, however wide the terminal is: nobody reads them."""
_INDENT = " " * 4


def names_like(incomplete: str) -> list[str]:
    """Tables and settings that begin so, for a shell to complete."""
    from altmin_dask.config.catalogue import catalogue, tables

    return [name for name in (*tables(), *catalogue()) if name.startswith(incomplete)]


def settings_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[TABLE|KEY]",
            help="Only those of a table, such as solver, or one, such as solver.ridge or ridge.",
            autocompletion=names_like,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page of the documentation, which has all of them.")
    ] = False,
) -> None:
    """List every setting of a pipeline: its default, what it may be, what it means, and who uses it."""
    from altmin_dask.config.catalogue import find
    from altmin_dask.config.settings_page import page

    if markdown:
        if as_json or name is not None:
            raise ConfigError("--markdown prints the whole page; give it alone")
        typer.echo(page(), nl=False)
        return
    found = find(name)
    if as_json:
        typer.echo(json.dumps({each.key: each.to_dict() for each in found}, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for line in _shown(found, min(console.width, WIDTH)):
        console.print(line, soft_wrap=True)


def _shown(found: list[Setting], width: int) -> Iterator[Text]:
    """Each in some lines of a width, under the name of its table."""
    from altmin_dask.config.catalogue import tables

    table = None
    for setting in found:
        if setting.table != table:
            table = setting.table
            yield Text.assemble((f"[{table}]", "bold cyan"), "\n", fill(tables()[table], width), "\n")
        equals = " = " if setting.has_value else "   "
        yield Text.assemble((setting.key, "bold"), equals, setting.default_text.replace("`", ""))
        lines = [setting.allowed, *setting.meaning.splitlines(), f"Used by: {setting.used_by}"]
        lines += [f"In Python: {setting.in_python}"] if setting.in_python else []
        for line in lines:
            yield Text(
                fill(
                    line.replace("`", ""),
                    width,
                    break_on_hyphens=False,
                    initial_indent=_INDENT,
                    subsequent_indent=_INDENT,
                )
            )
        yield Text()
