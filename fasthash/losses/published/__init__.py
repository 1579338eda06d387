"""Losses of other papers, for comparison: modules over real-valued outputs u, whose bits are u > 0.

Use one as `loss(u, y)` in a loop of your own, as `Hasher(loss="csq")` or as `Hasher(loss=CSQLoss(64, 150, weight=0))`.
Each is an nn.Module with forward(u [B, D], y) -> scalar. Hasher gives the constructor `bits`, `classes` and `levels`,
where it has parameters of these names. Those in `MULTILABEL` take multi-hot labels y [B, L] too, integers of which
others than 0 count as 1; the formulas of the others take one class for each row, or embeddings. A loss with
`rows_per_class` needs several rows of each class in a batch, and Hasher makes such batches for it. `MeanLoss` is the
mean of several losses. CONTRIBUTING.md says how to add one.
"""

from torch import nn

from fasthash.losses.published.bihalf import BiHalfLoss
from fasthash.losses.published.class_anchor_margin import ClassAnchorMarginLoss
from fasthash.losses.published.contrastive import ContrastiveLoss, HierarchicalContrastiveLoss
from fasthash.losses.published.cross_entropy import SignBinaryCrossEntropyLoss, SignCrossEntropyLoss
from fasthash.losses.published.csq import CSQLoss
from fasthash.losses.published.dsrh import DSRHLoss
from fasthash.losses.published.greedyhash import GreedyHashLoss
from fasthash.losses.published.hashnet import HashNetLoss
from fasthash.losses.published.hpdh import HPDHLoss
from fasthash.losses.published.icnn import ICNNLoss
from fasthash.losses.published.mean import MeanLoss
from fasthash.losses.published.multilevel_triplet import MultilevelTripletLoss
from fasthash.losses.published.orthohash import OrthoHashLoss
from fasthash.losses.published.prototype_triplet import PrototypeTripletLoss
from fasthash.losses.published.prototypical import PrototypicalLoss
from fasthash.losses.published.rank_consistency import RankConsistencyLoss
from fasthash.losses.published.sdc import SDCLoss

# What `Hasher(loss=...)` knows by name.
LOSSES: dict[str, type[nn.Module]] = {
    "bce": SignBinaryCrossEntropyLoss,
    "bihalf": BiHalfLoss,
    "ce": SignCrossEntropyLoss,
    "class_anchor_margin": ClassAnchorMarginLoss,
    "contrastive": ContrastiveLoss,
    "csq": CSQLoss,
    "dsrh": DSRHLoss,
    "greedyhash": GreedyHashLoss,
    "hashnet": HashNetLoss,
    "hierarchical_contrastive": HierarchicalContrastiveLoss,
    "hpdh": HPDHLoss,
    "icnn": ICNNLoss,
    "multilevel_triplet": MultilevelTripletLoss,
    "orthohash": OrthoHashLoss,
    "prototype_triplet": PrototypeTripletLoss,
    "prototypical": PrototypicalLoss,
    "rank_consistency": RankConsistencyLoss,
    "sdc": SDCLoss,
}

# Those that take multi-hot labels, as their formulas, or the papers' experiments, do.
MULTILABEL = frozenset(
    {"bce", "contrastive", "csq", "dsrh", "hashnet", "multilevel_triplet", "orthohash", "rank_consistency"}
)

__all__ = [
    "LOSSES",
    "MULTILABEL",
    "BiHalfLoss",
    "CSQLoss",
    "ClassAnchorMarginLoss",
    "ContrastiveLoss",
    "DSRHLoss",
    "GreedyHashLoss",
    "HPDHLoss",
    "HashNetLoss",
    "HierarchicalContrastiveLoss",
    "ICNNLoss",
    "MeanLoss",
    "MultilevelTripletLoss",
    "OrthoHashLoss",
    "PrototypeTripletLoss",
    "PrototypicalLoss",
    "RankConsistencyLoss",
    "SDCLoss",
    "SignBinaryCrossEntropyLoss",
    "SignCrossEntropyLoss",
]
