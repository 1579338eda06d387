"""A loss modifier for sentence-transformers: what a loss teaches stays when embeddings are rounded to bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from fasthash._arguments import number
from fasthash._directions import directions, unit_rows
from fasthash.losses import kl_loss, listwise_loss

# The embeddings of one forward pass: for each column of texts a list of mini-batches [b, D].
Columns = list[list[Tensor]]


class BinaryQuantizationLoss(nn.Module):
    """Any loss of sentence-transformers, for a model whose embeddings are stored as one bit a dimension.

    Embeddings e [B, D] get a saturating head: u = sqrt(D) e / |e|, codes c = tanh(saturation u), of which the signs are
    the bits that `model.encode(..., precision="ubinary")` gives. The loss is the sum of

    - the given loss of e, as it is;
    - code_weight x the given loss of c, scaled to the lengths of e;
    - listwise_weight x `listwise_loss` of c to the cosine distances of e: each row's neighbours by codes in the order
      of its neighbours by floats (no gradient to these distances);
    - kl_weight x `kl_loss` of (c + 1) / 2: outputs near 0 and 1, balanced and independent bits.

    The head has no weights and is not in the saved model.

    Args:
        model: the SentenceTransformer that `loss` has.
        loss: a loss of sentence-transformers that calls the model, or caches gradients (`Cached...Loss`).
        code_weight, listwise_weight, kl_weight: >= 0; 0 leaves a term out.
        saturation: > 0; at 2 half of the values of normal embeddings are beyond +-0.87.
        temperature: > 0, of the listwise term, in units of cosine distance, and of the share of bits that differ.

    Labels that are embeddings themselves (`MSELoss`) leave the loss of the codes out.

    Raises ValueError or TypeError: an argument outside these limits; in training, outputs that are no
    [B, D] embeddings.

    Source: the terms are those of this package (Arponen & Bishop 2020 for the KL loss); the form of a modifier is that
    of `MatryoshkaLoss`.

        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

        model = SentenceTransformer("all-MiniLM-L6-v2")
        loss = BinaryQuantizationLoss(model, MultipleNegativesRankingLoss(model))
    """

    def __init__(
        self,
        model: SentenceTransformer,
        loss: nn.Module,
        *,
        code_weight: float = 1.0,
        listwise_weight: float = 0.0,
        kl_weight: float = 0.01,
        saturation: float = 2.0,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        function = "BinaryQuantizationLoss"
        if not isinstance(loss, nn.Module):
            raise TypeError(f"{function}: loss must be a loss of sentence-transformers, got {type(loss).__name__}")
        self.model, self.loss = model, loss
        self.code_weight = number(code_weight, function, "code_weight", least=0)
        self.listwise_weight = number(listwise_weight, function, "listwise_weight", least=0)
        self.kl_weight = number(kl_weight, function, "kl_weight", least=0)
        self.saturation = number(saturation, function, "saturation", above=0)
        self.temperature = number(temperature, function, "temperature", above=0)
        # Such a loss embeds again in its backward pass, when the model is no longer watched.
        self.caches_gradients = bool(getattr(loss, "uses_gradient_cache", False))
        if self.caches_gradients:
            cached: Any = loss
            cached.calculate_loss = self._of_cached(cached.calculate_loss)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        if self.caches_gradients:
            cached: Tensor = self.loss(sentence_features, labels)
            return cached
        features = list(sentence_features)
        seen: list[dict[str, Any]] = []
        with _watched(self.model, _recording(self.model.forward, seen)):
            total: Tensor = self.loss(features, labels)
        columns = [_embeddings(output) for output in seen]
        if self.code_weight and not _are_embeddings(labels, columns):
            codes = [
                {**output, "sentence_embedding": self._as_long(self._codes(e), e)}
                for output, e in zip(seen, columns, strict=True)
            ]
            with _watched(self.model, _replaying(codes)):
                total = total + self.code_weight * self.loss(features, labels)
        return total + self._rounding(torch.cat(columns))

    def get_config_dict(self) -> dict[str, Any]:
        names = ("code_weight", "listwise_weight", "kl_weight", "saturation", "temperature")
        return {"loss": type(self.loss).__name__, **{name: getattr(self, name) for name in names}}

    def _codes(self, embeddings: Tensor) -> Tensor:
        """In [-1, 1], near these where the saturation is high."""
        unit = directions(embeddings.float())
        steepness: float = self.saturation * unit.shape[-1] ** 0.5
        return (steepness * unit).tanh()

    def _as_long(self, codes: Tensor, embeddings: Tensor) -> Tensor:
        """Codes as long as their embeddings, so that losses with margins or distances mean the same."""
        lengths = embeddings.detach().norm(dim=-1, keepdim=True)
        scaled: Tensor = directions(codes).to(embeddings.dtype) * lengths
        return scaled

    def _rounding(self, embeddings: Tensor) -> Tensor:
        """The terms of the codes alone."""
        total = embeddings.new_zeros((), dtype=torch.float32)
        if len(embeddings) < 2 or not (self.listwise_weight or self.kl_weight):
            return total
        outputs = (self._codes(embeddings) + 1) / 2
        if self.listwise_weight:
            unit = unit_rows(embeddings.float())
            distance = (1 - unit @ unit.T).clamp(min=0)
            total = total + self.listwise_weight * listwise_loss(
                outputs, distance, temperature_y=self.temperature, temperature_z=self.temperature
            )
        if self.kl_weight:
            total = total + self.kl_weight * kl_loss(outputs)
        return total

    def _of_cached(self, calculate_loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same sum for a loss that computes on embeddings and leaves their gradients in them."""

        def calculate(columns: Columns, *arguments: Any, **named: Any) -> Tensor:
            total = calculate_loss(columns, *arguments, **named)
            learning = torch.is_grad_enabled()
            if self.code_weight:
                codes = [[self._as_long(self._codes(e), e) for e in column] for column in columns]
                leaves = [[c.detach().requires_grad_(learning) for c in column] for column in codes]
                total = total + self.code_weight * calculate_loss(leaves, *arguments, **named)
                if learning:
                    for code, leaf in zip(chain(*codes), chain(*leaves), strict=True):
                        code.backward(None if leaf.grad is None else self.code_weight * leaf.grad)
            rounding = self._rounding(torch.cat(list(chain(*columns))))
            if learning and rounding.requires_grad:
                rounding.backward()
            return total + rounding.detach()

        return calculate


@contextmanager
def _watched(model: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """The model with another forward; afterwards it is as it was."""
    before = vars(model).get("forward")
    model.forward = forward
    try:
        yield
    finally:
        if before is None:
            del model.forward
        else:
            model.forward = before


def _recording(forward: Callable[..., dict[str, Any]], seen: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def recording(*arguments: Any, **named: Any) -> dict[str, Any]:
        output = forward(*arguments, **named)
        seen.append(dict(output))  # as it was: a loss may change the dictionary
        return output

    return recording


def _replaying(outputs: list[dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    following = iter(outputs)
    return lambda *arguments, **named: next(following)


def _embeddings(output: dict[str, Any]) -> Tensor:
    embeddings = output.get("sentence_embedding")
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2:
        shape = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else None
        raise ValueError(f"BinaryQuantizationLoss: the model must give embeddings [B, D], got shape {shape}")
    return embeddings


def _are_embeddings(labels: Any, columns: list[Tensor]) -> bool:
    """Whether labels are embeddings to be like, whose numbers codes cannot have."""
    return isinstance(labels, Tensor) and labels.ndim >= 2 and labels.shape[-1] == columns[0].shape[-1]
