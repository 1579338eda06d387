"""Every torch op of the package: allocate, call the kernel, shape for tracing, gradient. No user API.

Each op is defined once in the `fasthash::` namespace with one implementation for CPU and CUDA tensors. Public functions
check their arguments before they come here; an op called directly is for tests and tracing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fasthash import _core

_core.isa_chosen()  # a FASTHASH_ISA that names nothing available is an error now, not at the first search

_library = torch.library.Library("fasthash", "DEF")


def cuda_architectures() -> list[str]:
    """The CUDA architectures that were built; [] for a CPU-only build."""
    return _core.cuda_architectures.split()


def isa_names() -> list[str]:
    """Instruction sets that this machine can run, the preferred one last."""
    return _core.isa_names()


def isa_chosen() -> str:
    """The instruction set in use."""
    return _core.isa_chosen()


def set_isa(name: str) -> None:
    """For tests: replaces the instruction set in use; "" returns to the best."""
    _core.isa_force(name)


def _define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Registers one op: `run` does the work on CPU and CUDA tensors, `fake` gives empty outputs of the same shapes."""
    name = schema[: schema.index("(")]
    _library.define(schema)
    _library.impl(name, run, "CPU")
    _library.impl(name, run, "CUDA")
    torch.library.register_fake(f"fasthash::{name}", fake, lib=_library)


def _differentiable(name: str, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    qualified = f"fasthash::{name}"
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=_library)
    for device in ("cpu", "cuda"):
        torch.library.register_autocast(qualified, device, torch.float32, lib=_library)


def _call(name: str, device: torch.device, *arguments: Any, workspace: tuple[Any, ...] | None = None) -> None:
    """Calls _core.<name>_cpu or _cuda. `workspace`: arguments of <name>_cuda_workspace, where the kernel needs one."""
    if device.type == "cpu":
        getattr(_core, f"{name}_cpu")(*arguments, torch.get_num_threads())
        return
    if not _core.cuda_architectures:
        raise RuntimeError(
            f"{name}: this build of fasthash has no CUDA kernels, got a tensor on {device}; "
            "reinstall where nvcc is on PATH (FASTHASH_CUDA=ON makes its absence an error)"
        )
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        if workspace is None:
            getattr(_core, f"{name}_cuda")(*arguments, stream)
            return
        owner, *sizes = workspace
        count = getattr(_core, f"{owner}_cuda_workspace")(*sizes)
        buffer = torch.empty(max(count, 1), dtype=torch.uint8, device=device)
        getattr(_core, f"{name}_cuda")(*arguments, buffer.data_ptr(), count, stream)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


# Nearest neighbours: x [L, N, D], y [1 or L, M, D] or None (the others of x); float32 or float64.


def _nearest_problem(x: Tensor, y: Tensor | None, p: int, k: int) -> _core.NearestProblem:
    batches, points, dims = x.shape
    if y is None:
        return _core.NearestProblem(_address(x), 0, batches, points, points, dims, k, 0, p)
    targets = y.shape[1]
    stride = targets * dims if y.shape[0] == batches else 0
    return _core.NearestProblem(_address(x), _address(y), batches, points, targets, dims, k, stride, p)


def _is_double(x: Tensor) -> bool:
    return x.dtype == torch.float64


def _nearest(x: Tensor, y: Tensor | None, p: int, k: int) -> tuple[Tensor, Tensor]:
    x, y = x.contiguous(), None if y is None else y.contiguous()
    distances, indices = _nearest_fake(x, y, p, k)
    problem = _nearest_problem(x, y, p, k)
    _call(
        "nearest", x.device, _is_double(x), problem, _address(distances), _address(indices),
        workspace=("nearest", _is_double(x), problem, k),
    )  # fmt: skip
    return distances, indices


def _nearest_fake(x: Tensor, y: Tensor | None, p: int, k: int) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], x.shape[1], k)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def _nearest_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, distances: Tensor, indices: Tensor, p: int
) -> tuple[Tensor, Tensor]:
    x, y, grad = x.contiguous(), None if y is None else y.contiguous(), grad.contiguous()
    distances, indices = distances.contiguous(), indices.contiguous()
    grad_x, grad_y = _nearest_backward_fake(grad, x, y, distances, indices, p)
    k = distances.shape[-1]
    problem = _nearest_problem(x, y, p, k)
    _call(
        "nearest_backward", x.device, _is_double(x), problem, _address(grad), _address(distances), _address(indices), k,
        _address(grad_x), _address(grad_y) if y is not None else 0,
        workspace=("nearest", _is_double(x), problem, k),
    )  # fmt: skip
    return grad_x, grad_y


def _nearest_backward_fake(
    grad: Tensor, x: Tensor, y: Tensor | None, distances: Tensor, indices: Tensor, p: int
) -> tuple[Tensor, Tensor]:
    if y is None:
        return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(0)
    return x.new_empty(x.shape), x.new_empty(x.shape[0], *y.shape[1:])


def _nearest_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, y, ctx.p, _ = inputs
    ctx.save_for_backward(x, y, *output)
    ctx.mark_non_differentiable(output[1])


def _nearest_gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
    x, y, distances, indices = ctx.saved_tensors
    if torch.is_grad_enabled():
        grads = _through(lambda: _chosen_distances(x, y, indices, ctx.p), (x, y), grad)
        return grads[0], grads[1], None, None
    grad_x, grad_y = torch.ops.fasthash.nearest_backward(grad, x, y, distances, indices, ctx.p)
    if y is None:
        return grad_x, None, None, None
    return grad_x, grad_y.sum(0, keepdim=True) if y.shape[0] != x.shape[0] else grad_y, None, None


_define("nearest(Tensor x, Tensor? y, int p, int k) -> (Tensor, Tensor)", _nearest, _nearest_fake)
_define(
    "nearest_backward(Tensor grad, Tensor x, Tensor? y, Tensor distances, Tensor indices, int p) -> (Tensor, Tensor)",
    _nearest_backward,
    _nearest_backward_fake,
)
_differentiable("nearest", _nearest_setup, _nearest_gradient)


# Second derivatives. With create_graph=True a gradient is recomputed from torch ops over the chosen neighbours, so that
# it can be differentiated again; O((N + M) D) memory a neighbour.


def _through(value: Callable[[], Tensor], inputs: tuple[Tensor | None, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of value() at those inputs that ask for one, themselves differentiable."""
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    with torch.enable_grad():
        found = iter(torch.autograd.grad(value(), wanted, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if tensor is not None and tensor.requires_grad else None for tensor in inputs)


def _chosen_distances(x: Tensor, y: Tensor | None, indices: Tensor, p: int) -> Tensor:
    """Distances [L, N, k] from the points to their chosen neighbours, as torch ops."""
    batches, points, k = indices.shape
    source = (x if y is None else y).expand(batches, -1, -1)
    rows = indices.reshape(batches, points * k, 1).expand(-1, -1, x.shape[-1])
    difference = x.unsqueeze(2) - source.gather(1, rows).view(batches, points, k, -1)
    if p == 1:
        return difference.abs().sum(-1)
    squared: Tensor = difference.square().sum(-1)
    zero = squared == 0
    return squared.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


# The KL loss: z [L, B, D], target [1 or L, M, D].


def _kl_loss(z: Tensor, target: Tensor, p: int, k: int, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    z, target = z.contiguous(), target.contiguous()
    outputs = _kl_loss_fake(z, target, p, k, eps)
    problem = _nearest_problem(z, target, p, k)
    _call(
        "kl_loss", z.device, _is_double(z), problem, eps, *map(_address, outputs),
        workspace=("kl_loss", _is_double(z), problem),
    )  # fmt: skip
    return outputs


def _kl_loss_fake(
    z: Tensor, target: Tensor, p: int, k: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows = z.shape[:2]
    return (
        z.new_empty(z.shape[0]),
        z.new_empty(rows),
        z.new_empty(rows, dtype=torch.int64),
        z.new_empty(rows),
        z.new_empty(rows, dtype=torch.int64),
    )


def _kl_loss_backward(
    grad: Tensor, z: Tensor, target: Tensor, nu: Tensor, nu_index: Tensor, rho: Tensor, rho_index: Tensor,
    p: int, k: int, eps: float, target_wanted: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad, z, target = grad.contiguous(), z.contiguous(), target.contiguous()
    chosen = (nu.contiguous(), nu_index.contiguous(), rho.contiguous(), rho_index.contiguous())
    grad_z, grad_target = _kl_loss_backward_fake(grad, z, target, *chosen, p, k, eps, target_wanted)
    problem = _nearest_problem(z, target, p, k)
    _call(
        "kl_loss_backward", z.device, _is_double(z), problem, eps, _address(grad), *map(_address, chosen),
        _address(grad_z), _address(grad_target) if target_wanted else 0,
        workspace=("kl_loss", _is_double(z), problem),
    )  # fmt: skip
    return grad_z, grad_target


def _kl_loss_backward_fake(
    grad: Tensor, z: Tensor, target: Tensor, nu: Tensor, nu_index: Tensor, rho: Tensor, rho_index: Tensor,
    p: int, k: int, eps: float, target_wanted: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    grad_target = z.new_empty(z.shape[0], *target.shape[1:]) if target_wanted else z.new_empty(0)
    return z.new_empty(z.shape), grad_target


def _kl_loss_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, target, ctx.p, ctx.k, ctx.eps = inputs
    ctx.save_for_backward(z, target, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _kl_loss_gradient(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    z, target, nu, nu_index, rho, rho_index = ctx.saved_tensors
    if torch.is_grad_enabled():
        eps: float = ctx.eps

        def value() -> Tensor:
            near = _chosen_distances(z, target, nu_index.unsqueeze(-1), ctx.p)
            own = _chosen_distances(z, None, rho_index.unsqueeze(-1), ctx.p)
            return ((near + eps).log() - (own + eps).log()).mean((1, 2))

        return *_through(value, (z, target), grad), None, None, None
    target_wanted = bool(ctx.needs_input_grad[1])
    grad_z, grad_target = torch.ops.fasthash.kl_loss_backward(
        grad, z, target, nu, nu_index, rho, rho_index, ctx.p, ctx.k, ctx.eps, target_wanted
    )
    if not target_wanted:
        return grad_z, None, None, None, None
    shared = target.shape[0] != z.shape[0]
    return grad_z, grad_target.sum(0, keepdim=True) if shared else grad_target, None, None, None


_define(
    "kl_loss(Tensor z, Tensor target, int p, int k, float eps) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _kl_loss,
    _kl_loss_fake,
)
_define(
    "kl_loss_backward(Tensor grad, Tensor z, Tensor target, Tensor nu, Tensor nu_index, Tensor rho, Tensor rho_index, "
    "int p, int k, float eps, bool target_wanted) -> (Tensor, Tensor)",
    _kl_loss_backward,
    _kl_loss_backward_fake,
)
_differentiable("kl_loss", _kl_loss_setup, _kl_loss_gradient)


# Manhattan distances between all rows of z [B, D].


def _pairwise_l1(z: Tensor) -> Tensor:
    z = z.contiguous()
    distances = _pairwise_l1_fake(z)
    _call("pairwise_l1", z.device, _is_double(z), _address(z), z.shape[0], z.shape[1], _address(distances))
    return distances


def _pairwise_l1_fake(z: Tensor) -> Tensor:
    return z.new_empty(z.shape[0], z.shape[0])


def _pairwise_l1_backward(grad: Tensor, z: Tensor) -> Tensor:
    grad, z = grad.contiguous(), z.contiguous()
    grad_z = _pairwise_l1_backward_fake(grad, z)
    _call(
        "pairwise_l1_backward", z.device, _is_double(z), _address(z), _address(grad), z.shape[0], z.shape[1],
        _address(grad_z),
    )  # fmt: skip
    return grad_z


def _pairwise_l1_backward_fake(grad: Tensor, z: Tensor) -> Tensor:
    return z.new_empty(z.shape)


def _pairwise_l1_setup(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _pairwise_l1_gradient(ctx: Any, grad: Tensor) -> Tensor | None:
    (z,) = ctx.saved_tensors
    if torch.is_grad_enabled():
        return _through(lambda: (z.unsqueeze(1) - z.unsqueeze(0)).abs().sum(-1), (z,), grad)[0]
    gradient: Tensor = torch.ops.fasthash.pairwise_l1_backward(grad, z)
    return gradient


_define("pairwise_l1(Tensor z) -> Tensor", _pairwise_l1, _pairwise_l1_fake)
_define("pairwise_l1_backward(Tensor grad, Tensor z) -> Tensor", _pairwise_l1_backward, _pairwise_l1_backward_fake)
_differentiable("pairwise_l1", _pairwise_l1_setup, _pairwise_l1_gradient)


# Samples of Beta(0.1, 0.1): float32, a function of seed (int64 [1], on the device that wants them) and position.


def _beta_sample(seed: Tensor, count: int) -> Tensor:
    out = _beta_sample_fake(seed, count)
    _call("beta_sample", seed.device, _address(seed), count, _address(out))
    return out


def _beta_sample_fake(seed: Tensor, count: int) -> Tensor:
    return seed.new_empty(count, dtype=torch.float32)


_define("beta_sample(Tensor seed, SymInt count) -> Tensor", _beta_sample, _beta_sample_fake)


# Hamming search: queries uint8 [Q, W], database uint8 [N, W], mask int64 [ceil(N / 64)] words (see mask_words) or None.


def mask_words(allowed: Tensor) -> Tensor:
    """A boolean mask [N] as the bitmap that the kernels read: int64 [ceil(N / 64)], bit n % 64 of word n // 64."""
    words = (len(allowed) + 63) // 64
    if allowed.device.type == "cpu":
        bitmap = torch.zeros(words, dtype=torch.int64)
        bitmap.numpy().view(np.uint8)[: (len(allowed) + 7) // 8] = np.packbits(allowed.numpy(), bitorder="little")
        return bitmap
    padded = torch.zeros(words * 64, dtype=torch.bool, device=allowed.device)
    padded[: len(allowed)] = allowed
    places = torch.arange(64, device=allowed.device)
    return (padded.view(words, 64).long() << places).sum(1)


def _rows(codes: Tensor) -> Tensor:
    """Codes whose bytes are adjacent; rows may lie apart, so a column slice of a larger array is not copied."""
    bytes_adjacent = codes.shape[1] <= 1 or codes.stride(1) == 1
    return codes if bytes_adjacent and codes.stride(0) >= codes.shape[1] else codes.contiguous()


def _hamming_problem(queries: Tensor, database: Tensor, mask: Tensor | None) -> _core.HammingProblem:
    """`queries`, `database` and `mask` must outlive the call, and have come through contiguous() and _rows()."""
    count, width = database.shape
    return _core.HammingProblem(
        _address(queries), _address(database), _address(mask), queries.shape[0], count, width, database.stride(0)
    )


def _hamming_topk(queries: Tensor, database: Tensor, mask: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    queries, database = queries.contiguous(), _rows(database)
    distances, ids = _hamming_topk_fake(queries, database, mask, k)
    problem = _hamming_problem(queries, database, mask)
    _call(
        "hamming_topk", queries.device, problem, k, _address(distances), _address(ids),
        workspace=("hamming_topk", problem, k),
    )  # fmt: skip
    return distances, ids


def _hamming_topk_fake(queries: Tensor, database: Tensor, mask: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape, dtype=torch.int32), queries.new_empty(shape, dtype=torch.int64)


def _hamming_range(
    queries: Tensor, database: Tensor, mask: Tensor | None, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    queries, database = queries.contiguous(), _rows(database)
    problem = _hamming_problem(queries, database, mask)
    workspace = ("hamming_range", problem, radius)
    offsets = torch.zeros(queries.shape[0] + 1, dtype=torch.int64, device=queries.device)
    counts = torch.empty(queries.shape[0], dtype=torch.int64, device=queries.device)
    _call("hamming_range_count", queries.device, problem, radius, _address(counts), workspace=workspace)
    torch.cumsum(counts, 0, out=offsets[1:])
    total = int(offsets[-1])
    distances = queries.new_empty(total, dtype=torch.int32)
    ids = queries.new_empty(total, dtype=torch.int64)
    _call(
        "hamming_range_fill", queries.device, problem, radius, _address(offsets), _address(distances), _address(ids),
        workspace=workspace,
    )  # fmt: skip
    return offsets, distances, ids


def _hamming_range_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, radius: int
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    offsets = queries.new_empty(queries.shape[0] + 1, dtype=torch.int64)
    return offsets, queries.new_empty(total, dtype=torch.int32), queries.new_empty(total, dtype=torch.int64)


def _hamming_distances(queries: Tensor, database: Tensor) -> Tensor:
    queries, database = queries.contiguous(), _rows(database)
    distances = _hamming_distances_fake(queries, database)
    _call("hamming_distances", queries.device, _hamming_problem(queries, database, None), _address(distances))
    return distances


def _hamming_distances_fake(queries: Tensor, database: Tensor) -> Tensor:
    return queries.new_empty(queries.shape[0], database.shape[0], dtype=torch.int32)


def _hamming_histogram(
    queries: Tensor, database: Tensor, labels: Tensor | None, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    queries, database = queries.contiguous(), _rows(database)
    labels = None if labels is None else labels.contiguous()
    class_weights = None if class_weights is None else class_weights.contiguous()
    counts, sums = _hamming_histogram_fake(queries, database, labels, class_weights)
    classes = 0 if class_weights is None else class_weights.shape[1]
    problem = _hamming_problem(queries, database, None)
    _call(
        "hamming_histogram", queries.device, problem, _address(labels), _address(class_weights), classes,
        _address(counts), _address(sums) if labels is not None else 0,
        workspace=("hamming_histogram", problem, classes),
    )  # fmt: skip
    return counts, sums


def _hamming_histogram_fake(
    queries: Tensor, database: Tensor, labels: Tensor | None, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], 8 * database.shape[1] + 1)
    sums = queries.new_empty(shape if labels is not None else (0,), dtype=torch.float64)
    return queries.new_empty(shape, dtype=torch.int64), sums


_define(
    "hamming_topk(Tensor queries, Tensor database, Tensor? mask, int k) -> (Tensor, Tensor)",
    _hamming_topk,
    _hamming_topk_fake,
)
_define(
    "hamming_range(Tensor queries, Tensor database, Tensor? mask, int radius) -> (Tensor, Tensor, Tensor)",
    _hamming_range,
    _hamming_range_fake,
)
_define("hamming_distances(Tensor queries, Tensor database) -> Tensor", _hamming_distances, _hamming_distances_fake)
_define(
    "hamming_histogram(Tensor queries, Tensor database, Tensor? labels, Tensor? class_weights) -> (Tensor, Tensor)",
    _hamming_histogram,
    _hamming_histogram_fake,
)


# Multi-index hashing (csrc/mih/mih.h), CPU only. Table t is starts[t] and tables[3 t ..]: offsets [2^length + 1],
# fingerprints uint8 [N, 4 or 8], positions [N]; offsets and positions are uint32 numbers in int32 tensors.

_RANGE_CAPACITY = 1 << 16  # results for which there is room at the first try


def _mih_cpu_only(name: str, tensor: Tensor) -> None:
    if tensor.device.type != "cpu":
        raise RuntimeError(f"{name}: tables are searched on the CPU, got a tensor on {tensor.device}")


def _mih_tables(starts: list[int], tables: list[Tensor], bits: int) -> _core.MihTables:
    columns = zip(starts, tables[::3], tables[1::3], tables[2::3], strict=True)
    rows = [(start, len(o).bit_length() - 1, _address(o), _address(f), _address(p)) for start, o, f, p in columns]
    return _core.MihTables(rows, bits, tables[1].shape[1])


def _mih_offsets(codes: Tensor, start: int, length: int) -> Tensor:
    _mih_cpu_only("mih_offsets", codes)
    codes, offsets = _rows(codes), _mih_offsets_fake(codes, start, length)
    _call("mih_offsets", codes.device, _hamming_problem(codes[:0], codes, None), start, length, _address(offsets))
    return offsets


def _mih_offsets_fake(codes: Tensor, start: int, length: int) -> Tensor:
    return codes.new_empty((1 << length) + 1, dtype=torch.int32)


def _mih_fill(
    codes: Tensor, offsets: Tensor, start: int, bits: int, fingerprint_bytes: int, first: int, last: int
) -> Tensor:
    """Entries of the buckets first .. last: fingerprints, or where fingerprint_bytes is 0, positions."""
    _mih_cpu_only("mih_fill", codes)
    codes, offsets = _rows(codes), offsets.contiguous()
    count = (int(offsets[last]) - int(offsets[first])) % 2**32
    entries = codes.new_empty(count, fingerprint_bytes) if fingerprint_bytes else offsets.new_empty(count)
    problem = _hamming_problem(codes[:0], codes, None)
    table = (start, len(offsets).bit_length() - 1, _address(offsets), 0, 0)
    tables = _core.MihTables([table], bits, fingerprint_bytes or 4)
    addresses = (_address(entries), 0) if fingerprint_bytes else (0, _address(entries))
    _call("mih_fill", codes.device, problem, tables, 0, first, last, *addresses)
    return entries


def _mih_fill_fake(
    codes: Tensor, offsets: Tensor, start: int, bits: int, fingerprint_bytes: int, first: int, last: int
) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return codes.new_empty(count, fingerprint_bytes) if fingerprint_bytes else offsets.new_empty(count)


def _mih_topk(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    k: int, bounds: Tensor | None, share: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Distances and positions as of hamming_topk, and int64 [Q]: entries looked at, -1: given up, for the scan."""
    _mih_cpu_only("mih_topk", queries)
    queries, database = queries.contiguous(), _rows(database)
    bounds = None if bounds is None else bounds.contiguous()
    distances, ids = _hamming_topk_fake(queries, database, mask, k)
    visited = queries.new_empty(queries.shape[0], dtype=torch.int64)
    _call(
        "mih_topk", queries.device, _hamming_problem(queries, database, mask), _mih_tables(starts, tables, bits), k,
        _address(bounds), share, _address(distances), _address(ids), _address(visited),
    )  # fmt: skip
    return distances, ids, visited


def _mih_topk_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    k: int, bounds: Tensor | None, share: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    visited = queries.new_empty(queries.shape[0], dtype=torch.int64)
    return *_hamming_topk_fake(queries, database, mask, k), visited


def _mih_range(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    radius: int, share: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Offsets, distances and positions as of hamming_range, and the entries looked at, as above."""
    _mih_cpu_only("mih_range", queries)
    queries, database = queries.contiguous(), _rows(database)
    problem = _hamming_problem(queries, database, mask)
    arrays = _mih_tables(starts, tables, bits)
    results = torch.zeros(queries.shape[0] + 1, dtype=torch.int64)
    visited = queries.new_empty(queries.shape[0], dtype=torch.int64)
    capacity = _RANGE_CAPACITY
    while True:
        distances = queries.new_empty(capacity, dtype=torch.int32)
        ids = queries.new_empty(capacity, dtype=torch.int64)
        _call(
            "mih_range", queries.device, problem, arrays, radius, share, capacity,
            _address(results), _address(distances), _address(ids), _address(visited),
        )  # fmt: skip
        total = int(results[-1])
        if total <= capacity:
            return results, distances[:total].clone(), ids[:total].clone(), visited
        capacity = total


def _mih_range_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    radius: int, share: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    visited = queries.new_empty(queries.shape[0], dtype=torch.int64)
    return *_hamming_range_fake(queries, database, mask, radius), visited


_define("mih_offsets(Tensor codes, int start, int length) -> Tensor", _mih_offsets, _mih_offsets_fake)
_define(
    "mih_fill(Tensor codes, Tensor offsets, int start, int bits, int fingerprint_bytes, int first, int last) -> Tensor",
    _mih_fill,
    _mih_fill_fake,
)
_define(
    "mih_topk(Tensor queries, Tensor database, Tensor? mask, int[] starts, Tensor[] tables, int bits, "
    "int k, Tensor? bounds, float share) -> (Tensor, Tensor, Tensor)",
    _mih_topk,
    _mih_topk_fake,
)
_define(
    "mih_range(Tensor queries, Tensor database, Tensor? mask, int[] starts, Tensor[] tables, int bits, "
    "int radius, float share) -> (Tensor, Tensor, Tensor, Tensor)",
    _mih_range,
    _mih_range_fake,
)
