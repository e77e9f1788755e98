"""Two invented diseases, and what every server of the benchmark needs to know about them. No patient is in them.

`invented_trees` goes the whole way: 4,000 rows, ingested, trained, judged, promoted. `invented_network` has the same
fields as numbers and a 32-256-256-1 network of random weights, laid in the store by hand: no gate could pass it.

Every number lies on a binary grid, so that a float64 pipeline and a float32 one see the same value, on a tree's
threshold as well; every category is given, so that one-hot columns mean the same to both.
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from configs.settings import ROOT, Settings
from configs.spec import load_spec
from evidence.report import Finding, Report
from features import build, cohort
from ledger import promotions
from ledger.database import connect
from models import bundle as bundles
from models import training
from models.bundle import Bundle
from models.encoding import encoding
from models.onnx import Graph, Session
from models.predict import Predictor

TREES, NETWORK = "invented_trees", "invented_network"
BENCH = ROOT / "var" / "bench"
SHARED = BENCH / "shared"
"""What the peers read: training rows, the model's parameters, the network's weights."""

PATIENTS = 4000
SEED = 17
HIDDEN = 256
SHARE_MISSING = 0.04
PAYLOADS = 256
RECORDS_IN_A_BATCH = 64

NUMBERS = {  # unit, low, high, grid, weight in the invented outcome
    "age_years": ("a", 18, 110, 1, 0.9),
    "height_cm": ("cm", 120, 220, 0.5, 0),
    "weight_kg": ("kg", 30, 250, 0.25, 0.2),
    "heart_rate_bpm": ("/min", 30, 220, 1, 0.7),
    "systolic_bp_mmhg": ("mm[Hg]", 60, 260, 1, -0.8),
    "diastolic_bp_mmhg": ("mm[Hg]", 30, 160, 1, 0),
    "respiratory_rate_bpm": ("/min", 4, 60, 1, 0.6),
    "temperature_celsius": ("Cel", 32, 43, 0.0625, 0.3),
    "oxygen_saturation_percent": ("%", 50, 100, 0.5, -0.9),
    "lactate_mmol_l": ("mmol/L", 0, 25, 0.0625, 1.1),
    "creatinine_umol_l": ("umol/L", 10, 1500, 0.5, 0.5),
    "urea_mmol_l": ("mmol/L", 0, 80, 0.125, 0.3),
    "sodium_mmol_l": ("mmol/L", 100, 180, 0.5, 0),
    "potassium_mmol_l": ("mmol/L", 1, 10, 0.0625, 0),
    "glucose_mmol_l": ("mmol/L", 1, 60, 0.125, 0.2),
    "haemoglobin_g_l": ("g/L", 20, 240, 1, -0.3),
    "platelets_per_nl": ("10*9/L", 1, 1500, 1, -0.2),
    "leukocytes_per_nl": ("10*9/L", 0, 120, 0.125, 0.4),
    "c_reactive_protein_mg_l": ("mg/L", 0, 600, 0.5, 0.3),
    "bilirubin_umol_l": ("umol/L", 0, 600, 0.5, 0.2),
    "albumin_g_l": ("g/L", 5, 70, 0.25, -0.4),
    "ph": ("[pH]", 6.5, 8, 0.0078125, -0.6),
    "bicarbonate_mmol_l": ("mmol/L", 1, 60, 0.125, 0),
    "glasgow_coma_score": ("1", 3, 15, 1, -0.8),
}
REQUIRED = {"age_years", "heart_rate_bpm", "systolic_bp_mmhg", "respiratory_rate_bpm", "temperature_celsius"}
CATEGORIES = {
    "sex": ("female", "male", "other"),
    "ward": ("medical", "surgical", "intensive", "emergency"),
    "admission": ("planned", "urgent", "transfer"),
    "rhythm": ("sinus", "atrial_fibrillation", "paced", "flutter", "other"),
    "oxygen_device": ("none", "cannula", "mask", "ventilator"),
    "diabetes": ("none", "type_1", "type_2"),
    "smoking": ("never", "former", "current"),
    "kidney_disease": ("none", "mild", "moderate", "severe", "dialysis"),
}

Record = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """What one request asks for. `expected[i]` are the risks that payload `i` must be answered with."""

    key: str
    title: str
    model: str
    records: tuple[tuple[Record, ...], ...]
    expected: tuple[tuple[float, ...], ...]
    answer_bytes: int


def machine() -> Settings:
    """The benchmark's own machine: its ledger, store and diseases, under var/bench."""
    return Settings(home=BENCH / "home", configs=BENCH / "configs", data=BENCH / "data", user="bench")


def prepare() -> None:
    """Make the machine, its two champions and what the peers read; nothing, if all of it is of the present code."""
    key = hashlib.sha256(Path(__file__).read_bytes() + training.code_fingerprint().encode()).hexdigest()
    stamp = BENCH / "prepared"
    if stamp.exists() and stamp.read_text() == key:
        return
    for folder in ("home", "configs", "data", "shared"):
        shutil.rmtree(BENCH / folder, ignore_errors=True)
    settings = machine()
    SHARED.mkdir(parents=True)
    (settings.configs / "diseases").mkdir(parents=True)
    _write(settings, TREES, population(PATIENTS, SEED), "boosted")
    _write(settings, NETWORK, [as_numbers(record) for record in population(PATIENTS, SEED)], "logistic")
    (settings.configs / "enabled.yaml").write_text(f"enabled: [{TREES}, {NETWORK}]\n")
    _promote_trees(settings)
    _promote_network(settings)
    stamp.write_text(key)


def population(n: int, seed: int) -> list[Record]:
    """`n` invented patients as a request holds them, on the grid, some optional numbers left out."""
    dice = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        record: Record = {}
        for name, (_, low, high, grid, _) in NUMBERS.items():
            place = low + (high - low) * float(np.clip(dice.normal(0.45, 0.14), 0, 1))
            value = low + grid * round((place - low) / grid)
            if name in REQUIRED or dice.random() >= SHARE_MISSING:
                record[name] = int(value) if grid == 1 else value
        for name, choices in CATEGORIES.items():
            record[name] = choices[int(dice.integers(len(choices)))]
        found.append(record)
    return found


def as_numbers(record: Record) -> Record:
    """The record with each category as its place in the list of values."""
    return {name: CATEGORIES[name].index(value) if name in CATEGORIES else value for name, value in record.items()}


def workloads() -> list[Workload]:
    """One record, a batch, and one record for the network: at least 256 payloads each, with the risks they must get."""
    trees, network = champion(TREES), champion(NETWORK)
    singles = population(PAYLOADS, SEED + 1)
    many = population(PAYLOADS * RECORDS_IN_A_BATCH, SEED + 2)
    batches = [tuple(many[start : start + RECORDS_IN_A_BATCH]) for start in range(0, len(many), RECORDS_IN_A_BATCH)]
    return [
        _workload("one", "one record", trees, [(record,) for record in singles]),
        _workload("many", f"{RECORDS_IN_A_BATCH} records", trees, batches),
        _workload("network", "network", network, [(as_numbers(record),) for record in singles]),
    ]


def champion(name: str) -> Predictor:
    """The promoted bundle, without a server around it."""
    settings = machine()
    engine = connect(settings)
    found = promotions.find_champion(engine, name)
    engine.dispose()
    assert found is not None
    return Predictor(bundles.get(found.bundle, settings))


def _workload(key: str, title: str, predictor: Predictor, payloads: Sequence[tuple[Record, ...]]) -> Workload:
    everyone = [predictor.check(record) for payload in payloads for record in payload]
    risk = predictor.risk(predictor.features(everyone)).tolist()
    width = len(payloads[0])
    expected = tuple(tuple(risk[start : start + width]) for start in range(0, len(risk), width))
    said = [
        {"id": f"123456-{place}", "risk": value, "band": "alert", "missing": ["lactate_mmol_l"]}
        for place, value in enumerate(expected[0])
    ]
    answer = json.dumps({"model": predictor.spec.name, "version": 1, "predictions": said}, separators=(",", ":"))
    return Workload(key, title, predictor.spec.name, tuple(payloads), expected, len(answer))


def _write(settings: Settings, name: str, records: Sequence[Record], family: str) -> None:
    """The disease's table and its spec."""
    source = settings.configs / f"{name}.csv"
    columns = [*NUMBERS, *CATEGORIES]
    dice = np.random.default_rng(SEED + 3)
    with open(source, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["patient", *columns, "event"])
        for number, record in enumerate(records, 1):
            event = int(dice.random() < 1 / (1 + np.exp(-_score(record))))
            table.writerow([f"P{number:05}", *(record.get(column, "") for column in columns), event])
    document = _spec(name, family, source)
    (settings.configs / "diseases" / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def _score(record: Record) -> float:
    """The invented outcome's log-odds."""
    score = -1.4
    for name, (_, low, high, _, weight) in NUMBERS.items():
        if name in record:
            score += weight * ((record[name] - low) / (high - low) - 0.45) / 0.14
    device = record["oxygen_device"]
    return score + 0.9 * (device in ("ventilator", CATEGORIES["oxygen_device"].index("ventilator")))


def _spec(name: str, family: str, source: Path) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for number, (unit, low, high, _, _) in NUMBERS.items():
        columns[number] = {"type": "number", "unit": unit, "range": [low, high], "required": number in REQUIRED}
    for category, choices in CATEGORIES.items():
        if family == "boosted":
            columns[category] = {"type": "category", "values": list(choices), "required": True}
        else:
            columns[category] = {"type": "number", "unit": "1", "range": [0, len(choices) - 1], "required": True}
    return {
        "name": name,
        "title": "An invented disease of the benchmark",
        "owner": "bench",
        "intended_use": "None; it does not exist.",
        "source": {"csv": str(source)},
        "patient_id": "patient",
        "columns": columns,
        "duplicate_rows": "keep",
        "refused_rows_at_most": 0,
        "outcome": {"column": "event", "positive": "== 1", "values": [0, 1]},
        "attributes": ["demographics.age_band"],
        "features": list(columns),
        "split": {"test_fraction": 0.25, "seed": SEED},
        "candidates": [family],
        "gates": {"auroc": ">= 0.6"},
        "operating_points": {"rule_out": {"sensitivity": 0.95}, "alert": {"specificity": 0.9}},
        "serving": {"max_batch": 64, "deadline_ms": 2000},
        "monitoring": {"window": 200, "min_outcomes": 50},
        "change_control": {
            "allowed": ["new_data"],
            "approvals": 0,
            "retrain": {"log_loss": "better", "auroc_drop": 0.02, "min_events": 10, "min_non_events": 10},
        },
    }


def _promote_trees(settings: Settings) -> None:
    """From the table to the champion, as `medimind run` does it; then what the peers need to fit the same trees."""
    from pipelines.ingest import ingest
    from pipelines.prepare import prepare
    from pipelines.promote import promote
    from pipelines.train import train
    from pipelines.validate import validate

    ingest(TREES, settings)
    prepare(TREES, settings)
    train(TREES, settings)
    promote(TREES, validate(TREES, settings).version.number, "for the benchmark", settings)

    spec = load_spec(TREES, settings.configs)
    plan = build.plan(spec)
    patients = cohort.load(settings.data / "cohorts" / f"{TREES}.parquet").only("train")
    fitted: Any = training.fit_family("boosted", patients, training.task(spec, plan, patients, settings))
    with open(SHARED / "training.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*plan.names, "event"])
        for row, event in zip(patients.X.tolist(), patients.y.tolist(), strict=True):
            table.writerow([*_cells(plan, row), int(event)])
    calibration = champion(TREES).bundle.calibration.document
    told = {
        "numbers": list(NUMBERS),
        "categories": {name: list(choices) for name, choices in CATEGORIES.items()},
        "parameters": fitted.model.get_params(),
        "calibration": {term: calibration[term] for term in ("slope", "intercept")},
    }
    (SHARED / "trees.json").write_text(json.dumps(told))


def _cells(plan: build.Plan, row: Sequence[float]) -> list[Any]:
    """A feature row as a table holds it: a category's name, nothing where nothing was measured."""
    return [
        "" if value != value else feature.categories[int(value)] if feature.categories else value
        for feature, value in zip(plan.features, row, strict=True)
    ]


def _promote_network(settings: Settings) -> None:
    """The logistic model's bundle with the network in its place, promoted by a report that says what it is."""
    from pipelines.ingest import ingest
    from pipelines.prepare import prepare
    from pipelines.train import train

    ingest(NETWORK, settings)
    prepare(NETWORK, settings)
    train(NETWORK, settings)
    trained = bundles.load(settings.data / "bundles" / NETWORK)
    patients = cohort.load(settings.data / "cohorts" / f"{NETWORK}.parquet")
    weights = _weights()
    np.savez(SHARED / "network.npz", allow_pickle=False, **weights)
    made = _with_network(trained, patients.only("train").X, weights)
    kept = bundles.put(bundles.sign(made.folder, settings), settings)
    finding = Finding("MM000", "an invented network", "passed", None, None, "random weights, for speed; nothing judged")
    report = Report(NETWORK, "validation", kept.digest, patients.fingerprint, (finding,))
    engine = connect(settings)
    promotions.promote(engine, 1, report, "bench", "for the benchmark")
    engine.dispose()


def _weights() -> dict[str, NDArray[np.float32]]:
    """Random layers; the first also brings each field's range to about -1 to 1."""
    dice = np.random.default_rng(SEED)
    ranges = [(low, high) for _, low, high, _, _ in NUMBERS.values()]
    low, high = np.array([*ranges, *((0, len(choices) - 1) for choices in CATEGORIES.values())], float).T
    half = (high - low) / 2
    width = len(half)
    first = dice.normal(0, 1, (width, HIDDEN)) / np.sqrt(width) / half[:, None]
    second = dice.normal(0, 1, (HIDDEN, HIDDEN)) * np.sqrt(2 / HIDDEN)
    third = dice.normal(0, 1, (HIDDEN, 1)) / np.sqrt(HIDDEN)
    layers = {
        "w1": first,
        "b1": -((low + half) @ first),
        "w2": second,
        "b2": dice.normal(0, 0.1, HIDDEN),
        "w3": third,
        "b3": np.array([-1.0]),
    }
    return {name: values.astype(np.float32) for name, values in layers.items()}


def _with_network(trained: Bundle, X: NDArray[np.float32], weights: dict[str, NDArray[np.float32]]) -> Bundle:
    """Every document as training wrote it, but for what follows from the model."""
    names = [path.stem for path in sorted(trained.folder.glob("*.json")) if path.name != bundles.MANIFEST]
    documents = {name: json.loads((trained.folder / f"{name}.json").read_text()) for name in names}
    documents["calibration"] |= {"slope": 1.0, "intercept": 0.0}
    documents["training"] |= {"family": "network", "candidates": {}, "parity": 0.0}

    def risk(session: Session, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        return 1 / (1 + np.exp(-session.log_odds(rows)))

    def export(path: Path) -> None:
        write_network(build.plan(trained.spec), weights, path)
        session = Session(path)
        cases = documents["selftest"]["cases"]
        rows = np.array([[np.nan if v is None else v for v in case["features"]] for case in cases], np.float32)
        for case, value in zip(cases, risk(session, rows).tolist(), strict=True):
            case["risk"] = value
        learned = risk(session, X)
        documents["thresholds"] = {
            "rule_out": float(np.quantile(learned, 0.3)),
            "alert": float(np.quantile(learned, 0.9)),
        }
        score = documents["reference"]["score"]
        score |= {"counts": training.histogram(learned, score["edges"]), "mean": float(learned.mean())}

    return bundles.write(BENCH / "network", documents, export)


def write_network(plan: build.Plan, weights: dict[str, NDArray[np.float32]], path: Path) -> None:
    """Encoded columns, a missing one as 0, through two hidden layers."""
    graph = Graph(len(plan.features))
    encoded = graph.encode(encoding(plan.features))
    zero = graph.constant(np.zeros((1, 1), np.float32))
    found = graph.node("Where", [graph.node("IsNaN", [encoded]), zero, encoded])
    for layer in "123":
        product = graph.node("MatMul", [found, graph.constant(weights[f"w{layer}"])])
        found = graph.node("Add", [product, graph.constant(weights[f"b{layer}"])])
        found = graph.node("Relu", [found]) if layer != "3" else found
    graph.save(found, False, path)
