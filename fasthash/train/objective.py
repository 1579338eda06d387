"""The training objective: a weighted sum of terms, any of which can be off."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from fasthash._arguments import choice, number
from fasthash._directions import unless_all_zero
from fasthash._labels import one_column
from fasthash.losses import SimilarityLoss, kl_loss, listwise_loss
from fasthash.targets import embedding_distances, label_distances

Distance = Callable[[Tensor], Tensor]
LABELLED = 0.05  # in preserve: a row that has a y, as a part of one that was drawn; more costs the trained classes


class Objective(nn.Module):
    """Sum of weighted terms over a batch: forward(z [B, bits], y=None, features=None, drawn=None) -> scalar.

    A term of weight 0 is not computed, and what it needs may be missing.

    - classification: a linear classifier on 2 z - 1, trained along and not needed afterwards. y: class indices [B] or
      [B, 1] (cross-entropy), or with `multilabel` 0 and 1 [B, classes]: cross-entropy whose target is shared equally by
      the labels of a row; rows without labels do not count.
      `soft_labels` T > 0: the target is softmax_j(-d_yj / T) over all classes, not y alone, so that a near class is the
      smaller mistake (Bertinetto et al., "Making better mistakes", 2020); d is `distance`, which is a matrix then.
    - similarity: distances between outputs follow the semantic distances, `distance(y)` [B, B]: "listwise" in order and
      sharpness (`fasthash.listwise_loss`), "stress" in size (`fasthash.similarity_loss` with a running scale).
      `distance` is a function of y, or a matrix [C, C] for class indices y.
    - kl: `fasthash.kl_loss` against nearly binary samples, by the `kl_k`-th neighbours. Rounding then loses little, and
      items of one class keep different codes.
    - preserve: listwise with the cosine distances of `features` [B, F], to keep the input's own neighbours.

    drawn: which rows of z (and of features) are synthetic, without a label, boolean [B] (see
    `fasthash.train.drawn_rows`); y is that of the others. Only kl and preserve see them; in the mean of preserve a row
    that is not drawn counts a twentieth. temperature_y, temperature_z: as in `listwise_loss`; in preserve temperature_x
    and temperature_xz take their places. The defaults are those that `Hasher` has for class labels.
    Raises ValueError for a weight below 0, for weights that are all 0, and for a term that lacks what it needs.

    >>> import torch
    >>> objective = Objective(8, classes=3, distance=1.0 - torch.eye(3))
    >>> z, y = torch.rand(16, 8), torch.arange(16) % 3
    >>> objective(z, y).shape, sorted(objective.terms(z, y))
    (torch.Size([]), ['classification', 'kl', 'similarity'])
    """

    matrix: Tensor | None

    def __init__(
        self,
        bits: int,
        *,
        classes: int = 0,
        multilabel: bool = False,
        distance: Distance | Tensor | None = None,
        classification: float = 1.0,
        soft_labels: float = 0.0,
        similarity: str = "listwise",
        similarity_weight: float = 1.0,
        kl: float = 0.1,
        kl_k: int = 1,
        preserve: float = 0.0,
        temperature_y: float = 0.15,
        temperature_z: float = 0.1,
        temperature_x: float = 0.15,
        temperature_xz: float = 0.05,
    ) -> None:
        super().__init__()
        weights = {
            "classification": classification,
            "similarity_weight": similarity_weight,
            "kl": kl,
            "preserve": preserve,
        }
        self.weights = {name: number(weight, "Objective", name, least=0) for name, weight in weights.items()}
        if not any(self.weights.values()):
            raise ValueError("Objective: at least one weight must be above 0, got 0 for all")
        choice(similarity, "Objective", "similarity", ("listwise", "stress"))
        if classification and classes < 1:
            raise ValueError(f"Objective: classification needs classes >= 1, got {classes}")
        soft_labels = number(soft_labels, "Objective", "soft_labels", least=0)
        if classification and soft_labels:
            if multilabel or not isinstance(distance, Tensor):
                got = "multilabel" if multilabel else "none" if distance is None else "a function"
                raise ValueError(f"Objective: soft_labels needs class distances, a matrix, got {got}")
            if distance.shape != (classes, classes):
                raise ValueError(
                    f"Objective: soft_labels needs distances of {classes} classes, got shape {tuple(distance.shape)}"
                )
        if similarity_weight and distance is None:
            raise ValueError("Objective: similarity needs a distance, got None")
        self.classifier = nn.Linear(bits, classes) if classification else None
        self.stress = SimilarityLoss() if similarity == "stress" else None
        self.distance = None if isinstance(distance, Tensor) else distance
        self.register_buffer("matrix", distance if isinstance(distance, Tensor) else None)
        self.multilabel, self.soft_labels, self.kl_k = multilabel, soft_labels, kl_k
        self.temperature_y, self.temperature_z, self.temperature_x = temperature_y, temperature_z, temperature_x
        self.temperature_xz = temperature_xz

    def forward(
        self, z: Tensor, y: Tensor | None = None, features: Tensor | None = None, drawn: Tensor | None = None
    ) -> Tensor:
        total = z.new_zeros(())
        for name, term in self.terms(z, y, features, drawn).items():
            total = total + self.weights["similarity_weight" if name == "similarity" else name] * term
        return total

    def terms(
        self, z: Tensor, y: Tensor | None = None, features: Tensor | None = None, drawn: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The terms that are on, by name, before they are weighted. A z that is 0 everywhere gets no gradient."""
        z = unless_all_zero(z)
        terms: dict[str, Tensor] = {}
        if y is not None and not self.multilabel:
            y = one_column(y)
        own = z if drawn is None else z[~drawn]
        if self.classifier is not None:
            terms["classification"] = self._classification(self.classifier(2.0 * own - 1.0), _given(y, "y"))
        if self.weights["similarity_weight"]:
            terms["similarity"] = self._similarity(own, _given(y, "y"))
        if self.weights["kl"]:
            terms["kl"] = kl_loss(z, k=self.kl_k)
        if self.weights["preserve"]:
            wanted = embedding_distances(_given(features, "features"))
            terms["preserve"] = listwise_loss(
                z,
                wanted,
                temperature_y=self.temperature_x,
                temperature_z=self.temperature_xz,
                weights=None if drawn is None else torch.where(drawn, 1.0, LABELLED),
            )
        return terms

    def _classification(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.multilabel:
            labels = y.to(logits.dtype)
            has = labels.any(1).sum().clamp(min=1)
            return -(labels / labels.sum(1, keepdim=True).clamp(min=1) * log_softmax(logits, 1)).sum() / has
        if self.soft_labels and self.matrix is not None:
            return cross_entropy(logits, (self.matrix[y.long()] / -self.soft_labels).softmax(-1).to(logits.dtype))
        return cross_entropy(logits, y.long())

    def _similarity(self, z: Tensor, y: Tensor) -> Tensor:
        wanted = label_distances(y, self.matrix) if self.distance is None else self.distance(y)
        if self.stress is not None:
            loss: Tensor = self.stress(z, wanted)
            return loss
        return listwise_loss(z, wanted, temperature_y=self.temperature_y, temperature_z=self.temperature_z)


def _given(value: Tensor | None, name: str) -> Tensor:
    if value is None:
        raise ValueError(f"Objective: a term that is on needs {name}, got None")
    return value
