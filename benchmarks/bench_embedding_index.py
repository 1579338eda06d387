"""What codes find of an exact search of real embeddings, and how long that takes to measure on a million rows.

    python benchmarks/bench_embedding_index.py --data ../shared/data         captions: widths, rows of the fit
    python benchmarks/bench_embedding_index.py --million                     1e6 x 384 generated rows: time and memory
    python benchmarks/bench_embedding_index.py --fit                         memory of Hasher.fit from a mapped file

Writes benchmarks/results/embedding-index.json, and from it the tables of docs/embedding-index.md (--tables: only
these).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_billion import Peak

from fasthash import Hasher
from fasthash.embeddings import against_exact

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "embedding-index.json"
PAGE = ROOT / "docs" / "embedding-index.md"
START, END = "<!-- measured -->\n", "<!-- end of measured -->\n"
QUERIES = 500
FIT_ROWS = (50_000, 100_000)


def captions(data: Path) -> dict[str, Any]:
    """25,014 captions, 384-d (MiniLM): 500 are queries, the others the database."""
    with np.load(data / "coco_captions_val2017" / "minilm_l6_v2_f16.npz") as arrays:
        rows = arrays["embedding"].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(rows))
    queries, base = rows[order[:QUERIES]], rows[order[QUERIES:]]
    widths = against_exact(base, queries, ["itq", "lsh"], bits=[64, 128, 256], at=[1, 10, 100])
    widths += against_exact(base, queries, "rabitq", bits=[384, 768], at=[1, 10, 100])
    fits = []
    for name, bits in (("itq", 128), ("rabitq", 384)):
        for count in (200, 1000, 5000, 20000):
            row = against_exact(base, queries, name, bits=bits, refine=None, at=[10], fit_rows=count)[0]
            fits.append({**row, "fit_rows": count})
    more = []
    for name, bits in (("itq", 64), ("itq", 128), ("rabitq", 384)):
        for oversample in (1, 3, 10, 30):
            row = against_exact(base, queries, name, bits=bits, refine="int8", at=[10], oversample=oversample)[0]
            more.append({**row, "oversample": oversample})
    return {"rows": len(base), "queries": QUERIES, "widths": widths, "fits": fits, "oversample": more}


def million() -> dict[str, Any]:
    """1e6 x 384 rows around 1,000 centres, 1,000 queries: seconds and peak memory of one measurement."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(1000, 384)).astype(np.float32)
    rows = np.empty((1_000_000, 384), np.float32)
    for start in range(0, len(rows), 10_000):
        chosen = centres[rng.integers(0, 1000, 10_000)]
        rows[start : start + 10_000] = chosen + rng.standard_normal((10_000, 384), np.float32)
    queries = rows[::1000] + 0.5 * rng.standard_normal((1000, 384), np.float32)
    before, start, busy = _peak(), time.perf_counter(), time.process_time()
    found = against_exact(rows, queries, "itq", bits=[128], refine=[None, "int8"])
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cpu": time.process_time() - busy, "peak_more_mib": _peak() - before, "found": found}


def fit_memory() -> list[dict[str, Any]]:
    """MiB of the process's own memory (RssAnon) that Hasher.fit takes beyond what there was, X mapped from a file."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        Hasher(64, epochs=1, progress=False).fit(np.random.default_rng(0).normal(size=(5_000, 384)).astype(np.float32))
        for count in FIT_ROWS:
            where = Path(folder) / f"{count}.npy"
            rows = np.lib.format.open_memmap(where, "w+", np.float32, (count, 384))
            for start in range(0, count, 10_000):
                rows[start : start + 10_000] = np.random.default_rng(start).standard_normal((10_000, 384), np.float32)
            del rows
            for neighbors in (1, 16):
                hasher = Hasher(64, neighbors=neighbors, epochs=1, progress=False)
                with Peak() as peak:
                    hasher.fit(np.load(where, mmap_mode="r"))
                found.append({"rows": count, "neighbors": neighbors, "mib": (peak.peak - peak.before) >> 20})
                print(found[-1], flush=True)
    return found


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def tables(result: dict[str, Any]) -> str:
    """The tables of the page."""
    captions = result["captions"]
    lines = [
        f"{captions['rows']:,} captions as database, {captions['queries']} as queries, 384 features, oversample 3:",
        "",
        "| encoder | bits | refine | bytes an item | recall@1 | recall@10 | overlap@10 | overlap@100 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in captions["widths"]:
        numbers = " | ".join(f"{row[name]:.3f}" for name in ("recall@1", "recall@10", "overlap@10", "overlap@100"))
        lines.append(f"| {row['encoder']} | {row['bits']} | {row['refine'] or 'none'} | {row['bytes']} | {numbers} |")
    lines += ["", "More candidates, overlap@10 with int8:", "", *_crossed(captions["oversample"], "oversample")]
    lines += [
        "",
        "Fitted on the first rows alone, overlap@10 without refine:",
        "",
        *_crossed(captions["fits"], "fit_rows"),
    ]
    if "million" in result:
        one = result["million"]
        lines += [
            "",
            "1,000 queries on 1,000,000 x 384 generated rows, ITQ of 128 bits, with and without int8: "
            f"{one['seconds']:.0f} seconds on",
            f"{result['threads']} threads ({one['cpu']:.0f} of processor time), {one['peak_more_mib']:,} MiB of memory "
            "beside the rows.",
        ]
    if "fit_memory" in result:
        own = {(row["neighbors"], row["rows"]): row["mib"] for row in result["fit_memory"]}
        lines += ["", "Memory of `Hasher(64).fit(X)` beside X, 384 features, mapped from a file, in MiB:", ""]
        lines += [
            "| rows | " + " | ".join(f"{count:,}" for count in FIT_ROWS) + " |",
            "|---" * (1 + len(FIT_ROWS)) + "|",
        ]
        for neighbors, words in ((1, "`neighbors=1`"), (16, "with the table of neighbours")):
            lines.append(f"| {words} | " + " | ".join(f"{own[neighbors, count]:,}" for count in FIT_ROWS) + " |")
    return "\n".join(lines) + "\n"


def _crossed(rows: list[dict[str, Any]], setting: str) -> list[str]:
    """A table of overlap@10, encoders by the values of a setting."""
    values = sorted({row[setting] for row in rows})
    words = setting.replace("_", " ")
    lines = [f"| encoder, {words} | " + " | ".join(f"{value:,}" for value in values) + " |"]
    lines.append("|---" * (len(values) + 1) + "|")
    for name in dict.fromkeys((row["encoder"], row["bits"]) for row in rows):
        own = {row[setting]: row["overlap@10"] for row in rows if (row["encoder"], row["bits"]) == name}
        lines.append(f"| {name[0]}, {name[1]} bits | " + " | ".join(f"{own[value]:.3f}" for value in values) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--tables", action="store_true")
    arguments = parser.parse_args()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if arguments.data is not None:
        result["captions"] = captions(arguments.data)
    if arguments.million:
        result["million"] = million()
    if arguments.fit:
        result["fit_memory"] = fit_memory()
    if not arguments.tables:
        result |= {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
        result["threads"] = torch.get_num_threads()
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    page = PAGE.read_text()
    before, after = page.split(START)[0], page.split(END)[1]
    PAGE.write_text(before + START + "\n" + tables(result) + "\n" + END + after)


if __name__ == "__main__":
    main()
