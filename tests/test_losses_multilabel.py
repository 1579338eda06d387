"""Published losses of multi-hot labels against their formulas written out, and the refusals of those of one class."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs, multi_hot
from torch import Tensor, nn

from fasthash import Hasher
from fasthash.losses.published import LOSSES, MULTILABEL, CSQLoss, OrthoHashLoss, SignBinaryCrossEntropyLoss
from fasthash.metrics import mean_average_precision

B, BITS, CLASSES = 12, 8, 5
LEVELS = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 1, 1, 1]])


def batch() -> tuple[Tensor, Tensor]:
    """Outputs u float64 [B, BITS]; labels int64 [B, CLASSES] of one to three labels, and two rows of none."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(B, BITS, generator=generator, dtype=torch.float64)
    labels = torch.zeros(B, CLASSES, dtype=torch.int64)
    for row in range(B):
        labels[row, torch.randperm(CLASSES, generator=generator)[: 1 + row % 3]] = 1
    labels[[2, 7]] = 0
    return u.requires_grad_(), labels


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    known: dict[str, Any] = {"bits": BITS, "classes": CLASSES, "levels": LEVELS}
    wanted = inspect.signature(LOSSES[name].__init__).parameters
    return LOSSES[name](**{key: value for key, value in known.items() if key in wanted}).double()


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["contrastive", "hashnet"])
def test_pairs_are_alike_that_have_a_label_in_common(name: str) -> None:
    u, labels = batch()
    shared = torch.tensor([[bool((a * b).any()) for b in labels] for a in labels])
    close(build(name)(u, labels), build(name)(u, shared))


def test_csq_draws_to_the_centre_that_most_labels_vote_for() -> None:
    u, labels = batch()
    loss = CSQLoss(BITS, CLASSES, weight=0.2).double()
    rows = []
    for output, row in zip(u, labels, strict=True):
        if not row.any():
            continue
        votes = loss.centres[row.bool()].sum(0)
        centre = torch.stack([loss.ties[d] if votes[d] == 0 else votes[d].sign() for d in range(BITS)])
        p, t = (output.tanh() + 1) / 2, (centre + 1) / 2
        rows.append(-(t * p.log() + (1 - t) * (1 - p).log()).mean())
    assert any(bool((loss.centres[row.bool()].sum(0) == 0).any()) for row in labels if row.any())  # there are ties
    assert set(loss.ties.tolist()) == {-1.0, 1.0}
    close(loss(u, labels), torch.stack(rows).mean() + 0.2 * ((u.tanh().abs() - 1) ** 2).mean())
    assert "ties" not in loss.state_dict()  # files from before still load
    assert torch.equal(loss.ties.float(), CSQLoss(BITS, CLASSES).ties)


def test_orthohash_shares_its_target_among_the_labels() -> None:
    u, labels = batch()
    loss = OrthoHashLoss(BITS, CLASSES, scale=5.0, margin=0.3).double()
    rows = []
    for output, row in zip(u, labels, strict=True):
        if not row.any():
            continue
        cosines = torch.stack([output @ centre / output.norm() / centre.norm() for centre in loss.centres])
        logits = 5.0 * (cosines - 0.3 * row)
        logs = logits - logits.exp().sum().log()
        rows.append(-logs[row.bool()].mean())
    close(loss(u, labels), torch.stack(rows).mean())


def test_bce_is_its_formula() -> None:
    u, labels = batch()
    loss = SignBinaryCrossEntropyLoss(BITS, CLASSES).double()
    p = torch.sigmoid(u @ loss.classifier.weight.T + loss.classifier.bias)
    close(loss(u, labels), -torch.where(labels > 0, p.log(), (1 - p).log()).sum() / B)


@pytest.mark.parametrize("name", sorted(MULTILABEL))
def test_one_label_for_each_row_is_a_class(name: str) -> None:
    u, _ = batch()
    y = torch.arange(B) % CLASSES
    one = torch.eye(CLASSES, dtype=torch.int64)[y]
    for labels in (one, one.bool(), one.to(torch.uint8), 3 * one):
        close(build(name)(u, labels), build(name)(u, y))


@pytest.mark.parametrize("name", sorted(MULTILABEL))
def test_gradients(name: str) -> None:
    u, labels = batch()
    loss = build(name).eval()
    assert torch.autograd.gradcheck(lambda u: loss(u, labels), u)
    (gradient,) = torch.autograd.grad(loss(u, torch.zeros_like(labels)), u)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"sdc"}))
def test_one_column_is_classes(name: str) -> None:
    u, _ = batch()
    y = torch.arange(B) % CLASSES
    close(build(name)(u, y[:, None]), build(name)(u, y))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - MULTILABEL - {"sdc"}))
def test_formulas_of_one_class_refuse(name: str) -> None:
    u, labels = batch()
    message = (
        rf"^{LOSSES[name].__name__}: y must be integer class labels of shape \[{B}\], since its formula takes one "
        rf"class for each row, got int64 \[{B}, {CLASSES}\]"
    )
    with pytest.raises(ValueError, match=message):
        build(name)(u, labels)


@pytest.mark.parametrize("name", ["csq", "orthohash"])
def test_another_number_of_labels_is_refused(name: str) -> None:
    u, labels = batch()
    start = rf"^{LOSSES[name].__name__}: y must be .* or multi-hot labels of shape \[{B}, {CLASSES}\], got"
    with pytest.raises(ValueError, match=rf"{start} int64 \[{B}, 4\]"):
        build(name)(u, labels[:, :4])
    with pytest.raises(ValueError, match=rf"{start} float64 \[{B}, {CLASSES}\]"):
        build(name)(u, labels.double())


@pytest.mark.parametrize("name", sorted(MULTILABEL))
def test_hasher_learns_with_multi_hot_labels(name: str) -> None:
    X, y = blobs(480)
    query, query_y = blobs(120, seed=1)
    settings: dict[str, Any] = {**QUICK, "bits": 32, "epochs": 8, "loss": name}
    hasher = Hasher(**settings).fit(X, multi_hot(y))
    labels = multi_hot(query_y), multi_hot(y)
    found = mean_average_precision(hasher.encode(query), hasher.encode(X), *labels)
    random = mean_average_precision(np.zeros((120, 1), np.uint8), np.zeros((480, 1), np.uint8), *labels)
    assert found > random + 0.4
