"""The documentation: `sphinx-build -W docs FOLDER`, after `pip install -e '.[docs]'`."""

from xml.etree import ElementTree

from docutils.nodes import SkipNode, image, literal
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.images import get_image_size

from altmin_dask import __version__

project, author, release = "altmin_dask", "The altmin_dask developers", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
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
html_static_path, html_css_files = ["static"], ["site.css"]
_HEADER = {"color-table-header-background": "#80879018"}  # lets the shadow of a table through
html_theme_options = {  # of figures and shadows, static/site.css; 0.92 makes white what the dark page is
    "light_css_variables": {
        **_HEADER,
        "line-figure": "none",
        "picture": "none",
        "picture-margin": "0",
        "shadow": "#0003",
    },
    "dark_css_variables": {
        **_HEADER,
        "line-figure": "invert(0.92) hue-rotate(180deg)",
        "picture": "brightness(0.85)",
        "picture-margin": "0.75rem",
        "shadow": "#000c",
    },
}
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"


def setup(app):
    """Formulas become MathML while the site is built: no browser has to fetch a program for them."""
    app.add_html_math_renderer("mathml", (_formula, None), (_block, None))
    app.connect("doctree-resolved", _mark)


def _mark(app, tree, page):
    """Tell static/site.css which figures are too wide for a phone, and which code has no word that is."""
    for code in tree.findall(literal):
        if max(map(len, code.astext().split()), default=0) <= 30:
            code["classes"].append("whole")
    for figure in tree.findall(image):
        size = get_image_size(app.srcdir / figure["uri"])
        if size and size[0] >= 900:
            figure["classes"].append("wide")


def _formula(writer, node):
    writer.body.append(mathml(node.astext()))
    raise SkipNode


def _block(writer, node):
    writer.body.append(f'<div class="math">{mathml(node.astext(), as_block=True)}</div>')
    raise SkipNode


_SPACE = "http://www.w3.org/1998/Math/MathML"


def mathml(formula, **how):
    """Make MathML of a formula; indices of letters with an accent stand beside them, where docutils has them below."""
    ElementTree.register_namespace("", _SPACE)
    tree = ElementTree.fromstring(tex2mathml(formula, **how))
    for element in [*tree.iter(f"{{{_SPACE}}}munderover")]:
        letter, index, accent = element
        if letter.tag == f"{{{_SPACE}}}mi":  # else it is a sum with its limits
            accented = ElementTree.Element(f"{{{_SPACE}}}mover", {"accent": "true"})
            accented.extend([letter, accent])
            element.tag = f"{{{_SPACE}}}msub"
            element[:] = [accented, index]
    return ElementTree.tostring(tree, encoding="unicode")
