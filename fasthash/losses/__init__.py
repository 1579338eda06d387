"""Losses over a batch of outputs: functions, and modules that keep their settings. One file for each loss.

Two kinds. `kl_loss`, `similarity_loss`, `listwise_loss` and `koleo_loss` take outputs z in [0, 1] and are terms of
this package's objective. The rest are the baselines of the field, modules over real-valued outputs u whose bits are
u > 0: `loss(u, y)` in a loop of your own, `Hasher(loss="csq")`, or `Hasher(loss=CSQLoss(64, 150, weight=0))`.

A baseline of your own is a module with forward(u [B, D], y) -> scalar, in one file, and one line in `LOSSES`. Hasher
gives its constructor those of `bits`, `classes` and `levels` that it has parameters for.
"""

from torch import nn

from fasthash.losses.bihalf import BiHalfLoss
from fasthash.losses.contrastive import ContrastiveLoss, HierarchicalContrastiveLoss
from fasthash.losses.cross_entropy import SignCrossEntropyLoss
from fasthash.losses.csq import CSQLoss
from fasthash.losses.greedyhash import GreedyHashLoss
from fasthash.losses.hashnet import HashNetLoss
from fasthash.losses.hpdh import HPDHLoss
from fasthash.losses.kl import KLLoss, kl_loss
from fasthash.losses.koleo import KoLeoLoss, koleo_loss
from fasthash.losses.listwise import ListwiseLoss, listwise_loss
from fasthash.losses.orthohash import OrthoHashLoss
from fasthash.losses.sdc import SDCLoss
from fasthash.losses.similarity import SimilarityLoss, default_weight, similarity_loss

# What `Hasher(loss=...)` knows by name.
LOSSES: dict[str, type[nn.Module]] = {
    "bihalf": BiHalfLoss,
    "ce": SignCrossEntropyLoss,
    "contrastive": ContrastiveLoss,
    "csq": CSQLoss,
    "greedyhash": GreedyHashLoss,
    "hashnet": HashNetLoss,
    "hierarchical_contrastive": HierarchicalContrastiveLoss,
    "hpdh": HPDHLoss,
    "orthohash": OrthoHashLoss,
    "sdc": SDCLoss,
}

__all__ = [
    "LOSSES",
    "BiHalfLoss",
    "CSQLoss",
    "ContrastiveLoss",
    "GreedyHashLoss",
    "HPDHLoss",
    "HashNetLoss",
    "HierarchicalContrastiveLoss",
    "KLLoss",
    "KoLeoLoss",
    "ListwiseLoss",
    "OrthoHashLoss",
    "SDCLoss",
    "SignCrossEntropyLoss",
    "SimilarityLoss",
    "default_weight",
    "kl_loss",
    "koleo_loss",
    "listwise_loss",
    "similarity_loss",
]
