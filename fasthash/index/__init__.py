"""Search over packed codes with ids: HammingIndex, exact, in memory or in a folder; AnchorIndex, in two stages."""

from typing import TYPE_CHECKING

from fasthash._moved import moved_names
from fasthash.index.anchor_index import AnchorIndex
from fasthash.index.errors import IndexFolderError
from fasthash.index.hamming_index import HammingIndex

__all__ = ["AnchorIndex", "HammingIndex", "IndexFolderError"]
if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
