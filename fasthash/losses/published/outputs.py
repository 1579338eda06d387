"""What the losses of this folder share: checks of their arguments, signs with a gradient, class centres."""

from __future__ import annotations

import torch
from torch import Tensor

from fasthash._arguments import whole
from fasthash._arrays import dtype_name
from fasthash._directions import unless_all_zero
from fasthash._labels import one_column


def check_outputs(function: str, u: Tensor) -> Tensor:
    """Gives outputs u [B, D], B >= 2, in float32 (float64 stays); raises TypeError and ValueError for others.

    Where all of u is 0 its gradient is 0.
    """
    if not isinstance(u, Tensor):
        raise TypeError(f"{function}: u must be a tensor, got {type(u).__name__}")
    if not u.is_floating_point():
        raise TypeError(f"{function}: u must be floating point, got {dtype_name(u)}")
    if u.dim() != 2 or len(u) < 2:
        raise ValueError(f"{function}: u must have shape [B, D] with B >= 2, got {tuple(u.shape)}")
    return unless_all_zero(u if u.dtype == torch.float64 else u.float())


def check_classes(function: str, y: Tensor | None, rows: int) -> Tensor:
    """Gives class numbers int64 [B], of integers [B] or [B, 1]; raises for anything else."""
    labels = one_column(y) if isinstance(y, Tensor) else None
    if labels is not None and labels.shape == (rows,) and not _is_real(labels):
        return labels.long()
    wanted = f"{function}: y must be integer class labels of shape [{rows}]"
    if labels is not None and labels.dim() == 2 and not _is_real(labels):
        wanted += ", since its formula takes one class for each row"
    raise ValueError(f"{wanted}, got {_kind(y)}")


def check_labels(function: str, y: Tensor | None, rows: int, classes: int | None = None) -> Tensor:
    """Gives class numbers int64 [B], or multi-hot labels bool [B, L]: where y is not 0. Raises for anything else.

    classes: the L that is needed; None: any.
    """
    labels = one_column(y) if isinstance(y, Tensor) else None
    if labels is not None and not _is_real(labels):
        if labels.shape == (rows,):
            return labels.long()
        if labels.dim() == 2 and len(labels) == rows and classes in (None, labels.shape[1]):
            return labels != 0
    columns = "L" if classes is None else classes
    raise ValueError(
        f"{function}: y must be integer class labels of shape [{rows}] or multi-hot labels of shape "
        f"[{rows}, {columns}], got {_kind(y)}"
    )


def alike(function: str, y: Tensor | None, rows: int) -> Tensor:
    """Which pairs of a batch are alike, boolean [B, B]: of one class, with a label in common, or as y says itself.

    A boolean [B, B] says it itself: multi-hot labels of as many classes as rows must be integers.
    """
    if isinstance(y, Tensor) and y.dtype == torch.bool and y.shape == (rows, rows):
        return y
    labels = check_labels(function, y, rows)
    if labels.dim() == 1:
        return labels[:, None] == labels
    labels = labels.float()
    return labels @ labels.T > 0


def label_rows(function: str, y: Tensor | None, rows: int, classes: int | None = None) -> Tensor:
    """Gives label sets, boolean [B, L]: multi-hot labels, or classes as sets of one. Raises for anything else.

    classes: the L that is needed, which class numbers must be below; None: any.
    """
    labels = check_labels(function, y, rows, classes)
    if labels.dim() == 2:
        return labels
    if classes is None:
        found: Tensor = labels.unique()
        return labels[:, None] == found
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{function}: classes in y must be between 0 and {classes - 1}, got {low} to {high}")
    return labels[:, None] == torch.arange(classes, device=labels.device)


def shared_labels(a: Tensor, b: Tensor | None = None) -> Tensor:
    """How many labels the rows of a [B, L] and of b [M, L] (None: a itself), floating point 0 and 1, have in common."""
    with torch.autocast(a.device.type, enabled=False):
        shared: Tensor = a @ (a if b is None else b).T
    return shared


def half_distances(a: Tensor, b: Tensor) -> Tensor:
    """(D - a_i . b_j) / 2 of rows [B, D] and [M, D]: the Hamming distance where all values are +1 or -1."""
    with torch.autocast(a.device.type, enabled=False):
        distances: Tensor = (a.shape[1] - a @ b.T) / 2
    return distances


def check_embeddings(function: str, y: Tensor | None, rows: int) -> Tensor:
    """Gives embeddings [B, E] in float32 (float64 stays); raises for anything else."""
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.dim() != 2 or len(y) != rows:
        raise ValueError(f"{function}: y must be floating-point embeddings of shape [{rows}, E], got {_kind(y)}")
    return y if y.dtype == torch.float64 else y.float()


def check_levels(function: str, levels: Tensor) -> Tensor:
    """Gives the class at each level of each class, int64 [L, C]; raises for anything else."""
    if not isinstance(levels, Tensor) or levels.dim() != 2 or levels.is_floating_point():
        raise ValueError(f"{function}: levels must be integers [L, C], got {_kind(levels)}")
    return levels.long()


def check_sizes(function: str, **sizes: int) -> None:
    """Raises TypeError for a size that is not an integer, ValueError for one below 1."""
    for name, value in sizes.items():
        whole(value, function, name, 1)


def straight_through_sign(u: Tensor) -> Tensor:
    """+1 where u > 0, else -1, with the gradient of u itself (Bengio, Leonard & Courville 2013).

    >>> straight_through_sign(torch.tensor([-0.2, 3.0]))
    tensor([-1.,  1.])
    """
    return u + (signs(u) - u).detach()


def signs(u: Tensor) -> Tensor:
    """+1 where u > 0, else -1: the bits as they are packed, so 0 counts as -1."""
    return torch.where(u > 0, 1.0, -1.0).to(u.dtype)


def hadamard_centres(classes: int, bits: int, *, both_signs: bool, seed: int = 0) -> Tensor:
    """Binary class centres float32 [classes, bits] of +1 and -1, far from one another.

    Rows of the Hadamard matrix (its negatives too with `both_signs`: any two of the 2 bits rows differ in at least
    half of the bits) where bits is a power of 2 and there are enough of them; else random, and with `both_signs`
    balanced (half of each row is +1).

    >>> hadamard_centres(4, 4, both_signs=False).int().abs().sum().item()
    16
    """
    generator = torch.Generator().manual_seed(seed)
    if bits & (bits - 1) == 0 and classes <= (2 * bits if both_signs else bits):
        matrix = torch.ones(1, 1, dtype=torch.float32)
        while len(matrix) < bits:
            matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
        rows = torch.cat([matrix, -matrix]) if both_signs else matrix
        return rows[:classes].contiguous()
    if not both_signs:
        return torch.randint(0, 2, (classes, bits), generator=generator).float() * 2 - 1
    order = torch.rand(classes, bits, generator=generator).argsort(1)
    return torch.where(order < bits // 2, -1.0, 1.0).float()


def _is_real(labels: Tensor) -> bool:
    return labels.is_floating_point() or labels.is_complex()


def _kind(value: object) -> str:
    return f"{dtype_name(value)} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
