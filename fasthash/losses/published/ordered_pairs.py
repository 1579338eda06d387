"""Sums of hinges over all pairs of a ranked list, exact, without one element for each pair."""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 16  # lists at once: the sums of a block stay in the cache


def ordered_hinges(
    distance: Tensor, similarity: Tensor, counted: Tensor, *, margin: float = 0.0, gain: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sums [Q] over the pairs (p, n) of each list with s_p > s_n: of w_pn relu(margin + d_p - d_n), and of w_pn.

    distance, similarity [Q, N]; counted, bool [Q, N], says which items of a list there are. w_pn = 1, or gain_p -
    gain_n with `gain` [Q, N], which must grow with the similarity. The gradient reaches distance alone.

    The sum is linear in d where no hinge changes its sign. The factor of an item is (pairs that it opens as p) - (those
    that it opens as n). Both are counted from the list sorted by distance, one cumulative sum for each level of
    similarity. Time and memory are O(Q N R), R the most different similarities in a list, where triplets would be
    O(Q N^2).
    """
    with torch.no_grad():
        level = _levels(similarity)
        few = level.amax(1).argsort(stable=True)  # lists of about as many levels come together
        given = [distance.detach(), level, counted] + ([] if gain is None else [gain.to(distance.dtype)])
        blocks = zip(*(each[few].split(ROWS) for each in given), strict=True)
        found = zip(*(_counts(margin, *block) for block in blocks), strict=True)
        back = few.argsort()
        out, into, pairs = (torch.cat(parts).to(distance.dtype)[back] for parts in found)
    return ((out - into) * distance).sum(1) + margin * out.sum(1), pairs.sum(1)


def _counts(
    margin: float, distance: Tensor, level: Tensor, here: Tensor, gain: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """For each item of some lists: weights of its pairs with a positive hinge, as p and as n; of all its pairs as p."""
    order = distance.argsort(dim=-1, stable=True)
    if margin == 0:  # a hinge of equal distances is 0: whether it counts makes no difference
        places = torch.arange(order.shape[1], device=order.device).expand(order.shape)
        nearer = beyond = torch.empty_like(order).scatter_(1, order, places)
    else:
        ascending = distance.gather(1, order)
        nearer = torch.searchsorted(ascending, distance + margin)  # items n with d_n < d_p + margin
        beyond = torch.searchsorted(ascending, distance - margin, right=True)  # items p with d_p <= d_n - margin
    sums = _Sums(level, here, order)
    out, into, pairs = sums.below(nearer, level), sums.above(beyond, level), sums.below(None, level)
    if gain is not None:
        weighted = _Sums(level, here, order, gain)
        out = gain * out - weighted.below(nearer, level)
        into = weighted.above(beyond, level) - gain * into
        pairs = gain * pairs - weighted.below(None, level)
    return here * out, here * into, here * pairs


def _levels(similarity: Tensor) -> Tensor:
    """The place of each similarity among the different ones of its row, int64 [Q, N]."""
    ascending, order = similarity.sort(dim=-1)
    steps = torch.zeros_like(order)
    steps[:, 1:] = (ascending[:, 1:] > ascending[:, :-1]).cumsum(1)
    return torch.empty_like(order).scatter_(1, order, steps)


class _Sums:
    """Over the items of a level, by how many of the nearest are looked at: their number, or the sum of weights [Q, N].

    here: bool [Q, N], which items count.
    """

    def __init__(self, level: Tensor, here: Tensor, order: Tensor, weights: Tensor | None = None) -> None:
        rows, self.items = level.shape
        self.levels = int(level.max()) + 1
        limits = torch.arange(self.levels + 1, device=level.device)[:, None]
        place = level.masked_fill(~here, self.levels).gather(1, order)[:, None, :]
        lower = here.new_zeros(rows, self.levels + 1, self.items + 1)  # [q, l, k]: is the k-th, from 1, below level l
        torch.lt(place, limits, out=lower[:, :, 1:])
        if weights is None:
            sums = lower.cumsum(2, dtype=torch.int32)
        else:
            ordered = torch.nn.functional.pad(weights.gather(1, order), (1, 0))[:, None, :]
            sums = torch.where(lower, ordered, weights.new_zeros(())).cumsum_(2)
        self.sums = sums.view(rows, -1)

    def below(self, nearest: Tensor | None, level: Tensor) -> Tensor:
        """Over the first `nearest` items (None: all) of a level below `level`, both [Q, N]."""
        return self.sums.gather(1, level * (self.items + 1) + (self.items if nearest is None else nearest))

    def above(self, skipped: Tensor, level: Tensor) -> Tensor:
        """Over all but the first `skipped` items, of a level above `level`, both [Q, N]."""
        total = self.sums.view(len(level), -1, self.items + 1)[:, -1]
        return total[:, -1:] - total.gather(1, skipped) - self.below(None, level + 1) + self.below(skipped, level + 1)
