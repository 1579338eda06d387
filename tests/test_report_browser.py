"""The page of fasthash report in headless Chromium: slider and filter by keyboard, and nothing that it complains of."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, Browser, browser
from PIL import Image
from test_report import DATABASE, EVIL, LABELS, OUTPUTS, QUERIES, QUERY_LABELS, TREE

from fasthash import hamming_topk
from fasthash.metrics import precision_recall_curve, precision_within_radius, recall_at
from fasthash.report import Report

pytestmark = pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs Chromium and its chromedriver")
SHOWN = "document.getElementById('shown').textContent"
SCORES = "document.getElementById('scores').textContent"
NEAR = "document.querySelectorAll('section:not(#worst) .card:not([hidden]) .result:not([hidden])').length"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(window: Browser, tmp_path: Path) -> Browser:
    """The page of texts and names that try to be markup."""
    texts = {"texts": [EVIL] * 90, "query_texts": [f"{EVIL}{row}" for row in range(30)], "title": EVIL}
    made = Report(DATABASE, OUTPUTS, query_labels=QUERY_LABELS, database_labels=LABELS, hierarchy=TREE, **texts)
    made.write(tmp_path / "report.html")
    window.open(tmp_path / "report.html")
    return window


def focus(window: Browser, id: str) -> None:
    """Goes to an element by the Tab key, as those do who have no mouse."""
    for _ in range(10):
        window.keys("Tab")
        if window.run("document.activeElement.id") == id:
            return
    raise AssertionError(f"{id} cannot be reached by Tab")


def test_the_slider_shows_what_is_within_the_radius(page: Browser) -> None:
    found = hamming_topk(QUERIES, DATABASE, 10)
    assert page.run(NEAR) == 300
    focus(page, "radius")
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keys("Home", *["Right"] * 3)
    within = found.distances <= 3
    right = within & (LABELS[found.ids] == QUERY_LABELS[:, None])
    assert page.run(NEAR) == within.sum()
    assert page.run(SHOWN) == f"30 queries, {within.sum()} results within the radius, {right.sum()} of them right"
    curve = precision_recall_curve(QUERIES, DATABASE, QUERY_LABELS, LABELS, by="radius")
    expected = f"precision {curve.precision[3]:.3f}, recall {curve.recall[3]:.3f} (mean of the 30 queries measured)"
    assert page.run(SCORES) == expected
    assert page.run("document.getElementById('radius').getAttribute('aria-valuetext')") == "radius 3"
    lines = page.run("[...document.querySelectorAll('svg .marker')].map(line => line.getAttribute('x1'))")
    assert len(lines) == 2
    assert all(64 < float(x) < 428 for x in lines)
    empty = page.run("document.querySelectorAll('section:not(#worst) .none:not([hidden])').length")
    assert empty == (~within.any(1)).sum()


def test_the_filter_shows_one_class(page: Browser) -> None:
    focus(page, "class")
    page.keys("b")
    assert page.run("document.getElementById('class').selectedOptions[0].textContent") == "b"
    own = QUERY_LABELS == "b"
    assert page.run("document.querySelectorAll('section:not(#worst) .card:not([hidden])').length") == own.sum()
    radius = int(page.run("document.getElementById('radius').value"))
    precision = precision_within_radius(QUERIES[own], DATABASE, QUERY_LABELS[own], LABELS, radius)
    assert page.run(SCORES).startswith(f"precision {precision:.3f}, recall ")
    assert page.run(SCORES).endswith("(mean of the 10 queries measured of this class)")
    lit = page.run("document.querySelectorAll('svg.map .dot.database:not(.faded)').length")
    assert lit == (LABELS == "b").sum()
    focus(page, "radius")
    page.keys("End")
    recall = recall_at(QUERIES[own], DATABASE, QUERY_LABELS[own], LABELS, 90)
    assert f"recall {recall:.3f}" in page.run(SCORES)


def test_nothing_runs_loads_or_fails(page: Browser) -> None:
    assert page.log() == []
    assert page.run("performance.getEntriesByType('resource').filter(part => !part.name.startsWith('data:'))") == []
    assert page.run("document.title") == EVIL
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.run("document.querySelector('.card .text').textContent") == f"{EVIL}0"
    # The policy stops a script that would get in, and a picture from outside.
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"file:///x.png\" onerror=\"window.bad=1\">')")
    assert page.run("window.bad") is None
    assert any("Content Security Policy" in line for line in page.log())


def test_every_colour_of_a_legend_is_that_of_the_drawing(page: Browser) -> None:
    pairs = page.run(
        """[...document.querySelectorAll('figure')].flatMap(figure => ['right', 'wrong', 'measure'].flatMap(name => {
          const line = figure.querySelector('svg .line.' + name), swatch = figure.querySelector('.swatch.' + name);
          return line ? [[getComputedStyle(line).stroke, getComputedStyle(swatch).borderTopColor]] : []; }))"""
    )
    assert len(pairs) == 5
    assert all(line == swatch for line, swatch in pairs)
    inside = page.run("document.querySelectorAll('svg .legend').length")
    assert inside == 0


def test_a_frame_shows_it_in_a_notebook(window: Browser, tmp_path: Path) -> None:
    made = Report(DATABASE, QUERIES, query_labels=QUERY_LABELS, database_labels=LABELS)
    (tmp_path / "notebook.html").write_text(f"<!doctype html><p>cell</p>{made._repr_html_()}")
    window.open(tmp_path / "notebook.html")
    assert window.log() == []
    pixels = np.asarray(Image.open(io.BytesIO(window.screenshot())).convert("RGB"))
    blue = (np.abs(pixels.astype(int) - (0, 0x72, 0xB2)).sum(2) < 40).sum()
    assert blue > 100  # a plot of the same class, or marks: the page in the frame is drawn
