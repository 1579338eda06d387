"""Report: its numbers are those of fasthash.metrics, nothing that it is given becomes markup, and large inputs fit."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fasthash import HammingIndex, Hierarchy, hamming_topk, metrics, pack_bits
from fasthash.evaluate import code_statistics, evaluate
from fasthash.report import Report, report
from fasthash.report.measures import Problem, codes_of_classes, measure

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
TREE = Hierarchy.from_edges([("all", "ab"), ("all", "c"), ("ab", "a"), ("ab", "b")])
SIMILARITY = 1 - TREE.distance_matrix(["a", "b", "c"])
rng = np.random.default_rng(0)
CENTRES = rng.random((3, 16)) < 0.5
NUMBERS, QUERY_NUMBERS = np.arange(90) % 3, np.arange(30) % 3
OUTPUTS = np.clip(CENTRES[QUERY_NUMBERS] * 0.4 + rng.random((30, 16)) - 0.2, 0, 1).astype(np.float32)
DATABASE = pack_bits(CENTRES[NUMBERS] * 0.4 + rng.random((90, 16)) - 0.2)
QUERIES = pack_bits(OUTPUTS)
NAMES = np.array(["a", "b", "c"])
LABELS, QUERY_LABELS = NAMES[NUMBERS], NAMES[QUERY_NUMBERS]


class Page(HTMLParser):
    """Tags and attributes of a page, and the results of its cards."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def values(self, name: str) -> list[str]:
        return [value or "" for _, own, value in self.attributes if own == name]


def data_of(html: str) -> Any:
    """What the script of the page reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, flags=re.S)
    assert found
    return json.loads(found[1])


def results_of(html: str) -> list[list[tuple[str, int]]]:
    """(right or wrong, distance) of the results of each card."""
    cards = html.split('<article class="card"')[1:]
    return [
        [(side, int(distance)) for side, distance in re.findall(r'class="result ?(\w*)" data-distance="(\d+)"', card)]
        for card in cards
    ]


@pytest.mark.parametrize("weights", [None, [(4, 3), (12, 1)]])
@pytest.mark.parametrize("own", [False, True])
def test_numbers_are_those_of_the_metrics(weights: Any, own: bool) -> None:
    queries, labels = (DATABASE, LABELS) if own else (QUERIES, QUERY_LABELS)
    options = {"bit_weights": weights, "exclude_self": own}
    given = (queries, DATABASE, labels, LABELS)
    made = Report(
        DATABASE, None if own else OUTPUTS, query_labels=labels, database_labels=LABELS, hierarchy=TREE,
        bit_weights=weights, limit=100, k=7,
    )  # fmt: skip
    at = len(DATABASE) - own
    numbers = np.unique(labels, return_inverse=True)[1], NUMBERS
    expected = evaluate(*given[:2], *numbers, class_similarity=SIMILARITY, k=7, bits=16, **options)
    assert made.numbers == pytest.approx(expected, abs=1e-12)

    curve = metrics.precision_recall_curve(*given, by="radius", **options)
    data, found = data_of(made.html()), made.measures
    np.testing.assert_array_equal(data["radii"], curve.thresholds)
    for name, values in (("precision", curve.precision), ("recall", curve.recall)):
        np.testing.assert_allclose(data["all"][name], values, atol=1e-6)
        np.testing.assert_allclose(getattr(found, name).mean(0), values, atol=1e-12)
    within = metrics.precision_within_radius(*given, 5, per_query=True, **options)
    np.testing.assert_allclose(found.precision[:, 5], within, atol=1e-12)  # type: ignore[index]
    if not own:
        rows = QUERY_NUMBERS == 1
        part = metrics.precision_recall_curve(QUERIES[rows], DATABASE, labels[rows], LABELS, by="radius", **options)
        np.testing.assert_allclose(data["classes"]["1"]["recall"], part.recall, atol=1e-6)
        assert data["classes"]["1"]["queries"] == 10
    average = metrics.mean_average_precision(*given, per_query=True, **options)
    np.testing.assert_allclose(found.average_precision, average, atol=1e-12)
    hierarchical = metrics.hierarchical_precision(*given[:2], *numbers, SIMILARITY, at=at, **options)
    assert found.hierarchical is not None
    assert found.hierarchical.mean() == pytest.approx(hierarchical, abs=1e-12)
    assert f"{expected['mAP']:.4f}" in made.html()
    # Pairs by distance are all pairs.
    assert found.near is not None
    assert found.near.sum() + found.far.sum() == len(queries) * (len(DATABASE) - own)
    statistics = code_statistics(DATABASE, 16)
    assert (2 * np.minimum(found.ones, 1 - found.ones)).mean() == pytest.approx(statistics["bit_balance"])
    assert np.abs(found.correlation[np.triu_indices(16, 1)]).mean() == pytest.approx(statistics["bit_correlation"])


@pytest.mark.parametrize("weights", [None, [(4, 3), (12, 1)]])
def test_results_are_those_of_the_search(weights: Any) -> None:
    made = Report(DATABASE, QUERIES, query_labels=QUERY_LABELS, database_labels=LABELS, bit_weights=weights, k=4)
    found = hamming_topk(QUERIES, DATABASE, 4, bit_weights=weights)
    right = LABELS[found.ids] == QUERY_LABELS[:, None]
    expected = [
        [("right" if good else "wrong", distance) for good, distance in zip(*row, strict=True)]
        for row in zip(right.tolist(), found.distances.tolist(), strict=True)
    ]
    results = results_of(made.html())
    assert results[:30] == expected
    scores = metrics.mean_average_precision(
        QUERIES, DATABASE, QUERY_LABELS, LABELS, per_query=True, bit_weights=weights
    )
    worst = np.argsort(scores, kind="stable")[:10]
    assert results[30:] == [expected[row] for row in worst]


def test_queries_of_the_database_do_not_find_themselves() -> None:
    made = Report(DATABASE, database_labels=LABELS, texts=[f"text {row}" for row in range(90)], limit=5, k=3)
    html = made.html()
    assert "No query finds itself" in html
    for card in html.split('<article class="card"')[1:]:
        texts = re.findall(r"text \d+", card)
        assert len(texts) == len(set(texts)) == 4
    same = Report(DATABASE, DATABASE, query_labels=LABELS, exclude_self=True, k=3)
    assert same.numbers == made.numbers
    assert 0.4 < made.numbers["mAP"] < 0.95


def test_without_labels_their_parts_are_left_out_and_the_page_says_so() -> None:
    made = Report(DATABASE, QUERIES)
    html = made.html()
    assert made.numbers == code_statistics(DATABASE, 16)
    assert "no labels in common" in html
    for absent in ("recall", "The worst queries", 'id="class"', "Codes of each class", 'class="mark '):
        assert absent not in html.replace("precision, recall,", "").split("<h2>Plots")[1].split("<script")[0]
    assert {side for card in results_of(html) for side, _ in card} == {""}
    assert 'id="radius"' in html


def test_nothing_that_is_given_becomes_markup(tmp_path: Path) -> None:
    index = HammingIndex(16)
    index.add(DATABASE, keys=[f"{EVIL.replace('/', '')}/{row}" for row in range(90)])
    labels = np.array([f"{EVIL}{n}" for n in range(3)])
    given = {"query_labels": labels[QUERY_NUMBERS], "database_labels": labels[NUMBERS], "title": EVIL}
    texts = {"texts": [EVIL] * 90, "query_texts": [EVIL] * 30, "query_names": [EVIL] * 30}
    clean = Page(Report(DATABASE, QUERIES, query_labels=QUERY_LABELS, database_labels=LABELS).html())
    for options in (texts, {"images": tmp_path, "query_names": [EVIL] * 30}):
        made = Report(index, QUERIES, **given, **options)
        page = Page(made.html())
        assert page.tags.count("script") == 2
        assert "img" not in [tag for tag, name, value in page.attributes if name == "src" and value == "x"]
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert set(page.tags) <= {*clean.tags, "details", "summary"}
        assert data_of(made.html())["all"]["queries"] == 30
        assert made._repr_html_().count("<") == 2  # of the frame alone


def test_nothing_is_loaded_and_a_policy_says_so() -> None:
    made = Report(DATABASE, OUTPUTS, query_labels=QUERY_LABELS, database_labels=LABELS, hierarchy=TREE)
    page = Page(made.html())
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert all(value.startswith("data:") for value in page.values("src") + page.values("href"))
    assert not page.values("style")
    assert "url(" not in made.html()
    assert "@import" not in made.html()
    assert made._repr_html_().startswith('<iframe title="What the codes find" sandbox="allow-scripts"')


def test_every_plot_has_a_legend_and_a_sentence() -> None:
    made = Report(DATABASE, OUTPUTS, query_labels=QUERY_LABELS, database_labels=LABELS, hierarchy=TREE)
    parts = made.html().split("<figure>")[1:]
    titles = [re.findall("<h3>(.*?)</h3>", part)[0] for part in parts]
    assert titles == [
        *("Precision and recall along the ranking", "Precision and recall within a radius"),
        *("Hierarchical precision by rank", "Distances of near and far pairs", "Outputs before rounding"),
        *("Bit balance", "Correlation of bits", "Codes of each class", "Map of the codes"),
    ]
    for part in parts:
        figure = part.split("</figure>")[0]
        assert 'class="legend"' in figure.split("<figcaption>")[1]  # beside the drawing, not in it
        assert "Good: " in figure
        assert "aria-label=" in figure or "alt=" in figure


def test_pictures_are_small_and_broken_ones_are_named(tmp_path: Path) -> None:
    keys = [f"{label}/{row}.png" for row, label in enumerate(LABELS)]
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
    for row, key in enumerate(keys):
        Image.new("RGB", (300, 200), (row, 0, 200)).save(tmp_path / "photos" / key)
    (tmp_path / "photos" / keys[4]).write_bytes(b"no picture")
    (tmp_path / "photos" / keys[5]).unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    keys[6] = "../secret.png"
    index = HammingIndex(16)
    index.add(DATABASE, keys=keys)
    made = Report(index, images=tmp_path / "photos", database_labels="folder", limit=90)
    assert made.broken[keys[4]] == "not a picture, or broken"
    assert made.broken[keys[5]] == "there is no such file"
    assert made.broken["../secret.png"] == "outside of the folder of pictures"
    html = made.html()
    assert "Pictures that could not be read: 3" in html
    assert html.count("data:image/jpeg;base64,") > 80
    assert len(html) < 3_000_000
    assert "mAP" in made.numbers  # of the folders


def test_labels_of_folders_that_are_no_classes_are_left_out() -> None:
    made = Report(DATABASE, QUERIES, query_labels="folder", query_names=["x/1.png"] * 30, database_labels=LABELS)
    assert "mAP" not in made.numbers
    assert "no labels in common" in made.html()


def test_large_inputs_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "CODES", 60)
    monkeypatch.setattr(report, "PAIRS", 600)
    made = Report(DATABASE, QUERIES, query_labels=QUERY_LABELS, database_labels=LABELS, limit=4)
    rows = made._rows
    assert len(rows) < 60
    assert len(made._measured) == 600 // len(rows)
    given = (QUERIES[made._measured], DATABASE[rows], QUERY_NUMBERS[made._measured], NUMBERS[rows])
    assert made.numbers == pytest.approx(evaluate(*given, bits=16))
    assert f"{len(made._measured)} queries, drawn at random from 30" in made.html()
    assert f"{len(rows)} codes, drawn at random from 90" in made.html()
    own = Report(DATABASE, query_labels=LABELS)
    assert "drawn at random" in own.html()
    again = Report(DATABASE, QUERIES, query_labels=QUERY_LABELS, database_labels=LABELS, limit=4)
    assert again.html() == made.html()


@pytest.mark.parametrize("bits", [1, 7, 64])
@pytest.mark.parametrize("rows", [1, 2, 40])
def test_odd_sizes(bits: int, rows: int) -> None:
    codes = pack_bits(np.random.default_rng(bits).random((rows, bits)))
    assert "<h1>" in Report(codes, codes[:1], bits=bits, query_labels=[1], database_labels=[1] * rows).html()
    constant = Report(np.zeros((rows + 1, 1), np.uint8), bits=bits if bits < 8 else 8, query_labels=[0] * (rows + 1))
    assert constant.numbers["mAP"] == 1


def test_weights_up_to_any_distance_keep_the_page_small() -> None:
    problem = Problem(QUERIES, DATABASE, QUERY_NUMBERS, NUMBERS, 16, [(16, 255)], False, None)
    found = measure(problem, 5)
    assert found.radii[0] == 0
    assert found.radii[-1] == 16 * 255
    assert len(found.radii) <= 130


def test_codes_of_classes() -> None:
    classes, items, different = codes_of_classes(DATABASE, NUMBERS)
    for number, size, codes in zip(classes, items, different, strict=True):
        own = DATABASE[number == NUMBERS]
        assert size == len(own)
        assert codes == len(np.unique(own, axis=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"database": DATABASE.astype(int)}, "database must be a HammingIndex or packed uint8 codes"),
        ({"queries": QUERIES[:, :1]}, r"queries must be packed uint8 codes \[Q, 2\] or outputs \[Q, 16\]"),
        ({"queries": OUTPUTS - 5}, r"outputs must be in \[0, 1\], got -5"),
        ({"query_labels": LABELS}, "query_labels must have 30 rows, one for each code, got 90"),
        ({"texts": ["one"]}, "texts must have 90 rows, one for each code, got 1"),
        ({"query_labels": NUMBERS[:30], "database_labels": LABELS}, "must be of one kind"),
        ({"query_labels": ["x"] * 30, "database_labels": LABELS}, "no label of the queries occurs in the database"),
        ({"hierarchy": TREE}, "hierarchy needs query_labels and database_labels"),
        ({"images": "."}, "images needs the names of its files: an index with keys, or names"),
        ({"query_images": "."}, "query_images needs query_names, the names of its files"),
        ({"exclude_self": True}, "exclude_self needs query i to be row i of the database, got 30 queries and 90"),
        ({"k": 0}, "k must be between 1 and 1000, got 0"),
        ({"limit": 0}, "limit must be between 1 and 10000, got 0"),
        ({"database": DATABASE[:0]}, "the database must have at least 1 codes, got 0"),
        ({"database": HammingIndex(16), "bits": 16}, "bits and bit_weights must be None for an index"),
    ],
)
def test_messages(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"Report: .*{message}"):
        Report(**{"database": DATABASE, "queries": QUERIES, **arguments})
