"""How much tumour has to be in the blood before it is found: *simulated* samples. `python -m bench.cfdna`.

The model of `cancer_origin_simulated` is trained on its simulated study. Then fresh simulated people are drawn, healthy
ones for a threshold of 99 % specificity, and sick ones of one tumour fraction after the other: the share of them above
the threshold is the detection rate, with its 95 % interval, for each kind of evidence alone and for the model of all.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.settings import ROOT
from configs.spec import Spec, load_spec
from evidence import page, svg
from evidence.exhibits import table
from evidence.metrics import wilson
from features import build, cohort, columns
from features.definitions import Array
from models.predict import Predictor
from models.training import train
from pipelines.liquid_biopsy import CELL_OF_ORIGIN, CELL_TYPES, ORIGINS, sample, study

DISEASE = "cancer_origin_simulated"
FRACTIONS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
HEALTHY, SICK = 3000, 450
SPECIFICITY = 0.99
DETECTED = 0.95
"""The share of samples with an analyte that a limit of detection finds.

Source: CLSI EP17-A2, Evaluation of detection capability for clinical laboratory measurement procedures, 2012.
"""
SEED = 20261128
KINDS = (
    "chromosome arms",
    "fragmentation profile",
    "share below 150 bp",
    "cells of origin",
    "variants",
    "all of it, by the model",
)


@dataclass(frozen=True)
class Curve:
    """The detection rate by tumour fraction, each with its 95 % interval, in the order of FRACTIONS."""

    kind: str
    rates: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]

    @property
    def limit(self) -> float | None:
        """The tumour fraction from which on DETECTED are found, on a straight line between two on the log scale."""
        if self.rates[-1] < DETECTED:
            return None
        last = max((place for place, rate in enumerate(self.rates) if rate < DETECTED), default=-1)
        if last < 0:
            return FRACTIONS[0]
        part = (DETECTED - self.rates[last]) / (self.rates[last + 1] - self.rates[last])
        low, high = np.log10(FRACTIONS[last]), np.log10(FRACTIONS[last + 1])
        return float(10 ** (low + part * (high - low)))


def model(spec: Spec, folder: Path) -> Predictor:
    """The disease's model, trained on its *simulated* study as `medimind train` does."""
    assert spec.source.patients is not None and spec.source.seed is not None
    people = study(spec.source.patients, spec.source.seed)
    records, _ = columns.check_table(spec, people, columns.translate_table(spec, people))
    door = build.plan(spec)
    return Predictor(train(spec, door, cohort.prepare(spec, door, records, {}), folder))


def scores(predictor: Predictor, found: dict[str, Array], seed: int) -> dict[str, Array]:
    """For each kind of evidence a number a sample, (n,), that is higher the more it speaks for a tumour."""
    n = len(found["nuclear_fragments"])
    dice = np.random.default_rng(seed)
    nobody = {name: np.zeros(n) for name, column in predictor.spec.columns.items() if column.categories}
    who = {"age_years": np.clip(np.round(dice.normal(62, 9, n)), 40, 90), "sex": dice.integers(0, 2, n).astype(float)}
    X = build.build(predictor.plan, {**nobody, **who, **found}, np.full(n, np.nan))
    named = {name: X[:, place].astype(np.float64) for place, name in enumerate(predictor.plan.names)}
    cells = [
        named[f"methylation.cell_type_fractions.{cell}"] / CELL_TYPES[cell] ** 0.5  # the rarer in health, the more told
        for cell in CELL_OF_ORIGIN.values()
    ]
    return {
        "chromosome arms": named["cfdna.aneuploidy_score"],
        "fragmentation profile": -named["cfdna.fragmentation_correlation"],
        "share below 150 bp": named["cfdna.share_below_150_bp"],
        "cells of origin": np.max(cells, axis=0),
        "variants": named["variants.largest_excess_over_blank_sd"],
        "all of it, by the model": predictor.risk(X),
    }


def curves(predictor: Predictor) -> tuple[list[Curve], dict[str, float]]:
    """Each kind's curve, and the share of further healthy people above its threshold."""
    healthy = [
        scores(predictor, sample(np.zeros(HEALTHY), np.full(HEALTHY, ORIGINS[0]), SEED + step), SEED + step)
        for step in (0, 1)
    ]
    thresholds = {kind: float(np.quantile(healthy[0][kind], SPECIFICITY, method="higher")) for kind in KINDS}
    false_alarms = {kind: float((healthy[1][kind] > thresholds[kind]).mean()) for kind in KINDS}
    origin: NDArray[np.str_] = np.resize(np.array(ORIGINS[1:]), SICK)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for step, fraction in enumerate(FRACTIONS, start=2):
        sick = scores(predictor, sample(np.full(SICK, fraction), origin, SEED + step), SEED + step)
        for kind in KINDS:
            rates[kind].append(float((sick[kind] > thresholds[kind]).mean()))
    intervals = {
        kind: tuple(wilson(rate * SICK, SICK) or (0.0, 1.0) for rate in found) for kind, found in rates.items()
    }
    return [Curve(kind, tuple(rates[kind]), intervals[kind]) for kind in KINDS], false_alarms


def rows(found: Sequence[Curve], false_alarms: dict[str, float]) -> list[list[str]]:
    """A row a kind: its detection rate at each fraction with the interval, its limit of detection, its false alarms."""
    return [
        [
            curve.kind,
            *(
                f"{rate:.2f} ({low:.2f} to {high:.2f})"
                for rate, (low, high) in zip(curve.rates, curve.intervals, strict=True)
            ),
            f"{100 * curve.limit:.1f} %" if curve.limit is not None else f"above {100 * FRACTIONS[-1]:g} %",
            f"{100 * false_alarms[curve.kind]:.1f} %",
        ]
        for curve in found
    ]


HEADS = ("evidence", *(f"{100 * fraction:g} %" for fraction in FRACTIONS), "limit of detection", "false alarms")


def drawn(found: Sequence[Curve], held: list[list[str]]) -> str:
    """The curves as one HTML page."""
    title = "Simulated: detection of cancer from blood by tumour fraction"
    said = (
        f"Simulated people alone: {SICK} samples at each tumour fraction, a third of each origin, at the threshold "
        f"that {SPECIFICITY:.0%} of {HEALTHY} healthy ones stay below. The limit of detection is where {DETECTED:.0%} "
        "are found. It says how the methods work on planted truth, and nothing about any real test."
    )
    x = [float(np.log10(100 * fraction)) for fraction in FRACTIONS]
    lines = [svg.Line(curve.kind, list(zip(x, curve.rates, strict=True)), band=curve.intervals) for curve in found]
    axes = (svg.Axis("tumour fraction, log10 of %", x[0], x[-1]), svg.Axis("detected", 0, 1, percent=True))
    pictures = "".join(
        f"<h2>{line.label}</h2><figure>{svg.lines(f'curve-{place}', (line.label, said), axes, [line])}</figure>"
        for place, line in enumerate(lines)
    )
    return (
        f"{page.top(title)}<header><p class='invented'>Simulated</p><h1>{title}</h1><p>{said}</p></header>"
        f"<main>{table('detection rates (95 % interval)', HEADS, held)}{pictures}</main></body></html>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="write the curves there as one HTML page")
    asked = parser.parse_args()
    spec = load_spec(DISEASE, ROOT / "configs")
    with tempfile.TemporaryDirectory() as folder:
        found, false_alarms = curves(model(spec, Path(folder) / DISEASE))
    held = rows(found, false_alarms)
    print(f"| {' | '.join(HEADS)} |\n| --- |{' ---: |' * (len(HEADS) - 1)}")
    for row in held:
        print(f"| {' | '.join(row)} |")
    if asked.page is not None:
        asked.page.write_text(drawn(found, held), encoding="utf-8")


if __name__ == "__main__":
    main()
