"""What can be typed for modules of one's own. Imports nothing heavy, as parser.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_export(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """`fasthash export`. command: makes one, see `_command` of parser.py."""
    export = command(
        commands,
        "export",
        "modules:export",
        "write a trained model for programs without fasthash",
        """The file turns x, float32 [N, F], into "codes", uint8 [N, ceil(bits / 8)] in the bit order of numpy.packbits,
        and "outputs", float32 [N, bits]. --out model.onnx is for ONNX Runtime and others (pip install
        'fasthash[onnx]'), --out model.pt2 for torch.export.load. Outputs of other libraries agree to rounding.""",
        "fasthash export model.safetensors --out model.onnx",
    )
    export.add_argument(
        "model", metavar="MODEL", help="a file of fasthash train or Hasher.save, or with --module a run"
    )
    export.add_argument("--out", required=True, metavar="FILE", help="the file to write, .onnx or .pt2")
    _module(export)
    _backbone(export)
    export.add_argument("--shape", metavar="N,...", help="with --module: sizes of one input, 3,224,224 for pictures")


def add_own_module(encode: argparse.ArgumentParser) -> None:
    """Options of `fasthash encode` for modules of one's own and for pictures."""
    own = encode.add_argument_group("modules of your own, and pictures")
    _module(own)
    _backbone(own)
    own.add_argument(
        "--threshold", type=float, default=0.5, help="of a bit (default: %(default)s; 0 for signed outputs)"
    )
    own.add_argument("--size", type=int, help="with --module, pixels of a side of the pictures (default: 224)")
    own.add_argument("--batch-size", type=int, default=64, metavar="N", help="(default: %(default)s)")
    own.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read pictures ahead (default: 0)"
    )


def add_images(train: argparse.ArgumentParser) -> None:
    """Options of `fasthash train` for pictures."""
    pictures = train.add_argument_group("pictures")
    _backbone(pictures)
    pictures.add_argument(
        "--backbone-weights", metavar="FILE", help="its state dict, read by torch.load with weights_only=True"
    )
    pictures.add_argument(
        "--backbone-lr", type=float, metavar="LR", help="its highest learning rate, 0 to freeze it (default: --lr)"
    )
    pictures.add_argument("--size", type=int, help="pixels of a side (default: 64 for small, else 224)")
    pictures.add_argument(
        "--start-from",
        metavar="RUN",
        help="begin with the weights of this run or model: more epochs for one that ended",
    )


def add_recipe(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """`fasthash recipe`. command: makes one, see `_command` of parser.py."""
    recipe = command(
        commands,
        "recipe",
        "recipe:recipe",
        "train and measure the paper's settings on CIFAR-100, ImageNet or Conceptual Captions",
        """Reads the data as it is downloaded, trains codes from similarities (with and without the KL term) and from
        similarities and classes, and measures zero-shot hashing: queries of classes that were not trained on. Full
        runs take hours or days on a GPU; --small takes minutes. docs/recipes.md says what DIR holds and what a run
        needs.""",
        "fasthash recipe cifar100 --data cifar-100-python --wordnet data.noun --out cifar100-run",
    )
    recipe.add_argument("name", choices=("cifar100", "imagenet", "conceptual-captions"), metavar="NAME")
    recipe.add_argument("--data", required=True, metavar="DIR", help="the data as it is downloaded")
    recipe.add_argument("--out", required=True, metavar="FOLDER", help="where to write; the same command continues")
    recipe.add_argument(
        "--small", action="store_true", help="reduced data, network and epochs; generated pictures for captions"
    )
    recipe.add_argument(
        "--wordnet", metavar="FILE", help="WordNet 3.0's data.noun (default: in DIR or where it usually is)"
    )
    recipe.add_argument(
        "--embeddings",
        metavar="FILE|MODEL",
        help="of captions: .npy, a model of sentence-transformers, or words (default: captions.npy in DIR)",
    )
    recipe.add_argument("--bits", type=int, default=64, help="bits of a code (default: %(default)s)")
    recipe.add_argument("--epochs", type=int, help="passes over the data")
    recipe.add_argument("--batch-size", type=int, metavar="N", help="pictures of a step")
    _backbone(recipe)
    recipe.add_argument(
        "--backbone-weights", metavar="FILE", help="its state dict, read by torch.load with weights_only=True"
    )
    recipe.add_argument(
        "--validation", action="store_true", help="measure on held-out training pictures, to choose settings"
    )
    recipe.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read pictures ahead (default: %(default)s)"
    )
    recipe.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    recipe.add_argument("--device", help="torch device (default: cuda if there is one, else cpu)")


def _backbone(command: Any) -> None:
    command.add_argument(
        "--backbone",
        metavar="NAME",
        help="small (the default, trained from scratch), or a model of torchvision or timm, which must be installed: "
        "for example torchvision:resnet18; nothing is downloaded",
    )


def _module(command: Any) -> None:
    command.add_argument(
        "--module",
        metavar="PACKAGE:FUNCTION",
        help="MODEL is a run of fasthash.train (its folder or model.safetensors); this function makes its nn.Module, "
        "and may be in the current folder too",
    )
