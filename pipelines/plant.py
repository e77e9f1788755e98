"""A bad candidate, planted in a simulation: judged and refused like any other, then promoted by force and rolled back.

It learned from outcomes the wrong way round, as if somebody upstream had swapped their codes. (From outcomes in
shuffled order no candidate comes at all: training refuses a calibration whose slope is not above 0.)
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from configs.errors import PromotionError, TooFewError
from configs.settings import Settings
from configs.spec import Outcome
from evidence import retraining
from features.cohort import Cohort
from ledger import confirmed, promotions, retrainings
from ledger.database import Engine
from ledger.promotions import Promotion
from ledger.retrainings import Step
from models import bundle as bundles
from pipelines import candidate, promote, retrain
from pipelines.candidate import Candidate

PLANTED = "planted by the simulation: a candidate that learned from outcomes the wrong way round"
FORCED = (
    "planted by the simulation, in its own ledger alone: a bad candidate is promoted by force, with a report whose "
    "failures were forged into passes"
)


@dataclass
class Plant:
    """Waits for the end of the first retraining that promoted, or for half of the patients; plants once.

    `said`: what came of it, a sentence each; `version`: the bad candidate's, once it is planted.
    """

    name: str
    half: float
    said: list[str] = field(default_factory=list)
    version: int | None = None
    _planted: int | None = None

    def look(self, engine: Engine, answered: int, settings: Settings) -> list[str]:
        """What is to be told of the bad candidate now, a sentence each. Plants it when it is time."""
        steps = retrainings.steps(engine, self.name)
        if self._planted is None:
            promoted = any(step.step == "promoted" for step in steps)
            under_way = bool(steps) and steps[-1].open
            news = self._plant(engine, steps, settings) if not under_way and (promoted or answered >= self.half) else []
        else:
            end = steps[-1] if steps[-1].run == self._planted and not steps[-1].open else None
            news = [] if end is None or len(self.said) > 2 else [f"the forced champion's end: {end.told}"]
        self.said += news
        return news

    def _plant(self, engine: Engine, steps: list[Step], settings: Settings) -> list[str]:
        """Nothing while too few outcomes are known."""
        champion = promotions.find_champion(engine, self.name)
        assert champion is not None
        learned_to, _ = retrain.learned_to(engine, champion)
        outcomes_to = confirmed.newest_outcome(engine)
        present = bundles.get(champion.bundle, settings)
        try:
            found = candidate.gather(engine, present, outcomes_to, learned_to, settings)
        except TooFewError:
            return []
        made = candidate.make(engine, champion, reversed_outcomes(present.spec.outcome, found.patients), settings)
        assert made is not None  # other outcomes give another bundle
        evidence = {
            "outcomes_to": outcomes_to,
            "learned_to": list(found.learned_to),
            "champion": {"version": champion.version, "bundle": champion.bundle},
        }
        before = steps[-1] if steps else None
        self.version = made.version.number
        refused = self._judged(engine, before, made, {**evidence, "paired": made.paired}, settings)
        self._force(engine, champion, made, evidence, settings)
        return [refused, f"{made.version} promoted by force: {FORCED}"]

    def _judged(
        self, engine: Engine, before: Step | None, made: Candidate, evidence: dict[str, Any], settings: Settings
    ) -> str:
        """The same judgement as any candidate's, on record, and the same way to a promotion, which is shut."""
        begun = retrainings.first(self.name, before, PLANTED, evidence, settings.actor)
        retrainings.put(engine, begun)
        step = replace(begun, version=made.version.number, bundle=made.version.bundle)
        if retraining.better(made.findings) and made.report.passed:
            step = replace(step, step="ended", reason=f"by chance it was not refused: {made.said}")
        else:
            step = replace(step, step="refused", reason=made.said)
        retrainings.put(engine, step)
        try:
            promote.offer(self.name, made.version.number, settings)
        except PromotionError as exc:
            return f"{step.told}; offered all the same, and refused again: {exc}"
        return step.told

    def _force(
        self, engine: Engine, champion: Promotion, made: Candidate, evidence: dict[str, Any], settings: Settings
    ) -> None:
        """Champion without a right to it. The retraining that it stands in finds it so, and puts it on probation."""
        begun = retrainings.first(self.name, retrainings.newest(engine, self.name), FORCED, evidence, settings.actor)
        retrainings.put(engine, begun)
        self._planted = begun.run
        step = replace(begun, step="trial", version=made.version.number, bundle=made.version.bundle)
        after = confirmed.newest_request(engine)
        retrainings.put(engine, replace(step, evidence={**evidence, "after_request": after}))
        promote.lay_in_store(engine, made.version, False, settings)
        passes = tuple(
            replace(finding, verdict="passed") if finding.verdict == "failed" or finding.limit else finding
            for finding in made.report.findings
        )
        forged = replace(made.report, findings=passes)
        promotions.promote(engine, made.version.number, forged, settings.actor, FORCED, promotions.Grounds(champion))


def reversed_outcomes(outcome: Outcome, patients: Cohort) -> Cohort:
    """The same patients; of those who are learned from, events are non-events. Of several classes each side has its
    own in turn."""
    learned = patients.part == "train"
    y = np.where(learned, 1 - patients.y, patients.y)
    if patients.label is None or outcome.classes is None:
        return replace(patients, y=y)
    sides: tuple[list[int], list[int]] = ([], [])
    for place, name in enumerate(outcome.classes):
        sides[name in outcome.positive].append(place)
    turn = np.arange(len(patients))
    without, event = (np.array(places)[turn % len(places)] for places in sides)
    label = np.where(learned, np.where(y == 1, event, without), patients.label)
    return replace(patients, y=y, label=label.astype(np.float64))
