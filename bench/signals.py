"""How long a signal takes from a request's bytes to checked floats, by the way it is sent. `python -m bench.signals`.

A recording of 12 leads of 1,000 samples, *invented*: as numbers in JSON, as base64 in JSON, as .npy and as raw
numbers. Decoding is what the body's reader does; checking is the contract's, with the judge of recordings in it.
"""

import argparse
import base64
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from configs.spec import Column
from features.contract import Contract
from serving import bodies, signals

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
ECG = Column(type="waveform", leads=LEADS, sampling_hz=100, samples=1000, unit="mV", accepts=("uV",), range=(-20, 20))
COLUMNS = {"ecg": ECG, "age_years": Column(type="number", unit="a", range=(18, 120), required=True)}
TOLD = {b"x-record": b'{"age_years": 61}', b"x-shape": b"12,1000", b"x-dtype": b"float32"}
SEED = 20261128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=500, help="how often each is done; the median counts")
    times = parser.parse_args().times
    contract = Contract(COLUMNS)
    typed = bodies.decoder(contract)
    now = datetime.now(UTC)

    def as_json(body: bytes) -> list[Any]:
        return bodies.read(body, bodies.JSON, typed)[0]

    def by_itself(kind: str) -> Callable[[bytes], list[Any]]:
        return lambda body: list(contract.typed(signals.read(body, kind, TOLD, contract.sent)[0]))

    print("| sent as | bytes | decoded, us | checked, us | both, us |\n| --- | ---: | ---: | ---: | ---: |")
    for name, body, read in (
        ("numbers in JSON", ways()["numbers"], as_json),
        ("base64 in JSON", ways()["base64"], as_json),
        (".npy", ways()["npy"], by_itself(signals.NPY)),
        ("raw numbers", ways()["raw"], by_itself(signals.RAW)),
    ):
        records = read(body)
        assert contract.quick(records, now) is not None, f"{name}: goes to the judge of odd records"
        decoded, checked = _us(partial(read, body), times), _us(partial(contract.quick, records, now), times)
        print(f"| {name} | {len(body):,} | {decoded:,.0f} | {checked:,.0f} | {decoded + checked:,.0f} |")


def ways() -> dict[str, bytes]:
    """The same recording as each kind of body."""
    dice = np.random.default_rng(SEED)
    tones = np.sin(2 * np.pi * dice.uniform(1, 9, (12, 1)) * np.arange(1000) / 100)
    wave = (tones + dice.normal(0, 0.2, (12, 1000))).astype("<f4")
    file = io.BytesIO()
    np.save(file, wave)

    def request(ecg: Any) -> bytes:
        return json.dumps({"records": [{"age_years": 61, "ecg": ecg}]}).encode()

    numbers = [[round(value, 4) for value in lead] for lead in wave.tolist()]  # as a person would write them
    packed = base64.b64encode(wave.tobytes()).decode()
    return {"numbers": request(numbers), "base64": request(packed), "npy": file.getvalue(), "raw": wave.tobytes()}


def _us(function: Callable[[], Any], times: int) -> float:
    """Microseconds, the median of so many."""
    taken = []
    for _ in range(times):
        began = perf_counter()
        function()
        taken.append(perf_counter() - began)
    return float(np.median(taken)) * 1e6


if __name__ == "__main__":
    main()
