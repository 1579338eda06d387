"""The last module of a SentenceTransformer whose signs are codes of a linear map, such as ITQ."""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.modules import Dense

from fasthash.baselines import LinearCodes


def linear_codes_module(codes: LinearCodes) -> Dense:
    """A Dense module [B, F] -> [B, bits] whose outputs are `codes.transform` of the embeddings.

    `model.encode(texts, precision="ubinary")` of a model that ends in it gives `codes.encode` of the embeddings. It is
    a module of sentence-transformers itself, so that the model is saved and loaded as any other. Its float embeddings
    are others than before: they have their mean at 0.

        rotation = fasthash.baselines.itq(model.encode(texts), bits=384)
        model.append(linear_codes_module(rotation))
        codes = model.encode(texts, precision="ubinary")  # uint8 [N, 48]

    Raises TypeError for anything but what `fasthash.baselines.itq`, `pca_sign` or `lsh` give.
    """
    if not isinstance(codes, LinearCodes):
        raise TypeError(f"linear_codes_module: codes must be LinearCodes, got {type(codes).__name__}")
    weights = codes.weights.detach().float().cpu()
    bias = -(codes.mean.detach().double().cpu() @ weights.double()).float()
    return Dense(
        codes.n_features_in_, codes.bits, activation_function=torch.nn.Identity(),
        init_weight=weights.T.contiguous(), init_bias=bias,
    )  # fmt: skip
