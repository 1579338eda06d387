"""What can be typed: commands, options and their help. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any, NoReturn

from fasthash.cli.demo_options import add_demo
from fasthash.cli.machine_options import add_bench, add_info
from fasthash.cli.module_options import add_export, add_images, add_own_module, add_recipe
from fasthash.cli.report_options import add_report

_LABELS = "integers or text in .npy, a text file with one label in each line, or a column of CSV, Parquet or Arrow"
_IDS = "ids, integers >= 0: .npy, a text file with one id in each line, or a column of CSV, Parquet or Arrow"
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
    """Looks up the version only when it is needed."""

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
    add_demo(commands, _command)
    _train(commands)
    _encode(commands)
    add_export(commands, _command)
    _index(commands)
    _search(commands)
    _duplicates(commands)
    _eval(commands)
    add_report(commands, _command, _hierarchy, _bit_weights)
    add_recipe(commands, _command)
    add_bench(commands, _command)
    add_info(commands, _command)
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
        help="edges between labels, two names in each line; a header gives the order of the names: "
        '"parent child" or "child parent" (also hypernym hyponym, superclass subclass, ...)',
    )
    command.add_argument(
        "--hierarchy-order",
        choices=("parent child", "child parent"),
        metavar="ORDER",
        help='order of the names if there is no header: "parent child" (the default) or "child parent"',
    )


def _column(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--column",
        metavar="NAME",
        help=f"column of the {what}, in a table; several columns: a,b or 'x*' (default: the one that fits)",
    )


def _code_columns(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", metavar="FORMAT", help=f"format of CODES: {_FORMATS}")
    command.add_argument("--column", metavar="NAME", help="column of the codes (default: the only one that fits)")
    command.add_argument("--id-column", metavar="NAME", help='column of the ids (default: "id" or "ids")')


def _keys(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--keys",
        metavar="COLUMN|FILE",
        help=f"{what}: a column of CODES, a text file with one key in each line, or a table with a column key",
    )


def _code_scale(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--code-scale", metavar="FILE.npy", help=f"{what}: float16 [N], as encode --scales writes it")


def _bit_weights(command: argparse.ArgumentParser, more: str) -> None:
    command.add_argument(
        "--bit-weights",
        metavar="BITSxW,...",
        help="weights of the bits in the Hamming distance, in groups from the first bit: 40x3,24x1 means weight 3 for "
        f"the first 40 bits and weight 1 for the other 24 (weights 1 to 255; default: {more})",
    )


def _train(commands: Any) -> None:
    train = _command(
        commands,
        "train",
        "learn:train",
        "learn an encoder from embeddings to binary codes",
        """FEATURES holds one embedding in each row (float32, float16 or float64, [N, F]): .npy, .npz, CSV, Parquet or
        Arrow. The codes learn similarity from --labels (classes, better with a --hierarchy) or from --targets (for
        each row another embedding or multi-hot labels). Without both they learn from the distances between the
        features. FEATURES may also be a folder of pictures with one folder for each class, or, with --backbone, a
        table of path and label. Features in .npy may be larger than memory. For several processes or GPUs use
        torchrun: torchrun --nproc-per-node 2 -m fasthash train ...""",
        "fasthash train features.npy --labels labels.txt --hierarchy edges.txt --out model.safetensors",
    )
    train.add_argument("features", metavar="FEATURES")
    _column(train, "features")
    train.add_argument("--out", metavar="MODEL", help="the model to write (.safetensors); needed without --run-dir")
    train.add_argument(
        "--run-dir",
        metavar="FOLDER",
        help="folder for settings, metrics.csv, checkpoints and the model; after an interruption the same command "
        "continues",
    )
    what = train.add_mutually_exclusive_group()
    what.add_argument("--labels", metavar="FILE", help=f"class of each row: {_LABELS}; -1 means no label")
    what.add_argument(
        "--targets", metavar="FILE", help="for each row a target embedding (float) or multi-hot labels (integers)"
    )
    train.add_argument("--label-column", metavar="NAME", help="column of the labels in --labels and --val-labels")
    train.add_argument("--target-column", metavar="NAME", help="columns of the targets, written as for --column")
    _hierarchy(train)
    train.add_argument("--bits", type=int, default=64, help="bits of a code (default: %(default)s)")
    train.add_argument(
        "--item-bits",
        type=int,
        metavar="N",
        help="the last N bits of a code keep the order inside a class (default: 20 of 64 for labels; 0: no such bits)",
    )
    train.add_argument(
        "--supervision",
        choices=("full", "similarity"),
        default="full",
        help="similarity: learn only from distances between labels, not from the classes (default: %(default)s)",
    )
    train.add_argument(
        "--val-features", metavar="FILE", help="validation rows; training keeps the epoch that is best on them"
    )
    train.add_argument("--val-labels", metavar="FILE", help="labels or targets of the validation rows")
    train.add_argument("--epochs", type=int, help="passes over the data")
    train.add_argument("--batch-size", type=int, help="rows in a step, summed over all processes")
    train.add_argument("--lr", type=float, help="highest learning rate")
    train.add_argument("--ema", type=float, metavar="D", help="use a moving average of the weights with this decay")
    train.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without a better validation score"
    )
    train.add_argument("--precision", choices=("float32", "bfloat16", "float16"), help="number type of the network")
    train.add_argument("--compile", action="store_true", default=None, help="compile the network with torch.compile")
    train.add_argument("--workers", type=int, metavar="N", help="processes that read features ahead, for a slow disk")
    train.add_argument("--kl", type=float, help="weight of the KL term (0: no KL term)")
    train.add_argument(
        "--preserve", type=float, help="weight of the term that keeps the nearest neighbours of the features"
    )
    train.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    train.add_argument("--device", help="torch device (default: cuda if there is one, else cpu)")
    add_images(train)


def _encode(commands: Any) -> None:
    encode = _command(
        commands,
        "encode",
        "learn:encode",
        "turn embeddings into binary codes with a trained model",
        """Writes packed codes, uint8 [N, ceil(bits / 8)] in the bit order of numpy.packbits. Row i is the code of row i
        of FEATURES. The suffix of --out gives the format: .npy, .u8bin, .faiss, .parquet, .arrow or .feather. The last
        four store ids: the column "id" or "ids" of FEATURES, otherwise the row numbers. Features in .npy may be larger
        than memory. MODEL is a file of Hasher.save, LinearCodes.save (ITQ, LSH) or GridCodes.save (RaBitQ). --scales
        writes a scale for each code, float16 [N], for `index build --code-scale`. With a model of pictures, FEATURES
        is a folder of pictures. File names are then the keys, and --out is an index folder (a name without a suffix),
        .parquet, .arrow or .feather. After an interruption the same command continues.""",
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
    encode.add_argument(
        "--scales", metavar="FILE.npy", help="also write the scale of each code to this file, float16 [N]"
    )
    encode.add_argument(
        "--decoder",
        metavar="FILE.safetensors",
        help="also fit a LinearDecoder on the features and their codes; --scales are then its scales. Search with "
        "search --model FILE.safetensors --rescore all --metric dot",
    )
    encode.add_argument(
        "--metric",
        choices=("dot", "cosine", "l2"),
        help="metric of the scales: dot (default), cosine (Hasher) or l2 (GridCodes)",
    )
    add_own_module(encode)
    encode.add_argument("--device", help="torch device (default: cuda if there is one, else cpu)")


def _index(commands: Any) -> None:
    index = commands.add_parser(
        "index",
        help="build, change and check an index folder",
        description="An index is a folder of codes with ids. A search maps it into memory. A command that changes it "
        "returns when the change is on disk.",
        epilog="help on a command:\n  fasthash index build --help",
        formatter_class=_Help,
    )
    actions = index.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = _command(
        actions,
        "build",
        "retrieve:index_build",
        "make an index folder of codes",
        """The content of CODES decides its format: .npy or .npz (packed uint8 as `fasthash encode` writes them, 64-bit
        integers, booleans), text with one hexadecimal or decimal hash in each line, CSV or TSV with a header, Parquet
        or Arrow (need pyarrow), a faiss IndexBinaryFlat, or .u8bin. For packed codes without a header pass --format
        raw --bits B. The file may be larger than memory.""",
        "fasthash index build codes.npy --out index",
    )
    build.add_argument("codes", metavar="CODES")
    build.add_argument("--out", required=True, metavar="FOLDER")
    build.add_argument("--bits", type=int, help="bits of a code (default: 8 for each byte)")
    _code_columns(build)
    build.add_argument("--ids", metavar="IDS", help=f"{_IDS} (default: the row numbers)")
    _keys(build, "texts that name the codes")
    _bit_weights(build, "those of --model, else 1 for all")
    _code_scale(build, "scale of each code, for search --rescore all")
    build.add_argument("--model", metavar="MODEL", help="the model that made the codes; gives their bits and weights")
    build.add_argument("--overwrite", action="store_true", help="replace an index that is in the folder")
    build.add_argument("--mih", action="store_true", help="also make tables for sub-linear search, see index mih")
    add = _command(
        actions,
        "add",
        "retrieve:index_add",
        "add codes to an index folder",
        "The codes get the given ids. Without ids, numbering continues after the highest id that was ever used.",
        "fasthash index add index more.npy",
    )
    add.add_argument("index", metavar="FOLDER")
    add.add_argument("codes", metavar="CODES", help="as for index build")
    _code_columns(add)
    add.add_argument("--ids", metavar="IDS", help=f"{_IDS} that the index does not hold")
    _keys(add, "keys of the codes, if the index has keys; the index must not hold them")
    _code_scale(add, "scale of each code, if the index has code_scale")
    add.add_argument(
        "--replace", action="store_true", help="if the index holds an id or key, the new code replaces the old one"
    )
    remove = _command(
        actions,
        "remove",
        "retrieve:index_remove",
        "remove codes from an index folder by id or key",
        "Ignores ids and keys that the index does not hold. Prints the number of removed codes.",
        "fasthash index remove index ids.npy",
    )
    remove.add_argument("index", metavar="FOLDER")
    remove.add_argument("ids", metavar="IDS", nargs="?", help=_IDS)
    remove.add_argument(
        "--keys", metavar="FILE", help="keys instead of ids: text with one key per line, or CSV, Parquet or Arrow"
    )
    remove.add_argument("--id-column", metavar="NAME", help='column of the ids (default: "id" or "ids")')
    mih = _command(
        actions,
        "mih",
        "retrieve:index_mih",
        "make tables that speed up searches for few near neighbours",
        """Makes tables of multi-index hashing, in files beside the codes: 24 bytes for a code of 64 bits, 73 bytes for
        a code of 128 bits. Results stay exact and do not change. Codes that are added later have no tables until the
        next index mih, and searches scan them. index compact makes the tables again.""",
        "fasthash index mih index",
    )
    mih.add_argument("index", metavar="FOLDER")
    compact = _command(
        actions,
        "compact",
        "retrieve:index_compact",
        "rewrite an index folder without removed codes",
        "Frees the space of removed codes and joins segments, so that searches read the fewest segments.",
        "fasthash index compact index",
    )
    compact.add_argument("index", metavar="FOLDER")
    export = _command(
        actions,
        "export",
        "retrieve:index_export",
        "write the codes of an index folder for other programs",
        """Codes are in ascending order of id. The suffix gives the format: .npy, .u8bin, .faiss (for
        faiss.read_index_binary; ids other than 0, 1, 2 ... become an IndexBinaryIDMap), .parquet or .arrow (columns id
        and code, and key if the index has keys; need pyarrow). Only .parquet and .arrow can hold keys. No format can
        hold weights of bits, so other programs search by the plain Hamming distance.""",
        "fasthash index export index --out codes.faiss",
    )
    export.add_argument("index", metavar="FOLDER")
    export.add_argument("--out", required=True, metavar="FILE")
    export.add_argument("--ids", metavar="IDS.npy", help="also write the ids to this file")
    _links_within(export)
    info = _command(
        actions, "info", "retrieve:index_info", "show what an index folder holds", "", "fasthash index info index"
    )
    info.add_argument("index", metavar="FOLDER")
    _links_within(info)
    verify = _command(
        actions,
        "verify",
        "retrieve:index_verify",
        "read every byte of an index folder and check it",
        "Checks the checksums, the order of the ids and the padding bits of the codes.",
        "fasthash index verify index",
    )
    verify.add_argument("index", metavar="FOLDER")
    _links_within(verify)


def _links_within(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--links-within",
        metavar="DIR",
        help="allow symbolic links in the index folder if their targets are inside DIR, as in a download cache "
        "(default: links are refused)",
    )


def _search(commands: Any) -> None:
    search = _command(
        commands,
        "search",
        "retrieve:search",
        "find the nearest codes of queries, exactly",
        """INDEX is an index folder, or a file of codes as for index build. QUERIES holds codes in one of these
        formats, outputs in [0, 1] (float, [Q, bits]), or, with --model, embeddings (.npy, .npz, CSV, Parquet or
        Arrow). If the index has weights of bits, distances and --radius use them.
        Prints one line for each result: query row, id, distance and, if the index has keys, the key. Ties are broken
        by the lowest id. If INDEX is the folder of an EmbeddingIndex, QUERIES holds embeddings, the command prints
        scores, and --rescore is the oversample.""",
        "fasthash search index queries.npy -k 5",
    )
    search.add_argument("index", metavar="INDEX")
    search.add_argument("queries", metavar="QUERIES")
    _column(search, "queries (and of the codes, if INDEX is a file)")
    search.add_argument("--format", metavar="FORMAT", help=f"format of QUERIES: {_FORMATS}")
    search.add_argument("-k", type=int, help="results for each query (default: 10; with --radius all)")
    search.add_argument(
        "--radius",
        type=int,
        metavar="R",
        help="find the codes within this Hamming distance; with -k only the k nearest of them",
    )
    _bit_weights(search, "those of the index folder, or of --model for a file of codes")
    search.add_argument(
        "--rescore",
        type=_rescore,
        default=0,
        metavar="F",
        help="order the F x k nearest codes by their distance to the unrounded query (needs real-valued queries or "
        "--model); all: compare the unrounded query with all codes",
    )
    search.add_argument(
        "--metric",
        choices=("l1", "dot", "cosine", "l2"),
        help="metric of --rescore all, see asymmetric_topk; all but l1 use the scales of the codes (default: l1)",
    )
    search.add_argument(
        "--method",
        choices=("auto", "scan", "mih"),
        default="auto",
        help="changes only the speed: scan reads all codes, mih uses tables (and makes them if there are none), "
        "auto uses existing tables if they are likely to be faster (default: %(default)s)",
    )
    search.add_argument("--model", metavar="MODEL", help="encode the queries with this model, or a decoder of encode")
    _links_within(search)
    search.add_argument(
        "--out",
        metavar="FILE",
        help="write the results to this file: arrays ids and distances (and offsets, keys) as .npz, or a table as "
        ".parquet or .arrow",
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
        """INDEX is an index folder, or a file of codes as for index build, for example text with one hexadecimal hash
        in each line (ids are then the line numbers from 0). Codes within --radius of each other form a group. The
        lowest id is the name of the group. Distances are weighted if the index has bit weights: with 44x4,20x1 radius
        4 allows one different bit of the first 44, or four of the last 20; begin with 2. Prints the groups with at
        least two codes, or writes them: .parquet, .arrow, .feather or .csv have one row for each code (group, id,
        size), .txt has one group in each line. --pairs writes pairs (id_a, id_b, distance). If codes have keys, tables
        also have columns of keys (key; key_a, key_b), and lines of text have keys for ids, separated by tabs.""",
        "fasthash duplicates index --radius 4 --out groups.parquet",
    )
    duplicates.add_argument("index", metavar="INDEX")
    duplicates.add_argument("--radius", type=int, required=True, metavar="R", help="the greatest (weighted) distance")
    duplicates.add_argument(
        "--link",
        choices=("single", "star"),
        default="single",
        help="single: a chain of near codes is one group; star: all codes of a group are near its lowest id "
        "(default: %(default)s)",
    )
    duplicates.add_argument("--pairs", action="store_true", help="find pairs instead of groups; needs --out")
    duplicates.add_argument(
        "--out", metavar="FILE", help="write the groups or pairs to this file; the suffix decides the format"
    )
    duplicates.add_argument("--bits", type=int, help="bits of a code of a file (default: 8 for each byte)")
    duplicates.add_argument("--format", metavar="FORMAT", help=f"format, if INDEX is a file: {_FORMATS}")
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
        """QUERIES and DATABASE are codes (Hamming distance; formats as for index build) or embeddings (float, see
        --metric; .npy, .npz, CSV, Parquet or Arrow).
        With labels, prints mAP, P@1, P@k, R@k and nDCG@k, exact over ties. With a hierarchy also prints mAHP
        (hierarchical precision, the mean up to rank --at). For codes also prints statistics of the bits.
        Without labels, fasthash eval --exact embeddings.npy --queries q.npy compares a search of codes with an exact
        search of the embeddings. With --qrels (graded relevance of named documents), prints nDCG@k, MAP@k, MRR@k, R@k,
        P@k, MAP and MRR as trec_eval defines them. The ranking is then that of DATABASE for each query, or a file
        (--run FILE, without QUERIES and DATABASE). DATABASE may then be an index folder: its keys (or ids) are the
        names.""",
        "fasthash eval queries.npy codes.npy --query-labels q.txt --database-labels d.txt --hierarchy edges.txt",
    )
    evaluate.add_argument("queries", metavar="QUERIES", nargs="?")
    evaluate.add_argument("database", metavar="DATABASE", nargs="?")
    _column(evaluate, "codes or embeddings")
    evaluate.add_argument("--format", metavar="FORMAT", help=f"format of codes: {_FORMATS}")
    evaluate.add_argument("--query-labels", metavar="FILE", help=f"{_LABELS}; needed without --qrels")
    evaluate.add_argument("--database-labels", metavar="FILE", help="labels of DATABASE, as for --query-labels")
    evaluate.add_argument("--label-column", metavar="NAME", help="column of the labels in both files of labels")
    _hierarchy(evaluate)
    evaluate.add_argument(
        "-k",
        type=int,
        help="rank of P@k, R@k and nDCG@k (default: 10, at most the rows of the database; with --qrels: 10 and 100)",
    )
    evaluate.add_argument("--at", type=int, help="rank of mAHP (default: 250, at most the rows of the database)")
    evaluate.add_argument("--map-at", type=int, help="cut mAP at this rank (default: the whole database)")
    evaluate.add_argument("--bits", type=int, help="bits of a code (default: 8 for each byte)")
    _bit_weights(evaluate, "those of --model, else 1 for all")
    evaluate.add_argument(
        "--model", metavar="MODEL", help="the model that made the codes; gives the weights of the bits"
    )
    evaluate.add_argument(
        "--metric",
        choices=("l1", "l2", "cosine", "dot"),
        help="metric of embeddings (default: l1; with --exact: cosine)",
    )
    evaluate.add_argument(
        "--qrels", metavar="FILE", help="relevance of documents for queries: a qrels file of TREC, or .tsv of BEIR"
    )
    evaluate.add_argument("--run", dest="run_file", metavar="FILE", help="a TREC run to score with --qrels")
    evaluate.add_argument(
        "--query-keys",
        metavar="COLUMN|FILE",
        help="names of the queries in --qrels: a column of QUERIES, or a file with one per line (default: row numbers)",
    )
    evaluate.add_argument("--database-keys", metavar="COLUMN|FILE", help="the same for DATABASE")
    evaluate.add_argument(
        "--gains", choices=("linear", "exponential"), help="gain of relevance r in nDCG: r (default) or 2^r - 1"
    )
    evaluate.add_argument(
        "--per-query", action="store_true", help="with --qrels: print one line for each query instead of the means"
    )
    exact = evaluate.add_argument_group("without labels: compare codes with an exact search")
    exact.add_argument("--exact", metavar="FILE", help="embeddings of the database, [N, F]")
    exact.add_argument("--queries", metavar="FILE", dest="query_rows", help="embeddings of the queries")
    exact.add_argument(
        "--encoder",
        default="itq,rabitq",
        metavar="NAME,...",
        help="itq, lsh, pca_sign, osq, rabitq, turboquant, or files of models (default: %(default)s)",
    )
    exact.add_argument(
        "--widths", metavar="BITS,...", help="bits of a code, for named encoders (default: one per feature)"
    )
    exact.add_argument(
        "--refine",
        default="none,int8",
        metavar="TYPE,...",
        help="type of the stored rows that re-rank candidates: none, int8, float16, float32 (default: %(default)s)",
    )
    exact.add_argument(
        "--oversample", type=int, default=3, metavar="F", help="use F x k candidates (default: %(default)s)"
    )
    exact.add_argument(
        "--fit-rows", type=int, metavar="N", help="fit named encoders on the first N rows (default: 50000)"
    )
    exact.add_argument("--plot", metavar="FILE", help="plot overlap against bytes of an item (.png, .svg, .pdf)")
