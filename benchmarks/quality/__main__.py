"""python -m benchmarks.quality: see the package's docstring."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.quality import few_shot, graded_task
from benchmarks.quality.cross_modal_task import task_movielens, task_pubmedqa
from benchmarks.quality.graph_task import task_k, task_k_clinc150
from benchmarks.quality.image_tasks import task_b, task_c, task_unseen_images
from benchmarks.quality.methods import METHODS
from benchmarks.quality.multilabel_task import task_f
from benchmarks.quality.open_tasks import task_open, task_open_images
from benchmarks.quality.recommendation import task_h
from benchmarks.quality.run import floors, run
from benchmarks.quality.tables import write_tables
from benchmarks.quality.tasks import TASKS as EMBEDDING_TASKS
from benchmarks.quality.text_task import task_g
from benchmarks.quality.view_task import task_kmnist, task_mnist

TASKS = EMBEDDING_TASKS | {
    "b": task_b,
    "b-reduced": partial(task_b, reduced=True),
    "c": task_c,
    "c-reduced": partial(task_c, reduced=True),
    "e-unseen-images": task_unseen_images,
    "e-unseen-images-reduced": partial(task_unseen_images, reduced=True),
    "e-open": task_open,
    "e-half": partial(task_open, half=True),
    "e-open-images": task_open_images,
    "e-half-images": partial(task_open_images, half=True),
    "e-open-images-reduced": partial(task_open_images, reduced=True),
    "e-half-images-reduced": partial(task_open_images, half=True, reduced=True),
    "f": task_f,
    "g": task_g,
    "h": task_h,
    "i-movielens": task_movielens,
    "i-pubmedqa": task_pubmedqa,
    **few_shot.TASKS,
    "k": task_k,
    "k-clinc150": task_k_clinc150,
    **graded_task.TASKS,
    "m-kmnist": task_kmnist,
    "m-mnist": task_mnist,
}
TOGETHER = {
    "i": ("i-pubmedqa", "i-movielens"),
    "j": tuple(few_shot.TASKS),
    "l": tuple(graded_task.TASKS),
    "m": ("m-mnist", "m-kmnist"),
}  # a name for several tasks


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description="Quality of codes on real data.",
    )
    parser.add_argument("--task", nargs="+", choices=[*TASKS, *TOGETHER], default=[], help="which tasks to run")
    parser.add_argument(
        "--method",
        nargs="+",
        choices=[m.name for m in METHODS],
        help="which methods (all)",
    )
    parser.add_argument("--bits", nargs="+", type=int, help="widths of codes (all of the task)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="the lowest seed (0)")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data"),
        help="folder of the data sets (./data)",
    )
    parser.add_argument("--threads", type=int, default=2, help="of torch (2)")
    parser.add_argument(
        "--tables",
        action="store_true",
        help="write docs/results.md from the results that are there",
    )
    parser.add_argument(
        "--plots",
        action="store_true",
        help="draw docs/figures from the results that are there",
    )
    options = parser.parse_args(arguments)
    if not (options.task or options.tables or options.plots):
        parser.error("name a --task, or --tables, or --plots")
    torch.set_num_threads(options.threads)
    methods = [m for m in METHODS if options.method is None or m.name in options.method]
    for name in (each for given in options.task for each in TOGETHER.get(given, (given,))):
        try:
            task = TASKS[name](options.data)
        except FileNotFoundError as error:
            print(f"task {name}: {error}", file=sys.stderr)
            return 2
        floors(task)
        seeds = list(range(options.first_seed, options.first_seed + options.seeds))
        run(task, methods, options.bits or list(task.widths), seeds)
    if options.tables:
        print(write_tables())
    if options.plots:
        from benchmarks.quality.plots import write_plots

        print(*write_plots(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
