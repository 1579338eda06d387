"""Features as Hasher takes them: real numbers [N, F], finite in float32; and what one pass over them tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash._arrays import Array, dtype_name, holds_one_column, to_tensor
from fasthash._far_out import FarOut, Usual, find, sample_of, usual_of, warn_far_out
from fasthash.index.progress import progress_bar, unseen
from fasthash.train.checksum import Checksum
from fasthash.train.encoder import Standardize

# Rows and numbers that are converted at once: memory-mapped features are never read whole.
ROWS, NUMBERS = 1 << 14, 1 << 20


@dataclass(frozen=True)
class Features:
    """Finite rows [N, F], what standardises them (see `fasthash.train.encoder.Standardize`), and their checksum or "".

    mean: float32 [F]. deviation: float32, one for all features, or [F] where some have another unit. limit: float32
    [F], in deviations from the mean, within which all rows lie but for what is `far_out`.
    """

    rows: Tensor
    mean: Tensor
    deviation: Tensor
    checksum: str = ""
    limit: Tensor | None = None
    usual: Usual | None = None
    far_out: FarOut | None = None

    @property
    def ordinary(self) -> bool:
        """Whether nothing lies far out, and all features have one unit."""
        return self.far_out is None and self.deviation.dim() == 0

    @property
    def standard(self) -> Standardize:
        """The scaler of such rows."""
        return Standardize(self.rows.shape[1], self.mean, self.deviation, self.limit)

    def warn(self, function: str, name: str) -> None:
        """Warns of what lies far out, in the name of who called `function`."""
        warn_far_out(self.far_out, len(self.rows), function, name, "in training and in codes")


def read_features(X: Any, method: str, name: str, *, one: bool = False, owner: str = "Hasher") -> Tensor:
    """X [N, F] as a tensor without a copy; raises ValueError or TypeError in the name of `<owner>.<method>`.

    one: X [F] is one row.

    >>> read_features([[1, 2]], "fit", "X").shape
    torch.Size([1, 2])
    """
    function = f"{owner}.{method}"
    rows = to_tensor(_dense(X, function, name), function, name)
    if one and rows.dim() == 1:
        rows = rows[None]
    if rows.dim() != 2 or rows.shape[1] < 1:
        hint = f". Reshape your data: {name}.reshape(1, -1) is one row" if rows.dim() == 1 else ""
        raise ValueError(f"{function}: {name} must have shape [N, F] with F >= 1, got {tuple(rows.shape)}{hint}")
    if rows.is_complex():
        raise TypeError(f"{function}: {name} must be real, got {dtype_name(rows)}")
    return rows.detach()


def _dense(X: Any, function: str, name: str) -> Any:
    """X, with what numpy leaves as objects made numbers (columns of several types); refuses sparse matrices."""
    if isinstance(X, Tensor):
        return X
    if hasattr(X, "toarray"):
        raise TypeError(
            f"{function}: {name} must be dense, got a sparse {type(X).__name__}: {name}.toarray() makes it so"
        )
    values = X if isinstance(X, np.ndarray) or not hasattr(X, "__array__") else np.asarray(X)
    if not isinstance(values, np.ndarray) or values.dtype != object or values.ndim != 2 or holds_one_column(values):
        return values
    text = next((value for value in values.flat if isinstance(value, (str, bytes))), None)
    if text is not None:
        raise TypeError(f"{function}: {name} must be a numeric array or tensor, got an array that holds {text!r}")
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{function}: {name} must be a numeric array or tensor ({error})") from None


def scan(
    rows: Tensor,
    name: str,
    *,
    checksum: bool,
    usual: Usual | None = None,
    method: str = "fit",
    owner: str = "Hasher",
    progress: bool | None = False,
) -> Features:
    """Reads rows [N, F], N >= 1, once, in blocks; twice where values lie far out or features differ in unit.

    usual: what is usual in other rows, where far out is to be measured by them. progress: a bar on stderr for each
    reading; None: if that is a terminal. Raises ValueError, in the name of `<owner>.<method>`, unless all rows are
    finite in float32.
    """
    taken = Checksum() if checksum else None
    extent = Extent(rows)
    with progress_bar("read", len(rows), "row", progress) as bar:
        mean, deviation = feature_scales(rows, taken, extent, bar.update)
    check_finite(rows, bool(torch.isfinite(mean).all() & torch.isfinite(deviation)), method, name, owner)
    if taken is not None:
        taken.add(mean, deviation)  # a checksum of large features is of a sample; these are of all of them
    text = "" if taken is None else taken.text()
    usual = usual or extent.usual()
    far_out = None
    if extent.exceeds(usual) or usual.unit is not None:
        with progress_bar("read again", len(rows), "row", progress) as bar:
            means, deviations, far_out = find(rows, usual, bar.update)
        if far_out is not None or usual.unit is not None:
            mean, deviation = means.float(), (deviations if usual.unit is not None else deviations[0]).float()
    margin = 1e-6 * (mean.abs() + usual.centre.abs())  # of rounding to float32
    limit = 1.001 * (usual.reach + (mean - usual.centre).abs() + margin) / deviation
    return Features(rows, mean, deviation, text, limit.float(), usual, far_out)


class Extent:
    """The lowest and highest values of X [N, F], by feature, and a sample of its rows: taken in blocks of rows."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = len(rows)
        self.chosen = sample_of(*rows.shape)
        self.sample: list[Tensor] = []
        self.low = torch.full((rows.shape[1],), torch.inf, dtype=torch.float64, device=rows.device)
        self.high = -self.low

    def take(self, block: Tensor, first: int) -> None:
        """Takes in a block of rows, float64 [B, F], the first of which has the number `first`."""
        low, high = block.aminmax(dim=0)
        self.low, self.high = self.low.minimum(low), self.high.maximum(high)
        start, stop = torch.searchsorted(self.chosen, torch.tensor([first, first + len(block)])).tolist()
        if stop > start:
            self.sample.append(block[(self.chosen[start:stop] - first).to(block.device)].float())

    def usual(self) -> Usual:
        return usual_of(torch.cat(self.sample), self.rows)

    def exceeds(self, usual: Usual) -> bool:
        """Whether a value lies far out."""
        return bool((usual.beyond(self.low[None]) | usual.beyond(self.high[None])).any())


def feature_scales(
    X: Array,
    checksum: Checksum | None = None,
    extent: Extent | None = None,
    advance: Callable[[int], object] = unseen,
) -> tuple[Tensor, Tensor]:
    """Mean [F] and overall standard deviation (a scalar, 1 where it would be 0) of X [N, F]: float32.

    X is read once, in blocks of rows of at most 8 MB, which `checksum` and `extent` take in too. `advance` is told of
    rows that were read. Sums are float64; the squared distances of a block from its own mean are combined with those
    before (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979). A
    value that is not finite in float32 makes the deviation NaN or infinite.

    >>> feature_scales(torch.tensor([[0.0, 2.0], [2.0, 4.0]]))
    (tensor([1., 3.]), tensor(1.))
    """
    rows = to_tensor(X, "feature_scales", "X")
    size = max(1, min(ROWS, NUMBERS // rows.shape[1]))
    if checksum is not None:
        checksum.start(rows)
    mean = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    before, squares = mean.clone(), mean.new_zeros(())  # mean, and squared distances from it, of the rows so far
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        if checksum is not None:
            checksum.rows(part, start)
        block = part.double()
        if extent is not None:
            extent.take(block, start)
        sums = block.sum(0)
        mean += sums / len(rows)
        own = sums / len(part)
        weight = len(part) / (start + len(part))
        squares += (block - own).square_().sum() + (own - before).square_().sum() * (start * weight)
        before += (own - before) * weight
        if rows.dtype == torch.float64 and not torch.isfinite(block.float()).all():
            squares += torch.nan
        advance(len(part))
    deviation = (squares / rows.numel()).sqrt().float()
    return mean.float(), torch.where(deviation == 0, torch.ones_like(deviation), deviation)


def check_finite(rows: Tensor, finite: bool, method: str, name: str, owner: str = "Hasher") -> None:
    """Raises the error of rows that are known not to be `finite`: ValueError, with their number."""
    if finite:
        return
    starts = range(0, len(rows), ROWS)
    bad = sum(int((~torch.isfinite(rows[start : start + ROWS].float())).any(1).sum()) for start in starts)
    raise ValueError(
        f"{owner}.{method}: {name} must be finite in float32, got NaN or infinity in {bad} of {len(rows)} rows"
    )
