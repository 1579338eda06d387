"""HammingIndex: exact search over packed binary codes with ids, in memory or in a folder."""

from typing import TYPE_CHECKING

from fasthash._moved import moved_names
from fasthash.index.errors import IndexFolderError
from fasthash.index.hamming_index import HammingIndex

__all__ = ["HammingIndex", "IndexFolderError"]
if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
