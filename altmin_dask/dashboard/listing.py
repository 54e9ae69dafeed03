"""The runs as a table of the page, a card each where there is no room for it; whatever comes from outside is text."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from html import escape
from pathlib import PurePath

from altmin_dask.dashboard.board import RunState
from altmin_dask.dashboard.curves import NamedRun
from altmin_dask.dashboard.differences import differences
from altmin_dask.dashboard.theme import TEXT
from altmin_dask.format import duration, known, number
from altmin_dask.training.record import Record

SHOWN_ALIKE = 3
"""Of runs with the same title so many are listed that have ended; the others, which a search makes, on demand."""
STATES = {
    "running": ("running", "busy"),
    "finished": ("finished", "good"),
    "interrupted": ("interrupted", "warn"),
    "failed": ("failed", "bad"),
    "lost": ("lost", "bad"),
    "ended": ("ended", "muted"),
    "": ("unknown", "muted"),
}
"""What the states of a run are called, and in which colour."""
OTHER_METRICS = {
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
    "roc_auc": "ROC AUC",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
}
"""What else is told of a kept model, as `altmin evaluate` measures it."""
SHARES = ("balanced_accuracy",)
"""Those that are shares of samples."""
COLUMNS = ("run", "status", "sweep", "training loss", "validation loss", "accuracy", "began", "elapsed")
STYLE = (
    TEXT
    + """
:host {
  max-height: 60vh; overflow: auto; scrollbar-width: thin;
  border-bottom: 2px solid var(--altmin-line);
}
table { border-collapse: collapse; width: 100%; }
thead th { position: sticky; top: 0; background: var(--altmin-paper); z-index: 1; }
th, td { text-align: left; padding: 4px 14px 2px 6px; white-space: nowrap; vertical-align: top; }
tbody { border-bottom: 1px solid var(--altmin-line); }
tbody.chosen { background: color-mix(in srgb, var(--altmin-busy) 9%, transparent); }
tbody.hidden .chip { opacity: 0.2; }
td.name, td.about { white-space: normal; overflow-wrap: anywhere; }
td.about { padding: 0 6px 6px 26px; color: var(--altmin-muted); }
td.about b { color: var(--altmin-ink); }
td .bar { display: inline-flex; width: 90px; margin-right: 8px; vertical-align: middle; }
button { font: inherit; color: inherit; background: none; border: none; padding: 0; text-align: left; cursor: pointer; }
td.name button { font-weight: 600; }
td.about button, td.more button { color: var(--altmin-busy); text-decoration: underline; margin-left: 10px; }
.badge { border: 1px solid currentColor; border-radius: 10px; padding: 0 8px; font-weight: 600; }
@media (max-width: 900px) {
  thead { display: none; }
  table, tbody, tr, td { display: block; }
  tr { display: flex; flex-wrap: wrap; }
  td { padding: 3px 16px 3px 6px; }
  td.name, td.about, td.more { flex: 1 1 100%; padding-left: 6px; }
  td[data-name]::before { content: attr(data-name); display: block; font-size: 11px; color: var(--altmin-muted); }
  td:empty { display: none; }
  td.about button { margin-left: 0; }
  tbody { padding: 5px 0; }
}
"""
)


def names(runs: Sequence[RunState]) -> dict[str, str]:
    """What runs are called, each by another name: those of one title with what differs, and when they began.

    That is settings, and the folder.
    """
    called = {}
    for title, alike in by_title(runs).items():
        places = _places([state.folder for state in alike])
        settings = differences([state.settings for state in alike])
        for state, told, place in zip(alike, settings, places, strict=True):
            more = (told, place, moment(state.began)) if len(alike) > 1 else ()
            called[state.run] = " · ".join(part for part in (title, *more) if part)
    taken: dict[str, int] = {}
    for name in called.values():
        taken[name] = taken.get(name, 0) + 1
    # those that began in the same second, one after the other
    numbers = {state.run: number for number, state in enumerate(runs, 1)}
    return {run: f"{name} · {numbers[run]}" if taken[name] > 1 else name for run, name in called.items()}


def by_title(runs: Sequence[RunState]) -> dict[str, list[RunState]]:
    """Runs of the same title together."""
    found: dict[str, list[RunState]] = {}
    for state in runs:
        found.setdefault(state.title or state.run, []).append(state)
    return found


def _places(folders: Sequence[str]) -> list[str]:
    """As much of the ends of folders as tells them apart."""
    parts = [PurePath(folder).parts for folder in folders]
    deepest = max(map(len, parts), default=0)
    for depth in range(1, deepest + 1):
        ends = [str(PurePath(*each[-depth:])) if each else "" for each in parts]
        if len(set(filter(None, ends))) == len(list(filter(None, ends))):
            return ends
    return list(folders)


def moment(seconds: float | None) -> str:
    """When something was, by the clock of the machine that makes the page; with the day unless it is today."""
    if seconds is None:
        return ""
    then, now = time.localtime(seconds), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%d %b %H:%M", then)


def folded(runs: Sequence[RunState], unfolded: Collection[str], chosen: str) -> dict[str, list[str]]:
    """By their title the runs that are not listed: a search for parameters makes dozens.

    Parameters
    ----------
    runs : sequence of RunState
        In the order in which they began.
    unfolded : collection of str
        Titles of which all are wanted.
    chosen : str
        What is looked at is listed.
    """
    found = {}
    for title, alike in by_title(runs).items():
        over = [state.run for state in alike if state.state != "running" and state.run != chosen]
        if title not in unfolded and len(over) > SHOWN_ALIKE + 1:
            found[title] = over[:-SHOWN_ALIKE]
    return found


def table(
    runs: Sequence[NamedRun],
    hidden: Collection[str],
    unfolded: Collection[str],
    chosen: str,
) -> str:
    """The runs, the newest first.

    Buttons carry what they are for as ``data-altmin``: "choose", "hide" or "fold", and a run or a title.
    """
    if not runs:
        return "<p>No run has begun yet. <code>altmin train PIPELINE.toml</code> starts one.</p>"
    states, columns = [run.state for run in runs], list(COLUMNS)
    folds, foldable = (folded(states, titles, chosen) for titles in (unfolded, ()))
    # told of after the last of them that is listed: they are older
    last = {
        title: next(s for s in alike if s.run not in folds.get(title, ()))
        for title, alike in by_title(states).items()
    }
    left_out = {run for alike in folds.values() for run in alike}
    rows = []
    for run in reversed(runs):
        if run.state.run in left_out:
            continue
        title = run.state.title or run.state.run
        rows.append(line(run, hidden=run.state.run in hidden, chosen=run.state.run == chosen))
        if last[title] is not run.state or title not in foldable:
            continue
        if title in folds:
            rows.append(_fold(f"{len(folds[title])} more called {title}", "show", title))
        else:
            rows.append(_fold(f"all called {title} are listed", "show fewer", title))
    # what none of them has is no column
    for name, of in (("validation loss", _validation_loss), ("accuracy", _accuracy)):
        if all(of(state, _shown(state)) is None for state in states):
            rows = [row.replace(f'<td data-name="{name}"></td>', "") for row in rows]
            columns = [each for each in columns if each != name]
    head = "".join(f"<th>{name}</th>" for name in columns)
    return f"<table><thead><tr>{head}</tr></thead>{''.join(rows)}</table>"


def _fold(text: str, wish: str, title: str) -> str:
    button = _button("fold", title, wish)
    return (
        f'<tbody><tr><td class="more muted" colspan="{len(COLUMNS)}">{escape(text)}{button}</td></tr></tbody>'
    )


def _button(action: str, of: str, text: str) -> str:
    """A button that `altmin_dask.dashboard.page` listens to; its text is HTML."""
    return f'<button data-altmin="{escape(f"{action} {of}")}">{text}</button>'


def line(run: NamedRun, *, hidden: bool = False, chosen: bool = False) -> str:
    """One run: where it is, or the model that came of it."""
    state, colour = run.state, f"var(--altmin-run{run.colour})"
    shown = _shown(state)
    progress, sweep = state.progress, state.kept.get("sweep", state.sweep)
    most = progress.max_sweeps if progress else None
    share = 100 * min(1.0, (state.sweep or 0) / most) if most else 0
    word, kind = STATES.get(state.state, STATES["ended"])
    if state.state == "running" and progress and progress.waiting:
        word, kind = "waiting", "warn"
    ended = not most or state.kept
    bar = "" if ended else f'<span class="bar"><i style="width:{share:.1f}%;background:{colour}"></i></span>'
    chip = f'<span class="chip" style="background:{colour}"></span>'
    of = f" of {most:g}" if most and not state.kept else ""
    cells = (
        _button("choose", state.run, f"{chip}{escape(run.name)}"),
        f'<span class="badge {kind}">{word}</span>',
        f"{bar}{'kept: ' if state.kept else ''}{known(sweep, unknown='')}{of}" if sweep is not None else "",
        known(shown.nested_loss if shown else None, unknown=""),
        known(_validation_loss(state, shown), unknown=""),
        _told_accuracy(state, shown),
        moment(state.began),
        known(state.elapsed, duration, unknown=""),
    )
    row = "".join(
        f'<td class="name">{cell}</td>' if place == 0 else f'<td data-name="{COLUMNS[place]}">{cell}</td>'
        for place, cell in enumerate(cells)
    )
    hide = _button("hide", state.run, "show curves" if hidden else "hide curves")
    about = f"{_about(state)}<br>{escape(state.description)} {hide}"
    kinds = " ".join(word for word, there in (("chosen", chosen), ("hidden", hidden)) if there)
    return (
        f'<tbody class="{kinds}"><tr>{row}</tr>'
        f'<tr><td class="about" colspan="{len(COLUMNS)}">{about}</td></tr></tbody>'
    )


def percent(share: float) -> str:
    """A share of samples."""
    return f"{share:.2%}"


def _shown(state: RunState) -> Record | None:
    """The record whose numbers are shown: that of the kept model where one knows which it is, else the last."""
    if state.kept:
        return next((record for record in state.records if record.sweep == state.kept.get("sweep")), None)
    return state.records[-1] if state.records else None


def _validation_loss(state: RunState, shown: Record | None) -> float | None:
    if state.kept.get("on") == "validation":
        return state.kept.get("loss")
    return shown.validation_loss if shown else None


def _accuracy(state: RunState, shown: Record | None) -> float | None:
    """On validation samples, where there are any."""
    if state.kept:
        found: float | None = (state.kept.get("metrics") or {}).get("accuracy")
        return found
    if shown is None:
        return None
    return shown.nested_accuracy if shown.validation_accuracy is None else shown.validation_accuracy


def _told_accuracy(state: RunState, shown: Record | None) -> str:
    """The same, and whether it is that of the samples that are trained on."""
    judged = (
        state.kept.get("on") == "validation" if state.kept else _validation_loss(state, shown) is not None
    )
    found = known(_accuracy(state, shown), percent, unknown="")
    return f"{found} in training" if found and not judged else found


def _about(state: RunState) -> str:
    """What there is to say of it in words."""
    progress = state.progress
    if state.state == "running":
        if progress is None:
            return "it begins"
        parts = [
            progress.waiting,
            f"group {progress.group} of {progress.groups}",
            known(state.rows_per_second, lambda rate: f"{rate:,.0f} samples/s", unknown=""),
            known(progress.seconds_left, lambda left: f"{duration(left)} left", unknown=""),
        ]
        return escape(", ".join(part for part in parts if part))
    stopped = (state.result or {}).get("stopped") or {}
    kept = f"<b>{escape(kept_model(state))}</b> " if state.kept else ""
    said = ". ".join(
        text.rstrip(".")[:1].upper() + text.rstrip(".")[1:]
        for text in (stopped.get("text") or state.status, stopped.get("next") or "")
        if text
    )
    return kept + escape(f"{said}." if stopped else state.status)


def kept_model(state: RunState) -> str:
    """The model that one gets, and how good it is, in a sentence."""
    kept = state.kept
    parts = [f"sweep {known(kept.get('sweep'))}", f"{kept.get('on', '')} loss {known(kept.get('loss'))}"]
    metrics = kept.get("metrics") or {}
    parts += [f"accuracy {percent(metrics['accuracy'])}"] if metrics.get("accuracy") is not None else []
    for name, called in OTHER_METRICS.items():
        parts += (
            [f"{called} {known(metrics[name], percent if name in SHARES else number)}"]
            if metrics.get(name) is not None
            else []
        )
    return f"kept: {', '.join(part.strip() for part in parts)}."
