"""RCDH, rank-consistency deep hashing: each row's list of the others in the order of their shared labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from fasthash._arguments import number
from fasthash.losses.published.outputs import check_outputs, check_sizes, half_distances, label_rows, shared_labels


class RankConsistencyLoss(nn.Module):
    """rank L_RC + L_CE + clustering L_CL + quantization mean (|h| - 1)^2, h = tanh u, K bits.

    forward(u [B, D] outputs, y) -> scalar; y: multi-hot labels, integers or booleans [B, classes], or classes [B].

    - L_RC: row q ranks the others i by d'_qi = (K - h_q . h_i) / 2 K + margin s_qi, s_qi = shared labels / the most in
      q's list. t_qi is the similarity that i's rank should have: the k-th largest of s_q at rank k. L_RC = mean_q sum_i
      (s_qi - t_qi) d'_qi / sum_i s_qi, s and t constants. It is never below 0, and 0 exactly where s_qi > s_qj implies
      that d_qj - d_qi, in bits, is at least K margin (s_qi - s_qj). Rows that share no label with others do not count.
    - L_CE = -mean_i sum_c (y_ic / |y_i|) log softmax_c(W h_i + b), over the rows with labels.
    - L_CL = mean_i sum_{c in Y_i} |h_i - v_c|^2 / 2 |Y_i|, over the rows with labels. In training mode the centres v_c
      then move: v_c -= sum_i y_ic (v_c - h_i) / 2 (1 + sum_i y_ic). They are a buffer and begin at 0.

    Source: Ma, Lu & Zhou, "Rank-consistency deep hashing for scalable multi-label image retrieval", IEEE Transactions
    on Multimedia 2021 (arXiv 2102.01486). How sure: there is no public code. The abstract names a rank list with global
    supervision that penalises samples whose similarity and Hamming distance do not match, a multi-label softmax
    cross-entropy and a multi-label clustering loss. Every formula here is ours: L_RC; L_CE (likely, since its
    derivative p - y / |y| is as concise as the abstract says); L_CL with the centres of centre loss (Wen et al. 2016);
    the last term, the margin and all weights.

    >>> loss = RankConsistencyLoss(16, classes=3)
    >>> loss(torch.randn(4, 16), torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]])).shape
    torch.Size([])
    """

    centres: Tensor

    def __init__(
        self,
        bits: int,
        classes: int,
        *,
        margin: float = 0.25,
        rank: float = 1.0,
        clustering: float = 0.01,
        quantization: float = 0.01,
    ) -> None:
        super().__init__()
        check_sizes("RankConsistencyLoss", bits=bits, classes=classes)
        self.margin = number(margin, "RankConsistencyLoss", "margin", least=0)
        given = {"rank": rank, "clustering": clustering, "quantization": quantization}
        self.weights = {name: number(weight, "RankConsistencyLoss", name, least=0) for name, weight in given.items()}
        self.classifier = nn.Linear(bits, classes).float()
        self.register_buffer("centres", torch.zeros(classes, bits, dtype=torch.float32))

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        terms = self.terms(u, y)
        total = terms["classification"]
        for name, weight in self.weights.items():
            total = total + weight * terms[name]
        return total

    def terms(self, u: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """The terms "rank", "classification", "clustering" and "quantization", before they are weighted."""
        u = check_outputs("RankConsistencyLoss", u)
        h, labels = u.tanh(), label_rows("RankConsistencyLoss", y, len(u), len(self.centres)).to(u.dtype)
        share = labels / labels.sum(1, keepdim=True).clamp(min=1)
        rows = share.sum().clamp(min=1)  # that have labels
        centres = self.centres.to(h.dtype)
        # |h - v|^2 for each label, without a [B, classes, D] intermediate
        apart = h.square().sum(1) * share.sum(1) - 2 * (h * (share @ centres)).sum(1) + share @ centres.square().sum(1)
        terms = {
            "rank": rank_mismatch(half_distances(h, h) / h.shape[1], shared_labels(labels), self.margin),
            "classification": -(share * log_softmax(self.classifier(h), 1)).sum() / rows,
            "clustering": apart.sum() / (2 * rows),
            "quantization": (h.abs() - 1).square().mean(),
        }
        if self.training:
            self._move_centres(h.detach(), labels)
        return terms

    def _move_centres(self, h: Tensor, labels: Tensor) -> None:
        count = labels.sum(0)[:, None]
        centres = self.centres.to(h.dtype)
        self.centres.copy_(centres - (count * centres - labels.T @ h) / (2 * (1 + count)))


def rank_mismatch(distance: Tensor, shared: Tensor, margin: float) -> Tensor:
    """L_RC (see `RankConsistencyLoss`) of distances [B, B] in [0, 1] and shared labels [B, B]; no diagonal counts.

    >>> near = torch.tensor([[0.0, 0.2, 0.9], [0.2, 0.0, 0.9], [0.9, 0.9, 0.0]])
    >>> alike = torch.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
    >>> rank_mismatch(near, alike, margin=0.25), rank_mismatch(1 - near, alike, margin=0.25) > 0
    (tensor(0.), tensor(True))
    """
    diagonal = torch.eye(len(shared), dtype=torch.bool, device=shared.device)
    others = shared.masked_fill(diagonal, 0.0)
    most = others.amax(1, keepdim=True)
    similarity = others / most.clamp(min=1)
    shifted = distance + margin * similarity
    order = shifted.detach().masked_fill(diagonal, torch.inf).argsort(dim=1, stable=True)  # a row itself is last
    wanted = similarity.masked_fill(diagonal, -1.0).sort(dim=1, descending=True).values
    mismatch = (similarity - torch.zeros_like(similarity).scatter(1, order, wanted)).masked_fill(diagonal, 0.0)
    rows = (mismatch * shifted).sum(1) / similarity.sum(1).clamp(min=1)  # the sum is 0, or at least 1
    return rows.sum() / (most > 0).sum().clamp(min=1)
