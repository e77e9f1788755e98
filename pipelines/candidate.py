"""From confirmed outcomes to a registered candidate: whom it learned from, and how it does beside the champion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import BundleError, CohortError, RecordError, TooFewError
from configs.settings import ROOT, Settings
from configs.spec import Spec
from evidence import retraining
from evidence.case import Rival
from evidence.report import Finding, Report
from features import build, cohort
from features.cohort import Cohort
from features.columns import as_arrays, check_record, times
from features.events import Reducer
from features.outcomes import happened
from features.records import Records
from ledger import confirmed, registry, reviews
from ledger.confirmed import Confirmed
from ledger.database import Engine
from ledger.predictions import hash_patients, patient_key
from ledger.promotions import Promotion
from ledger.registry import Version
from models import bundle as bundles
from models import training
from models.bundle import Bundle
from models.predict import Predictor
from pipelines import validate
from pipelines.files import replacing

Place = tuple[int, int]
"""Request and position of a prediction, which order them."""
MOST_UNNAMED = 0.1
"""Of several classes: the share of the confirmed events, and of the others, whose class may be unknown. A risk that is
learned without them comes out too low by about as much; our own convention."""


@dataclass(frozen=True)
class Gathered:
    """The cohort of a retraining. `learned_to`: the last prediction in its training part; `counts`: as plain JSON."""

    patients: Cohort
    learned_to: Place
    counts: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """A registered version with its report; `findings` are those that held it against the champion on `test` patients,
    `paired` every figure of both, as plain JSON."""

    version: Version
    report: Report
    findings: Sequence[Finding]
    paired: dict[str, Any]
    test: int

    @property
    def said(self) -> str:
        return f"on the newest {self.test} patients, {'; '.join(finding.explanation for finding in self.findings)}"


def gather(engine: Engine, champion: Bundle, outcomes_to: int, learned_to: Place, settings: Settings) -> Gathered:
    """The old cohort, and every prediction whose outcome is known by row `outcomes_to`; the newest are the test part.

    Nobody whom the champion learned from is in it: its own cohort says who that is, or, where that lies on another
    machine, `learned_to`, the last prediction that it may have learned from. Raises TooFewError if no newest part, up
    to half, holds as many events and non-events as the spec asks for, CohortError without an old cohort of the same
    features. TooFewError as well where too many of the events do not say which class came true.
    """
    spec = champion.spec
    old = cohort.load(settings.data / "cohorts" / f"{spec.name}.parquet")
    names = hash_patients(patient_key(settings.home), old.patient.tolist())  # as the ledger knows whoever comes again
    old = replace(old, patient=np.array(names, dtype=np.str_))
    found = confirmed.confirmed(engine, spec.name, outcomes_to)
    if spec.outcome.classes is not None:
        _refuse_unnamed(found)
    records, places, left_out = _records(spec, found, _kept_codes(spec, found, settings))
    before: NDArray[np.bool_] = np.array([place <= learned_to for place in places], bool)
    of_old = old.patient[old.part != "external"].tolist()
    known = {*learned_from(champion, settings), *records.patient[before].tolist(), *of_old}
    fresh: NDArray[np.bool_] = np.array([patient not in known for patient in records.patient.tolist()], bool)
    asked = spec.change_control.retrain
    # split by a day or by sites, a spec asks for no share of the patients: as few as hold the events then
    size = cohort.newest_part(
        records.outcome, fresh, spec.split.test_fraction or 0.0, asked.min_events, asked.min_non_events
    )
    if not size:
        raise TooFewError(
            f"of {len(records)} confirmed outcomes no newest part, up to half, holds {asked.min_events} events and "
            f"{asked.min_non_events} non-events of patients whom the champion did not learn from"
        )
    latest = np.arange(len(records)) >= len(records) - size
    part = np.where(latest & fresh, "test", "train")
    patients = cohort.retrained(spec, build.plan(spec), old, records, part)
    counts = {
        "data": patients.fingerprint,
        "train": int((patients.part == "train").sum()),
        "test": int((patients.part == "test").sum()),
        "confirmed": len(found.records),
        "left_out": {**patients.dropped, **left_out, "purged": found.purged},
    }
    return Gathered(patients, places[int(np.flatnonzero(part == "train")[-1])], counts)


def learned_from(bundle: Bundle, settings: Settings) -> frozenset[str]:
    """Whom a retrained bundle learned from, as the ledger knows them; nobody, where its cohort is not on this machine
    or it is no retrained one."""
    path = settings.home / "retraining" / bundle.spec.name / f"{bundle.training['data']}.parquet"
    return frozenset(cohort.load(path).only("train").patient.tolist()) if path.exists() else frozenset()


def make(engine: Engine, champion: Promotion, patients: Cohort, settings: Settings) -> Candidate | None:
    """Train by the champion's own spec, judge beside the champion, and register; None: it is the champion again.

    Doing it again gives the same version. Raises TrainingError if nothing was learned.
    """
    before = bundles.get(champion.bundle, settings)
    spec, name = before.spec, champion.model
    folder = settings.private(settings.home / "retraining" / name)
    with replacing(folder / f"{patients.fingerprint}.parquet", CohortError) as partial:
        cohort.save(patients, partial)
    with registry.watched(settings, name) as watched:
        bundle = training.train(
            spec, build.plan(spec), patients, folder / "bundle", settings, watched.trial, watched.epoch
        )
    if bundle.digest == champion.bundle:
        return None
    reviews.trained(engine, name, bundle.digest, settings.actor)
    test, seed, asked = patients.only("test"), spec.split.seed, spec.change_control.retrain
    own, other = Predictor(bundle).risk(test.X), Predictor(before).risk(test.X)
    findings = retraining.compare(asked, test.y, own, other, seed)
    paired = retraining.paired(test.y, own, other, seed)
    commit = validate.git_commit(ROOT)
    case = validate.judge(bundle, patients, Rival(f"{name}@{champion.version}", other), commit, settings)
    against = {"version": champion.version, "bundle": champion.bundle, "paired": paired}
    report = retraining.judge(case, asked, against, findings)
    done = validate.register(engine, bundle, report, patients, commit, settings)
    return Candidate(done.version, done.report, findings, paired, len(test))


def _refuse_unnamed(found: Confirmed) -> None:
    """Raise TooFewError if of many events, or non-events, nobody told the class: without them, who is learned from and
    tested has the event too seldom, or too often, and no figure would show it."""
    unnamed = np.array([label is None for label in found.labels], bool)
    for value, what in ((1, "the event"), (0, "no event")):
        of_it = found.outcomes == value
        gone, n = int((unnamed & of_it).sum()), int(of_it.sum())
        if gone > MOST_UNNAMED * n:
            raise TooFewError(
                f"of {n} confirmed outcomes with {what}, {gone} do not say which class came true, and the others are "
                f"not like all: at most {MOST_UNNAMED:.0%} may. Tell them again, with the class for a value"
            )


def _kept_codes(spec: Spec, found: Confirmed, settings: Settings) -> dict[str, frozenset[str]]:
    """By bundle, the codes whose events its records keep; none, where the store does not have it any more."""
    kept: dict[str, frozenset[str]] = {}
    for digest in sorted(set(found.bundles)) if spec.events else ():
        try:
            kept[digest] = frozenset(bundles.get(digest, settings).spec.events)
        except BundleError:
            kept[digest] = frozenset()
    return kept


def _records(
    spec: Spec, found: Confirmed, kept: Mapping[str, frozenset[str]]
) -> tuple[Records, list[Place], dict[str, int]]:
    """The confirmed records, checked again, oldest first, with their places; and how many were left out, by reason.

    Where the spec has classes nothing can be learned from an outcome that does not say which one came true. Of events a
    record holds those of the codes that its bundle knew (`kept`): of any other code there may have been some, and none
    on record would be counted as 0.
    """
    classes = [*(spec.outcome.classes or ())]
    left_out = {"refused by the contract": 0, **({"of an unknown class": 0} if classes else {})}
    left_out |= {"of a contract with fewer events": 0} if spec.events else {}
    checked, rows = [], []
    reducer = Reducer(spec.columns, spec.events)
    for row, record in enumerate(found.records):
        if classes and found.labels[row] not in classes:  # or of one that an earlier version had
            left_out["of an unknown class"] += 1
            continue
        if record.get("events") is not None and not kept[found.bundles[row]] >= set(spec.events):
            left_out["of a contract with fewer events"] += 1
            continue
        try:
            checked.append(check_record(spec.columns, record, reducer))
            rows.append(row)
        except RecordError:  # of an earlier contract
            left_out["refused by the contract"] += 1
    places = [found.places[row] for row in rows]
    whose = [found.patients[row] or f"{place[0]}-{place[1]}" for row, place in zip(rows, places, strict=True)]
    values = as_arrays(spec.columns, checked)
    at, patient = times(checked), np.array(whose, dtype=np.str_)
    if not classes:
        return Records(values, found.outcomes[rows], patient, at), places, left_out
    label = np.array([classes.index(found.labels[row] or "") for row in rows], np.float64)
    return Records(values, happened(spec.outcome, label), patient, at, label=label), places, left_out
