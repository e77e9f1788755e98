"""Evidently's page of data drift: how the patients of a window differ from those the model learned from.

The page holds patients' values, so its owner alone may read it, and it loads nothing: a Content-Security-Policy
forbids it the network. It is for looking; nothing is decided by it.
"""

import html
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.errors import LedgerError
from pipelines.files import replacing

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["number", "category"]

ROWS = 2_000
"""Rows drawn a side: the time and the size of the page grow with them, what the eye sees does not."""

FALSE_ALARM = 0.05
"""The chance, about, that a page of patients who have not changed marks any column at all."""

CATEGORY_TEST = "two-sample chi-square"

END_OF_DATA = re.compile(r"</script>\s*\n\s*</head>\s*\n\s*<body>")

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)


def page(
    reference: "pd.DataFrame | None",
    current: "pd.DataFrame",
    columns: Mapping[str, Kind],
    title: str,
    path: Path,
    seed: int,
) -> dict[str, str]:
    """What could not be drawn, and why, after the page was written to `path`.

    `reference` is None where the rows the model learned from were not found: the page says so and draws nothing, as it
    does for an empty window. Otherwise at most 2,000 rows a side are drawn, sampled by `seed`.
    """
    before = None if reference is None else _sampled(reference, seed)
    now = _sampled(current, seed)
    left_out = _left_out(before, now, columns)
    drawn = {name: kind for name, kind in columns.items() if name not in left_out}
    top = _top(reference, current, drawn, left_out, title)
    if before is not None and drawn:
        document = _drawing(_ready(before, drawn), _ready(now, drawn), drawn)
    else:
        document = '<!DOCTYPE html><html lang="en"><head><meta charset="UTF-8"></head><body></body></html>'
    _write_private(path, _with_top(document, title, top))
    return left_out


def _sampled(side: "pd.DataFrame", seed: int) -> "pd.DataFrame":
    return side.sample(n=ROWS, random_state=seed) if len(side) > ROWS else side


def _left_out(before: "pd.DataFrame | None", now: "pd.DataFrame", columns: Mapping[str, Kind]) -> dict[str, str]:
    # Evidently raises on a side without a single value, so every such column is found first.
    reasons = {}
    for name, kind in columns.items():
        if reason := _why_not(before, name, kind, "reference") or _why_not(now, name, kind, "window"):
            reasons[name] = reason
    return reasons


def _why_not(side: "pd.DataFrame | None", name: str, kind: Kind, called: str) -> str | None:
    if side is None:
        return f"the {called}'s rows were not found"
    if len(side) == 0:
        return f"the {called} has no rows"
    if name not in side.columns:
        return f"the {called} has no such column"
    if _values(side[name], kind).isna().all():
        what = "missing, or no finite number," if kind == "number" else "missing"
        return f"{what} in all {len(side):,} rows of the {called}"
    return None


def _values(column: "pd.Series[Any]", kind: Kind) -> "pd.Series[Any]":
    """Finite floats or labels; whatever else a cell held is missing."""
    import numpy as np
    import pandas as pd

    if kind == "number":
        return pd.to_numeric(column, errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
    return column.astype(object).map(str, na_action="ignore").where(column.notna(), None)


def _ready(side: "pd.DataFrame", drawn: Mapping[str, Kind]) -> "pd.DataFrame":
    """The columns to draw, rows numbered anew: an index may be a patient's identifier."""
    import pandas as pd

    return pd.DataFrame({name: _values(side[name], kind) for name, kind in drawn.items()}).reset_index(drop=True)


def _drawing(reference: "pd.DataFrame", current: "pd.DataFrame", drawn: Mapping[str, Kind]) -> str:
    """Evidently's own page of the columns, as HTML."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant columns make numpy and scipy complain of empty variances
        from evidently import DataDefinition, Dataset, Report
        from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
        from evidently.legacy.core import ColumnType
        from evidently.presets import DataDriftPreset

        register_stattest(StatTest(CATEGORY_TEST, CATEGORY_TEST, [ColumnType.Categorical]), _two_sample_chi_square)
        definition = DataDefinition(
            numerical_columns=[name for name, kind in drawn.items() if kind == "number"],
            categorical_columns=[name for name, kind in drawn.items() if kind == "category"],
        )
        limit = FALSE_ALARM / len(drawn)
        preset = DataDriftPreset(columns=list(drawn), num_method="ks", cat_method=CATEGORY_TEST, threshold=limit)
        snapshot = Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
        return _harmless(snapshot.get_html_str(as_iframe=False))


def _harmless(document: str) -> str:
    """Evidently's page with its data unable to end the <script> that holds them, which Evidently does not see to.

    The data are JSON and hold no line break, so the ends below are the page's own.
    """
    start = document.index("<script>")
    end = END_OF_DATA.search(document, start)
    if end is None:
        raise ValueError("Evidently's page has another shape than that of 0.7.23: pipelines/drift.py must learn it.")
    data = document[start + len("<script>") : end.start()].replace("<", r"\u003c")
    return f"{document[:start]}<script>{data}{document[end.start() :]}"


def _two_sample_chi_square(
    reference: "pd.Series[Any]", current: "pd.Series[Any]", _kind: object, limit: float
) -> tuple[float, bool]:
    # Evidently's own takes the reference for the exact truth: at p < 0.004 it marked 6.2 % of 4,000 pairs of samples of
    # 300 from one source, this one 0.3 %.
    import pandas as pd
    from scipy.stats import chi2_contingency

    counts = pd.concat([reference.value_counts(), current.value_counts()], axis=1).fillna(0)
    p = float(chi2_contingency(counts.to_numpy(), correction=False).pvalue)
    return p, p <= limit


def _top(
    reference: "pd.DataFrame | None",
    current: "pd.DataFrame",
    drawn: Mapping[str, Kind],
    left_out: Mapping[str, str],
    title: str,
) -> str:
    """What a reader must know before looking, as HTML."""
    said = [
        "<strong>This page holds patients' data.</strong> Keep it where patients' data may lie.",
        f"Reference (what the model learned from): {_rows(reference)}. Window: {_rows(current)}.",
    ]
    if reference is None:
        said.append("Nothing is drawn: the reference's rows were not found, so there is nothing to compare with.")
    elif len(reference) == 0 or len(current) == 0:
        said.append(f"Nothing is drawn: the {'window' if len(reference) else 'reference'} is empty.")
    elif not drawn:
        said.append("Nothing is drawn: no column has values on both sides.")
    else:
        said.append(
            f"A column is marked as drifted where p ≤ {FALSE_ALARM:g} / {len(drawn)} (Kolmogorov-Smirnov for "
            f"numbers, chi-square for categories), so that about {FALSE_ALARM:.0%} of the pages "
            f"without any change mark a column. Below, “current” is the window."
        )
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in said)
    if left_out:
        items = "".join(f"<li>{html.escape(name)}: {html.escape(why)}</li>" for name, why in left_out.items())
        paragraphs += f"<p>Not drawn, {len(left_out)} of {len(left_out) + len(drawn)} columns:</p><ul>{items}</ul>"
    style = "font-family: sans-serif; max-width: 60em; margin: 1.5em; line-height: 1.4"
    return f'<header style="{style}"><h1>{html.escape(title)}</h1>{paragraphs}</header>'


def _rows(side: "pd.DataFrame | None") -> str:
    if side is None:
        return "rows not found"
    return f"{len(side):,} rows" + (f", {ROWS:,} of them sampled" if len(side) > ROWS else "")


def _with_top(document: str, title: str, top: str) -> str:
    head = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{html.escape(title)}</title>'
    before, after = document.split("<head>", maxsplit=1)
    data, rest = after.split("<body>", maxsplit=1)
    return f"{before}<head>{head}{data}<body>{top}{rest}"


def _write_private(path: Path, document: str) -> None:
    with replacing(path, LedgerError) as partial:
        partial.touch(mode=0o600)  # before patients' values are in it
        partial.write_text(document, encoding="utf-8")
