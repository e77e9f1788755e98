"""What a history adds: a disease's model with its columns of events, and without, on the same patients.

`python -m bench.history [NAME …]`, after `medimind prepare NAME`, takes each disease that reads events, trains it twice
on the same training part, once with the features of its spec and once with those alone that read no event, and compares
the two on the same test patients, whom neither saw. Nothing is registered.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from configs.settings import Settings
from configs.spec import Spec, diseases, from_document, load_spec
from evidence.comparison import figures
from features import build, cohort
from features.cohort import Cohort
from models.bundle import Bundle
from models.predict import Predictor
from models.training import train


def main() -> None:
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    specs = {name: load_spec(name, settings.configs) for name in diseases(settings.configs)}
    parser.add_argument("names", nargs="*", default=[name for name, spec in specs.items() if spec.events])
    for name in parser.parse_args().names:
        patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
        with tempfile.TemporaryDirectory(prefix="medimind-bench-") as folder:
            compare(specs[name], patients, Path(folder))


def compare(spec: Spec, patients: Cohort, folder: Path) -> None:
    """Print the paired figures of the spec's model and of one without a history."""
    bare = without_history(spec)
    whole, part = trained(spec, patients, folder / "whole"), trained(bare, narrowed(patients, bare), folder / "bare")
    test = patients.only("test")
    with_history, without = Predictor(whole).risk(test.X), Predictor(part).risk(narrowed(test, bare).X)
    family = [bundle.training["family"] for bundle in (whole, part)]
    print(f"{spec.name}: {len(test)} test patients, {int(test.y.sum())} events; {len(spec.features)} features "
          f"({family[0]}) beside {len(bare.features)} ({family[1]})")  # fmt: skip
    print("| figure | with the history | without | gain (95 %) | p |\n|---|---|---|---|---|")
    for title, paired in figures(test.y, with_history, without, spec.split.seed).items():
        low, high = (0.0 if end is None else end for end in (paired.low, paired.high))
        spread = f"{paired.difference:+.4f} ({low:+.4f} to {high:+.4f})"
        p = "" if paired.p is None else f"{paired.p:.2g}"
        print(f"| {title.replace('_', ' ')} | {paired.a:.4f} | {paired.b:.4f} | {spread} | {p} |")


def without_history(spec: Spec) -> Spec:
    """The spec with those features alone that read no event."""
    plan = build.plan(spec)
    kept = [
        feature.name
        for feature in plan.features
        if not any(read in spec.columns and spec.columns[read].event is not None for read in feature.reads)
    ]
    return from_document({**spec.document, "features": kept}, f"{spec.name} without its history")


def narrowed(patients: Cohort, spec: Spec) -> Cohort:
    """The same patients with the features of another spec."""
    places = [patients.names.index(name) for name in spec.features]
    return replace(patients, names=tuple(spec.features), X=patients.X[:, places])


def trained(spec: Spec, patients: Cohort, folder: Path) -> Bundle:
    return train(spec, build.plan(spec), patients, folder)


if __name__ == "__main__":
    main()
