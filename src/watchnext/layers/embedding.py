"""Embedding tables whose training step touches only the rows it uses."""

import math

import torch
from torch import nn
from torch.nn import functional

from watchnext.shapes import Float, Int, Tensor


class EmbeddingTable(nn.Module):
    """Rows of floats, one per id: think of it as a matrix that learns a few rows at a time.

    Row 0 stands for padding and for ids out of vocabulary, and stays the zero vector. While training, a lookup
    gathers the distinct rows it needs into a small leaf tensor, so that the gradient, and `RowwiseAdagrad`, never
    see the whole table.
    """

    weight: Tensor
    squared_gradient: Tensor

    def __init__(self, num_rows: int, dim: int, generator: torch.Generator, scale: float = 0.05) -> None:
        super().__init__()
        weight = torch.randn((num_rows, dim), generator=generator) * scale
        weight[0] = 0.0
        self.register_buffer("weight", weight)
        self.register_buffer("squared_gradient", torch.zeros(num_rows), persistent=False)
        self.touched: list[tuple[Int[Tensor, "_"], Float[Tensor, "_ dim"]]] = []

    @property
    def dim(self) -> int:
        """The length of one row."""
        return self.weight.shape[1]

    def forward(self, rows: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        """Gives the vector of each row."""
        if not self._learns:
            return functional.embedding(rows, self.weight)
        vectors, places = self._gathered(rows)
        return functional.embedding(places, vectors)

    def mean(self, rows: Int[Tensor, "batch history"]) -> Float[Tensor, "batch dim"]:
        """Gives the mean vector of each bag, padding left out; an empty bag gives the zero vector (§3.2)."""
        vectors, places = self._gathered(rows) if self._learns else (self.weight, rows)
        return functional.embedding_bag(places, vectors, mode="mean", padding_idx=0)

    @property
    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _gathered(self, rows: Int[Tensor, "..."]) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, "..."]]:
        """The distinct rows as a leaf tensor, row 0 first, and the place of each asked row in it."""
        distinct, places = torch.unique(functional.pad(rows.reshape(-1), (1, 0)), return_inverse=True)
        vectors = self.weight[distinct].requires_grad_()
        self.touched.append((distinct, vectors))
        return vectors, places[1:].reshape(rows.shape)


class RowwiseAdagrad:
    """Adagrad with one accumulator per row: the mean square of the row's gradients so far.

    The state of a table costs 1/dim of the table, and a step costs what the touched rows cost.
    """

    def __init__(self, tables: list[EmbeddingTable], learning_rate: float, epsilon: float = 1e-8) -> None:
        self.tables = tables
        self.learning_rate = learning_rate
        self.epsilon = epsilon

    @torch.no_grad()
    def step(self) -> None:
        """Applies the gradients of all lookups since the last step, each touched row once."""
        for table in self.tables:
            rows, gradient = _summed(table.touched)
            table.touched.clear()
            if rows is None or gradient is None:
                continue
            gradient[rows == 0] = 0.0
            table.squared_gradient.index_add_(0, rows, gradient.square().mean(dim=1))
            rate = self.learning_rate / (table.squared_gradient[rows].sqrt() + self.epsilon)
            table.weight.index_add_(0, rows, gradient * -rate[:, None])


def tables_of(module: nn.Module) -> list[EmbeddingTable]:
    """Gives every embedding table inside `module`."""
    return [part for part in module.modules() if isinstance(part, EmbeddingTable)]


def embedding_dim_for(vocabulary_size: int) -> int:
    """Gives an embedding size that grows with the logarithm of the vocabulary (§4.1).

    >>> [embedding_dim_for(size) for size in (2, 50, 100_000)]
    [2, 6, 17]
    """
    return max(2, round(math.log2(vocabulary_size)))


def _summed(
    touched: list[tuple[Int[Tensor, "_"], Float[Tensor, "_ dim"]]],
) -> tuple[Int[Tensor, "rows"] | None, Float[Tensor, "rows dim"] | None]:
    """The distinct rows of all lookups and their summed gradients."""
    learned = [(rows, vectors.grad) for rows, vectors in touched if vectors.grad is not None]
    if not learned:
        return None, None
    if len(learned) == 1:
        rows, gradient = learned[0]
        return rows, gradient
    rows, places = torch.unique(torch.cat([rows for rows, _ in learned]), return_inverse=True)
    gradients = torch.cat([gradient for _, gradient in learned if gradient is not None])
    return rows, gradients.new_zeros((len(rows), gradients.shape[1])).index_add_(0, places, gradients)
