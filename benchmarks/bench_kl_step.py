"""What kl_loss adds to a training step of ResNet-18 for CIFAR: cross-entropy alone, and with the loss, in turns.

    python benchmarks/bench_kl_step.py [--device cuda|cpu] [--batch 1024] [--bits 64] [--name NAME]

The network is the usual one for 32 x 32 images (a 3 x 3 stem, no pooling before the blocks), channels last, autocast to
bfloat16, SGD with momentum. Goal on an H100: less than 1 % at B = 1,024 and 64 bits. Writes
benchmarks/results/NAME.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import kit
import torch
from torch import nn

import fasthash
from fasthash.images.backbones import Residual


def resnet18(bits: int) -> nn.Sequential:
    """Images [B, 3, 32, 32] to outputs [B, bits] in [0, 1]."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    channels_in = 64
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Residual(channels_in, channels, stride), Residual(channels, channels, 1)]
        channels_in = channels
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, bits), nn.BatchNorm1d(bits), nn.Sigmoid()]
    return nn.Sequential(*layers, *head)


def training_step(options: argparse.Namespace, with_kl: bool) -> Callable[[], None]:
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = resnet18(options.bits).to(device, memory_format=torch.channels_last)
    classifier = nn.Linear(options.bits, 10).to(device)
    parameters = [*model.parameters(), *classifier.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    images = torch.randn(options.batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (options.batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            z = model(images)
            loss = nn.functional.cross_entropy(classifier(z), labels)
            if with_kl:
                loss = loss + 0.1 * fasthash.kl_loss(z)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--name", default="kl-step")
    options = parser.parse_args()
    steps = {name: training_step(options, with_kl) for name, with_kl in (("without", False), ("with_kl_loss", True))}
    times = kit.interleave(steps, options.rounds, 40.0)
    seconds = {name: kit.median(found) for name, found in times.items()}
    added = seconds["with_kl_loss"] / seconds["without"] - 1
    result: dict[str, Any] = {
        "machine": kit.machine(),
        "device": options.device,
        "B": options.batch,
        "bits": options.bits,
        "milliseconds": {name: s * 1e3 for name, s in seconds.items()},
        "added": added,
        "goal": 0.01,
    }
    print(f"step {seconds['without'] * 1e3:.2f} ms, kl_loss adds {added:.2%} (goal: less than 1 %)")
    print(kit.write_json(options.name, result))


if __name__ == "__main__":
    main()
