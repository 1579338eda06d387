"""Pictures that tests generate: three classes that differ by colour and pattern, and files that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fasthash.train import HashHead

CLASSES = ("checks", "dots", "stripes")


def picture(kind: str, number: int, size: int = 40) -> Image.Image:
    """A picture of one of CLASSES, with colours and noise of its own."""
    rng = np.random.default_rng([CLASSES.index(kind), number])
    rows, columns = np.indices((size, size)) // 5
    shape = {"checks": (rows + columns) % 2, "dots": (rows % 2) * (columns % 2), "stripes": columns % 2}[kind]
    base = np.eye(3)[CLASSES.index(kind)] * 120 + 60
    values = shape[..., None] * base + rng.normal(40, 12, (size, size, 3)) + rng.normal(0, 10, 3)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def picture_folder(folder: Path, each: int = 20) -> Path:
    """`each` PNG files of every class, in a folder of its name."""
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for number in range(each):
            picture(kind, number).save(folder / kind / f"{number:03}.png")
    return folder


class Net(nn.Module):
    """A small network of pictures [B, 3, H, W] -> [B, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.head = HashHead(72, 16)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(self.body(x))
        return z


def build() -> Net:
    """What --module picture_cases:build makes."""
    return Net()


def seeded_net(seed: int = 0) -> Net:
    """A Net with weights of this seed, whose norms have seen pictures."""
    torch.manual_seed(seed)
    net = Net().train()
    for _ in range(20):
        net(torch.rand(32, 3, 16, 16))
    return net.eval()
