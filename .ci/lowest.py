"""Tell that every requirement of pyproject.toml is installed in the oldest release it allows."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = project["optional-dependencies"]
asked = [
    *map(Requirement, project["dependencies"]),
    *(Requirement(line) for name in extras if name not in ("torch", "bench") for line in extras[name]),
]
newer = []
for requirement in asked:
    if requirement.name != project["name"]:
        (bound,) = requirement.specifier
        found = Version(version(requirement.name))
        print(f"{requirement.name} {found}")
        if found != Version(bound.version):
            newer.append(f"{requirement.name}{bound} is tested with {found} only: raise the bound")
if newer:
    raise SystemExit("\n".join(newer))
