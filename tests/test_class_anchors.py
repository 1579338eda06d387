"""Class Anchor Margin, the bounds of code distances that its margin is from, and the search in two stages."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import NAMES, QUICK, blobs
from torch import Tensor

from fasthash import HammingIndex, Hasher, hamming_topk
from fasthash.index import AnchorIndex
from fasthash.losses import code_distance_bounds
from fasthash.losses.published import ClassAnchorMarginLoss
from fasthash.losses.published.outputs import hadamard_centres

# The bounds


def best_distance(bits: int, words: int) -> int:
    """The largest minimum distance of `words` codes, by trying all sets (with 0 in it, which is no restriction)."""
    best = 0
    for rest in itertools.combinations_with_replacement(range(2**bits), words - 1):
        pairs = itertools.combinations((0, *rest), 2)
        best = max(best, min((a ^ b).bit_count() for a, b in pairs))
    return best


@pytest.mark.parametrize(
    ("bits", "words"), [(b, w) for b in (1, 2, 3, 4) for w in (2, 3, 4)] + [(5, 3), (5, 4), (2, 5)]
)
def test_bounds_hold_for_the_best_code(bits: int, words: int) -> None:
    lower, upper = code_distance_bounds(bits, words)
    assert lower <= best_distance(bits, words) <= upper


@pytest.mark.parametrize(
    ("bits", "words", "bounds"),
    [
        (64, 150, (22, 32)),
        (16, 10, (5, 8)),
        (128, 24, (54, 66)),
        (32, 150, (9, 16)),
        (128, 10_000, (43, 64)),
        (7, 16, (2, 3)),  # the Hamming code has 3
        (8, 1, (8, 8)),
        (3, 8, (1, 1)),
        (3, 9, (0, 0)),
    ],
)
def test_bounds_by_hand(bits: int, words: int, bounds: tuple[int, int]) -> None:
    assert code_distance_bounds(bits, words) == bounds


def test_bounds_are_consistent_and_monotone() -> None:
    table = {(k, m): code_distance_bounds(k, m) for k in range(1, 40) for m in range(1, 80)}
    for (bits, words), (lower, upper) in table.items():
        assert 0 <= lower <= upper <= bits
        for larger, sign in (((bits + 1, words), 1), ((bits, words + 1), -1)):
            if larger in table:
                assert all(sign * (b - a) >= 0 for a, b in zip((lower, upper), table[larger], strict=True))


@pytest.mark.parametrize(("classes", "bits"), [(8, 8), (16, 8), (64, 32), (128, 64), (256, 128)])
def test_centres_from_hadamard_are_between_the_bounds(classes: int, bits: int) -> None:
    centres = hadamard_centres(classes, bits, both_signs=True)
    distance = int((torch.pdist(centres, p=1) / 2).min())
    lower, upper = code_distance_bounds(bits, classes)
    assert lower <= distance <= upper


def test_bounds_of_large_codes_are_exact_integers() -> None:
    lower, upper = code_distance_bounds(20_000, 2**4000 + 1)
    assert 0 < lower <= upper < 10_000
    assert code_distance_bounds(20_000, 2**20_000) == (1, 2)
    assert code_distance_bounds(20_000, 2**20_000 + 1) == (0, 0)


# The loss


def written_out(u: Tensor, y: Tensor, c: Tensor, margin: float, norm: float) -> Tensor:
    attract = torch.stack([(row - c[k]).square().sum() for row, k in zip(u, y.tolist(), strict=True)]).mean() / 2
    pairs = list(itertools.permutations(range(len(c)), 2))
    repel = sum(max(margin - (c[a] - c[b]).norm(), 0) ** 2 for a, b in pairs) / max(len(pairs), 1) / 2
    return attract + repel + sum(max(norm - row.norm(), 0) ** 2 for row in c) / len(c) / 2


def case(bits: int = 8, classes: int = 4) -> tuple[ClassAnchorMarginLoss, Tensor, Tensor]:
    torch.manual_seed(0)
    loss = ClassAnchorMarginLoss(bits, classes).double()
    with torch.no_grad():
        loss.anchors.mul_(0.6).add_(0.2 * torch.randn(classes, bits, dtype=torch.float64))
    return loss, torch.randn(10, bits, dtype=torch.float64, requires_grad=True), torch.arange(10) % classes


@pytest.mark.parametrize("classes", [1, 2, 4, 7])
def test_loss_is_its_formula(classes: int) -> None:
    loss, u, y = case(classes=classes)
    wanted = written_out(u, y, loss.anchors, loss.margin, loss.norm)
    torch.testing.assert_close(loss(u, y), wanted)
    assert loss.norm == 8**0.5
    assert loss.margin == 2 * code_distance_bounds(8, classes)[0] ** 0.5


def test_gradients_of_outputs_and_anchors() -> None:
    loss, u, y = case()

    def value(u: Tensor, anchors: Tensor) -> Tensor:
        return torch.func.functional_call(loss, {"anchors": anchors}, (u, y))

    assert torch.autograd.gradcheck(value, (u, loss.anchors.detach().requires_grad_()))


def test_anchors_begin_as_rows_of_hadamard() -> None:
    anchors = ClassAnchorMarginLoss(64, 150).anchors
    assert set(anchors.unique().tolist()) == {-1.0, 1.0}
    first = ClassAnchorMarginLoss(64, 128)
    assert float(torch.pdist(first.anchors.detach()).min()) == pytest.approx(2 * 32**0.5)
    codes = first.codes().numpy()
    assert codes.shape == (128, 8)
    assert ((np.unpackbits(codes, axis=1) == 1) == (first.anchors > 0).numpy()).all()


@pytest.mark.parametrize(
    ("u", "y", "classes"),
    [
        (torch.randn(6, 8), torch.zeros(6, dtype=torch.int64), 1),  # one class
        (torch.randn(6, 8), torch.zeros(6, dtype=torch.int64), 4),  # one class of four in the batch
        (torch.ones(6, 8), torch.arange(6) % 4, 4),  # equal rows
        (torch.zeros(6, 8), torch.arange(6) % 4, 4),  # zero rows
        (torch.randn(4, 8), torch.arange(4), 4),  # no positive pair
        (torch.randn(6, 1), torch.arange(6), 6),  # anchors that coincide
    ],
)
def test_degenerate_batches_are_finite(u: Tensor, y: Tensor, classes: int) -> None:
    loss, u = ClassAnchorMarginLoss(u.shape[1], classes), u.clone().requires_grad_()
    value = loss(u, y)
    value.backward()
    assert u.grad is not None
    assert loss.anchors.grad is not None
    assert bool(value.isfinite())
    assert bool(u.grad.isfinite().all())
    assert bool(loss.anchors.grad.isfinite().all())


def test_zero_anchors_are_finite() -> None:
    loss, u, y = case()
    with torch.no_grad():
        loss.anchors.zero_()
    loss(u, y).backward()
    assert loss.anchors.grad is not None
    assert bool(loss.anchors.grad.isfinite().all())


def learned(**settings: float) -> ClassAnchorMarginLoss:
    """A plain loop: a linear network, whose outputs the attractor may shrink."""
    X, y = blobs()
    x, labels = torch.from_numpy(X), torch.from_numpy(y)
    torch.manual_seed(0)
    network, loss = torch.nn.Linear(x.shape[1], 16), ClassAnchorMarginLoss(16, 6, **settings)
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        loss(network(x), labels).backward()
        optimizer.step()
    return loss


def test_anchors_collapse_without_the_repeller() -> None:
    def apart(**settings: float) -> float:
        return float(torch.pdist(learned(**settings).anchors.detach()).mean())

    whole = apart()
    assert whole > 2 * code_distance_bounds(16, 6)[0] ** 0.5 - 0.5
    assert apart(repel=0.0) < 0.1 * whole
    assert apart(repel=0.0, min_norm=0.0) < 0.1 * whole  # the centre loss


def test_hasher_saves_loads_and_goes_on(tmp_path: Path) -> None:
    X, y = blobs()
    settings = {**QUICK, "loss": "class_anchor_margin", "progress": False}
    whole = Hasher(**settings).fit(X, NAMES[y])
    assert isinstance(whole.loss_, ClassAnchorMarginLoss)
    assert not torch.equal(whole.loss_.anchors, ClassAnchorMarginLoss(16, 6).anchors)  # the trained copy
    whole.save(tmp_path / "model.safetensors")
    loaded = Hasher.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), whole.transform(X))
    assert loaded.loss_ is None
    np.testing.assert_array_equal(loaded.fit(X, NAMES[y]).transform(X), whole.transform(X))

    class Stopped(Exception):
        pass

    class Stops(ClassAnchorMarginLoss):
        steps, last = 0, 12

        def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
            type(self).steps += 1
            if type(self).steps == self.last:
                raise Stopped
            return super().forward(u, y)

    torch.manual_seed(0)
    run = {**settings, "loss": Stops(16, 6), "run_dir": tmp_path / "run"}
    with pytest.raises(Stopped):
        Hasher(**run).fit(X, NAMES[y])
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    resumed = Hasher(**run).fit(X, NAMES[y])
    assert Stops.steps == 12 + 10  # 5 steps an epoch: two epochs were done
    np.testing.assert_array_equal(resumed.transform(X), whole.transform(X))
    assert isinstance(resumed.loss_, ClassAnchorMarginLoss)
    assert torch.equal(resumed.loss_.anchors, whole.loss_.anchors)


# The search in two stages


def codes_of(seed: int, number: int, width: int = 2) -> np.ndarray:
    """Codes of few different bytes, so that many distances tie and many codes are the same."""
    return np.random.default_rng(seed).choice(np.array([0, 1, 3, 7, 255], np.uint8), (number, width))


def rows_of(seed: int, number: int) -> np.ndarray:
    """Rows of few different values: ties and duplicates too."""
    return np.random.default_rng(seed).integers(-1, 2, (number, 3)).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, 60, 75])
@pytest.mark.parametrize("anchors", [1, 5, 40])
def test_all_anchors_probed_is_the_exhaustive_search(k: int, anchors: int) -> None:
    items, queries, own = codes_of(0, 60), codes_of(1, 9), np.random.default_rng(2).permutation(200)[:60]
    exhaustive = HammingIndex(16)
    exhaustive.add(items, own)
    wanted = exhaustive.search(queries, k)
    for index in (AnchorIndex(codes_of(3, anchors), items, own), AnchorIndex(codes_of(3, anchors), exhaustive)):
        found = index.search(queries, k, probes=anchors)
        for here, there in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(here, there)
            assert here.dtype == there.dtype
    if k <= 60:
        plain = AnchorIndex(codes_of(3, anchors), items).search(queries, k, probes=anchors)
        for here, there in zip(plain, hamming_topk(queries, items, k), strict=True):
            np.testing.assert_array_equal(here, there)


def test_weights_and_padding_of_an_index_are_kept() -> None:
    index = HammingIndex(12, bit_weights=[(4, 3), (8, 1)])
    items, queries, anchors = (codes_of(seed, 40) & np.array([255, 240], np.uint8) for seed in (0, 1, 2))
    index.add(items)
    for here, there in zip(AnchorIndex(anchors, index).search(queries, 50, 40), index.search(queries, 50), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 7, 60, 75])
def test_all_anchors_probed_is_the_exhaustive_search_of_rows(k: int, dtype: type) -> None:
    items, queries, own = rows_of(0, 60).astype(dtype), rows_of(1, 9), np.random.default_rng(2).permutation(200)[:60]
    found = AnchorIndex(rows_of(3, 8), items, own).search(queries, k, probes=8)
    distances = np.sqrt(np.square(queries[:, None].astype(dtype) - items).sum(2))
    order = np.stack([np.lexsort((own, row)) for row in distances])[:, :k]
    wanted = np.pad(own[order], [(0, 0), (0, max(0, k - 60))], constant_values=-1)
    np.testing.assert_array_equal(found.ids, wanted)
    np.testing.assert_allclose(found.distances[:, :60], np.take_along_axis(distances, order, 1), rtol=1e-6)
    assert np.isinf(found.distances[:, 60:]).all()
    assert found.distances.dtype == dtype
    one = AnchorIndex(rows_of(3, 1), items, own).search(queries, k)  # one list: the exhaustive search itself
    np.testing.assert_array_equal(one.distances, found.distances)


def test_few_probes_search_the_lists_of_the_nearest_anchors() -> None:
    items, queries, anchors = codes_of(0, 60), codes_of(1, 9), codes_of(3, 6)
    index = AnchorIndex(anchors, items)
    np.testing.assert_array_equal(index.assigned, hamming_topk(items, anchors, 1).ids[:, 0])  # ties: the first
    np.testing.assert_array_equal(index.sizes, np.bincount(index.assigned, minlength=6))
    for probes in range(1, 7):
        nearest = index.nearest_anchors(queries, probes)
        np.testing.assert_array_equal(nearest, hamming_topk(queries, anchors, probes).ids)
        found = index.search(queries, 60, probes)
        for query, chosen in enumerate(nearest):
            listed = np.flatnonzero(np.isin(index.assigned, chosen))
            wanted = hamming_topk(queries[query : query + 1], items[listed], len(listed)) if len(listed) else None
            ids = found.ids[query][found.ids[query] >= 0]
            np.testing.assert_array_equal(ids, [] if wanted is None else listed[wanted.ids[0]])
            assert (found.distances[query, len(ids) :] == 17).all()


def test_tensors_in_tensors_out_and_no_items() -> None:
    index = AnchorIndex(torch.from_numpy(codes_of(3, 6)), torch.empty(0, 2, dtype=torch.uint8))
    found = index.search(torch.from_numpy(codes_of(1, 2)), 3)
    assert found.ids.tolist() == [[-1] * 3] * 2
    assert found.distances.tolist() == [[17] * 3] * 2
    assert len(index) == 0
    assert repr(index) == "AnchorIndex(6 anchors, 0 codes)"
    assert AnchorIndex(rows_of(0, 2), rows_of(1, 5)).search(rows_of(2, 0), 3).ids.shape == (0, 3)


CODES, ROWS = codes_of(0, 4), rows_of(0, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: code_distance_bounds(0, 3),
            ValueError,
            "code_distance_bounds: bits must be between 1 and 65536, got 0",
        ),
        (lambda: code_distance_bounds(8, 0), ValueError, "code_distance_bounds: words must be at least 1, got 0"),
        (lambda: code_distance_bounds(8, 2.0), TypeError, "code_distance_bounds: words must be an integer, got 2.0"),
        (lambda: ClassAnchorMarginLoss(8, 0), ValueError, "ClassAnchorMarginLoss: classes must be at least 1, got 0"),
        (
            lambda: ClassAnchorMarginLoss(8, 3, margin=-1),
            ValueError,
            "ClassAnchorMarginLoss: margin must be >= 0 and finite, got -1",
        ),
        (
            lambda: ClassAnchorMarginLoss(8, 3)(torch.ones(2, 9), torch.zeros(2).long()),
            ValueError,
            "ClassAnchorMarginLoss: u must have 8 columns, one for each bit, got 9",
        ),
        (
            lambda: ClassAnchorMarginLoss(8, 3)(torch.ones(2, 8), torch.tensor([0, 3])),
            ValueError,
            r"ClassAnchorMarginLoss: y must be in 0\.\.2, got 0\.\.3",
        ),
        (lambda: AnchorIndex(CODES[:0], CODES), ValueError, r"AnchorIndex: anchors must have shape .*, got \[0, 2\]"),
        (lambda: AnchorIndex(CODES, CODES[0]), ValueError, r"AnchorIndex: items must have shape .*, got \[2\]"),
        (
            lambda: AnchorIndex(CODES[:, :1], CODES),
            ValueError,
            "AnchorIndex: anchors and items must have the same number of columns, got 1 and 2",
        ),
        (
            lambda: AnchorIndex(ROWS, CODES),
            TypeError,
            "AnchorIndex: anchors must be packed codes uint8, as items are, got float32",
        ),
        (
            lambda: AnchorIndex(CODES, ROWS),
            TypeError,
            "AnchorIndex: anchors must be floating-point rows, as items are, got uint8",
        ),
        (
            lambda: AnchorIndex(CODES, CODES.astype(int)),
            TypeError,
            "AnchorIndex: items must be uint8 codes or floating-point rows, got int64",
        ),
        (
            lambda: AnchorIndex(CODES, HammingIndex(16), [1]),
            ValueError,
            "AnchorIndex: ids must be None for a HammingIndex",
        ),
        *[
            (lambda kind=kind, ids=ids: AnchorIndex(kind, kind, ids), error, f"^AnchorIndex: {message}")
            for kind in (CODES, ROWS)
            for ids, error, message in (
                ([1], ValueError, "4 items need 4 ids, got 1"),
                ([1, 2, 2, 3], ValueError, "ids must be distinct, got 2 more than once"),
                ([1, 2, -2, 3], ValueError, r"ids must be between 0 and 2\*\*63 - 1, got -2"),
                ([1.0, 2.0, 3.0, 4.0], TypeError, "ids must be integers, got float64"),
            )
        ],
        (
            lambda: AnchorIndex(CODES | 1, HammingIndex(12)),
            ValueError,
            "AnchorIndex: anchors must have zeros in the 4 padding bits after bit 12, got others in 4 of 4 rows",
        ),
        (
            lambda: AnchorIndex(CODES & 240, HammingIndex(12)).search(CODES | 1, 1),
            ValueError,
            "AnchorIndex.search: queries must have zeros in the 4 padding bits after bit 12",
        ),
        (
            lambda: AnchorIndex(ROWS, ROWS).nearest_anchors(ROWS * np.nan),
            ValueError,
            "AnchorIndex.nearest_anchors: queries must be finite",
        ),
        (lambda: AnchorIndex(ROWS, ROWS * np.nan), ValueError, "AnchorIndex: anchors and items must be finite"),
        (
            lambda: AnchorIndex(CODES, CODES).search(CODES, 1, probes=5),
            ValueError,
            r"AnchorIndex.search: probes must be between 1 and 4 \(the number of anchors\), got 5",
        ),
        (lambda: AnchorIndex(CODES, CODES).search(CODES, 0), ValueError, "AnchorIndex.search: k must be between 1 and"),
        (
            lambda: AnchorIndex(CODES, CODES).search(CODES[:, :1], 1),
            ValueError,
            r"AnchorIndex.search: queries must have shape \[Q, 2\], got \[4, 1\]",
        ),
        (
            lambda: AnchorIndex(CODES, CODES).nearest_anchors(CODES.astype(np.float32)),
            TypeError,
            "AnchorIndex.nearest_anchors: queries must be packed codes uint8, as items are, got float32",
        ),
        (
            lambda: AnchorIndex(ROWS, ROWS).search(ROWS * np.nan, 1),
            ValueError,
            "AnchorIndex.search: queries must be finite",
        ),
    ],
)
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
