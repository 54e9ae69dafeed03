"""The documentation: `sphinx-build -W docs FOLDER`, after `pip install -e '.[docs]'`."""

from altmin_dask import __version__

project, author, release = "altmin_dask", "The altmin_dask developers", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# what a page runs is told to its test in comments, tests/support/documents.py
autodoc_typehints = "none"  # docstrings say more
# whose text is scikit-learn's, and points to its pages
_METHODS = ("fit", "partial_fit", "predict", "predict_proba", "score", "transform", "inverse_transform")
_THEIRS = [f"set_{method}_request" for method in _METHODS]
_THEIRS += ["get_metadata_routing", "set_output"]
autodoc_default_options = {"members": True, "exclude-members": ", ".join(_THEIRS)}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
html_theme = "furo"
html_title = "altmin_dask"
html_show_sourcelink = False
html_copy_source = False
