"""HashGNN: a network along user-item edges, codes and outputs mixed in training, its loss and its batches.

Tan, Liu, Zhao, Yang, Zhou & Hu, "Learning to Hash with Graph Neural Networks for Recommender Systems" (WWW 2020, arXiv
2003.01917). Marks: [code] read in the authors' public code; [ours] a choice of this package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu, softplus

from fasthash.train.edges import Edges

EMBEDDING, WIDTH, SLOPE = 120, 68, 0.2  # of an id, of a layer, of leaky ReLU where it is negative [code]
EPOCHS_OF_A_BETA = 2  # [code]


class _Sums(torch.autograd.Function):
    """matrix @ x, with its transposed at hand: torch's gradient of a sparse product transposes in each step."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.transposed @ gradient


class NeighbourMeans(nn.Module):
    """x [M, F] of one side -> for each node of the other side the mean of its neighbours [N, F]; 0 where it has none.

    matrix: 1 for each edge, sparse [N, M], and its transposed.
    """

    matrix: Tensor
    transposed: Tensor
    counts: Tensor

    def __init__(self, matrix: Tensor, transposed: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("transposed", transposed, persistent=False)
        self.register_buffer("counts", matrix.crow_indices().diff().clamp(min=1)[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        sums: Tensor = _Sums.apply(self.matrix, self.transposed, x)  # type: ignore[no-untyped-call]
        return sums / self.counts


class Graph(nn.Module):
    """The edges as the network follows them: means of a user's items, and of an item's users.

    >>> graph = Graph(Edges(np.array([[0, 0], [0, 2]]), (2, 3)))
    >>> graph.to_users(torch.tensor([[1.0], [5.0], [3.0]])).tolist()
    [[2.0], [0.0]]
    """

    def __init__(self, edges: Edges) -> None:
        super().__init__()
        matrix, transposed = edges.matrix(), edges.transposed()
        self.to_users, self.to_items = NeighbourMeans(matrix, transposed), NeighbourMeans(transposed, matrix)


class GraphEncoder(nn.Module):
    """Graph -> outputs of all users [U, bits] and all items [I, bits], in (-1, 1); bit d of a node is output d > 0.

        x = leaky(W0 e + b0)              e: a learned vector of 120 for each id; one W0 for users, one for items
        x <- leaky(W [x, mean of the neighbours' x])       a layer, 68 wide, without a bias
        z = tanh(W' x + b')                                one W' for users, one for items

    all [code], but for the mean over all neighbours [ours]: the code draws 10 or 5 of them anew in each step. Users
    have `layers` layers, items one less (the code: 2 and 1), with weights of their own; 0 layers: no graph. On the way
    to the users' last layer, items go through the users' layers [code].

    >>> edges = Edges(np.array([[0, 0], [1, 2]]), (2, 3))
    >>> [side.shape for side in GraphEncoder((2, 3), bits=8, layers=2)(Graph(edges))]
    [torch.Size([2, 8]), torch.Size([3, 8])]
    """

    def __init__(self, shape: tuple[int, int], bits: int, layers: int) -> None:
        super().__init__()
        sides = ("user", "item")
        self.ids = nn.ModuleDict({side: nn.Embedding(n, EMBEDDING) for side, n in zip(sides, shape, strict=True)})
        self.inputs = nn.ModuleDict({side: nn.Linear(EMBEDDING, WIDTH) for side in sides})
        depth = {"user": layers, "item": max(layers - 1, 0)}
        self.layers = nn.ModuleDict(
            {side: nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH, bias=False) for _ in range(depth[side])) for side in sides}
        )
        self.heads = nn.ModuleDict({side: nn.Linear(WIDTH, bits) for side in sides})
        self.float()  # whatever torch's default type is
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.xavier_uniform_(parameter)

    def forward(self, graph: Graph) -> tuple[Tensor, Tensor]:
        users, items = (leaky_relu(self.inputs[side](self.ids[side].weight), SLOPE) for side in ("user", "item"))
        last_users = _through(self.layers["user"], users, items, graph.to_users, graph.to_items)
        last_items = _through(self.layers["item"], items, users, graph.to_items, graph.to_users)
        return self.heads["user"](last_users).tanh(), self.heads["item"](last_items).tanh()

    @torch.no_grad()
    def give_mean_id(self, users: Tensor) -> None:
        """Gives these users, boolean [U], whom training never saw, the mean vector of the others [ours]."""
        vectors: Tensor = self.ids["user"].get_parameter("weight")
        vectors[users] = vectors[~users].mean(0)


def _through(layers: Any, own: Tensor, near: Tensor, to_own: NeighbourMeans, to_near: NeighbourMeans) -> Tensor:
    """Nodes behind all layers. Their neighbours go through all but the last."""
    for left, layer in zip(reversed(range(len(layers))), layers, strict=True):
        before = own
        own = leaky_relu(layer(torch.cat([own, to_own(near)], dim=1)), SLOPE)
        if left:
            near = leaky_relu(layer(torch.cat([near, to_near(before)], dim=1)), SLOPE)
    return own


class RowOutputs(nn.Module):
    """rows int64 [B, 1 + n], a user and n items each -> their outputs [B, 1 + n, bits], along one graph."""

    def __init__(self, encoder: GraphEncoder, graph: Graph) -> None:
        super().__init__()
        self.encoder, self.graph = encoder, graph

    def forward(self, rows: Tensor) -> Tensor:
        users, items = self.encoder(self.graph)
        return torch.cat([users[rows[:, :1]], items[rows[:, 1:]]], dim=1)


def beta_of(epoch: int, start: float, rise: float) -> float:
    """beta, how probable codes are in the place of outputs, in an epoch, the first of which is 0.

    It rises by `rise` after every second epoch, up to 1 [code]; start is 0 and rise 0.02 there.

    >>> [beta_of(epoch, 0.0, 0.02) for epoch in (0, 1, 2, 3, 4, 99, 100, 500)]
    [0.0, 0.0, 0.02, 0.02, 0.04, 0.98, 1.0, 1.0]
    """
    return min(1.0, start + rise * (epoch // EPOCHS_OF_A_BETA))


def mixed(z: Tensor, beta: Tensor) -> Tensor:
    """Outputs z [B, 2 + n, bits]; with probability beta a whole row of bits, never a single one, becomes its code +-1.

    One draw for a user and their item (places 0 and 1), a draw of its own for each of the n other items [code]. The
    gradient of a code is that of its output.

    >>> z = torch.tensor([[[0.2, -0.3], [0.1, 0.4], [-0.6, 0.5]]])
    >>> mixed(z, torch.tensor(1.0)).tolist()
    [[[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]]
    """
    drawn = torch.rand(z.shape[0], z.shape[1] - 1, device=z.device) < beta
    as_code = torch.cat([drawn[:, :1], drawn], dim=1)[..., None]
    codes = torch.where(z > 0, 1.0, -1.0).to(z.dtype)
    return torch.where(as_code, z + (codes - z).detach(), z)


class LinkLoss(nn.Module):
    """cross_entropy x CE + BPR of mixed rows [B, 2 + n, bits]: a user, an item of theirs, n items that are not [code].

        p = x_user . x_item,  q_k = x_user . x_k
        CE  = mean over the B p's and B n q's of the logistic loss, p: 1, q: 0
        BPR = mean softplus(-(p - q_k))

    The code multiplies CE by 0.1. The paper's text may have a hinge in the place of BPR [memory: medium].

    >>> loss = LinkLoss(0.1)
    >>> loss(torch.ones(1, 3, 8), torch.tensor(0.0)).shape
    torch.Size([])
    """

    def __init__(self, cross_entropy: float) -> None:
        super().__init__()
        self.cross_entropy = cross_entropy

    def forward(self, z: Tensor, beta: Tensor) -> Tensor:
        x = mixed(z, beta)
        scores = (x[:, 1:] @ x[:, 0, :, None])[..., 0]
        linked = torch.zeros_like(scores)
        linked[:, 0] = 1.0
        ranking = softplus(scores[:, 1:] - scores[:, :1]).mean()
        return ranking + self.cross_entropy * binary_cross_entropy_with_logits(scores, linked)


class LinkBatches:
    """Batches (rows int64 [B, 2 + n], beta): a user, an item of theirs and n that are not; all edges in an epoch.

    Edges come in a new order in each epoch. Users who have every item are left out: there is none to rank below theirs.
    beta: `beta_of` the epoch. The generator is in the checkpoints of `fasthash.train.train`.

    >>> batches = LinkBatches(Edges(np.array([[0, 0], [1, 2]]), (2, 3)), 1, batch_size=2, seed=0, start=0.5)
    >>> [(rows.shape, float(beta)) for rows, beta in batches]
    [(torch.Size([2, 3]), 0.5)]
    """

    def __init__(
        self, edges: Edges, negatives: int, *, batch_size: int, seed: int, start: float = 0.0, rise: float = 0.0
    ) -> None:
        self.edges, self.negatives, self.start, self.rise = edges, negatives, start, rise
        self.rows = np.flatnonzero(edges.counts[edges.users] < edges.shape[1])
        self.batches = math.ceil(len(self.rows) / batch_size)
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = 0

    @property
    def sampler(self) -> LinkBatches:
        """Whom the loop tells the number of an epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        beta = torch.tensor(beta_of(self.epoch, self.start, self.rise))
        order = torch.randperm(len(self.rows), generator=self.generator).numpy()
        for part in np.array_split(self.rows[order], self.batches):
            draws = torch.rand(len(part), self.negatives, generator=self.generator, dtype=torch.float64).numpy()
            users = self.edges.users[part]
            rows = np.column_stack([users, self.edges.items[part], self.edges.others(users, draws)])
            yield torch.from_numpy(rows), beta
