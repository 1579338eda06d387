"""torchrun --nproc-per-node 2 examples/several_processes.py: train, encode and search with several processes.

`python examples/several_processes.py` starts two processes by itself. Each process has a part of every batch and a part
of the codes. The losses see the whole batch, and a search gives every process the nearest codes of all of them.
"""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from fasthash import codes, distributed, targets
from fasthash.datasets import clinc150
from fasthash.train import HashHead, Objective, train


def work() -> None:
    torch.set_num_threads(1)
    group = distributed.join()  # Gloo, and NCCL where each process has a GPU
    rank, world = distributed.rank(group), distributed.world_size(group)
    data = clinc150("val")
    X, y = torch.from_numpy(data.embeddings), torch.from_numpy(data.intents)

    torch.manual_seed(0)  # the same weights and batches on every process
    batches = torch.randperm(len(X), generator=torch.Generator().manual_seed(0)).split(600)
    mine = [batch.tensor_split(world)[rank] for batch in batches]
    model = HashHead(X.shape[1], bits=64)
    objective = Objective(64, classes=150, distance=targets.class_distances(range(150)))
    train(model, [(X[rows], y[rows]) for rows in mine], objective, epochs=10, group=group, progress=False)

    shard = X.tensor_split(world)[rank]
    with torch.no_grad():
        own, queries = codes.pack_bits(model(shard)), codes.pack_bits(model(X[:200]))
    found = distributed.topk(queries, own, 10, group=group)  # ids: rows of X
    if rank == 0:
        right = (y[found.ids] == y[:200, None]).double().mean()
        print(f"{world} processes, {len(own):,} codes each: {right:.0%} of 10 results have the query's intent")
    del group
    distributed.leave()


def main() -> None:
    if "RANK" in os.environ:
        work()
    else:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__]
        sys.exit(subprocess.run(start, check=False).returncode)


if __name__ == "__main__":
    main()
