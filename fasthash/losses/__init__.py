"""Losses over a batch of outputs: functions, and modules that keep their settings. One file for each loss."""

from fasthash.losses.kl import KLLoss, kl_loss
from fasthash.losses.koleo import KoLeoLoss, koleo_loss
from fasthash.losses.listwise import ListwiseLoss, listwise_loss
from fasthash.losses.similarity import SimilarityLoss, default_weight, similarity_loss

__all__ = [
    "KLLoss",
    "KoLeoLoss",
    "ListwiseLoss",
    "SimilarityLoss",
    "default_weight",
    "kl_loss",
    "koleo_loss",
    "listwise_loss",
    "similarity_loss",
]
