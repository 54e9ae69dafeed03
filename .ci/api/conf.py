"""The API reference page: `sphinx-build -W -b html .ci/api FOLDER`."""

project = "altmin_dask"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
autodoc_typehints = "none"  # docstrings say more
# whose text is scikit-learn's, and points to its pages
_METHODS = ("fit", "partial_fit", "predict", "predict_proba", "score", "transform", "inverse_transform")
_THEIRS = [f"set_{method}_request" for method in _METHODS]
_THEIRS += ["get_metadata_routing", "set_output"]
autodoc_default_options = {"members": True, "exclude-members": ", ".join(_THEIRS)}
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
nitpicky = False
html_theme = "alabaster"
html_show_sourcelink = False
html_theme_options = {"nosidebar": True}
