"""Every command reads arrays, text, CSV, Parquet and Arrow by their content, with columns by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasthash.cli import main
from fasthash.index import HammingIndex
from fasthash.train import Hasher

ROWS, WIDTH = 60, 6
RNG = np.random.default_rng(0)
CLASSES = np.arange(ROWS) % 3
FEATURES = (RNG.normal(size=(ROWS, WIDTH)) + 3 * np.eye(WIDTH)[CLASSES]).astype(np.float32)
NAMES = np.array(["cat", "dog", "car"])[CLASSES]
IDS = RNG.permutation(1000)[:ROWS]
TRAIN = ("--bits", "16", "--epochs", "1", "--out")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command in a folder of its own, which must succeed; gives its JSON."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str) -> Any:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return invoke


@pytest.fixture
def fails(run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with status 2 and one line; gives the line."""

    def invoke(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        return err.removeprefix("fasthash: error: ")

    return invoke


def frame() -> Any:
    pandas = pytest.importorskip("pandas")
    columns = {f"x{number}": FEATURES[:, number] for number in range(WIDTH)}
    return pandas.DataFrame({"id": IDS, "label": NAMES, **columns})


def lists() -> Any:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({"id": IDS, "intent": NAMES, "size": CLASSES, "embedding": list(FEATURES)})


def write(table: Any, name: str) -> str:
    pytest.importorskip("pyarrow")
    if name.startswith("parquet"):
        table.to_parquet(name)
    elif name.startswith("arrow"):
        table.to_feather(name)
    elif name.startswith("polars"):
        pytest.importorskip("polars").from_pandas(table).write_ipc(name)
    else:
        table.to_csv(name, index=name.endswith("index"), sep="\t" if "tsv" in name else ",")
    return name


@pytest.fixture
def model(run: Callable[..., Any]) -> Hasher:
    np.save("features.npy", FEATURES)
    run("train", "features.npy", *TRAIN, "model.safetensors")
    return Hasher.load("model.safetensors")


FORMATS = ("parquet", "arrow", "polars", "csv", "tsv", "csv-index")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("table", [frame, lists])
def test_train_and_encode_from_one_table(run: Callable[..., Any], name: str, table: Any) -> None:
    file = write(table(), name)
    label = ("--label-column", "intent") if table is lists else ()
    done = run("train", file, "--labels", file, *label, *TRAIN, "model.safetensors")
    assert (done["rows"], done["features"], done["classes"]) == (ROWS, WIDTH, 3)
    hasher = Hasher.load("model.safetensors")
    assert sorted(hasher.classes_) == ["car", "cat", "dog"]
    for suffix in (".parquet", ".arrow", ".feather", ".faiss"):
        run("encode", "model.safetensors", file, "--out", f"codes{suffix}")
        run("index", "build", f"codes{suffix}", "--out", "index", "--overwrite", "--bits", "16")
        index = HammingIndex.open("index")
        np.testing.assert_array_equal(index.ids, np.sort(IDS))  # the ids of the table are kept
        np.testing.assert_array_equal(index.get(IDS), hasher.encode(FEATURES))
    run("encode", "model.safetensors", file, "--out", "codes.npy")
    np.testing.assert_array_equal(np.load("codes.npy"), hasher.encode(FEATURES))


def test_the_suffix_of_out_decides(run: Callable[..., Any], fails: Callable[..., str], model: Hasher) -> None:
    codes = model.encode(FEATURES)
    for suffix in (".npy", ".parquet", ".arrow", ".feather", ".u8bin", ".faiss", ".PARQUET"):
        run("encode", "model.safetensors", "features.npy", "--out", f"c{suffix}")
        run("index", "build", f"c{suffix}", "--out", "index", "--overwrite")
        index = HammingIndex.open("index")
        np.testing.assert_array_equal(index.get(np.arange(ROWS)), codes)
    for name in ("c.csv", "c", "c.pt", "c.npz", "c.raw"):
        message = fails("encode", "model.safetensors", "features.npy", "--out", name)
        assert message.startswith(f"{name}: the suffix decides the format and must be one of .npy, ")
    outputs = model.transform(FEATURES)
    run("encode", "model.safetensors", "features.npy", "--real", "--out", "r.npy")
    np.testing.assert_allclose(np.load("r.npy"), outputs, atol=1e-6)
    parquet = pytest.importorskip("pyarrow.parquet")
    run("encode", "model.safetensors", "features.npy", "--real", "--out", "r.parquet")
    np.testing.assert_allclose(np.array(parquet.read_table("r.parquet")["output"].to_pylist()), outputs, atol=1e-6)
    message = fails("encode", "model.safetensors", "features.npy", "--real", "--out", "r.faiss")
    assert "must be one of .npy, .parquet, .arrow, .feather, got '.faiss'" in message
    run("index", "build", "c.npy", "--out", "index", "--overwrite")
    assert ".npz" in fails("search", "index", "c.npy", "--out", "found.csv")
    assert "use .safetensors" in fails("train", "features.npy", "--out", "model.pt")
    assert "cannot hold ids" in fails(
        "encode", "model.safetensors", write(frame(), "csv"), "--id-column", "id", "--out", "c.npy"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_search_reads_queries_of_every_form(run: Callable[..., Any], model: Hasher, name: str) -> None:
    codes = model.encode(FEATURES)
    np.save("codes.npy", codes)
    run("index", "build", "codes.npy", "--out", "index")
    expected = run("search", "index", "codes.npy", "-k", "3")
    table = lists().assign(code=[code.tobytes().hex() for code in codes], output=list(model.transform(FEATURES)))
    file = write(table, name)
    assert run("search", "index", file, "--column", "code", "-k", "3") == expected
    assert run("search", "index", file, "--column", "output", "-k", "3") == expected
    assert run("search", "index", file, "--column", "embedding", "--model", "model.safetensors", "-k", "3") == expected
    found = run("search", file, file, "--column", "code", "-k", "1")  # the table as an index, with its ids
    expected_ids = [int(IDS[(codes == code).all(axis=1)].min()) for code in codes]
    assert [row["ids"][0] for row in found] == expected_ids


@pytest.mark.parametrize("name", FORMATS)
def test_eval_reads_codes_embeddings_and_labels(run: Callable[..., Any], model: Hasher, name: str) -> None:
    np.save("codes.npy", model.encode(FEATURES))
    np.save("labels.npy", CLASSES)
    labels = ("--query-labels", "labels.npy", "--database-labels", "labels.npy")
    file = write(lists().assign(code=[code.tobytes().hex() for code in np.load("codes.npy")]), name)
    own = ("--query-labels", file, "--database-labels", file, "--label-column", "intent")
    expected = run("eval", "codes.npy", "codes.npy", *labels)
    assert run("eval", file, file, "--column", "code", *own) == expected
    assert run("eval", file, "codes.npy", "--column", "code", *own) == expected
    floats = run("eval", "features.npy", "features.npy", *labels)
    assert run("eval", file, file, "--column", "embedding", *own)["mAP"] == pytest.approx(floats["mAP"])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "lines", "options"),
    [
        ("labels.txt", NAMES, ()),
        ("labels.csv", NAMES, ()),
        ("labels", [*NAMES, "", ""], ()),
        ("labels.csv", ["label", *NAMES], ()),
        ("labels.txt", ["Class", *NAMES], ()),
        ("labels.txt", ["animal", *NAMES], ("--label-column", "animal")),
        ("labels.csv", ["id,label", *(f"{id},{name}" for id, name in zip(IDS, NAMES, strict=True))], ()),
        ("labels.txt", ["id,kind", *(f"{id},{name}" for id, name in zip(IDS, NAMES, strict=True))], ()),
        ("labels.tsv", ["a\tb", *(f"{name}\tx" for name in NAMES)], ("--label-column", "a")),
        ("labels.csv", ["path,label,split", *(f"a.png,{name},x" for name in NAMES)], ()),
        ("labels.txt", [f'"{name}"' for name in NAMES], ()),
        ("numbers.csv", ["number", *(str(number) for number in CLASSES)], ()),
    ],
)
def test_labels_of_text_files(
    run: Callable[..., Any], name: str, lines: list[str], options: tuple[str, ...], encoding: str
) -> None:
    np.save("features.npy", FEATURES)
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
    run("train", "features.npy", "--labels", name, *options, *TRAIN, "model.safetensors")
    expected = [0, 1, 2] if name.startswith("numbers") else ["car", "cat", "dog"]
    assert list(Hasher.load("model.safetensors").classes_) == expected


def test_labels_that_are_refused(fails: Callable[..., str]) -> None:
    np.save("features.npy", FEATURES)

    def refused(lines: list[str], *options: str, name: str = "labels.csv") -> str:
        Path(name).write_text("".join(f"{line}\n" for line in lines))
        return fails("train", "features.npy", "--labels", name, *options, *TRAIN, "m.safetensors")

    rows = [f"{id},{name},x" for id, name in zip(IDS, NAMES, strict=True)]
    assert "has several columns that could be the labels: 'kind', 'split'; name" in refused(["id,kind,split", *rows])
    assert "name one with --label-column" in refused(["id,kind,split", *rows])
    assert "has no column 'kinds' (--label-column" in refused(["id,kind,split", *rows], "--label-column", "kinds")
    assert "must have the names of the columns, or each line must have one label" in refused(rows)
    assert "must have the names of the columns, or each line must have one label" in refused(rows, name="labels.txt")
    assert "got 59 below the header 'label' in line 1" in refused(["label", *NAMES[1:]])
    assert "if line 1 is a header, pass --label-column 'kind'" in refused(["kind", *NAMES])
    assert "labels must be integers or text" in refused(
        ["id,kind", *(f"{id},0.5" for id in IDS)], "--label-column", "kind"
    )
    assert "has no value in line 3" in refused(["id,label", f"{IDS[0]},cat", f"{IDS[1]},"])
    message = fails("train", "features.npy", "--labels", "features.npy", "--label-column", "x", *TRAIN, "m.safetensors")
    assert "--label-column names a column, but 'features.npy' has no columns with names" in message
    np.save("objects.npy", np.array(NAMES, object))
    message = fails("train", "features.npy", "--labels", "objects.npy", *TRAIN, "m.safetensors")
    assert "of Python objects" in message
    assert "save it as numbers or text (array.astype(int), array.astype(str))" in message
    assert "omit --label-column, or write 'label' as the first line" in refused(NAMES, "--label-column", "label")
    assert "has no column of labels; its columns are 'id', 'size'; name one with --label-column" in refused(
        ["id,size", *(f"{id},0.5" for id in IDS)]
    )
    assert not Path("m.safetensors").exists()


def test_ids_of_encoded_tables(run: Callable[..., Any], fails: Callable[..., str], model: Hasher, capsys: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = write(lists().assign(id=NAMES, image_id=IDS), "parquet")
    encode = ("encode", "model.safetensors", file, "--out", "codes.parquet")
    message = fails(*encode)
    assert "string, ids must be integers >= 0; name another column with --id-column (possible: 'image_id')" in message
    assert "--ids" not in message
    run(*encode, "--id-column", "image_id")
    assert parquet.read_table("codes.parquet")["id"].to_pylist() == IDS.tolist()
    write(lists().rename(columns={"id": "image_id"}), "parquet")
    assert main(encode) == 0
    assert (
        "warning: parquet has no column 'id', so the codes get the row numbers; 'image_id'" in capsys.readouterr().err
    )
    assert parquet.read_table("codes.parquet")["id"].to_pylist() == list(range(ROWS))
    lists().assign(id=np.arange(ROWS) * 2 + 8).set_index("id").to_parquet("parquet")  # pandas may keep a range
    run(*encode)
    assert parquet.read_table("codes.parquet")["id"].to_pylist() == list(range(8, 2 * ROWS + 8, 2))


def test_columns_of_numbers(run: Callable[..., Any], fails: Callable[..., str], model: Hasher) -> None:
    expected = model.encode(FEATURES)

    def encoded(file: str, *options: str) -> None:
        run("encode", "model.safetensors", file, *options, "--out", "c.npy")
        np.testing.assert_array_equal(np.load("c.npy"), expected)

    def refused(file: str, *options: str) -> str:
        return fails("encode", "model.safetensors", file, *options, "--out", "c.npy")

    np.savetxt("plain.txt", FEATURES, delimiter=",")
    encoded("plain.txt")
    np.savetxt("plain.tsv", FEATURES, delimiter="\t")
    encoded("plain.tsv")
    np.savez("features.npz", FEATURES)
    encoded("features.npz")
    Path("features.npy").rename("features")
    encoded("features")
    table = frame()
    for name in ("csv", "parquet"):
        file = write(table.assign(count=CLASSES), name)
        message = refused(file)
        assert "columns 'count' may be labels, ids or counts, or part of the embeddings" in message
        assert "--column (a name, several with commas, or a pattern such as 'x*')" in message
        encoded(file, "--column", "x*")
        encoded(file, "--column", "x0,x1,x2, x3,x4,x5")
        assert "has no column 'y0' (--column" in refused(file, "--column", "y0")
        assert "column 'label' is of type" in refused(file, "--column", "label")
        file = write(table.assign(y=0.5), name)
        assert "columns 'y' may be labels" in refused(file)
        file = write(table[["id", "label"]], name)
        assert "has no column of embeddings" in refused(file)
    file = write(lists().assign(other=list(FEATURES)), "parquet")
    assert "2 columns of lists: 'embedding', 'other'; name one with --column" in refused(file)
    encoded(file, "--column", "other")
    file = write(lists().assign(embedding=[list(row) for row in FEATURES[:-1]] + [[0.5]]), "parquet")
    assert "has 1 numbers in row 59, the rows before have 6" in refused(file)
    bad = FEATURES.copy()
    bad[7, 2] = np.nan
    assert "has a list with a null (or NaN, in pandas) in row 7" in refused(
        write(lists().assign(embedding=list(bad)), "parquet")
    )
    np.save("bad.npy", bad)
    assert "NaN or infinity in row 7" in refused("bad.npy")
    words = write(table, "csv")
    lines = Path(words).read_text().splitlines()
    fields = lines[20].split(",")
    Path(words).write_text("\n".join([*lines[:20], ",".join([*fields[:2], "nothing", *fields[3:]]), *lines[21:]]))
    assert "column 'x0' is of type text" in refused(words, "--column", "x*")
    pandas = pytest.importorskip("pandas")
    for index in (True, False):  # names 0, 1, 2 ...
        pandas.DataFrame(FEATURES).to_csv("numbers.csv", index=index)
        encoded("numbers.csv", *(("--column", "0,1,2,3,4,5") if index else ()))
    message = refused("features", "--column", "x")
    assert "is a .npy file, which has no columns with names" in message


def test_files_that_hold_no_features(fails: Callable[..., str], model: Hasher, tmp_path: Path) -> None:
    Path("labels.txt").write_text("cat\ndog\n")
    HammingIndex(8).save("index")
    message = fails("encode", "model.safetensors", "labels.txt", "--out", "o.npy")
    assert message.startswith("labels.txt has no column of embeddings (lists of floats, or columns of floats)")
    message = fails("encode", "model.safetensors", "index", "--out", "o.npy")
    assert message == "index is a folder; an index is opened with HammingIndex.open\n"
    np.savez(tmp_path / "a.npz", codes=np.zeros(3), ids=np.zeros(3))
    message = fails("encode", "model.safetensors", f"{tmp_path}/a.npz", "--out", "o.npy")
    assert message.endswith("a.npz holds 2 arrays (codes, ids), must hold one; save the array that you need as .npy\n")
    message = fails("encode", "model.safetensors", "model.safetensors", "--out", "o.npy")
    assert message.startswith("model.safetensors is a fasthash model (safetensors), which cannot be read")
    pickled = str(tmp_path / "pickled.npy")
    np.save(pickled, np.array([{}, []], dtype=object), allow_pickle=True)
    assert "is a .npy file of Python objects" in fails("encode", "model.safetensors", pickled, "--out", "o.npy")
    whole = Path("features.npy").read_bytes()
    for length in (5, 100, len(whole) - 1):
        (tmp_path / "cut.npy").write_bytes(whole[:length])
        message = fails("encode", "model.safetensors", f"{tmp_path}/cut.npy", "--out", "o.npy")
        assert f"{tmp_path}/cut.npy is not a whole .npy file of numbers" in message
    (tmp_path / "cut.npy").write_bytes(b"")
    message = fails("encode", "model.safetensors", f"{tmp_path}/cut.npy", "--out", "o.npy")
    assert message == f"{tmp_path}/cut.npy is empty, it has no bytes\n"
    assert not Path("o.npy").exists()


def test_targets_from_tables(run: Callable[..., Any], fails: Callable[..., str]) -> None:
    pandas = pytest.importorskip("pandas")
    np.save("features.npy", FEATURES)
    hot = np.eye(3, dtype=np.int64)[CLASSES]
    file = write(pandas.DataFrame({"a": hot[:, 0], "b": hot[:, 1], "c": hot[:, 2]}), "csv")
    run("train", "features.npy", "--targets", file, *TRAIN, "m.safetensors")
    file = write(lists().assign(hot=list(hot)), "parquet")
    run("train", "features.npy", "--targets", file, "--target-column", "hot", *TRAIN, "m.safetensors")
    run("train", "features.npy", "--targets", file, *TRAIN, "m.safetensors")  # the list of floats
    run("train", file, "--targets", file, "--val-features", file, "--val-labels", file, *TRAIN, "m.safetensors")
    message = fails(
        "train", "features.npy", "--targets", "features.npy", "--target-column", "x", *TRAIN, "m.safetensors"
    )
    assert "--target-column names a column" in message


def test_index_commands_read_tables(run: Callable[..., Any], fails: Callable[..., str], capsys: Any) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    codes = [code.tobytes() for code in RNG.integers(0, 256, (ROWS, 8), np.uint8)]
    table = pandas.DataFrame({"key": IDS, "a": codes, "b": codes[::-1]})
    table.to_parquet("codes")
    assert "name one with --column" in fails("index", "build", "codes", "--out", "i")
    assert "has no column 'c' (--column" in fails("index", "build", "codes", "--column", "c", "--out", "i")
    run("index", "build", "codes", "--column", "a", "--id-column", "key", "--out", "i")
    assert HammingIndex.open("i").get(IDS).tobytes() == b"".join(codes)
    assert main(["index", "build", "codes", "--column", "a", "--out", "numbered"]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith(
        "fasthash: warning: HammingIndex.build: codes has no column 'id', so the rows are numbered; 'key'"
    )
    assert "pass --id-column 'key' to use it" in warning
    table.assign(key=IDS + 1000).to_parquet("more")
    added = run("index", "add", "i", "more", "--column", "b", "--id-column", "key")
    assert (added["added"], added["codes"], added["first_id"]) == (ROWS, 2 * ROWS, int(IDS.min()) + 1000)
    assert run("index", "remove", "i", "more", "--id-column", "key")["removed"] == ROWS
    Path("ids.txt").write_text("".join(f"{id}\n" for id in IDS[:5]))
    assert run("index", "remove", "i", "ids.txt")["removed"] == 5
    Path("hashes.txt").write_text("".join(f"{code.hex()}\n" for code in codes))
    Path("ids.csv").write_text("id\n" + "".join(f"{id}\n" for id in IDS))
    run("index", "build", "hashes.txt", "--ids", "ids.csv", "--out", "j")
    assert HammingIndex.open("j").get(IDS).tobytes() == b"".join(codes)
    run("index", "add", "j", "hashes.txt", "--format", "hex")
    message = fails("index", "build", "hashes.txt", "--out", "k", "--format", "npy")
    assert message == "hashes.txt is a text file, but --format 'npy' was given; omit --format\n"
    assert "string, ids must be integers >= 0" in fails(
        "index", "build", write(lists().assign(id=NAMES), "parquet"), "--out", "k"
    )
    message = fails("index", "build", "ids.txt", "--out", "k", "--bits", "8")
    assert not Path("k").exists() or list(Path("k").iterdir()) == [Path("k/lock")]
