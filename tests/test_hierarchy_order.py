"""A hierarchy is read the right way round, or somebody is told: headers, `order`, and distances that tell nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hasher_cases import EDGES, NAMES, QUICK, blobs

from fasthash import Hasher, Hierarchy
from fasthash.evaluate import evaluate
from fasthash.hierarchy.header import header_doubt, header_order
from fasthash.targets import class_distances

TREE = [("thing", "animal"), ("thing", "vehicle"), *EDGES[:4], ("thing", "tree"), *EDGES[4:]]
UPSIDE_DOWN = [(child, parent) for parent, child in TREE]
LEAVES = NAMES.tolist()


def written(folder: Path, edges: list[tuple[str, str]], header: str | None = None, separator: str = " ") -> Path:
    lines = [separator.join(edge) for edge in edges]
    path = folder / "edges.txt"
    path.write_text("".join(f"{line}\n" for line in ([] if header is None else [header]) + lines))
    return path


@pytest.mark.parametrize(
    ("parent", "child"),
    [
        *(("parent", "child"), ("Parent", "Child"), ("PARENT_ID", "CHILD_ID"), ("parentName", "childName")),
        *(("hypernym", "hyponym"), ("superclass", "subclass"), ("SuperClass", "SubClass"), ("broader", "narrower")),
        *(("super_category", "sub_category"), ("coarse_label", "fine_label"), ("ancestor", "descendant")),
        *(("superclass", "class"), ("parent_id", "id"), ("category", "subcategory"), ("parents", "label")),
    ],
)
@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", ";"])
def test_the_header_says_the_order(parent: str, child: str, separator: str, tmp_path: Path) -> None:
    path = written(tmp_path, TREE, f"{parent}{separator}{child}", separator)
    assert Hierarchy.from_file(path).edges == Hierarchy(TREE).edges
    path = written(tmp_path, UPSIDE_DOWN, f"{child}{separator}{parent}", separator)
    assert set(Hierarchy.from_file(path).edges) == set(TREE)
    assert set(Hierarchy.from_file(path, order="child parent").edges) == set(TREE)


def test_order_without_a_header(tmp_path: Path) -> None:
    path = written(tmp_path, UPSIDE_DOWN)
    assert set(Hierarchy.from_file(path, order="child parent").edges) == set(TREE)
    assert set(Hierarchy.from_file(path).edges) == set(UPSIDE_DOWN)
    assert set(Hierarchy.from_file(path, order="parent child").edges) == set(UPSIDE_DOWN)
    assert set(Hierarchy.from_edges(UPSIDE_DOWN, order="child parent").edges) == set(TREE)
    assert Hierarchy.from_edges(TREE, order="parent child").edges == Hierarchy(TREE).edges
    with pytest.warns(DeprecationWarning, match='from_file: child_first is now order="child parent"'):
        assert set(Hierarchy.from_file(path, child_first=True).edges) == set(TREE)
    for call in (lambda: Hierarchy.from_file(path, order="up"), lambda: Hierarchy.from_edges(TREE, order="up")):
        with pytest.raises(ValueError, match="order must be 'parent child' or 'child parent', got 'up'"):
            call()


def test_order_against_what_the_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, TREE, "parent child")
    with pytest.raises(
        ValueError, match=r'has the header .parent child., which means order="parent child", got order='
    ):
        Hierarchy.from_file(path, order="child parent")
    path = tmp_path / "h.json"
    path.write_text(json.dumps(Hierarchy(TREE).to_dict()))
    with pytest.raises(ValueError, match=r"order is for text files, got 'child parent' with .*h\.json"):
        Hierarchy.from_file(path, order="child parent")
    with (
        pytest.warns(DeprecationWarning, match="child_first"),
        pytest.raises(ValueError, match="order and child_first must not both be given"),
    ):
        Hierarchy.from_file(path, order="child parent", child_first=True)


@pytest.mark.parametrize(
    "header", ["source target", "from to", "id name", "subject object", "Label\tName", "head,tail"]
)
def test_a_header_without_an_order_is_refused(header: str, tmp_path: Path) -> None:
    separator = next((mark for mark in "\t," if mark in header), " ")
    path = written(tmp_path, TREE, header, separator)
    with pytest.raises(
        ValueError, match=r"a header that does not say which column is the parent.*known words: parent/chi"
    ):
        Hierarchy.from_file(path)
    assert Hierarchy.from_file(path, order="parent child").edges == Hierarchy(TREE).edges


@pytest.mark.parametrize("header", ["Oberbegriff Unterbegriff", "group member", "genus species", "over under"])
def test_a_header_in_unknown_words_is_no_edge(header: str, tmp_path: Path) -> None:
    path = written(tmp_path, TREE, header)
    for order in (None, "parent child"):
        with pytest.raises(
            ValueError,
            match=rf"starts with '{header}', whose names are in no other line: it may be a header in unknown",
        ):
            Hierarchy.from_file(path, order=order)
    numbers = [("9", "7"), ("9", "8"), ("7", "1"), ("7", "2"), ("8", "3")]
    path = written(tmp_path, numbers, header)
    with pytest.raises(ValueError, match="a header that does not say which column is the parent"):
        Hierarchy.from_file(path)
    assert (
        Hierarchy.from_file(path, order="parent child").edges
        == Hierarchy([(9, 7), (9, 8), (7, 1), (7, 2), (8, 3)]).edges
    )
    wnids = [("n00000001", "n00000002"), ("n00000001", "n00000003")]
    with pytest.raises(ValueError, match="a header that does not say"):
        Hierarchy.from_file(written(tmp_path, wnids, header))


def test_the_ways_out_of_a_doubt(tmp_path: Path) -> None:
    """An edge that stands alone goes below a header; numpy's comment sign before a header is none of its words."""
    forest = [("fruit", "apple"), *EDGES]
    with pytest.raises(ValueError, match="If it is an edge, put such a header above it"):
        Hierarchy.from_file(written(tmp_path, forest))
    assert Hierarchy.from_file(written(tmp_path, forest, "parent child")).edges == Hierarchy(forest).edges
    for header in ("# child parent", "#child parent", "# child,parent"):
        path = written(tmp_path, UPSIDE_DOWN, header, "," if "," in header else " ")
        assert set(Hierarchy.from_file(path).edges) == set(TREE)


def test_edges_are_no_headers(tmp_path: Path) -> None:
    """First lines whose names other lines have, numbers, and files of one line or of pairs that share nothing."""
    for edges in (
        [("entity", "object"), ("object", "animal"), ("animal", "dog")],
        [("class", "superclass"), ("superclass", "x")],
        [("1", "2"), ("3", "4"), ("3", "5")],
        [("n01", "n02"), ("n03", "n04"), ("n03", "n05")],
        [("fruit", "apple")],
        [("fruit", "apple"), ("animal", "dog")],
    ):
        assert len(Hierarchy.from_file(written(tmp_path, edges)).edges) == len(edges)
    assert header_order(["class", "superclass"], [("superclass", "x")]) is None
    assert header_doubt(["relative", "child"], [("child", "son")]) is None
    assert header_doubt(["penalty", "fine"], [("x", "y")]) == "maybe"


def test_names_with_commas_and_spaces(tmp_path: Path) -> None:
    path = tmp_path / "edges.csv"
    rows = [("subclass", "superclass"), ("Ducks, Geese", "Birds"), ("big cat", "cat"), ("cat", "Mammals")]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert set(Hierarchy.from_file(path).edges) == {(parent, child) for child, parent in rows[1:]}
    path.write_text("parent,child\na,b\na,b,c\n")
    with pytest.raises(
        ValueError, match=r"line 3 must be two names, got 'a,b,c'. A tab, a comma or white space separates"
    ):
        Hierarchy.from_file(path)


def test_a_header_among_pairs_in_memory() -> None:
    with pytest.raises(ValueError, match=r"the first pair, \('child', 'parent'\), is a header.*order=\"child parent\""):
        Hierarchy.from_edges([["child", "parent"], *UPSIDE_DOWN])
    assert Hierarchy.from_edges([("parent", "child"), ("child", "baby")]).root_height == 2  # names, not a header
    assert Hierarchy.from_edges([("parent", "child")]).leaves == ["child"]


# Distances that tell nothing


def refused(hierarchy: Hierarchy, labels: list, why: str) -> None:
    """Training and scoring raise, and say why."""
    with pytest.raises(ValueError, match=f"^class_distances: the hierarchy .*{why}"):
        class_distances(labels, hierarchy)
    with pytest.raises(ValueError, match=f"^Hierarchy.similarity_matrix: the hierarchy .*{why}"):
        hierarchy.similarity_matrix([*labels, labels[0]])
    X = blobs()[0]
    y = np.array(labels)[np.arange(len(X)) % len(labels)]
    for validation in (None, (X, y)):
        with pytest.raises(ValueError, match=f"^Hasher.fit: the hierarchy .*{why}"):
            Hasher(**QUICK, hierarchy=hierarchy).fit(X, y, validation)


@pytest.mark.parametrize("edges", [TREE, EDGES], ids=["tree", "forest"])
def test_upside_down(edges: list[tuple[str, str]]) -> None:
    turned = Hierarchy([(child, parent) for parent, child in edges])
    refused(
        turned, LEAVES, 'got distance 1 for all pairs of the 6 labels: it seems to be upside down; .*order="child pa'
    )
    mixed = [*LEAVES, "animal", "vehicle"]  # a class above others is nearer to them than to the rest, either way
    refused(
        turned,
        mixed,
        'seems to be upside down: [0-9]+ pairs of labels have a common class below them, 0 pairs.*order="child',
    )
    assert class_distances(mixed, Hierarchy(edges)).unique().numel() > 2


@pytest.mark.parametrize("kind", ["numbers", "names"])
def test_a_table_of_class_names(kind: str, tmp_path: Path) -> None:
    table = [(str(number), name) for number, name in enumerate(LEAVES)]
    hierarchy = Hierarchy.from_file(written(tmp_path, table))
    if kind == "numbers":
        refused(hierarchy, [number for number, _ in table], "none of them has a parent: perhaps a table of class na")
    else:
        refused(
            hierarchy, LEAVES, "no two of them have a common ancestor: perhaps a table of class names was read as edges"
        )


def test_flat_on_purpose() -> None:
    """Equal distances are those of no hierarchy, which is the way out; two labels have one pair."""
    flat = Hierarchy([("root", name) for name in LEAVES])
    refused(flat, LEAVES, "it is flat: 'root' is the only class that two of them have in common. If all labels")
    nested = Hierarchy.from_nested(dict.fromkeys(LEAVES, "thing"))  # {child: parent}
    refused(nested, LEAVES, 'upside down; .*order="child parent"')
    deep = Hierarchy([*TREE, *(("cat", f"cat {number}") for number in range(3))])
    refused(
        deep,
        ["cat 0", "cat 1", "cat 2"],
        "got distance 0.333333 for all pairs of the 3 labels: it is flat: .*'cat'",
    )
    for hierarchy in (flat, Hierarchy(UPSIDE_DOWN)):
        assert class_distances(LEAVES[:2], hierarchy).tolist() == [[0, 1], [1, 0]]
        X, y = blobs()
        Hasher(**{**QUICK, "epochs": 1}, hierarchy=hierarchy).fit(X, NAMES[y % 2])
    assert flat.distance_matrix(LEAVES).max() == 1  # asking for distances is free


def test_a_validation_part_may_hold_one_branch() -> None:
    X, y = blobs()
    three = Hierarchy(
        [("r", "a"), ("r", "b"), *(("a", name) for name in LEAVES[:3]), *(("b", name) for name in LEAVES[3:])]
    )
    hasher = Hasher(**{**QUICK, "epochs": 1}, hierarchy=three)
    hasher.fit(X, NAMES[y], validation=(X[y < 3], NAMES[y[y < 3]]))
    assert hasher.history_.scores[0] is not None


def test_similarities_that_tell_nothing_are_refused() -> None:
    codes, labels = np.arange(30, dtype=np.uint8)[:, None], np.arange(30) % 3
    for similarity in (np.eye(3), np.full((3, 3), 0.5) + np.eye(3) / 2):
        with pytest.raises(
            ValueError, match=r"evaluate: class_similarity must differ between pairs of classes, got 0(\.5)? for all p"
        ):
            evaluate(codes, codes, labels, labels, class_similarity=similarity)
    assert "mAHP@30" in evaluate(codes, codes, labels % 2, labels % 2, class_similarity=np.eye(2))
    wrong = Hierarchy(UPSIDE_DOWN)
    with pytest.raises(ValueError, match="class_similarity must differ between pairs of classes"):
        evaluate(codes, codes, labels, labels, class_similarity=1 - wrong.distance_matrix(LEAVES[:3]))


@pytest.mark.parametrize(
    "name", ["cifar100/cifar.parent-child.txt", "nabirds/hierarchy.txt", "cub200/cub_flat.parent-child.txt"]
)
def test_published_files_the_wrong_way_round(shared_data: Path, name: str) -> None:
    orders = ("parent child", "child parent")
    right, wrong = orders[:: -1 if name.startswith("nabirds") else 1]
    path = shared_data / "hierarchies" / name
    hierarchy = Hierarchy.from_file(path, order=right)
    labels = hierarchy.leaves
    assert class_distances(labels, hierarchy).unique().numel() > 3
    turned = Hierarchy.from_file(path, order=wrong)
    for some in (labels, [*labels[:50], *(name for name in list(hierarchy)[:50] if name not in labels)]):
        with pytest.raises(ValueError, match="upside down"):
            class_distances(some, turned)


def test_published_tables_of_names(shared_data: Path) -> None:
    folder = shared_data / "hierarchies"
    hierarchy = Hierarchy.from_file(folder / "cifar100/class_names.txt")
    with pytest.raises(ValueError, match="none of them has a parent: perhaps a table of class names"):
        class_distances([str(number) for number in range(100)], hierarchy)
    for name in (
        "nabirds/classes.txt",
        "cub200/classes_flat.txt",
        "cifar100/fine_to_coarse.tsv",
        "cifar100/hierarchy.txt",
    ):
        with pytest.raises(ValueError, match=r"line \d must be two names"):
            Hierarchy.from_file(folder / name)


def test_a_data_frame_is_not_read_by_the_names_of_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([(child, parent) for parent, child in TREE], columns=["child", "parent"])
    with pytest.raises(ValueError, match=r"edges must be pairs, got DataFrame; for a table pass its rows"):
        Hierarchy.from_edges(frame)
    pairs = frame[["parent", "child"]].to_numpy().tolist()
    assert Hierarchy.from_edges(pairs).edges == Hierarchy(TREE).edges
