"""What was decided about a model, in the order in which it was; and who was champion at a moment, and why."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from configs.errors import NotOnRecordError
from configs.settings import Settings
from ledger import chain
from ledger.chain import Decision
from ledger.database import connect, now
from ledger.predictions import since
from ledger.reviews import ASSERTED, person
from pipelines.stop import known


def history(name: str, settings: Settings) -> list[str]:
    """Every decision about the model, a line each, in order. Raises SpecError if there is no such model."""
    decided = _decisions(name, settings)
    if not decided:
        return [f"{name}: nothing was decided yet"]
    return [f"{name}: times are UTC, and who it was is {ASSERTED}", *(_line(decision) for decision in decided)]


def at(name: str, text: str, settings: Settings) -> list[str]:
    """Who was champion at a time, why, and what stood against it then, a line each.

    Raises SpecError if there is no such model, LedgerError for what is no time, NotOnRecordError for one that is still
    to come, or before the first promotion.
    """
    time = since(text)
    if time > now():
        raise NotOnRecordError(f"--at {text}: lies in the future (UTC unless it says otherwise).")
    decided = _decisions(name, settings)
    so_far = [decision for decision in decided if decision.at <= time]
    promoted = [decision for decision in so_far if decision.kind == "promotions"]
    if not promoted:
        first = next((decision for decision in decided if decision.kind == "promotions"), None)
        began = f"the first promotion was at {_time(first.at)} UTC" if first else "it never had one"
        raise NotOnRecordError(f"{name}: had no champion at {text}; {began}.")
    lines = [
        *_champion(promoted[-1], promoted),
        *_against(promoted[-1].fields, so_far),
        *_reviewed(promoted[-1], so_far),
    ]
    if any(decision.backwards for decision in decided):
        lines.append("  the clock ran backwards at some decision, so times are not certain: `medimind history` has all")
    return lines


def _champion(last: Decision, promoted: list[Decision]) -> Iterator[str]:
    fields = last.fields
    verb = "rolled back to" if fields["action"] == "rollback" else "promoted"
    yield f"{last.about} was champion: {verb} at {_time(last.at)} UTC by {fields['actor']} ({ASSERTED})"
    yield f"  reason   {fields['reason']}"
    yield f"  bundle   {fields['bundle']}"
    if len(promoted) > 1:
        yield f"  before   {promoted[-2].about}, since {_time(promoted[-2].at)} UTC"
    evidence = json.loads(fields["evidence"]) if fields["evidence"] else {}
    if evidence.get("changes"):
        yield f"  changed  {'; '.join(evidence['changes'])}"
    if evidence.get("outside"):
        yield f"  outside  the plan: {'; '.join(evidence['outside'])}"
    for metric, pair in evidence.get("paired", {}).items():
        if pair["a"] is not None and pair["b"] is not None:
            yield f"  {metric:8} {pair['a']:.4g}, the champion's before {pair['b']:.4g}, on the same test patients"


def _against(champion: Mapping[str, Any], so_far: list[Decision]) -> Iterator[str]:
    """What kept the champion from answering then."""
    stops = {decision.fields["version"]: decision for decision in so_far if decision.kind == "stops"}
    stopped, retired = stops.get(None), stops.get(champion["version"])
    for what, decision in (("stopped", stopped), ("retired", retired)):
        if decision is not None and decision.fields["stopped"]:
            yield f"  {what}  since {_time(decision.at)} UTC by {decision.fields['actor']}: {decision.fields['reason']}"


def _reviewed(last: Decision, so_far: list[Decision]) -> Iterator[str]:
    """Each person's newest verdict on exactly this bundle."""
    mine = [
        decision
        for decision in so_far
        if decision.kind == "reviews"
        and (decision.fields["version"], decision.fields["bundle"]) == (last.fields["version"], last.fields["bundle"])
    ]
    newest = {
        (decision.fields["verdict"] == "validated", person(decision.fields["actor"])): decision for decision in mine
    }
    for decision in newest.values():
        fields = decision.fields
        yield f"  {fields['verdict']} at {_time(decision.at)} UTC by {fields['actor']}: {fields['reason']}"


def _line(decision: Decision) -> str:
    fields = decision.fields
    clock = "   (the clock ran backwards here)" if decision.backwards else ""
    return f"{_time(decision.at)}  {_verb(decision):34} {fields['actor']}: {fields['reason']}{clock}"


def _verb(decision: Decision) -> str:
    fields, about = decision.fields, decision.about
    if decision.kind == "promotions":
        return f"{'rolled back to' if fields['action'] == 'rollback' else 'promoted'} {about}"
    if decision.kind == "reviews":
        return f"{fields['verdict']} {about}"
    if decision.kind == "stops":
        if fields["version"] is not None:
            return f"retired {about}"
        return f"stopped {about}" if fields["stopped"] else f"lifted the stop of {about}"
    if decision.kind == "retrainings":
        return f"retraining {fields['run']} {fields['step'].replace('_', ' ')} {about}"
    lane = fields["tag"] or fields["kind"]
    if fields["version"] is None:
        return f"ended {lane}"
    share = f" {fields['share']:g}" if fields["share"] is not None else ""
    return f"set {lane}{share} to {about}"


def _decisions(name: str, settings: Settings) -> list[Decision]:
    decided = chain.decisions(connect(settings), name)
    if not decided:
        known(name, settings)
    return decided


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
