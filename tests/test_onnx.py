"""ONNX files: the same codes in ONNX Runtime, and examples/onnx_server.py, which has no fasthash."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hasher_cases import FEATURES, QUICK, blobs
from torch import nn

from fasthash import hamming_topk
from fasthash.cli import main
from fasthash.codes import pack_bits
from fasthash.train import Hasher, HashHead, export

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"ONNX files need {package}: pip install 'fasthash[onnx]'")

SERVER = Path(__file__).resolve().parent.parent / "examples" / "onnx_server.py"
ROUNDING = 1e-5  # of outputs in [0, 1], between two libraries


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hasher, Path]:
    folder = tmp_path_factory.mktemp("onnx")
    X, y = blobs()
    hasher = Hasher(**QUICK, item_bits=5, progress=False).fit(X, y)
    hasher.save(folder / "m.safetensors")
    assert main(["export", str(folder / "m.safetensors"), "--out", str(folder / "m.onnx")]) == 0
    return hasher, folder / "m.onnx"


@pytest.mark.parametrize("bits", [5, 64])
def test_pack_bits_is_the_same_bit_for_bit(tmp_path: Path, bits: int) -> None:
    """The values themselves go in, so that nothing is rounded: edges, infinities and NaN."""
    export(nn.Identity(), tmp_path / "pack.onnx", torch.zeros(1, bits))
    z = np.random.default_rng(0).random((50, bits), np.float32)
    z[0, :5] = [0.5, np.nextafter(np.float32(0.5), np.float32(1)), np.inf, -np.inf, 0]
    codes, outputs = session(tmp_path / "pack.onnx").run(None, {"x": z})
    np.testing.assert_array_equal(codes, pack_bits(z))
    np.testing.assert_array_equal(outputs, z)
    nothing = session(tmp_path / "pack.onnx").run(["codes"], {"x": np.full((2, bits), np.nan, np.float32)})[0]
    assert not nothing.any()


def test_codes_of_a_hasher_are_the_same(fitted: tuple[Hasher, Path]) -> None:
    hasher, path = fitted
    X, _ = blobs(1000, seed=5)
    codes, outputs = session(path).run(None, {"x": X})
    z = hasher.transform(X)
    np.testing.assert_allclose(outputs, z, atol=ROUNDING)
    differ = np.unpackbits(codes ^ hasher.encode(X), axis=1, count=16).astype(bool)
    assert not (differ & (abs(z - 0.5) > ROUNDING)).any()
    np.testing.assert_array_equal(codes, pack_bits(outputs))


def test_what_the_file_says(fitted: tuple[Hasher, Path]) -> None:
    found = session(fitted[1])
    told = json.loads(found.get_modelmeta().custom_metadata_map["fasthash"])
    assert told == {"bits": 16, "bit_weights": [[11, 4], [5, 1]], "features": FEATURES}
    named = [(part.name, part.shape, part.type) for part in (*found.get_inputs(), *found.get_outputs())]
    assert named == [
        ("x", ["B", FEATURES], "tensor(float)"),
        ("codes", ["B", 2], "tensor(uint8)"),
        ("outputs", ["B", 16], "tensor(float)"),
    ]
    assert [path.name for path in sorted(fitted[1].parent.iterdir())] == ["m.onnx", "m.safetensors"]  # one file


def test_a_network_of_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    network = nn.Sequential(*layers, nn.Flatten(), HashHead(8, 20))
    pictures = torch.randn(40, 3, 16, 16)
    network.train()(pictures)  # statistics
    export(network, tmp_path / "net.onnx", pictures[:1])
    codes, outputs = session(tmp_path / "net.onnx").run(None, {"x": pictures.numpy()})
    with torch.no_grad():
        z = network.eval()(pictures).numpy()
    np.testing.assert_allclose(outputs, z, atol=ROUNDING)
    differ = np.unpackbits(codes ^ pack_bits(z), axis=1, count=20).astype(bool)
    assert not (differ & (abs(z - 0.5) > ROUNDING)).any()


def test_the_example_server_searches_without_fasthash(fitted: tuple[Hasher, Path], tmp_path: Path) -> None:
    text = SERVER.read_text(encoding="utf-8")
    assert not re.search(r"(import|from) (fasthash|torch)", text)
    assert len([line for line in text.split('"""')[2].splitlines() if line.strip()]) <= 22
    hasher, model = fitted
    X, _ = blobs(300)
    np.save(tmp_path / "codes.npy", hasher.encode(X))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(SERVER), str(model), str(tmp_path / "codes.npy"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "serving\n"
            request = json.dumps(X[7].tolist()).encode()
            with urllib.request.urlopen(f"http://localhost:{port}", request, timeout=60) as answer:
                rows, distances = json.load(answer)
        finally:
            server.terminate()
    wanted = hamming_topk(hasher.encode(X[7:8]), hasher.encode(X), 10)
    assert rows == wanted.ids[0].tolist()
    assert distances == wanted.distances[0].tolist()
