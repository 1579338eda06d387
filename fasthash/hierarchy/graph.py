"""The graph of a class hierarchy: heights, depths, lowest common subsumers, and the distances that they make.

A hierarchy is a directed acyclic graph of is-a edges (parent, child). height = longest path down to a leaf, depth =
longest path from a root (roots have depth 1). Several roots get one virtual root above them: it counts in the
heights, has depth 0 and no name. Definitions: Barz & Denzler, "Hierarchy-based image embeddings for semantic image
retrieval" (WACV 2019), section 3, extended to graphs in which a class has several parents.
"""

from __future__ import annotations

import json
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasthash._arguments import choice
from fasthash._labels import label_names
from fasthash._tables import read_text
from fasthash.hierarchy.files import read_edges, refuse_header
from fasthash.hierarchy.header import ORDERS
from fasthash.hierarchy.names import Edge, Name, to_name
from fasthash.hierarchy.nested import nested_edges
from fasthash.hierarchy.telling import telling_distances
from fasthash.hierarchy.wordnet import read_synsets


class Hierarchy:
    """Names (str or int; 3 is not "3") joined by is-a edges; trees and graphs with several parents alike.

    Build one with `from_edges`, `from_nested`, `from_wordnet` or `from_file`. Duplicate edges are one edge; `nodes`
    adds names without any edge. Raises ValueError for no names at all and for a cycle (which it names), TypeError for
    other kinds of names. A hierarchy never changes: `restrict` gives a new one.

    >>> h = Hierarchy.from_edges([("animal", "dog"), ("animal", "cat"), ("thing", "animal"), ("thing", "car")])
    >>> h.distance("dog", "cat"), h.distance("dog", "car"), h.lcs("dog", "cat")
    (0.5, 1.0, 'animal')
    """

    def __init__(self, edges: Iterable[tuple[Any, Any]], nodes: Iterable[Any] = ()) -> None:
        self._index: dict[Name, int] = {}
        found: dict[tuple[int, int], None] = {}
        for edge in edges:
            if isinstance(edge, str) or len(edge) != 2:
                raise ValueError(f"Hierarchy: an edge is a pair (parent, child), got {edge!r}")
            parent, child = (self._index.setdefault(to_name(part), len(self._index)) for part in edge)
            found[parent, child] = None
        for node in nodes:
            self._index.setdefault(to_name(node), len(self._index))
        if not self._index:
            raise ValueError("Hierarchy: at least one edge or name is needed, got none")
        self._names: list[Name] = list(self._index)
        self._parents: list[list[int]] = [[] for _ in self._names]
        self._children: list[list[int]] = [[] for _ in self._names]
        for parent, child in found:
            self._parents[child].append(parent)
            self._children[parent].append(child)
        order = self._topological_order()
        self._depth = [1] * len(order)
        for node in order:
            for child in self._children[node]:
                self._depth[child] = max(self._depth[child], self._depth[node] + 1)
        self._height = [0] * len(order)
        for node in reversed(order):
            for parent in self._parents[node]:
                self._height[parent] = max(self._height[parent], self._height[node] + 1)
        roots = [node for node in order if not self._parents[node]]
        self._root_height = max(self._height[root] for root in roots) + (len(roots) > 1)
        # Position in the order in which common subsumers are preferred: deepest, then lowest height, then name.
        self._rank = [0] * len(order)
        for rank, node in enumerate(sorted(order, key=self._preference)):
            self._rank[node] = rank

    @classmethod
    def from_edges(cls, edges: Iterable[tuple[Any, Any]], *, order: str = "parent child") -> Hierarchy:
        """A hierarchy of (parent, child) pairs, or of (child, parent) pairs with order="child parent".

        Raises ValueError for a header row such as ("parent", "child") before other pairs, and for a data frame: pass
        its rows, `frame[["parent", "child"]].values`.

        >>> Hierarchy.from_edges([(0, 1), (0, 2)]).distance(1, 2)
        1.0
        >>> Hierarchy.from_edges([("dog", "animal"), ("cat", "animal")], order="child parent").edges
        [('animal', 'dog'), ('animal', 'cat')]
        """
        choice(order, "Hierarchy.from_edges", "order", ORDERS)
        if hasattr(edges, "columns"):
            raise ValueError(
                f"Hierarchy.from_edges: edges must be pairs, got {type(edges).__name__}; for a table pass its rows as "
                'pairs, the parent first: frame[["parent", "child"]].to_numpy().tolist(), with the names of its '
                "columns"
            )
        pairs = list(edges)
        for edge in pairs:
            if isinstance(edge, str) or len(edge) != 2:
                raise ValueError(f"Hierarchy.from_edges: an edge is a pair ({order.replace(' ', ', ')}), got {edge!r}")
        refuse_header(pairs)
        return cls(pairs if order == "parent child" else [(parent, child) for child, parent in pairs])

    @classmethod
    def from_nested(cls, nested: Any) -> Hierarchy:
        """A hierarchy of nested labels: a dict, or rows with one label for each level.

        dict: each key is a name and its value holds the names below it: another dict, a list of names, one name, or
        None. The same name in two places is one class with two parents, as with edges.

        rows: one row for each item or class, a label for each level, the most general first, all rows equally long.
        Rows may repeat, so `zip(domains, intents)` over a data set works. The last level gives the class labels, which
        keep their names. Each level has its own names: if a name above the last level occurs in another level too
        (numbers that count from 0 in each), all names of its level are written "level0:3" instead.

        >>> Hierarchy.from_nested({"animal": {"dog": None, "bird": ["owl", "lark"]}}).distance("owl", "lark")
        0.5
        >>> Hierarchy.from_nested([(0, 0), (0, 1), (1, 2)]).edges
        [('level0:0', 0), ('level0:0', 1), ('level0:1', 2)]
        """
        return cls(*nested_edges(nested))

    @classmethod
    def from_wordnet(
        cls, path: str | PathLike[str], synsets: Iterable[str] | None = None, *, instances: bool = True
    ) -> Hierarchy:
        """The noun hierarchy of WordNet; names are "n" and eight digits (the synset's offset), as in ImageNet.

        `path`: WordNet's own `data.noun`, or a table with the tab-separated columns wnid, hypernyms,
        instance_hypernyms (the last two: wnids separated by spaces) under a header line; either may be gzipped.
        `synsets`: keep these and what lies above them, as `restrict` does. instances=False leaves out instance-of
        edges (Einstein is a physicist) and the synsets that nothing else connects. Raises ValueError for a file of
        another format or an unknown synset.
        """
        edges: list[Edge] = []
        nodes: list[Name] = []
        for wnid, hypernyms, classes in read_synsets(Path(path)):
            edges += [(parent, wnid) for parent in hypernyms]
            if instances:
                edges += [(parent, wnid) for parent in classes]
                nodes.append(wnid)
        whole = cls(edges, nodes)
        return whole if synsets is None else whole.restrict(synsets)

    @classmethod
    def from_file(
        cls, path: str | PathLike[str], *, order: str | None = None, child_first: bool | None = None
    ) -> Hierarchy:
        """A hierarchy from a text file of edges, two names on each line, or a .json file of `to_dict`.

        A header says which name is the parent: "parent child" or "child parent", in any case, also with hypernym and
        hyponym, superclass and subclass, broader and narrower, coarse and fine, or "class superclass". Without a header
        `order` says it: "parent child" (None means the same) or "child parent", as in many published files.

        Names are separated by a tab if the line has one; else by a comma or semicolon if every line has one (quotes as
        in CSV); else by white space. If all names are whole numbers, written as Python writes them (no leading zeros),
        they become ints. `child_first`: the old name of order="child parent".

        Raises ValueError, with the line, for anything else; for a header that does not say the order; and for a first
        line with names that no other line has, while others share names: it may be a header in unknown words.
        """
        path = Path(path)
        if child_first is not None:
            warnings.warn(
                'Hierarchy.from_file: child_first is now order="child parent"', DeprecationWarning, stacklevel=2
            )
            if order is not None:
                raise ValueError(
                    f"Hierarchy.from_file: order and child_first must not both be given, got order={order!r}"
                )
            order = ORDERS[bool(child_first)]
        if order is not None:
            choice(order, "Hierarchy.from_file", "order", ORDERS)
        if path.suffix == ".json":
            if order is not None:
                raise ValueError(f"Hierarchy.from_file: order is for text files, got {order!r} with {path}")
            try:
                data = json.loads(read_text(path, "Hierarchy.from_file"))
            except ValueError as error:
                raise ValueError(f"Hierarchy.from_file: {path} is not JSON: {error}") from None
            return cls.from_dict(data)
        return cls(read_edges(path, order))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Hierarchy:
        """The hierarchy that `to_dict` wrote. Raises ValueError for anything else."""
        if not isinstance(data, Mapping) or set(data) != {"edges", "alone"}:
            raise ValueError('Hierarchy.from_dict: the keys must be "edges" and "alone", as to_dict writes them')
        edges, alone = data["edges"], data["alone"]
        if not (isinstance(edges, list) and isinstance(alone, list) and all(isinstance(e, list) for e in edges)):
            raise ValueError("Hierarchy.from_dict: edges must be a list of pairs and alone a list of names")
        return cls(edges, alone)

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold: {"edges": [[parent, child], ...], "alone": [names without an edge]}.

        >>> Hierarchy.from_edges([("a", "b")]).to_dict()
        {'edges': [['a', 'b']], 'alone': []}
        """
        alone = [name for i, name in enumerate(self._names) if not self._parents[i] and not self._children[i]]
        return {"edges": [list(edge) for edge in self.edges], "alone": alone}

    def restrict(self, labels: Iterable[Any]) -> Hierarchy:
        """The part of the hierarchy above `labels` (and they themselves); it has its own heights and depths.

        >>> h = Hierarchy.from_nested({"thing": {"car": None, "animal": {"cat": ["lion"], "dog": None}}})
        >>> h.distance("cat", "dog"), h.restrict(["cat", "dog", "car"]).distance("cat", "dog")
        (0.6666666666666666, 0.5)
        """
        keep: set[int] = set()
        for label in self._indices(labels, "restrict"):
            keep |= self._above(label)
        if not keep:
            raise ValueError("Hierarchy.restrict: at least one label is needed, got none")
        names = self._names
        edges = ((names[parent], names[i]) for i in sorted(keep) for parent in self._parents[i])
        return Hierarchy(edges, (names[i] for i in sorted(keep)))

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[Name]:
        return iter(self._names)

    def __contains__(self, label: object) -> bool:
        try:
            return to_name(label) in self._index
        except TypeError:
            return False

    def __repr__(self) -> str:
        sizes = f"{len(self)} names, {len(self.edges)} edges, {len(self.leaves)} leaves"
        return f"Hierarchy({sizes}, height {self.root_height})"

    @property
    def edges(self) -> list[Edge]:
        """All (parent, child) pairs, each once, grouped by child in the order in which names were first seen."""
        return [(self._names[p], self._names[i]) for i, parents in enumerate(self._parents) for p in parents]

    @property
    def leaves(self) -> list[Name]:
        """Names without children, in the order in which they were first seen."""
        return [name for i, name in enumerate(self._names) if not self._children[i]]

    @property
    def roots(self) -> list[Name]:
        """Names without parents, in the order in which they were first seen (the virtual root has no name)."""
        return [name for i, name in enumerate(self._names) if not self._parents[i]]

    @property
    def root_height(self) -> int:
        """Height of the root, of the virtual one where there are several roots."""
        return self._root_height

    def height(self, label: Any) -> int:
        """Length of the longest path from `label` down to a leaf; 0 for a leaf."""
        return self._height[self._find(label, "height")]

    def depth(self, label: Any) -> int:
        """Number of names on the longest path from a root to `label`; 1 for a root."""
        return self._depth[self._find(label, "depth")]

    def ancestors(self, label: Any) -> list[Name]:
        """Names that subsume `label`, itself first, then the deepest first."""
        above = self._above(self._find(label, "ancestors"))
        return [self._names[i] for i in sorted(above, key=self._rank.__getitem__)]

    def lcs(self, a: Any, b: Any) -> Name | None:
        """Lowest common subsumer: the one of greatest depth; equal depths: lowest height, then name (ints before strs).

        A class subsumes itself. None if a and b have only the virtual root in common.
        """
        common = self._above(self._find(a, "lcs")) & self._above(self._find(b, "lcs"))
        return self._names[min(common, key=self._rank.__getitem__)] if common else None

    def distance(self, a: Any, b: Any) -> float:
        """height(lcs(a, b)) / height(root), in [0, 1]: 0 for a = b, 1 where only the (virtual) root is common."""
        first, second = self._find(a, "distance"), self._find(b, "distance")
        if first == second:
            return 0.0
        lcs = self.lcs(a, b)
        return 1.0 if lcs is None else self.height(lcs) / self.root_height

    def wu_palmer(self, a: Any, b: Any) -> float:
        """Wu-Palmer similarity 2 ds / (d_a + d_b), ds = depth(lcs), d = ds + shortest path up to lcs; 0 without an lcs.

        >>> Hierarchy.from_nested({"thing": {"car": None, "animal": ["cat", "dog"]}}).wu_palmer("cat", "dog")
        0.6666666666666666
        """
        lcs = self.lcs(a, b)
        if lcs is None:
            return 0.0
        depth = self.depth(lcs)
        steps = [self._steps_up(self._find(label, "wu_palmer"), self._index[lcs]) for label in (a, b)]
        return 2 * depth / (2 * depth + sum(steps))

    def distance_matrix(self, labels: Iterable[Any]) -> NDArray[np.float64]:
        """`distance` of all pairs of labels (a sequence or array of names, repeats allowed): float64 [N, N].

        Takes O(N^2) memory and time: a second or so for 1,000 classes among 100,000 names.

        >>> Hierarchy.from_edges([(0, 1), (0, 2)]).distance_matrix([1, 2])
        array([[0., 1.],
               [1., 0.]])
        """
        nodes, inverse = np.unique(
            np.array(self._indices(labels, "distance_matrix"), dtype=np.int64), return_inverse=True
        )
        below: dict[int, list[int]] = {}
        for position, node in enumerate(nodes.tolist()):
            for subsumer in self._above(node):
                below.setdefault(subsumer, []).append(position)
        # Every subsumer writes its height into the block of labels below it, the preferred ones last. Of the
        # subsumers of one and the same set of labels only the preferred one counts.
        blocks: dict[tuple[int, ...], int] = {}
        for node in sorted(below, key=self._rank.__getitem__):
            if len(below[node]) > 1:
                blocks.setdefault(tuple(below[node]), node)
        heights = np.full((len(nodes), len(nodes)), self._root_height, dtype=np.int32)
        for members, node in reversed(blocks.items()):
            heights[np.ix_(members, members)] = self._height[node]
        distances = heights / max(self._root_height, 1)
        np.fill_diagonal(distances, 0.0)
        if len(inverse) == len(nodes) and (inverse[1:] > inverse[:-1]).all():
            return distances
        inverse = inverse.reshape(-1)
        return distances[inverse[:, None], inverse]

    def similarity_matrix(self, labels: Iterable[Any]) -> NDArray[np.float64]:
        """1 - `distance_matrix`: the similarities that hierarchical precision sums, float64 [N, N].

        Raises ValueError if they are equal for all pairs of three or more different labels, as in a hierarchy that was
        read the wrong way round: scores would say nothing.
        """
        names = [self._names[i] for i in self._indices(labels, "similarity_matrix")]
        distinct = list(dict.fromkeys(names))
        distances = telling_distances(self, distinct, "Hierarchy.similarity_matrix")
        place = {name: position for position, name in enumerate(distinct)}
        rows = np.array([place[name] for name in names], dtype=np.int64)
        similarities: NDArray[np.float64] = 1.0 - distances[rows[:, None], rows]
        return similarities

    def _find(self, label: Any, function: str) -> int:
        name = to_name(label)
        if name not in self._index:
            other: Name = str(name) if isinstance(name, int) else int(name) if re.fullmatch(r"-?\d+", name) else name
            hint = f" ({other!r} is; names are str or int, and 3 is not '3')" if other in self._index else ""
            raise ValueError(f"Hierarchy.{function}: label {name!r} is not in the hierarchy{hint}")
        return self._index[name]

    def _indices(self, labels: Iterable[Any], function: str) -> list[int]:
        if isinstance(labels, (str, bytes)):
            raise TypeError(f"Hierarchy.{function}: labels must be a sequence or array of names, got {labels!r}")
        names = label_names(labels, f"Hierarchy.{function}", "labels")
        return [self._find(label, function) for label in names]

    def _above(self, node: int) -> set[int]:
        """The node and everything that subsumes it."""
        seen = {node}
        stack = [node]
        while stack:
            for parent in self._parents[stack.pop()]:
                if parent not in seen:
                    seen.add(parent)
                    stack.append(parent)
        return seen

    def _steps_up(self, node: int, goal: int) -> int:
        """Edges on the shortest path from a node up to one that subsumes it."""
        steps = {node: 0}
        queue = deque([node])
        while goal not in steps:
            current = queue.popleft()
            for parent in self._parents[current]:
                if parent not in steps:
                    steps[parent] = steps[current] + 1
                    queue.append(parent)
        return steps[goal]

    def _preference(self, node: int) -> tuple[Any, ...]:
        name = self._names[node]
        return -self._depth[node], self._height[node], isinstance(name, str), name

    def _topological_order(self) -> list[int]:
        """Node indices, parents before children. Raises ValueError with one cycle where there is one."""
        try:
            return list(TopologicalSorter(dict(enumerate(self._parents))).static_order())
        except CycleError as error:
            shown = [repr(self._names[node]) for node in error.args[1]]
            if len(shown) > 12:
                shown = [*shown[:6], f"({len(shown) - 12} more)", *shown[-6:]]
            raise ValueError(f"Hierarchy: the edges have a cycle: {' -> '.join(shown)}") from None
