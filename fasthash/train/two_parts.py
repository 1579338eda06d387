"""Codes of two parts: the first bits say the class and its place in the hierarchy, the last ones the order inside it.

One code cannot serve both wishes with the same bits: terms for the order inside a class cost undivided codes the class.
With bits of their own they hardly disturb each other. The distance of two codes is

    CLASS_WEIGHT x Hamming(class part) + Hamming(item part),

and their plain Hamming distance stays useful, because the class part has most of the bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fasthash.losses import kl_loss, listwise_loss
from fasthash.targets import embedding_distances
from fasthash.train.encoder import encoder, without_sigmoid
from fasthash.train.objective import Objective

CLASS_WEIGHT = 4
# Of the listwise term inside a class; the first is in units of the mean distance there.
TEMPERATURE_Y, TEMPERATURE_Z = 0.25, 0.1
NOISE = 0.3  # standard deviation; added to standardised inputs of the item part, so that rows not trained on gain


def bit_weights(bits: int, item_bits: int) -> list[tuple[int, int]] | None:
    """Weights of the parts, as `fasthash.hamming_topk` takes them; None for undivided codes.

    >>> bit_weights(64, 20)
    [(44, 4), (20, 1)]
    """
    return [(bits - item_bits, CLASS_WEIGHT), (item_bits, 1)] if item_bits else None


class TwoPartEncoder(nn.Module):
    """Two networks over the same standardised input: x [B, F] -> z [B, bits], the class part and then the item part.

    forward(x, mates): the item part is that of the rows `mates` [B, F] instead, with noise, as training needs it: the
    class part learns from random rows, the item part from rows that share their classes.
    """

    def __init__(self, standard: nn.Module, class_part: nn.Sequential, item_part: nn.Sequential) -> None:
        super().__init__()
        self.standard, self.class_part, self.item_part = standard, class_part, item_part
        self.noise = NOISE  # torch.jit.script reads attributes, and no names of the module

    def forward(self, x: Tensor, mates: Tensor | None = None) -> Tensor:
        x = self.standard(x)
        items = x
        if mates is not None:
            items = self.standard(mates)
            items = items + self.noise * torch.randn_like(items)
        return torch.cat([self.class_part(x), self.item_part(items)], dim=1)

    def without_sigmoid(self) -> TwoPartEncoder:
        """The same weights, with outputs before the sigmoid."""
        parts = (without_sigmoid(*part.children()) for part in (self.class_part, self.item_part))
        return TwoPartEncoder(self.standard, *parts)


def two_part_encoder(features: int, bits: int, item_bits: int, *, hidden: tuple[int, ...], **more: Any) -> nn.Module:
    """The `fasthash.train.encoder.encoder` of the class part, and one for the items with as many units in one layer.

    No dropout in that one, which has noise in its inputs instead.

    >>> two_part_encoder(384, 64, 16, hidden=(128, 128))(torch.randn(4, 384)).shape
    torch.Size([4, 64])
    """
    standard, *class_part = encoder(features, bits - item_bits, hidden=hidden, **more)
    width = (sum(hidden),) if hidden else ()
    _, *item_part = encoder(features, item_bits, hidden=width, **{**more, "dropout": 0.0})
    return TwoPartEncoder(standard, nn.Sequential(*class_part), nn.Sequential(*item_part))


class TwoPartObjective(nn.Module):
    """`objective` for the class part, and for the item part a listwise term inside the classes and the KL term.

    forward(z [B, bits], y, mates [B, F], groups [B]): y are the targets of the class part; the item part is that of
    `mates`, whose cosine distances it keeps inside each of the groups. The KL term of both parts has the same weight.
    """

    def __init__(self, objective: Objective, item_bits: int) -> None:
        super().__init__()
        self.classes, self.item_bits, self.kl = objective, item_bits, objective.weights["kl"]

    def forward(self, z: Tensor, y: Tensor, mates: Tensor, groups: Tensor) -> Tensor:
        item = z[:, -self.item_bits :]
        wanted = embedding_distances(mates)
        together = (groups[:, None] == groups).fill_diagonal_(False)
        usual = (wanted * together).sum() / together.sum().clamp(min=1)
        wanted = wanted / usual.clamp(min=torch.finfo(wanted.dtype).eps)
        order = listwise_loss(item, wanted, temperature_y=TEMPERATURE_Y, temperature_z=TEMPERATURE_Z, groups=groups)
        loss: Tensor = self.classes(z[:, : -self.item_bits], y) + order
        return loss + self.kl * kl_loss(item, k=self.classes.kl_k) if self.kl else loss
