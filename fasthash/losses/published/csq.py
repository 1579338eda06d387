"""CSQ, central similarity quantisation: outputs are drawn to a binary centre of their class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fasthash.losses.published.outputs import check_labels, check_outputs, check_sizes, hadamard_centres


class CSQLoss(nn.Module):
    """BCE((tanh u + 1) / 2, (c_y + 1) / 2) + weight mean (|tanh u| - 1)^2, c_y the class's centre of +1 and -1.

    forward(u [B, D] outputs, y) -> scalar; y: classes [B], or multi-hot labels, integers [B, classes]. Centres are rows
    of +-Hadamard where there are enough (2 D), else random balanced ones; they stay fixed, as a buffer. Several labels:
    each bit of c_y is that of most of their centres, in a tie a random one, drawn once for each bit. Rows without
    labels count in the second term alone.

    Source: Yuan et al., "Central similarity quantization for efficient image and video retrieval", CVPR 2020. How sure:
    read in public code; weight 1e-4. The vote of several centres is the paper's, restated; rows without labels are
    ours.

    >>> import torch
    >>> loss = CSQLoss(16, classes=3)
    >>> loss(torch.randn(6, 16), torch.arange(6) % 3).shape
    torch.Size([])
    """

    centres: Tensor
    ties: Tensor

    def __init__(self, bits: int, classes: int, *, weight: float = 1e-4, seed: int = 0) -> None:
        super().__init__()
        check_sizes("CSQLoss", bits=bits, classes=classes)
        self.weight = weight
        self.register_buffer("centres", hadamard_centres(classes, bits, both_signs=True, seed=seed))
        draws = torch.rand(bits, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float32)
        self.register_buffer("ties", torch.where(draws < 0.5, -1.0, 1.0).float(), persistent=False)

    def forward(self, u: Tensor, y: Tensor | None = None) -> Tensor:
        u = check_outputs("CSQLoss", u)
        labels = check_labels("CSQLoss", y, len(u), len(self.centres))
        if labels.dim() == 1:
            wanted, counted = self.centres[labels], None
        else:
            votes = labels.to(self.centres) @ self.centres
            wanted = torch.where(votes == 0, self.ties, votes.sign())
            has_label = labels.any(1, keepdim=True).to(u.dtype)
            counted = has_label * (len(u) / has_label.sum().clamp(min=1))  # weights of mean 1
        wanted = (wanted.to(u.dtype) + 1) / 2
        # (tanh u + 1) / 2 is sigmoid(2 u): from logits, saturated outputs keep their gradient.
        central = binary_cross_entropy_with_logits(2 * u, wanted, counted)
        return central + self.weight * (u.tanh().abs() - 1).square().mean()
