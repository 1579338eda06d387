"""Every torch op of the package: allocate, call the kernel, shape for tracing, gradient. No user API.

Each op is defined once in the `fasthash::` namespace with one implementation for CPU and CUDA tensors. Public functions
check their arguments before they come here; an op called directly is for tests and tracing.
"""

from fasthash._ops import asymmetric, asymmetric_topk, hamming, mih, neighbors, pairs, pairwise, sampling
from fasthash._ops.build_info import compiler, cuda_architectures, isa_chosen, isa_names, set_isa
from fasthash._ops.hamming import mask_words

__all__ = [
    "asymmetric",
    "asymmetric_topk",
    "compiler",
    "cuda_architectures",
    "hamming",
    "isa_chosen",
    "isa_names",
    "mask_words",
    "mih",
    "neighbors",
    "pairs",
    "pairwise",
    "sampling",
    "set_isa",
]
