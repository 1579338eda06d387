"""Exact Hamming search on an NVIDIA GPU: against reading the memory once, counting bits, plain torch and faiss.

    python benchmarks/bench_hamming_cuda.py [--codes 1000000000] [--seconds 100] [--name NAME] [--device cuda]

Contenders take turns in one run. "read" is the fastest of torch's reductions over the same bytes: what one pass costs
at least. "ceiling" is what the POPC units can do: 16 words a clock and multiprocessor, at the clock seen under load.
Plain torch: a product of +-1 half-precision matrices and torch.topk, and exclusive or with a table of byte counts; both
over 1e8 codes. "by class": codes of 1,000 classes with 3 % noise, stored one class after the other. "small": a million
codes and one query, 100 calls after each other. Weighted codes take turns with undivided ones, over 1e8 codes of 64
bits and a fifth of that of 256. Float queries against bits (asymmetric_topk) take turns with reading and with undivided
Hamming search; pairs within a radius with a range search of the codes in themselves, over 1e6 codes. What is expected
on an H100 (expected.py) is printed beside each figure.
Results are checked against the oracle before anything is timed. What `--seconds` leaves no time for is left out, and
said to be. Writes benchmarks/results/NAME.json and NAME.md. --device cpu tries the script.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

import expected
import kit
import torch
from torch import Tensor

import fasthash
from fasthash import reference
from fasthash.index.search.devices import Devices

BLOCK = 1 << 20  # codes of a block of the plain-torch ways
SHARE = {64: 1.0, 256: 0.2}  # codes of each width, as a part of --codes
COUNTS = [bin(byte).count("1") for byte in range(256)]


class Bench:
    """Times calls on one device until the time is used up; results so far are always on disk."""

    def __init__(self, device: torch.device, name: str, seconds: float):
        self.device, self.name = device, name
        self.end = time.perf_counter() + seconds
        self.cases: list[dict[str, Any]] = []
        self.left_out: list[str] = []
        self.failed: dict[str, str] = {}
        self.machine = {**kit.machine(), "clock_mhz": None}

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds_of(self, calls: dict[str, Callable[[], Any]], rounds: int = 7, limit: float = 3.0) -> dict[str, float]:
        """The median of each call; they take turns, after one round that is not counted unless it took too long."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        begin = time.perf_counter()
        for number in range(rounds + 1):
            for name, call in calls.items():
                self.synchronize()
                start = time.perf_counter()
                call()
                self.synchronize()
                times[name].append(time.perf_counter() - start)
            if number and time.perf_counter() - begin > limit:
                break
        return {name: statistics.median(found[1:]) for name, found in times.items()}

    def case(self, what: str, calls: dict[str, Callable[[], Any]], **sizes: Any) -> dict[str, Any] | None:
        """One row of the results: milliseconds of each contender; None where there is no time left."""
        label = f"{what}, " + ", ".join(f"{name} {value}" for name, value in sizes.items())
        if time.perf_counter() > self.end:
            self.left_out.append(label)
            return None
        try:
            seconds = self.seconds_of(calls)
        except (torch.OutOfMemoryError, MemoryError) as error:
            self.left_out.append(f"{label}: {str(error)[:100]}")
            return None
        row = {"what": what, **sizes, "milliseconds": {name: 1e3 * s for name, s in seconds.items()}}
        bits, codes, queries = (sizes.get(name, 0) for name in ("bits", "codes", "queries"))
        name = "filter" if what == "filter and range" else what
        row["expected"] = expected.search(name, bits, codes, queries, sizes.get("k", 10))
        self.cases.append(row)
        times = "  ".join(f"{name} {1e3 * s:.3g} ms" for name, s in seconds.items())
        print(f"{label}: {times}  {row['expected']}".rstrip(), flush=True)
        self.write()
        return row

    def step(self, name: str, run: Callable[[], None]) -> None:
        """Runs some cases; what goes wrong does not keep the next ones from running."""
        if time.perf_counter() > self.end:
            self.left_out.append(name)
        else:
            try:
                run()
            except Exception as error:
                traceback.print_exc()
                self.failed[name] = f"{type(error).__name__}: {error}"[:300]
        self.write()
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def write(self) -> None:
        result = {"machine": self.machine, "cases": self.cases, "left_out": self.left_out, "failed": self.failed}
        kit.write_json(self.name, result)
        (kit.RESULTS / f"{self.name}.md").write_text(table(result))


def random_codes(count: int, width: int, device: torch.device) -> Tensor:
    words = torch.randint(-(2**63), 2**63 - 1, (count * width // 8,), device=device)
    return words.view(torch.uint8).view(count, width)


def matmul_topk(queries: Tensor, database: Tensor, k: int) -> Tensor:
    def signs(codes: Tensor) -> Tensor:
        return fasthash.unpack_bits(codes, 8 * codes.shape[1]).to(torch.float16).mul_(2).sub_(1)

    left, best = signs(queries), None
    for block in database.split(BLOCK):
        found = (left @ signs(block).T).topk(min(k, len(block)), dim=1).values
        best = found if best is None else torch.cat([best, found], 1).topk(k, dim=1).values
    return (8 * database.shape[1] - best) / 2


def table_topk(queries: Tensor, database: Tensor, k: int) -> Tensor:
    counts, best = torch.tensor(COUNTS, dtype=torch.uint8, device=queries.device), None
    for block in database.split(max(1, BLOCK * 16 // len(queries))):
        distances = counts[(queries[:, None] ^ block).int()].sum(-1, dtype=torch.int16)
        found = distances.topk(min(k, len(block)), dim=1, largest=False).values
        best = found if best is None else torch.cat([best, found], 1).topk(k, dim=1, largest=False).values
    return best


def check(width: int, device: torch.device) -> None:
    database, queries = random_codes(70_000, width, device), random_codes(5, width, device)
    for groups in (None, *weighted_groups(8 * width)):
        for k in (10, 1000, 10_000):
            found = fasthash.hamming_topk(queries, database, k, bit_weights=groups)
            wanted = reference.hamming_topk(queries, database, k, bit_weights=groups)
            if not (torch.equal(found.distances, wanted[0]) and torch.equal(found.ids, wanted[1])):
                raise SystemExit(f"{8 * width} bits, k = {k}, bit_weights = {groups}: wrong results")
    real, scale = torch.rand(3, 8 * width, device=device), torch.rand(20_000, device=device).half()
    for metric in ("l1", "dot", "cosine", "l2"):
        own = None if metric == "l1" else scale
        found = fasthash.asymmetric_topk(real, database[:20_000], 10, code_scale=own, metric=metric)
        wanted = reference.asymmetric_topk(real, database[:20_000], 10, code_scale=own, metric=metric)
        if not (torch.equal(found.distances, wanted[0]) and torch.equal(found.ids, wanted[1])):
            raise SystemExit(f"{8 * width} bits, asymmetric, {metric}: wrong results")
    few = database[:3000] & 3
    pairs = fasthash.hamming_pairs(few, width), reference.hamming_pairs(few, width)
    if not all(torch.equal(ours, oracle) for ours, oracle in zip(*pairs, strict=True)):
        raise SystemExit(f"{8 * width} bits, pairs: wrong results")


def clock(bench: Bench, work: Callable[[], Any]) -> int | None:
    """MHz of the multiprocessors while the GPU works."""
    if bench.device.type != "cuda":
        return None
    for _ in range(3):
        work()
    command = ["nvidia-smi", "--query-gpu=clocks.sm", "--format=csv,noheader,nounits", "-i", "0"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        return int(found.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):  # no such program; "[N/A]"
        return None
    finally:
        bench.synchronize()


def fits(codes: int, width: int, device: torch.device) -> int:
    """As many codes as leave a quarter of the memory free."""
    if device.type != "cuda":
        return codes
    return min(codes, int(torch.cuda.mem_get_info()[0] * 0.75) // width)


def scans(bench: Bench, bits: int, codes: int) -> None:
    """Top-k, filters and range search over one large database."""
    device, width = bench.device, bits // 8
    count = fits(codes, width, device)
    database = random_codes(count, width, device)
    words = database.view(torch.int64).view(-1)
    reads = {
        "sum": lambda: words.sum(),
        "amax": lambda: words.amax(),
        "sum of floats": lambda: database.view(torch.float32).sum(),
    }
    times = bench.seconds_of(reads)
    read = reads[min(times, key=times.__getitem__)]
    sizes = {"bits": bits, "codes": count}
    for rows in (1, 4, 16, 1024):
        queries = random_codes(rows, width, device)
        for k in (k for k in (10, 1000, 10_000) if k <= count):
            search = lambda q=queries, k=k: fasthash.hamming_topk(q, database, k)  # noqa: E731
            row = bench.case("top-k", {"fasthash": search, "read": read}, **sizes, queries=rows, k=k)
            if row is not None and rows == 1024 and k == 10 and device.type == "cuda":
                megahertz = clock(bench, search)
                units = torch.cuda.get_device_properties(device).multi_processor_count
                bench.machine["clock_mhz"] = megahertz
                row["ceiling_ms"] = megahertz and 1e3 * rows * count * (bits / 32) / (units * 16 * megahertz * 1e6)
    allowed = torch.randint(0, 2, (count,), device=device, dtype=torch.uint8).bool()
    for rows in (1, 16, 1024):
        queries = random_codes(rows, width, device)
        counts, _ = fasthash.hamming_histogram(queries[:1], database[:1_000_000])
        radius = int((counts[0].cumsum(0) < 1000 * min(1.0, 1e6 / count)).sum())  # about 1,000 results
        bench.case(
            "filter and range",
            {
                "plain": lambda q=queries: fasthash.hamming_topk(q, database, 10),
                "filter": lambda q=queries: fasthash.hamming_topk(q, database, 10, filter=allowed),
                "range": lambda q=queries, r=radius: fasthash.hamming_range(q, database, r),
            },
            **sizes,
            queries=rows,
            radius=radius,
        )


def by_class(bench: Bench, codes: int) -> None:
    """Codes stored class by class: what they cost in one pass must be what codes in no order cost."""
    device = bench.device
    codes = fits(codes, 3 * 8, device)  # room for a block of noise, too
    centers = random_codes(1000, 8, device).view(torch.int64).view(-1)
    database = torch.empty(codes, dtype=torch.int64, device=device)
    for begin in range(0, codes, BLOCK):
        rows = torch.arange(begin, min(begin + BLOCK, codes), device=device)
        turned = torch.zeros_like(rows)
        for bit in range(64):
            turned |= (torch.rand(len(rows), device=device) < 0.03).long() << bit
        database[begin : begin + BLOCK] = centers[rows * 1000 // codes] ^ turned
    packed = database.view(torch.uint8).view(codes, 8)
    for rows in (1, 16, 1024):
        queries = packed[torch.randint(0, codes, (rows,), device=device)]
        bench.case(
            "by class",
            {"fasthash": lambda q=queries: fasthash.hamming_topk(q, packed, 10)},
            bits=64,
            codes=codes,
            queries=rows,
            k=10,
        )


def small(bench: Bench) -> None:
    """A million codes and one query: launches count. 100 calls without waiting; the time of one."""
    count, codes = 100, 1_000_000
    database, query = random_codes(codes, 8, bench.device), random_codes(1, 8, bench.device)

    def calls() -> None:
        for _ in range(count):
            fasthash.hamming_topk(query, database, 10)

    milliseconds = 1e3 * bench.seconds_of({"calls": calls})["calls"] / count
    words = expected.search("small", 64, codes, 1)
    print(f"small, one query over {codes} codes: fasthash {milliseconds:.4f} ms  {words}", flush=True)
    bench.cases.append(
        {"what": "small", "bits": 64, "codes": codes, "queries": 1, "k": 10,
         "milliseconds": {"fasthash": milliseconds}, "expected": words}
    )  # fmt: skip
    bench.write()


def weighted_groups(bits: int) -> list[list[tuple[int, int]]]:
    """Groups of whole words, of bytes or several, and as many as there can be."""
    return [[(bits // count, 1 + group % 7) for group in range(count)] for count in (2, 8, 64)]


def weighted(bench: Bench, bits: int, codes: int) -> None:
    """Top-k of weighted codes, against undivided ones."""
    codes = fits(codes, bits // 8, bench.device)
    database = random_codes(codes, bits // 8, bench.device)
    for groups in weighted_groups(bits):
        for rows in (1, 16, 1024):
            queries = random_codes(rows, bits // 8, bench.device)
            calls = {
                "fasthash": lambda q=queries, g=groups: fasthash.hamming_topk(q, database, 10, bit_weights=g),
                "undivided": lambda q=queries: fasthash.hamming_topk(q, database, 10),
            }
            bench.case(f"{len(groups)} weighted groups", calls, bits=bits, codes=codes, queries=rows, k=10)


def asymmetric(bench: Bench, bits: int, codes: int) -> None:
    """Float queries against all codes, without and with a scale for each, against Hamming search and reading once."""
    codes = fits(codes, bits // 8 + 2, bench.device)
    database = random_codes(codes, bits // 8, bench.device)
    scale = torch.rand(codes, device=bench.device, dtype=torch.float16)
    words = database.view(torch.int64).view(-1)
    for rows in (1, 16, 128, 1024):
        real = torch.rand(rows, bits, device=bench.device)
        packed = fasthash.pack_bits(real)
        calls: dict[str, Callable[[], Any]] = {
            "fasthash": lambda q=real: fasthash.asymmetric_topk(q, database, 10),
            "scaled": lambda q=real: fasthash.asymmetric_topk(q, database, 10, code_scale=scale, metric="dot"),
            "hamming": lambda q=packed: fasthash.hamming_topk(q, database, 10),
            "read": lambda: words.amax(),
        }
        bench.case("asymmetric", calls, bits=bits, codes=codes, queries=rows, k=10)


def joins(bench: Bench, bits: int, codes: int) -> None:
    """Pairs within a small radius, each once, and groups, against a range search of the codes in themselves."""
    database = random_codes(codes, bits // 8, bench.device)
    database[codes // 2 :: 1000] = database[: len(database[codes // 2 :: 1000])] ^ 1  # some pairs
    radius = bits // 16
    calls: dict[str, Callable[[], Any]] = {
        "fasthash": lambda: fasthash.hamming_pairs(database, radius),
        "groups": lambda: fasthash.duplicate_groups(database, radius),
        "one-sided": lambda: fasthash.hamming_range(database, database, radius),
    }
    bench.case("pairs", calls, bits=bits, codes=codes, queries=codes, radius=radius)


def peers(bench: Bench, codes: int) -> None:
    """Plain torch, and faiss where it is installed with its GPU index, at 64 bits."""
    database = random_codes(codes, 8, bench.device)
    faiss_search = faiss_index(database)
    for rows in (1, 16, 1024):
        queries = random_codes(rows, 8, bench.device)
        calls: dict[str, Callable[[], Any]] = {
            "fasthash": lambda q=queries: fasthash.hamming_topk(q, database, 10),
            "matmul": lambda q=queries: matmul_topk(q, database, 10),
        }
        if rows <= 16:
            calls["table"] = lambda q=queries: table_topk(q, database, 10)
        if faiss_search is not None:
            host = queries.cpu().numpy()
            calls["faiss"] = lambda q=host: faiss_search(q, 10)
        bench.case("peers", calls, bits=64, codes=codes, queries=rows, k=10)


def faiss_index(database: Tensor) -> Callable[..., Any] | None:
    try:
        import faiss
    except ImportError:
        return None
    if database.device.type != "cuda" or not hasattr(faiss, "GpuIndexBinaryFlat"):
        return None
    flat = faiss.IndexBinaryFlat(8 * database.shape[1])
    flat.add(database.cpu().numpy())
    return faiss.GpuIndexBinaryFlat(faiss.StandardGpuResources(), flat).search


def streaming(bench: Bench, codes: int) -> None:
    """Codes in host memory and in a file (which the system has in memory), against copying pinned memory alone."""
    host = random_codes(codes, 8, torch.device("cpu"))
    index = fasthash.HammingIndex(64, [str(bench.device)])
    index.add(host)
    with tempfile.TemporaryDirectory() as folder:
        index.save(folder)
        opened = fasthash.HammingIndex.open(folder, device=str(bench.device))
        queries = random_codes(4, 8, torch.device("cpu"))
        calls: dict[str, Callable[[], Any]] = {}
        for name, one in (("host", index), ("file", opened)):
            one._devices = Devices(one.devices, room=0)  # nothing stays on the device
            calls[name] = lambda one=one: one.search(queries, 10)
        if bench.device.type == "cuda":
            pinned, target = host.pin_memory(), torch.empty_like(host, device=bench.device)
            calls["copy"] = lambda: target.copy_(pinned, non_blocking=True)
        bench.case("streaming", calls, bits=64, codes=codes, queries=4, k=10)


def table(result: dict[str, Any]) -> str:
    """The results for people; made of nothing but the JSON file."""
    machine = result["machine"]
    lines = [
        f"# Hamming search on {machine.get('gpu', machine['processor'])}",
        "",
        f"Commit {machine['commit']}, torch {machine['versions']['torch']}, {machine['clock_mhz'] or '?'} MHz in use.",
        "Milliseconds of a call, medians. Ratios: the first contender's time to the others' (top-k, streaming), or the",
        "others' to the first one's (filter and range, peers).",
        "",
        "| what | bits | codes | queries | k or radius | ms | others, ms | ratios | expected |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    tens = [row for row in result["cases"] if row["what"] == "top-k" and row["k"] == 10]
    at_ten = {(row["bits"], row["queries"]): row["milliseconds"]["fasthash"] for row in tens}
    for row in result["cases"]:
        times = row["milliseconds"]
        ours, *others = times.values()
        names = list(times)[1:]
        turned = row["what"] in ("peers", "filter and range")
        ratios = [f"{n} {t / ours if turned else ours / t:.2f}" for n, t in zip(names, others, strict=True)]
        ten = at_ten.get((row["bits"], row["queries"]))
        if row["what"] == "top-k" and row["k"] > 10 and ten is not None:
            ratios.append(f"k = 10 {ours / ten:.2f}")
        if row.get("ceiling_ms"):
            ratios.append(f"{row['ceiling_ms'] / ours:.0%} of the POPC ceiling")
        cells = [row["what"], row["bits"], f"{row['codes']:.0e}", row["queries"], row.get("k", row.get("radius"))]
        cells += [
            f"{ours:.3g}",
            ", ".join(f"{n} {t:.3g}" for n, t in zip(names, others, strict=True)),
            ", ".join(ratios),
            row["expected"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if result["left_out"]:
        lines += ["", "Left out for want of time or memory: " + "; ".join(result["left_out"]) + "."]
    for name, error in result["failed"].items():
        lines += ["", f"FAILED: {name}: {error}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codes", type=int, default=1_000_000_000, help="at 64 bits; a fifth of it at 256")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--name", default="gpu-hamming")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    bench = Bench(torch.device(arguments.device), arguments.name, arguments.seconds)
    for bits in SHARE:
        check(bits // 8, bench.device)
    steps: dict[str, Callable[[], None]] = {
        "64 bits": lambda: scans(bench, 64, arguments.codes),
        "small": lambda: small(bench),
        "by class": lambda: by_class(bench, arguments.codes),
        "peers": lambda: peers(bench, min(arguments.codes, 100_000_000)),
        "weighted, 64 bits": lambda: weighted(bench, 64, min(arguments.codes, 100_000_000)),
        "256 bits": lambda: scans(bench, 256, int(arguments.codes * SHARE[256])),
        "weighted, 256 bits": lambda: weighted(bench, 256, int(min(arguments.codes, 100_000_000) * SHARE[256])),
        "asymmetric, 64 bits": lambda: asymmetric(bench, 64, min(arguments.codes, 200_000_000)),
        "asymmetric, 256 bits": lambda: asymmetric(bench, 256, int(min(arguments.codes, 200_000_000) * SHARE[256])),
        "pairs, 64 bits": lambda: joins(bench, 64, min(arguments.codes, 1_000_000)),
        "pairs, 256 bits": lambda: joins(bench, 256, min(arguments.codes, 1_000_000)),
        "streaming": lambda: streaming(bench, min(arguments.codes, 250_000_000)),
    }
    for name, step in steps.items():
        bench.step(name, step)
    sys.exit(bool(bench.failed))


if __name__ == "__main__":
    main()
