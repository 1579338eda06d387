"""A trained Hasher as one safetensors file, with JSON in its metadata. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from fasthash.index.durable import new_file, sync_folder

FORMAT = "fasthash-hasher"
VERSION = 1


def save_checkpoint(path: str | PathLike[str], tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Writes tensors and a JSON object to `path`. A file that is there stays whole until the new one is on the disk.

    Raises OSError where the file cannot be written or `path` is something other than a file, TypeError and ValueError
    for what JSON cannot hold.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a folder or /dev/null, say: a file would take its place
        raise OSError(f"Hasher.save: {path} is there and is not a regular file")
    metadata = {"format": FORMAT, "version": str(VERSION), "content": json.dumps(content, allow_nan=False)}
    data = safetensors.torch.save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with new_file(aside) as file:
        file.write(data)
    try:
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    sync_folder(path.parent)


def load_checkpoint(path: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Gives the tensors and the JSON object that `save_checkpoint` wrote.

    Raises FileNotFoundError where there is no file, ValueError, naming the file, for one that is damaged, of another
    format or of another version.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"Hasher.load: {path} does not exist")
    if not path.is_file():
        raise ValueError(f"Hasher.load: {path} is a folder or not a regular file, must be a model file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            kind, version = metadata.get("format"), metadata.get("version")
            if kind != FORMAT:
                raise ValueError(f"Hasher.load: {path} is not a fasthash model: its format is {kind!r}, not {FORMAT!r}")
            if version != str(VERSION):
                raise ValueError(f"Hasher.load: {path} has version {version}, and only version {VERSION} is known here")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        content = json.loads(metadata["content"])
    except (safetensors.SafetensorError, json.JSONDecodeError, KeyError, OSError) as error:
        raise ValueError(f"Hasher.load: {path} is damaged or not a fasthash model: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"Hasher.load: {path} is damaged: its content is not a JSON object")
    return tensors, content


def check_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises ValueError, in one line, unless `tensors` have the names, types and shapes of `expected`."""
    if tensors.keys() != expected.keys():
        difference = ", ".join(sorted(tensors.keys() ^ expected.keys()))
        raise ValueError(f"its tensors are not those of the model that it describes ({difference})")
    for name, tensor in tensors.items():
        found, wanted = (f"{list(t.shape)} {t.dtype}" for t in (tensor, expected[name]))
        if found != wanted:
            raise ValueError(f"its tensor {name} is {found}, not {wanted}")
