"""The loss of `AsymmetricHasher`, whose database codes are free variables, and how codes lower it, a bit at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fasthash.train.threads import own_threads

SWEEPS = 3  # over the bits, each time that codes are fitted


class AsymmetricLoss(nn.Module):
    """forward(z [B, K] outputs in [0, 1], rows int64 [B]) -> scalar: of the rows that a batch is of

        L   = L_r + quantization L_q + affinity L_a,  u = 2 z - 1
        L_r = (first |Y - B W1|^2 + second |Y' - B W2|^2 + ridge (|W1|^2 + |W2|^2)) / N
        L_q = mean_i sum_j A_ij |u_i - b_j|^2 / K
        L_a = sum_ij S_ij |u_i - u_j|^2 / (K B)

    B [N, K] are the codes of the N training rows, of -1 and 1: the buffer `codes`. Y [N, C] is one-hot, and
    Y' = (1 - Y) / (C - 1) says which classes a row is not of. A_ij = 1 / n_c for rows i and j of class c of n_c rows,
    else 0; with prior "row" A is the identity. S is the same of the batch and its own classes.

    `forward` has gradients for the network alone. `fit_codes` lowers L over W, then over B by coordinate descent, with
    the outputs as they are. No update of a bit of all codes raises L.

    codes: bool [N, K], what B begins with. y: int64 [N], of 0..C-1.

    Source: Lu, Wang, Zhou, Yan & Wen, "Deep asymmetric hashing with dual semantic regression and class structure
    quantization" (DSAH), arXiv 2110.12478, 2021. How sure: the abstract names class structure quantisation, a label
    mechanism for separability beside compactness, and a pairwise loss on an affinity graph; no formula and no code was
    found. All formulas here are ours, a reconstruction from these names, as are the weights. That codes are free
    variables, fitted by turns with the network, is ADSH's scheme (from memory).

    >>> loss = AsymmetricLoss(torch.rand(6, 8) < 0.5, torch.arange(6) % 3)
    >>> loss.fit_codes(torch.rand(6, 8))
    >>> loss(torch.rand(4, 8), torch.tensor([0, 5, 1, 2])).shape
    torch.Size([])
    """

    codes: Tensor
    y: Tensor
    groups: Tensor
    means: Tensor
    regression: Tensor

    def __init__(
        self,
        codes: Tensor,
        y: Tensor,
        *,
        first: float = 1.0,
        second: float = 1.0,
        ridge: float = 1.0,
        quantization: float = 1.0,
        affinity: float = 0.1,
        prior: str = "class",
    ) -> None:
        super().__init__()
        self.first, self.second, self.ridge = first, second, ridge
        self.quantization, self.affinity = quantization, affinity
        self.classes = int(y.max()) + 1
        self.register_buffer("codes", torch.where(codes, 1, -1).to(torch.int8))
        self.register_buffer("y", y, persistent=False)
        self.register_buffer("groups", y if prior == "class" else torch.arange(len(y)).to(y), persistent=False)
        self.register_buffer("means", self.group_means(self.codes.double()).float())  # A B, one row for each group
        self.register_buffer("regression", torch.zeros((), dtype=torch.float32))  # L_r

    def forward(self, z: Tensor, rows: Tensor) -> Tensor:
        u, bits = 2 * z - 1, z.shape[1]
        to_codes = (u * (u - 2 * self.means[self.groups[rows]])).sum(1) / bits + 1
        y = self.y[rows]
        same = (y[:, None] == y).to(u)
        to_others = 2 * (u - same @ u / same.sum(1, keepdim=True)).square().sum(1) / bits
        return self.regression + (self.quantization * to_codes + self.affinity * to_others).mean()

    @torch.no_grad()
    def fit_codes(self, z: Tensor) -> None:
        """Fits W, then the codes, to the outputs z [N, K] of all rows."""
        u, codes = 2 * z.double() - 1, self.codes.double()
        w1, w2 = self.regressions(codes)
        pull, gram = self.pull(u, w1, w2), self.gram(w1, w2)
        for _ in range(SWEEPS):
            before = codes.clone()
            for bit in range(codes.shape[1]):
                fit_bit(codes, bit, pull, gram)
            if torch.equal(before, codes):
                break
        self.codes.copy_(codes)
        self.means.copy_(self.group_means(codes))
        self.regression.copy_(self.regression_loss(codes, w1, w2))

    def regressions(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """W1 and W2 [K, C] that make L_r least for codes float64 [N, K] of -1 and 1: two ridge regressions."""
        square, eye = codes.T @ codes, torch.eye(codes.shape[1], dtype=codes.dtype, device=codes.device)
        sides = zip((self.first, self.second), self._products(codes), strict=True)
        w1, w2 = (torch.linalg.solve(weight * square + self.ridge * eye, weight * side) for weight, side in sides)
        return w1, w2

    def pull(self, u: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """[N, K], towards which L draws the codes: quantization A^T U / K + first Y W1^T + second Y' W2^T."""
        others = (w2.sum(1, keepdim=True) - w2) / max(self.classes - 1, 1)
        of_class = self.first * w1.T + self.second * others.T
        return self.quantization / u.shape[1] * self.group_means(u)[self.groups] + of_class[self.y]

    def gram(self, w1: Tensor, w2: Tensor) -> Tensor:
        """[K, K], how bits of a code depend on each other: first W1 W1^T + second W2 W2^T."""
        return self.first * w1 @ w1.T + self.second * w2 @ w2.T

    def regression_loss(self, codes: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """L_r, from sums over the rows."""
        square, rows = codes.T @ codes, len(codes)
        squares = (rows, 0 if self.classes == 1 else rows / (self.classes - 1))  # |Y|^2, |Y'|^2
        total = self.ridge * (w1.square().sum() + w2.square().sum())
        parts = zip((self.first, self.second), squares, (w1, w2), self._products(codes), strict=True)
        for weight, own, w, product in parts:
            total = total + weight * (own - 2 * (w * product).sum() + (w * (square @ w)).sum())
        return total / rows

    def group_means(self, values: Tensor) -> Tensor:
        """A values, one row for each group, of values float64 [N, K]."""
        count = int(self.groups.max()) + 1
        sums = values.new_zeros(count, values.shape[1]).index_add(0, self.groups, values)
        return sums / torch.bincount(self.groups, minlength=count)[:, None].clamp(min=1)

    def _products(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """B^T Y and B^T Y' [K, C]. Of one class there are no others, and Y' is 0."""
        own = codes.new_zeros(self.classes, codes.shape[1]).index_add(0, self.y, codes).T
        return own, (own.sum(1, keepdim=True) - own) / max(self.classes - 1, 1)


def fit_bit(codes: Tensor, bit: int, pull: Tensor, gram: Tensor) -> None:
    """Sets one bit of all codes, float64 [N, K] of -1 and 1, to what makes L least while the others stay.

    N L is const - 2 sum(B * pull) + sum((B gram) * B), so what counts for the bit of a row is the sign of
    pull_ik - sum_{l not k} b_il gram_lk. Where that is 0 the bit stays.

    >>> codes = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    >>> fit_bit(codes, 0, torch.tensor([[0.5, 0.0], [0.5, 0.0]]), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
    >>> codes.tolist()
    [[1.0, 1.0], [-1.0, 1.0]]
    """
    own = pull[:, bit] - codes @ gram[:, bit] + codes[:, bit] * gram[bit, bit]
    codes[:, bit] = torch.where(own == 0, codes[:, bit], own.sign())


class CodeRounds:
    """The batches (x, rows) of a loader, in rounds: before each round the loss fits its codes to the module's outputs.

    epochs: of a round. outputs: gives module(x) [N, K] of all rows, in evaluation mode. `fasthash.train.train` tells
    the sampler of its loader the number of each epoch, and keeps states of `generator` and of the loss in checkpoints.
    After the last epoch `fit_codes` is still to be called.

    >>> from fasthash.train.batches import shuffled_batches
    >>> X, module = torch.rand(6, 3), nn.Linear(3, 8)
    >>> loss = AsymmetricLoss(torch.rand(6, 8) < 0.5, torch.arange(6) % 3)
    >>> loader = shuffled_batches(X, torch.arange(6), batch_size=2, generator=torch.Generator())
    >>> rounds = CodeRounds(loader, module, loss, lambda: module(X).sigmoid())
    >>> [len(rows) for _, rows in rounds]
    [2, 2, 2]
    """

    def __init__(
        self,
        batches: DataLoader[tuple[Tensor, ...]],
        module: nn.Module,
        loss: AsymmetricLoss,
        outputs: Callable[[], Tensor],
        epochs: int = 3,
    ) -> None:
        self.batches, self.module, self.loss, self.outputs, self.epochs = batches, module, loss, outputs, epochs
        self.generator = batches.generator
        self.threads = torch.get_num_threads()  # which the loop changes: sums are to be the same in all rounds

    @property
    def sampler(self) -> CodeRounds:
        """Whom the loop tells the number of an epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch % self.epochs == 0:
            self.fit_codes()

    def fit_codes(self) -> None:
        training = self.module.training
        with own_threads(self.threads), torch.no_grad():
            self.module.eval()
            z = self.outputs()
            self.module.train(training)
            self.loss.fit_codes(z.to(self.loss.codes.device))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return iter(self.batches)
