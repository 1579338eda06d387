"""Encoders for programs without fasthash: ONNX, or a graph of torch.export."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fasthash._arrays import to_tensor
from fasthash._durable import replaced_file
from fasthash.codes import pack_bits

SUFFIXES = (".onnx", ".pt2")
INPUT, OUTPUTS = "x", ("codes", "outputs")
_ONNX = ("onnx", "onnxscript")  # what torch's exporter imports


class CodeModule(nn.Module):
    """`module` and the packed codes of its outputs: x -> (codes uint8 [B, ceil(bits / 8)], outputs [B, bits]).

    threshold: of the bits, 0.5, or 0 for a module with signed outputs. torch.compile, torch.export and torch.jit.trace
    take it whole. Raises ValueError for outputs that are not [B, bits].

    >>> from fasthash.train import HashHead
    >>> codes, outputs = CodeModule(HashHead(4, 16).eval())(torch.randn(3, 4))
    >>> codes.shape, outputs.shape
    (torch.Size([3, 2]), torch.Size([3, 16]))
    """

    def __init__(self, module: nn.Module, threshold: float = 0.5) -> None:
        super().__init__()
        self.module, self.threshold = module, threshold

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.module(x)
        if not isinstance(z, Tensor) or z.ndim != 2:
            got = f"shape {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
            raise ValueError(f"CodeModule: the module must give outputs [B, bits], got {got}")
        return pack_bits(z, self.threshold), z


def export(
    module: nn.Module,
    path: str | PathLike[str],
    example: Any,
    *,
    threshold: float = 0.5,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes `CodeModule(module)` to `path`: .onnx for ONNX, .pt2 for `torch.export.load`. Needs no fasthash to run.

    Input "x" [B, ...] of the type of `example`; outputs "codes" uint8 [B, ceil(bits / 8)], in the order of
    `numpy.packbits`, and "outputs" [B, bits]. B is free, other sizes are those of the example.

    Args:
        module: any encoder; a copy of it is exported, on the CPU and in evaluation mode.
        example: a batch [B, ...] of at least one row, numpy or torch: its shape and type count, not its values.
        threshold: of the bits, see `fasthash.pack_bits`.
        about: a JSON object that goes into the file: as "fasthash" of an ONNX model's metadata, or of the extra files.

    In an ONNX model other libraries add in other orders than torch does: outputs agree to rounding, and a bit can
    differ where its output is that near to the threshold. In both formats NaN gives the bit 0, and raises nothing.
    A file that is there is replaced when the new one is whole.

    Raises ValueError for another suffix, for an empty example and where torch cannot make a graph of the module,
    ImportError, saying what to install, where .onnx needs packages that are not here.

    >>> from fasthash.train import HashHead
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "head.pt2"
    >>> export(HashHead(4, 16), path, torch.zeros(2, 4))
    >>> torch.export.load(path).module()(torch.zeros(5, 4))[0].shape
    torch.Size([5, 2])
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"export: path must end in one of {', '.join(SUFFIXES)}, got {str(path)!r}")
    missing = [name for name in _ONNX if find_spec(name) is None] if suffix == ".onnx" else []
    if missing:
        raise ImportError(f"export: {path.name} needs {' and '.join(missing)}: pip install 'fasthash[onnx]'")
    x = to_tensor(example, "export", "example")
    if x.ndim < 1 or len(x) < 1:
        raise ValueError(f"export: example must be [B, ...] with B >= 1, got shape {tuple(x.shape)}")
    x = torch.cat([x, x])[:2]  # torch takes a size of 1 for a fixed one
    graph = _graph(copy.deepcopy(module).cpu().eval(), x.cpu(), threshold)
    told = json.dumps(dict(about or {}))
    with tempfile.TemporaryDirectory() as folder:  # both writers want a name with their suffix
        aside = Path(folder) / path.name
        if suffix == ".onnx":
            _write_onnx(graph, aside, told)
        else:
            torch.export.save(graph, aside, extra_files={"fasthash": told})
        with replaced_file(path) as file:
            file.write(aside.read_bytes())


def _graph(module: nn.Module, x: Tensor, threshold: float) -> Any:
    """The exported program, with a free number of rows."""
    rows = ({0: torch.export.Dim("B")},)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(CodeModule(module, threshold), (x,), dynamic_shapes=rows)
        except Exception as error:  # of torch, of many kinds
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"export: torch.export cannot make a graph of {type(module).__name__}: {first}") from error


def _write_onnx(graph: Any, path: Path, told: str) -> None:
    """Writes the program as one ONNX file."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph,
                dynamo=True,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: "B"},),
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    program.model.metadata_props["fasthash"] = told
    program.save(path, external_data=False)
