"""What README and documentation say is run, and what they show is what comes out; links, figures and lengths hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from documents import PAGES, ROOT, Block, Page, commands, make_bucket, outline, parse, prepare, shown

from altmin_dask.config import load_pipeline

FAST = ("errors.md",)
"""Pages that are run by default: the others take seconds each."""
SCRIPTS = [
    ROOT / "docs" / "make_figures.py",
    *(ROOT / "examples").glob("*.py"),
    *(ROOT / "benchmarks").glob("*.py"),
]
every_page = pytest.mark.parametrize(
    "page", [Page(file) for file in PAGES], ids=lambda page: str(page.file.relative_to(ROOT))
)


def understand(block: Block, folder: Path) -> None:
    """Parse a block; commands of altmin and Dask have options that there are."""
    match block.language:
        case "python":
            ast.parse(block.text)
        case "toml":
            (folder / "p.toml").write_text(block.text, encoding="utf-8")
            load_pipeline(folder / "p.toml")
        case "sh":
            subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
            for words in commands(block.text):
                if words[0] in ("altmin", "dask"):
                    parse(words)
                elif words[0] == "python" and words[1].endswith(".py"):
                    assert (ROOT / words[1]).exists()
        case "text" | "{toctree}" | "{include}":
            pass
        case other:
            pytest.fail(f"{other or 'no language'} is run by nobody")


@every_page
def test_blocks_are_understood(page, tmp_path):
    for before, block in zip([None, *page.blocks], page.blocks, strict=False):
        understand(block, tmp_path)
        if block.mark in ("not run", "file"):
            assert block.said
        elif block.mark == "smaller":
            assert block.said.split(" -> ")[0] in block.text
        elif block.mark == "output":
            assert block.language == "text"
            assert before.language in ("sh", "python")
        elif block.language == "text":
            pytest.fail(f"{page.file.name}:{block.line}: nobody says that this is what is printed")


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            Page(file), id=str(file.relative_to(ROOT)), marks=() if file.name in FAST else pytest.mark.slow
        )
        for file in PAGES
        if Page(file).blocks
    ],
)
def test_pages_run(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, monkeypatch)
    if page.needs_bucket:
        request.getfixturevalue("endpoint")
        make_bucket()
    for block, printed in page.run():
        there = page.lines[block.line : block.end]
        assert outline(there) == outline(shown(block, printed)), (
            f"{page.file.name}:{block.line}: write anew by python tests/support/documents.py {page.file.name}"
        )


@every_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", "\n".join(page.lines)):
        if "://" not in target:
            assert (page.file.parent / target).exists(), target


@every_page
def test_figures_are_made_by_scripts_that_are_kept(page):
    names = {name for script in SCRIPTS for name in re.findall(r"[\w]+", script.read_text(encoding="utf-8"))}
    for figure in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", "\n".join(page.lines)):
        assert Path(figure).stem in names, figure


def test_no_figure_is_left_over():
    shown = {
        name for file in PAGES for name in re.findall(r"figures/(\w+)\.png", file.read_text(encoding="utf-8"))
    }
    assert {file.stem for file in (ROOT / "docs" / "figures").iterdir()} == shown


@pytest.mark.slow
def test_figures_are_drawn(tmp_path):
    command = [sys.executable, ROOT / "docs" / "make_figures.py", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert {f.name for f in tmp_path.iterdir()} == {f.name for f in (ROOT / "docs" / "figures").iterdir()}
    error = re.search(r"relative error of the product (\S+)", done.stdout)[1]
    assert f"\n{error} of its norm" in (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")


MARKED = {
    "run": "pip install . && altmin train pipelines/digits_autoencoder.toml",
    "test": "pip install -e '.[test]' && python -m pytest",
}
ORDER = [
    "# altmin_dask",
    "Not for:",
    "newcomer: run",
    "newcomer: test",
    "![",
    "## Install",
    "## Python",
    "## Your csv",
]
ORDER += ["## Larger than memory", "## The idea", "## Measured", "## More", "LICENSE", "Lu & Dang"]


def test_readme_is_short_and_in_order():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    places = [text.index(part) for part in ORDER]
    assert places == sorted(places)
    assert text.count("\n* **") == 6
    for name, command in MARKED.items():
        assert f"<!-- newcomer: {name} -->\n```sh\n{command}\n```\n" in text
    for word in ("**residual**", "**sweep**", "**nested loss**"):
        assert word in text
    idea = text[text.index("## The idea") : text.index("## Measured")].strip().splitlines()
    assert len(idea) <= 12
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    install = text[text.index("## Install") : text.index("## Python")]
    assert not [name for name in extras if f"`{name}`" not in install]


def test_licence_is_the_one_that_is_declared():
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["license"]
    assert licence == "BSD-3-Clause"
    assert "BSD 3-Clause" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("BSD 3-Clause License")
