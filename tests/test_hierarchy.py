import gzip
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fasthash.hierarchy import Hierarchy

ANIMALS = {"thing": {"car": None, "animal": {"cat": ["lion", "lynx"], "dog": None}}}

# "both" is a child of x (depth 2) and of y (depth 3): a graph, not a tree.
GRAPH = [("root", "x"), ("root", "w"), ("w", "y"), ("x", "both"), ("y", "both"), ("x", "a"), ("y", "b"), ("b", "deep")]


@st.composite
def graphs(draw):
    """Edges of a random acyclic graph over 0..n-1 (each parent is smaller than its child)."""
    n = draw(st.integers(2, 12))
    pairs = list(itertools.combinations(range(n), 2))
    return draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=3 * n))


def plain_distances(edges):
    """The definitions, word by word, on sets: {(a, b): (lcs or None, distance)}."""
    edges = set(edges)
    nodes = {name for edge in edges for name in edge}
    parents = {n: [p for p, c in edges if c == n] for n in nodes}
    children = {n: [c for p, c in edges if p == n] for n in nodes}

    def height(n):
        return max((height(c) + 1 for c in children[n]), default=0)

    def depth(n):
        return max((depth(p) for p in parents[n]), default=0) + 1

    def above(n):
        return {n}.union(*(above(p) for p in parents[n]))

    roots = [n for n in nodes if not parents[n]]
    top = max(height(r) for r in roots) + (len(roots) > 1)
    result = {}
    for a, b in itertools.product(nodes, nodes):
        common = above(a) & above(b)
        lcs = min(common, key=lambda n: (-depth(n), height(n), n)) if common else None
        result[a, b] = lcs, 0.0 if a == b else 1.0 if lcs is None else height(lcs) / top
    return result


@given(graphs())
@settings(deadline=None)
def test_distances_equal_the_definition(edges):
    h = Hierarchy.from_edges(edges)
    names = list(h)
    matrix = h.distance_matrix(names)
    expected = plain_distances(edges)
    for (i, a), (j, b) in itertools.product(enumerate(names), enumerate(names)):
        lcs, distance = expected[a, b]
        assert h.lcs(a, b) == lcs
        assert h.distance(a, b) == distance == matrix[i, j]
    assert (matrix == matrix.T).all()
    assert matrix.min() >= 0
    assert matrix.max() <= 1


@given(graphs(), st.data())
@settings(deadline=None)
def test_restrict_keeps_what_lies_above(edges, data):
    h = Hierarchy.from_edges(edges)
    labels = data.draw(st.lists(st.sampled_from(list(h)), min_size=1, max_size=4))
    part = h.restrict(labels)
    above = set().union(*(h.ancestors(label) for label in labels))
    assert set(part) == above
    assert set(part.edges) == {(p, c) for p, c in edges if c in above}
    kept = [edge for edge in edges if edge[1] in above]
    if kept and len({name for edge in kept for name in edge}) == len(above):
        assert (part.distance_matrix(sorted(above)) == Hierarchy(kept).distance_matrix(sorted(above))).all()


@given(graphs())
@settings(deadline=None)
def test_json_form_holds_everything(edges):
    h = Hierarchy.from_edges(edges).restrict([0] if 0 in {n for e in edges for n in e} else [edges[0][0]])
    again = Hierarchy.from_dict(json.loads(json.dumps(h.to_dict())))
    assert list(again.edges) == list(h.edges)
    assert set(again) == set(h)


def test_graph_takes_the_deepest_subsumer():
    h = Hierarchy.from_edges(GRAPH)
    assert h.lcs("both", "a") == "x"
    assert h.lcs("both", "b") == "y"
    assert (h.depth("root"), h.depth("both"), h.depth("deep")) == (1, 4, 5)
    assert (h.height("root"), h.height("y"), h.height("deep")) == (4, 2, 0)
    assert h.distance("both", "b") == 2 / 4
    assert h.distance("both", "a") == 1 / 4
    assert h.distance("b", "deep") == 1 / 4  # a class subsumes itself
    assert h.lcs("deep", "deep") == "deep"
    assert h.distance("deep", "deep") == 0
    assert h.ancestors("both") == ["both", "y", "x", "w", "root"]


def test_subsumers_of_equal_depth_go_by_height_then_name():
    edges = [("r", "p"), ("r", "q"), ("p", "a"), ("p", "b"), ("q", "a"), ("q", "b")]
    assert Hierarchy.from_edges(edges).lcs("a", "b") == "p"
    taller = [*edges, ("p", "c"), ("c", "d")]
    assert Hierarchy.from_edges(taller).lcs("a", "b") == "q"
    assert Hierarchy.from_edges([("r", "10"), ("r", 9), ("10", 1), ("10", 2), (9, 1), (9, 2)]).lcs(1, 2) == 9


def test_several_roots_get_a_virtual_one():
    h = Hierarchy.from_edges([("a", "b"), ("b", "c"), ("x", "y"), ("x", "z")])
    assert h.roots == ["a", "x"]
    assert h.root_height == 3
    assert len(h) == 6
    assert h.lcs("c", "y") is None
    assert h.distance("c", "y") == 1.0
    assert h.wu_palmer("c", "y") == 0.0
    assert h.distance("y", "z") == 1 / 3
    assert h.similarity_matrix(["c", "y", "z"]).tolist() == [[1, 0, 0], [0, 1, 1 - 1 / 3], [0, 1 - 1 / 3, 1]]
    assert h.depth("a") == h.depth("x") == 1
    assert h.restrict(["y"]).root_height == 1


def test_wu_palmer_by_hand():
    h = Hierarchy.from_nested(ANIMALS)
    assert h.wu_palmer("lion", "lynx") == 2 * 3 / (4 + 4)
    assert h.wu_palmer("lion", "dog") == 2 * 2 / (4 + 3)
    assert h.wu_palmer("lion", "lion") == 1.0
    # depth(y) = 3 by the longest path; "both" is one step below it.
    assert Hierarchy.from_edges(GRAPH).wu_palmer("both", "deep") == 2 * 3 / (4 + 5)
    # Two ways up, one of them longer: the shortest counts.
    h = Hierarchy.from_edges([("r", "m"), ("m", "a"), ("r", "a"), ("r", "b")])
    assert h.depth("a") == 3
    assert h.wu_palmer("a", "b") == 2 * 1 / (2 + 2)


def test_one_name_alone():
    h = Hierarchy.from_nested({"only": None})
    assert h.distance("only", "only") == 0.0
    assert h.distance_matrix(["only"]).tolist() == [[0.0]]
    assert h.root_height == 0
    assert h.leaves == h.roots == ["only"]
    assert len(h) == 1
    assert h.edges == []
    assert Hierarchy.from_dict(h.to_dict()).leaves == ["only"]


def test_nested_dict_and_edges_agree():
    h = Hierarchy.from_nested(ANIMALS)
    edges = [
        ("thing", "car"),
        ("thing", "animal"),
        ("animal", "cat"),
        ("animal", "dog"),
        ("cat", "lion"),
        ("cat", "lynx"),
    ]
    assert set(h.edges) == set(edges)
    assert h.leaves == ["car", "lion", "lynx", "dog"]
    assert set(Hierarchy.from_nested({"a": "b", "c": ["b", {"d": None}], 3: []}).edges) == {
        ("a", "b"),
        ("c", "b"),
        ("c", "d"),
    }
    assert 3 in Hierarchy.from_nested({"a": "b", 3: {}})


def test_rows_of_labels():
    rows = [
        ("pets", "animal", "dog"),
        ("pets", "animal", "cat"),
        ("goods", "vehicle", "car"),
        ("pets", "animal", "dog"),
    ]
    h = Hierarchy.from_nested(rows)
    assert set(h.edges) == {
        ("pets", "animal"),
        ("animal", "dog"),
        ("animal", "cat"),
        ("goods", "vehicle"),
        ("vehicle", "car"),
    }
    assert h.distance("dog", "cat") == 1 / 3
    assert h.distance("dog", "car") == 1.0
    numbers = Hierarchy.from_nested(np.array([[0, 0], [0, 1], [1, 2], [1, 3]]))
    assert numbers.distance(0, 1) == 0.5
    assert numbers.distance(1, 2) == 1.0
    assert set(numbers.leaves) == {0, 1, 2, 3}
    assert set(numbers.roots) == {"level0:0", "level0:1"}
    assert Hierarchy.from_nested([("fish", "fish")]).edges == [("level0:fish", "fish")]
    assert Hierarchy.from_nested(zip([10, 11], [0, 1], strict=True)).roots == [10, 11]
    assert set(Hierarchy.from_nested([["a"], ["b"]])) == {"a", "b"}


def test_names_keep_their_kind():
    h = Hierarchy.from_edges([("r", 3), ("r", "3"), ("r", np.int64(4)), (np.str_("r"), torch.tensor(5))])
    assert len(h) == 5
    assert h.distance(3, "3") == 1.0
    assert 3 in h
    assert "3" in h
    assert 4 in h
    assert 5 in h
    assert np.int32(5) in h
    assert 3.0 not in h
    assert True not in h
    assert None not in h
    assert "4" not in h
    assert {type(name) for name in h} == {int, str}


def test_labels_may_be_arrays_and_repeat():
    h = Hierarchy.from_edges([(9, 1), (9, 2), (2, 3), (2, 4)])
    expected = [[0, 1, 0.5], [1, 0, 1], [0.5, 1, 0]]
    for labels in ([3, 1, 4], (3, 1, 4), np.array([3, 1, 4]), torch.tensor([3, 1, 4])):
        assert h.distance_matrix(labels).tolist() == expected
    repeated = h.distance_matrix([3, 1, 3, 4])
    assert repeated.dtype == np.float64
    assert repeated[0].tolist() == [0, 1, 0, 0.5]
    assert repeated[2].tolist() == [0, 1, 0, 0.5]
    assert h.distance_matrix([]).shape == (0, 0)
    assert Hierarchy.from_edges([("r", "a"), ("r", "b")]).distance_matrix(np.array(["a", "b"])).tolist() == [
        [0, 1],
        [1, 0],
    ]


def test_duplicate_edges_are_one():
    assert Hierarchy.from_edges([("a", "b"), ("a", "b")]).edges == [("a", "b")]


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([("a", "b"), ("b", "a")], {"'a' -> 'b' -> 'a'", "'b' -> 'a' -> 'b'"}),
        ([("r", 1), (1, 1)], {"1 -> 1"}),
        ([("r", "x"), ("x", "y"), ("y", "x"), ("y", "z")], {"'x' -> 'y' -> 'x'", "'y' -> 'x' -> 'y'"}),
    ],
)
def test_a_cycle_is_named(edges, cycle):
    with pytest.raises(ValueError, match="Hierarchy: the edges have a cycle: ") as error:
        Hierarchy.from_edges(edges)
    assert str(error.value).split("cycle: ")[1] in cycle


def test_a_long_cycle_is_shortened():
    with pytest.raises(ValueError, match=r"\(89 more\)"):
        Hierarchy.from_edges([(i, (i + 1) % 100) for i in range(100)])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda h: h.distance("lion", "wolf"), ValueError, "Hierarchy.distance: label 'wolf' is not in the hierarchy$"),
        (lambda h: h.lcs("wolf", "lion"), ValueError, "Hierarchy.lcs: label 'wolf' is not"),
        (lambda h: h.depth("wolf"), ValueError, "Hierarchy.depth: label 'wolf' is not"),
        (lambda h: h.height(7), ValueError, "Hierarchy.height: label 7 is not in the hierarchy$"),
        (lambda h: h.distance_matrix(["lion", "wolf"]), ValueError, "Hierarchy.distance_matrix: label 'wolf'"),
        (lambda h: h.distance_matrix("lion"), TypeError, "labels must be a sequence or array of names, got 'lion'"),
        (lambda h: h.restrict(["wolf"]), ValueError, "Hierarchy.restrict: label 'wolf'"),
        (lambda h: h.restrict([]), ValueError, "Hierarchy.restrict: at least one label is needed, got none"),
        (lambda h: h.wu_palmer("lion", 1.5), TypeError, r"names must be str or int, got 1.5 \(float\)"),
        (lambda h: h.distance(True, "lion"), TypeError, r"names must be str or int, got True \(bool\)"),
        (
            lambda h: Hierarchy.from_edges([(1, 2)]).depth("2"),
            ValueError,
            r"label '2' is not in the hierarchy \(2 is; names are",
        ),
        (
            lambda h: Hierarchy.from_edges([("1", "2")]).depth(2),
            ValueError,
            r"label 2 is not in the hierarchy \('2' is; names are",
        ),
        (lambda h: Hierarchy.from_edges([]), ValueError, "at least one edge or name is needed, got none"),
        (
            lambda h: Hierarchy.from_edges([("a", "b", "c")]),
            ValueError,
            r"an edge is a pair \(parent, child\), got \('a', 'b', 'c'\)",
        ),
        (lambda h: Hierarchy.from_edges(["ab"]), ValueError, r"an edge is a pair \(parent, child\), got 'ab'"),
        (lambda h: Hierarchy.from_edges([(None, "b")]), TypeError, r"names must be str or int, got None \(NoneType\)"),
        (
            lambda h: Hierarchy.from_nested([("a", "b"), ("c",)]),
            ValueError,
            r"same number of levels, got \('a', 'b'\) and \('c',\)",
        ),
        (lambda h: Hierarchy.from_nested([]), ValueError, "from_nested: at least one row is needed, got none"),
        (
            lambda h: Hierarchy.from_nested(["ab", "cd"]),
            TypeError,
            "a row must hold one label for each level, got 'ab'",
        ),
        (lambda h: Hierarchy.from_nested({"a": 1.5}), TypeError, "names must be str or int, got 1.5"),
        (lambda h: Hierarchy.from_nested({}), ValueError, "at least one edge or name"),
        (lambda h: Hierarchy.from_dict({"edges": []}), ValueError, 'from_dict: the keys must be "edges" and "alone"'),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call(Hierarchy.from_nested(ANIMALS))


def test_edge_files(tmp_path):
    path = tmp_path / "edges.txt"
    path.write_text("9 1\n9 2\n\n2 3\n")
    assert Hierarchy.from_file(path).edges == [(9, 1), (9, 2), (2, 3)]
    assert Hierarchy.from_file(path, order="child parent").edges == [(1, 9), (2, 9), (3, 2)]
    path.write_text("child\tparent\nbig cat\tcat\n7\tcat\n")
    assert Hierarchy.from_file(path).edges == [("cat", "big cat"), ("cat", "7")]
    path.write_text("a b\na b c\n")
    with pytest.raises(ValueError, match="line 2 must be two names, got 'a b c'"):
        Hierarchy.from_file(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no edges"):
        Hierarchy.from_file(path)
    path = tmp_path / "h.json"
    path.write_text(json.dumps(Hierarchy.from_nested(ANIMALS).to_dict()))
    assert Hierarchy.from_file(path).edges == Hierarchy.from_nested(ANIMALS).edges
    path.write_text("{")
    with pytest.raises(ValueError, match=r"from_file: .*h\.json is not JSON"):
        Hierarchy.from_file(path)


NOUNS = """\
  1 This licence line and the next are indented by two spaces.
  2 words @ 00000001 n
00000001 03 n 01 entity 0 002 ~ 00000002 n 0000 ~ 00000003 n 0000 | what is; "a | b"
00000002 03 n 02 living_thing 0 organism 1 003 @ 00000001 n 0000 + 00000009 v 0101 ~ 00000004 n 0000 | alive
00000003 06 n 0b a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 k 0 001 @ 00000001 n 0000 | eleven words, hexadecimal
00000004 18 n 01 Einstein 0 002 @i 00000002 n 0000 ;c 00000003 n 0000 | one instance
"""


def test_wordnet_formats(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(NOUNS)
    n = [f"n0000000{i}" for i in range(5)]
    whole = Hierarchy.from_wordnet(path)
    assert set(whole.edges) == {(n[1], n[2]), (n[1], n[3]), (n[2], n[4])}
    assert set(Hierarchy.from_wordnet(path, instances=False)) == {n[1], n[2], n[3]}
    assert set(Hierarchy.from_wordnet(path, [n[4]])) == {n[1], n[2], n[4]}
    rows = [(n[1], "", ""), (n[2], n[1], ""), (n[3], n[1], ""), (n[4], "", n[2])]
    table = "wnid\tlemmas\thypernyms\tinstance_hypernyms\tgloss\n"
    table += "".join(f"{wnid}\tx\t{above}\t{instance}\ty\n" for wnid, above, instance in rows)
    path = tmp_path / "nouns.tsv.gz"
    path.write_bytes(gzip.compress(table.encode()))
    assert set(Hierarchy.from_wordnet(path).edges) == set(whole.edges)
    with pytest.raises(ValueError, match=r"Hierarchy\.restrict: label 'n9' is not in"):
        Hierarchy.from_wordnet(path, ["n9"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello world\n", "line 1 is no synset of data.noun: 'hello world'"),
        (NOUNS + "00000005 03 n 01 cut 0 002 @ 00000001\n", "line 7 is no synset"),
        ("wnid\thypernyms\nn1\t\n", "lacks the columns wnid, hypernyms, instance_hypernyms"),
        ("wnid\thypernyms\tinstance_hypernyms\nn1\n", "line 2 has 1 columns, not 3"),
        ("", "at least one edge or name"),
    ],
)
def test_wordnet_errors(tmp_path, text, message):
    path = tmp_path / "data.noun"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Hierarchy.from_wordnet(path)


def test_tiny_imagenet_distances_are_reproduced(shared_data):
    folder = shared_data / "tiny_imagenet_32"
    wnids = [line.split("\t")[1] for line in (folder / "classes.tsv").read_text().splitlines()[1:]]
    expected = np.load(folder / "lcs_height.npy")
    h = Hierarchy.from_file(folder / "isa.tsv")
    assert h.root_height == 17
    np.testing.assert_array_equal(h.distance_matrix(wnids).astype(np.float32), expected)
    for i, j in np.random.default_rng(0).integers(0, len(wnids), (200, 2)):
        assert np.float32(h.distance(wnids[i], wnids[j])) == expected[i, j]
    wordnet = Hierarchy.from_wordnet(shared_data / "wordnet30" / "wn30_nouns.tsv.gz", wnids)
    assert set(wordnet.edges) == set(h.edges)
    np.testing.assert_array_equal(wordnet.distance_matrix(wnids).astype(np.float32), expected)


def test_whole_wordnet(shared_data):
    h = Hierarchy.from_wordnet(shared_data / "wordnet30" / "wn30_nouns.tsv.gz")
    assert len(h) == 82115
    assert len(h.edges) == 75850 + 8577
    assert h.roots == ["n00001740"]
    # dog.n.01 and cat.n.01 meet in carnivore.n.01; NLTK's wup_similarity of the two is 0.857 as well.
    assert h.lcs("n02084071", "n02121620") == "n02075296"
    assert h.depth("n02075296") == 12
    assert h.wu_palmer("n02084071", "n02121620") == 2 * 12 / (14 + 14)


@pytest.mark.parametrize(
    ("name", "order", "leaves", "edges", "roots"),
    [
        ("cifar100/cifar.parent-child.txt", None, 100, 162, 1),
        ("cub200/cub_balanced.parent-child.txt", None, 200, 420, 1),
        ("cub200/cub_flat.parent-child.txt", None, 200, 367, 1),
        ("cub200/cub_wikispecies.parent-child.txt", None, 200, 382, 1),
        ("nabirds/hierarchy.txt", "child parent", 555, 1010, 1),
        ("ilsvrc/wordnet.parent-child.mintree.txt", None, 1000, 1784, 1),
        ("ilsvrc/wordnet.parent-child.pruned.txt", None, 57130, 74780, 129),
    ],
)
def test_published_hierarchies_load(shared_data, name, order, leaves, edges, roots):
    h = Hierarchy.from_file(shared_data / "hierarchies" / name, order=order)
    assert (len(h.leaves), len(h.edges), len(h.roots)) == (leaves, edges, roots)
    if leaves <= 1000:
        matrix = h.distance_matrix(h.leaves)
        off = ~np.eye(leaves, dtype=bool)
        assert matrix[off].min() > 0
        assert matrix.max() == 1
        assert (matrix == matrix.T).all()


def test_imagenet_classes_in_the_whole_graph(shared_data):
    folder = shared_data / "hierarchies" / "ilsvrc"
    wnids = [wnid for wnid, _ in json.loads((folder / "imagenet_class_index.json").read_text()).values()]
    h = Hierarchy.from_file(folder / "wordnet.parent-child.pruned.txt")
    matrix = h.distance_matrix(wnids)
    assert matrix.shape == (1000, 1000)
    for i, j in np.random.default_rng(0).integers(0, 1000, (300, 2)):
        assert matrix[i, j] == h.distance(wnids[i], wnids[j])
