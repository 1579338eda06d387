"""Label and hierarchy files: both sides read names alike, however they are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fasthash import Hierarchy
from fasthash.cli.columns import read_labels
from fasthash.cli.files import fit_to_hierarchy, read_hierarchy
from fasthash.cli.parser import UserError


@pytest.mark.parametrize(
    ("names", "root", "kind"),
    [(["007", "08", "7"], "all", "U"), (["007", "08", "7"], "0", "U"), (["7", "8", "-9"], "0", "i")],
)
def test_labels_and_hierarchy_are_read_alike(names: list[str], root: str, kind: str, tmp_path: Path) -> None:
    edges, labels = tmp_path / "edges.txt", tmp_path / "labels.txt"
    edges.write_text("".join(f"{root} {name}\n" for name in names), encoding="utf-8-sig")  # as Windows saves
    labels.write_text("\n".join(names), encoding="utf-8-sig")
    hierarchy, found = read_hierarchy(str(edges)), read_labels(str(labels), 3, "X")
    assert found.dtype.kind == kind
    fitted = fit_to_hierarchy(found, hierarchy, "labels.txt")
    assert [str(name) for name in fitted.tolist()] == names


def test_labels_become_what_the_hierarchy_holds() -> None:
    numbers, text = Hierarchy.from_edges([(0, 1), (0, 2)]), Hierarchy.from_edges([("0", "1"), ("0", "2")])
    assert fit_to_hierarchy(np.array(["1", "2"]), numbers, "y").tolist() == [1, 2]
    assert fit_to_hierarchy(np.array([1, 2]), text, "y").tolist() == ["1", "2"]
    for labels, shown in ((np.array(["1", "cow"]), "'cow'"), (np.array([1, 3]), "3")):
        with pytest.raises(UserError, match=rf"y: label {shown} \(row 1\) is not in the hierarchy"):
            fit_to_hierarchy(labels, numbers if shown == "3" else text, "y")
