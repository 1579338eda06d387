"""What torch expects of an op (schema, fake tensors, autograd, autocast, compilation), and Python of a kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.library import opcheck

import fasthash
from fasthash import _ops, reference

ops = torch.ops.fasthash


def example_calls(device: torch.device) -> list[tuple[Any, tuple[Any, ...]]]:
    z = torch.rand(1, 9, 4, device=device, requires_grad=True)
    many = torch.rand(2, 9, 4, device=device, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 7, 4, device=device, requires_grad=True)
    q = torch.randint(0, 256, (3, 8), dtype=torch.uint8, device=device)
    d = torch.randint(0, 256, (70, 8), dtype=torch.uint8, device=device)
    mask = _ops.mask_words(torch.rand(70, device=device) < 0.5)
    labels = torch.randint(0, 4, (70,), device=device)
    weights = torch.rand(3, 4, dtype=torch.float64, device=device)
    real = torch.rand(3, 61, device=device)
    return [
        (ops.kl_loss.default, (z, target, 1, 2, 1e-2)),
        (ops.kl_loss.default, (many, target.detach().double(), 2, 1, 0.0)),
        (ops.nearest.default, (z, target, 1, 2)),
        (ops.nearest.default, (many, None, 2, 2)),
        (ops.pairwise_l1.default, (z[0],)),
        (ops.beta_sample.default, (torch.tensor([3], device=device), 40)),
        (ops.hamming_topk.default, (q, d, mask, 5)),
        (ops.hamming_range.default, (q, d, None, 25)),
        (ops.hamming_distances.default, (q, d)),
        (ops.hamming_histogram.default, (q, d, labels, weights)),
        (ops.hamming_histogram.default, (q, d, None, None)),
        (ops.asymmetric_distances.default, (real, d[:30].view(3, 10, 8))),
        (ops.asymmetric_topk.default, (real, d, mask, None, 5, "l1")),
        (ops.asymmetric_topk.default, (real, d, None, torch.ones(70, device=device).half(), 5, "l2")),
        (ops.hamming_topk.default, (q, d, mask, 5, [20, 9, 43, 2])),
        (ops.hamming_range.default, (q, d, None, 100, [20, 9, 43, 2])),
        (ops.hamming_distances.default, (q, d, [20, 9, 43, 2])),
        (ops.hamming_histogram.default, (q, d, labels, weights, [20, 9, 43, 2])),
    ]


@pytest.mark.parametrize("index", range(18))
def test_opcheck(index: int, device: torch.device) -> None:
    op, arguments = example_calls(device)[index]
    opcheck(op, arguments)


def every_loss(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    distance = (target - target.T).abs()
    return (
        fasthash.kl_loss(z, z.detach().flip(0) * 0.9, k=2)
        + fasthash.koleo_loss(z)
        + fasthash.similarity_loss(z, distance)
        + fasthash.similarity_loss(z, distance, tau_z="batch")
        + fasthash.listwise_loss(z, distance)
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(dynamic: bool, device: torch.device) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(every_loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for rows in (16, 24):
        z = torch.rand(rows, 6, device=device, requires_grad=True)
        target = torch.rand(rows, 1, device=device)
        compiled(z, target).backward()
        gradient, z.grad = z.grad, None
        every_loss(z, target).backward()
        torch.testing.assert_close(gradient, z.grad)


def test_compiled_default_target_draws_anew(device: torch.device) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: fasthash.kl_loss(z), fullgraph=True, backend="aot_eager")
    z = torch.rand(16, 6, device=device, requires_grad=True)
    first, second = compiled(z), compiled(z)
    assert first != second
    first.backward()
    assert z.grad.isfinite().all()


def test_autocast_computes_in_float32(device: torch.device) -> None:
    with torch.autocast(device.type, torch.bfloat16):
        layer = torch.nn.Linear(8, 8, device=device)
        z = layer(torch.rand(12, 8, device=device)).sigmoid()
        assert z.dtype == torch.bfloat16
        loss = every_loss(z, torch.rand(12, 1, device=device))
        assert loss.dtype == torch.float32
        assert ops.kl_loss(z[None], z[None], 1, 1, 1e-2)[0].dtype == torch.float32
    loss.backward()
    assert layer.weight.grad.isfinite().all()


def test_deterministic_mode(device: torch.device) -> None:
    torch.use_deterministic_algorithms(True)
    try:
        z = torch.rand(20, 6, device=device, requires_grad=True)
        every_loss(z, torch.rand(20, 1, device=device)).backward()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.skipif(not (torch.cuda.is_available() and _ops.cuda_architectures()), reason="needs a GPU")
@pytest.mark.parametrize("drawn", [False, True])
def test_cuda_graph_of_a_training_step(drawn: bool) -> None:
    """Forward and backward in one graph, on a side stream: replays read the new outputs, and draw new targets."""
    z = torch.rand(300, 16, device="cuda", requires_grad=True)
    target = torch.rand(200, 16, device="cuda")

    def step() -> torch.Tensor:
        loss = fasthash.kl_loss(z, None if drawn else target, k=2) + fasthash.koleo_loss(z)
        loss.backward()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            z.grad = None
            step()
    torch.cuda.current_stream().wait_stream(side)
    z.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()
    values = []
    for seed in range(3):
        with torch.no_grad():
            z.copy_(torch.rand(300, 16, generator=torch.Generator().manual_seed(seed % 2)))
            z.grad.zero_()
        graph.replay()
        values.append(loss.item())
        if not drawn:
            again = z.detach().clone().requires_grad_()
            wanted = fasthash.kl_loss(again, target, k=2) + fasthash.koleo_loss(again)
            wanted.backward()
            assert torch.equal(loss, wanted)
            assert torch.equal(z.grad, again.grad)
    assert values[0] != values[1]
    assert (values[0] == values[2]) is not drawn


def test_cuda_tensors_need_a_cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ops.registry, "_core", SimpleNamespace(cuda_architectures=""))
    said = "nearest: this build of fasthash has no CUDA kernels, got a tensor on cuda; .* with FASTHASH_CUDA=ON"
    with pytest.raises(RuntimeError, match=said):
        _ops.registry.call("nearest", torch.device("cuda"))


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parent,  # in the repository's root `python -c` would find the sources, not what is installed
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("name", _ops.isa_names())
def test_environment_forces_an_instruction_set(name: str) -> None:
    done = run_python("from fasthash import _ops; print(_ops.isa_chosen())", FASTHASH_ISA=name)
    assert done.stdout.strip() == name, done.stderr


def test_unknown_instruction_set_is_an_error() -> None:
    done = run_python("import fasthash; fasthash.nearest", FASTHASH_ISA="avx9")
    assert done.returncode != 0
    assert "FASTHASH_ISA: must be one of scalar" in done.stderr
    assert "got avx9" in done.stderr
    with pytest.raises(ValueError, match=r"FASTHASH_ISA: must be one of scalar.*got avx9"):
        _ops.set_isa("avx9")


def test_forked_children_work() -> None:
    """DataLoader workers fork: the child has none of the pool's threads, and must not wait for them."""
    done = run_python(
        """
        import os, torch, fasthash
        torch.set_num_threads(4)
        x = torch.rand(3000, 32)
        wanted = fasthash.nearest(x, p=1).indices
        pids = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if torch.equal(fasthash.nearest(x, p=1).indices, wanted) else 1)
            pids.append(pid)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        assert torch.equal(fasthash.nearest(x, p=1).indices, wanted)
        print(statuses)
        """
    )
    assert done.stdout.strip() == "[0, 0, 0]", done.stderr


def test_calls_from_several_threads() -> None:
    x = torch.rand(1200, 16, generator=torch.Generator().manual_seed(0))
    codes = torch.randint(0, 256, (20_000, 8), dtype=torch.uint8)
    wanted = fasthash.nearest(x, p=1, k=3).indices, fasthash.hamming_topk(codes[:9], codes, 5).ids
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            if not torch.equal(fasthash.nearest(x, p=1, k=3).indices, wanted[0]):
                wrong.append(number)
            if not torch.equal(fasthash.hamming_topk(codes[:9], codes, 5).ids, wanted[1]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_interrupt_stops_long_work() -> None:
    """Ctrl-C inside a kernel that would run for minutes raises KeyboardInterrupt."""
    code = """
        import sys, torch, fasthash
        x = torch.rand(60_000, 2_000)
        print("ready", flush=True)
        try:
            fasthash.nearest(x, p=1)
        except KeyboardInterrupt:
            print("stopped")
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    threading.Event().wait(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "stopped" in out, err


def test_mask_words() -> None:
    for count in (0, 1, 63, 64, 65, 200):
        allowed = torch.rand(count, generator=torch.Generator().manual_seed(count)) < 0.5
        words = _ops.mask_words(allowed)
        assert words.shape == ((count + 63) // 64,)
        for n in range(count):
            assert bool(int(words[n // 64]) >> (n % 64) & 1) == bool(allowed[n])


def test_oracles_agree_with_cdist() -> None:
    x, y = torch.rand(6, 5, dtype=torch.float64), torch.rand(7, 5, dtype=torch.float64)
    for p in (1, 2):
        torch.testing.assert_close(reference.pairwise_distances(x, y, p), torch.cdist(x, y, p=p))
