"""The pages of a model's windows: one for each, and the time line over them all, under `<reports>/<name>/`."""

from collections.abc import Collection, Sequence
from pathlib import Path

from configs.errors import LedgerError
from configs.settings import Settings
from evidence import timeline
from evidence import window as page
from evidence.timeline import Mark, Shown
from ledger import chain, windows
from ledger.chain import Decision
from ledger.database import Engine
from ledger.windows import Judged
from pipelines.files import replacing

MARKED = ("promotions", "retrainings")
"""The kinds of decisions that are marked in the time line."""


def write(
    engine: Engine,
    name: str,
    settings: Settings,
    changed: Collection[str] = (),
    filling: Shown | None = None,
    notes: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Write the time line of every version that was champion, and the pages of its windows; where both, and the newest
    window's page, lie.

    A window's page that is there already is left unless it is among `changed`. `filling` is a newest window that is on
    no record. `notes` stand on top of the time line: where its data are invented or replayed, say so here.

    Raises LedgerError if no window was judged, or the disk does not take a page.
    """
    marked = decided(engine, name)
    judged = [one for bundle in champions(marked) for one in windows.judged(engine, name, bundle)]
    judged.sort(key=lambda one: one.block.last)
    windows_ = [*(shown(one) for one in judged[-windows.TIMELINE :]), *([filling] if filling else [])]
    if not windows_:
        raise LedgerError(f"{name}: has no window to show; `medimind monitor {name}` judges one once it is full.")
    folder = settings.private(settings.reports / name)
    for one in windows_:
        if one is filling or one.page in changed or not (folder / one.page).exists():
            write_window(folder / one.page, one, [])
    path = folder / "timeline.html"
    marks = [_mark(one) for one in marked]
    with replacing(path, LedgerError) as partial:
        text = timeline.html(f"{name}: time line", windows_, marks, notes, _champion(marked))
        partial.write_text(text, encoding="utf-8")
    return path, folder / windows_[-1].page


def write_window(path: Path, window: Shown, notes: Sequence[str]) -> None:
    """A window's page, and its report beside it as JSON."""
    report = window.report
    title = f"{report.name}@{window.version}: {window.title}"
    with replacing(path, LedgerError) as partial:
        partial.write_text(page.html(report, title, [f"{report.data[:1].upper()}{report.data[1:]}.", *notes]), "utf-8")
    with replacing(path.with_suffix(".json"), LedgerError) as partial:
        partial.write_text(report.to_json(), encoding="utf-8")


def shown(judged: Judged) -> Shown:
    """A judged window as the time line shows it."""
    block = judged.block
    return Shown(
        version=block.version,
        number=block.number,
        n=block.n,
        outcomes=judged.outcomes,
        begins_at=judged.begins_at,
        ends_at=judged.ends_at,
        report=judged.report,
        page=f"window-{block.version}-{block.number}.html",
    )


def decided(engine: Engine, name: str) -> list[Decision]:
    """What was promoted, rolled back and retrained, in order."""
    return [decision for decision in chain.decisions(engine, name) if decision.kind in MARKED]


def champions(marked: Sequence[Decision]) -> set[str]:
    """Every bundle that was champion."""
    return {decision.fields["bundle"] for decision in marked if decision.kind == "promotions"}


def _champion(marked: Sequence[Decision]) -> int | None:
    """The version that was promoted, or rolled back to, last."""
    promoted = [decision for decision in marked if decision.kind == "promotions"]
    return int(promoted[-1].about.rpartition("@")[2]) if promoted else None


def _mark(decision: Decision) -> Mark:
    fields = decision.fields
    if decision.kind == "promotions":
        did = "rolled back to" if fields["action"] == "rollback" else "promoted"
    else:
        did = f"retraining, {fields['step'].replace('_', ' ')}"
    return Mark(decision.at, f"{decision.about} {did}: {fields['reason']}")
