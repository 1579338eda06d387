"""Codes from files as people have them: text, CSV, arrays of numbers, Parquet and Arrow from pandas and polars."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_folders import content, random_codes

from fasthash.codes import unpack_bits
from fasthash.index import HammingIndex

CODES = random_codes(1000)
NUMBERS = CODES.view(">u8").reshape(-1).astype(np.uint64)
HEX = [code.tobytes().hex() for code in CODES]
IDS = np.random.default_rng(1).permutation(10**6)[:1000]


def built(folder: Path, file: Path, **options: Any) -> HammingIndex:
    return HammingIndex.build(folder / "index", file, overwrite=True, **options)


def check(folder: Path, file: Path, ids: Any = None, codes: Any = CODES, **options: Any) -> None:
    expected = HammingIndex(8 * codes.shape[1])
    expected.add(codes, ids)
    found = built(folder, file, **options)
    assert content(found)[:3] == content(expected)[:3]


def refused(folder: Path, file: Path, *words: str, **options: Any) -> str:
    with pytest.raises((ValueError, TypeError)) as error:
        HammingIndex.build(folder / "refused", file, **options)
    message = str(error.value)
    assert message.startswith("HammingIndex.build: ")
    assert "\n" not in message
    for word in words:
        assert word in message
    assert {entry.name for entry in (folder / "refused").glob("*")} <= {"lock"}
    return message


def text(path: Path, lines: list[str], end: str = "\n", **options: Any) -> Path:
    path.write_bytes("".join(line + end for line in lines).encode(options.get("encoding", "utf-8")))
    return path


# Arrays


@pytest.mark.parametrize("name", ["codes.npy", "codes", "codes.dat", "codes.parquet", "codes.u8bin", "codes.csv"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_the_content_decides_and_not_the_name(tmp_path: Path, name: str, kind: str) -> None:
    with open(tmp_path / name, "wb") as file:
        np.save(file, CODES) if kind == "npy" else np.savez(file, codes=CODES)
    check(tmp_path, tmp_path / name)
    check(tmp_path, tmp_path / name, bits=64, format=kind)
    refused(tmp_path, tmp_path / name, "was given; omit format=", format="raw", bits=64)
    refused(tmp_path, tmp_path / name, "was given; omit format=", format="faiss")


@pytest.mark.parametrize("dtype", ["<u8", ">u8", "<i8", ">i8"])
def test_numbers_of_64_bits(tmp_path: Path, dtype: str) -> None:
    values = NUMBERS.view(np.int64).astype(dtype) if "i" in dtype else NUMBERS.astype(dtype)
    np.save(tmp_path / "codes.npy", values)
    check(tmp_path, tmp_path / "codes.npy")
    check(tmp_path, tmp_path / "codes.npy", bits=64)
    check(tmp_path, values[:, None].astype(values.dtype.newbyteorder("=")))  # a column of a data frame
    check(tmp_path, values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("=")))


def test_bit_0_is_the_most_significant_one(tmp_path: Path) -> None:
    first = np.array([[128, 0, 0, 0, 0, 0, 0, 0]], np.uint8)
    for name, array in (
        ("unsigned", np.array([2**63], np.uint64)),
        ("signed", np.array([-(2**63)])),
        ("bits", np.arange(64)[None] == 0),
    ):
        np.save(tmp_path / name, array)
        check(tmp_path, tmp_path / f"{name}.npy", codes=first)
    check(tmp_path, text(tmp_path / "hex", ["8000000000000000"]), codes=first, format="hex")
    check(tmp_path, text(tmp_path / "0x", ["0x8000000000000000"]), codes=first)
    check(tmp_path, text(tmp_path / "decimal", [str(2**63)]), codes=first)
    check(tmp_path, text(tmp_path / "negative", [str(-(2**63))]), codes=first)


@pytest.mark.parametrize(("dtype", "width"), [("u2", 2), ("u4", 4), ("i4", 4), ("i2", 2)])
def test_smaller_numbers(tmp_path: Path, dtype: str, width: int) -> None:
    own = np.ascontiguousarray(CODES[:, :width])
    np.save(tmp_path / "codes.npy", own.view(f">u{width}").reshape(-1).astype(f"u{width}").view(dtype))
    check(tmp_path, tmp_path / "codes.npy", codes=own)


def test_numbers_of_fewer_bits(tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", np.array([2**19, 1], np.uint64))
    index = built(tmp_path, tmp_path / "codes.npy", bits=20)
    assert index.bits == 20
    assert unpack_bits(index.get([0, 1]), 20).nonzero()[1].tolist() == [0, 19]
    for lines in (["80000", "00001"], ["800000", "000010"]):
        same = built(tmp_path, text(tmp_path / "codes.txt", lines), bits=20, format="hex")
        np.testing.assert_array_equal(same.get([0, 1]), [[128, 0, 0], [0, 0, 16]])
    np.save(tmp_path / "codes.npy", np.array([1, 2**20], np.uint64))
    refused(tmp_path, tmp_path / "codes.npy", "row 1 has 1048576", "from 0 to 2**20 - 1", bits=20)
    refused(tmp_path, tmp_path / "codes.npy", "numbers of 64 bits cannot be codes of 65 bits", bits=65)


def test_boolean_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "codes.npy", unpack_bits(CODES, 64).astype(bool)[:, :60])
    index = built(tmp_path, tmp_path / "codes.npy")
    assert index.bits == 60
    np.testing.assert_array_equal(unpack_bits(index.get(index.ids), 60), unpack_bits(CODES, 64)[:, :60])
    refused(tmp_path, tmp_path / "codes.npy", "one column for each of the 64 bits, got 60 columns", bits=64)


def test_arrays_that_are_no_codes(tmp_path: Path) -> None:
    for array, words in (
        (np.zeros((3, 4), np.int64), ("codes of type int64 must be [N]", "uint8 [N, bytes of a code]")),
        (np.zeros((3, 4), np.float32), ("got float32 of shape (3, 4)",)),
        (np.zeros(3, np.uint8), ("must be [N, bytes of a code], got shape (3,)",)),
        (np.zeros(3, bool), ("must be [N, bits]",)),
        (np.array(["ab", "cd"]), ("got <U2 of shape (2,)",)),
    ):
        np.save(tmp_path / "x.npy", array)
        refused(tmp_path, tmp_path / "x.npy", *words)
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    refused(tmp_path, tmp_path / "x.npy", "a .npy file of Python objects", "does not unpickle")
    np.savez(tmp_path / "two.npz", codes=CODES, ids=IDS)
    refused(tmp_path, tmp_path / "two.npz", "holds 2 arrays (codes, ids), must hold one")


def test_raw_only_where_asked_for(tmp_path: Path) -> None:
    (tmp_path / "codes.bin").write_bytes(CODES.tobytes())
    for options in ({}, {"bits": 64}, {"format": "raw"}):
        refused(tmp_path, tmp_path / "codes.bin", "format='raw'", **options)
    check(tmp_path, tmp_path / "codes.bin", format="raw", bits=64)
    (tmp_path / "codes.u8bin").write_bytes(np.array([1000, 8], "<u4").tobytes() + CODES.tobytes())
    check(tmp_path, tmp_path / "codes.u8bin")
    refused(tmp_path, tmp_path / "codes.u8bin", "is a .u8bin file, but format='npy' was given", format="npy")
    (tmp_path / "codes.u8bin").rename(tmp_path / "other")
    refused(tmp_path, tmp_path / "other", "has an unknown format")
    check(tmp_path, tmp_path / "other", format="u8bin")
    refused(tmp_path, text(tmp_path / "t", HEX), "is a text file, but format='raw' was given", format="raw", bits=8)
    refused(tmp_path, tmp_path / "t", "format must be one of 'npy', ", "got 'zip'", format="zip")


# Text


@pytest.mark.parametrize(
    "lines",
    [
        lambda: HEX,
        lambda: [code.upper() for code in HEX],
        lambda: [f"0x{code}" for code in HEX],
        lambda: [f"0X{code.upper()}" if number % 2 else code for number, code in enumerate(HEX)],
        lambda: [*HEX, "", "  "],
        lambda: [f"  {code} " for code in HEX],
        lambda: ["phash", *HEX],
        lambda: [str(number) for number in NUMBERS],
        lambda: [str(number) for number in NUMBERS.view(np.int64)],
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_hashes_one_a_line(tmp_path: Path, lines: Any, end: str, encoding: str) -> None:
    for name in ("hashes.txt", "hashes", "hashes.csv"):
        check(tmp_path, text(tmp_path / name, lines(), end, encoding=encoding))


def test_lines_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasthash.index.exchange.code_files._TABLE_ROWS", 7)
    check(tmp_path, text(tmp_path / "codes.txt", HEX))
    lines = [f"{id},{number}" for id, number in zip(IDS, NUMBERS, strict=True)]
    check(tmp_path, text(tmp_path / "codes.csv", ["id,code", *lines]), IDS)
    refused(
        tmp_path, text(tmp_path / "codes.txt", [*HEX[:500], HEX[0][:-2], *HEX]), "line 501 has", "14 hexadecimal digits"
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["ab12", "ab1"], ("line 2 has 'ab1' of 3 hexadecimal digits, but codes of 16 bits have 4",)),
        (["ab12", "ab1234"], ("line 2", "one width")),
        (["ab12", "xy12"], ("line 2 has 'xy12', which is not a hexadecimal code",)),
        (["ab12", "", "ab34"], ("line 2 is empty",)),
        (["# hashes", "ab34"], ("line 1 has '# hashes', which is not a code",)),
        (["z000000000000000", "ab34"], ("line 1 has 'z000000000000000'", "pass column=")),
        (["ab1", "ab2"], ("the first value 'ab1' has 3 hexadecimal digits, must have an even number", "bits=")),
        (["12", str(2**64)], ("line 2", "must be below 2**64")),
        (["12", "1234", "ab"], ("line 3 has 'ab', which is not a decimal number",)),
        (["1234567812345678", "8765432187654321"], ("format='hex'", "format='decimal'")),
        (["01" * 32] * 3, ("64 digits 0 and 1", "numpy.packbits")),
        (['{"code": 5}'], ("is a JSON file",)),
        (["<html>"], ("is an HTML or XML file",)),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, lines: list[str], words: tuple[str, ...]) -> None:
    refused(tmp_path, text(tmp_path / "codes.txt", lines), *words)


def test_digits_alone(tmp_path: Path) -> None:
    """What decides between hexadecimal and decimal."""
    lines = ["1234567812345678", "8765432187654321"]
    file = text(tmp_path / "codes.txt", lines)
    as_hex = np.array([list(bytes.fromhex(line)) for line in lines], np.uint8)
    as_decimal = np.array([list(int(line).to_bytes(8, "big")) for line in lines], np.uint8)
    check(tmp_path, file, codes=as_hex, format="hex")
    check(tmp_path, file, codes=as_decimal, format="decimal")
    refused(tmp_path, file, "format='hex'", bits=64)
    assert built(tmp_path, text(file, [*lines, "abcdefabcdefabcd"])).get([0]).tobytes() == as_hex[0].tobytes()
    assert built(tmp_path, text(file, [*lines, "1"])).get([0]).tobytes() == as_decimal[0].tobytes()
    assert built(tmp_path, text(file, [*lines[:1] * 100, "0x" + lines[0]])).get([0]).tobytes() == as_hex[0].tobytes()
    assert built(tmp_path, text(file, [line * 2 for line in lines])).bits == 128  # too long for a decimal one
    assert built(tmp_path, text(file, ["12345678", "12345670"]), bits=24, format="decimal").bits == 24
    assert built(tmp_path, text(file, ["1234567812345678901"])).bits == 64  # an odd number of digits
    refused(tmp_path, file, "decimal codes have at most 64 bits", format="decimal", bits=65)


def test_utf_16_needs_its_mark(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        file = text(tmp_path / "codes.txt", HEX, encoding=encoding)
        refused(tmp_path, file, f"text in {encoding.upper()} without a byte order mark", "UTF-8")
    (tmp_path / "latin").write_bytes("Größe\n".encode("latin-1"))
    refused(tmp_path, tmp_path / "latin", "has an unknown format")
    (tmp_path / "late").write_bytes(b"abcd\n" * 100_000 + b"\xff\xfe\n")
    refused(tmp_path, tmp_path / "late", "is not UTF-8 text after line ")


# CSV


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("name", ["codes.csv", "codes.tsv", "codes.txt", "codes"])
@pytest.mark.parametrize("values", [HEX, [str(number) for number in NUMBERS]], ids=["hex", "decimal"])
def test_csv(tmp_path: Path, delimiter: str, name: str, values: list[str]) -> None:
    lines = [delimiter.join(("id", "name", "code"))]
    lines += [delimiter.join((str(id), f"cat {id}", code)) for id, code in zip(IDS, values, strict=True)]
    for encoding in ("utf-8", "utf-16"):
        check(tmp_path, text(tmp_path / name, lines, "\r\n", encoding=encoding), IDS)


def test_csv_columns(tmp_path: Path) -> None:
    lines = [f"{id},{id % 7},{code},{code[::-1]}" for id, code in zip(IDS, HEX, strict=True)]
    file = text(tmp_path / "codes.csv", ["key,label,phash,dhash", *lines])
    refused(tmp_path, file, "2 columns that could be the codes: 'phash', 'dhash'", "column=")
    check(tmp_path, file, IDS, column="phash", id_column="key")
    refused(tmp_path, file, "has no column 'pash' (column=)", "did you mean 'phash'?", column="pash")
    refused(tmp_path, file, "has no column 'id' (id_column=)", column="phash", id_column="id")
    refused(tmp_path, text(file, lines), "line 1", "add a header line")
    quoted = [f'"{id}","a, ""b""","{code}"' for id, code in zip(IDS, HEX, strict=True)]
    check(tmp_path, text(file, ['"id","name","hash"', *quoted]), IDS)
    refused(tmp_path, text(file, ["id,code", "1,abcd", "2"]), "line 3 has 1 fields, must have 2")
    refused(tmp_path, text(file, ["id,code", "1,abcd", "2,"]), "column 'code' has no value in line 3")
    refused(tmp_path, text(file, ["id,code", "1,abcd", "2,abc"]), "column 'code': line 3 has 'abc'")
    refused(tmp_path, text(file, ["id,code", "1,abcd", "", "2,abcd"]), "line 3 is empty")
    refused(tmp_path, text(file, ["id,code,code", "1,abcd,ab"]), "code")
    refused(tmp_path, text(file, ["id,name", "1,x", "2,y"]), "no column that certainly holds codes", "'name' (text)")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["1.0", "2.0"], ("column 'id' is of type numbers with a decimal point", "ids must be integers >= 0")),
        (["a", "b"], ("column 'id' is of type text",)),
        (["-1", "2"], ("column 'id' has -1 in line 2, ids must be between 0 and 2**63 - 1",)),
        (["1", str(2**63)], (f"column 'id' has {2**63} in line 3",)),
        (["true", "false"], ("column 'id' is of type true and false",)),
    ],
)
def test_ids_of_csv_that_are_refused(tmp_path: Path, values: list[str], words: tuple[str, ...]) -> None:
    lines = [f"{id},{code}" for id, code in zip(values, HEX, strict=False)]
    file = text(tmp_path / "codes.csv", ["id,code", *lines])
    refused(tmp_path, file, *words)


def test_text_that_looks_like_ids(tmp_path: Path) -> None:
    lines = [f"img_{id}.png,{code}" for id, code in zip(IDS, HEX, strict=True)]
    file = text(tmp_path / "codes.csv", ["image_id,code", *lines])
    with pytest.warns(
        UserWarning, match="'image_id' looks like ids, but is of type text and not of integers: pass your own"
    ):
        check(tmp_path, file)
    refused(tmp_path, file, "column 'image_id' is of type text, ids must be integers >= 0", id_column="image_id")


def test_columns_that_look_like_ids(tmp_path: Path) -> None:
    for name in ("ID", "Id", "image_id", "imageId", "index", "Unnamed: 0", "ids2_id"):
        lines = [f"{id},{code}" for id, code in zip(IDS, HEX, strict=True)]
        file = text(tmp_path / "codes.csv", [f"{name},code", *lines])
        with pytest.warns(UserWarning, match=f"has no column 'id', so the rows are numbered; '{name}' looks like ids"):
            check(tmp_path, file)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check(tmp_path, file, IDS, id_column=name)
            assert built(tmp_path, file, ids=np.arange(1000) + 5).ids[0] == 5
        both = [f"cat,{line}" for line in lines]
        refused(
            tmp_path,
            text(file, [f"id,{name},code", *both]),
            "'id' is of type text",
            f"possible: '{name}'",
            "id_column=",
        )


def test_bits_in_bytes_are_not_codes(tmp_path: Path) -> None:
    bits = unpack_bits(CODES, 64).astype(np.uint8)
    np.save(tmp_path / "bits.npy", bits)
    refused(tmp_path, tmp_path / "bits.npy", "hold only 0 and 1, which may be bits", "numpy.packbits", "bits=512")
    refused(
        tmp_path, tmp_path / "bits.npy", "codes of 64 bits have 8 bytes, got 64 bytes in each row; pack bits", bits=64
    )
    check(tmp_path, tmp_path / "bits.npy", codes=bits, bits=512)
    np.save(tmp_path / "bits.npy", bits.astype(np.int64))
    refused(tmp_path, tmp_path / "bits.npy", "codes of type int64 must be [N]", "numpy.packbits")


# Parquet and Arrow


FORMS = (
    *("binary", "large_binary", "binary_view", "fixed_binary", "list", "large_list", "fixed_list", "list_int64"),
    *("list_bool", "uint64", "int64", "string", "large_string", "string_view", "dictionary", "decimal text"),
)


def arrow_columns() -> dict[str, Any]:
    pa = pytest.importorskip("pyarrow")
    values = [code.tobytes() for code in CODES]
    return {
        "binary": pa.array(values, pa.binary()),
        "large_binary": pa.array(values, pa.large_binary()),
        "binary_view": pa.array(values, pa.binary_view()),
        "fixed_binary": pa.array(values, pa.binary(8)),
        "list": pa.array(CODES.tolist(), pa.list_(pa.uint8())),
        "large_list": pa.array(CODES.tolist(), pa.large_list(pa.uint8())),
        "fixed_list": pa.array(CODES.tolist(), pa.list_(pa.uint8(), 8)),
        "list_int64": pa.array(CODES.tolist(), pa.list_(pa.int64())),
        "list_bool": pa.array(unpack_bits(CODES, 64).astype(bool).tolist(), pa.list_(pa.bool_())),
        "uint64": pa.array(NUMBERS),
        "int64": pa.array(NUMBERS.view(np.int64)),
        "string": pa.array(HEX),
        "large_string": pa.array(HEX, pa.large_string()),
        "string_view": pa.array(HEX, pa.string_view()),
        "dictionary": pa.array(HEX).dictionary_encode(),
        "decimal text": pa.array([str(number) for number in NUMBERS]),
    }


def write(table: Any, path: Path, kind: str) -> Path:
    pa = pytest.importorskip("pyarrow")
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(table, path, row_group_size=300)
    elif kind == "feather":
        pytest.importorskip("pyarrow.feather").write_feather(table, str(path))
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=170)
    return path


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream", "feather"])
@pytest.mark.parametrize("form", FORMS)
def test_arrow_columns(tmp_path: Path, kind: str, form: str) -> None:
    pa = pytest.importorskip("pyarrow")
    if kind == "parquet" and form.endswith("_view"):
        pytest.skip("pyarrow writes views as what they are views of")
    table = pa.table({"id": IDS, "name": ["x"] * 1000, "code": arrow_columns()[form], "score": [0.5] * 1000})
    file = write(table, tmp_path / "file", kind)
    check(tmp_path, file, IDS)
    check(tmp_path, file, IDS, column="code", id_column="id", bits=64)
    check(tmp_path, write(table.slice(3, 700), tmp_path / "sliced", kind), IDS[3:703], CODES[3:703])


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
@pytest.mark.parametrize("unsure", ["text", "float", "decimal", "timestamp", "bool", "dictionary", "date"])
def test_ids_that_cannot_be_ids(tmp_path: Path, kind: str, unsure: str) -> None:
    pa = pytest.importorskip("pyarrow")
    ids = {
        "text": pa.array(["a", "b"]),
        "float": pa.array([1.0, 2.0]),
        "decimal": pa.array([1, 2], pa.decimal128(5)),
        "timestamp": pa.array([1, 2], pa.timestamp("s")),
        "bool": pa.array([True, False]),
        "dictionary": pa.array(["a", "b"]).dictionary_encode(),
        "date": pa.array([1, 2], pa.date32()),
    }[unsure]
    codes = pa.array([b"abcd", b"efgh"], pa.binary(4))
    for name in ("id", "ids"):
        file = write(pa.table({name: ids, "code": codes}), tmp_path / "file", kind)
        refused(
            tmp_path, file, f"column '{name}' is of type {str(ids.type)[:7]}", "ids must be integers >= 0", "id_column="
        )
        given = built(tmp_path, file, ids=[7, 8])  # the way out that the message names
        assert given.ids.tolist() == [7, 8]
    file = write(pa.table({"id": ids, "image_id": [5, 6], "code": codes}), tmp_path / "file", kind)
    refused(tmp_path, file, "(possible: 'image_id')")
    assert built(tmp_path, file, id_column="image_id").ids.tolist() == [5, 6]
    refused(tmp_path, file, "column 'id' is of type", id_column="id")


def test_ids_of_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    codes = pa.array([b"abcd", b"efgh"], pa.binary(4))

    def table(ids: Any) -> Path:
        return write(pa.table({"id": ids, "code": codes}), tmp_path / "t.arrow", "arrow")

    assert built(tmp_path, table(pa.array([7, 5]).dictionary_encode())).ids.tolist() == [5, 7]
    assert built(tmp_path, table(pa.array([7, 5], pa.uint8()))).ids.tolist() == [5, 7]
    refused(tmp_path, table(pa.array([7, 2**63], pa.uint64())), f"column 'id' has {2**63} in row 1")
    refused(tmp_path, table(pa.array([-7, 3])), "column 'id' has -7 in row 0, ids must be between 0 and 2**63 - 1")
    refused(tmp_path, table(pa.array([7, None])), "column 'id' has a null in row 1")
    both = write(pa.table({"id": [1, 2], "ids": [3, 4], "code": codes}), tmp_path / "t.arrow", "arrow")
    refused(tmp_path, both, "columns 'id' and 'ids'", "id_column='ids'")
    assert built(tmp_path, both, id_column="ids").ids.tolist() == [3, 4]


def test_arrow_codes_that_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    for column, words in (
        (pa.array([b"abcd", b"abc"]), ("column 'c': row 1 has 3 bytes, codes of 32 bits have 4",)),
        (pa.array([[1, 2], [3]], pa.list_(pa.uint8())), ("row 1 has 1 bytes",)),
        (pa.array([[1, 2], [3, 256]]), ("row 1 has values outside 0 to 255",)),
        (pa.array([[1, 0], [0, 1]]), ("only 0 and 1", "numpy.packbits")),
        (pa.array([[1, 0] * 32], pa.list_(pa.uint8())), ("only 0 and 1", "make them boolean")),
        (pa.array([[1, 2], [3, None]], pa.list_(pa.uint8())), ("row 1 has a list with a null",)),
        (pa.array(["abcd", "ab"]), ("row 1 has 'ab'",)),
        (pa.array(["1234", "1235"]), ("format='hex'",)),
        (pa.array([1.5, 2]), ("is of type double, which holds no codes",)),
        (pa.array([[0.5], [0.5]]), ("which holds no codes",)),
        (pa.array([True, False]), ("which holds no codes",)),
    ):
        for kind in ("parquet", "arrow"):
            refused(tmp_path, write(pa.table({"c": column}), tmp_path / "t", kind), *words, column="c")
    file = write(pa.table({"a": [1, 2], "b": [3, 4]}), tmp_path / "t", "arrow")
    refused(tmp_path, file, "2 columns that could be the codes: 'a', 'b'")
    assert built(tmp_path, file, column="b").bits == 64
    refused(tmp_path, file, "needs text; omit format=", column="a", format="hex")
    refused(tmp_path, file, "is an Arrow file, but format='parquet' was given", format="parquet")
    (tmp_path / "cut").write_bytes(write(pa.table({"a": [1, 2]}), tmp_path / "t", "parquet").read_bytes()[:-9])
    refused(tmp_path, tmp_path / "cut", "is not a whole Parquet file")


def test_export_filter_in_pandas_build(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    index = HammingIndex(64)
    index.add(CODES, IDS)
    for suffix in ("parquet", "feather"):
        index.export(tmp_path / f"codes.{'arrow' if suffix == 'feather' else suffix}")
        if suffix == "parquet":
            frame = pandas.read_parquet(tmp_path / "codes.parquet")
        else:
            frame = pandas.read_feather(tmp_path / "codes.arrow")
        kept = frame[frame["id"] % 3 == 0]
        order = np.argsort(IDS)[np.sort(IDS) % 3 == 0]
        if suffix == "parquet":
            kept.to_parquet(tmp_path / "kept")
        else:
            kept.reset_index(drop=True).to_feather(tmp_path / "kept")
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
        kept.set_index("id").to_parquet(tmp_path / "kept")
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
        kept.assign(code=[code.hex() for code in kept["code"]]).to_csv(tmp_path / "kept")
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
        kept.to_csv(tmp_path / "kept", index=False)  # b'...'
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
    kept.drop(columns="id").to_parquet(tmp_path / "kept")
    with pytest.warns(UserWarning, match="'__index_level_0__' looks like ids"):
        check(tmp_path, tmp_path / "kept", None, CODES[order])


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_an_index_of_pandas_that_is_a_range(tmp_path: Path, kind: str) -> None:
    """pandas writes such an index to the metadata only, and makes one of every evenly spaced index."""
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    parquet, feather = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.feather")
    file = tmp_path / "file"

    def write(table: Any) -> None:
        table = table if isinstance(table, arrow.Table) else arrow.Table.from_pandas(table)
        parquet.write_table(table, file) if kind == "parquet" else feather.write_feather(table, str(file))

    frame = pandas.DataFrame({"id": np.arange(7, 1007), "code": [code.tobytes() for code in CODES]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(frame.set_index(pandas.RangeIndex(7, 1007, name="id"))[["code"]])
        check(tmp_path, file, np.arange(7, 1007))
        check(tmp_path, file, np.arange(7, 1007), id_column="id")
        write(frame[["code"]].set_index(pandas.RangeIndex(4000, 0, -4, name="ids")))
        check(tmp_path, file, np.arange(4000, 0, -4))
        write(frame[100:])  # a column "id" comes first
        check(tmp_path, file, np.arange(107, 1007), CODES[100:])
        write(frame[["code"]].set_index(pandas.RangeIndex(1000, name="photo")))  # the row numbers
        check(tmp_path, file)
    write(frame[["code"]][100:])
    with pytest.warns(UserWarning, match="rows are numbered; '__index_level_0__' looks like ids: pass id_column="):
        check(tmp_path, file, codes=CODES[100:])
    check(tmp_path, file, np.arange(100, 1000), CODES[100:], id_column="__index_level_0__")
    table = arrow.Table.from_pandas(frame.set_index(pandas.RangeIndex(7, 1007, name="id"))[["code"]])
    for stale in (table.slice(10, 20), arrow.concat_tables([table, table])):  # pyarrow keeps the old metadata
        write(stale)
        refused(tmp_path, file, "index 'id' is a range of 1000 values", f"has {len(stale)} rows", "reset_index", "ids=")
    write(table.replace_schema_metadata({"pandas": "no json"}))
    check(tmp_path, file)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_an_index_of_pandas_under_any_name_is_told(tmp_path: Path, kind: str) -> None:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    parquet, feather = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow.feather")
    frame, file = pandas.DataFrame({"code": [code.tobytes() for code in CODES]}), tmp_path / "file"
    for values, words in ((IDS, "pass id_column='photo'"), ([f"{id}.png" for id in IDS], "but is of type ")):
        table = arrow.Table.from_pandas(frame.set_index(pandas.Index(values, name="photo")))
        parquet.write_table(table, file) if kind == "parquet" else feather.write_feather(table, str(file))
        with pytest.warns(UserWarning, match=f"rows are numbered; 'photo' looks like ids.*{words}"):
            check(tmp_path, file)
        if values is IDS:
            check(tmp_path, file, IDS, id_column="photo")


def test_pandas_lists_numbers_and_csv(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    for values in (list(CODES), [list(map(int, code)) for code in CODES], NUMBERS, NUMBERS.view(np.int64), HEX):
        frame = pandas.DataFrame({"id": IDS, "hash": values})
        frame.to_parquet(tmp_path / "file")
        check(tmp_path, tmp_path / "file", IDS)
        frame.to_csv(tmp_path / "file", index=False)
        check(tmp_path, tmp_path / "file", IDS)
        frame.to_csv(tmp_path / "file", sep="\t")
        check(tmp_path, tmp_path / "file", IDS)
        frame[["hash"]].to_csv(tmp_path / "file", index=False)
        check(tmp_path, tmp_path / "file")


def test_polars(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    index = HammingIndex(64)
    index.add(CODES, IDS)
    index.export(tmp_path / "codes.parquet")
    index.export(tmp_path / "codes.arrow")
    order = np.argsort(IDS)[np.sort(IDS) % 3 == 0]
    for frame in (polars.read_parquet(tmp_path / "codes.parquet"), polars.read_ipc(tmp_path / "codes.arrow")):
        kept = frame.filter(polars.col("id") % 3 == 0)
        kept.write_parquet(tmp_path / "kept")
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
        kept.write_ipc(tmp_path / "kept")
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
        kept.with_columns(polars.col("code").bin.encode("hex")).write_csv(tmp_path / "kept")
        check(tmp_path, tmp_path / "kept", IDS[order], CODES[order])
    lists = polars.Series(CODES.tolist(), dtype=polars.List(polars.UInt8))
    for values in (
        lists,
        lists.cast(polars.Array(polars.UInt8, 8)),
        NUMBERS,
        HEX,
        polars.Series(HEX, dtype=polars.Categorical),
    ):
        frame = polars.DataFrame({"id": IDS, "hash": values})
        for write_file in (frame.write_parquet, frame.write_ipc, frame.write_ipc_stream):
            write_file(tmp_path / "file")
            check(tmp_path, tmp_path / "file", IDS)


# Ids of a file beside it


def test_ids_from_any_file(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    np.save(tmp_path / "codes.npy", CODES)
    np.savez(tmp_path / "ids.npz", IDS)
    text(tmp_path / "ids.txt", [str(id) for id in IDS])
    text(tmp_path / "ids.csv", ["name,id", *(f"x,{id}" for id in IDS)])
    text(tmp_path / "one.csv", ["image", *(str(id) for id in IDS)])
    write(pa.table({"id": IDS, "x": IDS}), tmp_path / "ids.parquet", "parquet")
    for name in ("ids.npz", "ids.txt", "ids.csv", "one.csv", "ids.parquet"):
        assert (
            content(built(tmp_path, tmp_path / "codes.npy", ids=tmp_path / name))[:3]
            == content(built(tmp_path, tmp_path / "codes.npy", ids=IDS))[:3]
        )
    built(tmp_path, tmp_path / "codes.npy", ids=tmp_path / "ids.parquet", id_column="x")
    for name, lines, words in (
        ("a.txt", ["1", "x"], ("'x' in line 2",)),
        ("b.csv", ["a,b", "1,2"], ("has no column 'id' or 'ids'", "id_column=")),
        ("c.txt", ["1.5", "2"], ("1.5",)),
    ):
        refused(tmp_path, tmp_path / "codes.npy", *words, ids=text(tmp_path / name, lines))
