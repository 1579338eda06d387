"""The residual block of the benchmarks' networks for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Two 3 x 3 convolutions and a way around them: [B, channels_in, H, W] -> [B, channels, H / stride, W / stride]."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and channels_in == channels
        self.around: nn.Module = nn.Identity()
        if not same:
            around = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.around = nn.Sequential(around, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.body(x) + self.around(x))
        return result
