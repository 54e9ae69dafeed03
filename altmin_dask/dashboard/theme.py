"""Colours of the page, light and dark: as rules of style for its text, and as themes for its figures.

Runs have eight colours, layers a part of viridis, activities their own: none of them stands for two things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bokeh.palettes import viridis
from bokeh.themes import Theme as FigureTheme


@dataclass(frozen=True)
class Theme:
    """Colours on one kind of paper; those of text have a contrast to it of 4.5 at least, those of curves of 3.

    Attributes
    ----------
    paper, ink, muted, line, track : str
        Behind everything, text, lesser text, lines, and the part of a bar that is not filled.
    good, busy, warn, bad : str
        Of states: what came to its end, goes on, wants attention, failed.
    runs : tuple of str
        Of runs, in the order in which they begin.
    activities : tuple of str
        Of what workers do.
    layers : (float, float)
        The part of viridis that stands out from the paper.
    """

    paper: str
    ink: str
    muted: str
    line: str
    track: str
    good: str
    busy: str
    warn: str
    bad: str
    runs: tuple[str, ...]
    activities: tuple[str, ...]
    layers: tuple[float, float]

    def layer_colours(self, count: int) -> list[str]:
        """A colour for each of `count` layers."""
        colours = viridis(256)
        first, last = (255 * share for share in self.layers)
        return [colours[round(first + (last - first) * i / max(count - 1, 1))] for i in range(count)]

    def variables(self) -> str:
        """The same for rules of style."""
        names = ("paper", "ink", "muted", "line", "track", "good", "busy", "warn", "bad")
        values = {name: getattr(self, name) for name in names}
        values |= {f"run{i}": colour for i, colour in enumerate(self.runs)}
        values |= {f"activity{i}": colour for i, colour in enumerate(self.activities)}
        return "".join(f"--altmin-{name}: {value};" for name, value in values.items())

    def figures(self) -> FigureTheme:
        """The same for figures."""
        font: dict[str, Any] = {"text_font": "Helvetica Neue, Helvetica, Arial, sans-serif"}
        axis = {
            "axis_line_color": None,
            "major_tick_line_color": None,
            "minor_tick_line_color": None,
            "major_label_text_color": self.muted,
            "major_label_text_font_size": "12px",
            "axis_label_text_color": self.muted,
            "axis_label_text_font_size": "12px",
            "axis_label_text_font_style": "normal",
        }
        # the paper is the page's: what is painted over has edges that show through
        plot = {"background_fill_color": None, "border_fill_color": None, "outline_line_color": None}
        attributes = {
            "Plot": plot,
            "Grid": {"grid_line_color": self.line},
            "Axis": {**axis, **{f"major_label_{name}": value for name, value in font.items()}},
        }
        return FigureTheme(json={"attrs": attributes})


LIGHT = Theme(
    paper="#ffffff",
    ink="#1f2328",
    muted="#5c6675",
    line="#e4e7eb",
    track="#e4e7eb",
    good="#1a7f37",
    busy="#0860ca",
    warn="#8a5a00",
    bad="#c21c2b",
    runs=("#0072b2", "#d55e00", "#00855f", "#a0409a", "#7d7200", "#0a87a5", "#c2185b", "#5f6b7a"),
    activities=("#4c78a8", "#7a9e3b", "#c98a1b", "#b5577c", "#8a6fc1", "#c4603f", "#8c8479"),
    layers=(0.08, 0.72),
)
DARK = Theme(
    paper="#14181d",
    ink="#e6eaef",
    muted="#98a2b0",
    line="#2b323b",
    track="#2b323b",
    good="#4cc26a",
    busy="#6cb0ff",
    warn="#e0a93a",
    bad="#ff7b72",
    runs=("#56b4e9", "#f0883e", "#2ec4a0", "#d58fd0", "#d4c04a", "#4fd0e6", "#ff7aa2", "#aab4c0"),
    activities=("#7fa9d6", "#a3c86a", "#e6b455", "#de8aab", "#b49ee6", "#ec8f70", "#b3aca2"),
    layers=(0.48, 0.96),
)

DARK_CLASS = "altmin-dark"
"""Of the root element, where dark is wanted: variables of style reach from there into every part of the page."""
HEAD = (
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<style>:root {{ color-scheme: light; {LIGHT.variables()} }}"
    f":root.{DARK_CLASS} {{ color-scheme: dark; {DARK.variables()} }}"
    """
    /* the root element, too: the body ends where the window does */
    html, body { background: var(--altmin-paper); color: var(--altmin-ink); }
    body { overflow-x: hidden; }
    .altmin-dark .navbar, .altmin-dark .navbar ul, .altmin-dark .dropdown-content {
      background-color: #2b3035 !important;
    }
    .altmin-dark .navbar a, .altmin-dark .dropdown-content a { color: #e6eaef !important; }
    .altmin-dark #navbar-toggle-icon img { filter: invert(1); }
    </style>
    """
    f"<script>document.documentElement.classList.toggle('{DARK_CLASS}', "
    "matchMedia('(prefers-color-scheme: dark)').matches)</script>"
)
ALONE = "<style>body { margin: 0; padding: 8px 10px 24px; box-sizing: border-box; }</style>"
"""Where Dask's dashboard is not around the page."""
WIDGET = """
:host { color: var(--altmin-ink); }
.bk-input, .bk-btn, .bk-btn-default {
  color: var(--altmin-ink); background-color: var(--altmin-paper); border-color: var(--altmin-muted);
}
select:not([multiple]).bk-input.bk-input {
  background-image: linear-gradient(45deg, transparent 50%, var(--altmin-ink) 50%),
    linear-gradient(135deg, var(--altmin-ink) 50%, transparent 50%);
  background-size: 5px 5px, 5px 5px; background-repeat: no-repeat;
  background-position: calc(100% - 14px) 55%, calc(100% - 9px) 55%; padding-right: 28px; text-overflow: ellipsis;
}
.bk-btn.bk-active { background-color: var(--altmin-track); }
"""
TEXT = """
.bk-clearfix { display: block !important; width: 100%; }
:host { color: var(--altmin-ink); font: 13px/1.45 Helvetica Neue, Helvetica, Arial, sans-serif; }
.muted { color: var(--altmin-muted); }
b, th { font-weight: 600; }
h3 { font-size: 14px; font-weight: 600; margin: 0; }
.key { display: inline-block; margin-right: 14px; white-space: nowrap; color: var(--altmin-muted); }
.key svg { vertical-align: middle; margin-right: 5px; overflow: visible; }
.chip { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.good { color: var(--altmin-good); } .busy { color: var(--altmin-busy); }
.warn { color: var(--altmin-warn); } .bad { color: var(--altmin-bad); }
.bar { position: relative; display: flex; height: 12px; background: var(--altmin-track); border-radius: 3px; }
.bar { overflow: hidden; }
.bar i { height: 100%; }
"""
