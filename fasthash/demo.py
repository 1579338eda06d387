"""The whole path on the data inside the package: learn codes, compare them, index and search them, report."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from fasthash import _ops
from fasthash._arguments import number, whole
from fasthash._durable import make_folder, replaced_file
from fasthash.baselines import itq, lsh
from fasthash.codes import pack_bits
from fasthash.datasets import Clinc150, clinc150, clinc150_hierarchy, clinc150_names
from fasthash.evaluate import evaluate
from fasthash.hamming import hamming_topk
from fasthash.index import HammingIndex
from fasthash.neighbors import nearest
from fasthash.report import Plots, Ranked, distance_words, text_tables, write_report
from fasthash.train import Hasher

BITS = 64
RESULTS = 10  # results of a query: P@10, overlap@10 and the timed searches
RANKS = 250  # of mAHP@250
EXAMPLES = 4  # queries shown with their nearest texts
TIMED_QUERIES = 1000  # of real-valued searches, which take long
TIMING = 0.1  # seconds for each speed

Array = NDArray[Any]


@dataclass(frozen=True)
class Method:
    """One row of the tables: how the items of each split are represented and compared."""

    name: str
    learned_from: str | None  # of fasthash's rows: "labels" or "similarities"
    kl: bool | None  # of fasthash's rows: with the KL term
    metric: str  # "hamming", "cosine" or "l1"
    item_bytes: int | None
    items: dict[str, Array]  # by split: codes uint8 or embeddings float32
    bit_weights: list[tuple[int, int]] | None = None


def run_demo(
    out: str | PathLike[str],
    *,
    fraction: float = 1.0,
    seed: int = 0,
    epochs: int | None = None,
    ablations: bool = False,
) -> dict[str, Any]:
    """Trains, compares, indexes and searches 64-bit codes of clinc150, writes all to a folder, and gives the results.

    Codes are trained on the train split. Every setting is the default of Hasher, so nothing is chosen here. Queries are
    the test split; the database is the train split, and once more the val split, which nothing was trained on. The
    folder gets model.safetensors, features.npy and query_features.npy (embeddings), codes.npy, queries.npy, index (with
    the model's weights of bits), texts.txt, labels, hierarchy.txt, results.json and report.html (with plots where
    matplotlib is installed).

    fraction: part of the texts of each intent, 0.1 to 1. epochs: of training, None for the default. ablations: also
    undivided codes and their outputs before rounding, each with the KL term and without, from labels and from distances
    between classes alone: three times the time. What is under way is told on stderr. Raises ValueError for a fraction,
    epochs or a seed out of range, OSError where the folder cannot be written.
    """
    fraction = number(fraction, "demo", "fraction", least=0.1, most=1)
    epochs = None if epochs is None else whole(epochs, "demo", "epochs", 1)
    seed = whole(seed, "demo", "seed", 0, 2**63 - 1)
    start = time.perf_counter()
    folder = Path(out)
    make_folder(folder)
    _write_text(folder / "results.json", "{}\n")  # fails now, not after the training, where nothing can be written
    splits = {name: _part(clinc150(name), fraction) for name in ("train", "val", "test")}

    settings = [_Setting("labels", True, None), *(_UNDIVIDED if ablations else ())]
    trained = []
    for run, setting in enumerate(settings, 1):
        _say(f"training {run} of {len(settings)}: {setting}")
        trained.append((setting, *_train(splits["train"], setting, seed, epochs)))
    hasher = trained[0][1]
    _say("codes without training: random hyperplanes (LSH), ITQ")
    default = _default(splits, hasher)
    undivided = [(setting, hasher) for setting, hasher, _ in trained[1:]]
    methods = [*_baselines(splits, seed), *_undivided(splits, undivided), default]
    tables = _measure_all(methods, splits)
    _say(f"writing model, codes, index and report to {folder}")
    hasher.save(folder / "model.safetensors")
    _write_items(folder, splits, default)
    results: dict[str, Any] = {
        "data": "clinc150",
        "bits": BITS,
        "bit_weights": [list(group) for group in default.bit_weights or [(BITS, 1)]],
        "fraction": fraction,
        "seed": seed,
        "sizes": {name: len(split.texts) for name, split in splits.items()},
        "threads": torch.get_num_threads(),
        "isa": _ops.isa_chosen(),
        "torch": torch.__version__,
        "train_seconds": [round(seconds, 2) for _, _, seconds in trained],
        "tables": tables,
        "examples": _examples(folder, splits, seed),
    }
    results["plots"] = write_report(folder / "report.html", results, _plots(methods, hasher, splits))
    results["seconds"] = round(time.perf_counter() - start, 1)
    _write_text(folder / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    return results


def describe(results: dict[str, Any], folder: str) -> str:
    """The results of `run_demo` as text: tables, queries with their nearest texts, what was written."""
    lines = [text_tables(results)]
    for example in results["examples"]:
        lines.append(f'query "{example["text"]}" [{example["intent"]}]')
        for found in example["results"]:
            lines.append(f'  distance {found["distance"]:3}  "{found["text"]}" [{found["intent"]}]')
        lines.append("")
    lines += [distance_words(results), ""]
    lines.append(
        f"{results['seconds']:.0f} s in all. In {folder}: model.safetensors, codes.npy, index, report.html ..."
    )
    if not results["plots"]:
        lines.append("report.html has no plots, because matplotlib is not installed: pip install 'fasthash[demo]'")
    lines.append(f"Next: fasthash search {folder}/index {folder}/queries.npy -k 5 | head")
    return "\n".join(lines)


# Data and methods


def _part(split: Clinc150, fraction: float) -> Clinc150:
    """The first texts of each intent, in the order of the split."""
    if fraction == 1:
        return split
    keep = np.zeros(len(split.texts), dtype=np.bool_)
    for intent in np.unique(split.intents):
        rows = np.flatnonzero(split.intents == intent)
        keep[rows[: math.ceil(fraction * len(rows))]] = True
    chosen = np.flatnonzero(keep)
    texts = [split.texts[row] for row in chosen]
    return Clinc150(texts, split.embeddings[chosen], split.intents[chosen], split.domains[chosen])


@dataclass(frozen=True)
class _Setting:
    """What codes learn from, with the KL term or without; item_bits=0: undivided, None: as Hasher does by default."""

    learned_from: str
    kl: bool
    item_bits: int | None

    def __str__(self) -> str:
        parts = "two parts" if self.item_bits is None else "one part"
        return f"{BITS}-bit codes of {parts} from {self.learned_from}, KL term {'on' if self.kl else 'off'}"


_UNDIVIDED = [_Setting(source, kl, 0) for source in ("labels", "similarities") for kl in (True, False)]


def _train(train: Clinc150, setting: _Setting, seed: int, epochs: int | None) -> tuple[Hasher, float]:
    """The trained hasher, and the seconds that it took."""
    supervision = "full" if setting.learned_from == "labels" else "similarity"
    options: dict[str, Any] = {"supervision": supervision, "item_bits": setting.item_bits, "epochs": epochs}
    hasher = Hasher(BITS, clinc150_hierarchy(), seed=seed, **options)
    if not setting.kl:
        hasher.set_params(kl=0.0)
    start = time.perf_counter()
    hasher.fit(train.embeddings, train.intents)
    return hasher, time.perf_counter() - start


def _baselines(splits: dict[str, Clinc150], seed: int) -> Iterator[Method]:
    """Random ranking, the embeddings themselves, their signs, and the two usual codes without training."""
    embeddings = {name: split.embeddings for name, split in splits.items()}
    # All codes equal: the expectation over ties is that of a random ranking.
    nothing = {name: np.zeros((len(rows), 1), dtype=np.uint8) for name, rows in embeddings.items()}
    yield Method("random ranking", None, None, "hamming", None, nothing)
    width = embeddings["train"].shape[1]
    yield Method(f"cosine, {width} floats", None, None, "cosine", 4 * width, embeddings)
    mean = embeddings["train"].mean(axis=0)
    signs = {name: pack_bits(rows, mean) for name, rows in embeddings.items()}
    yield Method(f"sign bits, {width}", None, None, "hamming", width // 8, signs)
    for name, codes in (
        ("LSH", lsh(embeddings["train"], BITS, seed=seed)),
        ("ITQ", itq(embeddings["train"], BITS, seed=seed)),
    ):
        coded = {split: codes.encode(rows) for split, rows in embeddings.items()}
        yield Method(f"{name}, {BITS} bits", None, None, "hamming", BITS // 8, coded)


def _undivided(splits: dict[str, Clinc150], hashers: list[tuple[_Setting, Hasher]]) -> Iterator[Method]:
    """Outputs before rounding, then codes, of every hasher."""
    outputs = [{name: hasher.transform(split.embeddings) for name, split in splits.items()} for _, hasher in hashers]
    for (setting, _), items in zip(hashers, outputs, strict=True):
        yield Method(f"fasthash, {BITS} floats", setting.learned_from, setting.kl, "l1", 4 * BITS, items)
    for (setting, _), items in zip(hashers, outputs, strict=True):
        codes = {name: pack_bits(rows) for name, rows in items.items()}
        yield Method(f"fasthash, {BITS} bits", setting.learned_from, setting.kl, "hamming", BITS // 8, codes)


def _default(splits: dict[str, Clinc150], hasher: Hasher) -> Method:
    """Codes of a class part and an item part, by their weighted distance."""
    coded = {name: hasher.encode(split.embeddings) for name, split in splits.items()}
    name = " + ".join(str(bits) for bits, _ in hasher.bit_weights_ or [])
    return Method(f"fasthash, {name} bits", "labels", True, "hamming", BITS // 8, coded, hasher.bit_weights_)


# Measuring


def _measure_all(methods: list[Method], splits: dict[str, Clinc150]) -> dict[str, list[dict[str, Any]]]:
    """The rows of both tables, by the name of the database's split."""
    similarity = clinc150_hierarchy().similarity_matrix(range(len(clinc150_names().intents)))
    tables: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    with tqdm(total=2 * len(methods), desc="measure", unit="row", disable=None) as bar:
        for database, rows in tables.items():
            for method in methods:
                rows.append(_measure(method, splits, database, similarity))
                bar.update()
    return tables


def _measure(method: Method, splits: dict[str, Clinc150], database: str, similarity: Array) -> dict[str, Any]:
    query, items = splits["test"], splits[database]
    found = evaluate(
        method.items["test"],
        method.items[database],
        query.intents,
        items.intents,
        class_similarity=similarity,
        k=RESULTS,
        at=min(RANKS, len(items.texts)),
        metric=None if method.metric == "hamming" else method.metric,
        query_input=query.embeddings,
        database_input=items.embeddings,
        bit_weights=method.bit_weights,
    )
    rounded = {name: None if math.isnan(value) else round(value, 4) for name, value in found.items()}
    real = method.item_bytes is None or method.metric != "hamming"
    return {
        "method": method.name,
        "learned_from": method.learned_from,
        "kl": method.kl,
        "mAP": rounded["mAP"],
        "mAHP": next(value for name, value in rounded.items() if name.startswith("mAHP@")),
        "P@10": rounded["P@10"],
        "overlap@10": rounded["overlap@10"],
        "codes": None if real else int(found["codes"]),
        "bytes": method.item_bytes,
        "queries_per_second": None if method.item_bytes is None else _queries_per_second(method, database),
    }


def _queries_per_second(method: Method, database: str) -> float:
    """Queries answered in a second, searched all at once for the 10 nearest: the best of at least 5 runs."""
    q, d = torch.from_numpy(method.items["test"]), torch.from_numpy(method.items[database])
    metric = method.metric
    q = q if metric == "hamming" else q[:TIMED_QUERIES]
    searches: dict[str, Callable[[], Any]] = {
        "hamming": lambda: hamming_topk(q, d, RESULTS, bit_weights=method.bit_weights),
        "l1": lambda: nearest(q, d, p=1, k=RESULTS),
        "cosine": lambda: (q @ d.T).topk(RESULTS),
    }
    search = searches[metric]
    search()  # what happens only once is not the speed
    times: list[float] = []
    while len(times) < 5 or sum(times) < TIMING:
        start = time.perf_counter()
        search()
        times.append(time.perf_counter() - start)
    return float(f"{len(q) / min(times):.3g}")


# Writing


def _write_items(folder: Path, splits: dict[str, Clinc150], method: Method) -> None:
    """Codes, index, and what the other commands can use with them: embeddings, queries, texts, labels, hierarchy."""
    names = clinc150_names()
    for prefix, split in (("", "train"), ("query_", "test")):
        with replaced_file(folder / f"{prefix}features.npy") as file:
            np.save(file, splits[split].embeddings)
        with replaced_file(folder / ("queries.npy" if prefix else "codes.npy")) as file:
            np.save(file, method.items[split])
    index = HammingIndex(BITS, bit_weights=method.bit_weights)
    index.add(method.items["train"])
    index.save(folder / "index", overwrite=True)
    _write_text(folder / "texts.txt", "".join(f"{text}\n" for text in splits["train"].texts))
    for name, split in (("database_labels.txt", "train"), ("query_labels.txt", "test")):
        _write_text(folder / name, "".join(f"{names.intents[intent]}\n" for intent in splits[split].intents))
    edges = (f"{names.domains[domain]}\t{names.intents[i]}\n" for i, domain in enumerate(names.domain_of))
    _write_text(folder / "hierarchy.txt", "parent\tchild\n" + "".join(edges))


def _examples(folder: Path, splits: dict[str, Clinc150], seed: int) -> list[dict[str, Any]]:
    """A few queries of different domains, drawn by the seed, and their nearest texts by the index in the folder."""
    names, query, database = clinc150_names(), splits["test"], splits["train"]
    index = HammingIndex.open(folder / "index")
    rng = np.random.default_rng(seed)
    domains = rng.choice(len(names.domains), EXAMPLES, replace=False)
    rows = np.array([rng.choice(np.flatnonzero(query.domains == domain)) for domain in domains])
    found = index.search(np.load(folder / "queries.npy")[rows], 3)
    return [
        {
            "text": query.texts[row],
            "intent": names.intents[query.intents[row]],
            "results": [
                {"text": database.texts[id], "intent": names.intents[database.intents[id]], "distance": distance}
                for id, distance in zip(ids.tolist(), distances.tolist(), strict=True)
            ],
        }
        for row, ids, distances in zip(rows, found.ids, found.distances, strict=True)
    ]


def _plots(methods: list[Method], hasher: Hasher, splits: dict[str, Clinc150]) -> Plots:
    """The data of the report's plots, from the test split. Outputs are those of undivided codes, if there are any."""
    outputs = {
        (method.learned_from or "", bool(method.kl)): method.items["test"]
        for method in methods
        if method.metric == "l1"
    }
    return Plots(
        outputs=outputs or {("labels", True): hasher.transform(splits["test"].embeddings)},
        codes={
            _short(method): method.items["test"]
            for method in methods
            if method.metric == "hamming" and method.item_bytes == BITS // 8 and method.kl is not False
        },
        ranked=[
            Ranked(_short(method), method.items["test"][::4], method.items["train"], method.metric, method.bit_weights)
            for method in methods
            if method.item_bytes is not None and method.metric != "l1" and method.kl is not False
        ],
        query_labels=splits["test"].intents[::4],
        database_labels=splits["train"].intents,
    )


def _short(method: Method) -> str:
    return method.name if method.learned_from is None else f"{method.name}, from {method.learned_from}"


def _write_text(path: Path, text: str) -> None:
    with replaced_file(path) as file:
        file.write(text.encode())


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it: no reason to stop
        print(text, file=sys.stderr, flush=True)
