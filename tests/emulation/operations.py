"""The C interface of the CUDA kernels over numpy arrays; host memory stands for device memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BitWeights = Sequence[tuple[int, int]]  # (bits, weight) of each group; empty: undivided
I32, I64, F64, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class DeviceError(RuntimeError):
    """A status other than FH_OK, with the library's message."""


class HammingProblem(ctypes.Structure):
    _fields_ = (
        [(name, POINTER) for name in ("queries", "database", "mask")]
        + [(name, I64) for name in ("Q", "N", "W", "stride")]
        + [(name, POINTER) for name in ("group_bits", "group_weights")]
        + [("G", I32)]
    )  # fmt: skip


class AsymmetricProblem(ctypes.Structure):
    _fields_ = [
        ("queries", POINTER), ("dtype", I32), ("database", POINTER), ("mask", POINTER), ("scales", POINTER),
        *((name, I64) for name in ("Q", "D", "N", "W", "stride")), ("metric", I32),
        ("group_bits", POINTER), ("group_weights", POINTER), ("G", I32),
    ]  # fmt: skip


class PairsProblem(ctypes.Structure):
    _fields_ = [
        *((name, POINTER) for name in ("a", "b")), *((name, I64) for name in ("Na", "Nb", "W", "stride_a", "stride_b")),
        ("radius", I32), ("plan", I32),
    ]  # fmt: skip


class NearestProblem(ctypes.Structure):
    _fields_ = (
        [(name, POINTER) for name in ("x", "y")]
        + [(name, I64) for name in ("L", "N", "M", "D", "K", "y_stride")]
        + [("p", I32), ("dtype", I32)]
    )  # fmt: skip


class PairwiseProblem(ctypes.Structure):
    _fields_ = [("z", POINTER), ("B", I64), ("D", I64), ("dtype", I32)]


DTYPES = {np.dtype(np.float32): 0, np.dtype(np.float64): 1}  # fh_dtype


class Buffer:
    """Device memory of exactly the wanted size: a step over its end is reported."""

    def __init__(self, library: ctypes.CDLL, size: int, offset: int = 0) -> None:
        self.library, self.size = library, size
        self.block = library.fh_emulation_allocate(size + offset)
        self.address = self.block + offset

    def __del__(self) -> None:
        self.library.fh_emulation_free(self.block)

    def read(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return np.frombuffer(ctypes.string_at(self.address, self.size), dtype=dtype).reshape(shape).copy()


def bitmap_of(mask: Array | None) -> Array | None:
    """A boolean mask [N] as whole words of 64 bits; bits from N on are 0."""
    if mask is None:
        return None
    bitmap = np.zeros(-(-len(mask) // 64) * 8, np.uint8)
    packed = np.packbits(mask, bitorder="little")
    bitmap[: len(packed)] = packed
    return bitmap


class Device:
    """One library. Each method is an operation; arrays go in and come out."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.fh_emulation_allocate.restype = POINTER
        self.library.fh_emulation_allocate.argtypes = [I64]
        self.library.fh_emulation_free.argtypes = [POINTER]
        self.library.fh_emulation_seed.argtypes = [ctypes.c_uint64]
        self.library.fh_emulation_switches.restype = ctypes.c_uint64
        self.library.fh_last_error.restype = ctypes.c_char_p

    def run(self, operation: str, seed: int, arguments: dict[str, Any], shortfall: int, fault: int) -> Any:
        """Calls a method below with one schedule; workspaces are `shortfall` bytes smaller than they must be."""
        ctypes.c_int.in_dll(self.library, "fh_emulation_fault").value = fault
        self.library.fh_emulation_seed(seed)
        self.shortfall = shortfall
        return getattr(self, operation)(**arguments)

    # Memory and calls.

    def upload(self, array: Array, offset: int = 0) -> Buffer:
        """A copy of the array, `offset` bytes behind a 256-byte boundary."""
        array = np.ascontiguousarray(array)
        buffer = Buffer(self.library, array.nbytes, offset)
        ctypes.memmove(buffer.address, array.ctypes.data, array.nbytes)
        return buffer

    def output(self, shape: tuple[int, ...], dtype: Any) -> Buffer:
        return Buffer(self.library, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize)

    def check(self, function: str, *arguments: Any) -> None:
        native = [POINTER(a.address) if isinstance(a, Buffer) else a for a in arguments]
        if getattr(self.library, function)(*native) != 0:
            raise DeviceError(self.library.fh_last_error().decode())

    def workspace(self, function: str, *arguments: Any) -> tuple[Buffer, ctypes.c_int64]:
        native = getattr(self.library, function)
        native.restype = I64
        size = native(*arguments)
        if size < 0:
            raise DeviceError(f"{function} gave {size}")
        return Buffer(self.library, size), I64(size - self.shortfall)

    # Operations.

    def pairwise_l1(self, z: Array) -> Array:
        rows, columns = z.shape
        points, out = self.upload(z), self.output((rows, rows), z.dtype)
        problem = PairwiseProblem(points.address, rows, columns, DTYPES[z.dtype])
        self.check("fh_pairwise_l1_cuda", ctypes.byref(problem), out, None)
        return out.read((rows, rows), z.dtype)

    def pairwise_l1_backward(self, z: Array, grad: Array) -> Array:
        points, out = self.upload(z), self.output(z.shape, z.dtype)
        problem = PairwiseProblem(points.address, *z.shape, DTYPES[z.dtype])
        self.check("fh_pairwise_l1_backward_cuda", ctypes.byref(problem), self.upload(grad), out, None)
        return out.read(z.shape, z.dtype)

    def beta_sample(self, random_seed: int, count: int) -> Array:
        out = self.output((count,), np.float32)
        self.check("fh_beta_sample_cuda", self.upload(np.array([random_seed], np.int64)), I64(count), out, None)
        return out.read((count,), np.float32)

    def hamming_problem(
        self,
        queries: Array,
        database: Array,
        mask: Array | None,
        columns: tuple[int, int] | None,
        misalign: int,
        bit_weights: BitWeights,
    ) -> HammingProblem:
        """Codes are the given columns of the database's rows; `misalign` shifts both from their 256-byte boundary."""
        self.groups = np.array(bit_weights, np.int32).reshape(-1, 2).T.copy()  # host memory: bits, weights
        rows, stride = database.shape
        start, stop = (0, stride) if columns is None else columns
        bitmap = bitmap_of(mask)
        self.kept = [self.upload(queries, misalign), self.upload(database, misalign)]
        self.kept += [] if bitmap is None else [self.upload(bitmap)]
        return HammingProblem(
            self.kept[0].address,
            self.kept[1].address + start,
            None if bitmap is None else self.kept[2].address,
            len(queries),
            rows,
            stop - start,
            stride,
            *(row.ctypes.data for row in self.groups),
            len(bit_weights),
        )

    def hamming_topk(
        self,
        queries: Array,
        database: Array,
        k: int,
        mask: Array | None = None,
        columns: tuple[int, int] | None = None,
        misalign: int = 0,
        bit_weights: BitWeights = (),
    ) -> tuple[Array, Array]:
        problem = ctypes.byref(self.hamming_problem(queries, database, mask, columns, misalign, bit_weights))
        shape = (len(queries), k)
        distances, ids = self.output(shape, np.int32), self.output(shape, np.int64)
        workspace, size = self.workspace("fh_hamming_topk_cuda_workspace", problem, I64(k))
        self.check("fh_hamming_topk_cuda", problem, I64(k), distances, ids, workspace, size, None)
        return distances.read(shape, np.int32), ids.read(shape, np.int64)

    def asymmetric_topk(
        self,
        queries: Array,
        database: Array,
        k: int,
        metric: str = "l1",
        mask: Array | None = None,
        scales: Array | None = None,
        columns: tuple[int, int] | None = None,
        misalign: int = 0,
        bit_weights: BitWeights = (),
    ) -> tuple[Array, Array]:
        """queries [Q, D] float32 or float64, scales float16 [N]; the rest as for Hamming search."""
        groups = np.array(bit_weights, np.int32).reshape(-1, 2).T.copy()
        rows, stride = database.shape
        start, stop = (0, stride) if columns is None else columns
        given = [self.upload(queries), self.upload(database, misalign)]
        there = [None if a is None else self.upload(a) for a in (bitmap_of(mask), scales)]
        addresses = [None if buffer is None else buffer.address for buffer in there]
        problem = ctypes.byref(
            AsymmetricProblem(
                given[0].address, DTYPES[queries.dtype], given[1].address + start, *addresses, len(queries),
                queries.shape[1], rows, stop - start, stride, ("l1", "dot", "cosine", "l2").index(metric),
                *(row.ctypes.data for row in groups), len(bit_weights),
            )
        )  # fmt: skip
        shape = (len(queries), k)
        distances, ids = self.output(shape, np.float32), self.output(shape, np.int64)
        workspace, size = self.workspace("fh_asymmetric_topk_cuda_workspace", problem, I64(k))
        self.check("fh_asymmetric_topk_cuda", problem, I64(k), distances, ids, workspace, size, None)
        return distances.read(shape, np.float32), ids.read(shape, np.int64)

    def hamming_overflowed(self, queries: Array, database: Array, k: int, mask: Array | None = None) -> int:
        """The number of queries whose candidates found no room, in a search that takes one pass."""
        problem = ctypes.byref(self.hamming_problem(queries, database, mask, None, 0, ()))
        shape = (len(queries), k)
        distances, ids = self.output(shape, np.int32), self.output(shape, np.int64)
        workspace, size = self.workspace("fh_hamming_topk_cuda_workspace", problem, I64(k))
        self.check("fh_hamming_topk_cuda", problem, I64(k), distances, ids, workspace, size, None)
        flags = np.frombuffer(ctypes.string_at(workspace.address, 4 * len(queries)), np.int32)  # its first array
        return int(flags.sum())

    def one_pass_shape(self, q: int, n: int, width: int, k: int) -> dict[str, int]:
        """How top-k in one pass is planned (csrc/hamming/cuda/one_pass_plan.h)."""
        out = np.zeros(4, np.int64)
        self.library.fh_one_pass_shape(*map(I64, (q, n, width, k)), POINTER(out.ctypes.data))
        return dict(zip(("stretches", "first_rows", "room", "pays"), out.tolist(), strict=True))

    def one_pass_stretches(self, n: int, k: int, group_rows: int) -> tuple[Array, int]:
        """The stretch of each group of rows, 0 for the sample, and how many groups are visited twice."""
        stretches = np.zeros(-(-n // group_rows), np.int32)
        native = self.library.fh_one_pass_stretches
        native.restype = I64
        twice = native(I64(n), I64(k), POINTER(stretches.ctypes.data))
        return stretches, int(twice)

    def hamming_mask(self, allowed: Array, misalign: int = 0) -> Array:
        shape = (-(-len(allowed) // 64),)
        out = self.output(shape, np.int64)
        self.check("fh_hamming_mask_cuda", self.upload(allowed, misalign), I64(len(allowed)), out, None)
        return out.read(shape, np.int64)

    def hamming_range(
        self,
        queries: Array,
        database: Array,
        radius: int,
        mask: Array | None = None,
        columns: tuple[int, int] | None = None,
        misalign: int = 0,
        bit_weights: BitWeights = (),
    ) -> tuple[Array, Array, Array]:
        problem = ctypes.byref(self.hamming_problem(queries, database, mask, columns, misalign, bit_weights))
        counts = self.output((len(queries),), np.int64)
        workspace, size = self.workspace("fh_hamming_range_cuda_workspace", problem, I32(radius))
        self.check("fh_hamming_range_count_cuda", problem, I32(radius), counts, workspace, size, None)
        offsets = np.concatenate([[0], np.cumsum(counts.read((len(queries),), np.int64))])
        shape = (int(offsets[-1]),)
        distances, ids = self.output(shape, np.int32), self.output(shape, np.int64)
        self.check(
            "fh_hamming_range_fill_cuda",
            problem,
            I32(radius),
            self.upload(offsets),
            distances,
            ids,
            workspace,
            size,
            None,
        )
        return offsets, distances.read(shape, np.int32), ids.read(shape, np.int64)

    def hamming_distances(
        self,
        queries: Array,
        database: Array,
        columns: tuple[int, int] | None = None,
        misalign: int = 0,
        bit_weights: BitWeights = (),
    ) -> Array:
        problem = ctypes.byref(self.hamming_problem(queries, database, None, columns, misalign, bit_weights))
        shape = (len(queries), len(database))
        distances = self.output(shape, np.int32)
        self.check("fh_hamming_distances_cuda", problem, distances, None)
        return distances.read(shape, np.int32)

    def hamming_histogram(
        self,
        queries: Array,
        database: Array,
        labels: Array | None = None,
        class_weights: Array | None = None,
        mask: Array | None = None,
        columns: tuple[int, int] | None = None,
        misalign: int = 0,
        bit_weights: BitWeights = (),
    ) -> tuple[Array, Array | None]:
        described = self.hamming_problem(queries, database, mask, columns, misalign, bit_weights)
        problem = ctypes.byref(described)
        largest = sum(bits * weight for bits, weight in bit_weights) if bit_weights else 8 * described.W
        shape = (len(queries), largest + 1)
        counts = self.output(shape, np.int64)
        if labels is None or class_weights is None:
            workspace, size = self.workspace("fh_hamming_histogram_cuda_workspace", problem, I64(0))
            self.check("fh_hamming_histogram_cuda", problem, None, None, I64(0), counts, None, workspace, size, None)
            return counts.read(shape, np.int64), None
        sums, classes = self.output(shape, np.float64), I64(class_weights.shape[1])
        workspace, size = self.workspace("fh_hamming_histogram_cuda_workspace", problem, classes)
        self.check(
            "fh_hamming_histogram_cuda", problem, self.upload(labels), self.upload(class_weights), classes, counts,
            sums, workspace, size, None,
        )  # fmt: skip
        return counts.read(shape, np.int64), sums.read(shape, np.float64)

    def hamming_workspaces(self, queries: int, rows: int, width: int, bit_weights: BitWeights = ()) -> dict[str, int]:
        """Bytes for a problem of these sizes."""
        groups = np.array(bit_weights, np.int32).reshape(-1, 2).T.copy()
        arrays = (row.ctypes.data for row in groups)
        problem = ctypes.byref(HammingProblem(None, None, None, queries, rows, width, width, *arrays, len(bit_weights)))
        calls = {
            "top 10": ("topk", I64(10)),
            "top 5000": ("topk", I64(5000)),
            "range": ("range", I32(2**31 - 1)),
            "histogram": ("histogram", I64(0)),
            "histogram of classes": ("histogram", I64(1000)),
        }
        found = {}
        for name, (function, argument) in calls.items():
            native = getattr(self.library, f"fh_hamming_{function}_cuda_workspace")
            native.restype = I64
            found[name] = int(native(problem, argument))
        return found

    def pairs_problem(
        self, codes: Array, other: Array | None, radius: int, columns: tuple[int, int] | None
    ) -> PairsProblem:
        """other: the given columns of its rows."""
        start, stop = (0, codes.shape[1]) if columns is None else columns
        self.kept = [self.upload(codes), *([] if other is None else [self.upload(other)])]
        there = None if other is None else self.kept[1].address + start
        rows, stride = (0, 0) if other is None else other.shape
        return PairsProblem(
            self.kept[0].address, there, len(codes), rows, stop - start, stop - start, stride, radius, 0
        )

    def hamming_pairs(
        self, codes: Array, radius: int, room: int, other: Array | None = None, columns: tuple[int, int] | None = None
    ) -> tuple[int, Array, Array]:
        """How many pairs there are; keys and distances of those that were kept."""
        problem = ctypes.byref(self.pairs_problem(codes, other, radius, columns))
        keys, distances = self.output((room,), np.int64), self.output((room,), np.int32)
        counts = self.output((2,), np.int64)
        self.check("fh_hamming_pairs_cuda", problem, I64(room), keys, distances, counts, None)
        total, taken = counts.read((2,), np.int64).tolist()
        kept = min(taken, room)
        assert kept == min(total, room)
        return total, keys.read((room,), np.int64)[:kept], distances.read((room,), np.int32)[:kept]

    def duplicate_groups(self, codes: Array, radius: int) -> Array:
        problem = ctypes.byref(self.pairs_problem(codes, None, radius, None))
        out = self.output((len(codes),), np.int64)
        workspace, size = self.workspace("fh_duplicate_groups_cuda_workspace", I64(len(codes)))
        self.check("fh_duplicate_groups_cuda", problem, out, workspace, size, None)
        return out.read((len(codes),), np.int64)

    def nearest_problem(self, x: Array, y: Array | None, k: int, p: int, misalign: int = 0) -> NearestProblem:
        """x [L, N, D]; y [L, M, D], or [M, D] for all batches, or None for the others of x.

        `misalign` shifts the last of them from its 256-byte boundary.
        """
        batches, rows, columns = x.shape
        self.kept = [self.upload(x, misalign if y is None else 0)]
        self.kept += [] if y is None else [self.upload(y, misalign)]
        targets = rows if y is None else y.shape[-2]
        stride = targets * columns if y is None or y.ndim == 3 else 0
        address = None if y is None else self.kept[1].address
        sizes = (batches, rows, targets, columns, k, stride, p)
        return NearestProblem(self.kept[0].address, address, *sizes, DTYPES[x.dtype])

    def nearest(self, x: Array, y: Array | None, k: int, p: int, misalign: int = 0) -> tuple[Array, Array]:
        problem = ctypes.byref(self.nearest_problem(x, y, k, p, misalign))
        shape = (*x.shape[:2], k)
        distances, indices = self.output(shape, x.dtype), self.output(shape, np.int64)
        workspace, size = self.workspace("fh_nearest_cuda_workspace", problem, I64(0))
        self.check("fh_nearest_cuda", problem, distances, indices, workspace, size, None)
        return distances.read(shape, x.dtype), indices.read(shape, np.int64)

    def nearest_backward(
        self,
        x: Array,
        y: Array | None,
        p: int,
        weights: Array,
        distances: Array,
        indices: Array,
        want_y: bool = True,
    ) -> tuple[Array, Array | None]:
        described = self.nearest_problem(x, y, weights.shape[-1], p)
        problem, columns = ctypes.byref(described), I64(weights.shape[-1])
        grad_x, shape = self.output(x.shape, x.dtype), (len(x), described.M, described.D)
        grad_y = self.output(shape, x.dtype) if y is not None and want_y else None
        workspace, size = self.workspace("fh_nearest_cuda_workspace", problem, columns)
        self.check(
            "fh_nearest_backward_cuda", problem, self.upload(weights), self.upload(distances),
            self.upload(indices), columns, grad_x, grad_y, workspace, size, None,
        )  # fmt: skip
        return grad_x.read(x.shape, x.dtype), None if grad_y is None else grad_y.read(shape, x.dtype)

    def kl_loss(
        self, z: Array, target: Array, k: int, p: int, eps: float, grad_loss: Array, want_target: bool = True
    ) -> tuple[Array, Array, Array | None]:
        """The loss of each batch, and the gradients for grad_loss [L] (forward and backward calls)."""
        described = self.nearest_problem(z, target, k, p)
        problem, kind = ctypes.byref(described), z.dtype
        rows, shape = z.shape[:2], (len(z), described.M, described.D)
        loss, nu, rho = self.output((len(z),), kind), self.output(rows, kind), self.output(rows, kind)
        nu_index, rho_index = self.output(rows, np.int64), self.output(rows, np.int64)
        workspace, size = self.workspace("fh_kl_loss_cuda_workspace", problem)
        self.check("fh_kl_loss_cuda", problem, F64(eps), loss, nu, nu_index, rho, rho_index, workspace, size, None)
        grad_z = self.output(z.shape, kind)
        grad_target = self.output(shape, kind) if want_target else None
        workspace, size = self.workspace("fh_kl_loss_cuda_workspace", problem)
        self.check(
            "fh_kl_loss_backward_cuda", problem, F64(eps), self.upload(grad_loss), nu, nu_index, rho,
            rho_index, grad_z, grad_target, workspace, size, None,
        )  # fmt: skip
        return (
            loss.read((len(z),), kind),
            grad_z.read(z.shape, kind),
            None if grad_target is None else grad_target.read(shape, kind),
        )

    # Toy kernels, for the tests of the emulation itself.

    def toy(
        self, name: str, values: Array, block: int, *, shape: tuple[int, ...] | None = None, offset: int = 0
    ) -> Array:
        """Runs toy kernel `name` over int32 values in blocks of `block`; output shaped as the input by default."""
        out = self.output(values.shape if shape is None else shape, np.int32)
        self.check(f"fh_toy_{name}", self.upload(values, offset), I64(values.size), I32(block), out)
        return out.read(values.shape if shape is None else shape, np.int32)

    def switches(self) -> int:
        return int(self.library.fh_emulation_switches())
