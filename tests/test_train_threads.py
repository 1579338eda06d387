"""How many threads a fit uses, that the process is left as it was, and the warning of float16 on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import QUICK, blobs
from torch import Tensor, nn

from fasthash.cli import main
from fasthash.train import Hasher, HashHead, train
from fasthash.train.threads import forward_operations, own_threads, step_operations, threads_for
from fasthash.train.validation import outputs


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Watched(nn.Sequential):
    """Notes how many threads torch has when it is called."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(torch.get_num_threads())
        result: Tensor = super().forward(x)
        return result


def in_new_thread() -> int:
    """The number of threads of a thread that uses torch for the first time."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def loss(z: Tensor) -> Tensor:
    return (z - 0.25).square().mean()


def fitted(module: nn.Module, x: Tensor, **options: Any) -> None:
    train(module, [x, x], loss, epochs=2, progress=False, **options)


# The number


def test_operations_of_linear_layers() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.LayerNorm(4), HashHead(4, 2))
    assert forward_operations(module, torch.zeros(10, 8)) == 2 * 10 * (8 * 4 + 4 * 2)
    assert step_operations(module, nn.Linear(2, 5), torch.zeros(10, 8)) == 6 * 10 * (40 + 10) + 1500 * 100


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Sequential(nn.Conv1d(1, 2, 3)), torch.zeros(4, 8)),
        (nn.Embedding(4, 2), torch.zeros(4, 8, dtype=torch.int64)),
        (nn.GRU(8, 4), torch.zeros(4, 8)),
        (nn.MultiheadAttention(8, 2), torch.zeros(4, 8)),
        (nn.Linear(8, 4), torch.zeros(2, 4, 8)),
    ],
)
def test_sizes_that_do_not_tell_use_all_threads(module: nn.Module, x: Tensor) -> None:
    assert step_operations(module, None, x) is None
    assert threads_for(None, 16) == 16


def test_threads_grow_with_the_work() -> None:
    assert [threads_for(int(work * 1e9), 4) for work in (0, 1.4, 1.6, 3.1, 100)] == [1, 1, 2, 3, 4]


def test_default_fits_of_sentence_embeddings_use_one_thread() -> None:
    for width in (384, 768, 1024):
        module = nn.Sequential(nn.Linear(width, 512), nn.Linear(512, 512), HashHead(512, 64))
        assert threads_for(step_operations(module, None, torch.empty(256, width)), 64) == 1


# Inside and after a fit


def test_small_steps_use_one_thread_and_scores_all() -> None:
    module, scored = Watched(HashHead(6, 4)), []

    def score(_: nn.Module) -> float:
        scored.append((torch.get_num_threads(), in_new_thread()))
        return 1.0

    fitted(module, torch.rand(16, 6), score=score)
    assert set(module.seen) == {1}
    assert set(scored) == {(3, 3)}
    assert (torch.get_num_threads(), in_new_thread()) == (3, 3)


def test_large_and_unknown_steps_use_all_threads() -> None:
    large = Watched(HashHead(2, 4))
    fitted(large, torch.rand(1500, 2))  # pairs of rows: 3.4e9 operations
    unknown = Watched(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), HashHead(8, 4))
    fitted(unknown, torch.rand(16, 6))
    assert set(large.seen) == set(unknown.seen) == {3}


def test_threads_that_start_during_a_fit_have_all() -> None:
    seen: list[int] = []

    def watched(z: Tensor) -> Tensor:
        seen.append(in_new_thread())
        return loss(z)

    train(HashHead(6, 4), [torch.rand(16, 6)], watched, epochs=2, progress=False)
    assert seen == [3, 3]


def test_the_number_is_back_after_an_error() -> None:
    def broken(z: Tensor) -> Tensor:
        assert torch.get_num_threads() == 1
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        train(HashHead(6, 4), [torch.rand(16, 6)], broken, progress=False)
    assert (torch.get_num_threads(), in_new_thread()) == (3, 3)


def test_another_number_of_this_thread_alone_stays_its_own() -> None:
    other = threading.Thread(target=torch.set_num_threads, args=(2,))
    other.start()
    other.join()
    assert (torch.get_num_threads(), in_new_thread()) == (3, 2)
    with own_threads(1):
        assert (torch.get_num_threads(), in_new_thread()) == (1, 2)
    assert (torch.get_num_threads(), in_new_thread()) == (3, 2)


def test_a_small_fit_is_the_same_with_any_number_of_threads() -> None:
    X, y = blobs(200)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(Hasher(**{**QUICK, "epochs": 3}).fit(X, y).transform(X))
    assert np.array_equal(*found)


def test_outputs_of_small_blocks_use_one_thread() -> None:
    module = Watched(nn.Linear(6, 4))
    outputs(module, torch.rand(50, 6), torch.device("cpu"))
    assert module.seen == [1]
    assert (torch.get_num_threads(), in_new_thread()) == (3, 3)


# Waiting, where OpenMP spins: in a process of its own, since the tests' says how to wait

SPINNING = """
import os, time, torch
from fasthash.train.threads import short_waits

def threads():
    return len(os.listdir("/proc/self/task"))

def seconds():
    x, before = torch.ones(1 << 17), time.process_time()
    for _ in range(100):
        x.add_(1)
        time.sleep(0.002)
    return time.process_time() - before

spinning, before = seconds(), threads()
with short_waits():
    with short_waits():
        inside = threads()
    asleep = seconds()
for _ in range(100):  # threads that have ended leave the list a little later
    if threads() == before:
        break
    time.sleep(0.01)
assert threads() == before < inside, (before, inside, threads())
assert torch.get_num_threads() == 2
print(spinning, asleep)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_threads_sleep_soon_inside_and_are_gone_afterwards() -> None:
    if len(os.sched_getaffinity(0)) < 2 or "libgomp" not in Path("/proc/self/maps").read_text():
        pytest.skip("one processor, or not GNU's OpenMP: nothing spins")
    environment = {name: v for name, v in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    cpus = sorted(os.sched_getaffinity(0))[:2]
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {cpus})\n{SPINNING}"],
        cwd=Path(__file__).parent,
        env={**environment, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    spinning, asleep = map(float, done.stdout.split())
    assert asleep < spinning / 3  # processor time, not time: 0.7 s and 0.02 s


# float16


def test_float16_on_a_cpu_warns() -> None:
    message = r'train: precision "float16" on a CPU is several times slower than "bfloat16"; pass precision='
    with pytest.warns(UserWarning, match=message) as found:
        fitted(HashHead(6, 4), torch.rand(16, 6), precision="float16")
    assert [warning.filename for warning in found] == [__file__]


def test_float16_in_a_hasher_warns_once_in_its_name() -> None:
    X, y = blobs(60)
    with pytest.warns(UserWarning, match=r'Hasher\.fit: precision "float16" on a CPU') as found:
        Hasher(**{**QUICK, "epochs": 1, "precision": "float16"}).fit(X, y)
    assert [warning.filename for warning in found] == [__file__]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_other_precisions_do_not_warn(precision: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted(HashHead(6, 4), torch.rand(16, 6), precision=precision)


@pytest.mark.filterwarnings("default::UserWarning")
def test_float16_in_the_command_line_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs(60)
    np.save("X.npy", X)
    np.save("y.npy", y)
    options = ["--labels", "y.npy", "--bits", "8", "--epochs", "1", "--precision", "float16", "--device", "cpu"]
    assert main(["train", "X.npy", *options, "--out", "m.safetensors"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "float16" in line]
    assert len(lines) == 1
    assert lines[0].startswith('fasthash: warning: Hasher.fit: precision "float16" on a CPU is several times slower')
