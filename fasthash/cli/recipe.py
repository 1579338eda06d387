"""The command recipe."""

from __future__ import annotations

import argparse
import sys

from fasthash.cli.files import to_json
from fasthash.cli.learn import choose_device
from fasthash.cli.output import complain, report
from fasthash.cli.parser import UserError
from fasthash.recipes import run_recipe, text_table

_NAMED = 10  # skipped pictures whose names are printed


def recipe(arguments: argparse.Namespace) -> None:
    try:
        results = run_recipe(
            arguments.name,
            arguments.data,
            arguments.out,
            small=arguments.small,
            bits=arguments.bits,
            epochs=arguments.epochs,
            seed=arguments.seed,
            wordnet=arguments.wordnet,
            embeddings=arguments.embeddings,
            backbone=arguments.backbone,
            backbone_weights=arguments.backbone_weights,
            batch_size=arguments.batch_size,
            validation=arguments.validation,
            workers=arguments.workers,
            device=choose_device(arguments.device),
            progress=None if sys.stderr.isatty() else "lines",
        )
    except (FileNotFoundError, ImportError) as error:
        raise UserError(str(error)) from None
    for line in results["skipped"][:_NAMED]:
        complain(f"fasthash: warning: skipped {line}")
    if len(results["skipped"]) > _NAMED:
        complain(f"fasthash: warning: skipped {len(results['skipped']) - _NAMED:,} more (--json names them)")
    written = f"{results['seconds']:.0f} s. In {arguments.out}: results.json, table.md, a run of each setting"
    text = f"{text_table(results)}\n\n{written}"
    report(to_json(results) if arguments.json else text)
