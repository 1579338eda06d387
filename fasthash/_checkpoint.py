"""Tensors and a JSON object in one safetensors file: a model, linear codes, or the state of a run. No unpickling."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fasthash._arrays import dtype_name
from fasthash._durable import replaced_file

FORMAT = "fasthash-hasher"
VERSION = 1


@dataclass(frozen=True)
class Kind:
    """What a file holds: its format, what messages call it, and who writes and reads it."""

    format: str
    noun: str
    save: str
    load: str


MODEL = Kind(FORMAT, "model", "Hasher.save", "Hasher.load")
GRID = Kind("fasthash-grid-codes", "GridCodes", "GridCodes.save", "GridCodes.load")
IMAGES = Kind("fasthash-image-hasher", "model of pictures", "ImageHasher.save", "ImageHasher.load")
DECODER = Kind("fasthash-linear-decoder", "linear decoder", "LinearDecoder.save", "LinearDecoder.load")
LINEAR = Kind("fasthash-linear-codes", "LinearCodes", "LinearCodes.save", "LinearCodes.load")
ASYMMETRIC = Kind("fasthash-asymmetric-hasher", "AsymmetricHasher", "AsymmetricHasher.save", "AsymmetricHasher.load")
CIMON = Kind("fasthash-cimon", "CIMON model", "CIMON.save", "CIMON.load")
CROSS_MODAL = Kind("fasthash-cross-modal-hasher", "cross-modal model", "CrossModalHasher.save", "CrossModalHasher.load")
GRAPH = Kind("fasthash-graph-hasher", "GraphHasher", "GraphHasher.save", "GraphHasher.load")
TEXT = Kind("fasthash-text-hasher", "text model", "TextHasher.save", "TextHasher.load")
RUN = Kind("fasthash-run", "checkpoint", "train", "train")


def save_checkpoint(
    path: str | PathLike[str], tensors: dict[str, Tensor], content: dict[str, Any], kind: Kind = MODEL
) -> None:
    """Writes tensors and a JSON object to `path`. A file that is there stays whole until the new one is on the disk.

    Raises OSError where the file cannot be written or `path` is something other than a file, TypeError and ValueError
    for what JSON cannot hold.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a folder or /dev/null, say: a file would take its place
        raise OSError(f"{kind.save}: {path} exists and is not a regular file")
    metadata = {"format": kind.format, "version": str(VERSION), "content": json.dumps(content, allow_nan=False)}
    with replaced_file(path) as file:
        file.write(safetensors.torch.save(_separate(tensors), metadata))


def load_checkpoint(path: str | PathLike[str], kind: Kind = MODEL) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Gives the tensors and the JSON object that `save_checkpoint` wrote.

    Raises FileNotFoundError where there is no file, ValueError, naming the file, for one that is damaged, of another
    format or of another version.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{kind.load}: {path} does not exist")
    if not path.is_file():
        raise ValueError(f"{kind.load}: {path} is a folder or not a regular file, must be a {kind.noun} file")
    what = f"a fasthash {kind.noun}"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found, version = metadata.get("format"), metadata.get("version")
            if found != kind.format:
                hint = _own_module(metadata) if kind is MODEL and found == RUN.format else ""
                raise ValueError(
                    f"{kind.load}: {path} is not {what}: its format is {found!r}, not {kind.format!r}{hint}"
                )
            if version != str(VERSION):
                raise ValueError(
                    f"{kind.load}: {path} has version {version}, this fasthash reads version {VERSION} only"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        content = json.loads(metadata["content"])
    except (safetensors.SafetensorError, json.JSONDecodeError, KeyError, OSError) as error:
        raise ValueError(f"{kind.load}: {path} is damaged or not {what}: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{kind.load}: {path} is damaged: its content is not a JSON object")
    return tensors, content


def _own_module(metadata: dict[str, str]) -> str:
    """How to use a file of weights whose module is not part of fasthash."""
    named: Any = None
    with contextlib.suppress(KeyError, json.JSONDecodeError, AttributeError):
        named = json.loads(metadata["content"]).get("module")
    return (
        f". It holds the weights of {named if isinstance(named, str) else 'a module'}, from fasthash.train: make that "
        "module and call fasthash.train.load_weights, or pass --module package:function to fasthash encode"
    )


def is_file_of(path: str | PathLike[str], kind: Kind) -> bool:
    """Whether `path` is a file that says that it is of this kind; False for what cannot be read."""
    try:
        with safetensors.safe_open(Path(path), framework="pt") as file:
            return bool((file.metadata() or {}).get("format") == kind.format)
    except (safetensors.SafetensorError, OSError):
        return False


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises ValueError, in one line, unless `tensors` have the names, types and shapes of `expected`."""
    if tensors.keys() != expected.keys():
        difference = ", ".join(sorted(tensors.keys() ^ expected.keys()))
        raise ValueError(f"its tensors do not match the model that it describes ({difference})")
    for name, tensor in tensors.items():
        found, wanted = (f"{list(t.shape)} {dtype_name(t)}" for t in (tensor, expected[name]))
        if found != wanted:
            raise ValueError(f"its tensor {name} is {found}, not {wanted}")


def _separate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each in memory of its own, as the format wants it: tied weights become two."""
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        result[name] = value.clone() if place in seen else value
        seen.add(place)
    return result
