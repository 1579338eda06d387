"""What can be typed for `fasthash report`. Imports nothing heavy, as parser.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_report(
    commands: Any,
    command: Callable[..., argparse.ArgumentParser],
    hierarchy: Callable[[argparse.ArgumentParser], None],
    bit_weights: Callable[[argparse.ArgumentParser, str], None],
) -> None:
    """`fasthash report`. command, hierarchy, bit_weights: see the functions of these names in parser.py."""
    report = command(
        commands,
        "report",
        "report:report",
        "write one HTML page that shows what codes find",
        """The page shows queries with their nearest pictures or texts, and marks right and wrong results. It has a
        slider for the radius and a filter by class. It shows scores, and plots of precision, distances, bits,
        outputs and classes. The page is one file and loads nothing. INDEX is an index folder or a file of codes.
        --queries holds codes or outputs in [0, 1], or with --model embeddings or a folder of pictures, or is
        another index folder. Without --queries, the queries are codes of the index. INDEX may also be a run folder:
        its model then encodes --queries or the validation data of the run, and they are both queries and database.
        Labels come from files, or, if keys have the form class/file, from the keys.""",
        "fasthash report index --queries more --images photos --model run/model.safetensors --out report.html",
    )
    report.add_argument("index", metavar="INDEX_OR_RUN")
    report.add_argument("--queries", metavar="FILE|FOLDER")
    report.add_argument("--out", default="report.html", metavar="FILE", help="the page (default: %(default)s)")
    shown = report.add_mutually_exclusive_group()
    shown.add_argument(
        "--images", metavar="FOLDER", help="folder of the pictures; their file names are the keys of the index"
    )
    shown.add_argument("--texts", metavar="FILE", help="texts of the index, one in each line, in ascending order of id")
    report.add_argument(
        "--query-images", metavar="FOLDER", help="pictures of the queries (default: --queries, if it is a folder)"
    )
    report.add_argument("--query-texts", metavar="FILE", help="texts of the queries, one in each line")
    report.add_argument("--query-labels", metavar="FILE", help="classes of the queries, as for fasthash eval")
    report.add_argument(
        "--database-labels", metavar="FILE", help="classes of the index, in ascending order of id, as for fasthash eval"
    )
    report.add_argument("--label-column", metavar="NAME", help="column of the labels in both files of labels")
    hierarchy(report)
    report.add_argument("--model", metavar="MODEL", help="encode the queries with this model")
    report.add_argument("--backbone", metavar="NAME", help="backbone of a model of pictures, as for encode")
    report.add_argument("--column", metavar="NAME", help="column of the queries in a table")
    report.add_argument("--bits", type=int, help="bits of a code of a file (default: 8 for each byte)")
    bit_weights(report, "those of the index folder, or of --model for a file of codes")
    report.add_argument("-k", type=int, default=10, help="number of results of a query (default: %(default)s)")
    report.add_argument(
        "--limit", type=int, default=50, metavar="N", help="number of queries that are shown (default: %(default)s)"
    )
    report.add_argument("--title", default="What the codes find", help="title of the page (default: %(default)s)")
