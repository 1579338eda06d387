"""Training by torchrun: two processes on a CPU learn what one learns, also after one of them has failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from ranks_train import train_hasher, train_module, train_two_parts
from torch import Tensor, nn

from fasthash import distributed
from fasthash.train import Hasher

HERE = Path(__file__).parent
# Otherwise restarted processes may read stale addresses and hang, or are refused (pytorch issue 135712).
OWN_STORES = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
gloo = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, dict[str, Tensor]]]]:
    """What tests/ranks_train.py gives under torchrun, by rank."""
    folder = tmp_path_factory.mktemp("ranks")
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **OWN_STORES}
    script = [str(HERE / "ranks_train.py"), str(folder)]
    done = subprocess.run(
        [sys.executable, *command, *script], cwd=HERE, env=environment, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rank 0 fails once" in done.stderr
    return folder, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@gloo
def test_ranks_end_with_the_same_bits(ranks: tuple[Path, list[dict[str, dict[str, Tensor]]]]) -> None:
    first, second = ranks[1]
    for name, values in first.items():
        for part, value in values.items():
            assert torch.equal(value, second[name][part]), (name, part)


@gloo
@pytest.mark.parametrize("name", ["module", "hasher", "two parts"])
def test_two_processes_are_one(name: str, ranks: tuple[Path, list[dict[str, dict[str, Tensor]]]]) -> None:
    """The whole batch in losses and batch norms, whatever the parts: KL with its random numbers, averaged weights."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = {"module": train_module, "hasher": partial(train_hasher, dropout=0.0), "two parts": train_two_parts}
    wanted = alone[name](None)
    torch.set_num_threads(threads)
    found = ranks[1][0][name]
    limit = 1e-4 if name == "two parts" else 2e-5  # its steps are of 1e-3
    assert found.keys() == wanted.keys()
    for part, value in wanted.items():
        torch.testing.assert_close(
            found[part], value, atol=limit, rtol=limit, msg=lambda text, part=part: f"{part}: {text}"
        )


@gloo
def test_ranks_go_on_after_a_failure(ranks: tuple[Path, list[dict[str, dict[str, Tensor]]]]) -> None:
    folder, (results, _) = ranks
    for part, value in results["uninterrupted"].items():
        assert torch.equal(value, results["interrupted"][part]), part
    starts = json.loads((folder / "run" / "environment.json").read_text())
    assert [(start["epochs_done"], start["processes"]) for start in starts] == [(0, 2), (2, 2)]
    saved = Hasher.load(folder / "run" / "model.safetensors").module_.state_dict()
    assert all(torch.equal(value, results["interrupted"][part]) for part, value in saved.items())


def test_one_process_has_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (None, "1"):
        if size is not None:
            monkeypatch.setenv("WORLD_SIZE", size)
        assert distributed.join() is None
    assert (distributed.rank(None), distributed.world_size(None), distributed.local_rank()) == (0, 1, 0)
    norm = nn.BatchNorm1d(3)
    with distributed.synced_batch_norms(norm, None):
        assert "forward" not in norm.__dict__
