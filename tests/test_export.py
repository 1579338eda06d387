"""Encoders as graphs: pack_bits and networks under torch.compile, torch.export, jit.trace and jit.script, and .pt2."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import FEATURES, QUICK, blobs
from torch import Tensor, nn

from fasthash.baselines import lsh
from fasthash.cli import main
from fasthash.codes import pack_bits, unpack_bits
from fasthash.train import CodeModule, Hasher, HashHead, NotFittedError, encoder, export
from fasthash.train.two_parts import two_part_encoder

ROWS = torch.randn(33, FEATURES, generator=torch.Generator().manual_seed(0))


class Pack(nn.Module):
    def __init__(self, threshold: Any = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, z: Tensor) -> Tensor:
        return pack_bits(z, self.threshold)


def graph_of(kind: str, module: nn.Module, example: Tensor) -> Any:
    """`module` as a graph that is used with other rows than those of the example."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "trace":
            return torch.jit.trace(module, example)
        if kind == "compile":
            torch._dynamo.reset()  # it counts how often a forward is compiled, over all tests
            return torch.compile(module, fullgraph=True, backend="eager")
        rows = ({0: torch.export.Dim("B")},)
        return torch.export.export(module, (example,), dynamic_shapes=rows).module()


KINDS = ("trace", "compile", "export")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [1, 13, 64])
def test_pack_bits_is_part_of_a_graph(kind: str, bits: int) -> None:
    """jit.trace made a constant of the codes, and compile and export did not take it."""
    graph = graph_of(kind, Pack(), torch.zeros(2, bits))
    for rows in (3, 5):
        z = torch.rand(rows, bits)
        codes = graph(z)
        assert codes.dtype == torch.uint8
        assert torch.equal(codes, pack_bits(z))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_every_type_and_thresholds_in_a_graph(kind: str, dtype: torch.dtype) -> None:
    z = (2 * torch.rand(5, 12)).to(dtype)
    for threshold in (0, 0.3, torch.linspace(0, 1, 12)):
        graph = graph_of(kind, Pack(threshold), torch.ones(2, 12).to(dtype))
        assert torch.equal(graph(z), pack_bits(z, threshold))


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_gives_nan_the_bit_zero(kind: str) -> None:
    z = torch.full((3, 8), torch.nan)
    z[:, 0] = 1.0
    assert graph_of(kind, Pack(), torch.zeros(2, 8))(z).tolist() == [[128]] * 3
    with pytest.raises(ValueError, match="must not hold NaN"):
        pack_bits(z)


@pytest.mark.parametrize("kind", KINDS)
def test_unpack_bits_is_part_of_a_graph(kind: str) -> None:
    class Unpack(nn.Module):
        def forward(self, codes: Tensor) -> Tensor:
            return unpack_bits(codes, 13)

    codes = pack_bits(torch.rand(5, 13))
    graph = graph_of(kind, Unpack(), torch.zeros(2, 2, dtype=torch.uint8))
    assert torch.equal(graph(codes), unpack_bits(codes, 13))


def test_vmap_packs() -> None:
    z = torch.rand(4, 3, 13)
    assert torch.equal(torch.vmap(pack_bits)(z), pack_bits(z))


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "linear": encoder(FEATURES, 16, hidden=()).eval(),
        "layers": encoder(FEATURES, 60, hidden=(24, 24), limit=torch.full((FEATURES,), 40.0)).eval(),
        "two parts": two_part_encoder(FEATURES, 60, 16, hidden=(24, 24)).eval(),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", networks())
def test_whole_encoders_are_graphs(kind: str, name: str) -> None:
    module = CodeModule(networks()[name])
    codes, outputs = graph_of(kind, module, ROWS[:2])(ROWS)
    wanted = module(ROWS)
    assert torch.equal(outputs, wanted[1])
    assert torch.equal(codes, wanted[0])


@pytest.mark.parametrize("loss", [None, "csq"])
@pytest.mark.parametrize("item_bits", [0, 5])
def test_jit_script_of_a_fitted_module(loss: str | None, item_bits: int) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, loss=loss, item_bits=0 if loss else item_bits, progress=False).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(hasher.module_)
    assert torch.equal(scripted(torch.from_numpy(X)), hasher.transform(torch.from_numpy(X)))
    with pytest.raises(
        torch.jit.Error, match=r"HashHead: a module from torch.jit.script is for evaluation: call eval\(\)"
    ):
        scripted.train()(torch.from_numpy(X))


def test_pt2_needs_no_fasthash_and_gives_the_same_codes(tmp_path: Path) -> None:
    X, y = blobs()
    hasher = Hasher(**QUICK, progress=False).fit(X, y)
    hasher.export(tmp_path / "model.pt2")
    told = {"fasthash": ""}
    graph = torch.export.load(tmp_path / "model.pt2", extra_files=told)
    codes, outputs = graph.module()(torch.from_numpy(X))
    np.testing.assert_array_equal(codes.numpy(), hasher.encode(X))
    np.testing.assert_array_equal(outputs.detach().numpy(), hasher.transform(X))
    assert json.loads(told["fasthash"]) == {"bits": 16, "bit_weights": None, "features": FEATURES}


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), HashHead(4 * 36, 20))
    module.train()
    pictures = torch.randn(5, 3, 8, 8)
    export(module, tmp_path / "net.pt2", pictures[:1].numpy())
    assert module.training
    codes, _ = torch.export.load(tmp_path / "net.pt2").module()(pictures)
    module.eval()
    assert torch.equal(codes, pack_bits(module(pictures)))
    assert codes.shape == (5, 3)
    export(nn.Flatten(), tmp_path / "signs.pt2", torch.zeros(1, 8), threshold=0, about={"a": 1})
    codes, _ = torch.export.load(tmp_path / "signs.pt2").module()(-pictures.reshape(-1, 8))
    assert torch.equal(codes, pack_bits(-pictures.reshape(-1, 8), 0))


class Peeks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = HashHead(4, 8), torch.zeros(2, 4)
    with pytest.raises(NotFittedError, match=r"Hasher.export: call fit"):
        Hasher().export(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"export: path must end in one of .onnx, .pt2, got .*'"):
        export(head, tmp_path / "m.pt", x)
    with pytest.raises(ValueError, match=r"export: example must be \[B, ...\] with B >= 1, got shape \(0, 4\)"):
        export(head, tmp_path / "m.pt2", x[:0])
    with pytest.raises(ValueError, match=r"export: torch.export cannot make a graph of Peeks: "):
        export(Peeks(), tmp_path / "m.pt2", x)
    with pytest.raises(ValueError, match=r"CodeModule: the module must give outputs \[B, bits\], got shape \(2,\)"):
        CodeModule(nn.Flatten(0))(torch.zeros(2))
    monkeypatch.setattr(sys.modules["fasthash.train.export"], "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"m.onnx needs onnx and onnxscript: pip install 'fasthash\[onnx\]'"):
        export(head, tmp_path / "m.onnx", x)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    X, y = blobs()
    hasher = Hasher(**QUICK, progress=False).fit(X, y)
    hasher.save("m.safetensors")
    lsh(X, 16).save("lsh.safetensors")
    assert main(["export", "m.safetensors", "--out", "m.pt2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"out": "m.pt2", "shape": [FEATURES], "bytes": Path("m.pt2").stat().st_size}
    codes, _ = torch.export.load("m.pt2").module()(torch.from_numpy(X))
    np.testing.assert_array_equal(codes.numpy(), hasher.encode(X))
    assert main(["export", "m.safetensors", "--out", "m.pt2"]) == 0
    assert capsys.readouterr().out == "m.pt2: x float32 [N, 12] -> codes, outputs\n"
    monkeypatch.setattr(sys.modules["fasthash.train.export"], "find_spec", lambda name: None)
    for arguments, message in (
        (("m.safetensors", "--out", "m.pt"), "m.pt: the suffix decides the format and must be one of .onnx, .pt2"),
        (("nothing", "--out", "m.pt2"), "nothing: no such file"),
        (("lsh.safetensors", "--out", "m.pt2"), "lsh.safetensors: linear codes cannot be exported"),
        (("m.safetensors", "--out", "m.onnx"), "export: m.onnx needs onnx and onnxscript: pip install"),
    ):
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"fasthash: error: {message}")
        assert error.count("\n") == 1
