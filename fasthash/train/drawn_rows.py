"""Batches with synthetic rows without a label: a term on the inputs learns from them where no class was trained."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fasthash.train.encoder import Standardize

SAMPLE = 1024  # rows whose covariance is drawn from: the draws cost SAMPLE x features multiplications each
GROUP, SHARED = 4, 0.5  # rows of a group, and the part of their variance that is the group's
STREAM = 0x51ED270B9A1C4F3D  # between the seed of the order of rows and that of what is drawn


class DrawnRows:
    """The batches (x [B, F], y) of a loader with `draws` more rows: (x [B + draws, F], y, features, drawn).

    The rows behind the B of the loader are normal, with the mean and the covariance of a sample of X [N, F], in groups
    of 4 that share half of their variance, as the items of a class do: everything that embeddings like these could be,
    and not only what was labelled. They have no y. features: x - mean, float32. drawn: which rows were drawn, boolean.
    standard: for X with values far out or features of several units. The sample is then without such values, and
    features are what it makes of x.

    Random: a generator of its own from `seed`, which the checkpoints of `fasthash.train.train` hold with that of the
    loader. Of `world` ranks each gets its part of the same draws. A pass through the encoder costs twice as much with
    `draws` = B.

    >>> from fasthash.train.batches import shuffled_batches
    >>> X, y = torch.randn(9, 3), torch.arange(9)
    >>> loader = shuffled_batches(X, y, batch_size=4, generator=torch.Generator().manual_seed(0))
    >>> [[list(part.shape) for part in batch] for batch in DrawnRows(loader, X, X.mean(0), draws=4, seed=0)]
    [[[8, 3], [4], [8, 3], [8]], [[8, 3], [4], [8, 3], [8]]]
    """

    def __init__(
        self,
        loader: DataLoader[tuple[Tensor, ...]],
        X: Tensor,
        mean: Tensor,
        *,
        draws: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        standard: Standardize | None = None,
    ) -> None:
        self.standard = standard
        self.loader, self.sampler, self.draws = loader, loader.sampler, draws
        self.start, self.stop = (draws * edge // world for edge in (rank, rank + 1))
        self.generator = torch.Generator().manual_seed(seed ^ STREAM)
        chosen = torch.randperm(len(X), generator=self.generator)[:SAMPLE].sort().values
        sample = X[chosen.to(X.device)].float()
        self.mean = mean.to(sample.device)
        if standard is not None:
            sample = standard(sample) * standard.deviation + self.mean
        self.deviations = (sample - sample.mean(0)) / len(sample) ** 0.5  # [S, F]: their products are the covariance

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        for x, y in self.loader:
            both = torch.cat([x.float(), self.draw().to(x.device)])
            drawn = torch.arange(len(both), device=x.device) >= len(x)
            yield both, y, self._features(both), drawn

    def _features(self, x: Tensor) -> Tensor:
        if self.standard is None:
            return x - self.mean.to(x.device)
        features: Tensor = self.standard(x.to(self.mean.device)).to(x.device)
        return features

    def draw(self) -> Tensor:
        """New rows, float32 [draws, F] (of one rank, its part)."""
        size = len(self.deviations)
        groups = torch.randn(-(-self.draws // GROUP), size, generator=self.generator).repeat_interleave(GROUP, 0)
        own = torch.randn(self.draws, size, generator=self.generator)
        weights = SHARED**0.5 * groups[: self.draws] + (1.0 - SHARED) ** 0.5 * own
        rows: Tensor = self.mean + weights[self.start : self.stop].to(self.mean.device) @ self.deviations
        return rows
