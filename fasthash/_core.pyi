"""The compiled kernels, over raw addresses. fasthash/_ops/ alone calls them; csrc/*/*.h are the contracts.

Kernels are called by name (fasthash/_ops/registry.py), so only what is written out in Python is declared one by one.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

__version__: str
compiler: str
cuda_architectures: str

def isa_names() -> list[str]: ...
def isa_chosen() -> str: ...
def isa_force(name: str) -> None: ...

class Dtype(Enum):
    float32 = 0
    float64 = 1

class HammingProblem:
    def __init__(
        self,
        queries: int,
        database: int,
        mask: int,
        Q: int,
        N: int,
        W: int,
        stride: int,
        bit_weights: Sequence[int] = (),
    ) -> None: ...

class AsymmetricProblem:
    def __init__(
        self,
        queries: int,
        dtype: Dtype,
        database: int,
        mask: int,
        scales: int,
        Q: int,
        D: int,
        N: int,
        W: int,
        stride: int,
        metric: int,
        bit_weights: Sequence[int],
    ) -> None: ...

class NearestProblem:
    def __init__(
        self, x: int, y: int, L: int, N: int, M: int, D: int, K: int, y_stride: int, p: int, dtype: Dtype
    ) -> None: ...

class PairwiseProblem:
    def __init__(self, z: int, B: int, D: int, dtype: Dtype) -> None: ...

class MihTables:
    def __init__(self, tables: list[tuple[int, int, int, int, int]], bits: int, fingerprint_bytes: int) -> None: ...

class PairsJoin:
    plan: int
    def __init__(
        self,
        a: int,
        b: int,
        Na: int,
        Nb: int,
        W: int,
        stride_a: int,
        stride_b: int,
        radius: int,
        plan: int,
        bit_weights: Sequence[int],
        threads: int,
    ) -> None: ...
    def find(self, first: int, last: int, most: int, threads: int) -> int: ...
    def write(self, ids_a: int, ids_b: int, distances: int, threads: int) -> None: ...
    def unite(self, first_a: int, first_b: int, parents: int, threads: int) -> None: ...
    def stars(self, most: int, representatives: int, threads: int) -> None: ...
    def lowest(self, rows: int, threads: int) -> None: ...
    def knn(self, K: int, distances: int, ids: int, threads: int) -> None: ...

def pairs_roots(parents: int, N: int) -> None: ...
def __getattr__(name: str) -> Any: ...
