"""A disease's YAML, drafted from a table, for a data scientist and a clinician to finish.

What a table can tell is written down: names, types, plausible ranges, categories, suspected missing codes. What only
people know reads TODO. A column that might identify patients is named, and no value of it is written anywhere.
"""

import itertools
import json
import math
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any

import yaml

from configs.errors import SourceError, SpecError
from configs.spec import NAME, RESERVED_FIELDS
from features.columns import BEYOND

MOST_CATEGORIES = 20
LONGEST_CATEGORY = 60
LARGEST_MEASUREMENT = 1e15
MOSTLY = 0.8
"""Share of a column's rows from which a few odd cells no longer change what the column is."""

MISSING_CODES = (-9999, -999, -99, -9, -1, 99, 999, 9999)
MISSING_WORDS = {"missing", "unk", "unknown", "not available", "not done", "not known"}
MISSING_TEXT = {"?", ".", "-", "--", "*", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nd", "null", *MISSING_WORDS}

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ].*)?|\d{1,2}:\d{2}(:\d{2}.*)?")
DATE_NAME = re.compile(r"(.*_)?(date|datetime|time|timestamp|dob|birthdate|birthday)(_.*)?")
PATIENT_NAME = re.compile(r"(patient|subject|participant|person)(_?(id|no|nr|num|number|code|key))?|mrn|pid|ptid")
ID_NAME = re.compile(
    r"(.*_)?(id|mrn|uuid|guid)|(case|record|encounter|visit|study|row)_?(id|no|nr|num|number|code|key)"
)
PERSONAL_NAME = re.compile(
    r"(.*_)?(ssn|nhs|phone|telephone|mobile|email|address|street|postcode|zip|zipcode|surname|firstname|lastname)(_.*)?"
)
OUTCOME_NAMES = ("outcome", "target", "label", "diagnosis", "num", "death", "died", "mortality", "class", "event", "y")
OUTCOME_WORDS = {"outcome", "target", "label", "diagnosis", "death", "died", "mortality"}
POSITIVE = {"1", "yes", "y", "true", "pos", "positive", "case", "dead", "died", "malignant", "present", "abnormal"}
SYMBOLS = {"%": "percent", "+": "plus", "<": "below", ">": "above", "=": "equal", "µ": "u", "μ": "u", "ß": "ss"}

RELEASE = """\
# TODO owner and clinician: from here on stand the heart example's values, not yours. Write gates before the first run.
split: {test_fraction: 0.25, seed: 17}  # TODO owner: with a column `site`, name sites here and others in `external:`
candidates: [logistic, boosted]
gates:  # TODO owner: what must hold before a version may be promoted; never changed to pass
  auroc: ">= 0.80"
  observed_over_expected: [0.8, 1.25]
  calibration_slope: {reaches: [0.8, 1.25]}
  WORST_SUBGROUP
  not_worse_than: {logistic: 0.02}
operating_points: {rule_out: {sensitivity: 0.95}, alert: {ppv: 0.8}}  # TODO clinician: what is done at which risk
serving: {max_batch: 64, deadline_ms: 200}
monitoring: {window: 200, min_outcomes: 50}
change_control:  # TODO owner: what may change without a new review
  allowed: [new_data]
  approvals: 0
  retrain: {log_loss: better, auroc_drop: 0.02, min_events: 10, min_non_events: 10}
"""
WORST_SUBGROUP = 'worst_subgroup_auroc: ">= 0.70"'


@dataclass(frozen=True)
class Seen:
    """One column as the table holds it; every count is of rows, blank cells are in none."""

    source: str
    name: str
    rows: int
    spellings: Mapping[str, int]
    numbers: Mapping[float, int]
    texts: Mapping[str, int]
    missing: Mapping[str, int]
    boolean: bool
    nested: bool

    @property
    def filled(self) -> int:
        return sum(self.spellings.values())

    @property
    def numeric(self) -> bool:
        beyond = sum(self.texts[text] for text in self.beyond)
        return bool(self.numbers) and sum(self.numbers.values()) + beyond >= MOSTLY * self.filled

    @property
    def beyond(self) -> dict[str, tuple[str, float]]:
        """The texts that say a value is beyond detection: `<` or `>`, and the limit."""
        found = {text: BEYOND.fullmatch(text) for text in self.texts}
        return {text: (match[1], float(match[2])) for text, match in found.items() if match is not None}

    @property
    def whole(self) -> bool:
        return all(number.is_integer() for number in self.numbers)

    @property
    def codes(self) -> list[float]:
        return _suspected_codes(self.numbers) if self.numeric else []

    @property
    def measured(self) -> list[float]:
        return sorted(set(self.numbers) - set(self.codes))

    @property
    def coded(self) -> bool:
        """Two small whole numbers and nothing else: they stand for something."""
        ends = self.measured
        return self.numeric and self.whole and not self.texts and len(ends) == 2 and ends[0] >= 0 and ends[1] <= 9

    @property
    def unique(self) -> bool:
        return len(self.spellings) == self.rows and (not self.numbers or self.whole)


def draft(name: str, path: Path, written: Path) -> str:
    """The text of `configs/diseases/<name>.yaml` as far as the table at `path` (.csv or .parquet) can tell it.

    `written` is the path as the YAML names it. Every unit reads TODO, which `medimind check` refuses: a draft is not
    trained on unread. Write it as UTF-8.
    Raises SpecError for a name that cannot be one, SourceError if the table cannot be read or holds nothing to use.
    """
    if not NAME.fullmatch(name):
        raise SpecError(
            f"{name!r} is not a name for a disease: lower-case letters, digits and _, such as heart_disease."
        )
    table = _read(path)
    columns = _look(path, table)
    patient = _patient(columns)
    outcome, candidates = _outcome([column for column in columns if column is not patient])
    kept, comments = [], []
    for column in columns:
        if column is patient or column is outcome:
            continue
        if reason := _left_out(column):
            comments.append(f"  # left out: {_quoted(column.source)}: {reason}")
        else:
            kept.append(column)
    features = [column.name for column in kept if not _outcome_like(column)]
    if not features:
        raise SourceError(
            f"{path}: no usable column among {len(columns)}. At least one is expected, beside the patient's identifier "
            "and the outcome, that holds numbers, true and false, or up to 20 categories that repeat."
        )
    return "\n".join(
        [
            f"# Drafted by `medimind new` from {_quoted(path.name)}, {columns[0].rows} rows. TODO: needs a person.",
            _line("name", name),
            _line("title", "TODO", "TODO owner: the clinical question, and in whom"),
            _line("owner", "TODO", "TODO owner: the team that answers for this model"),
            _line("intended_use", "TODO", "TODO owner: who decides what with it, and what it is not for"),
            "",
            _line("source", {path.suffix.lower()[1:]: str(written)}),
            _patient_line(patient),
            "",
            "columns:  # TODO clinician: name what is measured, in which unit; add `required: true` where needed",
            *(line for column in kept for line in _column(column)),
            *comments,
            "",
            _duplicates_line(table[[column.source for column in (*kept, *([outcome] if outcome else []))]]),
            _line(
                "refused_rows_at_most", 0, "TODO owner: the share of rows that may break the contract and be left out"
            ),
            _outcome_line(outcome, candidates),
            _attributes_line(kept),
            "features:  # TODO clinician: only what is known at the time of prediction",
            *(f"  - {_scalar(feature)}" for feature in features),
            "",
            _release(kept),
        ]
    )


def _look(path: Path, table: Any) -> list[Seen]:
    """Every column of the table, counted."""
    headers = list(table.columns)
    seen = []
    for position, (header, name) in enumerate(zip(headers, _distinct(map(_clean, headers)), strict=True)):
        series = table.iloc[:, position]
        cells = series[~series.isna()].tolist()
        plain = all(isinstance(cell, str | int | float | date | time) for cell in cells)
        counts = Counter(map(_spelling, cells)) if plain else Counter[str]()
        typed = path.suffix.lower() == ".parquet"
        if not typed:
            del counts[""]  # a CSV's blank; a Parquet file's empty text is a text like any other
        boolean = all(isinstance(cell, bool) for cell in cells) if typed else _reads_as_boolean(counts)
        seen.append(_count(header, name, len(table), counts, boolean, nested=not plain))
    return seen


def _read(path: Path) -> Any:
    import pandas as pd

    kind = path.suffix.lower()
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file.")
    if kind not in (".csv", ".parquet"):
        raise SourceError(f"{path}: a table ends in .csv or .parquet; save it as one of these.")
    try:
        if kind == ".parquet":
            table = pd.read_parquet(path).reset_index(drop=True)
            names = [str(header) for header in table.columns]
        else:
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            names = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, nrows=1).iloc[0].tolist()
    except pd.errors.EmptyDataError:
        raise SourceError(f"{path}: the file is empty; a header and at least one row are expected.") from None
    except UnicodeDecodeError as exc:
        raise SourceError(f"{path}: is not UTF-8 text (byte {exc.start}); save it again as UTF-8.") from None
    except OSError as exc:
        raise SourceError(f"{path}: cannot be read ({exc.strerror or f'not a {kind} file'}).") from None
    except (ValueError, TypeError, NotImplementedError):  # a parser's message may hold a patient's row: not repeated
        raise SourceError(f"{path}: cannot be read as {kind}; every row needs as many fields as the header.") from None
    if not len(table):
        raise SourceError(f"{path}: the table is empty; a header and at least one row are expected.")
    if not isinstance(table.index, pd.RangeIndex):
        raise SourceError(f"{path}: its rows have more fields than the header; give every column a name.")
    if len(table.columns) == 1 and re.search(r"[;\t|]", str(table.columns[0])):
        raise SourceError(f"{path}: its fields are not separated by commas; save it again with commas.")
    if twice := [name for name, times in Counter(names).items() if times > 1]:  # pandas renames a CSV's in silence
        raise SourceError(f"{path}: several columns are called {_quoted(twice[0])}; give each a name of its own.")
    table.columns = [str(header) for header in table.columns]
    return table


def _spelling(cell: Any) -> str:
    """A cell as a CSV would hold it: 1.0 is 1, as an integer column with blanks is often stored with decimals."""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _reads_as_boolean(counts: Mapping[str, int]) -> bool:
    """Whether the reader of a CSV makes true and false of it: one other word, and every cell stays text."""
    truths = {f(word) for word in ("true", "false") for f in (str.lower, str.upper, str.capitalize)}
    return truths.issuperset(counts)


def _count(source: str, name: str, rows: int, counts: Mapping[str, int], boolean: bool, nested: bool) -> Seen:
    missing = {s: n for s, n in counts.items() if s.strip().casefold() in MISSING_TEXT or not s.strip()}
    spellings = {s: n for s, n in counts.items() if s not in missing}
    numbers: Counter[float] = Counter()
    texts = {}
    for spelling, times in spellings.items():
        if NUMBER.fullmatch(spelling.strip()):
            numbers[float(spelling)] += times
        else:
            texts[spelling] = times
    if numbers and all(text.strip().casefold() == "none" for text in texts):  # among words it is an answer
        missing |= texts
        spellings = {s: n for s, n in spellings.items() if s not in texts}
        texts = {}
    return Seen(source, name, rows, spellings, numbers, texts, missing, boolean and not numbers, nested)


def _clean(text: str) -> str:
    """Words of a-z and 0-9 with _ between: `RestingBP (mmHg)` is `resting_bp_mm_hg`; empty if nothing is left."""
    for symbol, word in SYMBOLS.items():
        text = text.replace(symbol, f" {word} ")
    text = re.sub(r"(?<=[a-z0-9]{2})(?=[A-Z])", " ", text)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", text.replace("'", ""))[:LONGEST_CATEGORY].strip("_")


def _distinct(names: Iterable[str]) -> list[str]:
    """Names that may stand in a contract, each once: a name's second bearer gets _2."""
    taken: list[str] = []
    for name in names:
        name = name if NAME.fullmatch(name) else f"column_{name}".rstrip("_")
        name = f"{name}_value" if name in RESERVED_FIELDS else name
        taken.append(_free(name, taken))
    return taken


def _free(name: str, taken: Iterable[str]) -> str:
    taken = set(taken)
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def _patient(columns: list[Seen]) -> Seen | None:
    """The column that most likely says whose row it is. A patient's number that repeats is one all the same."""
    named = [c for c in columns if PATIENT_NAME.fullmatch(c.name.removesuffix("_value")) and c.filled and not c.boolean]
    named = [c for c in named if c.unique or (len(c.spellings) > MOST_CATEGORIES and (not c.numbers or c.whole))]
    named.sort(key=lambda c: not c.unique)
    return next(iter([*named, *(c for c in columns if ID_NAME.fullmatch(c.name) and c.unique)]), None)


def _outcome(columns: list[Seen]) -> tuple[Seen | None, list[str]]:
    """The column that most likely says what happened; failing that, the names of those with two values."""
    fit = [c for c in columns if 2 <= len(c.spellings) <= 10 and not _left_out(c)]
    named = [c for known in OUTCOME_NAMES for c in fit if c.name == known]
    named += [c for c in fit if _outcome_like(c)]
    two_valued = [c for c in fit if c.coded or (not c.numeric and len(c.spellings) == 2)]
    two_valued = [c for c in two_valued if c.name not in ("sex", "gender")]
    if named or len(two_valued) == 1:
        return [*named, *two_valued][0], []
    return None, [c.source for c in two_valued]


def _outcome_like(column: Seen) -> bool:
    return column.name in OUTCOME_NAMES or not OUTCOME_WORDS.isdisjoint(column.name.split("_"))


def _left_out(column: Seen) -> str:
    """Why a column is not drafted, without any of its values; empty if it is."""
    distinct = len(column.spellings)
    if column.nested:
        return "holds other things than text, numbers, true and false"
    if not distinct:
        return "holds no value"
    if PERSONAL_NAME.fullmatch(column.name) or (ID_NAME.fullmatch(column.name) and distinct > MOST_CATEGORIES):
        return "its name says that it identifies people"
    if PATIENT_NAME.fullmatch(column.name.removesuffix("_value")):
        return "its name says that it identifies people"
    dated = sum(times for text, times in column.texts.items() if DATE.fullmatch(text.strip()))
    eight_digits = column.numeric and column.whole and all(19e6 < abs(n) < 22e6 for n in column.numbers)
    if dated >= MOSTLY * column.filled or (eight_digits and DATE_NAME.fullmatch(column.name)):
        return "holds dates or times. TODO owner: `at:` names the time of prediction, if this is it"
    if column.numeric:
        return _numbers_left_out(column)
    if distinct == 1:
        return "holds one value only; nothing can be learned from it"
    if distinct > MOST_CATEGORIES:
        return f"free text, or more than {MOST_CATEGORIES} categories"
    return "its values may identify patients" if _may_identify(column) else ""


def _numbers_left_out(column: Seen) -> str:
    values = sorted(column.numbers)
    if max(map(abs, values)) > LARGEST_MEASUREMENT:
        return "its numbers are too large for a measurement"
    once_each = len(values) == sum(column.numbers.values()) and column.whole
    if once_each and len(values) >= 10 and values[-1] - values[0] == len(values) - 1:
        return "counts the rows"
    if once_each and len(values) >= 3 and min(map(abs, values)) >= 100_000:
        return "a different long number in every row may identify patients"
    return "holds one value only; nothing can be learned from it" if len(column.measured) == 1 else ""


def _may_identify(column: Seen) -> bool:
    """Whether values that are no numbers look like those of persons: long, numbered, or hardly ever repeated."""
    once = sum(times == 1 for times in column.spellings.values())
    distinct = len(column.spellings)
    return (
        distinct > column.filled / 2
        or (distinct > 2 and once > distinct / 2)
        or any(len(s) > LONGEST_CATEGORY or "@" in s or re.search(r"\d{6}", s) for s in column.spellings)
    )


def _column(column: Seen) -> list[str]:
    """The lines of one column's contract."""
    codes = column.codes
    if column.boolean:
        lines = [_line("type", "boolean")]
    elif not column.numeric:
        lines = _category(column)
    elif column.coded:
        lines = _coded_category(column)
    else:
        lines = _number(column)
    if _outcome_like(column):
        lines.append("# TODO clinician: sounds like an outcome, so it is not among the features; known beforehand?")
    if codes or column.missing:
        said = [f"{_tidy(code)} in {column.numbers[code]}" for code in codes]
        said += [f"text in {sum(column.missing.values())}"] if column.missing else []
        comment = f"TODO clinician: suspected missing codes, {', '.join(said)} of {column.rows} rows"
        # Beside a word a CSV's codes are read as text; a category's -9 is then not the number -9.
        texts = [s for s in column.spellings if float(s) in codes] if column.coded and column.missing else []
        lines.append(_line("missing_if", [*map(_tidy, codes), *texts, *column.missing], comment))
    if column.source != column.name:
        lines.insert(0, _line("from", column.source))
    return [f"  {_scalar(column.name)}:", *(f"    {line}" for line in lines)]


def _number(column: Seen) -> list[str]:
    measured = column.measured
    low, high = measured[0], measured[-1]
    beyond, rules = column.beyond, _detection(column)
    counted = [value for rule in rules.values() for value in rule.values()]
    ends = min([low, *counted]), max([high, *counted])
    digits = ".10g" if column.whole else ".4g"
    span = f"{low:{digits}}{'-' if low >= 0 else ' to '}{high:{digits}}"
    lines = [
        _line("type", "number"),
        _line("unit", "TODO", 'TODO clinician: the unit in UCUM ("1" for a count), and `loinc:` if it has a code'),
        _line("range", _plausible(*ends, column.whole), f"TODO clinician: plausible range, observed {span}"),
    ]
    for key, rule in rules.items():
        lines.append(_line(key, rule, "TODO clinician: the assay's limit? and what does a value beyond it count as?"))
    if len(set(beyond.values())) > len(rules):
        lines.append("# TODO clinician: several limits of detection, so several kits; one a column can be taken")
    if column.whole and len(measured) <= 6:
        lines.append(
            f"# TODO clinician: only {len(measured)} different whole numbers; codes? then a category with `map`"
        )
    if rows := sum(times for text, times in column.texts.items() if text not in beyond):
        lines.append(f"# TODO owner: {rows} of {column.rows} rows hold text that is no number and will be refused")
    return lines


def _detection(column: Seen) -> dict[str, dict[str, int | float]]:
    """Rules for the sides on which the texts name one limit. Below it the limit over the square root of two counts:
    Hornung and Reed 1990, doi:10.1080/1047322X.1990.10389587."""
    found: dict[str, dict[str, int | float]] = {}
    for key, side in (("below_detection", "<"), ("above_detection", ">")):
        limits = {limit for sign, limit in column.beyond.values() if sign == side}
        if len(limits) == 1:
            (limit,) = limits
            counts_as = float(f"{limit / math.sqrt(2):.3g}") if side == "<" else limit
            found[key] = {"limit": _tidy(limit), "counts_as": _tidy(counts_as)}
    return found


def _coded_category(column: Seen) -> list[str]:
    """0 and 1 are no and yes, unless it is the sex; a number's meaning is otherwise not to be guessed."""
    no_yes = column.measured == [0, 1] and column.name not in ("sex", "gender")
    mapping = {
        cell: ("no", "yes")[int(code)] if no_yes else f"code_{code:g}"
        for code in column.measured
        for cell in _as_read(column, code)
    }
    return [_line("type", "category"), _line("map", mapping, "TODO clinician: what does each number mean?")]


def _category(column: Seen) -> list[str]:
    """A category's lines; spellings that differ only in case and spaces are one category."""
    words: dict[str, str] = {}
    mapping = {}
    for spelling in sorted(column.spellings):
        meant = " ".join(spelling.casefold().split())
        words.setdefault(meant, _free(_clean(spelling) or "value", words.values()))
        mapping[spelling] = words[meant]
    comment = "TODO clinician: are these all that may occur?"
    if "none" in words:
        comment += " Does `none` mean none, or not recorded?"
    if all(spelling == word for spelling, word in mapping.items()):
        return [_line("type", "category"), _line("values", list(mapping), comment)]
    if len(_inline(mapping)) <= 90:
        return [_line("type", "category"), _line("map", mapping, comment)]
    return [_line("type", "category"), f"map:  # {comment}", *(f"  {_line(s, word)}" for s, word in mapping.items())]


def _suspected_codes(numbers: Mapping[float, int]) -> list[float]:
    """Numbers that probably stand for "not measured", such as a spike of 0 or 999 far from all others."""
    rest = {number: times for number, times in numbers.items() if number not in MISSING_CODES}
    if len(rest) < 2:
        return []
    codes = [
        float(code) for code in MISSING_CODES if numbers.get(code, 0) >= 2 and _stands_out(code, numbers[code], rest)
    ]
    others = sorted(set(numbers) - {0.0, *codes})
    if 0 in numbers and len(others) >= 5 and others[0] > 0:
        step = statistics.median(after - before for before, after in itertools.pairwise(others))
        # One 0 is enough where all others lie far off; a count's or a dose's 0 is just the next step down.
        if others[0] >= (others[-1] - others[0]) / 2 or (numbers[0.0] >= 2 and others[0] >= 5 * step):
            codes.append(0.0)
    return sorted(codes)


def _stands_out(code: float, times: int, rest: Mapping[float, int]) -> bool:
    low, high = min(rest), max(rest)
    far = max(low - code, code - high) > (high - low) / 2
    heaped = times >= 10 and times >= 5 * max(rest.values())
    return far or heaped or code < 0 <= low


def _plausible(low: float, high: float, whole: bool) -> list[int | float]:
    """The observed range, widened by a quarter on either side and rounded outward; never below 0 if none was."""
    pad = max((high - low) / 4, abs(high) * 1e-9, 1e-9)
    if low < 0:
        return [_outward(low, -pad, whole), _outward(high, pad, whole)]
    below = max(min(pad, low / 2), 1e-9)  # a quarter of the range would take cholesterol, 85-603, down to 0
    return [max(_outward(low, -below, whole), 0), _outward(high, pad, whole)]


def _outward(end: float, pad: float, whole: bool) -> int | float:
    exponent = math.floor(math.log10(abs(pad)))
    exponent = max(exponent, 0) if whole else exponent
    steps = (end + pad) / 10.0**exponent
    return _tidy(round((math.floor(steps) if pad < 0 else math.ceil(steps)) * 10.0**exponent, -exponent))


def _patient_line(patient: Seen | None) -> str:
    if patient is None:
        return "# patient_id: TODO owner: none was found; without one, every row is a patient of its own"
    comment = "TODO owner: guessed; is it the patient's own, and a pseudonym?"
    if not patient.unique:
        comment = "TODO owner: guessed; it repeats or is blank somewhere, and one row a patient is expected"
    return _line("patient_id", patient.source, comment)


def _duplicates_line(table: Any) -> str:
    alike = int(table.astype(str).duplicated().sum())
    comment = f"TODO owner: {alike} of {len(table)} rows are like an earlier one; entered twice, or patients who agree?"
    return _line("duplicate_rows", "drop", comment)


def _outcome_line(outcome: Seen | None, candidates: list[str]) -> str:
    if outcome is None:
        among = f"; two values have: {', '.join(map(_quoted, candidates))}" if candidates else ""
        comment = f"TODO clinician: what is predicted? Remove it from columns and features{among}"
        return _line("outcome", {"column": "TODO", "positive": "== TODO", "values": ["TODO"]}, comment)
    # An outcome is only guessed among columns of at most 10 values, so all of them can be named.
    line = {"column": outcome.source, "positive": _positive(outcome), "values": _values(outcome)}
    if missing := [*(cell for code in outcome.codes for cell in _as_read(outcome, code)), *outcome.missing]:
        line["missing_if"] = missing
    comment = "TODO clinician: guessed; is this what is predicted, which value is the disease, and are these all?"
    return _line("outcome", line, comment)


def _values(outcome: Seen) -> list[Any]:
    """Everything that the outcome was seen to hold, save what stands for missing."""
    if outcome.boolean:
        return sorted({spelling.casefold() == "true" for spelling in outcome.spellings})
    return [*(cell for number in outcome.measured for cell in _as_read(outcome, number)), *sorted(outcome.texts)]


def _positive(outcome: Seen) -> str:
    """The comparison that makes a patient positive, where the values say so themselves."""
    numbers, texts = outcome.numbers, outcome.texts
    if outcome.boolean:
        return "== True"
    if numbers and texts:
        return "== TODO"
    if numbers and outcome.whole and (found := outcome.measured)[0] == 0:
        return f"== {_tidy(found[-1])}" if len(found) == 2 else "> 0"
    positive = [text for text in texts if text.casefold() in POSITIVE]
    return f"== {positive[0]}" if len(texts) == 2 and len(positive) == 1 else "== TODO"


def _attributes(kept: list[Seen]) -> list[str]:
    names = [
        column.name
        for column in kept
        if column.name in ("sex", "gender", "site") and (column.coded or not column.numeric)
    ]
    return names + (["demographics.age_band"] if any(column.name == "age_years" for column in kept) else [])


def _attributes_line(kept: list[Seen]) -> str:
    comment = "TODO clinician: groups to report on; demographics.age_band needs a column age_years"
    return _line("attributes", _attributes(kept), comment)


def _release(kept: list[Seen]) -> str:
    """What is decided before the first run; without attributes there are no subgroups to hold a gate."""
    gate = WORST_SUBGROUP if _attributes(kept) else f"# {WORST_SUBGROUP}  # TODO owner: it needs `attributes`"
    return RELEASE.replace("WORST_SUBGROUP", gate)


def _line(key: str, value: Any, comment: str = "") -> str:
    return f"{_scalar(key)}: {_inline(value)}" + (f"  # {comment}" if comment else "")


def _inline(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """One value, quoted where YAML would read it as something else; on one line, whatever it holds."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    dumped: str = yaml.safe_dump([value], default_flow_style=True, default_style=style, width=10**6, allow_unicode=True)
    return dumped.strip()[1:-1]


def _as_read(column: Seen, number: float) -> list[int | float | str]:
    """A number as the column's cells say it: beside a word a CSV's reader leaves each as its text, such as 1.0."""
    tidy = _tidy(number)
    if not column.texts and not column.missing:
        return [tidy]
    spellings = (s for s in column.spellings if NUMBER.fullmatch(s.strip()) and float(s) == number)
    return [tidy if spelling == str(tidy) else spelling for spelling in spellings]


def _tidy(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _quoted(name: str) -> str:
    """A name as a comment or a message may hold it: on one line, in plain characters."""
    return json.dumps(name)
