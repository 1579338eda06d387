"""Which pairs of rows are alike and which are not, and how sure that is, from features alone: the guidance of CIMON."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fasthash._directions import unit_rows
from fasthash.neighbors import nearest

SAMPLE = 2_000  # rows whose pairs give the distribution of distances
CLUSTERED = 5_000  # rows that are clustered; others join the cluster of the nearest of them
NEIGHBORS = 10  # of the graph that is clustered
BIN = 0.01  # of the histogram whose highest bin is the mode
FARTHEST = 2.0  # cosine distance


@dataclass(frozen=True)
class MinedPairs:
    """Similarity and confidence of all pairs of N rows, in memory of O(N F).

    directions: features float32 [N, F] of length 1. Distances d are 1 - cosine. threshold: up to it a pair is alike.
    mode, below, above: the most frequent distance, and the deviations from it of the distances below and above; None:
    every pair counts alike. clusters: int64 [N], or None.
    """

    directions: Tensor
    threshold: float
    distribution: tuple[float, float, float] | None
    clusters: Tensor | None

    def of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """S and W, float32 [B, B], of the pairs of some rows: 1 or -1 (alike or not), and a weight in [0, 1].

        W is the product of two parts. The confidence: 0 for a distance at the threshold, 1 at distance 0 and at 2, and
        between them as the share of the distances there (see `confidence`). The refinement: 0 where clusters say
        otherwise than S, else 1.
        """
        directions = self.directions[rows]
        distance = (1 - directions @ directions.T).clamp(0, FARTHEST).fill_diagonal_(0)
        alike = distance <= self.threshold
        weight = torch.ones_like(distance)
        if self.distribution is not None:
            weight = confidence(distance, self.threshold, *self.distribution)
        if self.clusters is not None:
            together = self.clusters[rows]
            weight = weight * (alike == (together[:, None] == together))
        return torch.where(alike, 1.0, -1.0), weight


def mine(features: Tensor, *, similar: float, clusters: int, confident: bool = True, seed: int = 0) -> MinedPairs:
    """Mines features [N, F]. The nearest part `similar` of all pairs is alike. clusters 0: none.

    Fewer clusters where there are less than ten rows for each. Needs scikit-learn where there are clusters.

    >>> features = torch.eye(3).repeat(20, 1) + 0.1 * torch.randn(60, 3)
    >>> S, W = mine(features, similar=0.3, clusters=3).of(torch.arange(6))
    >>> S[0, 3].item(), S[0, 1].item(), bool((W <= 1).all())
    (1.0, -1.0, True)
    """
    directions = unit_rows(features.flatten(1).float())
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(features), generator=generator)[:SAMPLE].to(features.device)
    sample = directions[chosen]
    first, second = torch.triu_indices(len(sample), len(sample), offset=1, device=sample.device)
    distances = (1 - sample @ sample.T).clamp(0, FARTHEST)[first, second].cpu()
    threshold = float(np.quantile(distances.numpy(), similar))
    return MinedPairs(
        directions,
        threshold,
        half_normals(distances) if confident else None,
        spectral_clusters(directions, clusters, generator) if clusters else None,
    )


def half_normals(distances: Tensor) -> tuple[float, float, float]:
    """The mode of distances [M], and the root mean square deviations from it of those below and of those above."""
    counts = torch.histc(distances, bins=round(FARTHEST / BIN), min=0, max=FARTHEST)
    mode = (float(counts.argmax()) + 0.5) * BIN
    off = distances - mode
    below, above = (float(side.square().mean().sqrt()) if len(side) else 0.0 for side in (off[off < 0], off[off >= 0]))
    return mode, max(below, BIN), max(above, BIN)


def confidence(distance: Tensor, threshold: float, mode: float, below: float, above: float) -> Tensor:
    """How sure S is of pairs at these distances, in [0, 1]. F and G are normal distributions about the mode:

    d <= t: (F(t) - F(d)) / (F(t) - F(0));    d > t: (G(d) - G(t)) / (G(2) - G(t))

    F has the deviation `below`, G `above`.

    >>> confidence(torch.tensor([0.0, 2.0]), 0.3, 1.0, 0.2, 0.2).tolist()
    [1.0, 1.0]
    """

    def part(value: Tensor, end: float, deviation: float) -> Tensor:
        points = torch.stack([value, torch.full_like(value, threshold), torch.full_like(value, end)]).double()
        at, start, stop = torch.special.ndtr((points - mode) / deviation)
        found: Tensor = ((at - start) / (stop - start)).nan_to_num(0.0).clamp(0, 1).float()
        return found

    return torch.where(distance <= threshold, part(distance, 0.0, below), part(distance, FARTHEST, above))


def spectral_clusters(directions: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Clusters int64 [N] of rows of length 1, by the normalised cut of the graph of their nearest neighbours.

    At most CLUSTERED rows make the graph. scikit-learn's `SpectralClustering` cuts it, with its "cluster_qr".
    """
    try:
        from sklearn.cluster import SpectralClustering
    except ImportError:
        raise ImportError(
            "CIMON.fit: clusters need scikit-learn, which is not installed: pip install 'fasthash[text]'; "
            "clusters=0 needs nothing"
        ) from None
    from scipy import sparse

    rows = len(directions)
    chosen = torch.randperm(rows, generator=generator)[:CLUSTERED].sort().values.to(directions.device)
    points = directions[chosen]
    count = max(1, min(clusters, len(points) // 10))
    near = nearest(points, k=min(NEIGHBORS, len(points) - 1)).indices.cpu().numpy()
    starts = np.arange(0, near.size + 1, near.shape[1])
    graph = sparse.csr_matrix((np.ones(near.size), near.ravel(), starts), shape=(len(points), len(points)))
    cut = SpectralClustering(count, affinity="precomputed", assign_labels="cluster_qr", random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Graph is not fully connected")  # far groups are clusters too
        found = torch.from_numpy(cut.fit_predict((graph + graph.T) / 2).astype(np.int64)).to(directions.device)
    if len(points) == rows:
        return found
    return found[nearest(directions, points).indices[:, 0]]
