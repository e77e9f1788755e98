"""Plots as SVG: well-formed, inside their frame, the same for the same figures, and read by a screen reader."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.svg import WIDTH, Axis, Histogram, Line, Row, bars, forest, lines, ticks

SVG = "{http://www.w3.org/2000/svg}"
ABOUT = ("A <plot>", "What it shows & says")
SHARE = st.floats(0, 1)
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=60)


def read(drawing):
    return ElementTree.fromstring(drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def points(element):
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def test_a_plot_is_an_image_with_a_title_and_a_description():
    drawn = read(lines("roc", ABOUT, (Axis("x", 0, 1), Axis("y", 0, 1)), [Line("", [(0, 0), (1, 1)])]))

    named = drawn.get("aria-labelledby").split()
    assert drawn.get("role") == "img"
    assert [drawn.find(f".//*[@id='{name}']").text for name in named] == list(ABOUT)


def test_a_higher_value_is_drawn_higher_and_a_larger_one_further_right():
    drawn = read(lines("a", ABOUT, (Axis("x", 0, 2), Axis("y", -1, 1)), [Line("", [(0, -1), (1, 0), (2, 1)])]))
    first, middle, last = points(drawn.find(f"{SVG}polyline"))

    assert first[0] < middle[0] < last[0]
    assert first[1] > middle[1] > last[1]
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)


def test_lines_are_told_apart_by_their_stroke_and_named():
    drawn = lines(
        "a",
        ABOUT,
        (Axis("x", 0, 1), Axis("y", 0, 1)),
        [Line("model", [(0, 0), (1, 1)]), Line("nobody", [(0, 0), (1, 0)], "dotted")],
    )

    assert 'class="line"' in drawn and 'class="dotted"' in drawn
    assert ">model<" in drawn and ">nobody<" in drawn


def test_a_count_that_is_too_small_to_be_told_has_no_bar():
    axes = (Axis("risk", 0, 1), Axis("y", 0, 1))
    drawn = read(lines("a", ABOUT, axes, [], Histogram([0, 0.5, 0.7, 1], [40, None, 20])))

    tall = [float(bar.get("height")) for bar in drawn.iter(f"{SVG}rect")]
    assert len(tall) == 2 and tall[0] == pytest.approx(2 * tall[1])


@given(st.lists(st.tuples(WORDS, WORDS, st.none() | SHARE, st.none() | SHARE, st.none() | SHARE), max_size=8))
def test_a_forest_is_well_formed_and_within_its_frame_whatever_is_in_it(rows):
    drawn = forest("f", ABOUT, Axis("AUROC", 0.3, 1), [Row(*row) for row in rows], reference=0.5)

    root = read(drawn)
    assert drawn == forest("f", ABOUT, Axis("AUROC", 0.3, 1), [Row(*row) for row in rows], reference=0.5)
    assert len(root.findall(f"{SVG}circle")) == sum(row[2] is not None for row in rows)
    for line in root.iter(f"{SVG}line"):
        assert 0 <= float(line.get("x1")) <= WIDTH and 0 <= float(line.get("x2")) <= WIDTH


@given(st.lists(st.tuples(WORDS, WORDS, st.floats(0, 1e6)), max_size=8))
def test_bars_never_leave_the_frame(rows):
    root = read(bars("b", ABOUT, rows))

    assert all(0 <= float(bar.get("width")) <= WIDTH for bar in root.iter(f"{SVG}rect"))


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e4))
def test_an_axis_has_two_to_six_round_ticks_that_rise_within_it(low, span):
    axis = Axis("x", low, low + span)
    found = ticks(axis)

    assert 2 <= len(found) <= 7
    assert found == sorted(set(found))
    assert all(axis.low - 1e-6 <= tick <= axis.high + 1e-6 for tick in found)
