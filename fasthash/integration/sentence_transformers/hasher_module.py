"""The last module of a SentenceTransformer that gives the codes of a Hasher."""

from __future__ import annotations

import os
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from sentence_transformers.util import load_file_path
from torch import Tensor

from fasthash.train import Hasher

FILE = "hasher.safetensors"


class HasherModule(Module):  # type: ignore[misc]
    """A fitted Hasher behind the modules of a SentenceTransformer: its outputs, as signed numbers z - 1/2 [B, bits].

    `model.encode(texts, precision="ubinary")` of a model that ends in it gives `hasher.encode` of the embeddings,
    packed as everywhere in this package. It is saved and loaded with the model. It learns nothing more.

        hasher = Hasher(bits=64).fit(model.encode(texts), labels)
        model.append(HasherModule(hasher))
        codes = model.encode(texts, precision="ubinary")  # uint8 [N, 8]

    Raises TypeError for anything but a Hasher, ValueError for one that is not fitted.
    """

    def __init__(self, hasher: Hasher) -> None:
        super().__init__()
        if not isinstance(hasher, Hasher):
            raise TypeError(f"HasherModule: hasher must be a Hasher, got {type(hasher).__name__}")
        if getattr(hasher, "module_", None) is None:
            raise ValueError("HasherModule: hasher is not fitted, call fit first")
        self.hasher = hasher

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        embeddings: Tensor = features["sentence_embedding"]
        with torch.no_grad():
            outputs = self.hasher.transform(embeddings.detach().float().cpu())
        features["sentence_embedding"] = (outputs - 0.5).to(embeddings.device)
        return features

    def get_embedding_dimension(self) -> int:
        return int(self.hasher.bits)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        self.hasher.save(os.path.join(output_path, FILE))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> HasherModule:
        """Loads the Hasher that lies beside the model; nothing is unpickled."""
        known = {
            name: kwargs[name] for name in ("token", "cache_folder", "revision", "local_files_only") if name in kwargs
        }
        return cls(Hasher.load(load_file_path(model_name_or_path, FILE, subfolder=subfolder, **known), device="cpu"))
