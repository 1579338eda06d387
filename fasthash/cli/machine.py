"""Commands about this build and this machine: info, bench."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import fasthash
from fasthash import _ops, reference
from fasthash.cli.files import print_json
from fasthash.cli.output import show

_ROWS, _WIDTH = 1 << 24, 8  # 16.8 million codes of 64 bits: 134 MB, more than most caches hold
_BATCH, _BITS = 2048, 64
_SECONDS = 1.0  # that a measurement takes


def info(arguments: argparse.Namespace) -> None:
    result = build_info()
    if arguments.json:
        print_json(result)
        return
    lines = {
        "fasthash": result["version"],
        "compiler": result["compiler"],
        "CUDA kernels": ", ".join(result["cuda_architectures"]) or "none (FASTHASH_CUDA=ON builds them)",
        "instructions": f"{result['isa']} (found: {', '.join(result['isa_found'])})",
        "threads": result["threads"],
        "Python": result["python"],
        "torch": result["torch"],
        "numpy": result["numpy"],
        "machine": f"{result['machine']}, {result['cores']} cores",
        "GPUs": ", ".join(result["gpus"]) or "none",
    }
    for name, value in lines.items():
        show(f"{name:14} {value}")


def build_info() -> dict[str, Any]:
    """What was built and what is here, ready for JSON."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "version": fasthash.__version__,
        "compiler": _ops.compiler(),
        "cuda_architectures": _ops.cuda_architectures(),
        "isa": _ops.isa_chosen(),
        "isa_found": _ops.isa_names(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "gpus": gpus,
    }


def bench(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    results: dict[str, Any] = {"threads": torch.get_num_threads(), "isa": _ops.isa_chosen()}
    steps: list[tuple[str, Callable[[], dict[str, float]]]] = [
        ("hamming_topk, 1 query", lambda: _bench_hamming(1)),
        ("hamming_topk, 128 queries", lambda: _bench_hamming(128)),
        ("kl_loss", _bench_kl),
    ]
    bar = tqdm(steps, desc="bench", leave=False, disable=None)
    for name, step in bar:
        bar.set_postfix_str(name)
        results[name] = step()
    if arguments.json:
        print_json(results)
        return
    show(f"{results['threads']} threads, {results['isa']}; every kernel agreed with its plain-torch definition first")
    for name, _ in steps[:2]:
        row = results[name]
        rate = f"{row['GB/s']:6.1f} GB/s of codes   {row['pairs/s'] / 1e9:6.2f}e9 pairs/s"
        show(f"{name:26} {row['ms']:8.2f} ms   {rate}   ({_ROWS:,} codes of {8 * _WIDTH} bits, k = 10)")
    row = results["kl_loss"]
    show(
        f"{'kl_loss':26} {row['ms']:8.2f} ms   torch {row['torch ms']:.2f} ms: {row['ratio']:.1f} times as fast"
        f"   (forward and backward, {_BATCH} x {_BITS})"
    )


def _bench_hamming(count: int) -> dict[str, float]:
    """Milliseconds, GB of codes scanned and query-code pairs a second of hamming_topk, k = 10."""
    generator = torch.Generator().manual_seed(0)
    database = (
        torch.randint(-(1 << 63), (1 << 63) - 1, (_ROWS,), generator=generator).view(torch.uint8).view(_ROWS, _WIDTH)
    )
    queries = torch.randint(256, (count, _WIDTH), dtype=torch.uint8, generator=generator)
    small = database[:5000]
    found, expected = fasthash.hamming_topk(queries, small, 10), reference.hamming_topk(queries, small, 10)
    _agree("hamming_topk", all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)))
    (seconds,) = _median_seconds(lambda: fasthash.hamming_topk(queries, database, 10))
    return {
        "ms": 1e3 * seconds,
        "GB/s": database.numel() / seconds / 1e9,  # of one pass over the codes, which serves all queries
        "pairs/s": count * _ROWS / seconds,
    }


def _bench_kl() -> dict[str, float]:
    """Milliseconds of kl_loss forward and backward, and of the same in torch (cdist and topk)."""
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(_BATCH, _BITS, generator=generator).requires_grad_()
    target = torch.rand(_BATCH, _BITS, generator=generator)
    part, part_target = z[:256], target[:256]
    wanted = reference.kl_loss(part.double(), part_target.double())
    _agree("kl_loss", torch.allclose(fasthash.kl_loss(part, part_target).double(), wanted, rtol=1e-4, atol=1e-5))

    def in_torch() -> torch.Tensor:
        nu = torch.cdist(z, target, p=1).amin(-1)
        rho = torch.cdist(z, z, p=1).topk(2, largest=False).values[:, 1]
        return ((nu + 1e-2).log() - (rho + 1e-2).log()).mean()

    def run(loss: Callable[[], torch.Tensor]) -> None:
        torch.autograd.grad(loss(), z)

    ours, theirs = _median_seconds(lambda: run(lambda: fasthash.kl_loss(z, target)), lambda: run(in_torch))
    return {"ms": 1e3 * ours, "torch ms": 1e3 * theirs, "ratio": theirs / ours}


def _agree(name: str, same: bool) -> None:
    if not same:
        raise RuntimeError(f"bench: {name} differs from its definition on this machine; please report it")


def _median_seconds(*runs: Callable[[], Any]) -> list[float]:
    """Median time of each call, taken in turns after one to warm up: at least 3 rounds."""
    rounds: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    while len(rounds[0]) < 3 or sum(map(sum, rounds)) < _SECONDS:
        for times, run in zip(rounds, runs, strict=True):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in rounds]
