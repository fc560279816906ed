"""The index that scans every vector: the oracle, and the fastest choice for small catalogues."""

from pathlib import Path

import numpy as np
import torch

from watchnext.errors import RequestError
from watchnext.shapes import Array, Float, Int, RowLists, Tensor

_BLOCK_SCORES = 64_000_000
PADDING_SCORE = float("-inf")


class ExactIndex:
    """A blocked matrix product and a top-k; row 0 is never found."""

    is_exact = True

    def __init__(self, vectors: Float[Array, "videos dim"]) -> None:
        self.vectors = vectors

    def search(
        self, queries: Float[Array, "batch dim"], k: int, excluded: RowLists | None = None
    ) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        refuse_impossible_k(k)
        block = max(1, _BLOCK_SCORES // len(self.vectors))
        rows, scores = [], []
        for start in range(0, len(queries), block):
            left_out = excluded[start : start + block] if excluded else None
            found = self._search_block(torch.from_numpy(queries[start : start + block]), k, left_out)
            rows.append(found[0])
            scores.append(found[1])
        if not rows:
            return np.zeros((0, k), dtype=np.int64), np.zeros((0, k), dtype=np.float32)
        return np.concatenate(rows), np.concatenate(scores)

    def save(self, folder: Path) -> None:
        """Writes the vectors."""
        np.save(folder / "vectors.npy", self.vectors)

    @classmethod
    def open(cls, folder: Path) -> "ExactIndex":
        """Maps the vectors."""
        return cls(open_vectors(folder))

    def _search_block(
        self, queries: Float[Tensor, "batch dim"], k: int, excluded: RowLists | None
    ) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        scores = queries @ torch.from_numpy(self.vectors).T
        scores[:, 0] = PADDING_SCORE
        for place, rows in enumerate(excluded or []):
            scores[place, torch.from_numpy(rows)] = PADDING_SCORE
        best, places = torch.topk(scores, min(k, scores.shape[1]), dim=1)
        return padded(places.numpy(), best.numpy(), k)


def open_vectors(folder: Path) -> Float[Array, "videos dim"]:
    """Maps `vectors.npy` copy-on-write: PyTorch wants writable memory, the file stays as it is."""
    vectors: Array = np.load(folder / "vectors.npy", mmap_mode="c")
    return vectors


def padded(
    rows: Int[Array, "batch width"], scores: Float[Array, "batch width"], k: int
) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
    """Widens lists to k places; places without a video have row 0 and score -inf."""
    wider = ((0, 0), (0, k - rows.shape[1]))
    rows = np.where(np.isneginf(scores), 0, rows)
    return np.pad(rows, wider), np.pad(scores, wider, constant_values=PADDING_SCORE)


def refuse_impossible_k(k: int) -> None:
    """Refuses a k below 1.

    Raises:
        RequestError: it is.
    """
    if k < 1:
        raise RequestError(f"k = {k}: at least 1 was expected.")
