"""What the workers of a run do, and what memory they take: shares of their time, and bars against the plan."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from altmin_dask.dashboard.board import ACTIVITIES, TRAINER, RunState, by_activity
from altmin_dask.dashboard.panels import heading
from altmin_dask.dashboard.theme import TEXT
from altmin_dask.format import duration

MOST_WORKERS = 16
"""Workers whose memory is shown."""
PRESSED = 0.7
"""Workers of Dask spill to disk, or are paused, beyond this share of their limit."""
WORK = tuple(name for name in (*ACTIVITIES, "other") if name not in TRAINER)
WORDS = {
    "read": "reads samples",
    "newton": "improves z",
    "statistics": "sums up",
    "model": "models the step",
    "evaluate": "evaluates",
    "write": "writes z",
    "other": "other (Dask, transfers)",
    "solve": "solved",
    "commit": "committed",
    "wait": "waited for workers",
}
"""What people call an activity."""
WITHOUT_Z = WORDS | {"newton": "computes gradients"}
"""The same where z is the forward pass."""
STYLE = (
    TEXT
    + """
p { margin: 4px 0 8px; }
.row { display: flex; align-items: center; gap: 10px; margin: 5px 0; flex-wrap: wrap; }
.row .name { flex: 0 0 auto; min-width: 24px; max-width: 40%; overflow-wrap: anywhere; }
.row .bar { flex: 1 1 140px; }
.row .said { flex: 0 1 auto; color: var(--altmin-muted); }
.row .said.bad { color: var(--altmin-bad); font-weight: 600; }
.bar .plan { position: absolute; top: 0; width: 2px; background: var(--altmin-ink); }
.bar .beyond {
  background: repeating-linear-gradient(45deg, var(--altmin-bad) 0 4px,
    color-mix(in srgb, var(--altmin-bad) 55%, transparent) 4px 8px);
}
"""
)


def time_shares(state: RunState | None, *, alone: bool) -> str:
    """How much of their time the threads of the workers were busy with a run, and with what; HTML.

    What the process that trains did is told apart: while it waits workers work.

    Parameters
    ----------
    state : RunState or None
        The run.
    alone : bool
        Whether nobody else has runs on these workers.
    """
    seconds = by_activity(state.progress.usage.seconds) if state is not None and state.progress else {}
    work = {name: seconds[name] for name in WORK if seconds.get(name)}
    if state is None or not work:
        return ""
    busy = sum(work.values())
    # what workers say comes a moment later than the time in which they did it
    whole = max(state.thread_seconds, busy)
    keys, bar = "", ""
    words = WITHOUT_Z if state.records and state.records[-1].relaxed_objective is None else WORDS
    for name, spent in work.items():
        colour = f"var(--altmin-activity{WORK.index(name)})"
        bar += f'<i style="width:{100 * spent / whole:.2f}%;background:{colour}" title="{words[name]}"></i>'
        chip = f'<span class="chip" style="background:{colour}"></span>'
        keys += f'<span class="key">{chip}{words[name]} {_percent(spent / whole)}</span>'
    if state.thread_seconds:
        idle = "idle" if alone else "idle, or busy with other runs,"
        shares = f"busy {_percent(busy / whole)}, {idle} {_percent(1 - busy / whole)}"
        said = f"{shares} of {duration(whole)} that their threads had"
    else:
        said = f"busy for {duration(busy)}; nobody knows for how long they were idle"
    own = [f"{WORDS[name]} for {_seconds(seconds[name])}" for name in TRAINER if seconds.get(name)]
    trainer = f'<p class="muted">The process that trains {_listed(own)}.</p>' if own else ""
    return f'{heading("Workers")}<p>{said}</p><div class="bar">{bar}</div><p>{keys}</p>{trainer}'


def memory_bars(workers: Sequence[tuple[str, float, float]], planned: float | None, when: str = "") -> str:
    """The memory of workers in bars, each marked where it is beyond what was planned; HTML.

    Parameters
    ----------
    workers : sequence of (str, float, float)
        Name, bytes in use and limit (0 for none).
    planned : float or None
        Bytes that one of them needs at most.
    when : str
        Of which moment, where it is not now.
    """
    if not workers:
        return ""
    count = len(workers)
    if count > MOST_WORKERS:  # those that are in need, in their order
        worst = set(sorted(workers, key=lambda worker: -worker[1])[:MOST_WORKERS])
        workers = [worker for worker in workers if worker in worst]
    scale = 1.05 * max([planned or 0.0, *(used for _, used, _ in workers), 1.0])
    rows = "".join(_memory_bar(*worker, planned, scale) for worker in workers)
    notes = [when, f"the {MOST_WORKERS} largest of {count}" if count > MOST_WORKERS else ""]
    if planned:
        notes.append(f"planned at most {_mebibytes(planned)}{' each' if count > 1 else ''} (the mark)")
    return f'{heading("Memory of the workers")}<p class="muted">{", ".join(filter(None, notes))}</p>{rows}'


def _memory_bar(name: str, used: float, limit: float, planned: float | None, scale: float) -> str:
    within = used if planned is None else min(used, planned)
    beyond = used - within
    bar = f'<i style="width:{100 * within / scale:.2f}%;background:var(--altmin-busy)"></i>'
    said, kind = _mebibytes(used), ""
    if beyond > 0:
        bar += f'<i class="beyond" style="width:{100 * beyond / scale:.2f}%"></i>'
        said, kind = f"{said}: {_mebibytes(beyond)} beyond the plan", " bad"
    if planned:
        bar += f'<i class="plan" style="left:{100 * planned / scale:.2f}%"></i>'
    if limit and used > PRESSED * limit:
        said, kind = f"{said}, {_percent(used / limit)} of its limit", " bad"
    return (
        f'<div class="row"><span class="name">{escape(name)}</span><span class="bar">{bar}</span>'
        f'<span class="said{kind}">{said}</span></div>'
    )


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _seconds(seconds: float) -> str:
    """Tenths, where there are few."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
