"""A patient's events over time, reduced to one number a column as of a time of prediction.

The same reducer serves a cohort of all patients and one patient's request, and gives both the same bits: each row's
sums are taken over its own events alone, one after the other, in the order of time and value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.spec import SECONDS, Column, Spec
from features.definitions import Array

AT_ONCE = 4_000_000
"""Windows, and events in windows, that are laid out in memory at once."""

Whole = NDArray[np.int64]
SUMMED = ("min", "max", "mean", "slope")
"""The reductions that look at every event of a window."""


@dataclass(frozen=True)
class Events:
    """Checked events, in any order: `patient` (m,) from 0, `time` (m,) seconds since 1970, `code` (m,) the place of the
    code in the Spec's `events`, `value` (m,) in the code's unit, 1 for an occurrence; none of them missing."""

    patient: Whole
    time: Array
    code: Whole
    value: Array

    def __len__(self) -> int:
        return len(self.time)


def reduce(spec: Spec, events: Events, patient: Whole, at: Array, told: NDArray[np.bool_]) -> dict[str, Array]:
    """Every column of events, (n,), as of `at` (n,), for the patients (n,); see `Reducer.reduce`."""
    return Reducer(spec.columns, spec.events).reduce(events, patient, at, told)


class Reducer:
    """A contract's columns of events, ready to compute."""

    def __init__(self, columns: Mapping[str, Column], events: Mapping[str, Column]) -> None:
        """`columns` that name no event are passed over; `events` are the codes' contracts, in the order of `code`."""
        self.events = events
        codes = {code: place for place, code in enumerate(events)}
        reduced = {name: column for name, column in columns.items() if column.event is not None}
        self.names = tuple(reduced)
        self._code = np.array([codes[column.event or ""] for column in reduced.values()], np.int64)
        self._happens = np.array([column.type == "boolean" for column in events.values()], bool)
        happened = np.array([column.reduce in ("count", "time_since") for column in reduced.values()], bool)
        happened &= self._happens[self._code]
        self._code[happened] += len(codes)
        self._doubles = bool(happened.any())
        self._window = np.array([column.window_seconds for column in reduced.values()], np.float64)
        self._seconds = np.array([_unit_of_time(column) for column in reduced.values()], np.float64)
        kinds = np.array([column.reduce for column in reduced.values()], np.str_)
        self._columns_of = {kind: np.flatnonzero(kinds == kind) for kind in set(kinds.tolist())}
        self._summed = np.flatnonzero(np.isin(kinds, SUMMED))
        self._is = {kind: kinds == kind for kind in SUMMED}

    def reduce(self, events: Events, patient: Whole, at: Array, told: NDArray[np.bool_]) -> dict[str, Array]:
        """Each column's value for each row, (n,), NaN where its window holds no event.

        A window holds the events with at - window <= time < at: what is known at or after the time of prediction never
        counts. An event that stands there twice, alike in patient, code, time and value, counts once. Several values of
        one moment are that moment's mean for `last` and `first`, and stand side by side for all others. `count` of an
        empty window is 0 where the patient's events were `told` (n,), and NaN where they were not. `count` and
        `time_since` of a boolean are of the true ones. `slope` is the least squares line's and needs two moments.
        Where `at` is NaN all is.
        """
        laid = _Laid.out(self._with_happened(events))
        out = np.full((len(at), len(self.names)), np.nan)
        step = max(1, AT_ONCE // max(1, len(self.names)))
        for start in range(0, len(at), step):
            rows = slice(start, start + step)
            self._fill(out[rows], laid, patient[rows], at[rows], told[rows])
        return dict(zip(self.names, out.T, strict=True))

    def _with_happened(self, events: Events) -> Events:
        """The events, and the booleans among them that are true once more, under a code of their own."""
        if not self._doubles:
            return events
        true = self._happens[events.code] & (events.value != 0)
        code = np.concatenate([events.code, events.code[true] + len(self._happens)])
        patient, time, value = (
            np.concatenate([of_each, of_each[true]]) for of_each in (events.patient, events.time, events.value)
        )
        return Events(patient, time, code, value)

    def _fill(self, out: Array, laid: "_Laid", patient: Whole, at: Array, told: NDArray[np.bool_]) -> None:
        """Write each row's columns into `out` (n, c)."""
        start, end = laid.windows(patient, at, self._code, self._window)
        some = end > start
        for kind, columns in self._columns_of.items():
            if kind == "count":
                count = (end - start)[:, columns].astype(np.float64)
                out[:, columns] = np.where((told & ~np.isnan(at))[:, None], count, np.nan)
            elif kind not in SUMMED:
                rows, places = np.nonzero(some[:, columns])
                chosen = columns[places]
                if kind == "first":
                    out[rows, chosen] = laid.of_moment[start[rows, chosen]]
                elif kind == "last":
                    out[rows, chosen] = laid.of_moment[end[rows, chosen] - 1]
                else:
                    since = at[rows] - laid.time[end[rows, chosen] - 1]
                    out[rows, chosen] = since / self._seconds[chosen]
        rows, places = np.nonzero(some[:, self._summed])
        chosen = self._summed[places]
        starts, sizes = start[rows, chosen], (end - start)[rows, chosen]
        for some_windows in _slices(sizes):
            rows_here, chosen_here = rows[some_windows], chosen[some_windows]
            found = self._sums(laid, starts[some_windows], sizes[some_windows], chosen_here)
            out[rows_here, chosen_here] = found

    def _sums(self, laid: "_Laid", start: Whole, size: Whole, column: Whole) -> Array:
        """What each window (w,), of at least one event, comes to, by its column's reduction."""
        first = np.cumsum(size) - size
        window = np.repeat(np.arange(len(size)), size)
        event = np.arange(len(window)) - first[window] + start[window]
        value = laid.value[event]

        def total(of_each: Array) -> Array:
            # bincount adds in order: a window's sum does not depend on its neighbours', as a pairwise sum's would
            return np.bincount(window, of_each, len(size)).astype(np.float64, copy=False)  # its stub says integers

        found = np.empty(len(size))
        kinds = {kind: of_column[column] for kind, of_column in self._is.items()}
        if kinds["min"].any():
            found = np.where(kinds["min"], np.minimum.reduceat(value, first), found)
        if kinds["max"].any():
            found = np.where(kinds["max"], np.maximum.reduceat(value, first), found)
        if not (kinds["mean"] | kinds["slope"]).any():
            return found
        mean = total(value) / size
        found = np.where(kinds["mean"], mean, found)
        if kinds["slope"].any():
            later = laid.time[event] - laid.time[start][window]  # from the window's first, so that no digits are lost
            later = later - (total(later) / size)[window]
            spread = total(later * later)
            moments = laid.time[start] != laid.time[start + size - 1]
            with np.errstate(divide="ignore", invalid="ignore"):
                slope = total(later * (value - mean[window])) / spread * self._seconds[column]
            found = np.where(kinds["slope"], np.where(moments, slope, np.nan), found)
        return found


@dataclass(frozen=True)
class _Laid:
    """Distinct events in the order of code, patient, time and value.

    `key` (m,) numbers code, patient and moment in that order; `of_moment` (m,) is the mean of all values that the
    event's code and patient have at its moment.
    """

    key: Whole
    time: Array
    value: Array
    of_moment: Array
    moments: Array
    patients: int

    @staticmethod
    def out(events: Events) -> "_Laid":
        moments, moment = np.unique(events.time, return_inverse=True)
        patients = int(events.patient.max(initial=-1)) + 1
        key = (events.code * patients + events.patient) * (len(moments) + 1) + moment
        order = np.lexsort((events.value, key))
        key, value = key[order], events.value[order]
        fresh = np.ones(len(key), bool)
        fresh[1:] = (key[1:] != key[:-1]) | (value[1:] != value[:-1])
        key, value, time = key[fresh], value[fresh], events.time[order][fresh]
        begins = np.ones(len(key), bool)
        begins[1:] = key[1:] != key[:-1]
        group = np.cumsum(begins) - 1
        mean = np.bincount(group, value) / np.bincount(group)
        return _Laid(key, time, value, mean[group], moments, patients)

    def windows(self, patient: Whole, at: Array, code: Whole, window: Array) -> tuple[Whole, Whole]:
        """Of each row and column, (n, c), its first event's place and the one behind its last."""
        until = np.where(np.isnan(at), -np.inf, at)[:, None]
        low, high = (np.searchsorted(self.moments, ends, side="left") for ends in (until - window, until))
        group = (code * self.patients + patient[:, None]) * (len(self.moments) + 1)
        start, end = (np.searchsorted(self.key, group + place, side="left") for place in (low, high))
        known = (patient < self.patients)[:, None]
        return np.where(known, start, 0), np.where(known, end, 0)


def _slices(sizes: Whole) -> Iterator[slice]:
    """Windows one after the other, so many that their events are laid out at once; a larger one stands alone."""
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop


def _unit_of_time(column: Column) -> float:
    """Seconds of the unit of time that the column's own unit is, or is divided by; 1 where it has none."""
    return SECONDS.get((column.unit or "").rpartition("/")[2], 1.0)
