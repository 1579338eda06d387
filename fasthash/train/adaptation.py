"""A trained network for another corpus: the same weights, with that corpus's means and batch-norm statistics."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn

from fasthash.train.encoder import HashHead, Standardize
from fasthash.train.features import Features

ROWS = 8192


@torch.no_grad()
def adapted(module: nn.Module, features: Features, *, rotate: bool) -> nn.Module:
    """A copy of the module for these features; statistics are averaged over blocks of equal size (Li et al.,
    "Revisiting batch normalization for practical domain adaptation", 2016).

    rotate: of a linear encoder keep the directions alone, as the nearest orthonormal ones, and bits that are on as
    often as off. Where X itself was the target, training stretched the map along the old corpus's directions.
    """
    copied = copy.deepcopy(module).eval()
    if rotate:
        head = next(part for part in copied.modules() if isinstance(part, HashHead))
        left, _, right = torch.linalg.svd(head.linear.weight.double(), full_matrices=False)
        head.linear.weight.copy_(left @ right)
        head.norm.bias.zero_()
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
