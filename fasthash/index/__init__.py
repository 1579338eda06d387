"""HammingIndex: exact search over packed binary codes with ids, in memory or in a folder."""

from fasthash._moved import moved_names
from fasthash.index.flat import HammingIndex
from fasthash.index.untrusted import IndexFolderError

__all__ = ["HammingIndex", "IndexFolderError"]
__getattr__ = moved_names(__name__)
