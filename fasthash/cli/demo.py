"""The command demo."""

from __future__ import annotations

import argparse

from fasthash.cli.files import print_json
from fasthash.demo import describe, run_demo


def demo(arguments: argparse.Namespace) -> None:
    results = run_demo(arguments.out, fraction=arguments.fraction, seed=arguments.seed, epochs=arguments.epochs)
    if arguments.json:
        print_json(results)
    else:
        print(describe(results, arguments.out))
