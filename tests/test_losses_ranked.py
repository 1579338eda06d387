"""Losses that rank by shared labels (RCDH, DSRH, RMSH) against loops in numpy; degenerate batches; two encoders."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import FEATURES, QUICK, blobs, multi_hot
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fasthash import Hasher
from fasthash.losses import code_distance_bounds
from fasthash.losses.published import DSRHLoss, MultilevelTripletLoss, RankConsistencyLoss
from fasthash.losses.published.ordered_pairs import ordered_hinges
from fasthash.losses.published.rank_consistency import rank_mismatch
from fasthash.train import HashHead

B, BITS, LABELS = 11, 8, 5
RANKED: dict[str, Callable[[], nn.Module]] = {
    "dsrh": DSRHLoss,
    "multilevel_triplet": lambda: MultilevelTripletLoss(BITS, LABELS),
    "rank_consistency": lambda: RankConsistencyLoss(BITS, LABELS),
}
every_loss = pytest.mark.parametrize("name", sorted(RANKED))


def batch(seed: int = 0, rows: int = B) -> tuple[Tensor, Tensor]:
    """Outputs u float64 [rows, BITS]; label sets of no to four labels, int64 [rows, LABELS]."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(rows, BITS, generator=generator, dtype=torch.float64)
    labels = torch.zeros(rows, LABELS, dtype=torch.int64)
    for row in range(rows):
        labels[row, torch.randperm(LABELS, generator=generator)[: row % 5]] = 1
    return u.requires_grad_(), labels


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return RANKED[name]().double()


def close(found: Tensor, wanted: Any) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-8)


def numpy_sides(*outputs: Tensor) -> list[np.ndarray]:
    return [np.tanh(u.detach().numpy()) for u in outputs]


def half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a.shape[1] - a @ b.T) / 2


# Sums over pairs


def test_sums_over_pairs_are_those_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    for lists, items in ((1, 1), (4, 9), (40, 6)):  # 40: several blocks
        for margin, weighted, tied in itertools.product((0.0, 0.2), (False, True), (False, True)):
            distance = torch.rand(lists, items, generator=generator, dtype=torch.float64)
            if tied:
                distance = (4 * distance).round() / 4
            similarity = torch.randint(0, 4, (lists, items), generator=generator).double()
            counted = torch.rand(lists, items, generator=generator) < 0.8
            gain = 2**similarity if weighted else None
            distance.requires_grad_()
            sums = [torch.zeros((), dtype=torch.float64) for _ in range(lists)]
            weights = torch.zeros(lists, dtype=torch.float64)
            for q, p, n in itertools.product(range(lists), range(items), range(items)):
                if counted[q, p] and counted[q, n] and similarity[q, p] > similarity[q, n]:
                    weight = 1.0 if gain is None else gain[q, p] - gain[q, n]
                    sums[q] = sums[q] + weight * (margin + distance[q, p] - distance[q, n]).relu()
                    weights[q] += weight
            wanted = torch.stack(sums)
            found = ordered_hinges(distance, similarity, counted, margin=margin, gain=gain)
            close(found[0], wanted)
            close(found[1], weights)
            if wanted.requires_grad and not tied:
                close(*(torch.autograd.grad(each.sum(), distance)[0] for each in (found[0], wanted)))


# RCDH


def loop_mismatch(distance: np.ndarray, shared: np.ndarray, margin: float) -> float:
    rows = []
    for q in range(len(shared)):
        others = [i for i in range(len(shared)) if i != q]
        most = max(shared[q, i] for i in others)
        if most == 0:
            continue
        s = {i: shared[q, i] / most for i in others}
        shifted = {i: distance[q, i] + margin * s[i] for i in others}
        wanted = dict(zip(sorted(others, key=shifted.__getitem__), sorted(s.values(), reverse=True), strict=True))
        rows.append(sum((s[i] - wanted[i]) * shifted[i] for i in others) / sum(s.values()))
    return float(np.mean(rows)) if rows else 0.0


def test_rcdh_is_its_formula() -> None:
    u, labels = batch()
    loss = RankConsistencyLoss(BITS, LABELS, margin=0.3, rank=0.7, clustering=0.4, quantization=0.2).double()
    for step in range(3):  # the centres move
        u, labels = batch(step)
        (h,), Y = numpy_sides(u), labels.numpy()
        centres = loss.centres.numpy().copy()
        W, b = (p.detach().numpy() for p in loss.classifier.parameters())
        classified, clustered = [], []
        for row, own in zip(h, Y, strict=True):
            if own.any():
                logits = W @ row + b
                classified.append(-np.mean((logits - np.log(np.exp(logits).sum()))[own == 1]))
                clustered.append(np.mean([((row - centres[c]) ** 2).sum() for c in np.flatnonzero(own)]) / 2)
        rank = loop_mismatch(half(h, h) / BITS, Y @ Y.T, 0.3)
        wanted = 0.7 * rank + np.mean(classified) + 0.4 * np.mean(clustered) + 0.2 * np.mean((np.abs(h) - 1) ** 2)
        close(loss(u, labels), wanted)
        for c in range(LABELS):
            centres[c] -= 0.5 * ((centres[c] - h) * Y[:, c : c + 1]).sum(0) / (1 + Y[:, c].sum())
        close(loss.centres, centres)
    before = loss.centres.clone()
    loss.eval()(u, labels)
    assert torch.equal(loss.centres, before)


def ordered(distance: np.ndarray, shared: np.ndarray, margin: float) -> bool:
    """Whether s_i > s_j implies d_j - d_i >= margin (s_i - s_j) in every list."""
    for q, i, j in itertools.permutations(range(len(shared)), 3):
        most = max(shared[q, k] for k in range(len(shared)) if k != q)
        less = (shared[q, i] - shared[q, j]) / max(most, 1)
        if less > 0 and distance[q, j] - distance[q, i] < margin * less - 1e-12:
            return False
    return True


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), margin=st.sampled_from([0.0, 0.1, 0.25]), sorted_lists=st.booleans())
def test_rank_mismatch_is_zero_exactly_for_lists_in_order(seed: int, margin: float, sorted_lists: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2, 7))
    shared = rng.integers(0, 4, (rows, rows)).astype(float)
    distance = rng.integers(0, 9, (rows, rows)) / 8  # with ties
    if sorted_lists:
        most = np.where(np.eye(rows), 0, shared).max(1, keepdims=True).clip(min=1)
        slack = rng.random((rows, rows)) * (rng.random() < 0.5) * 0.01  # smaller than any step of similarity
        distance = 1 - max(margin, 0.05) * shared / most * (1 + 1e-9) + slack * max(margin, 0.05) / 4
        if rng.random() < 0.3:
            distance[rng.integers(rows)] = rng.random(rows)
    found = float(rank_mismatch(torch.from_numpy(distance), torch.from_numpy(shared), margin))
    assert found >= -1e-12
    assert (found < 1e-10) == ordered(distance, shared, margin)


def test_equal_distances_draw_the_most_similar_in() -> None:
    shared = torch.tensor([[9.0, 3.0, 2.0, 0.0]] + [[0.0] * 4] * 3, dtype=torch.float64)
    distance = torch.full((4, 4), 0.5, dtype=torch.float64, requires_grad=True)
    rank_mismatch(distance, shared, 0.25).backward()
    assert distance.grad is not None
    assert distance.grad[0, 1] > 0 > distance.grad[0, 3]
    assert not distance.grad[1:].any()


# DSRH


def test_dsrh_is_its_formula() -> None:
    for seed in range(3):
        u, labels = batch(seed)
        (h,), Y = numpy_sides(u), labels.numpy()
        distance, shared, rows = half(h, h) / BITS, Y @ Y.T, []
        for q in range(B):
            others = [i for i in range(B) if i != q]
            pairs = [(i, j) for i in others for j in others if shared[q, i] > shared[q, j]]
            weights = [2.0 ** shared[q, i] - 2.0 ** shared[q, j] for i, j in pairs]
            hinges = [max(0, 0.2 + distance[q, i] - distance[q, j]) for i, j in pairs]
            if pairs:
                rows.append(np.dot(weights, hinges) / sum(weights))
        close(DSRHLoss(margin=0.2)(u, labels), np.mean(rows))


# RMSH


def jaccard(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """-1 where one of the two has no label: such a pair is in no list."""
    return np.array([[(x & y).sum() / (x | y).sum() if x.any() and y.any() else -1 for y in b] for x in a])


def loop_triplets(
    a: np.ndarray, pool: np.ndarray, s: np.ndarray, delta: float, itself: bool, first: int = 0, step: int = 1
) -> float:
    distance = half(a, pool)
    hinges, far = [], []
    for q in range(first, len(a), step):
        items = [i for i in range(len(pool)) if s[q, i] >= 0 and (itself or i != q)]
        far += [max(0.0, delta - distance[q, i]) for i in items if s[q, i] == 0]
        hinges += [
            max(0.0, distance[q, p] - distance[q, n] + delta * (s[q, p] - s[q, n]))
            for p in items
            for n in items
            if s[q, p] > s[q, n]
        ]
    return (sum(hinges) / max(len(hinges), 1) + sum(far) / max(len(far), 1)) / a.shape[1]


def test_rmsh_is_its_formula() -> None:
    (u, labels), (v, _) = batch(), batch(1)
    (x, t), Y = numpy_sides(u, v), labels.numpy()
    loss = MultilevelTripletLoss(BITS, LABELS, delta=3.0, pairing=0.3, quantization=0.2).eval()
    s = jaccard(Y, Y)
    far = [np.mean((np.abs(h) - 1) ** 2) for h in (x, t)]
    close(loss(u, labels), loop_triplets(x, x, s, 3.0, False) + 0.2 * far[0])
    inside = [loop_triplets(x, x, s, 3.0, False, 1, 2), loop_triplets(t, t, s, 3.0, False, 0, 2)]
    across = [loop_triplets(x, t, s, 3.0, True, 0, 2), loop_triplets(t, x, s, 3.0, True, 1, 2)]
    paired = np.mean(np.diag(half(x, t))) / BITS
    wanted = np.mean(across) + 0.5 * np.mean(inside) + 0.3 * paired + 0.2 * np.mean(far)
    close(loss(u, labels, v), wanted)


def test_pseudo_codes_have_all_labels_of_the_rows_that_they_fuse(monkeypatch: pytest.MonkeyPatch) -> None:
    (u, labels), (v, _) = batch(), batch(1)
    drawn, sizes = torch.tensor([[0, 1, 2], [4, 4, 9]]), torch.tensor([[2], [3]])
    answers = iter([drawn, sizes])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(answers))
    listed = [torch.arange(B) != 9, torch.arange(B) != 2]  # 9 is in a second code, 2 drawn for the first and not used
    loss = MultilevelTripletLoss(BITS, LABELS, pseudo=2 / B)
    pools, sets, found = loss._pools([u.tanh(), v.tanh()], labels.double(), listed)
    assert [here[B:].tolist() for here in found] == [[True, False], [True, True]]
    assert torch.equal(sets[B:], torch.stack([labels[[0, 1]].amax(0), labels[[4, 9]].amax(0)]).double())
    for outputs, pool in zip((u, v), pools, strict=True):
        h = outputs.tanh().detach()
        close(pool[:B], h)
        close(pool[B], (h[0] + h[1]).sign())
        close(pool[B + 1], (2 * h[4] + h[9]).sign())
    answers = iter([torch.tensor([[3, 5, 0]]), torch.tensor([[2]])])
    h = torch.stack([torch.full((BITS,), 0.5 if row == 3 else -0.5) for row in range(B)])  # a tie of rows 3 and 5
    pools, _, _ = MultilevelTripletLoss(BITS, LABELS, pseudo=1 / B)._pools([h], labels.float(), [torch.ones(B).bool()])
    assert torch.equal(pools[0][B], torch.ones(BITS))


def test_rmsh_of_pairs_with_a_missing_side() -> None:
    (u, labels), (v, _) = batch(), batch(1)
    (x, t), Y = numpy_sides(u, v), labels.numpy()
    present = torch.ones(B, 2, dtype=torch.bool)
    present[[1, 6], 0], present[[3, 4, 7], 1] = False, False
    loss = MultilevelTripletLoss(BITS, LABELS, delta=3.0, pairing=0.3, quantization=0.2).eval()
    first, second = present.numpy().T

    def known(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(a[:, None] & b, jaccard(Y, Y), -1)

    inside = loop_triplets(x, x, known(first, first), 3.0, False, 1, 2)
    inside += loop_triplets(t, t, known(second, second), 3.0, False, 0, 2)
    across = loop_triplets(x, t, known(first, second), 3.0, True, 0, 2)
    across += loop_triplets(t, x, known(second, first), 3.0, True, 1, 2)
    paired = np.mean(np.diag(half(x, t))[first & second]) / BITS
    bits = np.mean([np.mean((np.abs(h[here]) - 1) ** 2) for h, here in ((x, first), (t, second))])
    wanted = across / 2 + 0.5 * inside / 2 + 0.3 * paired + 0.2 * bits
    nowhere = [torch.where(here[:, None], each, torch.nan) for here, each in zip(present.T, (u, v), strict=True)]
    found = loss(nowhere[0], labels, nowhere[1], present)
    close(found, wanted)
    for each, here in zip(torch.autograd.grad(found, (u, v)), present.T, strict=True):
        assert each.isfinite().all()
        assert not each[~here].any()
        assert each[here].any(1).all()
    assert loss(u, labels, v, torch.ones_like(present)) == loss(u, labels, v)
    assert loss(u, labels, v, torch.zeros_like(present)) == 0


@pytest.mark.parametrize("two", [False, True])
def test_pseudo_codes_are_compared_with(two: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (u, labels), (v, _) = batch(), batch(1)
    drawn, sizes = torch.tensor([[0, 1, 2], [4, 3, 9], [6, 8, 6]]), torch.tensor([[2], [3], [2]])
    answers = iter([drawn, sizes, drawn, sizes])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: next(answers))
    loss = MultilevelTripletLoss(BITS, LABELS, delta=3.0, pseudo=3 / B, pairing=0.0, quantization=0.0)
    sides, Y = [u.tanh(), v.tanh()], labels.numpy()
    pools, sets, _ = loss._pools(sides, labels.double(), [labels.any(1)] * 2)
    (x, t), (fused_x, fused_t) = numpy_sides(u, v), [pool.detach().numpy() for pool in pools]
    s = jaccard(Y, sets.numpy().astype(int))
    for pseudo, rows in enumerate(([0, 1], [4, 3, 9], [6, 8])):
        if not labels[rows].any(1).all():
            s[:, B + pseudo] = -1
    if two:
        inside = loop_triplets(x, x, s, 3.0, False, 1, 2) + loop_triplets(t, t, s, 3.0, False, 0, 2)
        across = loop_triplets(x, fused_t, s, 3.0, True, 0, 2) + loop_triplets(t, fused_x, s, 3.0, True, 1, 2)
        close(loss(u, labels, v), across / 2 + 0.5 * inside / 2)
    else:
        close(loss(u, labels), loop_triplets(x, fused_x, s, 3.0, False))


def test_pseudo_codes_change_the_loss_in_training_alone() -> None:
    u, labels = batch()
    loss = MultilevelTripletLoss(BITS, LABELS)
    without = MultilevelTripletLoss(BITS, LABELS, pseudo=0.0)
    torch.manual_seed(0)
    assert loss(u, labels) != without(u, labels)
    assert loss.eval()(u, labels) == without(u, labels)
    assert loss.delta == code_distance_bounds(BITS, LABELS)[0]
    assert MultilevelTripletLoss(64, LABELS, words=684).delta == code_distance_bounds(64, 684)[0]


def test_two_encoders_learn_to_find_each_other() -> None:
    torch.manual_seed(0)
    X, y = blobs(240)
    turn = torch.linalg.qr(torch.randn(FEATURES, FEATURES)).Q
    sides = torch.from_numpy(X), torch.from_numpy(X) @ turn + 0.3 * torch.randn(240, FEATURES)
    labels = torch.from_numpy(multi_hot(y))
    heads = [HashHead(FEATURES, 16, sigmoid=False) for _ in sides]
    loss = MultilevelTripletLoss(16, labels.shape[1])
    optimizer = torch.optim.AdamW([p for head in heads for p in head.parameters()], lr=2e-2)

    def same_class() -> float:
        codes = [torch.where(head.eval()(x) > 0, 1.0, -1.0) for head, x in zip(heads, sides, strict=True)]
        nearest = (codes[0] @ codes[1].T).argmax(1).numpy()
        return float((y[nearest] == y).mean())

    before = same_class()
    for _ in range(60):
        rows = torch.randint(240, (64,))
        optimizer.zero_grad()
        u, v = (head.train()(x[rows]) for head, x in zip(heads, sides, strict=True))
        loss(u, labels[rows], v).backward()
        optimizer.step()
    assert before < 0.5
    assert same_class() > 0.9


# All three


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_gradients(name: str, seed: int) -> None:
    u, labels = batch(seed)
    loss = build(name)
    loss(u, labels)  # centres are no longer 0
    loss.eval()
    assert torch.autograd.gradcheck(lambda u: loss(u, labels), u)
    if name == "multilevel_triplet":
        v, _ = batch(seed + 10)
        assert torch.autograd.gradcheck(lambda u, v: loss(u, labels, v), (u, v))


@every_loss
@pytest.mark.parametrize("two", [False, True])
def test_degenerate_batches(name: str, two: bool) -> None:
    if two and name != "multilevel_triplet":
        pytest.skip("it takes one encoder")
    u, labels = (each.detach() for each in batch())
    one, none = torch.zeros_like(labels), torch.zeros_like(labels)
    one[:, 2] = 1
    alone = torch.eye(B, dtype=torch.int64)[:, : LABELS if name == "rank_consistency" else B]
    rows = {
        "one class": (u, one),
        "no labels": (u, none),
        "no pair in common": (u, alone),
        "equal rows": (u[:1].expand(B, BITS), labels),
        "zero rows": (torch.zeros_like(u), labels),
        "some zero rows": (torch.where(torch.arange(B)[:, None] < 3, 0.0, u), labels),
        "equal zero and one class": (torch.zeros_like(u), one),
        "saturated": (100 * u, labels),
        "two rows": (u[:2], labels[:2]),
        "all alike": (u, labels[4:5].expand(B, LABELS)),
    }
    for what, (values, y) in rows.items():
        for training in (True, False):
            loss = build(name).train(training)
            given = values.clone().requires_grad_()
            value = loss(given, y, given.flip(0)) if two else loss(given, y)
            value.backward()
            assert value.isfinite(), what
            assert given.grad is not None
            assert given.grad.isfinite().all(), what
            if not values.any():
                assert not given.grad.any(), what


@every_loss
def test_integers_booleans_and_classes_are_the_same_labels(name: str) -> None:
    u, labels = batch()
    loss = build(name).eval()
    for same in (labels.bool(), labels.to(torch.uint8), 3 * labels):
        close(loss(u, same), loss(u, labels))
    y = torch.arange(B) % LABELS
    close(loss(u, torch.eye(LABELS, dtype=torch.int64)[y]), loss(u, y))


@every_loss
def test_bfloat16_autocast_ranks_in_float32(name: str) -> None:
    u, labels = batch()
    values = u.detach().float()
    loss = build(name).float().eval()
    if name == "rank_consistency":
        loss.weights["rank"] = 100.0  # the classifier is computed in bfloat16
    wanted = loss(values, labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(values, labels)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@every_loss
def test_a_run_with_multi_hot_labels_resumes_and_its_model_loads(name: str, tmp_path: Path) -> None:
    X, y = blobs()
    chosen: dict[str, Any] = {**QUICK, "loss": name}
    whole = Hasher(**chosen).fit(X, multi_hot(y))
    running = Hasher(**chosen, run_dir=tmp_path / "run")
    stopped = RuntimeError("stopped")

    def stop(*_: Any) -> Any:
        raise stopped

    with pytest.MonkeyPatch.context() as patch:
        calls = itertools.count()
        kind = type(RANKED[name]())
        forward = kind.forward
        patch.setattr(kind, "forward", lambda *a, **k: stop() if next(calls) == 12 else forward(*a, **k))
        with pytest.raises(RuntimeError, match="stopped"):
            running.fit(X, multi_hot(y))
    resumed = Hasher(**chosen, run_dir=tmp_path / "run").fit(X, multi_hot(y))
    np.testing.assert_array_equal(resumed.transform(X), whole.transform(X))
    resumed.save(tmp_path / "model.safetensors")
    loaded = Hasher.load(tmp_path / "model.safetensors")
    assert loaded.loss == name
    np.testing.assert_array_equal(loaded.encode(X), whole.encode(X))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RankConsistencyLoss(8, 0), ValueError, "RankConsistencyLoss: classes must be at least 1, got 0"),
        (lambda: RankConsistencyLoss(8, 3, margin=-1), ValueError, "RankConsistencyLoss: margin must be >= 0 and fin"),
        (lambda: RankConsistencyLoss(8, 3, rank=-1), ValueError, "RankConsistencyLoss: rank must be >= 0 and finite"),
        (
            lambda: RankConsistencyLoss(8, 3)(torch.ones(2, 8), torch.tensor([0, 3])),
            ValueError,
            "RankConsistencyLoss: classes in y must be between 0 and 2, got 0 to 3",
        ),
        (
            lambda: RankConsistencyLoss(8, 3)(torch.ones(2, 8), torch.ones(2, 4).int()),
            ValueError,
            r"RankConsistencyLoss: y must be .* multi-hot labels of shape \[2, 3\], got int32 \[2, 4\]",
        ),
        (lambda: DSRHLoss(margin="a"), TypeError, r"DSRHLoss: margin must be a number, got 'a' \(str\)"),
        (lambda: DSRHLoss()(torch.ones(2, 8), torch.ones(2, 4)), ValueError, "DSRHLoss: y must be integer class"),
        (lambda: MultilevelTripletLoss(0), ValueError, "MultilevelTripletLoss: bits must be at least 1, got 0"),
        (lambda: MultilevelTripletLoss(8, words=0), ValueError, "MultilevelTripletLoss: words must be at least 1"),
        (lambda: MultilevelTripletLoss(8, delta=-2), ValueError, "MultilevelTripletLoss: delta must be >= 0 and"),
        (
            lambda: MultilevelTripletLoss(8)(torch.ones(3, 8), torch.arange(3), torch.ones(2, 8)),
            ValueError,
            r"MultilevelTripletLoss: other must have the shape of u, \(3, 8\), got \(2, 8\)",
        ),
        (
            lambda: MultilevelTripletLoss(8)(torch.ones(3, 8), torch.arange(3), torch.ones(3, 8), torch.ones(3, 2)),
            ValueError,
            r"MultilevelTripletLoss: present must be boolean of shape \[3, 2\], got float32 \[3, 2\]",
        ),
        (
            lambda: MultilevelTripletLoss(8)(torch.ones(3, 8), torch.arange(3), [1.0]),
            TypeError,
            "MultilevelTripletLoss: u must be a tensor, got list",
        ),
    ],
)
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
