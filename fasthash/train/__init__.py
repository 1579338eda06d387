"""Learning: Hasher for embeddings, and the parts it is made of for any module and loader."""

from fasthash.train.encoder import HashHead, encoder
from fasthash.train.hasher import Hasher
from fasthash.train.loop import History, train
from fasthash.train.objective import Objective

__all__ = ["HashHead", "Hasher", "History", "Objective", "encoder", "train"]
