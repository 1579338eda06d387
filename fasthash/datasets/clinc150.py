"""Data inside the package: clinc150, short texts with sentence embeddings and a two-level hierarchy of intents."""

from __future__ import annotations

import csv
import gzip
import io
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fasthash.hierarchy import Hierarchy

_CLINC150_SPLITS = {"train": slice(0, 15_000), "val": slice(15_000, 18_000), "test": slice(18_000, 22_500)}


class Clinc150(NamedTuple):
    """One split of clinc150; row i of each belongs together."""

    texts: list[str]
    embeddings: NDArray[np.float32]  # [N, 384], unit length
    intents: NDArray[np.int64]  # [N], 0..149: the leaves of `clinc150_hierarchy`
    domains: NDArray[np.int64]  # [N], 0..9


class Clinc150Names(NamedTuple):
    """Names of the classes of clinc150, by number."""

    intents: list[str]  # 150
    domains: list[str]  # 10
    domain_of: NDArray[np.int64]  # [150], the domain of each intent


def clinc150(split: str) -> Clinc150:
    """Texts, sentence embeddings and classes of the "train" (15,000), "val" (3,000) or "test" (4,500) split.

    Short English questions and requests of 150 intents in 10 domains: Larson et al., "An Evaluation Dataset for Intent
    Classification and Out-of-Scope Prediction", EMNLP-IJCNLP 2019, CC BY 3.0; embeddings of all-MiniLM-L6-v2, rounded
    to 8 bits a dimension. The notices are beside the data, in fasthash/data/clinc150. Raises ValueError for another
    split.

    >>> test = clinc150("test")
    >>> test.embeddings.shape, clinc150_names().intents[test.intents[0]], test.texts[0]
    ((4500, 384), 'translate', 'how would you say fly in italian')
    """
    if split not in _CLINC150_SPLITS:
        raise ValueError(f'clinc150: split must be "train", "val" or "test", got {split!r}')
    rows = _CLINC150_SPLITS[split]
    texts, steps, intents = _clinc150_rows()
    embeddings = steps[rows].astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    classes = intents[rows].astype(np.int64)
    return Clinc150(texts[rows], embeddings, classes, clinc150_names().domain_of[classes])


def clinc150_names() -> Clinc150Names:
    """Names of the 150 intents and 10 domains, and the domain of each intent.

    >>> names = clinc150_names()
    >>> names.intents[0], names.domains[names.domain_of[0]]
    ('accept_reservations', 'kitchen_and_dining')
    """
    table = list(csv.DictReader(io.StringIO(_read("intents.tsv").decode("utf-8")), delimiter="\t"))
    domains = {int(row["domain"]): row["domain_name"] for row in table}
    domain_of = np.array([int(row["domain"]) for row in table], dtype=np.int64)
    return Clinc150Names([row["name"] for row in table], [domains[i] for i in range(len(domains))], domain_of)


def clinc150_hierarchy() -> Hierarchy:
    """The hierarchy of the classes: domain names above intent numbers, so two intents of one domain have distance 0.5.

    >>> clinc150_hierarchy()
    Hierarchy(160 names, 150 edges, 150 leaves, height 2)
    """
    names = clinc150_names()
    return Hierarchy.from_edges((names.domains[domain], intent) for intent, domain in enumerate(names.domain_of))


@lru_cache(maxsize=1)
def _clinc150_rows() -> tuple[list[str], NDArray[np.int8], NDArray[np.uint8]]:
    """Texts, embedding directions int8 [22500, 384] and intents uint8 [22500] of all splits, in file order."""
    texts = gzip.decompress(_read("texts.txt.gz")).decode("utf-8").split("\n")[:-1]
    with np.load(io.BytesIO(_read("embeddings.npz")), allow_pickle=False) as archive:
        steps: NDArray[Any] = archive["steps"]
        intents: NDArray[Any] = archive["intents"]
    return texts, steps, intents


def _read(name: str) -> bytes:
    return (files("fasthash") / "data" / "clinc150" / name).read_bytes()
