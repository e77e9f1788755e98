"""What a GPU is trusted with, checked on the one that is here: `make gpu-check`. One table; without a GPU one line.

An invented disease of recordings (12 leads, 5,000 samples) gets a network that learned next to nothing: what is
checked is where and how it is computed, not what it says. `--device cpu` runs the same checks on the CPU, whose memory
then has a pretended end: it shows that they run, and its figures say nothing about a GPU.
"""

import argparse
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from configs.errors import DeviceMemoryError
from configs.settings import ROOT, Settings
from configs.spec import from_document
from evidence.report import Finding, Report
from features import build
from features.cohort import Cohort
from features.columns import as_arrays, check_record, times
from ledger import promotions
from ledger.database import connect
from models import bundle as bundles
from models import training
from models.bundle import Bundle
from models.device import CardMemory, Device, HostMemory, Use, Watcher, open_device
from models.predict import CARD_TOLERANCE, Predictor

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SAMPLES, SAMPLING_HZ = 5000, 500
NAME = "invented_recordings"
SEED = 20261128
LOWER_TOLERANCE = 0.01
"""How far a risk in bf16 or fp16 may lie from the one in float32, here; a spec states its own."""
LEAST_APART = 0.02
"""Risks that lie closer together than that would agree in any precision."""
PRETENDED = 2**30
"""Bytes of the memory that the CPU pretends to have."""
NEVER = 10**15
"""Bytes that no machine has."""
THROUGHPUT_GOAL, P99_GOAL_S, EPOCH_GOAL = 0.8, 0.1, 1.1
HELD, EPOCHS = 8, 4
"""Rows of the hold-out, which an epoch ends with, and epochs of which the median counts."""
STARTS_WITHIN_S = 120

Row = tuple[str, str, str, str]
"""What was checked, what came of it, its limit, and whether it holds."""


@dataclass(frozen=True)
class Size:
    """How much is done: patients that the network learns from, records a batch, batches of the raw loop, seconds."""

    patients: int
    batch: int
    loops: int
    load_s: float


WHOLE, SMALL = Size(256, 64, 50, 20), Size(48, 8, 3, 4)


class Pretended(HostMemory):
    """The CPU's memory with an end, as a card's has one."""

    def take(self, held: int) -> None:
        import torch

        if held > PRETENDED:
            raise torch.OutOfMemoryError(f"out of memory: {held} bytes of a pretended memory.")


class Full:
    """A device's memory that is asked for more than there is before the next `times` batches."""

    def __init__(self, memory: Any, place: Any) -> None:
        self.memory, self.place, self.times = memory, place, 0
        self.copy, self.empty = memory.copy, memory.empty

    def measured(self, compute: Callable[[], Any]) -> tuple[Any, int]:
        import torch

        if self.times:
            self.times -= 1
            torch.empty(NEVER, dtype=torch.uint8, device=self.place)
        found: tuple[Any, int] = self.memory.measured(compute)
        return found


class Checked:
    """The network, the device, and the table as it grows."""

    def __init__(self, predictor: Predictor, place: Any, memory: Callable[[], Any], size: Size) -> None:
        self.predictor, self.place, self.memory, self.size = predictor, place, memory, size
        self.events: Counter[str] = Counter()
        self.batches: list[int] = []
        self.rows: list[Row] = []
        self.X = np.resize(_features(predictor, 8), (4 * size.batch, predictor.plan.width))
        self.alone = predictor.risk(self.X)
        self.weights = sum(tensor.nbytes for tensor in _network(predictor).state_dict().values())

    def device(self, budget: int | None = None, memory: Any = None) -> Device:
        self.events.clear()
        self.batches.clear()
        watcher = Watcher(
            lambda _model, rows, _seconds: self.batches.append(rows),
            lambda _model, event: self.events.update([event]),
        )
        return Device(self.place, memory or self.memory(), budget, watcher, exact=False)

    def gap(self, X: NDArray[np.float32], device: Device, precision: Any = None) -> float:
        """How far a risk lies from the one on the CPU."""
        return _gap(self.predictor, X, Use(device, NAME, precision), self.alone)

    def add(self, name: str, found: str, limit: str, holds: bool) -> None:
        self.rows.append((name, found, limit, "yes" if holds else "NO"))
        print(f"| {' | '.join(self.rows[-1])} |", flush=True)

    def weights_lie_there(self) -> None:
        device = self.device()
        self.gap(self.X[:1], device)
        held = device.held[NAME][0]
        self.add("weights on the device", f"{held:,} bytes", f"{self.weights:,} bytes", held == self.weights)

    def precisions(self) -> None:
        apart = float(np.ptp(self.alone))
        self.add("risks on the CPU, how far apart", f"{apart:.3f}", f"{LEAST_APART:g}", apart >= LEAST_APART)
        for precision, limit in ((None, CARD_TOLERANCE), ("bf16", LOWER_TOLERANCE), ("fp16", LOWER_TOLERANCE)):
            gap = float(np.max([self.gap(self.X[:n], self.device(), precision) for n in (1, 7, self.size.batch)]))
            name = f"risk in {precision or 'float32'} against the CPU's, furthest"
            self.add(name, f"{gap:.1e}", f"{limit:g}", gap <= limit)

    def self_test(self) -> None:
        self.predictor.use(self.device())
        told = self.predictor.computed
        self.predictor._use = None
        assert told is not None
        self.add("self-test there", f"{told['device']}, {told['precision']}", "no fault", told["why"] is None)

    def admission(self) -> None:
        device, peaks = self.device(), {}
        for n in (1, 2, 4, 8):
            self.gap(self.X[:n], device)
            peaks[n] = device.held[NAME][1]
        held = ", ".join(f"{n}: {peak / 2**20:.1f}" for n, peak in peaks.items())
        self.add("MB of a batch, by its rows", held, "rises", peaks[8] > peaks[1])
        self.gap(self.X[: self.size.batch], bounded := self.device(self.weights + peaks[4] * 11 // 10))
        assert bounded.budget is not None
        self.add("largest batch in a budget for 4", f"{max(self.batches)}", "4", max(self.batches) == 4)

    def eviction(self) -> None:
        device = self.device()
        self.gap(self.X[:1], device)
        batch = device.held[NAME][1]
        device = self.device(2 * self.weights + batch)
        others = [Predictor(self.predictor.bundle) for _ in range(2)]
        gaps = []
        for place in (0, 1, 2, 0, 1, 2):
            gaps.append(_gap((self.predictor, *others)[place], self.X[:1], Use(device, f"{NAME} {place}"), self.alone))
        moved = self.events["evicted"]
        self.add("three networks in the room of two: moved out", f"{moved} times", "at least 1", moved > 0)
        gap = float(np.max(gaps))  # keeps a NaN, which Python's max() may drop
        self.add("risks when they are back, furthest", f"{gap:.1e}", f"{CARD_TOLERANCE:g}", gap <= CARD_TOLERANCE)

    def out_of_memory(self) -> None:
        full = Full(self.memory(), self.place)
        device = self.device(memory=full)
        self.gap(self.X[: self.size.batch], device)
        full.times = 1
        gap = self.gap(self.X[: self.size.batch], device)
        self.add(
            "full once: halved and answered",
            f"{self.events['oom_retry']} retry, gap {gap:.1e}",
            "1",
            self.events["oom_retry"] == 1,
        )
        full.times, refused = 2, False
        try:
            self.gap(self.X[: self.size.batch], device)
        except DeviceMemoryError:
            refused = True
        gap = self.gap(self.X[: self.size.batch], device)
        holds = refused and gap <= CARD_TOLERANCE and device.lost is None
        self.add(
            "full twice: refused, and the next answered",
            f"{'refused' if refused else 'answered'}, gap {gap:.1e}",
            "refused",
            holds,
        )

    def throughput(self, settings: Settings) -> None:
        raw = self.raw_records_a_second()
        with serving(settings) as port:
            served, p99_s = load(port, self.size)
            told = metrics(port)
        self.add("records a second: raw loop", f"{raw:,.0f}", "", True)
        self.add(
            "records a second: service",
            f"{served:,.0f} ({served / raw:.2f} of it)",
            f"{THROUGHPUT_GOAL}",
            served / raw >= THROUGHPUT_GOAL,
        )
        self.add(
            "p99 of a request at that load", f"{1000 * p99_s:.0f} ms", f"{1000 * P99_GOAL_S:.0f} ms", p99_s < P99_GOAL_S
        )

        batches = told["medimind_batch_records_sum"] / told["medimind_batch_records_count"]
        self.add("records a batch of the service, mean", f"{batches:.1f}", "", True)
        held = told.get("medimind_device_memory_bytes", 0.0)
        self.add(
            "bytes that /metrics tells of the network", f"{held:,.0f}", "more than its weights", held > self.weights
        )

    def epoch(self, settings: Settings) -> None:
        """A training's epoch over a bare loop of the same steps on the same rows, which lie on the device."""
        import torch

        from models.family import Task
        from models.learner import Habits, learn

        n, batch = self.size.patients, self.size.batch
        X = np.resize(self.X, (n, self.X.shape[1]))
        signal = self.predictor.plan.signals[0]
        parts = (torch.from_numpy(np.ascontiguousarray(signal.of(X))), torch.from_numpy(X[:, :1]))
        y = torch.arange(n) % 2
        hold = torch.arange(n) < HELD
        at: list[float] = []
        task = Task(
            self.predictor.plan, SEED, np.arange(n), settings, told=lambda _epoch, _figures: at.append(perf_counter())
        )
        habits = Habits(epochs=EPOCHS, patience=EPOCHS, batch=batch, learning_rate=1e-3, weight_decay=0.0)
        learn(self.fresh(), parts, y.double(), task, habits, hold=hold)
        ours = float(np.median(np.diff(at)))

        network = self.fresh().to(self.place).train()
        there, wanted = tuple(part.to(self.place) for part in parts), y.float()[:, None].to(self.place)
        optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.0, fused=True)
        took = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as training has it on a CPU
        for _ in range(EPOCHS):
            began = perf_counter()
            for rows in (HELD + torch.randperm(n - HELD)).to(self.place).tensor_split(-(-(n - HELD) // batch)):
                optimiser.zero_grad()
                said = network(*(part.index_select(0, rows) for part in there))
                torch.nn.functional.binary_cross_entropy_with_logits(said, wanted.index_select(0, rows)).backward()
                optimiser.step()
            said.detach().cpu()
            took.append(perf_counter() - began)
        torch.set_num_threads(threads)
        ratio = ours / float(np.median(took))
        self.add("an epoch over a bare loop", f"{ratio:.2f}", f"{EPOCH_GOAL}", ratio <= EPOCH_GOAL)

    def fresh(self) -> Any:
        return deepcopy(_network(self.predictor)).requires_grad_(True)

    def raw_records_a_second(self) -> float:
        """The network alone over batches that lie on the device already."""
        import torch

        network = self.memory().copy(_network(self.predictor)).eval()
        signal = self.predictor.plan.signals[0]
        batch = torch.from_numpy(np.ascontiguousarray(signal.of(self.X[: self.size.batch]))).to(self.place)
        plain = torch.from_numpy(self.X[: self.size.batch, :1]).to(self.place)
        with torch.inference_mode():
            network(batch, plain).cpu()
            began = perf_counter()
            for _ in range(self.size.loops):
                network(batch, plain).cpu()
        return self.size.batch * self.size.loops / (perf_counter() - began)


def document(size: Size) -> dict[str, Any]:
    columns = {
        "age_years": {"type": "number", "unit": "a", "range": [18, 110], "required": True},
        "ecg": {
            "type": "waveform",
            "leads": list(LEADS),
            "sampling_hz": SAMPLING_HZ,
            "samples": SAMPLES,
            "unit": "mV",
            "range": [-20, 20],
            "required": True,
        },
    }
    return {
        "name": NAME,
        "title": "Invented recordings of the GPU's check",
        "owner": "bench",
        "intended_use": "None; it does not exist.",
        "source": {"csv": "none.csv"},
        "patient_id": "patient",
        "columns": columns,
        "duplicate_rows": "keep",
        "refused_rows_at_most": 0,
        "outcome": {"column": "event", "positive": "== 1", "values": [0, 1]},
        "attributes": ["demographics.age_band"],
        "features": ["age_years", "ecg"],
        "split": {"test_fraction": 0.25, "seed": 17},
        "candidates": ["waveform"],
        "learning": {"epochs": 2, "batch": 8},
        "gates": {"auroc": ">= 0.5"},
        "operating_points": {"alert": {"specificity": 0.5}},
        "serving": {"max_batch": size.batch, "deadline_ms": 60_000},
        "monitoring": {"window": 200, "min_outcomes": 50},
        "change_control": {
            "allowed": ["new_data"],
            "approvals": 0,
            "retrain": {"log_loss": "better", "auroc_drop": 0.02, "min_events": 10, "min_non_events": 10},
        },
    }


def recordings(n: int, seed: int) -> NDArray[np.float32]:
    """Invented recordings (n, 12, 5000): tones and noise."""
    dice = np.random.default_rng(seed)
    at = np.arange(SAMPLES) / SAMPLING_HZ
    tones = np.sin(2 * np.pi * dice.uniform(1, 9, (n, len(LEADS), 1)) * at)
    return (tones + dice.normal(0, 0.1, tones.shape)).astype(np.float32)


def trained(size: Size, folder: Path, settings: Settings) -> Bundle:
    """The bundle of a network that saw each invented patient once a fold."""
    spec = from_document(document(size), NAME)
    plan = build.plan(spec)
    n = size.patients
    marked = np.arange(n) % 2 == 1
    # Who is sick is older and has larger waves, but for every fifth: a network that learned nothing would be refused,
    # and one that is sure of everybody would have the same risks in any precision.
    sick = marked ^ (np.arange(n) % 5 == 0)
    ages = np.random.default_rng(SEED).integers(18, 80, n) + 30 * marked
    waves = recordings(n, SEED) * np.where(marked, 3, 1)[:, None, None].astype(np.float32)
    records = [
        check_record(spec.columns, {"age_years": int(age), "ecg": wave}, None)
        for age, wave in zip(ages, waves, strict=True)
    ]
    values, at = as_arrays(spec.columns, records), times(records)
    cohort = Cohort(
        names=tuple(plan.names),
        X=build.build(plan, values, at),
        y=sick.astype(float),
        part=np.full(n, "train"),
        attributes={},
        patient=np.array([f"P{number:05}" for number in range(n)]),
        at=at,
        dropped={},
        future={},
        signals=tuple(signal.size for signal in plan.signals),
    )
    return training.train(spec, plan, cohort, folder, settings)


def promoted(made: Bundle, settings: Settings) -> None:
    """Champion of the check's own machine, by a report that says what it is."""
    kept = bundles.put(bundles.sign(made.folder, settings), settings)
    finding = Finding("MM000", "an invented network", "passed", None, None, "for the check of a GPU; nothing judged")
    engine = connect(settings)
    promotions.promote(engine, 1, Report(NAME, "validation", kept.digest, "0" * 64, (finding,)), "bench", "gpu-check")
    engine.dispose()


@contextmanager
def serving(settings: Settings) -> Iterator[int]:
    """One worker of that machine, on the port that it gives."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    variables = {"HOME": settings.home, "CONFIGS": settings.configs, "DATA": settings.data}
    log = settings.home / "serve.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "serve", NAME, "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ
            | {f"MEDIMIND_{key}": str(value) for key, value in variables.items()}
            | {"MEDIMIND_DEVICE": settings.device},
            start_new_session=True,
        )
    try:
        began = monotonic()
        while not ready(port):
            if process.poll() is not None or monotonic() - began > STARTS_WITHIN_S:
                raise RuntimeError(f"the service does not answer: {log.read_text(errors='replace')[-600:]}")
            sleep(0.2)
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def ready(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
    except OSError:
        return False


def load(port: int, size: Size) -> tuple[float, float]:
    """Records a second that the service answers, and the 99th percentile of a request's time: as many clients as a
    batch has records, each of whom asks with one recording as .npy, again and again."""
    file = io.BytesIO()
    np.save(file, recordings(1, SEED + 1)[0])
    body, headers = file.getvalue(), {"Content-Type": "application/x-npy", "X-Record": json.dumps({"age_years": 61})}
    until, took, faults = monotonic() + size.load_s, [], []

    def ask() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            while monotonic() < until:
                began = perf_counter()
                connection.request("POST", f"/v1/models/{NAME}/predict", body, headers)
                answer = connection.getresponse()
                said = answer.read()
                took.append(perf_counter() - began)
                if answer.status != 200:
                    faults.append(said[:200])
                    return

    clients = [threading.Thread(target=ask) for _ in range(size.batch)]
    began = perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if faults:
        raise RuntimeError(f"the service refused: {faults[0].decode(errors='replace')}")
    return len(took) / (perf_counter() - began), float(np.percentile(took, 99))


def metrics(port: int) -> dict[str, float]:
    """What /metrics tells of the model, summed by name."""
    told: dict[str, float] = {}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            name, _, value = line.rpartition(" ")
            if f'model="{NAME}"' in name:
                name = name.partition("{")[0]
                told[name] = told.get(name, 0.0) + float(value)
    return told


def _gap(predictor: Predictor, X: NDArray[np.float32], use: Use, alone: NDArray[np.float64]) -> float:
    """How far what the device says lies from what the CPU says; NaN where the device gives no number, as nobody is
    asked again in its stead."""
    said = predictor.positive(predictor._computed(X, use))
    return float(np.abs(said - alone[: len(X)]).max())


def _network(predictor: Predictor) -> Any:
    return predictor._model.network  # type: ignore[attr-defined]


def _features(predictor: Predictor, n: int) -> NDArray[np.float32]:
    records = [
        predictor.check({"age_years": 40 + 8 * place, "ecg": wave * (1 + place % 3)})
        for place, wave in enumerate(recordings(n, SEED + 2))
    ]
    return predictor.features(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the checks without a GPU")
    asked = parser.parse_args().device
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        print(f"gpu-check: skipped: torch {torch.__version__} finds no CUDA device here. Nothing was checked.")
        return
    with tempfile.TemporaryDirectory() as folder:
        base, size = Path(folder), WHOLE if asked == "cuda" else SMALL
        settings = Settings(
            home=base / "home", configs=base / "configs", data=base / "data", user="bench", device=asked
        )
        (settings.configs / "diseases").mkdir(parents=True)
        (settings.configs / "enabled.yaml").write_text(f"enabled: [{NAME}]\n")
        (settings.configs / "diseases" / f"{NAME}.yaml").write_text(yaml.safe_dump(document(size), sort_keys=False))
        settings.private(settings.home)
        made = trained(size, base / NAME, settings)
        promoted(made, settings)
        opened = open_device(settings, Watcher(lambda *_: None, lambda *_: None))
        card = isinstance(opened.memory, CardMemory)
        memory: Callable[[], Any] = (lambda: CardMemory(opened.place)) if card else Pretended
        what = (
            torch.cuda.get_device_name(opened.place)
            if card
            else "the CPU, with a pretended memory: tried, not measured"
        )
        print(f"{what}; torch {torch.__version__}; {len(LEADS)} x {SAMPLES:,} samples, {size.batch} a batch\n")
        print("| check | found | limit | holds |\n| --- | --- | --- | --- |")
        checked = Checked(Predictor(made), opened.place, memory, size)
        checked.weights_lie_there()
        checked.self_test()
        checked.precisions()
        checked.admission()
        checked.eviction()
        checked.out_of_memory()
        checked.throughput(settings)
        checked.epoch(settings)
    if card and any(row[3] == "NO" for row in checked.rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
