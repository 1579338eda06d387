"""examples/service.py: one process, many threads, a folder that grows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from embedding_cases import ENCODERS, X

from fasthash import EmbeddingIndex

pytest.importorskip("fastapi", reason="the service needs fastapi: pip install 'fasthash[integration]'")
pytest.importorskip("httpx", reason="the test client of fastapi needs httpx: pip install 'fasthash[integration]'")

SOURCE = Path(__file__).resolve().parent.parent / "examples" / "service.py"


@pytest.fixture(scope="module")
def service() -> Any:
    spec = importlib.util.spec_from_file_location("service", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_searches_and_adds(service: Any, tmp_path: Path) -> None:
    from fastapi.testclient import TestClient

    names = [f"row {number}" for number in range(200)]
    EmbeddingIndex.build(tmp_path / "index", X, ENCODERS["itq"], refine="float32", keys=names, progress=False)
    with TestClient(service.make_service(tmp_path / "index", writable=True)) as http:
        found = http.post("/search", json={"embedding": X[3].tolist(), "k": 2}).json()
        assert found["keys"][0] == "row 3"
        assert found["scores"][0] == pytest.approx(1)
        assert http.post("/rows", json={"embeddings": (X[:2] * -1).tolist(), "keys": ["a", "row 9"]}).json() == {
            "rows": 201
        }
        assert http.post("/search", json={"embedding": (-X[1]).tolist(), "k": 1}).json()["keys"] == ["row 9"]
        wrong = http.post("/search", json={"embedding": [1.0]})
        assert wrong.status_code == 422
        assert wrong.json()["detail"] == "EmbeddingIndex.search: Q must have 16 features, got 1"
        assert http.post("/rows", json={"embeddings": [[1.0]], "keys": ["b"]}).status_code == 422
    with EmbeddingIndex.open(tmp_path / "index", writable=True) as index:  # the service gave up its lock
        assert len(index) == 201


def test_clients_at_once_while_the_folder_grows(service: Any) -> None:
    told = service.load(rows=2000, clients=20, requests=3)
    assert told["requests"] == 60
    assert (told["rows_before"], told["rows_after"]) == (2000, 2500)
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert np.isfinite(told["p99_ms"])
