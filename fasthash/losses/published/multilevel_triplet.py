"""RMSH: triplets whose margin grows with the difference in similarity, for one encoder or two modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from fasthash._arguments import number, whole
from fasthash._arrays import dtype_name
from fasthash.losses.published.code_distance import code_distance_bounds
from fasthash.losses.published.ordered_pairs import ordered_hinges
from fasthash.losses.published.outputs import (
    check_outputs,
    check_sizes,
    half_distances,
    label_rows,
    shared_labels,
    signs,
)

INSIDE = 0.5  # weight of lists inside a modality, beside those across
FUSED = (2, 3)  # rows of a pseudo-code


class MultilevelTripletLoss(nn.Module):
    """(L_tri + L_far) / K + pairing L_pair / K + quantization mean (|h| - 1)^2, h = tanh u, K bits.

    forward(u [B, D] outputs, y, other=None, present=None) -> scalar; y: multi-hot labels, integers or booleans [B, L],
    or classes [B]. other [B, D]: outputs of a second encoder, row i of which belongs to row i of u and has the same
    labels. present, boolean [B, 2]: which rows of u and of other there are; None: all. What a row that is not there
    holds does not count, in no term.

    - s: Jaccard similarity of two label sets, in [0, 1]. d_ij = (K - h_i . h_j) / 2, in bits.
    - L_tri: mean over triplets (a, p, n) with s_ap > s_an of relu(d_ap - d_an + delta (s_ap - s_an)).
    - L_far: mean over pairs with s_an = 0 of relu(delta - d_an).
    - A row without a label is in none of these: nothing is known of what it is like.
    - With two encoders anchors are of one modality, p and n of the other: the mean of both ways, and with weight 0.5
      the mean of both modalities by themselves. To bound the cost each output is an anchor once: even rows of u and odd
      rows of other across, the rest inside. L_pair = mean_i d(h_i, h'_i). With one encoder there is no L_pair.
    - Pseudo-codes, in training mode: pseudo B times, two or three random rows are fused to the sign of the sum of their
      h (in a tie that of the first), with all their labels. They join the p and n, without a gradient: their label sets
      are ones that training rarely shows. Each modality fuses its own outputs of the same rows, which with two encoders
      join the lists across. A code that a missing row, or one without a label, would be part of is left out.

    delta: None for the Gilbert-Varshamov distance of K bits and `words` words; words: how many label sets the training
    data has, None for `classes`.

    Source: Song, Zhao, Tan & Yang, "Deep robust multilevel semantic cross-modal hashing", Pattern Recognition 2021
    (arXiv 2002.02698). How sure: there is no public code. The abstract names the margin-adaptive triplet loss, the
    bound on the distance of dissimilar points from coding theory, and pseudo-codes by fusing codes. Every formula here
    is ours, and so are all weights, Jaccard, and the bound that is used; the bound itself is textbook.

    >>> loss = MultilevelTripletLoss(64, classes=150)
    >>> u, y = torch.randn(4, 64), torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]])
    >>> loss.delta, loss(u, y).shape, loss(u, y, torch.randn(4, 64)).shape
    (22.0, torch.Size([]), torch.Size([]))
    """

    def __init__(
        self,
        bits: int,
        classes: int = 2,
        *,
        words: int | None = None,
        delta: float | None = None,
        pseudo: float = 0.5,
        pairing: float = 0.1,
        quantization: float = 0.01,
    ) -> None:
        super().__init__()
        check_sizes("MultilevelTripletLoss", bits=bits, classes=classes)
        words = classes if words is None else whole(words, "MultilevelTripletLoss", "words", 1)
        bound = code_distance_bounds(bits, words)[0] if delta is None else delta
        self.delta = number(bound, "MultilevelTripletLoss", "delta", least=0)
        self.pseudo = number(pseudo, "MultilevelTripletLoss", "pseudo", least=0)
        self.pairing = number(pairing, "MultilevelTripletLoss", "pairing", least=0)
        self.quantization = number(quantization, "MultilevelTripletLoss", "quantization", least=0)

    def forward(
        self, u: Tensor, y: Tensor | None = None, other: Tensor | None = None, present: Tensor | None = None
    ) -> Tensor:
        u = check_outputs("MultilevelTripletLoss", u)
        labels = label_rows("MultilevelTripletLoss", y, len(u)).to(u.dtype)
        outputs = [u]
        if other is not None:
            outputs.append(check_outputs("MultilevelTripletLoss", other))
            if other.shape != u.shape:
                raise ValueError(
                    f"MultilevelTripletLoss: other must have the shape of u, {tuple(u.shape)}, got {tuple(other.shape)}"
                )
        there = _there(present, outputs)
        sides = [torch.where(here[:, None], each, 0.0).tanh() for here, each in zip(there, outputs, strict=True)]
        listed = [here & labels.any(1) for here in there]
        pools, sets, found = self._pools(sides, labels, listed)
        similarity = jaccard(labels, sets)
        itself = torch.zeros_like(similarity, dtype=torch.bool)
        itself.fill_diagonal_(True)

        def lists(side: int, pool: int, rows: slice, items: int | None = None) -> Tensor:
            counted = listed[side][:, None] & found[pool]
            if side == pool:
                counted = counted & ~itself
            return self._lists(sides[side][rows], pools[pool][:items], similarity[rows, :items], counted[rows, :items])

        if other is None:
            total = lists(0, 0, slice(None))
        else:
            even, odd = slice(0, None, 2), slice(1, None, 2)
            across = lists(0, 1, even) + lists(1, 0, odd)
            inside = lists(0, 0, odd, len(u)) + lists(1, 1, even, len(u))
            paired = _mean((1 - (sides[0] * sides[1]).mean(1)) / 2, there[0] & there[1])
            total = (across + INSIDE * inside) / 2 + self.pairing * paired
        unlike_bits = [_mean((h.abs() - 1).square().mean(1), here) for h, here in zip(sides, there, strict=True)]
        return total + self.quantization * torch.stack(unlike_bits).mean()

    def _pools(
        self, sides: list[Tensor], labels: Tensor, listed: list[Tensor]
    ) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Candidates for p and n: codes of each modality [B + P, D], label sets [B + P, L], which count [B + P]."""
        rows = len(labels)
        count = round(self.pseudo * rows) if self.training else 0
        if not count:
            return sides, labels, listed
        drawn = torch.randint(rows, (count, max(FUSED)), device=labels.device)
        used = torch.arange(max(FUSED), device=labels.device) < torch.randint(
            min(FUSED), max(FUSED) + 1, (count, 1), device=labels.device
        )
        pools = []
        for h in sides:
            sums = (h.detach()[drawn] * used[:, :, None]).sum(1)
            pools.append(torch.cat([h, signs(torch.where(sums == 0, h.detach()[drawn[:, 0]], sums))]))
        fused = (labels[drawn] * used[:, :, None]).amax(1)
        found = [torch.cat([here, (here[drawn] | ~used).all(1)]) for here in listed]
        return pools, torch.cat([labels, fused]), found

    def _lists(self, anchors: Tensor, pool: Tensor, similarity: Tensor, counted: Tensor) -> Tensor:
        """(L_tri + L_far) / K of anchors [B, D] and what they are compared with [M, D]."""
        distance = half_distances(anchors, pool)
        found, triplets = ordered_hinges(distance + self.delta * similarity, similarity, counted)
        unlike = counted & (similarity == 0)
        far = (relu(self.delta - distance) * unlike).sum() / unlike.sum().clamp(min=1)
        return (found.sum() / triplets.sum().clamp(min=1) + far) / anchors.shape[1]


def _there(present: Tensor | None, outputs: list[Tensor]) -> list[Tensor]:
    """Which outputs of each encoder exist, boolean [B]."""
    rows = len(outputs[0])
    if present is None:
        return [torch.ones(rows, dtype=torch.bool, device=outputs[0].device)] * len(outputs)
    if not isinstance(present, Tensor) or present.dtype != torch.bool or present.shape != (rows, 2):
        got = f"{dtype_name(present)} {list(present.shape)}" if isinstance(present, Tensor) else type(present).__name__
        raise ValueError(f"MultilevelTripletLoss: present must be boolean of shape [{rows}, 2], got {got}")
    return list(present.unbind(1))[: len(outputs)]


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values [B] that count; 0 where none does."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def jaccard(a: Tensor, b: Tensor) -> Tensor:
    """Similarity of label sets [B, L] and [M, L] of 0 and 1: in common / in either, [B, M]; 0 for two empty sets.

    >>> jaccard(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    tensor([[0.5000, 0.0000, 1.0000]])
    """
    common = shared_labels(a, b)
    return common / (a.sum(1)[:, None] + b.sum(1) - common).clamp(min=1)
