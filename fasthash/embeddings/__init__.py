"""Embeddings in, answers out: EmbeddingIndex, and how much it finds of what an exact search finds."""

from fasthash.embeddings.embedding_index import EmbeddingIndex
from fasthash.embeddings.exact import against_exact
from fasthash.embeddings.scores import EmbeddingResult

__all__ = ["EmbeddingIndex", "EmbeddingResult", "against_exact"]
