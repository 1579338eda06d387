"""The run folder: what is in it, going on after an interruption, and what it refuses."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hasher_cases import NAMES, QUICK, blobs, hierarchy
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from fasthash._checkpoint import RUN, load_checkpoint, save_checkpoint
from fasthash.train import Hasher, HashHead, History, Objective, checksum, train
from fasthash.train.checksum import Checksum, fingerprint
from fasthash.train.run_folder import COLUMNS, RunFolder

HERE = Path(__file__).parent
FILES = ["checkpoint.safetensors", "config.json", "environment.json", "lock", "metrics.csv", "model.safetensors"]


pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*float16. on a CPU"),  # test_train_threads.py tests that warning
]


class Stop(Exception):
    pass


@contextlib.contextmanager
def stopped_after(epochs: int) -> Iterator[None]:
    """Training inside ends with an exception, which ends here, after so many checkpoints."""
    save = RunFolder.save

    def spy(self: RunFolder, *state: Any) -> None:
        save(self, *state)
        if len(state[1]["metrics"]) == epochs:
            raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):  # noqa: PT012
        patch.setattr(RunFolder, "save", spy)
        yield


def same(a: Hasher, b: Hasher) -> bool:
    others = b.module_.state_dict()
    return all(torch.equal(value, others[name]) for name, value in a.module_.state_dict().items())


# Going on


@pytest.mark.parametrize("stop", [1, 5])
@pytest.mark.parametrize(
    "settings",
    [
        {"preserve": 0.1, "draws": 2, "kl_k": 3},
        {"ema": 0.9, "patience": 3, "similarity": "stress"},
        {"precision": "float16", "workers": 1},
        {"loss": "csq", "precision": "bfloat16"},
    ],
    ids=str,
)
def test_going_on_gives_the_same_bits(
    settings: dict[str, Any], stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = blobs()
    settings, validation = {**QUICK, "epochs": 7, **settings}, blobs(60, 3)
    wanted = Hasher(**settings).fit(X, y, validation=validation)
    interrupted = Hasher(**settings, run_dir=tmp_path / "run")
    with stopped_after(stop):
        interrupted.fit(X, y, validation=validation)
    torch.manual_seed(stop)
    np.random.seed(stop)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    interrupted.fit(X, y, validation=validation)
    assert same(interrupted, wanted)
    assert interrupted.history_ == wanted.history_
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]

    again = Hasher(**settings, run_dir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save", lambda *_: pytest.fail("trained a finished run"))
        assert same(again.fit(X, y, validation=validation), wanted)
    assert again.history_ == wanted.history_


class Noisy(TensorDataset):
    """Rows with noise from every global generator that an augmentation may draw from."""

    def __getitem__(self, row: int) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(row)
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return x + 0.1 * noise.float(), y


def train_noisy(run_dir: Path | None) -> tuple[list[Tensor], History]:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    X, y = blobs()
    module = nn.Sequential(nn.Linear(12, 12), nn.Dropout(0.3), HashHead(12, 8))
    module[0].weight.requires_grad_(False)
    objective = Objective(8, classes=6, distance=1 - torch.eye(6))
    loader = DataLoader(Noisy(torch.from_numpy(X), torch.from_numpy(y)), batch_size=48, shuffle=True)
    history = train(module, loader, objective, epochs=5, run_dir=run_dir, progress=False)
    return [*module.state_dict().values(), *objective.state_dict().values()], history


def test_any_module_and_loader_goes_on(tmp_path: Path) -> None:
    wanted, history = train_noisy(None)
    with stopped_after(2):
        train_noisy(tmp_path)
    found, again = train_noisy(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert again == history
    saved = safetensors.torch.load_file(tmp_path / "model.safetensors")
    module = nn.Sequential(nn.Linear(12, 12), nn.Dropout(0.3), HashHead(12, 8))
    module.load_state_dict(saved)
    assert torch.equal(module[2].linear.weight, wanted[2])


def test_the_order_of_a_distributed_sampler_goes_on(tmp_path: Path) -> None:
    told: list[int] = []

    class Spy(DistributedSampler):  # type: ignore[type-arg]
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)
            super().set_epoch(epoch)

    def run(run_dir: Path | None) -> History:
        X, y = blobs()
        torch.manual_seed(0)
        data = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
        loader = DataLoader(data, batch_size=40, sampler=Spy(data, num_replicas=2, rank=1))
        objective = Objective(8, classes=6, distance=1 - torch.eye(6))
        return train(HashHead(12, 8), loader, objective, epochs=4, run_dir=run_dir, progress=False)

    wanted = run(None)
    with stopped_after(3):
        run(tmp_path)
    assert run(tmp_path) == wanted
    assert told == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_minus_9() -> None:
    """A handful of the kills of tests/kill_train.py."""
    command = [sys.executable, str(HERE / "kill_train.py"), "--kills", "8"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("every run ended with the same weights\n")


# The files


def test_what_is_in_the_folder(tmp_path: Path) -> None:
    X, y = blobs()
    run = tmp_path / "runs" / "x"  # parents are made
    hasher = Hasher(**QUICK, hierarchy=hierarchy(), run_dir=run, dropout=np.float32(0.25))
    with stopped_after(2):
        hasher.fit(X, NAMES[y], validation=(X, NAMES[y]))
    assert sorted(path.name for path in run.iterdir()) == FILES[:-1]
    (run / ".checkpoint.safetensors.0123abcd").write_text("left by a process that was killed")
    hasher.fit(X, NAMES[y], validation=(X, NAMES[y]))
    assert sorted(path.name for path in run.iterdir()) == FILES
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["loss"]) for row in rows] == hasher.history_.losses
    assert [float(row["score"]) for row in rows] == hasher.history_.scores
    config = json.loads((run / "config.json").read_text())
    assert config["hasher"]["bits"] == 16
    assert config["hasher"]["dropout"] == 0.25
    assert config["train"]["epochs"] == 4
    starts = json.loads((run / "environment.json").read_text())
    assert [start["epochs_done"] for start in starts] == [0, 2]
    assert starts[0]["torch"] == torch.__version__
    assert same(Hasher.load(run / "model.safetensors"), hasher)
    assert Hasher.load(run / "model.safetensors").run_dir is None  # where it ran is not part of the model


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Sigmoid())
    module[1].weight = module[0].weight
    for _ in range(2):
        train(module, [torch.rand(8, 4)], lambda z: z.mean(), epochs=2, run_dir=tmp_path, progress=False)
    assert module[1].weight is module[0].weight


def test_fingerprint() -> None:
    X = torch.randn(50, 3)
    others = [X[1:], X.double(), X.flip(0), X.T, X.view(75, 2), X + 1e-6]
    assert len({fingerprint(part) for part in (X, *others)}) == 7
    assert fingerprint(X, "a") != fingerprint(X, "b")
    assert fingerprint(X.half(), torch.tensor(True)) == fingerprint(X.half(), torch.tensor(True))
    large = torch.zeros(1 << 25, dtype=torch.int8)[:, None].expand(-1, 8)  # no memory of its own
    assert fingerprint(large) != fingerprint(large[:-1])


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_a_checksum_of_blocks_is_that_of_the_array(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X = torch.randn(50, 3)
    for sample in (1 << 24, 300, 100, 12):  # bytes: all rows, every second, every sixth, ...
        monkeypatch.setattr(checksum, "SAMPLE", sample)
        blocks = Checksum()
        blocks.start(X)
        for first in range(0, 50, size):
            blocks.rows(X[first : first + size], first)
        assert blocks.text() == fingerprint(X)


# What it refuses


def small(run_dir: Path, module: nn.Module | None = None, **settings: Any) -> History:
    X, y = blobs(48)
    objective = Objective(8, classes=6, distance=1 - torch.eye(6), kl=0.0)
    batch = (torch.from_numpy(X), torch.from_numpy(y))
    settings = {"epochs": 2, "progress": False, **settings}
    return train(module or HashHead(12, 8), [batch], objective, run_dir=run_dir, **settings)


def test_another_run(tmp_path: Path) -> None:
    small(tmp_path, config={"data": "a"})
    for settings, message in (
        ({"lr": 0.5}, r"holds a run with train\.lr 0\.002, got 0\.5: name another folder, or remove that one"),
        ({"epochs": 3}, r"train\.epochs 2, got 3"),
        ({"config": {"data": "b"}}, "data 'a', got 'b'"),
        ({"config": None}, "data 'a', got None"),
    ):
        with pytest.raises(ValueError, match=rf"train: run_dir {tmp_path} .*{message}"):
            small(tmp_path, **{"config": {"data": "a"}, **settings})
    for module in (HashHead(12, 9), nn.Sequential(HashHead(12, 8))):
        with pytest.raises(ValueError, match=r"holds a run of another module or objective, or is damaged: its tensor"):
            small(tmp_path, module, config={"data": "a"})


def test_other_data(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, run_dir=tmp_path).fit(X, NAMES[y], validation=(X, NAMES[y]))
    for X2, y2, validation, name in (
        (X[::-1], y[::-1], (X, y), "X"),
        (X, y[::-1], (X, y), "y"),
        (X, y, (X[::-1], y[::-1]), "validation_X"),
        (X, y, (X, y[::-1]), "validation_y"),
        (X, y, None, "validation_X"),
    ):
        held_out = None if validation is None else (validation[0], NAMES[validation[1]])
        with pytest.raises(ValueError, match=rf"holds a run with data\.{name} "):
            hasher.fit(X2, NAMES[y2], validation=held_out)


def test_what_was_never_finished_may_change(tmp_path: Path) -> None:
    """Before the first checkpoint there is nothing to lose."""
    with pytest.raises(FloatingPointError, match="in epoch 1"):
        train(HashHead(12, 8), [torch.rand(4, 12)], lambda z: z.mean() * float("nan"), run_dir=tmp_path, progress=False)
    small(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["epochs"] == 2


def test_folder_in_use(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, {})
    with pytest.raises(ValueError, match=rf"train: run_dir {tmp_path}: another writer has it open"):
        small(tmp_path)
    folder.close()
    small(tmp_path)
    small(tmp_path)  # nothing is locked afterwards
    with pytest.raises(ValueError, match="train: run_dir must be a folder, got the file"):
        small(tmp_path / "config.json")


def test_damaged_checkpoints(tmp_path: Path) -> None:
    small(tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    data = path.read_bytes()
    damaged = r"train: .*checkpoint\.safetensors is damaged"
    for length in (0, 100, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f"{damaged} or not a fasthash checkpoint"):
            small(tmp_path)
    path.write_bytes(data)
    tensors, content = load_checkpoint(path, RUN)
    save_checkpoint(path, tensors, {name: value for name, value in content.items() if name != "random"}, RUN)
    with pytest.raises(ValueError, match=r"or is damaged: 'random'"):
        small(tmp_path)
    save_checkpoint(path, tensors, {}, RUN)
    with pytest.raises(ValueError, match=f"{damaged}: it lacks config or metrics"):
        small(tmp_path)
    save_checkpoint(path, {}, content)
    with pytest.raises(ValueError, match=r"is not a fasthash checkpoint: its format is 'fasthash-hasher'"):
        small(tmp_path)


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA as Linux counts it")
def test_files_larger_than_memory(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "mapped_train.py"), str(tmp_path)]
    give_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # what is freed does not count
    environment = {**os.environ, **give_back}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained within the limit\n"
