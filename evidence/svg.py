"""Plots as inline SVG: plain strings, the same for the same figures, drawn in the colours of the page around them.

Every plot has a title and a description for a screen reader. A line's kind shows in its stroke, never in colour alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH = 360.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 20.0, 26.0, 40.0
KEY_HEIGHT = 20.0
STYLE = """
svg.plot { display: block; width: 100%; height: auto; overflow: visible; font: 12px/1 system-ui, sans-serif; }
.plot text { fill: var(--muted); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
.plot .strong { fill: var(--ink); font-weight: 600; }
.plot .grid { stroke: var(--rule); } .plot .axis { stroke: var(--muted); }
.plot .line { fill: none; stroke: var(--accent); stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
.plot .dashed { fill: none; stroke: var(--muted); stroke-width: 1.5; stroke-dasharray: 6 4; }
.plot .dotted { fill: none; stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 1.5 3.5; }
.plot .band { fill: var(--accent); fill-opacity: .15; } .plot .bar { fill: var(--muted); fill-opacity: .5; }
.plot .dot { fill: var(--accent); } .plot .interval { stroke: var(--accent); stroke-width: 2.25; }
.plot .open { fill: var(--paper); stroke: var(--accent); stroke-width: 2; }
"""

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """What is measured, from `low` to `high`, as a number or as a percentage; `whole`: only whole numbers are told."""

    label: str
    low: float
    high: float
    percent: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Line:
    """A curve through `points`. `kind`: line, dashed, dotted or, for points alone, dots.

    `label` is written at `label_at`, or in a key above the curves. `band`: each point's interval, lower and upper end.
    """

    label: str
    points: Sequence[Point]
    kind: str = "line"
    label_at: Point | None = None
    band: Sequence[Point] = ()


@dataclass(frozen=True)
class Row:
    """One line of a forest plot; without a value it says why in `told`."""

    label: str
    told: str
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts between edges on the x axis; None where a count is too small to be told."""

    edges: Sequence[float]
    counts: Sequence[int | None]


def lines(
    name: str,
    about: tuple[str, str],
    axes: tuple[Axis, Axis],
    drawn: Sequence[Line],
    histogram: Histogram | None = None,
) -> str:
    """Curves over a common pair of axes. `name` is unique in the page; `about` is the title and the description.

    A histogram stands below the curves, on the same x axis.
    """
    x_axis, y_axis = axes
    below = 44.0 if histogram else 0.0
    keyed = [line for line in drawn if line.label and line.label_at is None]
    top = TOP + (KEY_HEIGHT if keyed else 0.0)
    height = 256.0 + top + below
    frame = (LEFT, top, WIDTH - RIGHT, height - BOTTOM - below)

    def at(point: Point) -> Point:
        return _scaled(point[0], x_axis, frame[0], frame[2]), _scaled(point[1], y_axis, frame[3], frame[1])

    parts = [_grid(x_axis, y_axis, frame, height - BOTTOM)]
    if histogram:
        parts.append(_histogram(histogram, x_axis, frame, height - BOTTOM))
    for line in drawn:
        parts.append(_curve([at(p) for p in line.points], line.kind, _band(line, at)))
        if line.label and line.label_at:
            x, y = at(line.label_at)
            parts.append(_text(x, y, line.label, _weight(line)))
    x = LEFT
    for line in keyed:
        parts += [_curve([(x, TOP), (x + 22, TOP)], line.kind, ()), _text(x + 28, TOP + 4, line.label, _weight(line))]
        x += 44 + _width(line.label)
    return _svg(name, about, height, parts)


def forest(name: str, about: tuple[str, str], axis: Axis, rows: Sequence[Row], reference: float | None = None) -> str:
    """A row for each value with its interval; `reference` is drawn through all of them."""
    step, height = 34.0, 34.0 * len(rows) + BOTTOM
    left, right = 8.0, WIDTH - 8.0

    def x_of(value: float) -> float:
        return _scaled(min(max(value, axis.low), axis.high), axis, left, right)

    foot = height - BOTTOM + 4
    across = [(x_of(tick), "grid") for tick in ticks(axis)]
    parts = [_text(x_of(t), foot + 14, _number(t, axis), "", _anchor(x_of(t), left, right)) for t in ticks(axis)]
    parts.append(_text((left + right) / 2, foot + 30, axis.label, "", "middle"))
    if reference is not None and axis.low <= reference <= axis.high:
        across.append((x_of(reference), "dotted"))
    for place, row in enumerate(rows):
        top = step * place + 14
        parts.append(_text(left, top, _fitted(row.label, right - left - _width(row.told) - 10), "strong"))
        parts.append(_text(right, top, row.told, "", "end"))
        middle = top + 12
        parts += [_line(x, middle - 6, x, middle + 6, kind) for x, kind in across]
        if row.value is None:
            continue
        if row.low is not None and row.high is not None:
            parts.append(_line(x_of(row.low), middle, x_of(row.high), middle, "interval"))
            parts += [_line(x_of(end), middle - 3, x_of(end), middle + 3, "interval") for end in (row.low, row.high)]
        parts.append(f'<circle class="dot" cx="{x_of(row.value):.1f}" cy="{middle:.1f}" r="4"/>')
    return _svg(name, about, height, parts)


def bars(name: str, about: tuple[str, str], rows: Sequence[tuple[str, str, float]]) -> str:
    """One horizontal bar a row: its label, what is written at its right, and its length from 0 upwards."""
    step, height = 34.0, 34.0 * len(rows) + 6
    longest = max((length for _, _, length in rows), default=0.0) or 1.0
    parts = []
    for place, (label, told, length) in enumerate(rows):
        top = step * place + 14
        parts.append(_text(0, top, _fitted(label, WIDTH - _width(told) - 10), "strong"))
        parts.append(_text(WIDTH, top, told, "", "end"))
        parts.append(f'<rect class="grid" fill="none" x="0.5" y="{top + 6:.1f}" width="{WIDTH - 1:.1f}" height="7"/>')
        parts.append(f'<rect class="dot" x="0" y="{top + 6:.1f}" width="{WIDTH * length / longest:.1f}" height="7"/>')
    return _svg(name, about, height, parts)


def ticks(axis: Axis) -> list[float]:
    """At most six round numbers of the axis."""
    span = axis.high - axis.low
    step = 10.0 ** math.floor(math.log10(span))
    step = next(step * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if span / (step * part) < 5.001)
    first = math.ceil(axis.low / step - 1e-9)
    found = [round(step * number, 10) for number in range(first, math.floor(axis.high / step + 1e-9) + 1)]
    return [tick for tick in found if tick.is_integer()] if axis.whole else found


def _svg(name: str, about: tuple[str, str], height: float, parts: Sequence[str]) -> str:
    title, description = (escape(text) for text in about)
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{title}</title><desc id="{name}-d">{description}</desc>{"".join(parts)}</svg>'
    )


def _grid(x_axis: Axis, y_axis: Axis, frame: tuple[float, float, float, float], foot: float) -> str:
    left, top, right, bottom = frame
    parts = []
    for tick in ticks(y_axis):
        y = _scaled(tick, y_axis, bottom, top)
        parts += [_line(left, y, right, y, "grid"), _text(left - 6, y + 4, _number(tick, y_axis), "", "end")]
    for tick in ticks(x_axis):
        x = _scaled(tick, x_axis, left, right)
        parts += [_line(x, foot, x, foot + 4, "axis"), _text(x, foot + 16, _number(tick, x_axis), "", "middle")]
    parts.append(_line(left, foot, right, foot, "axis"))
    parts.append(_text((left + right) / 2, foot + 34, x_axis.label, "", "middle"))
    return "".join([*parts, _text(0, 12, y_axis.label, "")])


def _histogram(histogram: Histogram, axis: Axis, frame: tuple[float, float, float, float], foot: float) -> str:
    tallest = max((count or 0 for count in histogram.counts), default=0) or 1
    parts = []
    for (low, high), count in zip(pairwise(histogram.edges), histogram.counts, strict=True):
        left, right = (_scaled(edge, axis, frame[0], frame[2]) for edge in (low, high))
        tall, wide = 34 * (count or 0) / tallest, max(right - left - 1, 0.5)
        if count is None:
            parts.append(_text((left + right) / 2, foot - 3, "·", "", "middle"))
        else:
            parts.append(
                f'<rect class="bar" x="{left + 0.5:.1f}" y="{foot - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}"/>'
            )
    return "".join(parts)


def _band(line: Line, at: Callable[[Point], Point]) -> list[Point]:
    lower = [at((x, low)) for (x, _), (low, _) in zip(line.points, line.band, strict=False)]
    upper = [at((x, high)) for (x, _), (_, high) in zip(line.points, line.band, strict=False)]
    return lower + upper[::-1]


def _curve(points: Sequence[Point], kind: str, band: Sequence[Point]) -> str:
    shade = f'<polygon class="band" points="{_points(band)}"/>' if band else ""
    if kind == "dots":
        return shade + "".join(f'<circle class="open" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in points)
    return f'{shade}<polyline class="{kind}" points="{_points(points)}"/>'


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text{shown} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _scaled(value: float, axis: Axis, start: float, end: float) -> float:
    return start + (value - axis.low) / (axis.high - axis.low) * (end - start)


def _anchor(x: float, left: float, right: float) -> str:
    return "start" if x < left + 12 else "end" if x > right - 12 else "middle"


def _weight(line: Line) -> str:
    return "strong" if line.kind == "line" else ""


def _number(value: float, axis: Axis) -> str:
    return f"{value * 100:g} %".replace("-", "−") if axis.percent else f"{value:g}".replace("-", "−")


def _width(text: str) -> float:
    """About what a text takes in a proportional font of 12 px."""
    return 6.6 * len(text)


def _fitted(text: str, room: float) -> str:
    most = max(int(room / 6.6), 4)
    return text if len(text) <= most else text[: most - 1] + "…"
