"""kl_loss, forward and backward with a tensor target, against plain torch and KeOps, taking turns in one run.

    python benchmarks/bench_kl.py [--device cpu|cuda] [--sizes 128x32 4096x64 4096x256] [--no-compile] [--name NAME]

Rivals: (a) torch.cdist + min with autograd; (b) torch.cdist under no_grad, then the chosen pairs, the best plain-torch
way; (c) torch.compile of the broadcast form, then the chosen pairs (tens of seconds of compilation a case); (d) KeOps
argKmin, then the chosen pairs, where pykeops is installed. Also: the sampler of the default target against torch's
Beta, peak memory at B = M = 65,536, and what the loss costs right after a torch op, whose OpenMP threads still spin.

Loss and gradients are checked against float64 before anything is timed. Element pairs count the symmetric self term
once: 1.5 B^2 D. Small cases are timed 200 calls at a time, on a GPU those up to B = 4,096 20 at a time, as a training
loop enqueues them; there (c) is timed for L1 alone, and the search without its gradient too. Writes
benchmarks/results/NAME.json after each case, and NAME.md, a table made of it with each goal beside what was measured.
On four cores it takes about five minutes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import importlib.metadata
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import expected
import kit
import torch
from kl_report import SMALL, goals, table
from torch import Tensor

import fasthash
from fasthash import reference

try:
    from pykeops.torch import LazyTensor
except ImportError:
    LazyTensor = None

EPS = 1e-2


def value(nu: Tensor, rho: Tensor) -> Tensor:
    return ((nu + EPS).log() - (rho + EPS).log()).mean()


def chosen(z: Tensor, target: Tensor, nu_index: Tensor, rho_index: Tensor, p: int) -> Tensor:
    """The loss from chosen neighbours, with plain autograd."""
    return value((z - target[nu_index]).norm(p, dim=1), (z - z[rho_index]).norm(p, dim=1))


def cdist_autograd(z: Tensor, target: Tensor, p: int) -> Tensor:
    own = torch.cdist(z, z, p=p)
    own = own + torch.eye(len(z), device=z.device) * torch.finfo(z.dtype).max
    return value(torch.cdist(z, target, p=p).min(1).values, own.min(1).values)


def cdist_gather(z: Tensor, target: Tensor, p: int) -> Tensor:
    with torch.no_grad():
        nu_index = torch.cdist(z, target, p=p).argmin(1)
        rho_index = torch.cdist(z, z, p=p).fill_diagonal_(torch.inf).argmin(1)
    return chosen(z, target, nu_index, rho_index, p)


def broadcast_gather(z: Tensor, target: Tensor, p: int) -> Tensor:
    """What torch.compile turns into one fused reduction."""
    with torch.no_grad():
        power = (lambda x: x.abs()) if p == 1 else (lambda x: x * x)
        nu_index = power(z[:, None] - target[None]).sum(-1).argmin(1)
        own = power(z[:, None] - z[None]).sum(-1)
        rho_index = (own + torch.eye(len(z), device=z.device) * 1e30).argmin(1)
    return chosen(z, target, nu_index, rho_index, p)


def keops_gather(z: Tensor, target: Tensor, p: int) -> Tensor:
    with torch.no_grad():
        rows = LazyTensor(z[:, None])
        distance = (lambda d: d.abs().sum(-1)) if p == 1 else (lambda d: (d**2).sum(-1))
        nu_index = distance(rows - LazyTensor(target[None])).argKmin(1, dim=1)[:, 0]
        rho_index = distance(rows - LazyTensor(z[None])).argKmin(2, dim=1)[:, 1]
    return chosen(z, target, nu_index, rho_index, p)


def ours(z: Tensor, target: Tensor, p: int) -> Tensor:
    return fasthash.kl_loss(z, target, p=p, eps=EPS)


def contenders(rows: int, dims: int, p: int, options: argparse.Namespace) -> dict[str, Callable[..., Tensor]]:
    on_gpu = options.device != "cpu"
    found = {"fasthash": ours, "b_cdist_gather": cdist_gather}
    if on_gpu or rows * rows * dims <= 1 << 32:  # more is tens of seconds a call on a CPU, and tens of gigabytes
        found["a_cdist_autograd"] = cdist_autograd
    if not options.no_compile and (p == 1 if on_gpu else rows * dims <= 1 << 20):
        torch._dynamo.reset()
        found["c_compiled"] = torch.compile(broadcast_gather, dynamic=False)
    if LazyTensor is not None:
        found["d_keops"] = keops_gather
    return found


def check(rows: int, dims: int, p: int, device: str) -> None:
    """Loss and gradient against the float64 oracle, on a part that its memory allows."""
    rows = min(rows, 512)
    z = torch.rand(rows, dims, device=device, requires_grad=True)
    target = torch.rand(rows, dims, device=device)
    exact = z.detach().double().requires_grad_()
    loss, wanted = ours(z, target, p), reference.kl_loss(exact, target.double(), p=p, eps=EPS)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=1e-3, atol=1e-6)


def compare(rows: int, dims: int, p: int, options: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of every contender, in turns."""
    check(rows, dims, p, options.device)
    z = torch.rand(rows, dims, device=options.device, requires_grad=True)
    target = torch.rand(rows, dims, device=options.device)
    losses = contenders(rows, dims, p, options)

    repeats = 200 if rows <= SMALL else 20 if z.is_cuda and rows <= 4096 else 1

    def step(loss: Callable[..., Tensor]) -> None:
        loss(z, target, p).backward()
        z.grad = None

    def timed(work: Callable[[], Any]) -> Callable[[], None]:
        def call() -> None:
            for _ in range(repeats):
                work()
            if z.is_cuda:
                torch.cuda.synchronize()

        return call

    left_out = {}
    for name, loss in [*losses.items()]:
        try:
            step(loss)
        except Exception as error:  # the gradient of torch.cdist needs 4 B M D bytes on a GPU, torch.compile a compiler
            if loss is ours:
                raise
            left_out[name] = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            del losses[name]
    if left_out and z.is_cuda:
        torch.cuda.empty_cache()
    calls = {name: timed(functools.partial(step, loss)) for name, loss in losses.items()}
    if z.is_cuda:
        calls["search"] = timed(lambda: ours(z.detach(), target, p))
    times = kit.interleave(calls, options.rounds, options.seconds)
    seconds = {name: kit.median(found) / repeats for name, found in times.items()}
    searched = seconds.pop("search", None)
    return {
        "B": rows,
        "M": rows,
        "D": dims,
        "p": p,
        "rounds": len(times["fasthash"]),
        "left_out": left_out,
        "search_milliseconds": None if searched is None else searched * 1e3,
        "milliseconds": {name: s * 1e3 for name, s in seconds.items()},
        "best_milliseconds": {name: min(times[name]) / repeats * 1e3 for name in seconds},
        "ratio": {name: s / seconds["fasthash"] for name, s in seconds.items()},
        "element_pairs_per_second": 1.5 * rows * rows * dims / seconds["fasthash"],
    }


def compare_samplers(rows: int, dims: int, device: str) -> dict[str, Any]:
    """Milliseconds for Beta(0.1, 0.1) samples [rows, dims], of this package and of torch."""
    seed = torch.tensor([1], device=device)
    tenth = torch.tensor(0.1, device=device)
    beta = torch.distributions.Beta(tenth, tenth)

    def timed(sample: Callable[[], Tensor]) -> Callable[[], None]:
        def call() -> None:
            sample()
            if device != "cpu":
                torch.cuda.synchronize()

        return call

    samplers = {
        "fasthash": timed(lambda: torch.ops.fasthash.beta_sample(seed, rows * dims)),
        "torch": timed(lambda: beta.sample((rows, dims))),
    }
    times = kit.interleave(samplers, 20)
    return {"rows": rows, "dims": dims, "milliseconds": {name: kit.median(t) * 1e3 for name, t in times.items()}}


# In processes of their own


def peak_memory(rows: int, dims: int, threads: int) -> int:
    """Bytes of peak memory of a forward and backward call, beyond its inputs and gradients (Linux)."""
    torch.set_num_threads(threads)
    warm = torch.rand(300, dims, requires_grad=True)
    ours(warm, torch.rand(300, dims), 1).backward()  # threads and libraries are there
    z, target = torch.rand(rows, dims, requires_grad=True), torch.rand(rows, dims)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    before = status_bytes("VmRSS")
    ours(z, target, 1).backward()
    return status_bytes("VmHWM") - before - z.grad.numel() * z.grad.element_size()


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def after_torch(rows: int, dims: int, threads: int) -> dict[str, float]:
    """Median milliseconds of the loss on an idle machine, and right after a matrix product of torch."""
    torch.set_num_threads(threads)
    z, target = torch.rand(rows, dims, requires_grad=True), torch.rand(rows, dims)
    a = torch.rand(1024, 1024)
    times: dict[str, list[float]] = {"idle": [], "after_matmul": []}
    for _ in range(25):
        for name, found in times.items():
            a @ a  # in both, for the same state of the caches
            if name == "idle":
                time.sleep(kit.PAUSE)
            start = time.perf_counter()
            ours(z, target, 1).backward()
            found.append(time.perf_counter() - start)
            z.grad = None
            time.sleep(kit.PAUSE)
    return {name: kit.median(found[2:]) * 1e3 for name, found in times.items()}


def in_child(function: Callable[..., Any], *arguments: Any, **environment: str) -> Any:
    """The function's result in a new process with these environment variables."""
    kept = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        for name, old in kept.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old


def gpu_clock() -> str | None:
    """The multiprocessors' clock as nvidia-smi tells it, right after the work."""
    command = ["nvidia-smi", "--query-gpu=clocks.sm,clocks.max.sm", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def write(name: str, result: dict[str, Any]) -> None:
    result["goals"] = goals(result)
    kit.write_json(name, result).with_suffix(".md").write_text(table(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["128x32", "4096x64", "4096x256"], help="BxD")
    parser.add_argument("--no-compile", action="store_true", help="without (c)")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each case, compilation aside")
    parser.add_argument("--name", default=None)
    options = parser.parse_args()
    device, threads = options.device, torch.get_num_threads()
    result: dict[str, Any] = {"machine": kit.machine(), "threads": threads, "device": device, "cases": []}
    if LazyTensor is None:
        result["left_out"] = {"d_keops": "pykeops is not installed"}
    else:
        result["machine"]["versions"]["pykeops"] = importlib.metadata.version("pykeops")
    result["samplers"] = [compare_samplers(*size, device) for size in ((128, 32), (4096, 64))]
    for size in options.sizes:
        rows, dims = map(int, size.split("x"))
        for p in (1, 2):
            case = compare(rows, dims, p, options)
            result["cases"].append(case)
            ratios = "  ".join(f"{name} {x:.1f}x" for name, x in case["ratio"].items() if name != "fasthash")
            words = expected.kl(rows, dims, p) if device == "cuda" else ""
            milliseconds = case["milliseconds"]["fasthash"]
            print(f"B = M = {rows}, D = {dims}, L{p}: {milliseconds:.3f} ms, {ratios}  {words}".rstrip(), flush=True)
            for name, why in case["left_out"].items():
                print(f"    without {name}: {why}")
            if device != "cpu":
                case["clock"] = gpu_clock()
            write(options.name or f"kl-{device}", result)  # time may run out
    if device == "cpu" and Path("/proc/self/clear_refs").exists():
        result["memory"] = {"B": 65536, "D": 64, "peak_bytes": in_child(peak_memory, 65536, 64, threads)}
        result["after_torch"] = [
            {"B": rows, "spin": " ".join(f"{k}={v}" for k, v in spin.items()) or "default"}
            | in_child(after_torch, rows, 64, threads, **spin)
            for rows in (512, 1024, 4096)
            for spin in ({}, {"GOMP_SPINCOUNT": "3000"})
        ]
    write(options.name or f"kl-{device}", result)
    print(table(result))


if __name__ == "__main__":
    main()
