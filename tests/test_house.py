"""The rules of the house that a machine can check: imports one way, no assert on user input, file sizes, symbols."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fasthash import _core

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fasthash"
CEILING = 600  # lines of a file

# Later may import earlier, and modules of one level may import each other's package-mates. Names are files or folders
# of fasthash/.
LEVELS = [
    ["_core", "_moved", "_warnings"],
    [
        "_arguments",
        "_bit_weights",
        "_arrays",
        "_checkpoint",
        "_code_arguments",
        "_directions",
        "_durable",
        "_far_out",
        "_fork",
        "_free_memory",
        "_labels",
        "_ops",
        "_tables",
        "reference",
    ],
    ["asymmetric", "codes", "hamming", "hierarchy", "maxsim", "pairs", "distributed"],
    ["neighbors", "gradients", "losses", "index"],
    ["_affinity"],
    ["targets", "_bit_moments"],
    ["metrics", "baselines"],
    ["decoder", "evaluate"],
    ["train"],
    ["embeddings", "images"],
    ["cluster", "integration"],
    ["datasets", "demo", "report"],
    ["recipes"],
    ["cli", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

# The same inside fasthash/index/, where what stands on one level may not import each other.
INDEX_LEVELS = [
    ["bitmap", "errors", "groups", "prices", "progress", "readahead"],
    ["keys", "vectors"],
    ["key_texts", "segments"],
    ["merge"],
    ["search", "store"],
    ["eligible", "exchange", "folder", "keyed"],
    ["block_joins"],
    ["joins"],
    ["scales", "split"],
    ["hamming_index"],
    ["anchor_index"],
    ["__init__"],
]


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Files or folders of fasthash/ that a module imports, at its top or inside functions."""
    units = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "fasthash":
                units |= {alias.name for alias in node.names}
            elif node.module.startswith("fasthash."):
                units.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            units |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("fasthash.")}
    return units & set(LEVEL)


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    unit = unit_of(path)
    if unit == "__init__":
        return
    assert unit in LEVEL, f"{unit} has no place in the order of imports: add it to LEVELS"
    for other in imported_units(path) - {unit}:
        # Within a level, imports may not form a cycle: the alphabetical order of this check would hide none,
        # so name them.
        assert LEVEL[other] <= LEVEL[unit], f"{unit} imports {other}, which comes later"


@pytest.mark.parametrize("path", sorted((PACKAGE / "index").rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_inside_the_index_go_one_way(path: Path) -> None:
    level = {name: number for number, names in enumerate(INDEX_LEVELS) for name in names}
    unit = path.relative_to(PACKAGE / "index").parts[0].removesuffix(".py")
    assert unit in level, f"{unit} has no place in the order of imports: add it to INDEX_LEVELS"
    others = imported_index_units(path) - {unit}
    assert not {other for other in others if level[other] >= level[unit]}, "imports what comes later, or beside it"
    if unit in ("exchange", "folder"):
        assert "search" not in others, f"{unit} knows files, and no search"


def imported_index_units(path: Path) -> set[str]:
    """Files or folders of fasthash/index/ that a module imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    known = {name for names in INDEX_LEVELS for name in names}
    return {name.split(".")[2] for name in names if name.startswith("fasthash.index.")} & known


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_are_absolute(path: Path) -> None:
    """The tests of their order read absolute names alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}:{node.lineno}: import by the full name"


def test_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {}
    for path in python_files():
        if unit_of(path) != "__init__":
            graph.setdefault(unit_of(path), set()).update(imported_units(path) - {unit_of(path)})
    done: set[str] = set()
    while len(done) < len(graph):
        free = {unit for unit, needs in graph.items() if unit not in done and needs <= done | {"_core"}}
        assert free, f"a cycle among {sorted(set(graph) - done)}"
        done |= free


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_messages_name_types_in_one_way(path: Path) -> None:
    """By `_arrays.dtype_name`: "int64", not "torch.int64", which a user of numpy did not write."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FormattedValue):
            shown = node.value
            if isinstance(shown, ast.Call) and ast.unparse(shown.func) in ("str", "repr"):
                shown = shown.args[0]
            bare = isinstance(shown, ast.Attribute) and shown.attr == "dtype"
            assert not bare, f"{path}:{node.lineno}: use dtype_name"


def test_torch_distributed_has_one_importer() -> None:
    for path in python_files():
        text = path.read_text()
        if "torch.distributed" in re.sub(r'""".*?"""|#[^\n]*', "", text, flags=re.S) and unit_of(path) != "distributed":
            pytest.fail(f"{path.name} imports torch.distributed")


def test_ray_has_one_importer() -> None:
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "ray" for name in names):
                assert unit_of(path) == "cluster", f"{path}:{node.lineno}: only fasthash/cluster imports ray"


def test_only_ops_calls_the_extension() -> None:
    for path in python_files():
        if unit_of(path) not in ("_ops", "__init__"):
            assert "_core" not in imported_units(path), path


def test_rows_are_normalised_in_one_place() -> None:
    """By _directions.py, whose gradient is bounded: torch's own is up to 1e12 at a row of zeros."""
    for path in python_files():
        if path.name == "_directions.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            names += [node.attr] if isinstance(node, ast.Attribute) and ast.unparse(node) != f"self.{node.attr}" else []
            assert not {"normalize", "cosine_similarity", "CosineSimilarity", "cosine_embedding_loss"} & set(names), (
                path
            )


@pytest.mark.parametrize("path", python_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_assert_and_no_print_outside_the_command_line(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: raise an error that names the limit"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert unit_of(path) in ("cli", "demo", "report"), f"{path}:{node.lineno}: a library does not print"


def test_files_stay_readable() -> None:
    listed = [*PACKAGE.rglob("*.py"), *(ROOT / "csrc").rglob("*"), *(ROOT / "tests").rglob("*.py")]
    long = {
        str(p.relative_to(ROOT)): n for p in listed if p.is_file() and (n := len(p.read_bytes().splitlines())) > CEILING
    }
    assert not long, f"split by idea: {long}"


def test_core_neither_prints_nor_aborts() -> None:
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix in (".cpp", ".cu", ".h", ".cuh"):
            code = re.sub(r"//[^\n]*", "", path.read_text())
            found = re.search(r"\b(printf|fprintf|abort|exit|assert|std::cout|std::cerr)\s*[(<]", code)
            assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"
            assert "torch" not in code.replace("torch's", ""), f"{path}: the core does not know torch"


def test_no_vague_names() -> None:
    vague = {"utils", "helpers", "common", "misc"}
    assert not [p for p in ROOT.glob("[a-z]*/**/*") if p.stem in vague and "build" not in p.parts]


def test_no_banners() -> None:
    """Rows of signs that divide a file: a file with parts that need them is two files."""
    kinds = {".py", ".pyi", ".cpp", ".h", ".cu", ".cuh", ".def", ".sh", ".cmake"}
    for folder in ("fasthash", "csrc", "tests", "benchmarks", "tools", "cmake"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in kinds:
                found = re.search(r"^\s*(#|//|/\*)\s*([-=*~#+])\2{2,}.*", path.read_text(), flags=re.M)
                assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"


OWN_CODE = {  # code of ours where a library has something alike -> that library's name, in the reason beside it
    "csrc/asymmetric/isa/nibble.h": "hamming/isa/scan.h",
    "csrc/core/thread_pool.h": "OpenMP",
    "csrc/hamming/isa/scan.h": "Highway",
    "csrc/neighbors/isa/tile_kernels.h": "Highway",
    "fasthash/_durable.py": "standard library",
    "fasthash/distributed/batch_norm.py": "SyncBatchNorm",
    "fasthash/index/store/tensorfile.py": "safetensors library",
    "fasthash/train/averaging.py": "AveragedModel",
    "fasthash/train/encoder.py": "nn.Dropout",
}


@pytest.mark.parametrize(("path", "library"), OWN_CODE.items())
def test_own_code_says_why_it_is_ours(path: str, library: str) -> None:
    assert library in " ".join((ROOT / path).read_text().split())


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
def test_extension_exports_its_init_function_alone() -> None:
    listed = subprocess.run(["nm", "-D", "--defined-only", _core.__file__], check=True, capture_output=True, text=True)
    names = [line.split()[-1] for line in listed.stdout.splitlines()]
    assert [n for n in names if n != "PyInit__core"] == []
