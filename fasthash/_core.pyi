"""The compiled kernels, over raw addresses. fasthash/_ops/ alone calls them; csrc/*/*.h are the contracts."""

__version__: str
compiler: str
cuda_architectures: str

def isa_names() -> list[str]: ...
def isa_chosen() -> str: ...
def isa_force(name: str) -> None: ...

class HammingProblem:
    def __init__(self, queries: int, database: int, mask: int, Q: int, N: int, W: int, stride: int) -> None: ...

class NearestProblem:
    def __init__(self, x: int, y: int, L: int, N: int, M: int, D: int, K: int, y_stride: int, p: int) -> None: ...

class MihTables:
    def __init__(self, tables: list[tuple[int, int, int, int, int]], bits: int, fingerprint_bytes: int) -> None: ...

def hamming_topk_cpu(p: HammingProblem, K: int, distances: int, ids: int, threads: int) -> None: ...
def hamming_range_count_cpu(p: HammingProblem, radius: int, counts: int, threads: int) -> None: ...
def hamming_range_fill_cpu(
    p: HammingProblem, radius: int, offsets: int, distances: int, ids: int, threads: int
) -> None: ...
def hamming_distances_cpu(p: HammingProblem, distances: int, threads: int) -> None: ...
def hamming_histogram_cpu(
    p: HammingProblem, labels: int, weights: int, C: int, counts: int, sums: int, threads: int
) -> None: ...
def asymmetric_distances_cpu(
    queries: int, codes: int, Q: int, C: int, D: int, W: int, distances: int, threads: int
) -> None: ...
def mih_offsets_cpu(p: HammingProblem, start: int, length: int, offsets: int, threads: int) -> None: ...
def mih_fill_cpu(
    p: HammingProblem, t: MihTables, table: int, first: int, last: int, fingerprints: int, positions: int, threads: int
) -> None: ...
def mih_topk_cpu(
    p: HammingProblem,
    t: MihTables,
    K: int,
    bounds: int,
    share: float,
    distances: int,
    ids: int,
    visited: int,
    threads: int,
) -> None: ...
def mih_range_cpu(
    p: HammingProblem,
    t: MihTables,
    radius: int,
    share: float,
    capacity: int,
    offsets: int,
    distances: int,
    ids: int,
    visited: int,
    threads: int,
) -> None: ...
def nearest_cpu(f64: bool, p: NearestProblem, distances: int, indices: int, threads: int) -> None: ...
def nearest_backward_cpu(
    f64: bool,
    p: NearestProblem,
    weights: int,
    distances: int,
    indices: int,
    C: int,
    grad_x: int,
    grad_y: int,
    threads: int,
) -> None: ...
def kl_loss_cpu(
    f64: bool,
    p: NearestProblem,
    eps: float,
    loss: int,
    nu: int,
    nu_index: int,
    rho: int,
    rho_index: int,
    threads: int,
) -> None: ...
def kl_loss_backward_cpu(
    f64: bool,
    p: NearestProblem,
    eps: float,
    grad_loss: int,
    nu: int,
    nu_index: int,
    rho: int,
    rho_index: int,
    grad_z: int,
    grad_target: int,
    threads: int,
) -> None: ...
def pairwise_l1_cpu(f64: bool, z: int, B: int, D: int, distances: int, threads: int) -> None: ...
def pairwise_l1_backward_cpu(f64: bool, z: int, grad: int, B: int, D: int, grad_z: int, threads: int) -> None: ...
def beta_sample_cpu(seed: int, count: int, out: int, threads: int) -> None: ...
