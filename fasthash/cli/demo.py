"""The command demo."""

from __future__ import annotations

import argparse

from fasthash.cli.files import to_json
from fasthash.cli.output import report
from fasthash.demo import describe, run_demo


def demo(arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name in ("fraction", "seed", "epochs", "ablations")}
    results = run_demo(arguments.out, **given)
    report(to_json(results) if arguments.json else describe(results, arguments.out))
