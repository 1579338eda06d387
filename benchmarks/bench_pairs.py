"""All pairs within a radius, groups and the symmetric scan, on two threads.

    python benchmarks/bench_pairs.py [--lines "1e6 x 64, 4" ...] [--threads 2] [--data ../shared/data] [--name pairs]

Lines may be run one at a time; results are added to the file. Data: "planted" is random with groups of 2 to 50, a
tenth of all, that differ from their first in 0 to 3 bits; "skewed" is the same with a tenth of equal codes, a tenth of
codes with few ones, and a half with one first quarter; "weighted" is "planted" with the bit weights that Hasher has at
64 bits, 44x4,20x1, without rivals; "pHash" and "dHash" are hashes of 4,000 real pictures and four
edited copies of each (picture_hashes.py; needs Pillow, scipy and --data; left out where these are missing). Pairs and
groups take turns in one run; beyond 1e7 codes each is called once. Each line's pairs are checked first, for 500 rows,
against hamming_range.

Rivals search the codes in themselves, one-sided, and get a part of the codes as queries; the table says what they
would need for all ("x", extrapolated). hamming_range and faiss (IndexBinaryFlat.range_search) get 2,000 queries of at
most 1e6 codes. usearch (exact search, which has no radius: the 10 nearest) and pybktree get 200 of at most 1e5; the
time of pybktree includes making the tree. The symmetric line compares the scan of pairs (plan "ones") with a one-sided
scan that counts.
Writes benchmarks/results/NAME.json and NAME.md. 1e7 codes need 2 GiB, 5e7 need 6 GiB; all lines take some 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kit
import numpy as np
import torch

from fasthash import _ops, duplicate_groups, hamming_pairs, hamming_range
from fasthash._bit_weights import bit_weights as flat_bit_weights
from fasthash._ops.hamming import hamming_problem
from fasthash._ops.registry import address, call

try:
    import faiss
except ImportError:
    faiss = None
try:
    import pybktree
except ImportError:
    pybktree = None
try:
    import usearch.index as usearch
except ImportError:
    usearch = None

# n, bits, radius, data, the goal in seconds
LINES: dict[str, tuple[int, int, int, str, float | None]] = {
    "2e4 x 64, 4, pHash": (4000 * 5, 64, 4, "pHash", None),
    "2e4 x 64, 4, dHash": (4000 * 5, 64, 4, "dHash", None),
    "1e5 x 64, 4": (10**5, 64, 4, "planted", None),
    "1e6 x 64, 4": (10**6, 64, 4, "planted", 2),
    "1e6 x 64, 4, skewed": (10**6, 64, 4, "skewed", None),
    "1e5 x 64, 4, weighted": (10**5, 64, 4, "weighted", None),
    "1e6 x 64, 4, weighted": (10**6, 64, 4, "weighted", None),
    "1e6 x 64, 16, weighted": (10**6, 64, 16, "weighted", None),
    "1e7 x 64, 3": (10**7, 64, 3, "planted", 60),
    "5e7 x 64, 2": (5 * 10**7, 64, 2, "planted", 360),
    "1e6 x 256, 31": (10**6, 256, 31, "planted", 90),
}
WEIGHTS = [(44, 4), (20, 1)]
SYMMETRIC = "symmetric, 1e5 x 256, 31"
QUERIES = {"hamming_range": 2000, "faiss": 2000, "usearch": 200, "pybktree": 200}
MOST = {"hamming_range": 10**6, "faiss": 10**6, "usearch": 10**5, "pybktree": 10**5}  # codes that they are given
Codes = np.ndarray[Any, np.dtype[np.uint8]]


def planted(n: int, bits: int, rng: np.random.Generator) -> Codes:
    codes = rng.integers(0, 256, (n, bits // 8), dtype=np.uint8)
    sizes = rng.integers(2, 51, n // 10 // 2)
    firsts = np.repeat(np.cumsum(sizes) - sizes, sizes)[: n // 10]
    codes[: len(firsts)] = codes[firsts]
    rows = np.arange(len(firsts))
    for _ in range(3):
        bit = rng.integers(0, bits, len(firsts))
        codes[rows, bit // 8] ^= np.where(rng.random(len(firsts)) < 0.5, 128 >> bit % 8, 0).astype(np.uint8)
    return codes[rng.permutation(n)]


def skewed(n: int, bits: int, rng: np.random.Generator) -> Codes:
    codes = planted(n, bits, rng)
    kind = rng.integers(0, 10, n)
    codes[kind == 0] = 0
    few = kind == 1
    codes[few] = np.packbits(rng.random((int(few.sum()), bits)) < 12 / bits, axis=1)
    codes[kind >= 5, : bits // 32] = 0xC3
    return codes


def check(codes: Codes, radius: int, found: Any, weights: Any) -> None:
    """The pairs of 500 rows, against a search for them."""
    rows = np.linspace(0, len(codes) - 1, 500).astype(np.int64)
    near = hamming_range(codes[rows], codes, radius, bit_weights=weights)
    wanted = set()
    for number, row in enumerate(rows.tolist()):
        own = slice(int(near.offsets[number]), int(near.offsets[number + 1]))
        for id, distance in zip(near.ids[own].tolist(), near.distances[own].tolist(), strict=True):
            if id != row:
                wanted.add((min(row, id), max(row, id), distance))
    here = np.isin(found.ids_a, rows) | np.isin(found.ids_b, rows)
    got = {tuple(row) for row in np.stack([part[here].astype(np.int64) for part in found], 1).tolist()}
    assert got == wanted, f"pairs differ: {len(got)} and {len(wanted)}"


def codes_of(n: int, bits: int, kind: str, data: Path) -> Codes:
    if kind in ("pHash", "dHash"):
        from picture_hashes import COPIES, picture_hashes

        return picture_hashes(data, kind, n // COPIES)
    return (skewed if kind == "skewed" else planted)(n, bits, np.random.default_rng(0))


def rivals(codes: Codes, radius: int, threads: int) -> dict[str, Callable[[], Any]]:
    """One-sided searches for the first QUERIES of all codes."""
    calls: dict[str, Callable[[], Any]] = {}
    first = {name: codes[:count] for name, count in QUERIES.items()}
    calls["hamming_range"] = lambda: hamming_range(first["hamming_range"], codes, radius)
    if faiss is not None:
        flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
        flat.add(codes)
        calls["faiss"] = lambda: flat.range_search(first["faiss"], radius + 1)  # faiss leaves the radius itself out
    if usearch is not None:
        metric = usearch.MetricKind.Hamming
        calls["usearch"] = lambda: usearch.search(codes, first["usearch"], 10, metric, exact=True, threads=threads)
    return {name: call for name, call in calls.items() if len(codes) <= MOST[name]}


def tree_seconds(codes: Codes, radius: int) -> float:
    """pybktree: the seconds to make the tree, and to search for all of its codes, extrapolated."""
    numbers = [int.from_bytes(row.tobytes(), "big") for row in codes]
    start = time.perf_counter()
    tree = pybktree.BKTree(pybktree.hamming_distance, numbers)
    made = time.perf_counter() - start
    queries = np.random.default_rng(0).choice(len(codes), QUERIES["pybktree"], replace=False).tolist()
    start = time.perf_counter()
    for row in queries:
        tree.find(numbers[row], radius)
    return made + (time.perf_counter() - start) * len(codes) / len(queries)


def measure(name: str, seconds: float, data: Path, threads: int) -> dict[str, Any]:
    n, bits, radius, kind, goal = LINES[name]
    codes = codes_of(n, bits, kind, data)
    few_pairs, weights = kind != "skewed", WEIGHTS if kind == "weighted" else None
    most = None if few_pairs else 0  # of skewed data pairs are counted, and not kept: there are billions
    result: dict[str, Any] = {"n": n, "bits": bits, "radius": radius, "data": kind, "goal_s": goal}
    given = torch.from_numpy(codes)
    join = _ops.pairs.Join(given, None, radius, bit_weights=flat_bit_weights(weights, "bench_pairs", bits // 8))
    result["pairs"] = join.find(0, n, 0)
    result["plan"] = join.plan
    del join
    if few_pairs:
        found = hamming_pairs(codes, radius, bit_weights=weights)
        check(codes, radius, found, weights)
        if kind.endswith("Hash"):
            from picture_hashes import COPIES

            same = int((found.ids_a // COPIES == found.ids_b // COPIES).sum())
            result["copies_found"] = same / (n // COPIES * COPIES * (COPIES - 1) // 2)
            result["pairs_of_two_pictures"] = result["pairs"] - same
        del found

    def pairs() -> None:
        if most is None:
            hamming_pairs(codes, radius, bit_weights=weights)
        else:
            _ops.pairs.Join(given, None, radius).find(0, n, most)

    calls: dict[str, Callable[[], Any]] = {
        "pairs": pairs,
        "single": lambda: duplicate_groups(codes, radius, bit_weights=weights),
        "star": lambda: duplicate_groups(codes, radius, link="star", bit_weights=weights),
    }
    if few_pairs and weights is None and n <= max(MOST.values()):
        calls |= rivals(codes, radius, threads)
    if n > 10**7:
        times = {call: seconds_of(run) for call, run in calls.items()}
    else:
        times = {call: kit.median(values) for call, values in kit.interleave(calls, 5, seconds).items()}
    result["groups"] = len(duplicate_groups(codes, radius, bit_weights=weights).sizes) if n <= 10**7 else None
    for rival in QUERIES.keys() & times.keys():
        result[f"{rival}_extrapolated_s"] = times.pop(rival) * n / QUERIES[rival]
    if pybktree is not None and few_pairs and weights is None and n <= MOST["pybktree"] and bits <= 64:
        result["pybktree_extrapolated_s"] = tree_seconds(codes, radius)
    result |= {f"{call}_s": value for call, value in times.items()}
    return result


def seconds_of(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def symmetric(seconds: float) -> dict[str, Any]:
    """Each pair once against each pair twice, in scans of all codes with nearly no result."""
    n, bits, radius = 10**5, 256, 31
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, bits // 8), dtype=np.uint8))
    counts = torch.empty(n, dtype=torch.int64)
    problem = hamming_problem(codes, codes, None)
    calls = {
        "symmetric": lambda: _ops.pairs.Join(codes, None, radius, _ops.pairs.ONES).find(0, n, 0),
        "one_sided": lambda: call("hamming_range_count", codes.device, problem, radius, address(counts)),
    }
    times = {name: kit.median(values) for name, values in kit.interleave(calls, 7, seconds).items()}
    assert (int(counts.sum()) - n) // 2 == _ops.pairs.Join(codes, None, radius).find(0, n, 0)
    return {f"{name}_s": value for name, value in times.items()} | {"ratio": times["one_sided"] / times["symmetric"]}


def goals(lines: dict[str, Any]) -> dict[str, bool]:
    met = {}
    for name, line in lines.items():
        if name == SYMMETRIC:
            met["the symmetric scan is 1.8 times the one-sided one"] = line["ratio"] >= 1.8
            continue
        if line["goal_s"] is not None:
            met[f"{name}: {line['goal_s']:g} s"] = line["pairs_s"] <= line["goal_s"]
        met[f"{name}: groups at most 1.2 times the pairs"] = line["single_s"] <= 1.2 * line["pairs_s"]
    return met


def table(result: dict[str, Any]) -> str:
    head = [
        "codes, radius",
        "data",
        "pairs",
        "plan",
        "pairs s",
        "single s",
        "star s",
        "hamming_range s",
        "faiss s",
        "usearch s",
        "pybktree s",
        "goal s",
        "load",
        "processor",
    ]
    rows = [head, ["---"] * len(head)]
    for name, line in result["lines"].items():
        if name == SYMMETRIC:
            continue
        seconds = ["pairs_s", "single_s", "star_s", *(f"{rival}_extrapolated_s" for rival in QUERIES), "goal_s"]
        shown = ["" if line.get(key) is None else f"{line[key]:.3g}" + "x" * ("extra" in key) for key in seconds]
        plan = "ones" if line["plan"] == _ops.pairs.ONES else f"{line['plan']} substrings"
        rows.append(
            [
                name.removesuffix(f", {line['data']}"),
                line["data"],
                f"{line['pairs']:,}",
                plan,
                *shown,
                f"{line['load']:.0f}",
                line["processor"],
            ]
        )
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    info = result["machine"]
    told = [
        f"{result['threads']} threads, instruction set {info['isa']['chosen']}. x: extrapolated from "
        f"{QUERIES['faiss']:,} queries, of usearch and pybktree from {QUERIES['pybktree']}. usearch finds the 10 "
        "nearest. load: of the machine when a line began; lines of an earlier run keep theirs."
    ]
    if SYMMETRIC in result["lines"]:
        line = result["lines"][SYMMETRIC]
        told.append(
            f"A symmetric scan of 1e5 codes of 256 bits takes {line['symmetric_s']:.3g} s, a one-sided one "
            f"{line['one_sided_s']:.3g} s: {line['ratio']:.2f} times as long."
        )
    for name, line in result["lines"].items():
        if "copies_found" in line:
            told.append(
                f"{name}: {line['copies_found']:.0%} of the pairs of copies of one picture are within the radius, and "
                f"{line['pairs_of_two_pictures']:,} pairs of two pictures."
            )
    met = [f"- {'met' if good else 'not met'}: {goal}" for goal, good in result["goals"].items()]
    return "\n\n".join(["# All pairs within a radius", *told, text, "Goals:", "\n".join(met)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", nargs="+", default=[*LINES, SYMMETRIC], choices=[*LINES, SYMMETRIC])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60, help="of each line, beyond three rounds")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--name", default="pairs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if faiss is not None:
        faiss.omp_set_num_threads(options.threads)
    file = kit.RESULTS / f"{options.name}.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"lines": {}}
    result |= {"machine": kit.machine(), "threads": options.threads}
    for name in options.lines:
        if name.endswith("Hash") and not (options.data / "tiny_imagenet_32").is_dir():
            print(f"{name}: left out, {options.data} has no tiny_imagenet_32")
            continue
        start, load = time.perf_counter(), os.getloadavg()[0]
        line = (
            symmetric(options.seconds)
            if name == SYMMETRIC
            else measure(name, options.seconds, options.data, options.threads)
        )
        line |= {
            "processor": result["machine"]["processor"],
            "load": load,
            "peak_bytes_of_the_process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }
        result["lines"][name] = line
        result["goals"] = goals(result["lines"])
        kit.write_json(options.name, result)
        file.with_suffix(".md").write_text(table(result))
        print(f"{name}: {time.perf_counter() - start:.0f} s  {json.dumps(line)}", flush=True)


if __name__ == "__main__":
    main()
