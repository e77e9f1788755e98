"""Whom a model learns from and is judged on: features, outcomes, and the part each patient plays."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import CohortError
from configs.spec import Outcome, Spec
from features.build import Plan, attributes, build
from features.columns import day_begins
from features.definitions import Array
from features.records import Records

PARTS = ("train", "test", "external")
FEWEST_OF_A_CLASS = 10
"""Fewer events or non-events than this in the training part give no cross-validation worth its name; our own choice."""


@dataclass(frozen=True)
class Cohort:
    """`X` (n, d) float32, `y` (n,) 0 or 1, `part` (n,), `attributes[name]` (n,), `patient` (n,), `at` (n,) seconds.

    `dropped` counts, by reason, the source's rows that are not here; `future` and `beyond` are those of the
    records. Where the outcome has classes `label` (n,) is the number of each; where it names the stage's column `stage`
    (n,) is that.
    """

    names: tuple[str, ...]
    X: NDArray[np.float32]
    y: Array
    part: NDArray[np.str_]
    attributes: dict[str, NDArray[np.str_]]
    patient: NDArray[np.str_]
    at: Array
    dropped: dict[str, int]
    future: dict[str, int]
    label: Array | None = None
    stage: NDArray[np.str_] | None = None
    beyond: dict[str, dict[str, int]] = field(default_factory=dict)
    signals: tuple[int, ...] = ()
    """How many columns of X each of the last of the `names` has; every other name has one."""

    def __len__(self) -> int:
        return len(self.y)

    def only(self, part: str) -> "Cohort":
        """The patients of one part: train, test or external."""
        return self.where(self.part == part)

    def where(self, rows: NDArray[np.bool_]) -> "Cohort":
        chosen = {name: labels[rows] for name, labels in self.attributes.items()}
        return Cohort(
            self.names,
            self.X[rows],
            self.y[rows],
            self.part[rows],
            chosen,
            self.patient[rows],
            self.at[rows],
            self.dropped,
            self.future,
            None if self.label is None else self.label[rows],
            None if self.stage is None else self.stage[rows],
            self.beyond,
            self.signals,
        )

    @property
    def places(self) -> dict[str, slice]:
        """The columns of X that each of the `names` has."""
        widths = [1] * (len(self.names) - len(self.signals)) + [*self.signals]
        ends = np.cumsum(widths).tolist()
        return {name: slice(end - width, end) for name, width, end in zip(self.names, widths, ends, strict=True)}

    def columns(self, names: Sequence[str]) -> NDArray[np.float32]:
        """X with the columns of these names, in their order."""
        places = self.places
        return np.ascontiguousarray(np.concatenate([self.X[:, places[name]] for name in names], axis=1))

    @property
    def target(self) -> Array:
        """What a model learns, (n,): the number of the class, or 0 and 1 where there is one event alone."""
        return self.y if self.label is None else self.label

    @property
    def groups(self) -> NDArray[np.int64]:
        """Which rows are one patient's, (n,): patients numbered in order of appearance, whatever they are called."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(patient, len(numbers)) for patient in self.patient.tolist()], np.int64)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what is learned from: names, numbers, outcomes, parts and whose rows they are, in order."""
        about = [self.part.tolist(), self.groups.tolist()]
        about += [array.tolist() for array in (self.label, self.stage) if array is not None]
        return fingerprint_of(self.names, self.X, self.y, self.attributes, *about)

    @property
    def assignment(self) -> str:
        """SHA-256 of who plays which part: two cohorts that agree in it have the same test patients, whatever is read
        of them. Nobody is told by it."""
        who = sorted(zip(self.patient.tolist(), self.part.tolist(), strict=True))
        return hashlib.sha256(json.dumps(who).encode()).hexdigest()


def fingerprint_of(
    names: tuple[str, ...],
    X: NDArray[np.float32],
    y: Array,
    attributes: Mapping[str, NDArray[np.str_]],
    *about: list[Any],
) -> str:
    """SHA-256 of rows: their columns' names, the numbers, outcomes and labels, and lists that go `about` them."""
    digest = hashlib.sha256(json.dumps(names).encode())
    digest.update(np.ascontiguousarray(X).tobytes())
    digest.update(np.ascontiguousarray(y).tobytes())
    digest.update(json.dumps(about).encode())
    for name, labels in sorted(attributes.items()):
        digest.update(json.dumps([name, labels.tolist()]).encode())
    return digest.hexdigest()


def prepare(spec: Spec, plan: Plan, records: Records, dropped: Mapping[str, int]) -> Cohort:
    """The cohort of checked records: duplicates and unknown outcomes left out and counted, the rest split.

    Raises CohortError if nothing is left, a class is too rare to learn, or a feature is missing in all of training.
    """
    counts = dict(dropped) | records.unknown
    records = records.take(~np.isnan(records.outcome))
    if spec.duplicate_rows == "drop":
        again = _duplicates(records)
        if repeated := int(again.sum()):
            counts["the same as an earlier row"] = repeated
        records = records.take(~again)
    part = _split(spec, records)
    if left_out := int((part == "").sum()):
        counts["of a site in no part"] = left_out
    kept = part != ""
    for late, earlier in (("test", ["train"]), ("external", ["train", "test"])):
        known = (part == late) & np.isin(records.patient, records.patient[np.isin(part, earlier)])
        if met_before := int(known.sum()):
            counts[f"{late}, of a patient who plays another part"] = met_before
        kept &= ~known
    records, part = records.take(kept), part[kept]
    cohort = Cohort(
        plan.names,
        build(plan, records.values, records.at),
        records.outcome,
        part,
        attributes(plan, records.values, records.at),
        records.patient,
        records.at,
        counts,
        records.future,
        records.label,
        records.stage,
        records.beyond,
        tuple(signal.size for signal in plan.signals),
    )
    _judge(spec, cohort)
    return cohort


def class_counts(outcome: Outcome, cohort: Cohort) -> dict[str, int]:
    """How many rows each class has, by its name, 0 where it never occurs. Without classes: no event, and the event."""
    names = outcome.classes or ("no event", "event")
    return {name: int((cohort.target == place).sum()) for place, name in enumerate(names)}


def newest_part(y: Array, fresh: NDArray[np.bool_], fraction: float, events: int, non_events: int) -> int:
    """How many of the newest rows hold a test part: at least that fraction of all, and then as few as hold so many
    events and non-events among the `fresh`, at most half. 0 where no such part is there.

    `y` (n,) outcomes, oldest first; `fresh` (n,) whether the champion cannot have learned from a row's patient.
    """
    n = len(y)
    held_events = np.cumsum((fresh & (y == 1))[::-1])
    held_others = np.cumsum((fresh & (y == 0))[::-1])
    sizes = np.arange(1, n + 1)
    enough = (held_events >= events) & (held_others >= non_events)
    fits = enough & (sizes >= max(np.ceil(fraction * n), events + non_events)) & (sizes <= n // 2)
    return int(sizes[fits][0]) if fits.any() else 0


def retrained(spec: Spec, plan: Plan, old: Cohort, confirmed: Records, part: NDArray[np.str_]) -> Cohort:
    """The cohort of a retraining: all that is old is learned from, each of the `confirmed` plays its `part` (n,).

    A part is train or test. External patients are left out; of a test patient, any other record is left out too.

    Raises CohortError as `prepare` does, or if the old cohort has other features.
    """
    if old.names != plan.names or set(old.attributes) != {name.rpartition(".")[2] for name in spec.attributes}:
        raise CohortError(f"{spec.name}: the cohort has other features than the champion; `medimind prepare` first.")
    if (old.label is None) != (confirmed.label is None):
        raise CohortError(
            f"{spec.name}: of the old or of the confirmed outcomes the class is known, of the others not."
        )
    X = build(plan, confirmed.values, confirmed.at)
    labels = attributes(plan, confirmed.values, confirmed.at)
    of_test = set(confirmed.patient[part == "test"].tolist())
    earlier = (part == "train") & np.array([patient in of_test for patient in confirmed.patient.tolist()], bool)
    counts = {"another record of a test patient": int(earlier.sum())}
    again: NDArray[np.bool_] = np.zeros(len(confirmed), bool)
    base = old.where(old.part != "external")
    if spec.duplicate_rows == "drop":
        known = {(row.tobytes(), y) for row, y in zip(base.X, base.target.tolist(), strict=True)}
        again = np.array([(row.tobytes(), y) in known for row, y in zip(X, confirmed.target.tolist(), strict=True)])
        again |= _duplicates(confirmed)
    counts["the same as an earlier row"] = int((again & ~earlier).sum())
    kept = ~earlier & ~again
    made = Cohort(
        plan.names,
        np.concatenate([base.X, X[kept]]),
        np.concatenate([base.y, confirmed.outcome[kept]]),
        np.concatenate([np.full(len(base), "train", "<U8"), part[kept]]),
        {name: np.concatenate([base.attributes[name], labels[name][kept]]) for name in labels},
        np.concatenate([base.patient, confirmed.patient[kept]]),
        np.concatenate([base.at, confirmed.at[kept]]),
        {reason: count for reason, count in counts.items() if count},
        old.future,
        None if base.label is None else np.concatenate([base.label, confirmed.target[kept]]),
        None if base.stage is None else np.concatenate([base.stage, np.full(int(kept.sum()), "")]),
        old.beyond,
        old.signals,
    )
    _judge(spec, made)
    return made


def _duplicates(records: Records) -> NDArray[np.bool_]:
    """Rows whose every value and outcome stands in an earlier row already."""
    table = np.column_stack([*records.values.values(), records.target])
    seen: set[bytes] = set()
    again = np.zeros(len(table), bool)
    for row, values in enumerate(np.where(np.isnan(table), np.inf, table)):  # a NaN has many bit patterns, inf has one
        key = values.tobytes()
        again[row] = key in seen
        seen.add(key)
    return again


def _split(spec: Spec, records: Records) -> NDArray[np.str_]:
    """Each row's part, `` if its site is in none. Test patients come after a day, or of a site, or are drawn by lot.

    The lot is cast within every site and outcome, or class, alike. Who comes again is drawn once, by the site of the
    first row and whether any row has the event, or by the last class that any row has.
    """
    n = len(records)
    names: tuple[str, ...] = ()
    site = np.full(n, -1.0)
    if "site" in spec.columns:
        names = spec.columns["site"].categories
        site = np.nan_to_num(records.values["site"], nan=-1.0)
    part = np.full(n, "", dtype="<U8")
    learned = np.isin(site, [names.index(name) for name in spec.split.sites]) if spec.split.sites else np.ones(n, bool)
    if spec.external and spec.external.after:
        late = records.at >= day_begins(spec.external.after)
        part[late], learned = "external", learned & ~late
    elif spec.external and spec.external.sites:
        part[np.isin(site, [names.index(name) for name in spec.external.sites])] = "external"
    part[learned] = "train"
    if spec.split.test_after:
        part[learned & (records.at >= day_begins(spec.split.test_after))] = "test"
        return part
    if spec.split.test_sites:
        part[learned & np.isin(site, [names.index(name) for name in spec.split.test_sites])] = "test"
        return part
    assert spec.split.test_fraction is not None  # the Spec demands one of the three
    rows_of: dict[str, list[int]] = {}
    for row in np.flatnonzero(learned).tolist():
        rows_of.setdefault(records.patient[row], []).append(row)
    first = np.array([rows[0] for rows in rows_of.values()], np.int64)
    ever = np.array([records.target[rows].max() for rows in rows_of.values()])
    generator = np.random.default_rng(spec.split.seed)
    for where, outcome in sorted(set(zip(site[first], ever, strict=True))):
        alike = first[(site[first] == where) & (ever == outcome)]
        drawn = generator.permutation(alike)[: round(spec.split.test_fraction * len(alike))]
        for row in drawn.tolist():
            part[rows_of[records.patient[row]]] = "test"
    return part


def _judge(spec: Spec, cohort: Cohort) -> None:
    if len(cohort) == 0:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in cohort.dropped.items()) or "the source is empty"
        raise CohortError(f"{spec.name}: no patient is left ({reasons}).")
    for part in ("train", "test"):
        events = int(cohort.only(part).y.sum())
        non_events = len(cohort.only(part)) - events
        fewest = FEWEST_OF_A_CLASS if part == "train" else 1
        if min(events, non_events) < fewest:
            raise CohortError(
                f"{spec.name}: the {part} part has {events} events and {non_events} non-events; at least {fewest} of "
                f"each are needed. Does `outcome.positive: {spec.outcome.positive!r}` mean what the source says?"
            )
    if spec.outcome.classes is not None:
        _judge_classes(spec, cohort)
    empty: NDArray[np.bool_] = np.all(np.isnan(cohort.only("train").X), axis=0)
    if empty.any():
        names = ", ".join(name for name, place in cohort.places.items() if empty[place].any())
        raise CohortError(
            f"{spec.name}: nothing to learn from {names}: missing for every patient of the training part."
        )


def _judge_classes(spec: Spec, cohort: Cohort) -> None:
    counts, learned = (class_counts(spec.outcome, part) for part in (cohort, cohort.only("train")))
    rare = [name for name, count in learned.items() if count < FEWEST_OF_A_CLASS]
    if not rare:
        return
    said = ", ".join(f"{name} {count}" for name, count in learned.items())
    advice = f"bring more patients, or join it with another class in `outcome.classes`: {said}"
    if never := [name for name in rare if counts[name] == 0]:
        advice = (
            f"the source has none of {', '.join(never)}: correct its codes in `outcome.classes` or take it out; {said}"
        )
    raise CohortError(
        f"{spec.name}: the training part has {learned[rare[0]]} patients of the class {rare[0]}, and at least "
        f"{FEWEST_OF_A_CLASS} are needed; {advice}."
    )


def save(cohort: Cohort, path: Path) -> None:
    """Write the cohort as one Parquet file; its counts and fingerprint stand in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {f"x:{name}": cohort.X[:, place.start] for name, place in cohort.places.items()}
    for name in cohort.names[len(cohort.names) - len(cohort.signals) :]:
        values = cohort.columns([name])
        columns[f"x:{name}"] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    columns |= {f"attribute:{name}": labels for name, labels in cohort.attributes.items()}
    columns |= {name: array for name, array in (("label", cohort.label), ("stage", cohort.stage)) if array is not None}
    columns |= {"y": cohort.y, "part": cohort.part, "patient": cohort.patient, "at": cohort.at}
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    counts = {"dropped": cohort.dropped, "future": cohort.future, "beyond": cohort.beyond}
    about = {name: json.dumps(count) for name, count in counts.items()}
    about["fingerprint"] = cohort.fingerprint
    pq.write_table(table.replace_schema_metadata(about), path)


def load(path: Path) -> Cohort:
    """The cohort that `save` wrote. Raises CohortError if the file is missing or not what its fingerprint says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as exc:
        raise CohortError(f"{path.name}: no readable cohort; `medimind prepare {path.stem}` makes it.") from exc
    metadata = table.schema.metadata or {}
    found = {name: _array(table[name]) for name in table.column_names}
    inputs = [name for name in found if name.startswith("x:")]
    if (
        not inputs
        or not {"y", "part", "patient", "at"} <= set(found)
        or not {b"dropped", b"future", b"fingerprint"} <= set(metadata)
    ):
        raise CohortError(f"{path.name}: is not a cohort; `medimind prepare {path.stem}` makes one.")
    cohort = Cohort(
        names=tuple(name.removeprefix("x:") for name in inputs),
        X=np.column_stack([found[name] for name in inputs]).astype(np.float32),
        signals=tuple(found[name].shape[1] for name in inputs if found[name].ndim > 1),
        y=found["y"],
        part=found["part"].astype(np.str_),
        attributes={
            name.removeprefix("attribute:"): found[name].astype(np.str_)
            for name in found
            if name.startswith("attribute:")
        },
        patient=found["patient"].astype(np.str_),
        at=found["at"],
        dropped=json.loads(metadata[b"dropped"]),
        future=json.loads(metadata[b"future"]),
        label=found.get("label"),
        stage=found["stage"].astype(np.str_) if "stage" in found else None,
        beyond=json.loads(metadata.get(b"beyond", b"{}")),  # a cohort of an earlier release does not say
    )
    if cohort.fingerprint != metadata[b"fingerprint"].decode():
        raise CohortError(
            f"{path.name}: is not what its fingerprint says; `medimind prepare {path.stem}` makes it anew."
        )
    return cohort


def _array(column: Any) -> NDArray[Any]:
    """A column of the file, (n,), of a signal (n, size)."""
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(len(column), column.type.list_size)
