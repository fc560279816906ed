"""Embedding tables whose training step touches only the rows it uses."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from watchnext.layers.row_kernels import adagrad_on_rows, bag_means, no_noise, rounding_noise
from watchnext.memory import file_of_pages, large_pages
from watchnext.progress import bar
from watchnext.shapes import Float, Int, Tensor

_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class TableStorage:
    """How the rows of a table are kept: 4 bytes a float or 2, in memory or in files of `folder` that are mapped.

    A table that is not `filled` waits for weights that were saved.
    """

    dtype: torch.dtype = torch.float32
    folder: Path | None = None
    filled: bool = True


IN_MEMORY = TableStorage()
UNFILLED = TableStorage(filled=False)


@dataclass(frozen=True)
class Use:
    """Rows that a lookup used, and where in its gradients each finds its own."""

    rows: Int[Tensor, "_"]
    sources: Int[Tensor, "_"]
    gradients: Float[Tensor, "samples dim"]

    # Gradients have the type of the table: in bfloat16, summing them reads half as much.


class EmbeddingTable(nn.Module):
    """Rows of floats, one per id: think of it as a matrix that learns a few rows at a time.

    Row 0 stands for padding and for ids out of vocabulary, and stays the zero vector. While training, a lookup
    remembers which rows it used and, once the loss was differentiated, their gradients; `RowwiseAdagrad` applies
    them. Nothing ever has the size of the table but the table.
    """

    weight: Tensor
    squared_gradient: Tensor

    def __init__(
        self,
        num_rows: int,
        dim: int,
        generator: torch.Generator,
        scale: float = 0.05,
        storage: TableStorage = IN_MEMORY,
    ) -> None:
        super().__init__()
        weight = _empty(num_rows, dim, storage)
        if storage.filled:
            _fill(weight, scale, generator)
        weight[0] = 0.0
        self.register_buffer("weight", weight)
        self.register_buffer("squared_gradient", torch.zeros(num_rows))
        self.uses: list[Use] = []

    @property
    def dim(self) -> int:
        """The length of one row."""
        return self.weight.shape[1]

    def forward(self, rows: Int[Tensor, "..."]) -> Float[Tensor, "... dim"]:
        """Gives the vector of each row, in float32."""
        if not self._learns:
            return functional.embedding(rows, self.weight).float()
        vectors: Tensor = _Rows.apply(self._gate(), self, rows)  # type: ignore[no-untyped-call]
        return vectors

    def mean(self, rows: Int[Tensor, "batch history"]) -> Float[Tensor, "batch dim"]:
        """Gives the mean vector of each bag, padding left out; an empty bag gives the zero vector (§3.2)."""
        if not self._learns:
            return bag_means(self.weight, rows)
        means: Tensor = _Means.apply(self._gate(), self, rows)  # type: ignore[no-untyped-call]
        return means

    def halve(self) -> None:
        """Rounds trained rows to bfloat16, each number to 1/256 of itself: half of what a server holds."""
        self.weight = self.weight.to(torch.bfloat16)

    @property
    def _learns(self) -> bool:
        return self.training and torch.is_grad_enabled()

    def _gate(self) -> Tensor:
        """Something that asks for a gradient, so that the backward pass comes by."""
        return torch.zeros((), device=self.weight.device, requires_grad=True)


class RowwiseAdagrad:
    """Adagrad with one accumulator per row: the mean square of the row's gradients so far.

    The state of a table costs 1/dim of the table, and a step costs what the touched rows cost.
    """

    def __init__(self, tables: list[EmbeddingTable], learning_rate: float, seed: int = 0) -> None:
        self.tables = tables
        self.learning_rate = learning_rate
        self.seed = seed

    @torch.no_grad()
    def step(self, number: int = 0) -> None:
        """Applies the gradients of all lookups since the last step, each touched row once.

        Step `number` of a run rounds bfloat16 rows with its own noise, so that a run that goes on after a kill
        rounds as the one that was not killed.
        """
        for place, table in enumerate(self.tables):
            if table.uses:
                rows, sources, gradients = _joined(table.uses)
                table.uses.clear()
                is_rounded = table.weight.dtype == torch.bfloat16
                noise = rounding_noise(self.seed + place, number, table.dim) if is_rounded else no_noise(table.dim)
                adagrad_on_rows(
                    table.weight, table.squared_gradient, rows, sources, gradients, self.learning_rate, noise
                )


def tables_of(module: nn.Module) -> list[EmbeddingTable]:
    """Gives every embedding table inside `module`."""
    return [part for part in module.modules() if isinstance(part, EmbeddingTable)]


def embedding_dim_for(vocabulary_size: int) -> int:
    """Gives an embedding size that grows with the logarithm of the vocabulary (§4.1).

    >>> [embedding_dim_for(size) for size in (2, 50, 100_000)]
    [2, 6, 17]
    """
    return max(2, round(math.log2(vocabulary_size)))


class _Rows(torch.autograd.Function):
    """A lookup whose backward pass leaves its gradient with the table."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, table: EmbeddingTable, rows: Tensor) -> Tensor:
        ctx.table, ctx.rows = table, rows
        return functional.embedding(rows, table.weight).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        rows = ctx.rows.reshape(-1)
        places = torch.arange(len(rows), device=rows.device)
        ctx.table.uses.append(Use(rows, places, gradient.reshape(len(rows), -1).to(ctx.table.weight.dtype)))
        return None, None, None


class _Means(torch.autograd.Function):
    """The same for the means of bags."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, table: EmbeddingTable, rows: Tensor) -> Tensor:
        ctx.table, ctx.rows = table, rows
        return bag_means(table.weight, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        batch, history = ctx.rows.shape
        share = 1.0 / (ctx.rows > 0).sum(dim=1).clamp(min=1)
        places = torch.arange(batch, device=gradient.device).repeat_interleave(history)
        ctx.table.uses.append(Use(ctx.rows.reshape(-1), places, (gradient * share[:, None]).to(ctx.table.weight.dtype)))
        return None, None, None


def _joined(
    uses: list[Use],
) -> tuple[Int[Tensor, "rows"], Int[Tensor, "rows"], Float[Tensor, "samples dim"]]:
    """All uses of one table as a single one."""
    if len(uses) == 1:
        return uses[0].rows, uses[0].sources, uses[0].gradients
    shift = 0
    sources = []
    for use in uses:
        sources.append(use.sources + shift)
        shift += len(use.gradients)
    return (
        torch.cat([use.rows for use in uses]),
        torch.cat(sources),
        torch.cat([use.gradients for use in uses]),
    )


def _fill(weight: Float[Tensor, "rows dim"], scale: float, generator: torch.Generator) -> None:
    """Draws the rows a block at a time: the whole table in float32 might not fit."""
    with bar("filling a table", len(weight)) as progress:
        for start in range(0, len(weight), _ROWS_AT_ONCE):
            part = weight[start : start + _ROWS_AT_ONCE]
            part.copy_(torch.randn(part.shape, generator=generator) * scale)
            progress.advance(len(part))


def _empty(num_rows: int, dim: int, storage: TableStorage) -> Float[Tensor, "rows dim"]:
    size = num_rows * dim
    if storage.folder is None:
        return torch.frombuffer(large_pages(size * storage.dtype.itemsize), dtype=storage.dtype).reshape(num_rows, dim)
    file = storage.folder / f"table-{len(list(storage.folder.iterdir()))}.bin"
    pages = file_of_pages(file, size * storage.dtype.itemsize)
    return torch.frombuffer(pages, dtype=storage.dtype).reshape(num_rows, dim)
