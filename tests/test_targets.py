import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fasthash
from fasthash.hierarchy import Hierarchy
from fasthash.targets import (
    class_distances,
    class_levels,
    embedding_distances,
    label_distances,
    multilabel_distances,
    shared_label_distances,
)
from fasthash.train import fit_parts


def test_class_distances_come_from_the_hierarchy():
    h = Hierarchy.from_nested({"animal": ["dog", "cat"], "car": None})
    matrix = class_distances(["dog", "cat", "car"], h)
    assert matrix.dtype == torch.float32
    assert matrix.tolist() == [[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]]
    assert class_distances(np.array([5, 7])).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="label 'cow' is not in the hierarchy"):
        class_distances(["cow"], h)
    with pytest.raises(ValueError, match="class_distances: classes must differ, got 3 of which 2 are different"):
        class_distances(["a", "b", "a"])


@pytest.mark.parametrize("make", [np.array, torch.tensor])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_label_distances_look_up_the_matrix(make, dtype):
    matrix = np.array([[0.0, 0.25, 1.0], [0.25, 0.0, 0.5], [1.0, 0.5, 0.0]])
    y = make([2, 0, 2, 1], dtype=getattr(torch if make is torch.tensor else np, dtype))
    found = label_distances(y, make(matrix))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert found.tolist() == [[0, 1, 0, 0.5], [1, 0, 1, 0.25], [0, 1, 0, 0.5], [0.5, 0.25, 0.5, 0]]
    assert label_distances(y).tolist() == [[0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]


def test_label_distances_of_nothing():
    assert label_distances(torch.zeros(0, dtype=torch.int64)).shape == (0, 0)
    assert label_distances(torch.zeros(0, dtype=torch.int64), torch.eye(2)).shape == (0, 0)


@given(st.integers(0, 2**32 - 1))
def test_multilabel_distances_equal_the_formula(seed):
    Y = np.random.default_rng(seed).random((7, 5)) < 0.4
    found = multilabel_distances(Y)
    assert found.dtype == torch.float32
    assert found.shape == (7, 7)
    for i, a in enumerate(Y):
        for j, b in enumerate(Y):
            if i == j:
                expected = 0.0
            elif a.any() and b.any():
                expected = 1 - (a & b).sum() / math.sqrt(a.sum() * b.sum())
            else:
                expected = 1.0
            assert found[i, j].item() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(found, multilabel_distances(torch.from_numpy(Y).int() * torch.tensor([1, 2, 3, 4, 5])))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_shared_label_distances_equal_the_formula(seed):
    Y = np.random.default_rng(seed).random((7, 5)) < 0.4
    found = shared_label_distances(Y)
    assert found.dtype == torch.float32
    assert not torch.diagonal(found).any()
    for i, a in enumerate(Y):
        most = max((a & b).sum() for j, b in enumerate(Y) if j != i)
        for j, b in enumerate(Y):
            if i != j:
                assert found[i, j].item() == pytest.approx(1 - (a & b).sum() / max(most, 1), abs=1e-6)
    assert torch.equal(found, shared_label_distances(torch.from_numpy(Y).int() * torch.tensor([1, 2, 3, 4, 5])))
    assert shared_label_distances(Y[:0]).shape == (0, 0)
    assert shared_label_distances(Y[:, :0]).sum() == 42  # no label at all: nobody is near


def test_hasher_learns_several_labels_by_how_many_are_shared(monkeypatch):
    seen = []
    monkeypatch.setattr(fit_parts, "shared_label_distances", lambda Y: seen.append(Y) or shared_label_distances(Y))
    X, Y = np.random.default_rng(0).normal(size=(40, 6)), np.random.default_rng(1).integers(0, 2, (40, 3))
    fasthash.Hasher(8, epochs=1, similarity="stress").fit(X, Y)
    assert not seen  # its distances have to be symmetric
    fasthash.Hasher(8, epochs=1).fit(X, Y)
    assert seen


def test_embedding_distances_equal_cosine():
    E = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    E[3] = 0
    found = embedding_distances(E.requires_grad_())
    expected = 1 - torch.nn.functional.cosine_similarity(E[:, None], E, dim=-1)
    expected = expected.detach().fill_diagonal_(0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not found.requires_grad
    assert (found[3, :3] == 1).all()
    assert found.min() >= 0
    assert found.max() <= 2
    torch.testing.assert_close(embedding_distances(E.detach().numpy()), found)
    half = embedding_distances(E.detach().bfloat16())
    assert half.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(embedding_distances(E), found)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: label_distances(torch.zeros(2, 2).long()),
            ValueError,
            r"label_distances: y must have shape \[B\], got \[2, 2\]",
        ),
        (
            lambda: label_distances(torch.zeros(2)),
            TypeError,
            "label_distances: y must hold integer labels, got float32",
        ),
        (lambda: label_distances(torch.tensor([1j])), TypeError, "y must hold integer labels, got complex64"),
        (lambda: label_distances(["a"]), TypeError, "label_distances: y must be a numeric array"),
        (lambda: label_distances([0, 3], torch.eye(3)), ValueError, "labels must be between 0 and 2, got 0 to 3"),
        (lambda: label_distances([-1, 2], torch.eye(3)), ValueError, "labels must be between 0 and 2, got -1 to 2"),
        (lambda: label_distances([0], torch.ones(3, 2)), ValueError, r"matrix must have shape \[C, C\], got \[3, 2\]"),
        (
            lambda: multilabel_distances([0, 1]),
            ValueError,
            r"multilabel_distances: Y must have shape \[B, L\], got \[2\]",
        ),
        (
            lambda: shared_label_distances([0, 1]),
            ValueError,
            r"shared_label_distances: Y must have shape \[B, L\], got \[2\]",
        ),
        (
            lambda: embedding_distances(torch.zeros(2)),
            ValueError,
            r"embedding_distances: E must have shape \[B, D\], got \[2\]",
        ),
        (
            lambda: embedding_distances([[1, 2]]),
            TypeError,
            "embedding_distances: E must be floating point, got int64",
        ),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_class_levels_are_the_heights_of_a_tree() -> None:
    edges = [("root", "a"), ("root", "b"), ("a", "c"), ("c", 0), ("c", 1), ("a", "d"), ("d", 2), ("b", "e"), ("e", 3)]
    distances = class_distances([0, 1, 2, 3], Hierarchy.from_edges(edges))
    assert class_levels(distances).tolist() == [[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1]]
    assert class_levels(distances, limit=2).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert class_levels(distances, limit=1).tolist() == [[0, 1, 2, 3]]
    assert class_levels(1.0 - torch.eye(3)).tolist() == [[0, 1, 2]]  # no hierarchy: one level
    with pytest.raises(ValueError, match=r"class_levels: distances must have shape \[C, C\], got \[2, 3\]"):
        class_levels(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="class_levels: limit must be at least 1, got 0"):
        class_levels(distances, limit=0)
