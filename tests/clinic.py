"""A small hospital: patients come in, are answered by whoever the ledger says, and their outcomes come back."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import yaml

from configs.settings import Settings
from features.columns import translate_table
from ledger import outcomes, predictions, promotions, tables, traffic
from ledger.database import Engine, connect, now, writing
from ledger.outcomes import Outcome
from ledger.predictions import Answered, by_class, hash_patients, patient_key, prediction_id
from ledger.promotions import Promotion
from ledger.traffic import side
from models import bundle as bundles
from models.predict import Predictor
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.promote import offer
from pipelines.train import train
from pipelines.validate import validate

RETRAIN = {"auroc_drop": 0.1, "trial": {"outcomes": 40}, "probation": {"outcomes": 40}}


def with_a_champion(home: Settings, table: Callable[..., dict[str, list[Any]]], **retrain: Any) -> "Clinic":
    """The toy disease with its first champion, due after 60 outcomes; `retrain`: keys of `change_control.retrain`."""
    path = home.configs / "diseases" / "toy.yaml"
    document = yaml.safe_load(path.read_text())
    document["monitoring"] = {"window": 50, "min_outcomes": 20, "retrain_when": {"new_outcomes": 60}}
    document["change_control"]["retrain"] |= {**RETRAIN, **retrain}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    ingest("toy", home)
    prepare("toy", home)
    train("toy", home)
    validate("toy", home)
    offer("toy", 1, home)
    return Clinic(home, table)


@dataclass
class Clinic:
    """`see` its patients; all of them have a pseudonym, and every outcome is known at once."""

    home: Settings
    table: Callable[..., dict[str, list[Any]]]
    asked: int = 0
    predictors: dict[str, Predictor] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        return connect(self.home)

    @property
    def champion(self) -> Promotion:
        found = promotions.find_champion(self.engine, "toy")
        assert found is not None
        return found

    def predictor(self, bundle: str) -> Predictor:
        if bundle not in self.predictors:
            self.predictors[bundle] = Predictor(bundles.get(bundle, self.home))
        return self.predictors[bundle]

    def see(self, n: int, more_events: float = 0.0, again: Sequence[str] = ()) -> "Clinic":
        """`n` new patients; of those without the event this share has it all the same, which no model here knows.

        Below 0: of those with the event this share is spared. The last ones are `again`, by their pseudonyms.
        """
        self.asked += 1
        dice = random.Random(self.asked)
        table = self.table(n, 1000 + self.asked)
        flipped = [dice.random() < abs(more_events) for _ in range(n)]
        wrong = int(more_events < 0)
        sick = [
            1 - value if flip and value == wrong else value for value, flip in zip(table["sick"], flipped, strict=True)
        ]
        spec = self.predictor(self.champion.bundle).spec
        told: list[int | str] = [int(value) for value in sick]
        if spec.outcome.classes is not None:
            names = {code: name for name, codes in spec.outcome.classes.items() for code in codes}
            told = [
                names[code] if not flip or value != wrong else ["none", "lung"][1 - value]
                for code, value, flip in zip(table["origin"], table["sick"], flipped, strict=True)
            ]
        cells = translate_table(spec, table)
        records = [
            {name: cells[name][row] for name in spec.columns if cells[name][row] is not None} for row in range(n)
        ]
        lanes = traffic.find(self.engine, "toy")
        patients = [f"{self.asked}-{row}" for row in range(n - len(again))] + list(again)
        whose = [each or "" for each in hash_patients(patient_key(self.home.home), patients)]
        canary = lanes.canary
        aside = [row for row in range(n) if canary is not None and side(whose[row], canary)]
        stay = [row for row in range(n) if row not in set(aside)]
        for rows, version, bundle, lane in (
            (stay, self.champion.version, self.champion.bundle, None),
            *([(aside, canary.version, canary.bundle, canary.id)] if canary is not None else []),
        ):
            if rows:
                self._answer(rows, records, whose, told, version, bundle, lane, lanes.shadow)
        return self

    def _answer(
        self,
        rows: list[int],
        records: list[dict[str, Any]],
        whose: list[str],
        told: list[int | str],
        version: int,
        bundle: str,
        lane: int | None,
        shadow: traffic.Route | None,
    ) -> None:
        some, predictor = [records[row] for row in rows], self.predictor(bundle)
        features = predictor.features([predictor.check(record) for record in some])
        risks = predictor.risks(features)
        kept, digests = predictions.kept_features(predictor.plan, features)
        answered = Answered(
            "toy",
            version,
            bundle,
            now() - timedelta(seconds=1),
            json.dumps(some).encode(),
            [None] * len(rows),
            [whose[row] for row in rows],
            kept,
            predictor.positive(risks),
            [None] * len(rows),
            lane,
            by_class(predictor, risks, None),
            digests,
        )
        with writing(self.engine) as connection:
            ((number,),) = predictions.keep_all(connection, [predictions.Entry([answered], None, lambda _: b"")])
            if shadow is not None:
                risks = self.predictor(shadow.bundle).risk(features).tobytes()
                row = {"request": number, "version": shadow.version, "bundle": shadow.bundle}
                connection.execute(tables.shadows.insert().values(**row, risks=risks, at=now()))
            for position, row in enumerate(rows):
                outcomes.record(connection, Outcome(prediction_id(number, position), None, "toy", told[row], now()))
