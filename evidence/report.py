"""A Report: coded findings about one bundle, each with its value, its limit and a verdict."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

AGAINST_CHAMPION = "MM015"

Verdict = Literal["passed", "failed", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `interval` is the 95 % interval of `value`; `limit` is the gate as written."""

    code: str
    title: str
    verdict: Verdict
    value: float | None
    limit: str | None
    explanation: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Report:
    """What was found about the bundle of this digest on these data (a cohort's fingerprint, or a window's)."""

    name: str
    kind: Literal["validation", "retraining", "external validation", "monitoring"]
    bundle: str
    data: str
    findings: tuple[Finding, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    """What the review page draws: curves and counts as plain JSON, never a patient (evidence/figures.py makes them)."""

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict == "failed")

    @property
    def passed(self) -> bool:
        """At least one finding passed, and none failed. (MM014 fails a validation in which no gate was judged.)"""
        return not self.failed and any(finding.verdict == "passed" for finding in self.findings)

    def agrees(self, other: "Report") -> bool:
        """Whether both say the same of the same bundle and data, whoever was champion when they were made."""

        def said(report: Report) -> Any:
            of_itself = tuple(finding for finding in report.findings if finding.code != AGAINST_CHAMPION)
            return report.name, report.kind, report.bundle, report.data, of_itself

        return bool(said(self) == said(other))

    def finding(self, code: str) -> Finding:
        return next(finding for finding in self.findings if finding.code == code)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "passed": self.passed}, indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        document: dict[str, Any] = json.loads(text)
        del document["passed"]
        findings = []
        for finding in document.pop("findings"):
            interval = finding.pop("interval")
            findings.append(Finding(**finding, interval=tuple(interval) if interval else None))
        return cls(**document, findings=tuple(findings))
