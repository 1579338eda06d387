"""Expected values of ranking metrics over all orders of tied results.

A ranking is given as tie groups, nearest first: counts [Q, G] results at each distance and, for each gain (relevance,
similarity), its sums [Q, G] over them; both float64. Empty groups are allowed anywhere. Within a group every order is
equally likely, so a group of one is an ordinary rank, and a ranking without ties gives the ordinary metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Largest temporary of one step, in elements (8 bytes each).
BLOCK = 1 << 22


def sums_at(counts: Tensor, sums: Tensor, ranks: Tensor) -> Tensor:
    """Expected sum of a gain over the first t results, for each t of `ranks` [P] (t >= 1): [Q, P].

    Inside a group the expectation grows linearly. Beyond the last result the sum stays what it is.
    """
    ends = counts.cumsum(-1)
    totals = sums.cumsum(-1)
    positions = ranks.to(ends.dtype).expand(len(ends), -1).contiguous()
    group = torch.searchsorted(ends, positions).clamp_(max=counts.shape[-1] - 1)
    size = counts.gather(-1, group)
    missing = (ends.gather(-1, group) - positions).clamp_(min=0.0)
    return totals.gather(-1, group) - missing * sums.gather(-1, group) / size.clamp(min=1.0)


def discounted_sum(counts: Tensor, sums: Tensor, k: int) -> Tensor:
    """Expected discounted gain of the first k results, sum_i gain_i / log2(i + 1): [Q]."""
    if bool((counts[:, :k] > 0).all()):  # then the first k results are in the first k groups
        counts, sums = counts[:, :k], sums[:, :k]
    ends = counts.cumsum(-1)
    discounts = 1.0 / torch.arange(2, k + 2, dtype=torch.float64, device=counts.device).log2()
    table = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
    weight = table[ends.clamp(max=k).long()] - table[(ends - counts).clamp(max=k).long()]
    return (weight * sums / counts.clamp(min=1.0)).sum(-1)


def average_precision(counts: Tensor, relevant: Tensor, at: int | None = None, divisor: str = "retrieved") -> Tensor:
    """Expected average precision [Q] over the first `at` results (None: all); 0 where nothing is relevant.

    McSherry & Najork, "Computing information retrieval performance measures efficiently in the presence of tied
    scores" (ECIR 2008), in closed form: a group of n results, r of them relevant, after N results of which R are
    relevant, adds (r/n) [(R + 1) dH + (r - 1)/(n - 1) (n - (N + 1) dH)], dH = H(N + n) - H(N). With divisor
    "possible" the sum is divided by min(at, all relevant); with "retrieved" by the relevant among the first `at`,
    which is random where `at` cuts a group: there the expectation is taken over how many of the group's relevant
    results lie inside (hypergeometric).
    """
    ends = counts.cumsum(-1)
    found = relevant.cumsum(-1)
    inside = counts if at is None else (at - ends + counts).clamp_(min=0.0).minimum(counts)
    terms = relevant * found / ends.clamp(min=1.0)  # right for groups of one
    if at is not None:
        terms.masked_fill_(inside == 0, 0.0)
    tied = (counts > 1).nonzero(as_tuple=True)
    size, hits = counts[tied], relevant[tied]
    terms[tied] = _group_sum(ends[tied] - size, size, found[tied] - hits, hits, inside[tied])
    if at is None:
        return ratio(terms.sum(-1), found[:, -1])
    if divisor == "possible":
        return ratio(terms.sum(-1), found[:, -1].clamp(max=at))
    cut = (inside > 0) & (inside < counts)  # at most one group in a row
    whole = terms.masked_fill(cut, 0.0).sum(-1)
    found_whole = relevant.masked_fill(cut | (inside == 0), 0.0).sum(-1)
    result = ratio(whole, found_whole)
    place = cut.nonzero(as_tuple=True)
    rows = place[0]
    if len(rows):
        size, hits = counts[place], relevant[place]
        result[rows] = _cut_expectation(whole[rows], found_whole[rows], ends[place] - size, size, hits, inside[place])
    return result


def reciprocal_rank(counts: Tensor, relevant: Tensor, ranks: Sequence[int]) -> Tensor:
    """Expected 1 / rank of the first relevant result, 0 if it is not among the first t, for each t of `ranks`: [Q, P].

    It is in the first group that has one. Of a group of n, r of them relevant, after N results, the first relevant one
    is at place j with chance C(n - j, r - 1) / C(n, r): r / n at j = 1, then each time (n - j - r + 1) / (n - j) of the
    chance before. The chances are summed one by one, at most n - r + 1 of them.
    """
    result = torch.zeros(len(counts), len(ranks), dtype=torch.float64, device=counts.device)
    rows = (relevant > 0).any(-1).nonzero()[:, 0]
    group = (relevant[rows] > 0).long().argmax(-1, keepdim=True)
    size, hits, end = (part[rows].gather(-1, group)[:, 0] for part in (counts, relevant, counts.cumsum(-1)))
    places = (size - hits + 1.0).minimum(max(ranks) - (end - size)).clamp(min=0.0)
    order = places.argsort()  # groups of like size together, so that little is padding
    start = 0
    while start < len(order):
        stop = min(len(order), start + BLOCK)
        while stop > start + 1 and (stop - start) * int(places[order[stop - 1]]) > BLOCK:
            stop = start + (stop - start) // 2
        own = order[start:stop]
        start = stop
        width = int(places[own].max())
        if not width:
            continue
        n, r, before = (part[own, None] for part in (size, hits, end - size))
        j = torch.arange(1, width + 1, dtype=torch.float64, device=counts.device)
        inside = j <= places[own, None]
        step = torch.log1p(-(r - 1.0) / (n - j + 1.0).clamp(min=1.0)).masked_fill_(~inside, 0.0)
        # log of prod_{i < j} (1 - (r - 1) / (n - i)): shifted by one place, as the first place has no factor
        step = torch.cat([torch.log(r / n), step[:, 1:]], 1).cumsum_(1)
        terms = (step.exp_() / (before + j)).masked_fill_(~inside, 0.0).cumsum_(1)
        for column, rank in enumerate(ranks):
            last = (rank - before[:, 0]).clamp(max=width).long()
            value = terms.gather(1, (last - 1).clamp(min=0)[:, None])[:, 0]
            result[rows[own], column] = value.masked_fill(last < 1, 0.0)
    return result


def _group_sum(before: Tensor, size: Tensor, found: Tensor, relevant: Tensor, inside: Tensor) -> Tensor:
    """Expected sum of the precisions at the relevant ones of the first `inside` results of a group of `size`."""
    start = before + 1.0
    growth = torch.digamma(start + inside) - torch.digamma(start)  # H(before + inside) - H(before)
    per_pair = (relevant - 1.0) / (size - 1.0).clamp(min=1.0)
    return relevant / size * ((found + 1.0) * growth + per_pair * (inside - start * growth))


def _cut_expectation(
    whole: Tensor, found: Tensor, before: Tensor, size: Tensor, relevant: Tensor, inside: Tensor
) -> Tensor:
    """Expected AP [q] of rows whose last group, of `size`, has only `inside` places left; `found` relevant before it.

    Given that j of the group's relevant results are among those `inside`, they are spread evenly over them.
    """
    width = int(torch.minimum(relevant, inside).max()) + 1
    step = max(1, BLOCK // width)
    if len(whole) > step:
        parts = (torch.split(column, step) for column in (whole, found, before, size, relevant, inside))
        return torch.cat([_cut_expectation(*part) for part in zip(*parts, strict=True)])
    j = torch.arange(width, dtype=torch.float64, device=whole.device)
    whole, found, before, size, relevant, inside = (t[:, None] for t in (whole, found, before, size, relevant, inside))
    possible = (j <= relevant) & (j <= inside) & (inside - j <= size - relevant)
    log_chance = _log_choose(relevant, j) + _log_choose(size - relevant, inside - j)
    chance = log_chance.masked_fill(~possible, -torch.inf).softmax(-1)  # the constant -log C(size, inside) cancels
    terms = _group_sum(before, inside, found, j.expand(len(whole), -1), inside)
    return (chance * ratio(whole + terms, found + j)).sum(-1)


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    """log C(n, k); arguments outside 0 <= k <= n give something finite or -inf, to be masked."""
    k = torch.minimum(k, n).clamp(min=0.0)
    return torch.lgamma(n + 1.0) - torch.lgamma(k + 1.0) - torch.lgamma(n - k + 1.0)


def ratio(value: Tensor, divisor: Tensor) -> Tensor:
    """value / divisor, 0 where the divisor is 0."""
    return torch.where(divisor > 0, value / divisor.clamp(min=torch.finfo(value.dtype).tiny), 0.0)
