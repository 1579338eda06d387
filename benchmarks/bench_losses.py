"""What a training step with each published loss costs, as a multiple of one with this package's objective.

    python benchmarks/bench_losses.py [--batch 256] [--steps 60]      # prints a table, writes results/losses.json

A step: an encoder of 384 inputs, two hidden layers of 512 and 64 bits, the loss, its gradient and AdamW, on one thread.
Batches have 16 rows of each class; every third row of multi-hot labels has two. Steps of all losses take turns, and
medians are compared.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import statistics
from typing import Any

import torch
from kit import interleave, write_json
from torch import Tensor, nn

from fasthash.losses.published import LOSSES, MULTILABEL, ICNNLoss, MeanLoss, PrototypeTripletLoss, PrototypicalLoss
from fasthash.targets import class_distances, class_levels
from fasthash.train import Objective, encoder

FEATURES, BITS, ROWS = 384, 64, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    y = torch.arange(options.batch) // ROWS
    classes = int(y.max()) + 1
    hot = nn.functional.one_hot(y, classes)
    hot[::3] |= nn.functional.one_hot((y[::3] + 1) % classes, classes)
    X = torch.randn(options.batch, FEATURES)
    between = class_distances(list(range(classes)))
    known: dict[str, Any] = {"bits": BITS, "classes": classes, "levels": class_levels(between)}
    runs: dict[str, tuple[nn.Module, nn.Module, torch.optim.Optimizer, Tensor]] = {}

    def add(name: str, loss: nn.Module, targets: Tensor, *, sigmoid: bool) -> None:
        network = encoder(FEATURES, BITS, hidden=(512, 512), sigmoid=sigmoid)
        runs[name] = network, loss, torch.optim.AdamW([*network.parameters(), *loss.parameters()]), targets

    add("objective", Objective(BITS, classes=classes, distance=between), y, sigmoid=True)
    for name, kind in LOSSES.items():
        wanted = inspect.signature(kind.__init__).parameters
        several = name in MULTILABEL and name not in ("contrastive", "csq", "hashnet", "orthohash")
        targets = X if name == "sdc" else hot if several else y
        add(name, kind(**{key: value for key, value in known.items() if key in wanted}), targets, sigmoid=False)
    mean = MeanLoss(PrototypicalLoss(), PrototypeTripletLoss(), ICNNLoss())
    add("prototypical + prototype_triplet + icnn", mean, y, sigmoid=False)

    def step(network: nn.Module, loss: nn.Module, optimizer: torch.optim.Optimizer, targets: Tensor) -> None:
        optimizer.zero_grad()
        loss(network(X), targets).backward()
        optimizer.step()

    taken = interleave({name: functools.partial(step, *run) for name, run in runs.items()}, options.steps)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    times = {name: round(value / medians["objective"], 2) for name, value in medians.items()}
    result = {
        "batch": options.batch,
        "objective_ms": round(1000 * medians["objective"], 2),
        "times_the_objective": times,
        "torch": torch.__version__,
    }
    write_json("losses", result)
    print(f"objective: {result['objective_ms']} ms a step of {options.batch} rows")
    for name, value in sorted(times.items(), key=lambda pair: pair[1]):
        print(f"{name:42} {value:5.2f}")


if __name__ == "__main__":
    main()
