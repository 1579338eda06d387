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
        """The file computes "codes" and "outputs" from x, float32 [N, F]. Codes are uint8 [N, ceil(bits / 8)] in the
        bit order of numpy.packbits, outputs are float32 [N, bits]. Write model.onnx for ONNX Runtime and others (pip
        install 'fasthash[onnx]'), or model.pt2 for torch.export.load. Other libraries give the same outputs up to
        rounding errors.""",
        "fasthash export model.safetensors --out model.onnx",
    )
    export.add_argument(
        "model", metavar="MODEL", help="a file of fasthash train or Hasher.save; with --module also a run"
    )
    export.add_argument("--out", required=True, metavar="FILE", help="the file to write, .onnx or .pt2")
    _module(export)
    _backbone(export)
    export.add_argument(
        "--shape", metavar="N,...", help="with --module: shape of one input, for example 3,224,224 for pictures"
    )


def add_own_module(encode: argparse.ArgumentParser) -> None:
    """Options of `fasthash encode` for modules of one's own and for pictures."""
    own = encode.add_argument_group("modules of your own, and pictures")
    _module(own)
    _backbone(own)
    own.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="a bit is 1 above this output (default: %(default)s; use 0 for signed outputs)",
    )
    own.add_argument(
        "--size", type=int, help="with --module: height and width of the pictures in pixels (default: 224)"
    )
    own.add_argument("--batch-size", type=int, default=64, metavar="N", help="(default: %(default)s)")
    own.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read pictures ahead (default: 0)"
    )


def add_images(train: argparse.ArgumentParser) -> None:
    """Options of `fasthash train` for pictures."""
    pictures = train.add_argument_group("pictures")
    _backbone(pictures)
    pictures.add_argument(
        "--backbone-weights",
        metavar="FILE",
        help="state dict of the backbone, read by torch.load with weights_only=True",
    )
    pictures.add_argument(
        "--backbone-lr",
        type=float,
        metavar="LR",
        help="highest learning rate of the backbone, 0 to freeze it (default: --lr)",
    )
    pictures.add_argument(
        "--size", type=int, help="height and width of the pictures in pixels (default: 64 for small, otherwise 224)"
    )
    pictures.add_argument(
        "--start-from",
        metavar="RUN",
        help="start with the weights of this run or model, for example to train more epochs",
    )


def add_recipe(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """`fasthash recipe`. command: makes one, see `_command` of parser.py."""
    recipe = command(
        commands,
        "recipe",
        "recipe:recipe",
        "train and measure the paper's settings on CIFAR-100, ImageNet or Conceptual Captions",
        """Reads the data as downloaded. Trains codes from similarities, with and without the KL term, and codes from
        similarities and classes. Then measures zero-shot hashing: the classes of the queries are not in the training
        data. Full runs take hours or days on a GPU, --small takes minutes. docs/recipes.md describes DIR and what a
        run needs.""",
        "fasthash recipe cifar100 --data cifar-100-python --wordnet data.noun --out cifar100-run",
    )
    recipe.add_argument("name", choices=("cifar100", "imagenet", "conceptual-captions"), metavar="NAME")
    recipe.add_argument("--data", required=True, metavar="DIR", help="folder of the data as downloaded")
    recipe.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="folder for results; after an interruption the same command continues",
    )
    recipe.add_argument(
        "--small",
        action="store_true",
        help="less data, a smaller network and fewer epochs; captions get generated pictures",
    )
    recipe.add_argument(
        "--wordnet", metavar="FILE", help="data.noun of WordNet 3.0 (default: in DIR or in its usual folder)"
    )
    recipe.add_argument(
        "--embeddings",
        metavar="FILE|MODEL",
        help="embeddings of captions: .npy, a model of sentence-transformers, or words (default: captions.npy in DIR)",
    )
    recipe.add_argument("--bits", type=int, default=64, help="bits of a code (default: %(default)s)")
    recipe.add_argument("--epochs", type=int, help="passes over the data")
    recipe.add_argument("--batch-size", type=int, metavar="N", help="pictures in a step")
    _backbone(recipe)
    recipe.add_argument(
        "--backbone-weights",
        metavar="FILE",
        help="state dict of the backbone, read by torch.load with weights_only=True",
    )
    recipe.add_argument(
        "--validation", action="store_true", help="measure on training pictures that are held out, to choose settings"
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
        help="small (the default, trained from scratch), or a model of torchvision or timm, for example "
        "torchvision:resnet18; the library must be installed, nothing is downloaded",
    )


def _module(command: Any) -> None:
    command.add_argument(
        "--module",
        metavar="PACKAGE:FUNCTION",
        help="function that makes the nn.Module of MODEL, a run of fasthash.train (its folder or model.safetensors); "
        "the package may be in the current folder",
    )
