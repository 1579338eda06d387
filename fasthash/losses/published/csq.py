"""CSQ, central similarity quantisation: outputs are drawn to a binary centre of their class."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fasthash.losses.published.outputs import check_classes, check_outputs, check_sizes, hadamard_centres


class CSQLoss(nn.Module):
    """BCE((tanh u + 1) / 2, (c_y + 1) / 2) + weight mean (|tanh u| - 1)^2, c_y the class's centre of +1 and -1.

    forward(u [B, D] outputs, y [B] classes) -> scalar. Centres are rows of +-Hadamard where there are enough (2 D),
    else random balanced ones; they stay fixed, as a buffer. Source: Yuan et al., "Central similarity quantization for
    efficient image and video retrieval", CVPR 2020. How sure: read in public code; weight 1e-4.

    >>> import torch
    >>> loss = CSQLoss(16, classes=3)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    centres: Tensor

    def __init__(self, bits: int, classes: int, *, weight: float = 1e-4, seed: int = 0) -> None:
        super().__init__()
        check_sizes("CSQLoss", bits=bits, classes=classes)
        self.weight = weight
        self.register_buffer("centres", hadamard_centres(classes, bits, both_signs=True, seed=seed))

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("CSQLoss", u)
        wanted = (self.centres[check_classes("CSQLoss", y, len(u))].to(u.dtype) + 1) / 2
        # (tanh u + 1) / 2 is sigmoid(2 u): from logits, saturated outputs keep their gradient.
        central = binary_cross_entropy_with_logits(2 * u, wanted)
        return central + self.weight * (u.tanh().abs() - 1).square().mean()
