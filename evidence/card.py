"""A model's card: what it is for, what it was learned from, and what was found about it. Facts alone."""

from dataclasses import asdict
from typing import Any

from evidence.report import Report
from models.bundle import Bundle


def card(bundle: Bundle, version: int, report: Report) -> dict[str, Any]:
    """The card of one version, as JSON."""
    spec = bundle.spec
    return {
        "name": spec.name,
        "version": version,
        "title": spec.title,
        "owner": spec.owner,
        "intended_use": spec.intended_use,
        "family": bundle.training["family"],
        "patients": bundle.training["patients"],
        "left_out": bundle.training["dropped"],
        "attributes": list(spec.attributes),
        "inputs": inputs(bundle),
        "change_control": spec.change_control.model_dump(mode="json"),
        "findings": [asdict(finding) for finding in report.findings],
        "digests": {
            "bundle": bundle.digest,
            "spec": spec.digest,
            "data": bundle.training["data"],
            "code": bundle.training["code"],
        },
    }


def inputs(bundle: Bundle) -> list[dict[str, Any]]:
    """What the model is told of a patient: each column's name, type, unit and codes, and how many of the training's
    values the assay could not tell; None where the contract has no unit, no code or no limit."""
    beyond = bundle.training.get("beyond_detection", {})
    found = []
    for name, column in bundle.spec.columns.items():
        coded = column if column.event is None else bundle.spec.events[column.event]
        counts = beyond.get(name, {})
        found.append(
            {
                "name": name,
                "type": column.type,
                "unit": column.unit,
                "loinc": coded.loinc,
                "snomed": coded.snomed,
                "below_detection": counts.get("below"),
                "above_detection": counts.get("above"),
            }
        )
    return found
