"""A small transformer trained by MultipleNegativesRankingLoss, with BinaryQuantizationLoss around it and without.

    python benchmarks/bench_rounded_training.py --model FOLDER --data ../shared/data
    python benchmarks/bench_rounded_training.py --model FOLDER --data ../shared/data --split val --seeds 1

FOLDER is a model of sentence-transformers; its first two layers are trained, its word embeddings stay. Both losses get
the same batches, steps, optimiser and learning rate. Two tasks:

- clinc150: pairs of texts of one intent; queries are texts of the split, the corpus is all training texts, relevant are
  those of the same intent;
- pubmedqa: questions and their abstracts (first 64 tokens); queries are the questions of the split, the corpus is all
  1,000 abstracts, relevant is the question's own. Of the 500 training questions 150 are the split "val".

"ITQ first": before the training, ITQ of the untrained model's embeddings becomes its last module
(`linear_codes_module`), and is trained with it.

nDCG@10, exact over ties: of the floats by cosine; by Hamming distance of the rounded embeddings (sign), of signs about
the corpus mean ("centred") and of ITQ fitted on the corpus. Everything was chosen on "val" with seed 0. Does only the
runs that are missing in benchmarks/results/rounded-training.json, writes it, and from it the table of
docs/sentence-transformers.md (--tables: only this).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from kit import machine, write_json
from torch import Tensor
from torch.nn.functional import normalize

import fasthash
from fasthash import datasets, metrics

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "rounded-training.json"
PAGE = ROOT / "docs" / "sentence-transformers.md"
START, END = "<!-- measured -->\n", "<!-- end of measured -->\n"
LAYERS, BATCH, RATE = 2, 48, 2e-4
KINDS = ("floats", "rounded", "centred", "itq")
PLAIN, AROUND = "MultipleNegativesRankingLoss", "BinaryQuantizationLoss around it"
ROTATED = ", ITQ first"  # trained behind a rotation, which is trained too
METHODS = (PLAIN, AROUND, PLAIN + ROTATED, AROUND + ROTATED)
ROTATION_TEXTS = 3000  # of the corpus, by which it is fitted


class Task(NamedTuple):
    steps: int
    tokens: int  # of a text
    batches: Callable[[np.random.Generator], Iterator[tuple[list[str], list[str]]]]
    queries: list[str]
    corpus: list[str]
    qrels: dict[int, dict[int, int]]


def clinc150(data: Path, split: str) -> Task:
    """Pairs of one intent, at most one pair of an intent in a batch."""
    train, asked = datasets.clinc150("train"), datasets.clinc150(split)
    rows = [np.flatnonzero(train.intents == intent) for intent in range(150)]

    def batches(rng: np.random.Generator) -> Iterator[tuple[list[str], list[str]]]:
        while True:
            pairs = [rng.choice(rows[intent], 2, replace=False) for intent in rng.choice(150, BATCH, replace=False)]
            yield [train.texts[a] for a, _ in pairs], [train.texts[b] for _, b in pairs]

    relevant = [dict.fromkeys(map(int, own), 1) for own in rows]
    qrels = {number: relevant[intent] for number, intent in enumerate(asked.intents)}
    return Task(100, 24, batches, asked.texts, train.texts, qrels)


def pubmedqa(data: Path, split: str) -> Task:
    lines = (data / "pubmedqa" / "data.jsonl").read_text(encoding="utf-8").splitlines()
    every = [json.loads(line) for line in lines]
    train = [number for number, row in enumerate(every) if row["split"] == "train"]
    order = np.random.default_rng(0).permutation(train)
    learned = order[150:] if split == "val" else order
    asked = order[:150] if split == "val" else [n for n, row in enumerate(every) if row["split"] == "test"]

    def batches(rng: np.random.Generator) -> Iterator[tuple[list[str], list[str]]]:
        while True:
            mixed = rng.permutation(learned)
            for start in range(0, len(mixed) - BATCH + 1, BATCH):
                own = mixed[start : start + BATCH]
                yield [every[n]["question"] for n in own], [every[n]["context"] for n in own]

    qrels = {number: {int(row): 1} for number, row in enumerate(asked)}
    questions = [every[row]["question"] for row in asked]
    return Task(50, 64, batches, questions, [row["context"] for row in every], qrels)


TASKS = {"clinc150": clinc150, "pubmedqa": pubmedqa}


def run(task: Task, model_folder: Path, method: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """One training and its scores."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from fasthash.integration.sentence_transformers import BinaryQuantizationLoss, linear_codes_module

    torch.manual_seed(seed)
    model = SentenceTransformer(str(model_folder), device="cpu")
    network = model[0].auto_model
    network.encoder.layer = network.encoder.layer[:LAYERS]
    network.embeddings.requires_grad_(False)
    model.max_seq_length = task.tokens
    if method.endswith(ROTATED):
        embeddings = model.encode(task.corpus[:ROTATION_TEXTS], convert_to_tensor=True)
        model.append(linear_codes_module(fasthash.baselines.itq(embeddings, embeddings.shape[1], seed=0)))
    loss: torch.nn.Module = MultipleNegativesRankingLoss(model)
    if method.startswith(AROUND):
        loss = BinaryQuantizationLoss(model, loss, **options)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (0.1 * task.steps)) * (1 - step / task.steps)
    )
    start = time.process_time()
    batches = task.batches(np.random.default_rng(seed))
    model.train()
    for _ in range(task.steps):
        optimizer.zero_grad()
        loss([model.preprocess(column) for column in next(batches)], None).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - start
    model.eval()
    queries, corpus = (model.encode(texts, convert_to_tensor=True) for texts in (task.queries, task.corpus))
    given: Any = (range(len(queries)), range(len(corpus)), task.qrels)
    floats = metrics.exhaustive_retrieval(normalize(queries), normalize(corpus), *given, k=10, metric="l2")
    found = {"floats": floats["nDCG@10"]}
    for kind, (asked, stored) in codes_of(queries, corpus).items():
        found[kind] = metrics.exhaustive_retrieval(asked, stored, *given, k=10)["nDCG@10"]
    found["seconds"] = seconds
    return {"method": method, "seed": seed, "options": options, **found}


def codes_of(queries: Tensor, corpus: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Packed codes of queries and corpus, of as many bits as numbers, by each way of rounding."""

    def signs(shift: Tensor | float) -> tuple[Tensor, Tensor]:
        return fasthash.pack_bits(queries - shift, threshold=0.0), fasthash.pack_bits(corpus - shift, threshold=0.0)

    itq = fasthash.baselines.itq(corpus, corpus.shape[1], seed=0)
    return {
        "rounded": signs(0.0),
        "centred": signs(corpus.mean(0)),
        "itq": (itq.encode(queries), itq.encode(corpus)),
    }


def tables(result: dict[str, Any]) -> str:
    """nDCG@10, mean and spread over seeds."""
    lines = ["| task | loss | floats | rounded | centred | ITQ | rounded, each seed |", "|---|---|---|---|---|---|---|"]
    for name in TASKS:
        for method in METHODS:
            rows = [row for row in result["rows"] if (row["task"], row["method"]) == (name, method)]
            means = [f"{statistics.mean(row[kind] for row in rows):.3f}" for kind in KINDS]
            each = ", ".join(f"{row['rounded']:.3f}" for row in rows)
            lines.append(f"| {name} | {method} | {means[0]} | **{means[1]}** | {means[2]} | {means[3]} | {each} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a model of sentence-transformers")
    parser.add_argument("--data", type=Path, help="folder that has pubmedqa/")
    parser.add_argument("--task", choices=list(TASKS), nargs="*", default=list(TASKS))
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--options", type=json.loads, default={}, help="of BinaryQuantizationLoss, as JSON (val only)")
    parser.add_argument("--tables", action="store_true", help="only write the table again")
    own = parser.parse_args()
    if not own.tables:
        torch.set_num_threads(1)
        result: dict[str, Any] = {"machine": machine(), "split": own.split, "rows": []}
        if own.split == "test" and RESULTS.exists():
            result["rows"] = json.loads(RESULTS.read_text())["rows"]
        for name in own.task:
            task = TASKS[name](own.data, own.split)
            for seed in range(own.seeds):
                for method in METHODS[1::2] if own.options else METHODS:
                    if any((row["task"], row["method"], row["seed"]) == (name, method, seed) for row in result["rows"]):
                        continue
                    row = {"task": name, **run(task, own.model, method, seed, own.options)}
                    result["rows"].append(row)
                    print(json.dumps(row), flush=True)
                    if own.split == "test":
                        write_json(RESULTS.stem, result)
        if own.split == "val":
            return
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    PAGE.write_text(before + START + tables(json.loads(RESULTS.read_text())) + END + rest.split(END)[1], "utf-8")


if __name__ == "__main__":
    main()
