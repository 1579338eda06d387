"""Codes of 1 to 4 bits a dimension: a point of a grid near each row, stored as bit planes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from fasthash._arguments import choice, number, one_device, whole
from fasthash._arrays import like
from fasthash._checkpoint import GRID, check_tensors, load_checkpoint, save_checkpoint
from fasthash._far_out import sample_of
from fasthash.baselines import grid_osq, grid_rabitq, grid_turboquant
from fasthash.baselines.rows import (
    BLOCK,
    codes_of,
    finite_queries,
    in_blocks,
    in_float16,
    refuse_others,
    rows_of,
    typical,
)
from fasthash.codes import pack_bits, unpack_bits

METHODS = {"rabitq": grid_rabitq, "osq": grid_osq, "turboquant": grid_turboquant}
METRICS = ("dot", "l2")
MOST_PLANES = 4  # bits a dimension


@dataclass(frozen=True, eq=False, repr=False)
class GridCodes:
    """A fitted quantiser of 1 to 4 bits a dimension: `rabitq`, `osq` and `turboquant` make it.

    mean: float32 [F]. rotation: float32 [F, F], orthonormal, or None where dimensions are taken as they are.
    weights: float32 [B], of the bit planes, the highest first. unit: what `scales` are divided by, so that float16
    holds them. stretch: what the length of a row times sqrt(bits) is on average, in scales for metric "dot".

    A row x has the direction o = (x - mean) @ rotation / |x - mean|. Dimension d of its code is a level of the grid,
    l_d = sum_p weights[p] (2 b_pd - 1), b_pd in {0, 1}. The code is the bits of plane 0 for all dimensions, then those
    of plane 1, and so on: B x F bits, in the order of `pack_bits`. Its first F bits are signs, the code of the
    same method with 1 bit a dimension.

    >>> GridCodes("osq", torch.zeros(8), None, torch.tensor([2.0, 1.0]))
    GridCodes('osq', 8 features, 2 bits a dimension)
    """

    method: str
    mean: Tensor
    rotation: Tensor | None
    weights: Tensor
    unit: float = 1.0
    stretch: float = 1.0

    @property
    def bits(self) -> int:
        """Length of a code: features x bits a dimension."""
        return len(self.mean) * len(self.weights)

    @property
    def n_features_in_(self) -> int:
        """Features of a row."""
        return len(self.mean)

    def __repr__(self) -> str:
        return f"GridCodes({self.method!r}, {self.n_features_in_} features, {len(self.weights)} bits a dimension)"

    def transform(self, X: Any) -> Any:
        """The rows that are coded, (x - mean) @ rotation, float32 [N, F]: numpy for numpy, else a tensor.

        Raises ValueError for another number of features, NaN or infinity.
        """
        directions, lengths = self._directions(self._rows(X, "transform"))
        return like((directions * lengths[:, None]).float(), X)

    def encode(self, X: Any) -> Any:
        """Packed codes uint8 [N, ceil(bits / 8)] of X [N, F]. One row may be [F]. Raises as `transform`."""
        rows = self._rows(X, "encode")
        step = max(1, BLOCK // self.n_features_in_)
        return like(torch.cat([self._encoded(block) for block in rows.split(step)]), X)

    def scales(self, X: Any, codes: Any, *, metric: str = "dot") -> Any:
        """A number s for each code, float16 [N]: `codes` are those of X, by `encode`.

        metric "dot": s <v, 2 b - 1> estimates <q, x - mean>, for v = `queries`(q) and all bits b of the code of x. This
        is the order by <q, x>: the missing <q, mean> is the same for all x. The function that made these codes says how
        it finds s. For cosines give rows of length 1 to the fit, `encode` and `scales`.

        metric "l2": s is |x - mean| / sqrt(bits), and |v|^2 - 2 s <v, 2 b - 1> + s^2 bits has the order of estimates of
        |q - x|^2. This is ours: an exact estimate needs a second number for each code. Here the length is exact, and
        the inner product has the mean correction of all rows. Use `turboquant` for it, or 1 bit a dimension: the
        corrections of single rows differ more in `rabitq` and `osq` of several bits.

        A row that equals the mean has s = 0. Raises ValueError for codes that cannot be those of X, and for a row too
        far from the mean for float16: some 65,504 times as far as usual rows of the fit. Scales under 6e-8 of the usual
        ones become 0.
        """
        function = "GridCodes.scales"
        rows, metric = self._rows(X, "scales"), choice(metric, function, "metric", METRICS)
        lengths, factors = self._lengths_and_factors(rows, codes)
        return in_float16(lengths * (factors if metric == "dot" else self.bits**-0.5), self.unit, X, function)

    def queries(self, X: Any, *, metric: str = "dot") -> Any:
        """Queries float32 [N, bits] of rows X [N, F] for codes and their `scales` by the same metric.

        For bit b_pd and metric "dot": weights[p] * (x @ rotation)_d * unit. For "l2": weights[p] * ((x - mean) @
        rotation)_d * stretch / unit. One row may be [F]. Raises as `transform`, and for values that float32 cannot
        hold.

        >>> codes = GridCodes("osq", torch.zeros(2), None, torch.tensor([2.0, 1.0]))
        >>> codes.queries(torch.tensor([[3.0, -1.0]]))
        tensor([[ 6., -2.,  3., -1.]])
        """
        rows = self._rows(X, "queries").double()
        by_dot = choice(metric, "GridCodes.queries", "metric", METRICS) == "dot"
        if not by_dot:
            rows = rows - self.mean.to(rows.device)
        if self.rotation is not None:
            rows = rows @ self.rotation.to(rows.device).double()
        weights = self.weights.to(rows.device).double() * (self.unit if by_dot else self.stretch / self.unit)
        return like(finite_queries((weights[:, None] * rows[:, None]).flatten(1), self), X)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes all of it as one safetensors file.

        An existing file is replaced only when the new one is on the disk. Raises OSError where it cannot be written
        or `path` is something other than a file.
        """
        tensors = {"mean": self.mean, "weights": self.weights}
        if self.rotation is not None:
            tensors["rotation"] = self.rotation
        content = {"method": self.method, "features": self.n_features_in_, "bits_per_dimension": len(self.weights)}
        save_checkpoint(path, tensors, {**content, "unit": self.unit, "stretch": self.stretch}, GRID)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: torch.device | str | None = None) -> GridCodes:
        """What `save` wrote, on `device` (None: the CPU): the same codes, bit for bit.

        Raises FileNotFoundError, and ValueError, naming the file, for one that is truncated, of another kind or of an
        unknown version. Nothing in the file is executed.
        """
        tensors, content = load_checkpoint(path, GRID)
        place = one_device("cpu" if device is None else device, GRID.load)
        try:
            method = choice(content["method"], "its content", "method", tuple(METHODS))
            features = whole(content["features"], "its content", "features", 1)
            planes = whole(content["bits_per_dimension"], "its content", "bits_per_dimension", 1, MOST_PLANES)
            unit, stretch = (number(content[name], "its content", name, above=0) for name in ("unit", "stretch"))
            shapes: dict[str, tuple[int, ...]] = {"mean": (features,), "weights": (planes,)}
            if METHODS[method].ROTATED:
                shapes["rotation"] = (features, features)
            with torch.device("meta"):  # shapes without memory: sizes in the file are not trusted
                check_tensors(
                    tensors, {name: torch.empty(shape, dtype=torch.float32) for name, shape in shapes.items()}
                )
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
                raise ValueError("its tensors hold NaN or infinity")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{GRID.load}: {path} is damaged or not a fasthash GridCodes: {error}") from None
        rotation = tensors["rotation"].to(place) if METHODS[method].ROTATED else None
        return cls(method, tensors["mean"].to(place), rotation, tensors["weights"].to(place), unit, stretch)

    def in_unit_of(self, rows: Tensor) -> GridCodes:
        """The same codes with another `unit` and `stretch`: scales of rows like these are near 1."""
        sample = rows[sample_of(*rows.shape).to(rows.device)]
        lengths, factors = self._lengths_and_factors(sample, self.encode(sample))
        stretch = float(factors[lengths > 0].mean()) * self.bits**0.5 if bool((lengths > 0).any()) else 1.0
        return replace(self, unit=typical(lengths * factors), stretch=stretch)

    def _rows(self, X: Any, method: str) -> Tensor:
        return rows_of(X, f"GridCodes.{method}", self.n_features_in_, one=method != "transform")

    def _directions(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Directions float32 [N, F] of rows from the mean, zeros where there is none, and lengths float64 [N]."""
        centred = rows.double() - self.mean.to(rows.device)
        lengths = torch.linalg.vector_norm(centred, dim=1)
        directions = (centred / lengths.clamp_min(torch.finfo(torch.float64).tiny)[:, None]).float()
        return directions if self.rotation is None else directions @ self.rotation.to(rows.device), lengths

    def _encoded(self, rows: Tensor) -> Tensor:
        directions, _ = self._directions(rows)
        levels = METHODS[self.method].levels(directions, self.weights.to(rows.device))  # [N, F], 0 to 2^B - 1
        shifts = torch.arange(len(self.weights) - 1, -1, -1, device=rows.device)
        planes = (levels[:, None] >> shifts[:, None]) & 1  # [N, B, F]
        packed: Tensor = pack_bits(planes.flatten(1), threshold=0)
        return packed

    def _lengths_and_factors(self, rows: Tensor, codes: Any) -> tuple[Tensor, Tensor]:
        """Lengths of rows from the mean, and what they are multiplied by for their scales, float64 [N].

        A factor is 0 for a row that is the mean. Raises for codes that cannot be those of the rows.
        """

        def found(block: Tensor, packed: Tensor) -> Tensor:
            signs = 2.0 * unpack_bits(packed, self.bits).float() - 1.0
            weights = self.weights.to(block.device)
            points = torch.einsum("p,npf->nf", weights, signs.unflatten(1, (len(weights), -1))).double()
            directions, lengths = self._directions(block)
            products = (directions.double() * points).sum(1)
            factors = METHODS[self.method].factors(products, points.square().sum(1))
            return torch.stack([lengths, torch.where(lengths > 0, factors, 0.0)], dim=1)

        function = "GridCodes.scales"
        lengths, factors = in_blocks(rows, codes_of(codes, self.bits, rows, function), found).unbind(1)
        refuse_others(factors, function)
        return lengths, factors
