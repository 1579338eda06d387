"""kl_loss, forward and backward with a tensor target, against plain torch, interleaved in one run.

    python benchmarks/bench_kl.py [--device cpu|cuda] [--sizes 128x32 4096x64 4096x256] [--compile] [--name NAME]

Rivals: (a) torch.cdist + min with autograd; (b) torch.cdist under no_grad, then the chosen pairs, the best plain-torch
way; (c) torch.compile of the broadcast form (--compile: tens of seconds of compilation); (d) KeOps argKmin, then the
chosen pairs, where pykeops is installed. The loss and its gradient are checked against float64 before anything is
timed. Element pairs count the symmetric self term once: 1.5 B^2 D. Writes benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import kit
import torch
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


def check(rows: int, dims: int, p: int, device: str) -> None:
    """Loss and gradient against the float64 oracle, on a part that its memory allows."""
    rows = min(rows, 512)
    z = torch.rand(rows, dims, device=device, requires_grad=True)
    target = torch.rand(rows, dims, device=device)
    exact = z.detach().double().requires_grad_()
    loss, wanted = fasthash.kl_loss(z, target, p=p), reference.kl_loss(exact, target.double(), p=p)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z.grad.double(), exact.grad, rtol=1e-3, atol=1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", nargs="+", default=["128x32", "1024x64", "4096x64", "4096x256"], help="BxD")
    parser.add_argument("--compile", action="store_true", help="(c) too")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--name", default=None)
    arguments = parser.parse_args()
    device, threads = arguments.device, torch.get_num_threads()
    cases: list[dict[str, Any]] = []
    for size in arguments.sizes:
        rows, dims = map(int, size.split("x"))
        for p in (1, 2):
            check(rows, dims, p, device)
            z = torch.rand(rows, dims, device=device, requires_grad=True)
            target = torch.rand(rows, dims, device=device)
            losses: dict[str, Callable[..., Tensor]] = {"fasthash": lambda z, t, p: fasthash.kl_loss(z, t, p=p)}
            losses |= {"b_cdist_gather": cdist_gather}
            if rows * rows * dims <= 1 << 31:
                losses["a_cdist_autograd"] = cdist_autograd
            if arguments.compile and rows * dims <= 1 << 20:
                losses["c_compiled"] = torch.compile(broadcast_gather, dynamic=False)
            if LazyTensor is not None:
                losses["d_keops"] = keops_gather

            def timed(loss: Callable[..., Tensor], z: Tensor = z, target: Tensor = target, p: int = p) -> Any:
                def call() -> None:
                    loss(z, target, p).backward()
                    z.grad = None
                    if z.is_cuda:
                        torch.cuda.synchronize()

                return call

            rounds = 300 if rows <= 256 else arguments.rounds
            times = kit.interleave({name: timed(loss) for name, loss in losses.items()}, rounds)
            seconds = {name: kit.median(found) for name, found in times.items()}
            case = {
                "B": rows,
                "M": rows,
                "D": dims,
                "p": p,
                "milliseconds": {name: s * 1e3 for name, s in seconds.items()},
                "ratio": {name: s / seconds["fasthash"] for name, s in seconds.items()},
                "element_pairs_per_second": 1.5 * rows * rows * dims / seconds["fasthash"],
            }
            cases.append(case)
            ratios = "  ".join(f"{name} {case['ratio'][name]:.1f}x" for name in losses if name != "fasthash")
            print(f"B = M = {rows}, D = {dims}, L{p}: {seconds['fasthash'] * 1e3:.3f} ms, {ratios}", flush=True)

    seed = torch.tensor([1], device=device)
    own = kit.interleave({"fasthash": lambda: torch.ops.fasthash.beta_sample(seed, 4096 * 64)}, 20)
    beta = torch.distributions.Beta(torch.tensor(0.1, device=device), torch.tensor(0.1, device=device))
    peer = kit.interleave({"torch": lambda: beta.sample((4096, 64))}, 20)
    sampler = {"fasthash": kit.median(own["fasthash"]) * 1e3, "torch": kit.median(peer["torch"]) * 1e3}
    print(f"Beta(0.1, 0.1) samples, 4096 x 64: {sampler['fasthash']:.2f} ms, torch {sampler['torch']:.1f} ms")
    result = {"machine": kit.machine(), "threads": threads, "device": device, "cases": cases, "sampler_ms": sampler}
    print(kit.write_json(arguments.name or f"kl-{device}", result))


if __name__ == "__main__":
    main()
