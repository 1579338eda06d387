"""Ops of multi-index hashing (csrc/mih/mih.h), CPU only.

Table t is starts[t] and tables[3 t ..]: offsets [2^length + 1], fingerprints uint8 [N, 4 or 8], positions [N];
offsets and positions are uint32 numbers in int32 tensors. Tables are the same whatever the weights of bits;
`bit_weights` of a search are flat (bits, weight, ...) that make up `bits`; empty: every bit counts 1.

On what terms tables are used (fh_mih_terms): `budget`, `prices` (tables, read, compare; empty: 1 each) and, of a k-NN
search, `ends`. Searches also give `spent`, float64 [2]: the nanoseconds that queries which were not given up should
have taken, and took.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fasthash import _core
from fasthash._ops.hamming import hamming_problem, hamming_range_fake, hamming_topk_fake, rows
from fasthash._ops.registry import address, call, define


def _mih_cpu_only(name: str, tensor: Tensor) -> None:
    if tensor.device.type != "cpu":
        raise RuntimeError(f"{name}: tables are searched on the CPU, got a tensor on {tensor.device}")


def prepared_tables(starts: list[int], tables: list[Tensor], bits: int) -> _core.MihTables:
    """Tables as searches take them; whoever keeps this keeps `tables` too."""
    columns = zip(starts, tables[::3], tables[1::3], tables[2::3], strict=True)
    rows = [(start, o.numel().bit_length() - 1, address(o), address(f), address(p)) for start, o, f, p in columns]
    return _core.MihTables(rows, bits, tables[1].shape[1])


def _mih_offsets(codes: Tensor, start: int, length: int) -> Tensor:
    _mih_cpu_only("mih_offsets", codes)
    codes, offsets = rows(codes), _mih_offsets_fake(codes, start, length)
    call("mih_offsets", codes.device, hamming_problem(codes[:0], codes, None), start, length, address(offsets))
    return offsets


def _mih_offsets_fake(codes: Tensor, start: int, length: int) -> Tensor:
    return codes.new_empty((1 << length) + 1, dtype=torch.int32)


def _mih_fill(
    codes: Tensor, offsets: Tensor, start: int, bits: int, fingerprint_bytes: int, first: int, last: int
) -> Tensor:
    """Entries of the buckets first .. last: fingerprints, or where fingerprint_bytes is 0, positions."""
    _mih_cpu_only("mih_fill", codes)
    codes, offsets = rows(codes), offsets.contiguous()
    count = (int(offsets[last]) - int(offsets[first])) % 2**32
    entries = codes.new_empty(count, fingerprint_bytes) if fingerprint_bytes else offsets.new_empty(count)
    problem = hamming_problem(codes[:0], codes, None)
    table = (start, len(offsets).bit_length() - 1, address(offsets), 0, 0)
    tables = _core.MihTables([table], bits, fingerprint_bytes or 4)
    addresses = (address(entries), 0) if fingerprint_bytes else (0, address(entries))
    call("mih_fill", codes.device, problem, tables, 0, first, last, *addresses)
    return entries


def _mih_fill_fake(
    codes: Tensor, offsets: Tensor, start: int, bits: int, fingerprint_bytes: int, first: int, last: int
) -> Tensor:
    count = torch.library.get_ctx().new_dynamic_size()
    return codes.new_empty(count, fingerprint_bytes) if fingerprint_bytes else offsets.new_empty(count)


def _mih_terms(budget: float, prices: Sequence[float], ends: Sequence[int]) -> _core.MihTerms:
    tables, read, compare = prices or (1.0, 1.0, 1.0)
    return _core.MihTerms(budget, tables, read, compare, list(ends))


def _mih_topk(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    k: int, bounds: Tensor | None, budget: float, bit_weights: Sequence[int] = (), prices: Sequence[float] = (),
    ends: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    arrays = prepared_tables(starts, tables, bits)
    return topk_by_tables(queries, database, mask, arrays, k, bounds, budget, bit_weights, prices, ends)


def topk_by_tables(
    queries: Tensor, database: Tensor, mask: Tensor | None, tables: _core.MihTables, k: int, bounds: Tensor | None,
    budget: float, bit_weights: Sequence[int], prices: Sequence[float], ends: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Distances and positions as of hamming_topk, int64 [Q]: entries looked at, -1: given up, for the scan; spent."""
    _mih_cpu_only("mih_topk", queries)
    queries, database = queries.contiguous(), rows(database)
    bounds = None if bounds is None else bounds.contiguous()
    distances, ids = hamming_topk_fake(queries, database, mask, k, bit_weights)
    visited, spent = _visited_and_spent(queries)
    call(
        "mih_topk", queries.device, hamming_problem(queries, database, mask, bit_weights),
        tables, k, address(bounds), _mih_terms(budget, prices, ends),
        address(distances), address(ids), address(visited), address(spent),
    )  # fmt: skip
    return distances, ids, visited, spent


def _mih_topk_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    k: int, bounds: Tensor | None, budget: float, bit_weights: Sequence[int] = (), prices: Sequence[float] = (),
    ends: Sequence[int] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return *hamming_topk_fake(queries, database, mask, k, bit_weights), *_visited_and_spent(queries)


def _visited_and_spent(queries: Tensor) -> tuple[Tensor, Tensor]:
    return queries.new_empty(queries.shape[0], dtype=torch.int64), queries.new_empty(2, dtype=torch.float64)


def _mih_range(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    radius: int, budget: float, bit_weights: Sequence[int] = (), prices: Sequence[float] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    arrays = prepared_tables(starts, tables, bits)
    return range_by_tables(queries, database, mask, arrays, radius, budget, bit_weights, prices)


def range_by_tables(
    queries: Tensor, database: Tensor, mask: Tensor | None, tables: _core.MihTables, radius: int, budget: float,
    bit_weights: Sequence[int], prices: Sequence[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Offsets, distances and positions as of hamming_range, and the entries looked at and spent, as above."""
    _mih_cpu_only("mih_range", queries)
    queries, database = queries.contiguous(), rows(database)
    hits = _core.MihHits()
    offsets = torch.empty(queries.shape[0] + 1, dtype=torch.int64)
    visited, spent = _visited_and_spent(queries)
    call(
        "mih_range", queries.device, hamming_problem(queries, database, mask, bit_weights),
        tables, radius, _mih_terms(budget, prices, ()), hits, address(offsets), address(visited), address(spent),
    )  # fmt: skip
    total = int(offsets[-1])
    distances, ids = torch.empty(total, dtype=torch.int32), torch.empty(total, dtype=torch.int64)
    hits.write(address(distances), address(ids))
    return offsets, distances, ids, visited, spent


def _mih_range_fake(
    queries: Tensor, database: Tensor, mask: Tensor | None, starts: list[int], tables: list[Tensor], bits: int,
    radius: int, budget: float, bit_weights: Sequence[int] = (), prices: Sequence[float] = (),
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return *hamming_range_fake(queries, database, mask, radius, bit_weights), *_visited_and_spent(queries)


def mih_scan_ns(N: int, W: int, Q: int, threads: int, weighted: bool, read: float, compare: float) -> float:
    """The estimated time of a scan of N codes of W bytes for Q queries, in nanoseconds, at these prices."""
    return float(_core.mih_scan_ns(N, W, Q, threads, weighted, read, compare))


define("mih_offsets(Tensor codes, int start, int length) -> Tensor", _mih_offsets, _mih_offsets_fake)
define(
    "mih_fill(Tensor codes, Tensor offsets, int start, int bits, int fingerprint_bytes, int first, int last) -> Tensor",
    _mih_fill,
    _mih_fill_fake,
)
define(
    "mih_topk(Tensor queries, Tensor database, Tensor? mask, int[] starts, Tensor[] tables, int bits, "
    "int k, Tensor? bounds, float budget, int[] bit_weights=[], float[] prices=[], int[] ends=[]) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _mih_topk,
    _mih_topk_fake,
)
define(
    "mih_range(Tensor queries, Tensor database, Tensor? mask, int[] starts, Tensor[] tables, int bits, "
    "int radius, float budget, int[] bit_weights=[], float[] prices=[]) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _mih_range,
    _mih_range_fake,
)
