"""What can be typed: commands, options and their help. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NoReturn

from fasthash.cli.module_options import add_export, add_images, add_own_module, add_recipe
from fasthash.cli.report_options import add_report

_LABELS = "integers or text in .npy, one label a line, or a column of CSV, Parquet or Arrow"
_IDS = "ids, integers >= 0, in .npy, one a line, or a column of CSV, Parquet or Arrow"
_FORMATS = "npy, npz, parquet, arrow, feather, text, csv, tsv, hex, decimal, faiss, u8bin or raw (default: by content)"


class UserError(Exception):
    """Input that cannot be used; its text is the line that the user sees."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        command = self.prog.partition(" ")[2]
        raise UserError(f"{command + ': ' if command else ''}{message} (see {self.prog} --help)")


class _Help(argparse.HelpFormatter):
    """Keeps the lines of a description or epilog apart, and wraps each by itself; an indented one is a command."""

    def add_argument(self, action: argparse.Action) -> None:
        """Makes room for the indent of commands, which argparse forgets: the longest one keeps its help beside it."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(_wrapped(line, width, indent) for line in text.splitlines())


def _wrapped(line: str, width: int, indent: str) -> str:
    """One line of help within the width; a command goes on after a backslash, so that it can be copied."""
    command = line.startswith("  ")
    parts = textwrap.wrap(
        line.strip(),
        width - 2 * command,
        initial_indent=indent + "  " * command,
        subsequent_indent=indent + "    " * command,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return (" \\\n" if command else "\n").join(parts)


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            found = version("fasthash")
        except PackageNotFoundError:  # run from its sources
            from fasthash import __version__ as found
        from fasthash.cli.output import show

        show(f"fasthash {found}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; `run` of its result is the "module:function" that does the work."""
    parser = _Parser(
        prog="fasthash",
        description="Learn binary hash codes that keep the meaning of embeddings, and search them exactly.",
        epilog="start with:\n  fasthash demo\nhelp on a command:\n  fasthash COMMAND --help",
        formatter_class=_Help,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo(commands)
    _train(commands)
    _encode(commands)
    add_export(commands, _command)
    _index(commands)
    _search(commands)
    _duplicates(commands)
    _eval(commands)
    add_report(commands, _command, _hierarchy, _bit_weights)
    add_recipe(commands, _command)
    _bench(commands)
    _info(commands)
    return parser


def _command(commands: Any, name: str, run: str, summary: str, about: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=" ".join(f"{summary[0].upper()}{summary[1:]}. {about}".split()),
        epilog=f"example:\n  {example}",
        formatter_class=_Help,
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    command.set_defaults(run=run)
    return command


def _hierarchy(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--hierarchy",
        metavar="FILE",
        help='edges between labels, two names a line; a header "parent child" or "child parent" says which is which '
        "(also hypernym hyponym, superclass subclass, ...)",
    )
    command.add_argument(
        "--hierarchy-order",
        choices=("parent child", "child parent"),
        metavar="ORDER",
        help='order of the names if there is no header: "parent child" (the default) or "child parent"',
    )


def _demo(commands: Any) -> None:
    demo = _command(
        commands,
        "demo",
        "demo:demo",
        "train, index and search codes of the texts inside the package",
        """Trains 64-bit codes of 15,000 short texts (clinc150, 150 intents in 10 domains) from class labels;
        compares them with the real-valued embeddings and with other codes, for the training texts as
        database and for texts that nothing was trained on; shows a few queries; and writes model, codes,
        index and a one-page report (report.html) to a folder. Some 90 seconds on two cores. The plots of
        the report need matplotlib: pip install 'fasthash[demo]'.""",
        "fasthash demo --out fasthash-demo",
    )
    demo.add_argument("--out", default="fasthash-demo", metavar="FOLDER", help="where to write (default: %(default)s)")
    demo.add_argument(
        "--fraction",
        type=float,
        default=1.0,
        metavar="F",
        help="use this part of the texts of each intent, 0.1 to 1 (default: %(default)s): quicker, worse codes",
    )
    demo.add_argument("--epochs", type=int, metavar="N", help="passes over the texts in training (default: as train)")
    demo.add_argument("--seed", type=int, default=0, help="seed of all that is random (default: %(default)s)")
    kept = "also codes without the KL term, and from similarities alone: twice the time"
    demo.add_argument("--ablations", action="store_true", help=kept)


def _column(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--column",
        metavar="NAME",
        help=f"column of the {what} in a table; several columns of numbers as a,b or 'x*' (default: the one that fits)",
    )


def _code_columns(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", metavar="FORMAT", help=f"of CODES: {_FORMATS}")
    command.add_argument("--column", metavar="NAME", help="column of the codes (default: the only one that fits)")
    command.add_argument("--id-column", metavar="NAME", help='column of the ids (default: "id" or "ids")')


def _keys(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--keys",
        metavar="COLUMN|FILE",
        help=f"{what}: a column of CODES, or a file with a key a line, or a column key of CSV, Parquet or Arrow",
    )


def _code_scale(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--code-scale", metavar="FILE.npy", help=f"{what}: float16 [N], as encode --scales writes it")


def _bit_weights(command: argparse.ArgumentParser, more: str) -> None:
    command.add_argument(
        "--bit-weights",
        metavar="BITSxW,...",
        help="what a differing bit counts, by groups of bits from the first bit on: 40x3,24x1 is 3 for each of the "
        f"first 40 bits and 1 for each of the other 24 (weights 1 to 255; default: {more})",
    )


def _train(commands: Any) -> None:
    train = _command(
        commands,
        "train",
        "learn:train",
        "learn an encoder from embeddings to binary codes",
        """FEATURES holds one embedding a row (float32, float16 or float64, [N, F]): .npy, .npz, CSV, Parquet or Arrow.
        What the codes should keep comes from --labels (classes, better with a --hierarchy over them), from
        --targets (other embeddings of the same items, or multi-hot labels, one a row), or from the features'
        own distances if neither is given. FEATURES may be a folder of pictures with a folder for each class, or with
        --backbone a table of path and label. Features in .npy may be larger than memory. Several processes or GPUs
        train together under torchrun: torchrun --nproc-per-node 2 -m fasthash train ...""",
        "fasthash train features.npy --labels labels.txt --hierarchy edges.txt --out model.safetensors",
    )
    train.add_argument("features", metavar="FEATURES")
    _column(train, "features")
    train.add_argument("--out", metavar="MODEL", help="the model to write (.safetensors); needed without --run-dir")
    train.add_argument(
        "--run-dir",
        metavar="FOLDER",
        help="keep configuration, metrics.csv, a checkpoint of each epoch and the model there; the same command goes "
        "on where an earlier one was interrupted",
    )
    what = train.add_mutually_exclusive_group()
    what.add_argument("--labels", metavar="FILE", help=f"classes: {_LABELS}; -1: no label")
    what.add_argument("--targets", metavar="FILE", help="target embeddings (float) or multi-hot labels (integers)")
    train.add_argument("--label-column", metavar="NAME", help="column of the labels in --labels and --val-labels")
    train.add_argument("--target-column", metavar="NAME", help="columns of the targets, as --column")
    _hierarchy(train)
    train.add_argument("--bits", type=int, default=64, help="bits of a code (default: %(default)s)")
    train.add_argument(
        "--item-bits",
        type=int,
        metavar="N",
        help="bits of the order inside a class, at the end of a code (default: 20 of 64 for labels; 0: undivided)",
    )
    train.add_argument(
        "--supervision",
        choices=("full", "similarity"),
        default="full",
        help="similarity: learn from distances between labels only, never from the classes (default: %(default)s)",
    )
    train.add_argument("--val-features", metavar="FILE", help="validation part: the best epoch on it is kept")
    train.add_argument("--val-labels", metavar="FILE", help="its labels, or targets, as for the training part")
    train.add_argument("--epochs", type=int, help="passes over the data")
    train.add_argument("--batch-size", type=int, help="rows of a step, of all processes together")
    train.add_argument("--lr", type=float, help="highest learning rate")
    train.add_argument("--ema", type=float, metavar="D", help="use the running average of the weights, of this decay")
    train.add_argument(
        "--patience", type=int, metavar="N", help="stop when N epochs in a row were not better on the validation part"
    )
    train.add_argument("--precision", choices=("float32", "bfloat16", "float16"), help="of the network's arithmetic")
    train.add_argument("--compile", action="store_true", default=None, help="compile the network with torch.compile")
    train.add_argument(
        "--workers", type=int, metavar="N", help="processes that read ahead, for features on a slow disk"
    )
    train.add_argument("--kl", type=float, help="weight of the KL term, 0 for none")
    train.add_argument("--preserve", type=float, help="weight of keeping the features' own neighbours")
    train.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    train.add_argument("--device", help="torch device (default: cuda if there is one, else cpu)")
    add_images(train)


def _encode(commands: Any) -> None:
    encode = _command(
        commands,
        "encode",
        "learn:encode",
        "turn embeddings into binary codes with a trained model",
        """Writes packed codes, uint8 [N, ceil(bits / 8)] in the bit order of numpy.packbits, row i for row i, in the
        format of the suffix: .npy, .u8bin, .faiss, .parquet, .arrow or .feather. The last four keep ids: those of the
        column "id" or "ids" of the features' table, else the row numbers. Features in .npy may be larger than
        memory. The model is a file of Hasher.save, of LinearCodes.save (ITQ, LSH) or of GridCodes.save (RaBitQ).
        --scales writes a number for each code, float16 [N], which `index build --code-scale` takes. FEATURES may be a
        folder of pictures, for a model of pictures: file names are then keys, --out is an index folder (a name without
        a suffix), .parquet, .arrow or .feather, and the same command continues after an interruption.""",
        "fasthash encode model.safetensors features.npy --out codes.npy",
    )
    encode.add_argument("model", metavar="MODEL")
    encode.add_argument("features", metavar="FEATURES")
    _column(encode, "features")
    encode.add_argument(
        "--id-column", metavar="NAME", help='column of the ids of the features (default: "id" or "ids")'
    )
    encode.add_argument(
        "--out", required=True, metavar="CODES", help="the file to write; its suffix decides the format"
    )
    encode.add_argument(
        "--real",
        action="store_true",
        help="write the outputs before rounding, float32 [N, bits] in [0, 1], as .npy, .parquet, .arrow or .feather",
    )
    encode.add_argument("--scales", metavar="FILE.npy", help="write the scale of each code there too, float16 [N]")
    encode.add_argument(
        "--metric",
        choices=("dot", "cosine", "l2"),
        help="what the scales are for: dot (default), cosine (a Hasher) or l2 (GridCodes)",
    )
    add_own_module(encode)
    encode.add_argument("--device", help="torch device (default: cuda if there is one, else cpu)")


def _index(commands: Any) -> None:
    index = commands.add_parser(
        "index",
        help="build, change and check an index folder",
        description="An index is a folder of codes with ids. Searches map it into memory; every change is durable.",
        epilog="help on one of them:\n  fasthash index build --help",
        formatter_class=_Help,
    )
    actions = index.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = _command(
        actions,
        "build",
        "retrieve:index_build",
        "make an index folder of codes",
        """CODES is recognised by its content: .npy or .npz (packed uint8 as `fasthash encode` writes them, 64-bit
        integers, booleans), hexadecimal or decimal hashes one a line, CSV or TSV with a header, Parquet or Arrow
        (need pyarrow), a faiss IndexBinaryFlat, .u8bin. Packed codes without a header are read with --format
        raw --bits B. It may be larger than memory.""",
        "fasthash index build codes.npy --out index",
    )
    build.add_argument("codes", metavar="CODES")
    build.add_argument("--out", required=True, metavar="FOLDER")
    build.add_argument("--bits", type=int, help="bits of a code (default: 8 for each byte)")
    _code_columns(build)
    build.add_argument("--ids", metavar="IDS", help=f"{_IDS} (default: the row numbers)")
    _keys(build, "texts that name the codes")
    _bit_weights(build, "those of --model, else 1 for all")
    _code_scale(build, "a number for each code, for search --rescore all")
    build.add_argument("--model", metavar="MODEL", help="the model that made the codes: says their bits and weights")
    build.add_argument("--overwrite", action="store_true", help="replace the index that the folder holds")
    build.add_argument("--mih", action="store_true", help="make tables for sub-linear search too, see index mih")
    add = _command(
        actions,
        "add",
        "retrieve:index_add",
        "add codes to an index folder",
        "The codes get the given ids, or go on from the highest id ever used + 1.",
        "fasthash index add index more.npy",
    )
    add.add_argument("index", metavar="FOLDER")
    add.add_argument("codes", metavar="CODES", help="as for index build")
    _code_columns(add)
    add.add_argument("--ids", metavar="IDS", help=f"{_IDS} that the index does not hold")
    _keys(add, "for an index with keys, texts that it does not hold")
    _code_scale(add, "for an index with code_scale, a number for each code")
    add.add_argument(
        "--replace", action="store_true", help="codes of ids or keys that the index holds replace the old ones"
    )
    remove = _command(
        actions,
        "remove",
        "retrieve:index_remove",
        "remove codes from an index folder by id or key",
        "Ids and keys that the index does not hold are ignored; the number of removed codes is printed.",
        "fasthash index remove index ids.npy",
    )
    remove.add_argument("index", metavar="FOLDER")
    remove.add_argument("ids", metavar="IDS", nargs="?", help=_IDS)
    remove.add_argument("--keys", metavar="FILE", help="keys instead, one a line, or of CSV, Parquet or Arrow")
    remove.add_argument("--id-column", metavar="NAME", help='column of the ids (default: "id" or "ids")')
    mih = _command(
        actions,
        "mih",
        "retrieve:index_mih",
        "make the tables by which few-neighbour searches need not scan",
        """Tables of multi-index hashing, in files beside the codes that they are of: 24 bytes for a code of 64 bits, 73
        for one of 128. Results stay the same, and exact. Codes that are added later are scanned until the next
        time; compact makes them anew.""",
        "fasthash index mih index",
    )
    mih.add_argument("index", metavar="FOLDER")
    compact = _command(
        actions,
        "compact",
        "retrieve:index_compact",
        "rewrite an index folder without what was removed",
        "Removed codes give their space back, and searches have the fewest segments to go through.",
        "fasthash index compact index",
    )
    compact.add_argument("index", metavar="FOLDER")
    export = _command(
        actions,
        "export",
        "retrieve:index_export",
        "write the codes of an index folder for other programs",
        """In ascending order of id, in the format of the suffix: .npy, .u8bin, .faiss (for faiss.read_index_binary;
        ids other than 0, 1, 2 ... are kept in an IndexBinaryIDMap), .parquet or .arrow (columns id and code, and key
        if the index has keys; need pyarrow). The others cannot hold keys, and none can hold weights of bits: other
        programs search the plain Hamming distance.""",
        "fasthash index export index --out codes.faiss",
    )
    export.add_argument("index", metavar="FOLDER")
    export.add_argument("--out", required=True, metavar="FILE")
    export.add_argument("--ids", metavar="IDS.npy", help="write the ids there")
    _links_within(export)
    info = _command(
        actions, "info", "retrieve:index_info", "tell what an index folder holds", "", "fasthash index info index"
    )
    info.add_argument("index", metavar="FOLDER")
    _links_within(info)
    verify = _command(
        actions,
        "verify",
        "retrieve:index_verify",
        "read every byte of an index folder and check it",
        "Checks checksums, the order of ids and the padding of codes.",
        "fasthash index verify index",
    )
    verify.add_argument("index", metavar="FOLDER")
    _links_within(verify)


def _links_within(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--links-within",
        metavar="DIR",
        help="files of the index folder may be symbolic links that end inside DIR, as in a download cache "
        "(default: links are refused)",
    )


def _search(commands: Any) -> None:
    search = _command(
        commands,
        "search",
        "retrieve:search",
        "find the nearest codes of queries, exactly",
        """INDEX is an index folder, or a file of codes as for index build. QUERIES holds codes in one of these
        formats, or outputs in [0, 1] (float, [Q, bits]), or with --model the embeddings themselves (.npy, .npz, CSV,
        Parquet or Arrow). Distances, and --radius, use the weights of the index's bits, if it has some.
        Prints one line for each result: query row, id, distance and, if the index has keys, the key; equal
        distances are in the order of ids. The folder of an EmbeddingIndex takes embeddings without --model and gives
        scores; there --rescore is its oversample.""",
        "fasthash search index queries.npy -k 5",
    )
    search.add_argument("index", metavar="INDEX")
    search.add_argument("queries", metavar="QUERIES")
    _column(search, "queries, and of the codes where INDEX is a file")
    search.add_argument("--format", metavar="FORMAT", help=f"of QUERIES: {_FORMATS}")
    search.add_argument("-k", type=int, help="results for each query (default: 10; with --radius all)")
    search.add_argument(
        "--radius", type=int, metavar="R", help="the codes within this Hamming distance; with -k the k nearest of them"
    )
    _bit_weights(search, "those of the index folder, or of --model for a file of codes")
    search.add_argument(
        "--rescore",
        type=_rescore,
        default=0,
        metavar="F",
        help="order the F x k nearest by the distance of the unrounded query (real-valued queries or --model); all: "
        "compare it with all codes",
    )
    search.add_argument(
        "--metric",
        choices=("l1", "dot", "cosine", "l2"),
        help="of --rescore all, as asymmetric_topk has it; all but l1 use the scales of the codes (default: l1)",
    )
    search.add_argument(
        "--method",
        choices=("auto", "scan", "mih"),
        default="auto",
        help="results are the same: scan reads all codes, mih uses tables (and makes them if there are none), "
        "auto uses existing tables if that should be faster (default: %(default)s)",
    )
    search.add_argument("--model", metavar="MODEL", help="encode the queries with this model first")
    _links_within(search)
    search.add_argument(
        "--out",
        metavar="FILE",
        help="write instead the arrays ids and distances (and offsets, keys) as .npz, or a table as .parquet or .arrow",
    )


def _rescore(text: str) -> int | str:
    try:
        return "all" if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number or all, got {text!r}") from None


def _duplicates(commands: Any) -> None:
    duplicates = _command(
        commands,
        "duplicates",
        "retrieve:duplicates",
        "find the near-duplicates among codes, exactly",
        """INDEX is an index folder, or a file of codes as for index build (hexadecimal hashes one a line, say: ids are
        then line numbers from 0 on). Codes within --radius of each other make a group, named by its lowest id.
        Prints the groups of two and more, or writes them: .parquet, .arrow, .feather or .csv with a row for
        each code (group, id, size), .txt with a group a line. With --pairs the pairs (id_a, id_b, distance).
        Where codes have keys, tables have them too (key; key_a, key_b), and lines have them, between tabs, in place
        of ids.""",
        "fasthash duplicates index --radius 4 --out groups.parquet",
    )
    duplicates.add_argument("index", metavar="INDEX")
    duplicates.add_argument("--radius", type=int, required=True, metavar="R", help="the greatest Hamming distance")
    duplicates.add_argument(
        "--link",
        choices=("single", "star"),
        default="single",
        help="single: chains of near codes are one group; star: all of a group are near its lowest id "
        "(default: %(default)s)",
    )
    duplicates.add_argument("--pairs", action="store_true", help="pairs instead of groups; needs --out")
    duplicates.add_argument("--out", metavar="FILE", help="write them there; the suffix decides the format")
    duplicates.add_argument("--bits", type=int, help="bits of a code of a file (default: 8 for each byte)")
    duplicates.add_argument("--format", metavar="FORMAT", help=f"of a file: {_FORMATS}")
    duplicates.add_argument("--column", metavar="NAME", help="column of the codes (default: the only one that fits)")
    duplicates.add_argument("--id-column", metavar="NAME", help='column of the ids (default: "id" or "ids")')
    _keys(duplicates, "texts that name the codes of a file")
    _links_within(duplicates)


def _eval(commands: Any) -> None:
    evaluate = _command(
        commands,
        "eval",
        "retrieve:evaluate",
        "measure how well codes or embeddings retrieve",
        """Queries and database are codes (Hamming distance; formats as for index build) or embeddings (float, see
        --metric; .npy, .npz, CSV, Parquet or Arrow).
        Prints mAP, P@1, P@k, R@k and nDCG@k, exact over ties; with a hierarchy also mAHP (hierarchical
        precision, the mean up to rank --at); for codes also statistics of their bits. Without labels, fasthash eval
        --exact embeddings.npy --queries q.npy tells how much of an exact search codes find.
        With --qrels, graded relevance of named documents, it prints nDCG@k, MAP@k, MRR@k, R@k, P@k, MAP and MRR, as
        trec_eval defines them: of the database ranked for each query, or of --run FILE, without QUERIES and DATABASE.
        DATABASE may then be an index folder, whose keys (or ids) are the names.""",
        "fasthash eval queries.npy codes.npy --query-labels q.txt --database-labels d.txt --hierarchy edges.txt",
    )
    evaluate.add_argument("queries", metavar="QUERIES", nargs="?")
    evaluate.add_argument("database", metavar="DATABASE", nargs="?")
    _column(evaluate, "codes or embeddings")
    evaluate.add_argument("--format", metavar="FORMAT", help=f"of codes: {_FORMATS}")
    evaluate.add_argument("--query-labels", metavar="FILE", help=f"{_LABELS}; needed without --qrels")
    evaluate.add_argument("--database-labels", metavar="FILE", help="as --query-labels")
    evaluate.add_argument("--label-column", metavar="NAME", help="column of the labels in both files of labels")
    _hierarchy(evaluate)
    evaluate.add_argument(
        "-k",
        type=int,
        help="rank of P@k, R@k and nDCG@k (default: 10, or all of a smaller database; with --qrels: 10 and 100)",
    )
    evaluate.add_argument("--at", type=int, help="rank of mAHP (default: 250, or all of a smaller database)")
    evaluate.add_argument("--map-at", type=int, help="cut mAP at this rank (default: the whole database)")
    evaluate.add_argument("--bits", type=int, help="bits of a code (default: 8 for each byte)")
    _bit_weights(evaluate, "those of --model, else 1 for all")
    evaluate.add_argument("--model", metavar="MODEL", help="the model that made the codes: says the weights of bits")
    evaluate.add_argument(
        "--metric", choices=("l1", "l2", "cosine", "dot"), help="of embeddings (default: l1, with --exact cosine)"
    )
    evaluate.add_argument(
        "--qrels", metavar="FILE", help="relevance of documents for queries: a qrels file of TREC, or .tsv of BEIR"
    )
    evaluate.add_argument("--run", dest="run_file", metavar="FILE", help="a TREC run to score over --qrels")
    evaluate.add_argument(
        "--query-keys",
        metavar="COLUMN|FILE",
        help="names of the queries in --qrels: a column of QUERIES, or a file with one a line (default: row numbers)",
    )
    evaluate.add_argument("--database-keys", metavar="COLUMN|FILE", help="the same for DATABASE")
    evaluate.add_argument(
        "--gains", choices=("linear", "exponential"), help="of relevance r in nDCG: r (default) or 2^r - 1"
    )
    evaluate.add_argument("--per-query", action="store_true", help="with --qrels, a line for each query, no means")
    exact = evaluate.add_argument_group("without labels: codes against an exact search of the embeddings")
    exact.add_argument("--exact", metavar="FILE", help="the embeddings that are searched, [N, F]")
    exact.add_argument("--queries", metavar="FILE", dest="query_rows", help="the embeddings that are searched for")
    exact.add_argument(
        "--encoder",
        default="itq,rabitq",
        metavar="NAME,...",
        help="itq, lsh, pca_sign, osq, rabitq, turboquant, or files of models (default: %(default)s)",
    )
    exact.add_argument("--widths", metavar="BITS,...", help="bits of a code, for names (default: one a feature)")
    exact.add_argument(
        "--refine",
        default="none,int8",
        metavar="TYPE,...",
        help="stored rows that order candidates: none, int8, float16, float32 (default: %(default)s)",
    )
    exact.add_argument(
        "--oversample", type=int, default=3, metavar="F", help="candidates are F x k (default: %(default)s)"
    )
    exact.add_argument("--fit-rows", type=int, metavar="N", help="first rows that names are fitted on (default: 50000)")
    exact.add_argument("--plot", metavar="FILE", help="draw overlap against bytes an item (.png, .svg, .pdf)")


def _bench(commands: Any) -> None:
    _command(
        commands,
        "bench",
        "machine:bench",
        "check and time the kernels on this machine",
        """Compares each kernel with its plain-torch definition first, then times it: the scan of hamming_topk, and
        kl_loss forward and backward against the same in torch. Some seconds on the CPU; benchmarks/ has
        the full ones.""",
        "fasthash bench --json",
    )


def _info(commands: Any) -> None:
    _command(
        commands,
        "info",
        "machine:info",
        "tell what was built and what this machine can run",
        """Version, compiler, CUDA architectures of the build, instruction sets found and in use (FASTHASH_ISA
        forces one), threads, versions of Python, torch and numpy, and GPUs.""",
        "fasthash info",
    )
