"""Evidently's page: written whole and private, true about what it could not draw, and silent on the network."""

import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from configs.errors import LedgerError
from configs.settings import settings
from pipelines.drift import _two_sample_chi_square, page

settings()  # switches Evidently's phone-home off before it is imported

COLUMNS = {"age_years": "number", "cholesterol_mg_dl": "number", "sex": "category"}
TITLE = "Heart disease <window 3>"


def patients(n: int, seed: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age_years": draw.normal(60, 10, n),
            "cholesterol_mg_dl": draw.normal(200, 40, n),
            "sex": draw.choice(["male", "female"], n),
        }
    )


def header(path: Path) -> str:
    return re.search("<body>(<header.*?</header>)", path.read_text(), re.DOTALL)[1]


class Loads(HTMLParser):
    """Every address that a browser would fetch for a page."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "style":
            self.found += re.findall(r"(?:@import\s*|url\()\s*['\"]?(?!data:)([^'\")\s]+)", data)


def test_the_page_is_written_for_its_owner_alone_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "drift.html"
    assert page(patients(300), patients(200, seed=1), COLUMNS, TITLE, path, seed=17) == {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert "drawDashboard" in path.read_text()


def test_the_page_says_at_its_top_what_it_is_and_whose_data_it_holds(tmp_path):
    path = tmp_path / "drift.html"
    page(patients(2_500), patients(200, seed=1), COLUMNS, TITLE, path, seed=17)
    top = header(path)
    assert "<h1>Heart disease &lt;window 3&gt;</h1>" in top
    assert "This page holds patients' data." in top
    assert "2,500 rows, 2,000 of them sampled. Window: 200 rows." in top
    assert "<title>Heart disease &lt;window 3&gt;</title>" in path.read_text()


def test_the_page_loads_nothing_from_the_network(tmp_path):
    path = tmp_path / "drift.html"
    page(patients(300), patients(200, seed=1), COLUMNS, TITLE, path, seed=17)
    assert Loads(path.read_text()).found == []
    head = path.read_text().split("<head>")[1]
    assert head.startswith('<meta http-equiv="Content-Security-Policy" content="default-src \'none\';')


def test_the_search_for_network_loads_would_find_one():
    document = (
        '<link href="https://a/x.css"><style>p {background: url(https://b/y.png)}</style><script src="//c"></script>'
    )
    assert Loads(document).found == ["https://a/x.css", "https://b/y.png", "//c"]


@pytest.mark.parametrize("side", ["reference", "window"])
def test_a_column_without_a_value_is_named_and_the_others_are_drawn(tmp_path, side):
    path = tmp_path / "drift.html"
    full, holes = patients(300), patients(300, seed=1).assign(cholesterol_mg_dl=np.nan, sex=None)
    sides = (holes, full) if side == "reference" else (full, holes)
    assert page(*sides, COLUMNS, TITLE, path, seed=17) == {
        "cholesterol_mg_dl": f"missing, or no finite number, in all 300 rows of the {side}",
        "sex": f"missing in all 300 rows of the {side}",
    }
    assert "Not drawn, 2 of 3 columns" in header(path)
    assert f"<li>sex: missing in all 300 rows of the {side}</li>" in header(path)
    assert "drawDashboard" in path.read_text()


def test_a_column_whose_few_values_were_not_sampled_is_named(tmp_path):
    late = patients(20_000).assign(age_years=[61.0] + [np.nan] * 19_999)
    left_out = page(patients(300), late, COLUMNS, TITLE, tmp_path / "drift.html", seed=1)
    assert left_out == {"age_years": "missing, or no finite number, in all 2,000 rows of the window"}


def test_a_column_that_is_not_there_is_named(tmp_path):
    left_out = page(patients(30).drop(columns="sex"), patients(30), COLUMNS, TITLE, tmp_path / "drift.html", seed=17)
    assert left_out == {"sex": "the reference has no such column"}


def test_without_a_reference_the_page_says_so_and_draws_nothing(tmp_path):
    path = tmp_path / "drift.html"
    assert set(page(None, patients(200), COLUMNS, TITLE, path, seed=17)) == set(COLUMNS)
    assert "Nothing is drawn: the reference's rows were not found" in header(path)
    assert "rows not found. Window: 200 rows." in header(path)
    assert "drawDashboard" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_window_is_said_and_draws_nothing(tmp_path):
    path = tmp_path / "drift.html"
    assert set(page(patients(200), patients(0), COLUMNS, TITLE, path, seed=17)) == set(COLUMNS)
    assert "Nothing is drawn: the window is empty." in header(path)
    assert "drawDashboard" not in path.read_text()


def test_awkward_columns_are_drawn_and_not_raised(tmp_path):
    before, now = patients(300), patients(1, seed=1)
    before["age_years"] = 60.0
    before["cholesterol_mg_dl"] = [np.inf, "high", 200.0] * 100
    before["sex"] = [None, "male", "male"] * 100
    assert page(before, now, COLUMNS, TITLE, tmp_path / "drift.html", seed=17) == {}


def test_a_label_cannot_become_part_of_the_page(tmp_path):
    path = tmp_path / "drift.html"
    planted = patients(300).assign(sex="</script>\n    </head>\n    <body><img src=https://evil>")
    page(planted, patients(300, seed=1), COLUMNS, TITLE, path, seed=17)
    assert Loads(path.read_text()).found == []
    assert "<img src=https://evil>" not in path.read_text()
    assert r"\u003cimg src=https://evil>" in path.read_text()


def test_a_name_cannot_become_part_of_the_page(tmp_path):
    path = tmp_path / "drift.html"
    page(patients(30), patients(30), {"<img src=https://evil>": "number"}, TITLE, path, seed=17)
    assert "&lt;img src=https://evil&gt;: the reference has no such column" in header(path)


def test_no_identifier_in_the_index_reaches_the_page(tmp_path):
    path = tmp_path / "drift.html"
    named = patients(300).set_index(pd.Index([f"MARKER-7731-{row}" for row in range(300)], name="MARKER-7731"))
    page(named, named, COLUMNS, TITLE, path, seed=17)
    assert "MARKER-7731" not in path.read_text()


def test_a_page_that_fails_leaves_the_earlier_one_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "drift.html"
    path.write_text("earlier")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(LedgerError, match=r"drift\.html: could not be written \(disk full\)"):
        page(None, patients(3), COLUMNS, TITLE, path, seed=17)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "earlier"


def test_the_frames_are_left_as_they_were(tmp_path):
    before, now = patients(2_100), patients(200, seed=1)
    kept = before.copy(deep=True), now.copy(deep=True)
    page(before, now, COLUMNS, TITLE, tmp_path / "drift.html", seed=17)
    pd.testing.assert_frame_equal(before, kept[0])
    pd.testing.assert_frame_equal(now, kept[1])


def test_two_samples_of_one_source_are_seldom_called_different():
    draw = np.random.default_rng(0)
    pairs = [[pd.Series(draw.choice(list("abc"), 300)) for _ in range(2)] for _ in range(300)]
    marked = sum(_two_sample_chi_square(one, other, None, 0.05)[1] for one, other in pairs)
    assert marked <= 30  # 15 are expected; Evidently's own chi-square marks about 70
    assert _two_sample_chi_square(pd.Series(["a"] * 9), pd.Series(["a"] * 9), None, 0.05) == (1.0, False)
    assert _two_sample_chi_square(pd.Series(["a"] * 99), pd.Series(["b"] * 99), None, 0.05)[1]
