"""What can be typed for `fasthash demo`. Imports nothing heavy, as parser.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_demo(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """`fasthash demo`. command: makes one, see `_command` of parser.py."""
    demo = command(
        commands,
        "demo",
        "demo:demo",
        "train, index and search codes of the texts inside the package",
        """Trains 64-bit codes of 15,000 short texts (clinc150, 150 intents in 10 domains) from class labels.
        Compares these codes with the real-valued embeddings and with other codes. The database is once the
        training texts, once texts outside the training set. Shows a few queries. Writes model, codes, index and
        a one-page report (report.html) to a folder. Takes about a minute on two cores. The plots of the
        report need matplotlib: pip install 'fasthash[demo]'.""",
        "fasthash demo --out fasthash-demo",
    )
    demo.add_argument("--out", default="fasthash-demo", metavar="FOLDER", help="where to write (default: %(default)s)")
    demo.add_argument(
        "--fraction",
        type=float,
        default=1.0,
        metavar="F",
        help="use this part of the texts of each intent, 0.1 to 1 (default: %(default)s): faster, but worse codes",
    )
    demo.add_argument(
        "--epochs", type=int, metavar="N", help="passes over the training texts (default: that of fasthash train)"
    )
    demo.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    kept = (
        "also train undivided codes, with and without the KL term, from labels and from similarities; "
        "takes three times as long"
    )
    demo.add_argument("--ablations", action="store_true", help=kept)
