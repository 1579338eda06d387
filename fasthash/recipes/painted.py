"""Pictures that are painted from embeddings, for captions without pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

FIELD = 8  # coloured squares of a side
NOISE = 0.15  # deviation of the noise of each pixel, where the paint has 0.25


def painted(embeddings: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """uint8 [N, size, size, 3] of unit rows [N, E]: a random projection as 8 x 8 soft colours, and noise.

    Near embeddings give alike pictures. The same rows give the same pictures. They say nothing about real ones.
    """
    rng = np.random.default_rng(0)
    width = embeddings.shape[1]
    paint = rng.normal(size=(width, 3 * FIELD * FIELD)).astype(np.float32) * 0.25
    fields = torch.from_numpy(embeddings @ paint).reshape(-1, 3, FIELD, FIELD)
    images = np.empty((len(embeddings), size, size, 3), dtype=np.uint8)
    for start in range(0, len(images), 1000):
        smooth = torch.nn.functional.interpolate(fields[start : start + 1000], size=(size, size), mode="bilinear")
        noisy = smooth.numpy() + 0.5 + rng.normal(0, NOISE, smooth.shape)
        images[start : start + 1000] = (noisy.clip(0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return images
