"""Scales on the command line: encode --scales, index --code-scale, and search --rescore all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fasthash import HammingIndex, Hasher, LinearDecoder, asymmetric_topk
from fasthash.baselines import GridCodes, LinearCodes, itq, rabitq
from fasthash.cli import main

MODELS = ["hasher", "itq", "rabitq"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings, and a model of each kind."""
    place = tmp_path_factory.mktemp("scales")
    X = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    np.save(place / "X.npy", X)
    np.save(place / "Q.npy", X[:7])
    Hasher(bits=8, epochs=1, progress=False).fit(X).save(place / "hasher")
    itq(X, 10).save(place / "itq")
    rabitq(X, 2).save(place / "rabitq")
    return place


@pytest.fixture
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("X.npy", "Q.npy", *MODELS):
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


def loaded(model: str) -> Hasher | LinearCodes | GridCodes:
    return {"hasher": Hasher, "itq": LinearCodes, "rabitq": GridCodes}[model].load(model)


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("fasthash: error: ").rstrip("\n")


@pytest.mark.parametrize(
    ("model", "metric"), [("hasher", "dot"), ("hasher", "cosine"), ("itq", "dot"), ("rabitq", "dot"), ("rabitq", "l2")]
)
def test_from_embeddings_to_answers(
    model: str, metric: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fasthash.cli.learn.ROWS", 128)
    encode = ["encode", model, "X.npy", "--out", "codes.npy", "--scales", "scales.npy", "--device", "cpu"]
    assert main([*encode, *([] if metric == "dot" else ["--metric", metric])]) == 0
    own, X = loaded(model), np.load("X.npy")
    options = {} if model == "itq" else {"metric": metric}
    codes, scales = own.encode(X), own.scales(X, own.encode(X), **options)
    assert np.array_equal(np.load("codes.npy"), codes)
    assert np.array_equal(np.load("scales.npy"), scales)
    np.save("first.npy", codes[:200])
    np.save("rest.npy", codes[200:])
    np.save("first_scales.npy", scales[:200])
    np.save("rest_scales.npy", scales[200:])
    build = ["index", "build", "first.npy", "--code-scale", "first_scales.npy", "--out", "index", "--model", model]
    capsys.readouterr()
    assert main(build) == 0
    assert " with scales" in capsys.readouterr().out
    assert main(["index", "add", "index", "rest.npy", "--code-scale", "rest_scales.npy"]) == 0
    capsys.readouterr()
    assert main(["index", "info", "index", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["code_scale"] is True
    assert np.array_equal(HammingIndex.open("index").code_scale_of(range(300)), scales)
    search = ["search", "index", "Q.npy", "--model", model, "-k", "4", "--rescore", "all", "--metric", metric, "--json"]
    assert main(search) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = asymmetric_topk(own.queries(X[:7], metric=metric), codes, 4, code_scale=scales, metric=metric)
    assert [row["ids"] for row in found] == wanted.ids.tolist()
    np.testing.assert_array_equal(np.array([row["distances"] for row in found], np.float32), wanted.distances)


def test_outputs_are_queries(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a model QUERIES are the queries; l1 is the default, and needs no scales."""
    assert main(["encode", "itq", "X.npy", "--out", "codes.npy"]) == 0
    assert main(["encode", "itq", "Q.npy", "--real", "--out", "real.npy"]) == 0
    assert main(["index", "build", "codes.npy", "--bits", "10", "--out", "index"]) == 0
    capsys.readouterr()
    assert main(["search", "index", "real.npy", "-k", "3", "--rescore", "all", "--json"]) == 0
    wanted = asymmetric_topk(np.load("real.npy"), np.load("codes.npy"), 3)
    assert [row["ids"] for row in json.loads(capsys.readouterr().out)] == wanted.ids.tolist()
    assert main(["search", "index", "Q.npy", "--model", "itq", "-k", "3", "--rescore", "all", "--json"]) == 0
    assert [row["ids"] for row in json.loads(capsys.readouterr().out)] == wanted.ids.tolist()


def test_codes_of_a_quantiser_are_searched(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "rabitq", "X.npy", "--out", "codes.npy"]) == 0
    assert main(["index", "build", "codes.npy", "--out", "index", "--model", "rabitq"]) == 0
    capsys.readouterr()
    assert main(["search", "index", "Q.npy", "--model", "rabitq", "-k", "1", "--json"]) == 0
    assert [row["ids"] for row in json.loads(capsys.readouterr().out)] == [[row] for row in range(7)]


def test_refusals(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "rabitq", "X.npy", "--out", "codes.npy", "--scales", "scales.npy"]) == 0
    assert main(["index", "build", "codes.npy", "--out", "index"]) == 0
    np.save("short.npy", np.load("scales.npy")[:9])
    np.save("floats.npy", np.load("scales.npy").astype(np.float32))
    np.save("far.npy", np.full((2, 16), 1e30, np.float32))
    encode, search = ("encode", "itq", "X.npy", "--out", "c.npy"), ("search", "index", "Q.npy")
    calls = [
        ((*encode, "--scales", "s.npy", "--real"),
         "encode: --scales cannot be used with --real, because outputs have no scales"),
        ((*encode, "--scales", "s.arrow"), "s.arrow: the suffix decides the format and must be .npy, got '.arrow'"),
        ((*encode, "--metric", "dot"), "encode: --metric needs --scales"),
        ((*encode, "--scales", "s.npy", "--metric", "l2"), "encode: --metric must be dot for a LinearCodes, got l2"),
        (("encode", "rabitq", "X.npy", "--real", "--out", "c.npy"),
         "encode: --real needs a Hasher or LinearCodes; codes of GridCodes are not rounded outputs"),
        (("encode", "rabitq", "far.npy", "--out", "c.npy", "--scales", "s.npy"),
         "far.npy: GridCodes.scales: a row of X must be at most 65504 times as far from the mean as the rows of the f"),
        (("index", "build", "codes.npy", "--out", "new", "--code-scale", "short.npy"),
         "300 codes need a code_scale each, got 9"),
        (("index", "build", "codes.npy", "--out", "new", "--code-scale", "floats.npy"),
         "floats.npy: scales must be float16 [N], got float32 of shape [300]"),
        (("index", "build", "codes.npy", "--out", "new", "--code-scale", "none.npy"), "none.npy: no such file"),
        (("index", "add", "index", "codes.npy", "--code-scale", "scales.npy"),
         "HammingIndex.add: the codes of this index have no code_scale each, got some"),
        ((*search, "--metric", "dot"), "search: --metric needs --rescore all, got --rescore 0"),
        ((*search, "--rescore", "some"), "search: argument --rescore: must be a whole number or all, got 'some'"),
        ((*search, "--rescore", "all", "--radius", "3"), "search: --radius cannot be used with --rescore"),
        ((*search, "--rescore", "all", "--model", "rabitq"),
         "rabitq: --metric must be dot or l2 for this model, got l1"),
    ]  # fmt: skip
    for command, message in calls:
        assert refused(capsys, *command).startswith(message)
    assert not Path("s.npy").exists()
    assert not Path("new/manifest.json").exists()


def test_nothing_is_left_where_a_row_is_refused(here: Path) -> None:
    X = np.load("X.npy")
    X[299] = 1e30
    np.save("last.npy", X)
    assert main(["encode", "rabitq", "last.npy", "--out", "c.npy", "--scales", "s.npy"]) == 2
    assert not Path("c.npy").exists()
    assert not Path("s.npy").exists()


@pytest.mark.parametrize("model", MODELS)
def test_a_decoder_of_codes(model: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--out", "codes.npy", "--scales", "scales.npy", "--decoder", "decoder.safetensors"]
    assert main(["encode", model, "X.npy", *files, "--device", "cpu"]) == 0
    assert "decoder.safetensors: their decoder" in capsys.readouterr().out
    own, X, Q = loaded(model), np.load("X.npy"), np.load("Q.npy")
    codes = own.encode(X)
    decoder = LinearDecoder.fit(X, codes, own.bits)
    scales = decoder.scales(X, codes)
    assert np.array_equal(np.load("codes.npy"), codes)
    assert np.array_equal(np.load("scales.npy"), scales)
    build = ["index", "build", "codes.npy", "--code-scale", "scales.npy", "--out", "index", "--bits", str(own.bits)]
    assert main(build) == 0
    search = ["search", "index", "Q.npy", "--model", "decoder.safetensors", "-k", "4"]
    capsys.readouterr()
    assert main([*search, "--rescore", "all", "--metric", "dot", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = asymmetric_topk(decoder.queries(Q), codes, 4, code_scale=scales, metric="dot")
    assert [row["ids"] for row in found] == expected.ids.tolist()
    message = refused(capsys, *search)
    assert message == "decoder.safetensors: a decoder needs --rescore all --metric dot"


def test_decoders_that_do_not_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", "codes.npy", "--decoder", "decoder.safetensors"]
    assert "--decoder needs --scales" in refused(capsys, "encode", "itq", "X.npy", *out)
    out += ["--scales", "scales.npy"]
    message = refused(capsys, "encode", "itq", "X.npy", *out, "--metric", "dot")
    assert "--metric cannot be used with --decoder" in message
    np.save("bad.npy", np.full((20, 16), np.nan, np.float32))
    assert "bad.npy: " in refused(capsys, "encode", "itq", "bad.npy", *out)
    assert not any(Path(name).exists() for name in ("codes.npy", "scales.npy", "decoder.safetensors"))
    assert main(["encode", "itq", "X.npy", *out]) == 0
    message = refused(capsys, "encode", "decoder.safetensors", "X.npy", "--out", "codes.npy")
    assert message.startswith("decoder.safetensors: must be a model that encodes, got a LinearDecoder")
