"""The network of `TextHasher` and its loss: bits that say which words a text has, and which texts share a label."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, embedding_bag, logsigmoid, relu

from fasthash.gradients import ESTIMATORS
from fasthash.train.encoder import Dropout

TINY = 1e-300
DRAWS = 8  # of bits, for the hinge: they cost little beside the network


class TextEncoder(nn.Module):
    """Bags of words, sparse [B, V] -> s(phi) [B, K], the probabilities of the bits: a bit is on above 1/2.

    Values are multiplied by `idf` [V], and each row is brought to length 1 (an empty one stays 0). Hidden layers have
    batch norm, ReLU and dropout. In training the outputs are [B, K + H]: the logits phi, and the last hidden layer,
    which the classifier of the loss reads.

    >>> bags = torch.eye(4).to_sparse()
    >>> TextEncoder(torch.ones(4), 8, hidden=(16,)).eval()(bags).shape
    torch.Size([4, 8])
    """

    idf: Tensor

    def __init__(self, idf: Tensor, bits: int, *, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("idf", idf)
        self.words = nn.Parameter(torch.empty(len(idf), hidden[0]).normal_(0, 0.1))
        layers: list[nn.Module] = [nn.BatchNorm1d(hidden[0]), nn.ReLU(), Dropout(dropout)]
        for before, after in itertools.pairwise(hidden):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU(), Dropout(dropout)]
        self.hidden = nn.Sequential(*layers)
        self.logits = nn.Linear(hidden[-1], bits)

    def forward(self, bags: Tensor) -> Tensor:
        (row, word), rows = bags.indices(), torch.arange(bags.shape[0], device=bags.device)
        weights = bags.values().double() * self.idf[word]  # squares of what float32 holds, large or small
        lengths = torch.zeros_like(rows, dtype=weights.dtype).index_add(0, row, weights.square()).sqrt()
        weights = (weights / lengths[row].clamp(min=TINY)).to(self.words)
        starts = torch.searchsorted(row.contiguous(), rows)
        hidden = self.hidden(embedding_bag(word, self.words, starts, mode="sum", per_sample_weights=weights))
        phi: Tensor = self.logits(hidden)
        return torch.cat([phi, hidden], 1) if self.training else phi.sigmoid()


class PairwiseHashingLoss(nn.Module):
    """forward(outputs [B, K + H] of `TextEncoder`, bags [B, V] sparse, y) -> scalar: a mean over the rows of

        Rec_i + kl KL_i + pair Pair_i + classification CE_i

        Rec_i  = - sum_v w_iv log softmax(decoder(b_i))_v        w: share of word v in the text
        KL_i   = K log 2 + sum_k [p log p + (1 - p) log(1 - p)]  p = s(phi), from Bernoulli(1/2)
        Pair_i = 1/K sum_j [M_ij D_ij + (1 - M_ij) relu(K/3 - D_ij)]    D: Hamming distance, M: same class
        CE_i   = cross-entropy of a linear classifier on the last hidden layer

    b are drawn bits. Rec and the hinge of Pair are sampled, with the gradient of `ESTIMATORS[gradient]`: Rec by one
    draw, the hinge by the mean of 8. KL and the mean of D over draws, sum_k [p_ik (1 - p_jk) + p_jk (1 - p_ik)], are
    exact. For the bits of row i the estimator compares Rec_i and the pairs of i: the other rows' costs do not depend on
    them.

    y: classes int64 [B], -1 for a row without a label; or multi-hot [B, C], a row of zeros has none. Same class: at
    least one label in common. Rows without a label are in no pair and not classified.

    Source: Dadaneh et al., "Pairwise supervised hashing with Bernoulli variational auto-encoder and self-control
    gradient estimator", UAI 2020. How sure: Rec, KL, Pair and the margin K/3 restated from public code of another
    paper's authors (SSB-VAE, its class PSH_GS), as is CE, of which it is not known whether the paper has it. ARM is
    the paper's estimator: from memory, high. Ours: the exact mean of D, 8 draws, the costs of a row alone, rows
    without a label, one label in common, and means over rows with a weight for each term.

    >>> loss = PairwiseHashingLoss(bits=8, words=5, hidden=4, classes=2)
    >>> loss(torch.randn(6, 12), torch.rand(6, 5).to_sparse(), torch.arange(6) % 2).shape
    torch.Size([])
    """

    def __init__(
        self,
        *,
        bits: int,
        words: int,
        hidden: int,
        classes: int = 0,
        pair: float = 1.0,
        classification: float = 1.0,
        kl: float = 1 / 64,
        gradient: str = "disarm",
    ) -> None:
        super().__init__()
        self.bits, self.pair, self.kl, self.classification = bits, pair, kl, classification
        self.decoder = nn.Linear(bits, words)
        self.classifier = nn.Linear(hidden, classes) if classes and classification else None
        self.estimate = ESTIMATORS[gradient]

    def forward(self, outputs: Tensor, bags: Tensor, y: Tensor) -> Tensor:
        phi, hidden = outputs[:, : self.bits], outputs[:, self.bits :]
        same, different = _pairs(y)
        p = phi.sigmoid()
        divergence = self.bits * math.log(2) + (p * logsigmoid(phi) + (1 - p) * logsigmoid(-phi)).sum(1)
        together = (same * _distances(p, p)).sum(1) / self.bits
        total = (self.kl * divergence + self.pair * together).mean()
        shares, mean_weight, mean_bias = self._words(bags)

        def words(bits: Tensor) -> Tensor:
            cost: Tensor = shares * self.decoder(bits).logsumexp(1) - (mean_weight * bits).sum(1) - mean_bias
            return cost

        def too_near(bits: Tensor) -> Tensor:
            """All terms of row i that depend on its bits: each pair twice, as (i, j) and (j, i)."""
            short: Tensor = relu(self.bits / 3 - _distances(bits, bits.detach()))
            return (2 / self.bits) * (different * short).sum(-1)

        total = total + self.estimate(phi, words).mean()
        if self.pair:
            apart = self.estimate(phi.expand(DRAWS, -1, -1), too_near).mean()
            total = total + self.pair * (apart - 0.5 * apart.detach())  # the value of each pair counts once a row
        if self.classifier is not None:
            total = total + self.classification * _cross_entropy(self.classifier(hidden), y)
        return total

    def _words(self, bags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each row: 1 (0 without words), and the means of the decoder's weights [B, K] and biases [B] of its words.

        They are all that the sum over w needs: sum_v w_v (W b + c)_v = (sum_v w_v W_v) b + sum_v w_v c_v.
        """
        (row, word), rows = bags.indices(), torch.arange(bags.shape[0], device=bags.device)
        values, starts = bags.values().double(), torch.searchsorted(row.contiguous(), rows)
        sums = torch.zeros_like(rows, dtype=values.dtype).index_add(0, row, values)
        w = (values / sums[row].clamp(min=TINY)).to(self.decoder.weight)
        table = torch.cat([self.decoder.weight, self.decoder.bias[:, None]], 1)
        means = embedding_bag(word, table, starts, mode="sum", per_sample_weights=w)
        return (sums > 0).to(means), means[:, :-1], means[:, -1]


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """sum_k [a_ik (1 - b_jk) + b_jk (1 - a_ik)]: the Hamming distance of bits, its mean for probabilities."""
    return a.sum(-1)[..., None] + b.sum(-1)[..., None, :] - 2 * a @ b.mT


def _pairs(y: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs (i, j) of rows share a label, and which share none, float32 [B, B]; neither where one has none."""
    if y.dim() == 1:
        labelled, same = y >= 0, y[:, None] == y
    else:
        labels = y.float()
        labelled, same = labels.any(1), labels @ labels.T > 0
    known = (labelled[:, None] & labelled).fill_diagonal_(False)
    return (known & same).float(), (known & ~same).float()


def _cross_entropy(scores: Tensor, y: Tensor) -> Tensor:
    """Mean over all rows, to which those without a label give 0."""
    if y.dim() == 1:
        each: Tensor = cross_entropy(scores, y, ignore_index=-1, reduction="none")
    else:
        each = binary_cross_entropy_with_logits(scores, y.to(scores), reduction="none").sum(1) * y.any(1)
    return each.mean()
