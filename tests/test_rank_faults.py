"""A rank that dies, is stuck or fails: the others stop with one clear error, and any number of ranks go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hasher_cases import QUICK, blobs
from rank_cases import everyone, run_ranks
from torch import nn

from fasthash import cli, distributed
from fasthash.cli import learn
from fasthash.train import Hasher, HashHead, Objective, loop, train

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="torch has no gloo"
)

STEPS = 240 // 48  # of an epoch
LOST = "another rank has stopped or cannot be reached"


def hasher(rank: int, world: int, folder: Path | None, fails: Callable[[], None] | None = None) -> dict[str, Any]:
    """Fits by all ranks; `fails` is called by the last one in the third epoch."""
    done, step = [], loop._Steps._step

    def failing(self: Any) -> None:
        done.append(1)
        if fails is not None and rank == world - 1 and len(done) == 2 * STEPS + 2:
            fails()
        step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Steps, "_step", failing)
        X, y = blobs()
        fitted = Hasher(**QUICK, dropout=0.0, run_dir=folder).fit(X, y, validation=blobs(60, 3), group=everyone())
    return {"losses": torch.tensor(fitted.history_.losses), **fitted.module_.state_dict()}


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stuck() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def broken() -> None:
    raise OSError("features.npy: the disk is gone")


def equal(found: dict[str, Any], wanted: dict[str, Any], limit: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=limit, rtol=limit, msg=lambda text, n=name: f"{n}: {text}")


def test_after_a_death_any_number_of_ranks_goes_on(tmp_path: Path) -> None:
    """2 ranks, of which one is killed in the third epoch; then 1, 2 and 3 ranks from the checkpoint of two epochs."""
    run = tmp_path / "run"
    first, second = run_ranks(2, tmp_path / "2", partial(hasher, folder=run, fails=killed), dies=1)
    assert second is None
    assert first.startswith(f"RankLostError: train: rank 0 of 2 stops, because {LOST} (")
    assert first.endswith(f"in epoch 3; start all ranks again, and they continue from the checkpoint in {run})")
    results = {}
    for world in (1, 2, 3):
        shutil.copytree(run, tmp_path / f"run {world}")
        found = run_ranks(world, tmp_path / f"on {world}", partial(hasher, folder=tmp_path / f"run {world}"))
        results[world] = found[0]
        for other in found[1:]:
            equal(other, found[0], 0.0)
        starts = json.loads((tmp_path / f"run {world}" / "environment.json").read_text())
        assert [start["epochs_done"] for start in starts] == [0, 2]
        saved = Hasher.load(tmp_path / f"run {world}" / "model.safetensors").module_.state_dict()
        assert all(torch.equal(value, found[0][name]) for name, value in saved.items())
    uninterrupted = run_ranks(2, tmp_path / "whole", partial(hasher, folder=None))[0]
    equal(results[2], uninterrupted, 0.0)  # as many ranks: bit for bit
    for world in (1, 3):
        equal(results[world], uninterrupted, 2e-5)  # sums in another order
    assert not all(torch.equal(value, uninterrupted[name]) for name, value in results[3].items())
    shutil.rmtree(tmp_path / "run 3")
    shutil.copytree(run, tmp_path / "run 3")
    equal(run_ranks(3, tmp_path / "again", partial(hasher, folder=tmp_path / "run 3"))[0], results[3], 0.0)


def test_a_rank_that_is_stuck_counts_as_lost_after_the_timeout(tmp_path: Path) -> None:
    said = run_ranks(3, tmp_path / "3", partial(hasher, folder=None, fails=stuck), timeout=4, dies=2)
    for rank in (0, 1):
        assert said[rank].startswith(f"RankLostError: train: rank {rank} of 3 stops, because {LOST} (Timed out waiting")
        assert said[rank].endswith("(in epoch 3; there is no run_dir, so training starts from the beginning)")


def test_a_rank_that_fails_gives_its_own_error(tmp_path: Path) -> None:
    said = run_ranks(3, tmp_path / "3", partial(hasher, folder=None, fails=broken))
    assert said[2] == "OSError: features.npy: the disk is gone"
    for rank in (0, 1):
        assert said[rank].startswith(f"RankLostError: train: rank {rank} of 3 stops, because {LOST} (")


def long_score(rank: int, world: int) -> list[float | None]:
    """Rank 0 scores for longer than the timeout of the group."""
    import time

    def score(module: nn.Module) -> float:
        time.sleep(3)
        return 1.0

    X, y = (torch.from_numpy(values).split(120)[rank] for values in blobs())
    objective = Objective(8, classes=6, distance=1 - torch.eye(6))
    module = HashHead(12, 8)
    return train(module, [(X.float(), y)], objective, epochs=1, score=score, group=everyone(), progress=False).scores


def some_ranks(rank: int, world: int) -> list[list[float]]:
    """Two groups train by themselves, twice each: of ranks 0 and 2, and of rank 1."""
    groups = [torch.distributed.new_group(part) for part in ([0, 2], [1])]
    group = groups[rank % 2]
    X, y = (torch.from_numpy(values) for values in blobs())
    mine = slice(distributed.rank(group), None, distributed.world_size(group))
    objective = Objective(8, classes=6, distance=1 - torch.eye(6))
    found = []
    for seed in (0, 0):
        torch.manual_seed(seed)
        loader = [(X[mine].float(), y[mine])]
        found.append(train(HashHead(12, 8), loader, objective, epochs=2, group=group, progress=False).losses)
    return found


def test_groups_of_some_ranks_train_by_themselves(tmp_path: Path) -> None:
    found = run_ranks(3, tmp_path / "3", some_ranks)
    assert found[0] == found[2]
    assert len(found[0][1]) == len(found[1][1]) == 2


def killed_in_score(rank: int, world: int) -> None:
    X, y = (torch.from_numpy(values).split(80)[rank] for values in blobs())
    objective = Objective(8, classes=6, distance=1 - torch.eye(6))
    score = lambda module: killed() or 1.0  # noqa: E731
    train(HashHead(12, 8), [(X.float(), y)], objective, epochs=1, score=score, group=everyone(), progress=False)


def test_ranks_wait_for_a_long_score_and_not_for_a_dead_scorer(tmp_path: Path) -> None:
    assert run_ranks(2, tmp_path / "long", long_score, timeout=1.5) == [[1.0], [1.0]]
    said = run_ranks(3, tmp_path / "dead", killed_in_score, dies=0)
    for rank in (1, 2):
        assert said[rank].startswith(f"RankLostError: train: rank {rank} of 3 stops, because {LOST} (")


def test_other_errors_stay_what_they_are() -> None:
    for group, error in ((None, RuntimeError("gloo")), ("any", RuntimeError("mat1 and mat2")), ("any", KeyError("a"))):
        with pytest.raises(type(error)) as caught, distributed.rank_faults(group, "train"):
            raise error
        assert caught.value is error


def test_the_command_tells_it_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lost(*_: Any) -> None:
        raise distributed.RankLostError("train: rank 0 of 2 stops")

    monkeypatch.setattr(learn, "_train", lost)
    assert cli.main(["train", "features.npy", "--out", "model.safetensors"]) == 2
    assert capsys.readouterr().err == "fasthash: error: train: rank 0 of 2 stops\n"
