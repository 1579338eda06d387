"""A service of one process: many threads search a folder of an EmbeddingIndex that a writer keeps growing.

    pip install 'fasthash[integration]'
    python examples/service.py index --port 8000     serve the folder
    python examples/service.py --load                make an index, grow it, let 100 clients search: prints p50, p99

Each request searches in a thread of its own, on the state that was complete when it began. A request costs a scan of
all codes; torch's own threads would only compete with those of other requests, so there is one for each.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from fasthash import EmbeddingIndex

REFRESH_SECONDS = 1.0


class Query(BaseModel):
    """What a client asks: an embedding, how many results, and how many candidates for each."""

    embedding: list[float]
    k: int = 10
    oversample: int = 3


class NewRows(BaseModel):
    """Embeddings and their keys; those that are there already are replaced."""

    embeddings: list[list[float]]
    keys: list[str]


def make_service(folder: Path, *, writable: bool = False, refresh_seconds: float = REFRESH_SECONDS) -> FastAPI:
    """The service of a folder. writable: this process is the folder's one writer; else it refreshes now and then."""
    index = EmbeddingIndex.open(folder, writable=writable)
    stopped = threading.Event()

    def refresh() -> None:
        while not stopped.wait(refresh_seconds):
            index.refresh()

    @asynccontextmanager
    async def life(_: FastAPI) -> Any:
        thread = threading.Thread(target=refresh, daemon=True)
        if not writable:
            thread.start()
        yield
        stopped.set()
        index.close()

    service = FastAPI(lifespan=life)

    @service.post("/search")
    def search(query: Query) -> dict[str, Any]:  # a plain def: FastAPI runs it in a thread
        try:
            found = index.search(np.array(query.embedding, np.float32), query.k, oversample=query.oversample)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        there = found.ids[0] >= 0
        keys = found.keys[0, there].tolist() if index.keyed else None
        return {"ids": found.ids[0, there].tolist(), "keys": keys, "scores": found.scores[0, there].tolist()}

    @service.post("/rows")
    def add(rows: NewRows) -> dict[str, int]:
        try:
            index.add(np.array(rows.embeddings, np.float32), rows.keys, replace=True)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return {"rows": len(index)}

    @service.get("/size")
    def size() -> dict[str, int]:
        return {"rows": len(index)}

    return service


def load(rows: int, clients: int, requests: int) -> dict[str, float]:
    """Clients search at once while a writer adds rows: milliseconds of a request, rows before and after."""
    from fastapi.testclient import TestClient

    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 128)).astype(np.float32)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        names = [f"row {number}" for number in range(rows)]
        EmbeddingIndex.build(folder, X, "rabitq", refine="int8", keys=names, progress=False).close()
        with (
            TestClient(make_service(folder, refresh_seconds=0.05)) as http,
            EmbeddingIndex.open(folder, writable=True) as writer,
        ):
            before = http.get("/size").json()["rows"]

            def client(number: int) -> None:
                for turn in range(requests):
                    row = (number * requests + turn) % rows
                    start = time.perf_counter()
                    found = http.post("/search", json={"embedding": X[row].tolist(), "k": 5}).json()
                    times.append(1000 * (time.perf_counter() - start))
                    if found["keys"][0] != f"row {row}":
                        raise RuntimeError(f"row {row} was not found: {found}")

            with ThreadPoolExecutor(clients) as pool:
                work = [pool.submit(client, number) for number in range(clients)]
                for turn in range(5):
                    writer.add(rng.normal(size=(100, 128)), [f"new {turn} {number}" for number in range(100)])
                    time.sleep(0.05)
                for done in work:
                    done.result()
            deadline = time.monotonic() + 10
            while (after := http.get("/size").json()["rows"]) < rows + 500 and time.monotonic() < deadline:
                time.sleep(0.05)
    p50, p99 = np.percentile(times, [50, 99]).tolist()
    return {"requests": len(times), "p50_ms": p50, "p99_ms": p99, "rows_before": before, "rows_after": after}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--writable", action="store_true", help="take rows too: this process is then the one writer")
    parser.add_argument("--load", action="store_true", help="measure instead of serving")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--requests", type=int, default=10, help="of each client")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.load:
        told = load(arguments.rows, arguments.clients, arguments.requests)
        print("{requests:.0f} requests: p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms".format(**told))
        print("rows seen by the service: {rows_before:.0f}, later {rows_after:.0f}".format(**told))
    elif arguments.folder is None:
        parser.error("a folder is needed, or --load")
    else:
        import uvicorn

        uvicorn.run(make_service(arguments.folder, writable=arguments.writable), port=arguments.port)


if __name__ == "__main__":
    main()
