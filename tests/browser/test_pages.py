"""The pages in a real browser, offline: what a person opens is drawn, and nothing is fetched.

Needs Chromium (`make tools`); where it is missing these tests are skipped and say so, and continuous integration fails.
"""

import os
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from evidence import page
from evidence.report import Finding, Report
from pipelines import drift

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
]


@pytest.fixture(autouse=True)
def _browser():
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing: make tools")
        pytest.skip("Chromium is missing: make tools")


def dom(path, profile):
    """The page's document after its scripts ran, and what the browser complained about."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_report_opens_with_its_failed_findings_first_and_text_as_text(tmp_path):
    findings = (
        Finding("MW005", "skew", "passed", 0.0, "<= 0", "fine"),
        Finding("MW002", "missing: <b>cholesterol</b>", "failed", 0.55, "p >= 0.001", "55% & more", (0.5, 0.6)),
    )
    report = Report("toy", "monitoring", "b" * 64, "12 predictions", findings)
    path = tmp_path / "report.html"
    path.write_text(page.html(report, "toy: monitoring", ["A note."]))

    document, complaints = dom(path, tmp_path / "profile")

    assert document.index("MW002") < document.index("MW005")
    assert "missing: &lt;b&gt;cholesterol&lt;/b&gt;" in document
    assert complaints == [], complaints


def test_the_drift_page_draws_under_its_own_policy_without_a_network(tmp_path):
    generator = np.random.default_rng(0)
    before = pd.DataFrame({"age": generator.normal(50, 9, 200), "sex": generator.choice(["male", "female"], 200)})
    now = pd.DataFrame({"age": generator.normal(60, 9, 150), "sex": generator.choice(["male", "female"], 150)})
    path = tmp_path / "drift.html"
    drift.page(before, now, {"age": "number", "sex": "category"}, "toy: drift", path, seed=1)

    document, complaints = dom(path, tmp_path / "profile")

    assert "toy: drift" in document
    assert ">Data Drift Summary<" in document  # drawn by the page's script
    assert "age" in document
    assert complaints == [], complaints
