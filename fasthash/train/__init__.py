"""Learning: estimators of codes, and the parts they are made of for any module and loader.

Hasher and AsymmetricHasher are for embeddings, CIMON for rows in two views without labels, CrossModalHasher for pairs
of embeddings of two modalities, TextHasher for bags of words, GraphHasher for edges.

The package can be called: `fasthash.train(module, loader, objective)` is `fasthash.train.train`.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from fasthash._moved import moved_names
from fasthash.train.asymmetric_hasher import AsymmetricHasher
from fasthash.train.cimon import CIMON
from fasthash.train.cross_modal_hasher import CrossModalHasher
from fasthash.train.encode import encode
from fasthash.train.encoder import HashHead, encoder
from fasthash.train.episode_batches import EpisodeBatches
from fasthash.train.estimator import NotFittedError
from fasthash.train.export import CodeModule, export
from fasthash.train.graph_hasher import GraphHasher
from fasthash.train.hasher import Hasher
from fasthash.train.loop import History, train
from fasthash.train.objective import Objective
from fasthash.train.text_hasher import TextHasher
from fasthash.train.weights import load_weights

__all__ = [
    "CIMON",
    "AsymmetricHasher",
    "CodeModule",
    "CrossModalHasher",
    "EpisodeBatches",
    "GraphHasher",
    "HashHead",
    "Hasher",
    "History",
    "NotFittedError",
    "Objective",
    "TextHasher",
    "encode",
    "encoder",
    "export",
    "load_weights",
    "train",
]
if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)


class _Callable(ModuleType):
    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable
