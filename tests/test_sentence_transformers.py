"""sentence-transformers: the loss modifier, the module of codes, the search; with the real library and a tiny model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="needs the extra [sentence-transformers]")

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig, BertModel, BertTokenizer

import fasthash
from fasthash.integration.sentence_transformers import (
    BinaryQuantizationLoss,
    HasherModule,
    linear_codes_module,
    semantic_search_fasthash,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "sentence-transformers.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.S | re.M)
WORDS = [f"word{number}" for number in range(40)]
FIRST = [f"word{a} word{a + 1}" for a in range(0, 32, 2)]
SECOND = [f"word{a + 1} word{a + 2} word{a}" for a in range(0, 32, 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small transformer with random weights, as transformers saves one."""
    path = tmp_path_factory.mktemp("model")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=45, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(path)
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.fixture
def model(folder: Path, one_thread: None) -> SentenceTransformer:
    transformer = Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, Pooling(32)], device="cpu")


def features(model: SentenceTransformer, *columns: list[str]) -> list[dict[str, Any]]:
    return [model.preprocess(column) for column in columns]


def gradients(loss: torch.nn.Module, model: SentenceTransformer, *columns: list[str], labels: Any = None) -> Any:
    model.zero_grad()
    value = loss(features(model, *columns), labels)
    value.backward()
    return value.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def losses_of(model: SentenceTransformer) -> list[tuple[torch.nn.Module, tuple[list[str], ...], Any]]:
    scores = torch.linspace(0, 1, len(FIRST))
    classes = torch.arange(len(FIRST)) // 2
    return [
        (losses.MultipleNegativesRankingLoss(model), (FIRST, SECOND), None),
        (losses.MultipleNegativesRankingLoss(model), (FIRST, SECOND, SECOND[::-1]), None),
        (losses.CoSENTLoss(model), (FIRST, SECOND), scores),
        (losses.CosineSimilarityLoss(model), (FIRST, SECOND), scores),
        (losses.TripletLoss(model), (FIRST, SECOND, SECOND[::-1]), None),
        (losses.BatchAllTripletLoss(model), (FIRST,), classes),
        (losses.MSELoss(model), (FIRST,), torch.randn(len(FIRST), 32)),
        (losses.MatryoshkaLoss(model, losses.CoSENTLoss(model), [32, 16]), (FIRST, SECOND), scores),
    ]


@pytest.mark.parametrize("number", range(8))
def test_wraps_any_loss(model: SentenceTransformer, number: int) -> None:
    """Without its terms it is the loss; with them the value is larger and the gradients differ; forward is restored."""
    torch.manual_seed(0)
    loss, columns, labels = losses_of(model)[number]
    plain, plain_gradient = gradients(loss, model, *columns, labels=labels)
    none = BinaryQuantizationLoss(model, loss, code_weight=0, listwise_weight=0, kl_weight=0)
    value, gradient = gradients(none, model, *columns, labels=labels)
    torch.testing.assert_close((value, gradient), (plain, plain_gradient))
    torch.manual_seed(0)
    value, gradient = gradients(BinaryQuantizationLoss(model, loss), model, *columns, labels=labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert not torch.allclose(gradient, plain_gradient)
    assert model.forward.__func__ is SentenceTransformer.forward


def test_value_is_the_sum_it_says(model: SentenceTransformer) -> None:
    loss = losses.MultipleNegativesRankingLoss(model)
    whole = BinaryQuantizationLoss(model, loss, code_weight=0.5, listwise_weight=2, kl_weight=0, saturation=3)
    value, _ = gradients(whole, model, FIRST, SECOND)
    with torch.no_grad():
        e, f = (model(column)["sentence_embedding"] for column in features(model, FIRST, SECOND))
        norm = torch.nn.functional.normalize
        code = lambda x: (3 * 32**0.5 * norm(x)).tanh()  # noqa: E731
        plain = lambda a, b: torch.nn.functional.cross_entropy(  # noqa: E731
            20 * norm(a) @ norm(b).T, torch.arange(len(a))
        )
        both = torch.cat([e, f])
        distance = (1 - norm(both) @ norm(both).T).clamp(min=0)
        listwise = fasthash.listwise_loss((code(both) + 1) / 2, distance, temperature_y=0.05, temperature_z=0.05)
        expected = plain(e, f) + 0.5 * plain(code(e), code(f)) + 2 * listwise
    torch.testing.assert_close(value, expected)


def test_cached_loss_has_the_same_value_and_gradient(model: SentenceTransformer) -> None:
    kwargs = {"kl_weight": 0.0, "listwise_weight": 0.7, "code_weight": 0.5}
    plain = BinaryQuantizationLoss(model, losses.MultipleNegativesRankingLoss(model), **kwargs)
    cached = BinaryQuantizationLoss(
        model, losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=5), **kwargs
    )
    expected = gradients(plain, model, FIRST, SECOND)
    torch.testing.assert_close(gradients(cached, model, FIRST, SECOND), expected, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(cached(features(model, FIRST, SECOND), None), expected[0])


def test_restores_forward_after_an_error(model: SentenceTransformer) -> None:
    class Failing(torch.nn.Module):
        def forward(self, features: Any, labels: Any) -> Any:
            raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        BinaryQuantizationLoss(model, Failing())(features(model, FIRST), None)
    assert "forward" not in vars(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"code_weight": -1}, "BinaryQuantizationLoss: code_weight must be >= 0 and finite, got -1"),
        ({"saturation": 0}, "BinaryQuantizationLoss: saturation must be > 0 and finite, got 0"),
        ({"temperature": float("nan")}, "BinaryQuantizationLoss: temperature must be"),
    ],
)
def test_bad_arguments(model: SentenceTransformer, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BinaryQuantizationLoss(model, losses.CoSENTLoss(model), **arguments)


def test_loss_must_be_a_module(model: SentenceTransformer) -> None:
    with pytest.raises(TypeError, match="loss must be a loss of sentence-transformers, got str"):
        BinaryQuantizationLoss(model, "mnrl")  # type: ignore[arg-type]


def test_training_brings_embeddings_nearer_to_their_codes(model: SentenceTransformer) -> None:
    """With a large weight of the KL loss, which asks for outputs near -1 and 1."""
    loss = BinaryQuantizationLoss(model, losses.MultipleNegativesRankingLoss(model), kl_weight=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def off() -> float:
        with torch.no_grad():
            e = torch.cat([model(column)["sentence_embedding"] for column in features(model, FIRST, SECOND)])
        return float((torch.nn.functional.normalize(e) * 32**0.5).abs().sub(1).abs().mean())

    before = off()
    for _ in range(60):
        optimizer.zero_grad()
        loss(features(model, FIRST, SECOND), None).backward()
        optimizer.step()
    assert off() < 0.9 * before


def test_ubinary_embeddings_are_codes(model: SentenceTransformer) -> None:
    embeddings = model.encode(FIRST)
    packed = model.encode(FIRST, precision="ubinary")
    np.testing.assert_array_equal(packed, fasthash.pack_bits(embeddings, threshold=0.0))
    signed = model.encode(FIRST, precision="binary")
    np.testing.assert_array_equal(fasthash.codes.from_signed(signed), packed)
    np.testing.assert_array_equal(fasthash.codes.to_signed(packed), signed)


def test_module_of_a_hasher_gives_its_codes(model: SentenceTransformer, tmp_path: Path) -> None:
    texts = FIRST + SECOND
    embeddings = model.encode(texts)
    hasher = fasthash.Hasher(bits=16, epochs=2, seed=0).fit(embeddings, np.arange(32) % 4)
    model.append(HasherModule(hasher))
    assert model.get_embedding_dimension() == 16
    codes = model.encode(texts, precision="ubinary")
    np.testing.assert_array_equal(codes, hasher.encode(embeddings))
    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu", trust_remote_code=True)
    np.testing.assert_array_equal(again.encode(texts, precision="ubinary"), codes)


def test_module_wants_a_fitted_hasher() -> None:
    with pytest.raises(TypeError, match="HasherModule: hasher must be a Hasher, got str"):
        HasherModule("model.safetensors")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="HasherModule: hasher is not fitted"):
        HasherModule(fasthash.Hasher(bits=16))


def test_a_rotation_is_a_module_that_gives_its_codes(model: SentenceTransformer, tmp_path: Path) -> None:
    texts = [f"{a} {b}" for a in WORDS[:20] for b in WORDS[20:]]
    embeddings = model.encode(texts)
    codes = fasthash.baselines.itq(embeddings, 24, seed=1)
    model.append(linear_codes_module(codes))
    np.testing.assert_allclose(model.encode(texts), codes.transform(embeddings), atol=1e-5)
    near = np.abs(codes.transform(embeddings)) < 1e-5  # bits that rounding may turn
    packed = model.encode(texts, precision="ubinary")
    differ = fasthash.unpack_bits(packed, 24) != fasthash.unpack_bits(codes.encode(embeddings), 24)
    assert not (differ & ~near).any()
    model.save(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    np.testing.assert_array_equal(again.encode(texts, precision="ubinary"), packed)
    with pytest.raises(TypeError, match="linear_codes_module: codes must be LinearCodes, got ndarray"):
        linear_codes_module(embeddings)  # type: ignore[arg-type]


# Search


@pytest.fixture(scope="module")
def corpus() -> np.ndarray[Any, Any]:
    rows = np.random.default_rng(0).normal(size=(300, 64)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_search_of_floats_is_that_of_faiss(corpus: np.ndarray[Any, Any]) -> None:
    pytest.importorskip("faiss")
    from sentence_transformers.util.quantization import semantic_search_faiss

    queries = corpus[:20] + 0.1
    expected = semantic_search_faiss(queries, corpus, top_k=7, rescore=False)[0]
    found = semantic_search_fasthash(queries, corpus, top_k=7)[0]
    for one, other in zip(found, expected, strict=True):
        assert [hit["corpus_id"] for hit in one] == [hit["corpus_id"] for hit in other]
        np.testing.assert_allclose([hit["score"] for hit in one], [hit["score"] for hit in other], rtol=1e-5)


@pytest.mark.parametrize("precision", ["ubinary", "binary"])
def test_search_of_codes_is_exact(corpus: np.ndarray[Any, Any], precision: str) -> None:
    packed = np.packbits(corpus > 0, axis=1)
    given = packed if precision == "ubinary" else fasthash.codes.to_signed(packed)
    queries = corpus[:20] + 0.1
    signs = np.where(corpus > 0, 1.0, -1.0)
    found, seconds, index = semantic_search_fasthash(
        queries, given, corpus_precision=precision, top_k=5, output_index=True
    )
    assert seconds > 0
    assert isinstance(index, fasthash.HammingIndex)
    for query, hits in zip(queries.astype(np.float64), found, strict=True):
        products = signs @ query
        best = np.argsort(-products.astype(np.float32), kind="stable")[:5]
        assert [hit["corpus_id"] for hit in hits] == best.tolist()
        np.testing.assert_allclose([hit["score"] for hit in hits], products[best], rtol=1e-6)
    by_hamming = semantic_search_fasthash(
        queries, corpus_index=index, corpus_precision=precision, top_k=5, rescore=False
    )[0]
    by_codes = semantic_search_fasthash(
        np.packbits(queries > 0, axis=1), corpus_index=index, corpus_precision=precision, top_k=5
    )[0]
    assert by_codes == by_hamming
    distances = (np.unpackbits(packed ^ np.packbits(queries[:1] > 0, axis=1), axis=1)).sum(1)
    assert by_hamming[0] == [
        {"corpus_id": int(i), "score": float(distances[i])} for i in np.argsort(distances, kind="stable")[:5]
    ]


def test_search_by_candidates_and_of_an_opened_index(corpus: np.ndarray[Any, Any], tmp_path: Path) -> None:
    index = fasthash.EmbeddingIndex("rabitq", refine="float32", metric="dot")
    index.add(corpus)
    index.save(tmp_path / "index")
    opened = fasthash.EmbeddingIndex.open(tmp_path / "index")
    found = semantic_search_fasthash(torch.from_numpy(corpus[:9]), corpus_index=opened, exact=False)[0]
    assert [hits[0]["corpus_id"] for hits in found] == list(range(9))
    assert len(semantic_search_fasthash(corpus[0], corpus_index=opened, top_k=1000)[0][0]) == 300


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"corpus_precision": "uint8"}, ValueError, "corpus_precision must be"),
        ({"top_k": 0}, ValueError, "top_k must be at least 1, got 0"),
        (
            {"corpus_embeddings": None},
            ValueError,
            "exactly one of corpus_embeddings and corpus_index must be given, got none",
        ),
        ({"ranges": np.zeros((2, 64))}, ValueError, "ranges must be None, because it is for uint8"),
        ({"corpus_precision": "ubinary"}, TypeError, "corpus_embeddings must be codes"),
        ({"corpus_index": fasthash.HammingIndex(64), "corpus_embeddings": None}, TypeError, "must be a EmbeddingIndex"),
    ],
)
def test_bad_search(
    corpus: np.ndarray[Any, Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"semantic_search_fasthash: .*{message}"):
        semantic_search_fasthash(**{"query_embeddings": corpus[:1], "corpus_embeddings": corpus, **arguments})


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return {"__name__": "page"}


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_page_runs(number: int, names: dict[str, Any]) -> None:
    """The blocks follow one another."""
    exec(compile(BLOCKS[number], PAGE.name, "exec"), names)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        assert (PAGE.parent / target.partition("#")[0]).exists(), target
