"""python examples/train_backbone.py: your own network learns binary codes of pictures.

The pictures are made here: stripes in two directions, rings and checks, in any colour and position. The network is a
small convolutional one; a network of yours takes its place, with `HashHead` as its last layer.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import fasthash
from fasthash.train import HashHead

KINDS = ["stripes/across", "stripes/along", "round/rings", "square/checks"]
BETWEEN = fasthash.targets.class_distances(  # [4, 4]: stripes are nearer to each other than to rings
    KINDS,
    fasthash.Hierarchy.from_edges(
        [("any", kind.split("/")[0]) for kind in KINDS] + [(kind.split("/")[0], kind) for kind in KINDS]
    ),
)


def pictures(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures float32 [N, 3, 24, 24] and their kinds int64 [N]."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(KINDS), rows)
    down, right = (np.mgrid[:24, :24] + rng.uniform(-6, 6, (rows, 2, 1, 1))).swapaxes(0, 1)  # [N, 24, 24] each
    waves = np.stack([down, right, np.hypot(down - 12, right - 12), np.zeros_like(down)])[y, np.arange(rows)]
    checks = np.sign(np.sin(down)) * np.sign(np.sin(right))
    shape = np.where((y == 3)[:, None, None], checks, np.sin(waves))
    x = 0.5 + 0.3 * rng.uniform(-1, 1, (rows, 3, 1, 1)) * shape[:, None] + 0.1 * rng.normal(size=(rows, 3, 24, 24))
    return torch.from_numpy(x).float(), torch.from_numpy(y)


def main() -> None:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.BatchNorm2d(32)]
    model = nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), HashHead(128, bits=32, scale=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    between = torch.as_tensor(BETWEEN)

    x, y = pictures(1200, seed=0)
    for epoch in range(6):
        for rows in torch.randperm(len(x)).split(100):
            z = model(x[rows])  # [100, 32], in [0, 1]
            distance = fasthash.targets.label_distances(y[rows], between)
            loss = fasthash.listwise_loss(z, distance) + 0.1 * fasthash.kl_loss(z)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    model.eval()
    queries, kinds = pictures(200, seed=1)
    with torch.no_grad():
        database, codes = fasthash.pack_bits(model(x)), fasthash.pack_bits(model(queries))  # 4 bytes a picture
    found = fasthash.hamming_topk(codes, database, 10)
    right = (y[found.ids] == kinds[:, None]).double().mean()
    print(f"{right:.0%} of the 10 nearest are of the same kind (by chance: {1 / len(KINDS):.0%})")


if __name__ == "__main__":
    main()
