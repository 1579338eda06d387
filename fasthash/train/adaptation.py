"""A trained network for another corpus: the same weights, with that corpus's means and batch-norm statistics."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from fasthash.train.encoder import Standardize
from fasthash.train.features import Features

ROWS = 8192


@torch.no_grad()
def adapted(module: nn.Module, features: Features) -> nn.Module:
    """A copy of the module for these features; statistics are averaged over blocks of equal size (Li et al.,
    "Revisiting batch normalization for practical domain adaptation", 2016).
    """
    copied = copy.deepcopy(module).eval()
    device = next(copied.parameters()).device
    for part in copied.modules():
        if isinstance(part, Standardize):
            own = features.standard.to(device)
            part.mean, part.deviation, part.limit = own.mean, own.deviation, own.limit
    norms = [part for part in copied.modules() if isinstance(part, nn.BatchNorm1d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all blocks
        norm.train()
    for block in features.rows.tensor_split(math.ceil(len(features.rows) / ROWS)):
        copied(block.to(device))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
        norm.eval()
    return copied
