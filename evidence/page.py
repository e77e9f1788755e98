"""A report as one HTML page that opens anywhere: no network, no script, no patient."""

from html import escape

from evidence.report import Finding, Report

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #8885; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.verdict { font-weight: 600; white-space: nowrap; }
.failed .verdict { color: #c0232c; } .passed .verdict { color: #1a7f37; }
@media (prefers-color-scheme: dark) { .failed .verdict { color: #ff7b72; } .passed .verdict { color: #56d364; } }
@media (max-width: 45rem) { th:nth-child(5), td:nth-child(5) { display: none; } }
"""

HEADS = ("Code", "Finding", "Verdict", "Value", "Limit", "Explanation")
ORDER = {"failed": 0, "passed": 1, "not applicable": 2}


def html(report: Report, title: str, notes: list[str]) -> str:
    """The page: what it is about, `notes` as plain sentences, and the findings, failed ones first."""
    findings = sorted(report.findings, key=lambda finding: ORDER[finding.verdict])
    count = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in ORDER}
    summary = ", ".join(f"{number} {verdict}" for verdict, number in count.items() if number)
    said = "".join(f"<p>{escape(note)}</p>" for note in notes)
    heads = "".join(f"<th scope='col'>{head}</th>" for head in HEADS)
    rows = "".join(_row(finding) for finding in findings)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p><strong>{escape(summary)}.</strong> "
        f"Bundle <code>{report.bundle[:12]}</code>, {escape(report.kind)} on {escape(report.data[:60])}.</p>{said}"
        f"<table><caption>Findings, failed ones first</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></main></body></html>\n"
    )


def _row(finding: Finding) -> str:
    value = "" if finding.value is None else f"{finding.value:.3g}"
    if finding.interval is not None:
        value += f" ({finding.interval[0]:.2f} to {finding.interval[1]:.2f})"
    cells = [("", finding.code), ("", finding.title), ("verdict", finding.verdict), ("number", value)]
    cells += [("", finding.limit or ""), ("", finding.explanation)]
    told = "".join(f"<td class='{kind}'>{escape(text)}</td>" for kind, text in cells)
    return f"<tr class='{finding.verdict.replace(' ', '-')}'>{told}</tr>"
