"""Every public name is documented with an example that runs, and the documentation is built with all of them."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from choices import slow_but

import altmin_dask

ROOT = Path(__file__).parents[2]
ESTIMATORS = [name for name in altmin_dask.__all__ if name.startswith("AltMin")]


@pytest.mark.parametrize(
    "name", slow_but([n for n in altmin_dask.__all__ if n not in ESTIMATORS[1:]], altmin_dask.__all__)
)
def test_examples_of_public_names_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing = getattr(altmin_dask, name)
    document = inspect.getdoc(thing)
    assert "Examples\n--------\n>>> " in document
    parser, flags = doctest.DocTestParser(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = parser.get_doctest(document, {}, name, None, 0)
    told: list[str] = []
    doctest.DocTestRunner(optionflags=flags).run(test, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_methods_and_parameters_are_documented(name):
    kind = getattr(altmin_dask, name)
    for method, function in inspect.getmembers(kind, inspect.isfunction):
        if not method.startswith("_") and function.__module__.startswith("altmin_dask"):
            assert inspect.getdoc(function), method
    document = inspect.getdoc(kind)
    assert "%(" not in document
    for name, parameter in inspect.signature(kind).parameters.items():
        described = re.findall(rf"^{name} : .+, default (.+)\n    \S", document, re.MULTILINE)
        assert described == [repr(parameter.default)], name
    for name in ("model_", "history_", "n_iter_", "feature_names_in_"):
        assert f"\n{name} : " in document, name


@pytest.mark.slow
def test_site_is_built_without_warnings(tmp_path):
    for package in ("numpydoc", "myst_parser", "furo"):
        pytest.importorskip(package)
    folders = (ROOT / "docs", tmp_path / "html")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *map(str, folders)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "reference.html").read_text(encoding="utf-8")
    for name in altmin_dask.__all__:
        assert f'id="altmin_dask.{name}"' in page, name
