"""GraphHasher: reads edges, follows them, mixes codes and outputs, recommends, keeps and takes up what it learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

import fasthash
from fasthash import GraphHasher, hamming_distances, pack_bits
from fasthash.train import NotFittedError, loop
from fasthash.train.edges import Edges, read_edges
from fasthash.train.hash_gnn import (
    SLOPE,
    Graph,
    GraphEncoder,
    LinkBatches,
    LinkLoss,
    RowOutputs,
    beta_of,
    mixed,
)

USERS, ITEMS = 30, 40
QUICK: dict[str, Any] = {"bits": 16, "epochs": 4, "batch_size": 64, "progress": False}


def groups(seed: int = 0, edges: int = 400) -> NDArray[np.int64]:
    """Users and items of two groups, by parity; all edges are inside a group, and some repeat."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, USERS, edges)
    return np.column_stack([users, 2 * rng.integers(0, ITEMS // 2, edges) + users % 2])


@pytest.fixture(scope="module")
def hasher() -> GraphHasher:
    return GraphHasher(**{**QUICK, "epochs": 20}).fit(groups(), shape=(USERS, ITEMS))


def same_codes(a: GraphHasher, b: GraphHasher) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.encode(), b.encode(), strict=True))


@pytest.mark.parametrize(
    ("start", "rise", "wanted"),
    [(0.0, 0.02, [0, 0, 0.02, 0.02, 0.04]), (0.5, 0.3, [0.5, 0.5, 0.8, 0.8, 1.0]), (1.0, 0.0, [1, 1, 1, 1, 1])],
)
def test_beta_rises_after_every_second_epoch(start: float, rise: float, wanted: list[float]) -> None:
    assert [beta_of(epoch, start, rise) for epoch in range(5)] == pytest.approx(wanted)
    batches = LinkBatches(Edges(groups(), (USERS, ITEMS)), 2, batch_size=1000, seed=0, start=start, rise=rise)
    seen = []
    for epoch in range(5):
        batches.set_epoch(epoch)
        seen += [float(beta) for _, beta in batches]
    assert seen == pytest.approx(wanted)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_whole_rows_are_mixed_a_user_with_their_item(beta: float) -> None:
    torch.manual_seed(0)
    z = torch.rand(4000, 5, 8) * 1.8 - 0.9
    found = mixed(z, torch.tensor(beta))
    codes = torch.where(z > 0, 1.0, -1.0)
    as_code, as_output = (found == codes).all(-1), (found == z).all(-1)
    assert bool((as_code ^ as_output).all()), "a row is all code or all output"
    assert torch.equal(as_code[:, 0], as_code[:, 1])
    assert as_code.float().mean(0) == pytest.approx([beta] * 5, abs=0.04)
    if beta == 0.3:  # the others have draws of their own
        together = (as_code[:, 1:, None] & as_code[:, None, 1:]).float().mean(0)
        assert together[~torch.eye(4, dtype=torch.bool)].numpy() == pytest.approx(np.full(12, beta**2), abs=0.03)


def test_the_gradient_of_a_code_is_that_of_its_output() -> None:
    z = torch.randn(3, 4, 8, requires_grad=True)
    weights = torch.randn(3, 4, 8)
    (mixed(z, torch.tensor(1.0)) * weights).sum().backward()
    assert z.grad is not None
    assert torch.equal(z.grad, weights)


def test_an_output_of_zero_is_the_bit_0() -> None:
    assert mixed(torch.zeros(1, 3, 2), torch.tensor(1.0)).tolist() == [[[-1.0, -1.0]] * 3]


def test_loss_is_the_formula() -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 5, 8, dtype=torch.float64, requires_grad=True)
    p, q = (x[:, 0] * x[:, 1]).sum(-1), (x[:, :1] * x[:, 2:]).sum(-1)
    entropy = (torch.log1p((-p).exp()).sum() + torch.log1p(q.exp()).sum()) / (6 * 4)
    ranking = torch.log1p((q - p[:, None]).exp()).mean()
    torch.testing.assert_close(LinkLoss(0.3)(x, torch.tensor(0.0)), ranking + 0.3 * entropy)
    assert torch.autograd.gradcheck(lambda z: LinkLoss(0.3)(z, torch.tensor(0.0)), x)


def by_loops(encoder: GraphEncoder, edges: Edges, layers: int) -> tuple[Tensor, Tensor]:
    linked = np.zeros(edges.shape, bool)
    linked[edges.users, edges.items] = True

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, SLOPE * x)

    def mean(x: Tensor, rows: NDArray[np.bool_]) -> Tensor:
        return x[torch.from_numpy(rows)].mean(0) if rows.any() else torch.zeros(x.shape[1])

    def node(side: str, number: int, path: str, depth: int) -> Tensor:
        if depth == 0:
            return leaky(encoder.inputs[side](encoder.ids[side].weight[number]))
        other = "item" if side == "user" else "user"
        size = edges.shape[other == "item"]
        near = torch.stack([node(other, n, path, depth - 1) for n in range(size)])
        rows = linked[number] if side == "user" else linked[:, number]
        both = torch.cat([node(side, number, path, depth - 1), mean(near, rows)])
        return leaky(encoder.layers[path][depth - 1](both))

    found = []
    for side, size, depth in (("user", edges.shape[0], layers), ("item", edges.shape[1], max(layers - 1, 0))):
        found.append(torch.stack([encoder.heads[side](node(side, n, side, depth)).tanh() for n in range(size)]))
    return found[0], found[1]


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_the_network_is_the_formula_also_of_isolated_nodes(layers: int) -> None:
    torch.manual_seed(layers)
    edges = Edges(np.array([[0, 0], [0, 3], [1, 3], [3, 1]]), (4, 5))  # user 2, items 2 and 4: alone
    encoder = GraphEncoder(edges.shape, 6, layers)
    with torch.no_grad():
        for found, wanted in zip(encoder(Graph(edges)), by_loops(encoder, edges, layers), strict=True):
            torch.testing.assert_close(found, wanted)


def test_gradients_go_through_the_edges() -> None:
    graph = Graph(Edges(np.array([[0, 0], [0, 2], [1, 2]]), (3, 4))).double()
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(graph.to_users, x)
    assert torch.autograd.gradcheck(graph.to_items, y)


def test_rows_hold_a_user_and_items() -> None:
    edges = Edges(groups(), (USERS, ITEMS))
    encoder, graph = GraphEncoder(edges.shape, 8, 2), Graph(edges)
    users, items = encoder(graph)
    found = RowOutputs(encoder, graph)(torch.tensor([[3, 5, 7], [2, 0, 1]]))
    torch.testing.assert_close(
        found, torch.stack([torch.stack([users[3], *items[[5, 7]]]), torch.stack([users[2], *items[[0, 1]]])])
    )


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_items_without_an_edge_are_found_by_their_rank(data: st.DataObject) -> None:
    users, items = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 7))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, users - 1), st.integers(0, items - 1)), min_size=1))
    edges = Edges(np.array(pairs), (users, items))
    every = np.arange(items)
    for user in range(users):
        mine = edges.holds(np.array(user), every)
        assert mine.tolist() == [(user, item) in pairs for item in every]
        rest = every[~mine]
        if len(rest):
            draws = (np.arange(len(rest)) + 0.5)[None] / len(rest)
            assert edges.others(np.array([user]), draws)[0].tolist() == rest.tolist()
            assert edges.others(np.array([user]), np.array([[0.0, 1 - 2.0**-53]])).tolist() == [[rest[0], rest[-1]]]


def test_an_epoch_has_every_edge_once_and_negatives_that_are_none() -> None:
    pairs = np.concatenate([groups(), np.column_stack([np.full(ITEMS, 5), np.arange(ITEMS)])])  # user 5 has them all
    edges = Edges(pairs, (USERS, ITEMS))
    batches = LinkBatches(edges, 3, batch_size=50, seed=0)
    first, second = (torch.cat([rows for rows, _ in batches]).numpy() for _ in range(2))
    wanted = {tuple(pair) for pair in pairs.tolist() if pair[0] != 5}
    assert not np.array_equal(first, second)
    for rows in (first, second):
        assert len(rows) == len(wanted)
        assert {tuple(pair) for pair in rows[:, :2].tolist()} == wanted
        assert not edges.holds(rows[:, :1], rows[:, 2:]).any()
    assert max(len(rows) for rows, _ in batches) <= 50


def test_the_kinds_of_edges_are_one() -> None:
    pairs = groups()
    once = np.unique(pairs, axis=0)
    values = np.ones(len(once))
    matrix = sparse.coo_array((values, tuple(once.T)), shape=(USERS, ITEMS))
    zero = sparse.coo_array(([0.0, *values], ([0, *once[:, 0]], [1, *once[:, 1]])), shape=(USERS, ITEMS))
    shape = (USERS, ITEMS)
    wanted = read_edges(once, shape, "f")
    for edges, given_shape in (
        (pairs, shape),
        (pairs.tolist(), shape),
        (pairs[::-1].astype(np.uint16), shape),
        (torch.from_numpy(pairs), shape),
        (matrix, None),
        (matrix.tocsr(), shape),
        (sparse.csc_matrix(matrix), None),
        (zero, None),  # an entry of 0 is no edge
    ):
        found = read_edges(edges, given_shape, "f")
        assert np.array_equal(found.keys, wanted.keys)
        assert found.shape == shape
    assert read_edges([[2, 5], [0, 1]], None, "f").shape == (3, 6)


def test_codes_find_the_items_of_the_own_group(hasher: GraphHasher) -> None:
    everyone = np.arange(USERS)
    for rescore in (0, 2):
        ids = hasher.recommend(everyone, 5, rescore=rescore).ids
        assert (ids[ids >= 0] % 2 == np.repeat(everyone % 2, (ids >= 0).sum(1))).mean() > 0.95


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 1},
        {"negatives": 3},
        {"beta": 1.0},
        {"beta_rise": 0.9},
        {"cross_entropy": 2.0},
        {"epochs": 5},
        {"batch_size": 50},
        {"lr": 1e-3},
        {"weight_decay": 1.0},
    ],
    ids=str,
)
def test_every_setting_counts(change: dict[str, float]) -> None:
    plain, changed = (GraphHasher(**{**QUICK, **more}).fit(groups()).transform().users for more in ({}, change))
    assert not np.array_equal(plain, changed)


def test_edges_that_repeat_count_once() -> None:
    pairs = groups()
    once = GraphHasher(**QUICK).fit(np.unique(pairs, axis=0), shape=(USERS, ITEMS))
    assert same_codes(once, GraphHasher(**QUICK).fit(np.concatenate([pairs, pairs]), shape=(USERS, ITEMS)))


def test_the_seed_decides_and_global_generators_stay() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    a, b, c = (GraphHasher(**QUICK, seed=seed).fit(groups()) for seed in (0, 0, 1))
    assert same_codes(a, b)
    assert not same_codes(a, c)
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002


def test_users_without_items_are_the_average_one() -> None:
    hasher = GraphHasher(**QUICK).fit(groups(), shape=(USERS + 2, ITEMS + 1))
    users, items = hasher.transform()
    assert users.shape == (USERS + 2, 16)
    assert items.shape == (ITEMS + 1, 16)
    assert np.isfinite(users).all()
    assert np.isfinite(items).all()
    np.testing.assert_array_equal(users[-1], users[-2])
    ids = hasher.module_.ids["user"].weight
    torch.testing.assert_close(ids[-1], ids[:USERS].mean(0))
    assert (hasher.recommend(USERS, ITEMS + 1).ids >= 0).all()


def test_other_edges_give_other_codes_without_training() -> None:
    hasher = GraphHasher(**{**QUICK, "epochs": 20}).fit(groups(), shape=(USERS + 1, ITEMS))
    before = hasher.transform()
    again = hasher.transform(groups())
    np.testing.assert_allclose(before.users, again.users, atol=1e-6)
    more = np.concatenate([groups(), [[USERS, item] for item in range(1, 20, 2)]])  # a new user's first items: odd ones
    codes = hasher.encode(more)
    distances = hamming_distances(codes.users[USERS:], codes.items)[0]
    assert distances[1::2].mean() + 2 < distances[::2].mean()
    np.testing.assert_array_equal(before.users, hasher.transform().users)


def test_outputs_are_in_0_to_1_and_codes_their_rounding(hasher: GraphHasher) -> None:
    for outputs, codes in zip(hasher.transform(), hasher.encode(), strict=True):
        assert outputs.dtype == np.float32
        assert 0 <= outputs.min() < outputs.max() <= 1
        np.testing.assert_array_equal(pack_bits(outputs), codes)
    tiny = GraphHasher(**QUICK).fit(groups())
    tiny._users[0, 0], tiny._items[0, 1] = 1e-12, -1e-12  # beside 0.5 in float32
    for outputs, codes in zip(tiny.transform(), tiny.encode(), strict=True):
        np.testing.assert_array_equal(pack_bits(outputs), codes)
    assert tiny.recommend(0, 1).distances.tolist() == [[by_sorting(tiny, 0, 1, 0)[0][0]]]
    tensors = hasher.encode(torch.from_numpy(groups()))
    assert all(isinstance(part, Tensor) for part in tensors)


def by_sorting(hasher: GraphHasher, user: int, k: int, rescore: int) -> list[tuple[float, int]]:
    codes, bits = hasher.encode(), hasher.bits
    mine = {item for u, item in groups().tolist() if u == user}
    distances = hamming_distances(codes.users[user : user + 1], codes.items)[0]
    ranked = sorted((int(d), item) for item, d in enumerate(distances) if item not in mine)
    if rescore:
        x, y = (2 * side - 1 for side in hasher.transform())
        near = ranked[: k * rescore]
        ranked = sorted((float(np.float32((bits - y[item] @ x[user]) / 2)), item) for _, item in near)
    return (ranked + [(bits + 1, -1)] * k)[:k]


@pytest.mark.parametrize("rescore", [0, 1, 3])
@pytest.mark.parametrize("k", [1, 7, ITEMS])
def test_recommendations_are_the_nearest_that_are_not_the_users(hasher: GraphHasher, k: int, rescore: int) -> None:
    everyone = np.arange(USERS)
    found = hasher.recommend(everyone, k, rescore=rescore)
    assert found.ids.dtype == np.int64
    assert found.distances.dtype == (np.float32 if rescore else np.int32)
    known = {tuple(pair) for pair in groups().tolist()}
    for user in everyone:
        wanted = by_sorting(hasher, int(user), k, rescore)
        distance_of = {item: distance for distance, item in by_sorting(hasher, int(user), ITEMS, rescore)}
        # Float sums differ in their last digits: items that are as near may change places.
        assert len(set(found.ids[user].tolist())) == len({item for _, item in wanted})
        own = [distance_of[item] for item in found.ids[user].tolist()]
        np.testing.assert_allclose(own, [d for d, _ in wanted], rtol=1e-5)
        np.testing.assert_allclose(found.distances[user], own, rtol=1e-5)
        if not rescore:
            assert found.ids[user].tolist() == [item for _, item in wanted]
        assert not any((user, item) in known for item in found.ids[user].tolist())


def test_blocks_of_users_change_nothing(hasher: GraphHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = hasher.recommend(np.arange(USERS), 7)
    monkeypatch.setattr("fasthash.train.graph_hasher.BLOCK", 100)
    for a, b in zip(hasher.recommend(np.arange(USERS), 7), wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_forms_of_users(hasher: GraphHasher) -> None:
    wanted = hasher.recommend([3, 1], 4).ids
    assert wanted.shape == (2, 4)
    np.testing.assert_array_equal(hasher.recommend(3, 4).ids, wanted[:1])
    as_tensor = hasher.recommend(torch.tensor([3, 1], dtype=torch.int32), 4).ids
    assert isinstance(as_tensor, Tensor)
    np.testing.assert_array_equal(as_tensor.numpy(), wanted)
    assert hasher.recommend([], 4).ids.shape == (0, 4)
    assert hasher.recommend([], 4, rescore=2).distances.shape == (0, 4)


def test_a_file_gives_the_same_codes(hasher: GraphHasher, tmp_path: Path) -> None:
    hasher.save(tmp_path / "model.safetensors")
    loaded = GraphHasher.load(tmp_path / "model.safetensors")
    assert same_codes(loaded, hasher)
    assert loaded.get_params() == {**hasher.get_params(), "progress": None}
    assert loaded.shape_ == hasher.shape_
    assert loaded.history_.losses == hasher.history_.losses
    for rescore in (0, 2):
        found, wanted = (each.recommend(np.arange(USERS), 5, rescore=rescore) for each in (loaded, hasher))
        np.testing.assert_array_equal(found.ids, wanted.ids)
    for a, b in zip(loaded.transform(groups(1)), hasher.transform(groups(1)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_damaged_and_other_files_are_refused(hasher: GraphHasher, tmp_path: Path) -> None:
    from fasthash._checkpoint import GRAPH, load_checkpoint, save_checkpoint

    path = tmp_path / "model.safetensors"
    hasher.save(path)
    tensors, content = load_checkpoint(path, GRAPH)
    for change, message in (
        ({"shape": [USERS, ITEMS - 10]}, "damaged"),
        ({"shape": [USERS + 1, ITEMS]}, "damaged"),
        ({"settings": {**content["settings"], "bits": 0}}, "bits must be between 1 and 4096, got 0"),
        ({"settings": {"unknown": 1}}, "damaged"),
        ({"losses": None}, "damaged"),
    ):
        save_checkpoint(path, dict(tensors), {**content, **change}, GRAPH)
        with pytest.raises(ValueError, match=f"GraphHasher.load: .*{message}"):
            GraphHasher.load(path)
    for name, value in (("edges", tensors["edges"].float()), ("users", tensors["users"][:-1])):
        save_checkpoint(path, {**tensors, name: value}, content, GRAPH)
        with pytest.raises(ValueError, match=r"GraphHasher.load: .* is damaged or not a fasthash GraphHasher"):
            GraphHasher.load(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"GraphHasher.load"):
        GraphHasher.load(path)
    with pytest.raises(FileNotFoundError, match=r"GraphHasher.load: .*nothing"):
        GraphHasher.load(tmp_path / "nothing")
    fasthash.Hasher(8, epochs=1, progress=False).fit(np.random.default_rng(0).normal(size=(40, 8))).save(path)
    with pytest.raises(ValueError, match="is not a fasthash GraphHasher: its format is 'fasthash-hasher'"):
        GraphHasher.load(path)


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_goes_on_to_the_same_codes(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {**QUICK, "epochs": 6, "beta": 0.2, "beta_rise": 0.3}
    wanted = GraphHasher(**quick).fit(groups())
    epoch, done = loop._epoch, []

    def interrupted(*arguments: Any) -> None:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(1)
        epoch(*arguments)

    monkeypatch.setattr(loop, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        GraphHasher(**quick, run_dir=tmp_path).fit(groups())
    monkeypatch.setattr(loop, "_epoch", epoch)
    resumed = GraphHasher(**quick, run_dir=tmp_path).fit(groups())
    assert same_codes(resumed, wanted)
    assert resumed.history_.losses == wanted.history_.losses
    assert same_codes(GraphHasher.load(tmp_path / "model.safetensors"), wanted)
    assert same_codes(
        GraphHasher(**quick, run_dir=tmp_path).fit(groups()), wanted
    )  # a finished run is not trained again
    with pytest.raises(ValueError, match=r"holds a run with data.edges"):
        GraphHasher(**quick, run_dir=tmp_path).fit(groups(1))
    with pytest.raises(ValueError, match=r"holds a run with graph_hasher.negatives 10, got 3"):
        GraphHasher(**quick, run_dir=tmp_path, negatives=3).fit(groups())


def test_settings_are_those_of_an_estimator() -> None:
    from sklearn.base import clone

    hasher = GraphHasher(8, layers=1, seed=3)
    assert repr(hasher) == "GraphHasher(bits=8, layers=1, seed=3)"
    assert clone(hasher).get_params() == hasher.get_params()
    assert hasher.set_params(layers=0) is hasher
    assert hasher.layers == 0
    with pytest.raises(ValueError, match=r"GraphHasher.set_params: 'layer' is not one of bits, layers"):
        hasher.set_params(layer=1)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("bits", 0, "bits must be between 1 and 4096, got 0"),
        ("layers", 9, "layers must be between 0 and 8, got 9"),
        ("negatives", 0, "negatives must be at least 1, got 0"),
        ("beta", 1.5, "beta must be >= 0 and <= 1, got 1.5"),
        ("beta_rise", -0.1, "beta_rise must be >= 0 and <= 1, got -0.1"),
        ("cross_entropy", -1, "cross_entropy must be >= 0 and finite, got -1"),
        ("epochs", 0, "epochs must be at least 1, got 0"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("lr", 0, "lr must be > 0 and finite, got 0"),
        ("weight_decay", -1, "weight_decay must be >= 0 and finite, got -1"),
        ("seed", -1, r"seed must be between 0 and \d+, got -1"),
    ],
)
def test_settings_have_limits(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^GraphHasher.fit: {message}"):
        GraphHasher(**{setting: value}).fit(groups())


@pytest.mark.parametrize(
    ("edges", "shape", "error", "message"),
    [
        (np.zeros((3, 3), int), None, ValueError, r"edges must have shape \[E, 2\] \(user, item\), got shape \[3, 3\]"),
        (np.zeros(4, int), None, ValueError, r"edges must have shape \[E, 2\] \(user, item\), got shape \[4\]"),
        (np.zeros((3, 2)), None, TypeError, "edges must be integers, got float64"),
        (np.zeros((3, 2), bool), None, TypeError, "edges must be integers, got bool"),
        ("text", None, TypeError, "edges must be a numeric array or tensor, got str of <U4"),
        (np.zeros((0, 2), int), None, ValueError, "edges must hold at least 1 edge, got 0"),
        (sparse.coo_array((4, 5)), None, ValueError, "edges must hold at least 1 edge, got 0"),
        (np.array([[0, 0], [-1, 2]]), None, ValueError, "users of edges must be at least 0, got -1"),
        (np.array([[0, 0], [4, 2]]), (4, 3), ValueError, "users of edges must be below 4, the number of users, got 4"),
        (np.array([[0, 0], [1, 3]]), (4, 3), ValueError, "items of edges must be below 3, the number of items, got 3"),
        (np.array([[0, 0]]), (4, 3, 2), TypeError, r"shape must be two integers \(users, items\), got \(4, 3, 2\)"),
        (np.array([[0, 0]]), (0, 3), ValueError, r"shape\[0\] must be at least 1, got 0"),
        (np.array([[0, 0]]), (2**40, 2**40), ValueError, r"users x items must be at most 2\*\*62, got"),
        (
            np.array([[0, 0], [2, 2000]]),
            None,
            ValueError,
            r"items of edges must be numbered from 0 .*, got 2000 among 2",
        ),
        (sparse.coo_array(np.eye(3)), (3, 4), ValueError, r"shape must be that of the matrix, \(3, 3\), got \(3, 4\)"),
        (np.array([[0, 0], [0, 1]]), None, ValueError, "edges must leave some user at least 1 item without an edge"),
    ],
)
def test_edges_have_limits(edges: Any, shape: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^GraphHasher.fit: {message}"):
        GraphHasher(**QUICK).fit(edges, shape=shape)


def test_other_edges_have_the_same_nodes(hasher: GraphHasher) -> None:
    for method in ("transform", "encode"):
        message = f"^GraphHasher.{method}: users of edges must be below {USERS}, the number of users, got {USERS}"
        with pytest.raises(ValueError, match=message):
            getattr(hasher, method)([[USERS, 0]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": ITEMS + 1}, ValueError, f"k must be between 1 and {ITEMS} .the number of items., got {ITEMS + 1}"),
        ({"k": 0}, ValueError, f"k must be between 1 and {ITEMS} .the number of items., got 0"),
        ({"rescore": -1}, ValueError, "rescore must be at least 0, got -1"),
        ({"users": [0, USERS]}, ValueError, f"users must be between 0 and {USERS - 1}, got 0..{USERS}"),
        ({"users": [-1]}, ValueError, f"users must be between 0 and {USERS - 1}, got -1..-1"),
        ({"users": [0.5]}, TypeError, "users must be an integer or integers"),
        ({"users": [True]}, TypeError, "users must be an integer or integers"),
        ({"users": [[0]]}, TypeError, "users must be an integer or integers"),
    ],
)
def test_recommend_has_limits(
    hasher: GraphHasher, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^GraphHasher.recommend: {message}"):
        hasher.recommend(**{"users": [0], "k": 3, **arguments})


@pytest.mark.parametrize("method", ["transform", "encode", "recommend", "save"])
def test_methods_before_fit(method: str) -> None:
    arguments = {"recommend": (0,), "save": ("model.safetensors",)}.get(method, ())
    with pytest.raises(NotFittedError, match=f"^GraphHasher.{method}: call fit first"):
        getattr(GraphHasher(), method)(*arguments)
