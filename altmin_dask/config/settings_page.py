"""The page of the documentation that lists every setting, written from the same catalogue as `altmin settings`."""

from __future__ import annotations

from collections.abc import Iterator

from altmin_dask.config.catalogue import Setting, catalogue, tables

_HEAD = """\
# Settings

<!-- Written by `altmin settings --markdown > docs/settings.md`; change the tables in altmin_dask/config instead. -->

A pipeline is a TOML file of these tables. `altmin init classifier` writes one to begin with, `altmin settings` shows
this page in a terminal (`altmin settings solver`, `altmin settings ridge`, `--json`), and `altmin plan FILE` shows what
every setting comes to: first those that the file changes, then those that were chosen for the run. A run keeps them in
its `pipeline.json`.

On the command line a setting is replaced by `--set TABLE.KEY=VALUE`: `--set solver.ridge=0.1`. Values are written as in
TOML; the quotes of a word may be left out, as may the brackets of a list:
`--set network.hidden_layer_sizes=64,32` is `[64, 32]`, and `=32` is `[32]`.

`altmin --install-completion` lets your shell complete commands, options and the names of settings (bash, zsh, fish and
PowerShell; `--show-completion` prints what it would install).

The estimators take the most used settings as parameters, and others by `settings`:
`AltMinClassifier(ridge=0.1, settings={"solver.output_damping": 0.01})`. Their defaults are those of this page, but
where *In Python* says which, and why.
"""


def page() -> str:
    """The whole page, in Markdown."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for table, what in tables().items():
        yield f"## [{table}]\n\n{what[0].upper()}{what[1:]}\n"
        for setting in catalogue().values():
            if setting.table == table:
                yield _section(setting)


def _section(setting: Setting) -> str:
    default = f"`{setting.default_text}`" if setting.has_value else setting.default_text
    facts = [f"Default: {default}", f"Values: {setting.allowed}", f"Used by: {setting.used_by}"]
    facts += [f"In Python: {setting.in_python}"] if setting.in_python else []
    meaning = "\n\n".join(setting.meaning.splitlines())
    return f"### {setting.key}\n\n{meaning}\n\n" + "\n".join(f"- {fact}" for fact in facts) + "\n"
