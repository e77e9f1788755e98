"""The review page, the time line and a window's page in a real browser, wide and narrow: read by axe-core as a screen
reader's user would need them.

Needs Chromium and axe-core (`make tools`); where one is missing these tests skip and say so, and fail where CI is set.
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape

import pytest

from configs.settings import ROOT
from evidence import review, timeline, window
from evidence.page import POLICY
from evidence.timeline import Mark

CHROMIUM = shutil.which("chromium")
AXE = ROOT / "tests" / "typescript" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--virtual-time-budget=20000",
]
MARKS = [Mark(datetime(2026, 3, 9, 12, tzinfo=UTC), "toy@2 promoted: better on the same patients")]
SCHEMES = {"dark": "--blink-settings=preferredColorScheme=0", "light": "--blink-settings=preferredColorScheme=1"}

READ = """
const told = {};
for (const part of document.querySelectorAll("details")) part.open = true;
addEventListener("load", async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  parent.postMessage(JSON.stringify({
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    width: document.documentElement.clientWidth,
    needed: document.documentElement.scrollWidth,
    checked: found.passes.length,
    violations: found.violations.map(rule => [rule.impact, rule.id, rule.nodes.map(node => node.html.slice(0, 160))]),
  }), "*");
});
"""
FRAME = """<!DOCTYPE html><meta charset="utf-8"><title>reading</title><pre id="said"></pre>
<script>addEventListener("message", event => document.getElementById("said").textContent = event.data)</script>
<iframe src="page.html" width="{width}" height="2000" style="border: 0"></iframe>"""


@pytest.fixture(autouse=True)
def _tools():
    if CHROMIUM is None or not AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("Chromium or axe-core is missing: make tools")
        pytest.skip("Chromium or axe-core is missing: make tools")


@pytest.fixture
def pages(invented_bundle, full_report, of_classes, windows_shown):
    before = invented_bundle("a" * 64, {"family": "logistic", "data": "f" * 64}, gates={"auroc": ">= 0.55"})
    theirs = replace(full_report, bundle="a" * 64, data="f" * 64)
    return {
        "full": review.html(invented_bundle(), full_report, 3, (2, before, theirs)),
        "classes": review.html(*of_classes, 3, None),
        "bare": review.html(invented_bundle(), replace(full_report, figures={}), None, None),
        "time line": timeline.html("toy: time line", windows_shown, MARKS, ["The data are replayed."]),
        "window": window.html(windows_shown[2].report, "toy@1: window 3", ["A note."]),
    }


def browse(folder, address, *flags):
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, "--dump-dom", address.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def reading(folder, page, width, scheme):
    """What axe found in the page at this width, its policy set aside for axe's script, every table opened."""
    scripts = f"<script>{AXE.read_text(encoding='utf-8')}</script><script>{READ}</script></body>"
    bare = page.replace(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">', "")
    assert bare != page
    (folder / "page.html").write_text(bare.replace("</body>", scripts), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME.format(width=width), encoding="utf-8")
    document, complaints = browse(folder, folder / "frame.html", SCHEMES[scheme], "--window-size=1400,2200")
    said = re.search(r'<pre id="said">(.*?)</pre>', document, re.DOTALL)
    assert said and said[1], complaints
    return json.loads(unescape(said[1]))


@pytest.mark.parametrize(
    ("kind", "width", "scheme"),
    [
        ("full", 1280, "light"),
        ("full", 375, "light"),
        ("full", 1280, "dark"),
        ("full", 375, "dark"),
        ("classes", 1280, "dark"),
        ("classes", 375, "light"),
        ("bare", 375, "light"),
        ("time line", 1280, "light"),
        ("time line", 375, "dark"),
        ("window", 375, "light"),
    ],
)
def test_axe_finds_nothing_and_the_page_never_scrolls_sideways(pages, tmp_path, kind, width, scheme):
    found = reading(tmp_path, pages[kind], width, scheme)

    assert found["width"] == width and found["dark"] == (scheme == "dark")
    assert found["needed"] <= width
    assert found["checked"] > 10
    assert found["violations"] == []


@pytest.mark.parametrize("kind", ["full", "time line"])
def test_the_page_opens_under_its_own_policy_without_a_complaint(pages, tmp_path, kind):
    path = tmp_path / "page.html"
    path.write_text(pages[kind], encoding="utf-8")

    document, complaints = browse(tmp_path, path)

    assert document.count("<svg") == pages[kind].count("<svg") > 8
    assert complaints == [], complaints
