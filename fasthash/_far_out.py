"""Values that lie absurdly far out: one of them would decide a mean, a deviation or a principal component alone.

Far is measured by what rows have in common. A row's distance is the largest distance of its values from the medians of
their columns. Five rows in a hundred may be wrong in any way; the distance that the others stay within is estimated
from a sample of rows, with a tail as long as that of a lognormal variable through two quantiles. A value is far out
beyond `TIMES` that distance, and `TIMES` the like distance in its own column. So one-hot rows, counts and skewed
features are as usual as normal ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from fasthash._warnings import warn

NUMBERS = 1 << 20  # of a sample: 4 MB
FEWEST, MOST = 64, 4096  # rows of a sample
WRONG = 0.05  # of the rows may be wrong; of few rows up to 9, or nearly a quarter
TIMES = 10.0
STEEPEST = 3.0  # slope of log distance over normal quantiles; 1 for a lognormal variable of sigma 1
OTHER_UNIT = 10.0  # a column with so many times the spread of the next one, and sqrt(F) times, has a unit of its own
BLOCK = 1 << 20  # numbers that are read at once


@dataclass(frozen=True)
class Usual:
    """The usual range of N rows of F features: values within `reach` [F] of `centre` [F], both float64.

    unit: by what the spread of a column exceeds that of a typical column, float64 [F], 1 for all but columns with a
    unit of their own; None where there is no such column.
    """

    centre: Tensor
    reach: Tensor
    unit: Tensor | None = None

    def beyond(self, block: Tensor) -> Tensor:
        """Which values of a block [B, F] lie far out: boolean [B, F]."""
        far: Tensor = (block.double() - self.centre).abs_() > self.reach
        return far


@dataclass(frozen=True)
class FarOut:
    """Values of X that lie far out: how many, in how many of the rows, and the first of them."""

    values: int
    rows: int
    row: int
    column: int
    value: float
    usual: tuple[float, float]  # the lowest and the highest usual value of that column


def sample_of(rows: int, features: int) -> Tensor:
    """Row numbers of a sample, ascending: always the same ones."""
    size = max(FEWEST, min(MOST, NUMBERS // features))
    if rows <= size:
        return torch.arange(rows)
    chosen: Tensor = torch.randint(rows, (size,), generator=torch.Generator().manual_seed(0)).unique()
    return chosen


def usual_of(sample: Tensor, rows: int) -> Usual:
    """The usual range of X [rows, F], from the sample [S, F] of its rows, S >= 1; nothing is far out where S < 8.

    >>> usual = usual_of(torch.arange(40.0)[:, None] % 7, 40)
    >>> usual.beyond(torch.tensor([[6.0], [1e6]])).tolist()
    [[False], [True]]
    """
    by_column = sample.float().T.contiguous()  # [F, S]
    centre = by_column.median(1, keepdim=True).values
    distance = (by_column - centre).abs_()
    unit = _units(distance.topk(_wrong(len(sample)), dim=1).values[:, -1].double())
    largest = (distance if unit is None else distance / unit[:, None]).amax(0, keepdim=True)
    largest = largest[largest > 0][None]
    common = _reach(largest, rows * largest.shape[1] // len(sample))
    common = torch.where(common > 0, common, torch.inf)
    # A column with a longer tail than the others goes further.
    reach = torch.maximum(common if unit is None else common * unit, _reach(distance, rows))
    return Usual(centre[:, 0].double(), reach, unit)


def _reach(distances: Tensor, rows: int) -> Tensor:
    """How far `rows` values may lie, float64 [C], from samples [C, S] of their distances; 0 where that is not known.

    Log distances are taken to be linear in normal quantiles.
    """
    size = distances.shape[1]
    wrong = _wrong(size)
    if wrong == 1:
        return torch.zeros(len(distances), dtype=torch.float64, device=distances.device)
    further = min(4 * wrong, (size + wrong) // 2)
    top = distances.topk(further, dim=1).values.double()
    high, low = top[:, wrong - 1], top[:, -1]
    at_high, at_low, at_end = (NormalDist().inv_cdf(1 - part / 2) for part in (wrong / size, further / size, 1 / rows))
    slope = ((high / low).log() / (at_high - at_low)).clamp(max=STEEPEST)
    return torch.where(low > 0, TIMES * high * (slope * max(at_end - at_high, 0.0)).exp(), 0.0)


def _wrong(size: int) -> int:
    """The place of that of `size` values, largest first, from which on they are taken to be right."""
    return max(1, min(10, size // 4), round(WRONG * size))


def _units(spread: Tensor) -> Tensor | None:
    """The units of columns of this spread, 0 where most values are equal; None where all are 1.

    Spreads that fall off evenly, as those of principal components do, are of one unit: there must be a gap. And few
    columns may be above it: where many are, those below are more likely noise.
    """
    known = spread[spread > 0].sort().values
    above = max(1, len(known) // 4)  # so many columns at most
    if len(known) < 2 or 2 * len(known) < len(spread):
        return None
    factor = max(OTHER_UNIT, len(spread) ** 0.5)  # from sqrt(F) on it has more variance than all others together
    gaps = (known[-above:] > factor * known[-above - 1 : -1]).nonzero()
    if not len(gaps):
        return None
    ordinary = known[: len(known) - above + int(gaps[0])]
    return torch.where(spread > ordinary[-1], spread / ordinary.median(), torch.ones_like(spread))


def find(
    rows: Tensor, usual: Usual, advance: Callable[[int], object] = lambda count: None
) -> tuple[Tensor, Tensor, FarOut | None]:
    """Mean and deviation of X [N, F] without what lies far out, both float64 [F], and what does; X is read once.

    One deviation for all columns, 1 where it would be 0, times their `unit`. `advance` gets the number of rows
    that were read.
    """
    size = max(1, BLOCK // rows.shape[1])
    sums, squares = torch.zeros_like(usual.centre), torch.zeros_like(usual.centre)
    beyond, bad_rows, first = torch.zeros_like(usual.centre), 0, None
    for start in range(0, len(rows), size):
        block = rows[start : start + size].double()
        far = usual.beyond(block)
        by_row = far.any(1)
        if bool(by_row.any()):
            bad_rows += int(by_row.sum())
            if first is None:
                row = int(by_row.nonzero()[0])
                column = int(far[row].nonzero()[0])
                first = start + row, column, float(block[row, column])
        centred = (block - usual.centre).masked_fill_(far, 0.0)
        if usual.unit is not None:
            centred /= usual.unit
        beyond += far.sum(0)
        sums += centred.sum(0)
        squares += centred.square_().sum(0)
        advance(len(block))
    kept = (len(rows) - beyond).clamp_(min=1)
    means = sums / kept
    deviation = ((squares - sums * means).clamp_(min=0).sum() / kept.sum()).sqrt()
    deviation = torch.where(deviation == 0, torch.ones_like(deviation), deviation)
    unit = torch.ones_like(means) if usual.unit is None else usual.unit
    found = None
    if first is not None:
        column = first[1]
        middle, reach = float(usual.centre[column]), float(usual.reach[column])
        found = FarOut(int(beyond.sum()), bad_rows, *first, (middle - reach, middle + reach))
    return usual.centre + means * unit, deviation * unit, found


def warn_far_out(found: FarOut | None, rows: int, function: str, name: str, what: str) -> None:
    """Warns of what was found in `name`. rows: of `name`. what: where such values count as the mean, in words."""
    if found is None:
        return
    low, high = found.usual
    several = "1 value" if found.values == 1 else f"{found.values} values"
    warn(
        f"{function}: {name} holds {several} far outside the usual range, in {found.rows} of {rows} rows. The first is "
        f"{found.value:g} in row {found.row}, column {found.column} (usual there: {low:.3g} to {high:.3g}). "
        f"Such a value counts as the mean of its column, {what}. Correct it, or remove its row"
    )
