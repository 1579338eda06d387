"""The losses of other papers against their formulas written out, their gradients, and Hasher(loss=...)."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import NAMES, QUICK, blobs, hierarchy, multi_hot
from torch import Tensor, nn

from fasthash import Hasher
from fasthash.evaluate import code_statistics
from fasthash.losses import published
from fasthash.losses.published import (
    LOSSES,
    MULTILABEL,
    BiHalfLoss,
    ContrastiveLoss,
    CSQLoss,
    GreedyHashLoss,
    HashNetLoss,
    HierarchicalContrastiveLoss,
    HPDHLoss,
    OrthoHashLoss,
    SDCLoss,
    SignCrossEntropyLoss,
)
from fasthash.losses.published.outputs import hadamard_centres
from fasthash.metrics import mean_average_precision

LEVELS = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
B, BITS, CLASSES = 10, 8, 4


def outputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs u float64 [B, BITS], classes y [B], features [B, 5]."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(B, BITS, generator=generator, dtype=torch.float64)
    return u.requires_grad_(), torch.arange(B) % CLASSES, torch.randn(B, 5, generator=generator, dtype=torch.float64)


def build(name: str) -> nn.Module:
    """The loss, given those of bits, classes and levels that its constructor has parameters for."""
    known: dict[str, Any] = {"bits": BITS, "classes": CLASSES, "levels": LEVELS}
    wanted = inspect.signature(LOSSES[name].__init__).parameters
    return LOSSES[name](**{key: value for key, value in known.items() if key in wanted}).double()


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    return torch.stack([row.exp().sum().log() - row[c] for row, c in zip(logits, y, strict=True)]).mean()


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T) / a.norm(dim=1)[:, None] / b.norm(dim=1)


def close(found: Tensor, wanted: Tensor | float) -> None:
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_every_loss_is_exported_and_has_a_name() -> None:
    classes = {loss.__name__ for loss in LOSSES.values()}
    assert set(published.__all__) == {"LOSSES", "MULTILABEL", "MeanLoss"} | classes
    assert all(getattr(published, name) in LOSSES.values() for name in classes)


def test_cross_entropy_is_its_formula() -> None:
    u, y, _ = outputs()
    loss = SignCrossEntropyLoss(BITS, CLASSES).double()
    close(loss(u, y), cross_entropy(u @ loss.classifier.weight.T + loss.classifier.bias, y))


def test_greedyhash_is_its_formula() -> None:
    u, y, _ = outputs()
    loss = GreedyHashLoss(BITS, CLASSES, weight=0.3).double()
    codes = torch.where(u > 0, 1.0, -1.0).double()
    far = sum(abs(abs(v) - 1) ** 3 for v in u.flatten().tolist()) / u.numel()
    close(loss(u, y), cross_entropy(codes @ loss.classifier.weight.T, y) + 0.3 * far)
    loss = GreedyHashLoss(BITS, CLASSES, weight=0.0).double()  # the gradient of u is that of the codes
    (gradient,) = torch.autograd.grad(loss(u, y), u)
    codes.requires_grad_()
    (wanted,) = torch.autograd.grad(cross_entropy(codes @ loss.classifier.weight.T, y), codes)
    close(gradient, wanted)


def test_csq_is_its_formula() -> None:
    u, y, _ = outputs()
    loss = CSQLoss(BITS, CLASSES, weight=0.2).double()
    p, t = (u.tanh() + 1) / 2, (loss.centres[y] + 1) / 2
    entropy = -(t * p.log() + (1 - t) * (1 - p).log()).mean()
    close(loss(u, y), entropy + 0.2 * ((u.tanh().abs() - 1) ** 2).mean())


@pytest.mark.parametrize(("classes", "bits"), [(8, 8), (16, 8), (5, 64)])
def test_centres_from_hadamard_are_half_the_bits_apart(classes: int, bits: int) -> None:
    centres = hadamard_centres(classes, bits, both_signs=True)
    different = (centres[:, None] != centres).sum(-1) + bits * torch.eye(classes, dtype=torch.int64)
    assert centres.shape == (classes, bits)
    assert int(different.min()) >= bits // 2


def test_centres_are_random_where_hadamard_has_too_few() -> None:
    balanced = hadamard_centres(17, 8, both_signs=True)
    assert (balanced.sum(1) == 0).all()
    assert len(torch.unique(balanced, dim=0)) > 10
    free = hadamard_centres(9, 8, both_signs=False, seed=1)
    assert set(free.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(free, hadamard_centres(9, 8, both_signs=False))


def test_orthohash_is_its_formula() -> None:
    u, y, _ = outputs()
    loss = OrthoHashLoss(BITS, CLASSES, scale=5.0, margin=0.3).double()
    logits = cosines(u, loss.centres.double())
    logits = 5.0 * (logits - 0.3 * torch.eye(CLASSES, dtype=torch.float64)[y])
    close(loss(u, y), cross_entropy(logits, y))


def test_hashnet_is_its_formula_and_remembers() -> None:
    u, y, _ = outputs()
    loss = HashNetLoss(BITS, memory=15, gamma=0.5).double()

    def expected(u: Tensor, others: Tensor, same: Tensor, counted: Tensor, beta: float) -> Tensor:
        x = 10 / BITS * (beta * u).tanh() @ others.T
        terms = (1 + x.exp()).log() - same * x
        like, unlike = same & counted, ~same & counted
        pairs = counted.sum()
        return (terms[like].mean() + terms[unlike].mean()) * pairs / pairs

    same, off = y[:, None] == y, ~torch.eye(B, dtype=torch.bool)
    close(loss(u, y), expected(u, u.tanh(), same, off, 1.0))
    close(loss.outputs[:B], u.detach().tanh())
    later, _, _ = outputs(1)
    beta = math.sqrt(1.5)
    others = torch.cat([(beta * later).tanh(), loss.outputs[:B]])
    counted = torch.cat([off, torch.ones(B, B, dtype=torch.bool)], 1)
    close(loss(later, y), expected(later, others, torch.cat([same, same], 1), counted, beta))
    kept = loss.outputs.clone()
    loss.eval()(u, y)
    assert torch.equal(kept, loss.outputs)
    assert int(loss.steps) == 2


def test_hashnet_and_contrastive_take_pairs() -> None:
    u, y, _ = outputs()
    same = y[:, None] == y
    close(HashNetLoss(BITS, memory=0).double()(u, same), HashNetLoss(BITS, memory=0).double()(u, y))
    close(ContrastiveLoss()(u, same), ContrastiveLoss()(u, y))


def test_bihalf_is_its_formula() -> None:
    u, y, features = outputs()
    codes = torch.full_like(u, -1.0)
    for bit in range(BITS):
        codes[u[:, bit].argsort(descending=True)[: B // 2], bit] = 1.0
    left, right = cosines(codes, codes), cosines(features, features)
    wanted = sum((left[i, i + B // 2] - right[i, i + B // 2]) ** 2 for i in range(B // 2)) / (B // 2)
    loss = BiHalfLoss(BITS)
    close(loss(u, features), wanted.detach())
    classified = BiHalfLoss(BITS, CLASSES, gamma=2.0).double()
    assert classified.classifier is not None
    close(classified(u, y), cross_entropy(codes @ classified.classifier.weight.T, y))
    (gradient,) = torch.autograd.grad(classified(u, y), u)
    codes = codes.detach().requires_grad_()
    (straight,) = torch.autograd.grad(cross_entropy(codes @ classified.classifier.weight.T, y), codes)
    close(gradient, straight + 2.0 * (u - codes).detach() / u.numel())


def test_sdc_is_its_formula() -> None:
    stats = pytest.importorskip("scipy.stats")
    u, _, features = outputs()
    i, j = torch.triu_indices(B, B, offset=1)
    order = cosines(features, features)[i, j].argsort()
    n = len(order)
    quantiles = 2 * stats.beta.ppf((2 * np.arange(1, n + 1) - 1) / (2 * n), 3.0, 2.0) - 1
    wanted = (cosines(u, u)[i, j][order] - torch.from_numpy(quantiles)).abs().mean()
    torch.testing.assert_close(SDCLoss(a=3.0, b=2.0)(u, features), wanted, rtol=1e-6, atol=1e-6)


def test_hpdh_is_its_formula() -> None:
    u, y, _ = outputs()
    loss = HPDHLoss(BITS, LEVELS).double()
    fine = torch.stack([u[y == c].mean(0) for c in range(CLASSES)]).detach()
    coarse = torch.stack([fine[:2].mean(0), fine[2:].mean(0)])
    terms = cross_entropy(-0.5 * (u[:, None] - fine).square().sum(-1), y)
    terms = terms + cross_entropy(-0.25 * (u[:, None] - coarse).square().sum(-1), LEVELS[1][y])
    outside = 10 * (u.abs() - 1.1).clamp(min=0).sum(1) + 0.1 * (torch.sign(u) - u).square().sum(1)
    close(loss(u, y), terms + outside.mean() / BITS)
    close(loss.centres, fine)
    later, _, _ = outputs(1)
    loss(later[:2], y[:2])  # centres of the classes that are there move by a tenth of the way
    close(loss.centres[0], 0.9 * fine[0] + 0.1 * later[0].detach())
    close(loss.centres[2], fine[2])


def test_contrastive_is_its_formula() -> None:
    u, y, features = outputs()

    def expected(positive: Tensor, temperature: float) -> Tensor:
        x = (cosines(u, u) / temperature).exp()
        rows = []
        for i in range(B):
            others = [j for j in range(B) if j != i]
            chosen = [j for j in others if positive[i, j]]
            if chosen:
                rows.append(-sum((x[i, j] / x[i, others].sum()).log() for j in chosen) / len(chosen))
        return torch.stack(rows).mean()

    close(ContrastiveLoss(temperature=0.2)(u, y), expected(y[:, None] == y, 0.2))
    lonely = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    close(ContrastiveLoss()(u, lonely), expected(lonely[:, None] == lonely, 0.1))
    near = cosines(features, features).fill_diagonal_(-9).argmax(1)
    close(ContrastiveLoss()(u, features), expected(torch.arange(B) == near[:, None], 0.1))
    levels = [expected(level[y][:, None] == level[y], 0.1) for level in LEVELS]
    close(HierarchicalContrastiveLoss(LEVELS)(u, y), (levels[0] + levels[1] / 2) / 1.5)
    close(HierarchicalContrastiveLoss(LEVELS, weights=[0.0, 3.0])(u, y), levels[1])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_in_every_type(name: str) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        u, y, features = outputs()
        values = u.detach().to(dtype).requires_grad_()
        loss = build(name).to(torch.float64 if dtype == torch.float64 else torch.float32)
        value = loss(values, features.to(dtype) if name == "sdc" else y)
        value.backward()
        assert values.grad is not None
        assert bool(values.grad.isfinite().all())
        assert bool(values.grad.any())
        assert value.shape == ()
        assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for parameter in loss.parameters():
            assert parameter.grad is not None
            assert bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"greedyhash", "bihalf"}))  # theirs are not of their value
def test_gradients_are_those_of_the_value(name: str) -> None:
    u, y, features = outputs()
    loss = build(name)
    loss(u, features if name == "sdc" else y)  # a first batch, so that running centres are there
    loss.eval()
    assert torch.autograd.gradcheck(lambda u: loss(u, features if name == "sdc" else y), u)


@pytest.mark.parametrize("name", LOSSES)
def test_hasher_learns_with_it(name: str) -> None:
    X, y = blobs(480)
    query, query_y = blobs(120, seed=1)
    settings: dict[str, Any] = {**QUICK, "bits": 32, "epochs": 8, "loss": name}
    if name == "sdc":
        hasher = Hasher(**settings).fit(X)
    else:
        hasher = Hasher(hierarchy=hierarchy(), **settings).fit(X, NAMES[y], validation=(query, NAMES[query_y]))
        assert hasher.history_.losses[-1] < hasher.history_.losses[0]
    outputs = hasher.transform(query)
    assert outputs.min() >= 0
    assert outputs.max() <= 1
    found = mean_average_precision(hasher.encode(query), hasher.encode(X), query_y, y)
    random = mean_average_precision(np.zeros((120, 1), np.uint8), np.zeros((480, 1), np.uint8), query_y, y)
    assert found > random + (0.3 if name == "sdc" else 0.5)


@pytest.mark.parametrize("name", ["bihalf", "contrastive", "sdc"])
def test_losses_from_embeddings_alone(name: str) -> None:
    X, _ = blobs()
    codes = Hasher(**QUICK, loss=name).fit(X).encode(X)
    assert code_statistics(codes)["codes"] > 20


def test_a_loss_of_ones_own(tmp_path: Path) -> None:
    class Balanced(nn.Module):
        def forward(self, u: Tensor, y: Tensor) -> Tensor:
            return ContrastiveLoss()(u, y) + u.mean(0).square().sum()

    X, y = blobs()
    own = Balanced()
    hasher = Hasher(**QUICK, loss=own).fit(X, y)
    hasher.save(tmp_path / "model.safetensors")
    loaded = Hasher.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.encode(X), hasher.encode(X))
    assert loaded.loss == "Balanced"
    with pytest.raises(ValueError, match=r"Hasher.fit: loss must be a module or one of bce, .*, got 'Balanced'"):
        loaded.fit(X, y)
    given = SignCrossEntropyLoss(QUICK["bits"], 6)
    before = given.classifier.weight.clone()
    Hasher(**QUICK, loss=given).fit(X, y)
    assert torch.equal(before, given.classifier.weight)  # a copy was trained


def test_saved_by_name_is_the_whole_recipe(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, loss="csq").fit(X, y)
    hasher.save(tmp_path / "model.safetensors")
    loaded = Hasher.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), hasher.transform(X))
    np.testing.assert_array_equal(loaded.fit(X, y).transform(X), hasher.transform(X))


@pytest.mark.parametrize(
    ("loss", "y", "error", "message"),
    [
        ("hash", "labels", ValueError, "Hasher.fit: loss must be a module or one of bce, .*, got 'hash'"),
        (3, "labels", TypeError, "Hasher.fit: loss must be a name, a module or None, got int"),
        *[
            (
                name,
                "multilabel",
                ValueError,
                f"Hasher.fit: loss '{name}' needs {'embeddings' if name == 'sdc' else 'class labels'} y, got target "
                r"'multilabel' \(multi-hot labels are for bce, contrastive, .*, rank_consistency\)",
            )
            for name in sorted(set(LOSSES) - MULTILABEL)
        ],
        ("hpdh", None, ValueError, "Hasher.fit: loss 'hpdh' needs class labels y, got target 'embedding'"),
        (
            "sdc",
            "labels",
            ValueError,
            r"SDCLoss: y must be floating-point embeddings of shape \[48, E\], got",
        ),
    ],
)
def test_hasher_refuses(loss: Any, y: str | None, error: type[Exception], message: str) -> None:
    X, labels = blobs()
    targets = {"labels": labels, "multilabel": multi_hot(labels), None: None}[y]
    with pytest.raises(error, match=message):
        Hasher(**QUICK, loss=loss).fit(X, targets)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CSQLoss(0, 3), ValueError, "CSQLoss: bits must be at least 1, got 0"),
        (lambda: OrthoHashLoss(8, 0), ValueError, "OrthoHashLoss: classes must be at least 1, got 0"),
        (lambda: HashNetLoss(8, memory=-1), ValueError, "HashNetLoss: memory must be at least 0, got -1"),
        (lambda: SDCLoss(a=0.5), ValueError, "SDCLoss: a must be >= 1 and finite, got 0.5"),
        (lambda: BiHalfLoss(8, -1), ValueError, "BiHalfLoss: classes must be at least 0, got -1"),
        (lambda: CSQLoss(8.0, 3), TypeError, r"CSQLoss: bits must be an integer, got 8.0 \(float\)"),
        (lambda: HPDHLoss(8, [[0, 1]]), ValueError, r"HPDHLoss: levels must be integers \[L, C\], got list"),
        (lambda: HPDHLoss(8, torch.zeros(3)), ValueError, r"HPDHLoss: levels must be integers \[L, C\], got"),
        (
            lambda: ContrastiveLoss(temperature=0),
            ValueError,
            "ContrastiveLoss: temperature must be > 0 and finite, got 0",
        ),
        (
            lambda: HierarchicalContrastiveLoss(LEVELS, weights=[1.0]),
            ValueError,
            "HierarchicalContrastiveLoss: weights must be 2 numbers >= 0, not all 0, got",
        ),
        (
            lambda: HierarchicalContrastiveLoss(LEVELS, temperature=-1.0),
            ValueError,
            "HierarchicalContrastiveLoss: temperature must be > 0 and finite, got -1.0",
        ),
        (
            lambda: HierarchicalContrastiveLoss(LEVELS[0]),
            ValueError,
            r"HierarchicalContrastiveLoss: levels must be integers \[L, C\], got",
        ),
        (lambda: CSQLoss(8, 3)([1.0], None), TypeError, "CSQLoss: u must be a tensor, got list"),
        (lambda: CSQLoss(8, 3)(torch.ones(2, 8).int(), None), TypeError, "CSQLoss: u must be floating point, got"),
        (lambda: CSQLoss(8, 3)(torch.ones(1, 8), None), ValueError, r"CSQLoss: u must have shape \[B, D\] with B >= 2"),
        (
            lambda: CSQLoss(8, 3)(torch.ones(2, 8), None),
            ValueError,
            r"CSQLoss: y must be .* labels of shape \[2\] or multi-hot labels of shape \[2, 3\], got NoneType",
        ),
    ],
)
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
