"""The loss of TextHasher: its formula and gradient against enumeration of all codes, and what is in no pair."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from fasthash.train.bernoulli_vae import PairwiseHashingLoss, _distances

BITS = 2


def parts(y: Tensor, gradient: str = "gumbel", **weights: float) -> tuple[PairwiseHashingLoss, Tensor, Tensor]:
    """A loss over 6 rows of 4 words and 2 bits, its outputs and its bags; row 2 has no words."""
    torch.manual_seed(0)
    classes = int(y.max()) + 1 if y.dim() == 1 else y.shape[1]
    loss = PairwiseHashingLoss(bits=BITS, words=4, hidden=2, classes=max(classes, 0), gradient=gradient, **weights)
    bags = torch.tensor([[1, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 0], [3, 1, 0, 0], [0, 0, 0, 5], [1, 1, 1, 1]]).float()
    return loss.double(), torch.randn(6, BITS + 2, dtype=torch.float64).requires_grad_(), bags.double().to_sparse()


def written_out(loss: PairwiseHashingLoss, outputs: Tensor, bags: Tensor, y: Tensor, bits: Tensor) -> Tensor:
    """The formula of the docstring row by row, at given bits, with each hinge once for a pair (i, j)."""
    phi, hidden, total = outputs[:, :BITS], outputs[:, BITS:], torch.zeros((), dtype=torch.float64)
    p, words = phi.sigmoid(), bags.to_dense()
    for i in range(6):
        if words[i].sum():
            total = total - (words[i] / words[i].sum() * loss.decoder(bits[i]).log_softmax(0)).sum()
        total = total + loss.kl * (p[i] * (2 * p[i]).log() + (1 - p[i]) * (2 * (1 - p[i])).log()).sum()
        if y[i] >= 0 and loss.classifier is not None:
            total = total - loss.classification * loss.classifier(hidden[i]).log_softmax(0)[y[i]]
        for j in range(6):
            if i != j and y[i] >= 0 and y[j] >= 0:
                mean = (p[i] * (1 - p[j]) + p[j] * (1 - p[i])).sum()
                apart = (bits[i] - bits[j]).abs().sum()
                total = total + loss.pair / BITS * (mean if y[i] == y[j] else (BITS / 3 - apart).clamp(min=0))
    return total / 6


@pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (2.0, 3.0, 0.5)], ids=str)
def test_mean_gradient_is_that_of_the_formula(weights: tuple[float, float, float]) -> None:
    """Of the outputs and of all weights, by enumeration of all codes of the three rows whose bits are not certain."""
    y = torch.tensor([0, 1, 0, -1, -1, -1])
    pair, classification, kl = weights
    loss, outputs, bags = parts(y, "disarm", pair=pair, classification=classification, kl=kl)
    with torch.no_grad():
        outputs[3:, :BITS] = torch.tensor([[20.0, -20], [-20, 20], [20, 20]])
    wanted = torch.zeros((), dtype=torch.float64)
    p = outputs[:3, :BITS].sigmoid()
    for code in itertools.product([0.0, 1.0], repeat=3 * BITS):
        bits = torch.tensor(code, dtype=torch.float64).view(3, BITS)
        chance = torch.where(bits == 1, p, 1 - p).prod()
        every = torch.cat([bits, (outputs[3:, :BITS] > 0).double()])
        wanted = wanted + chance * written_out(loss, outputs, bags, y, every)
    variables = [outputs, *loss.parameters()]
    exact = torch.autograd.grad(wanted, variables)
    draws = 400
    losses = [loss(outputs, bags, y) for _ in range(draws)]
    found = [torch.autograd.grad(each, variables) for each in losses]
    values = torch.stack(losses).detach()
    assert abs(float(values.mean() - wanted.detach())) <= 4 * float(values.std()) / draws**0.5 + 1e-7
    for gradient, each in zip(exact, zip(*found, strict=True), strict=True):
        drawn = torch.stack(each)
        error = (drawn.mean(0) - gradient).abs()
        assert bool((error <= 4 * drawn.std(0) / draws**0.5 + 1e-7).all())


def test_mean_distance_of_same_class_pairs_is_that_of_draws() -> None:
    p = torch.rand(5, 7, dtype=torch.float64)
    bits = (torch.rand(40_000, 5, 7) < p).double()
    apart = (bits[:, :, None] - bits[:, None]).abs().sum(-1)
    off = ~torch.eye(5, dtype=torch.bool)
    error = (apart.mean(0) - _distances(p, p)).abs()
    assert bool((error <= 4 * apart.std(0) / 40_000**0.5)[off].all())


def test_rows_without_a_label_are_in_no_pair() -> None:
    y = torch.tensor([0, 1, 0, -1, 1, 2])
    loss, outputs, bags = parts(y, pair=5.0, classification=2.0, kl=0.0)
    loss.decoder.weight.data.zero_()
    (gradient,) = torch.autograd.grad(loss(outputs, bags, y), outputs)
    assert not gradient[3].any()
    assert gradient[0].any()
    hot = torch.zeros(6, 3, dtype=torch.uint8)
    hot[y >= 0, y[y >= 0]] = 1
    torch.manual_seed(1)
    (several,) = torch.autograd.grad(loss(outputs, bags, hot), outputs)
    assert not several[3].any()
    torch.manual_seed(1)
    (single,) = torch.autograd.grad(loss(outputs, bags, y), outputs)
    torch.testing.assert_close(several[:, :BITS], single[:, :BITS])  # pairs are the same
