"""The report of a run: figures as PNG files, and one self-contained HTML page with everything in it."""

from __future__ import annotations

from pathlib import Path

from altmin_dask.report.facts import Facts
from altmin_dask.report.files import check_own, draw, write_page
from altmin_dask.report.pictures import FORMER, NAMES, Section, constraints, predictions, progress
from altmin_dask.report.sampling import NoSamplesError, sampled
from altmin_dask.report.settings import all_settings, changed_settings
from altmin_dask.report.summary import history_table
from altmin_dask.storage.run import RunFolder
from altmin_dask.storage.writable import check_writable, making


def write_report(run: RunFolder) -> Path:
    """Write ``RUN/report/``: a self-contained page, and its figures as PNG files.

    Parameters
    ----------
    run : RunFolder
        A run with a record and a model; it may still be going on.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    MissingError
        If it is not a run folder, or has no records or no model yet.
    DataError
        If its files are damaged.
    ExistsError
        If there are other files by the names of the report's.
    StorageError
        If the folder cannot be written.
    """
    facts = Facts.of(run)
    sections, notes = sections_of(facts)
    page_file = run.report / "report.html"
    with making(page_file):
        run.report.mkdir(exist_ok=True)
    check_own(page_file)
    check_writable(page_file)
    shown = draw(sections, run.report, (*NAMES, *FORMER))
    head, rows = history_table(facts.records)
    return write_page(
        page_file,
        "page.html",
        title=facts.title,
        folder=facts.name,
        date=facts.date,
        performance="performance.html" if (run.report / "performance.html").exists() else "",
        network=facts.network,
        verdict=facts.verdict,
        figures=facts.figures(),
        kept=facts.kept(),
        facts=facts.about(),
        tables=facts.tables(),
        sections=shown,
        notes=notes,
        changed=changed_settings(facts.settings),
        settings=all_settings(facts.settings, facts.resolved, facts.scheduler),
        head=head,
        rows=rows,
    )


def sections_of(facts: Facts) -> tuple[list[Section], list[str]]:
    """Everything that is drawn of a run, and sentences on what could not be."""
    sections, notes = [progress(facts.records, facts.verdict, facts.unit)], []
    try:
        shown = sampled(facts.run, facts.model)
        sections.append(predictions(shown, facts.model, facts.verdict.metrics))
    except NoSamplesError as error:
        notes.append(f"No pictures of samples: {error}")
    sections.append(constraints(facts.records, facts.verdict))
    return [section for section in sections if section.pictures or section.notes], notes
