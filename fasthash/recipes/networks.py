"""The networks of the recipes: a backbone and a hash head."""

from __future__ import annotations

from os import PathLike

from torch import nn

from fasthash.images.backbones import Backbone, Normalise, Residual, backbone
from fasthash.train import HashHead

NARROW = "narrow"


def _narrow() -> nn.Sequential:
    """A residual network of 77,000 weights for 32 x 32 pixels: [B, 3, 32, 32] -> [B, 64], for runs of minutes."""
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(Normalise(), *stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def network(bits: int, size: int, given: str | nn.Module, weights: str | PathLike[str] | None) -> nn.Sequential:
    """x [B, 3, size, size] in [0, 1] -> outputs [B, bits]; the head starts with scale 1 (docs/method.md)."""
    body, features = backbone(_narrow() if given == NARROW else given, size, weights)
    return nn.Sequential(Backbone(body, frozen=False), HashHead(features, bits, scale=1.0))
