"""Losses over a batch of outputs z in [0, 1]: functions, and modules that keep their settings. One file for each loss.

They are terms of this package's objective. `fasthash.losses.published` has the losses of other papers.
"""

from typing import TYPE_CHECKING

from fasthash._moved import moved_names
from fasthash.losses import published
from fasthash.losses.kl import KLLoss, kl_loss
from fasthash.losses.koleo import KoLeoLoss, koleo_loss
from fasthash.losses.listwise import ListwiseLoss, listwise_loss
from fasthash.losses.published.code_distance import code_distance_bounds
from fasthash.losses.similarity import SimilarityLoss, default_weight, similarity_loss

__all__ = [
    "KLLoss",
    "KoLeoLoss",
    "ListwiseLoss",
    "SimilarityLoss",
    "code_distance_bounds",
    "default_weight",
    "kl_loss",
    "koleo_loss",
    "listwise_loss",
    "published",
    "similarity_loss",
]

if not TYPE_CHECKING:  # a type checker should still see that a name is misspelled
    __getattr__ = moved_names(__name__)
