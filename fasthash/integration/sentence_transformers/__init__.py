"""sentence-transformers: a loss whose embeddings survive rounding, codes from `model.encode`, search of codes.

Needs `pip install sentence-transformers`; docs/sentence-transformers.md has the whole way.
"""

from fasthash.integration.sentence_transformers.binary_loss import BinaryQuantizationLoss
from fasthash.integration.sentence_transformers.hasher_module import HasherModule
from fasthash.integration.sentence_transformers.linear_codes_module import linear_codes_module
from fasthash.integration.sentence_transformers.semantic_search import semantic_search_fasthash

__all__ = ["BinaryQuantizationLoss", "HasherModule", "linear_codes_module", "semantic_search_fasthash"]
