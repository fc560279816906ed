"""Item-to-item: what else was completed by those who completed this."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
from numba import njit
from scipy import sparse

from watchnext.artifacts import load_arrays, save_arrays
from watchnext.examples.contexts import UserContext
from watchnext.examples.next_watch import NextWatches
from watchnext.native import place_in, table_size
from watchnext.progress import bar
from watchnext.shapes import Array, Float, Int

_BLOCK_ROWS = 4096
_LAST_WATCHES = 50
_BITS_OF_A_ROW = 32
_ROW = 2**_BITS_OF_A_ROW - 1
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class CoWatch:
    """The nearest neighbours of each video by cosine of their sets of watchers, as a sparse matrix in CSR arrays."""

    offsets: Int[Array, "offsets"]
    neighbour_row: Int[Array, "pairs"]
    similarity: Float[Array, "pairs"]

    name = "co_watch"

    @classmethod
    def fit(cls, watches: NextWatches, num_videos: int, num_neighbours: int) -> "CoWatch":
        """Counts pairs of watches by the same user, divides by √(watchers · watchers), keeps the best."""
        ones = np.ones(len(watches), dtype=np.float32)
        shape = (int(watches.user_row.max(initial=0)) + 1, num_videos)
        watched = sparse.csr_array((ones, (watches.user_row, watches.video_row)), shape=shape)
        watched.sum_duplicates()
        watched.data[:] = 1.0
        norms = np.sqrt(np.maximum(watched.sum(axis=0), 1.0))
        scaled = (watched @ sparse.diags_array(1.0 / norms)).tocsr()
        by_video = scaled.T.tocsr()
        parts = []
        with bar("co-watch", num_videos) as progress:
            for start in range(0, num_videos, _BLOCK_ROWS):
                pairs = (by_video[start : start + _BLOCK_ROWS] @ scaled).tocoo()
                pairs.data[pairs.row + start == pairs.col] = 0.0
                parts.append(_largest(pairs.tocsr(), num_neighbours))
                progress.advance(_BLOCK_ROWS)
        kept = sparse.vstack(parts, format="csr")
        return cls(kept.indptr.astype(np.int64), kept.indices.astype(np.int32), kept.data.astype(np.float32))

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k videos with the largest summed similarity to the user's last fifty completed watches."""
        return self.related(context.watched_row, k)

    def related(
        self, watched_row: Int[Array, "batch history"], k: int
    ) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives the k videos with the largest summed similarity to the first fifty of each row, newest first."""
        rows = np.zeros((len(watched_row), k), dtype=np.int64)
        scores = np.zeros((len(watched_row), k), dtype=np.float32)
        for user, watched in enumerate(watched_row[:, :_LAST_WATCHES]):
            keys = np.sort(_summed(self.offsets, self.neighbour_row, self.similarity, watched[watched > 0]))[:k]
            rows[user, : len(keys)] = keys & _ROW
            scores[user, : len(keys)] = (_LARGEST - (keys >> _BITS_OF_A_ROW)).astype(np.int32).view(np.float32)
        return rows, scores

    def save(self, folder: Path) -> None:
        """Writes the neighbours."""
        save_arrays(
            folder,
            {"offsets": self.offsets, "neighbour_row": self.neighbour_row, "similarity": self.similarity},
        )

    @classmethod
    def open(cls, folder: Path) -> "CoWatch":
        """Maps what `save` wrote."""
        return cls(**load_arrays(folder, ("offsets", "neighbour_row", "similarity")))


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _summed(offsets: Any, neighbour_row: Any, similarity: Any, watched: Any) -> Any:  # pragma: no cover  # compiled
    """All neighbours of the watched videos, each with the sum of its similarities as one number.

    Sorted, they have the largest sums first and of equals the smallest row: bits of floats above 0 are in their order.
    """
    count = 0
    for row in watched:
        count += offsets[row + 1] - offsets[row]
    size = table_size(count)
    table, sums, places = np.zeros(size, np.int64), np.zeros(size, np.float64), np.empty(count, np.int64)
    num = 0
    for row in watched:
        for pair in range(offsets[row], offsets[row + 1]):
            place = place_in(table, np.int64(neighbour_row[pair]))
            if table[place] == 0:
                table[place] = neighbour_row[pair]
                places[num] = place
                num += 1
            sums[place] += similarity[pair]
    keys = np.empty(num, np.int64)
    for nth in range(num):
        bits = np.int64(np.float32(sums[places[nth]]).view(np.int32))
        keys[nth] = ((_LARGEST - bits) << _BITS_OF_A_ROW) | table[places[nth]]
    return keys


def _largest(matrix: sparse.csr_array, count: int) -> sparse.csr_array:
    """Keeps the `count` largest entries of each row."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(order)) - matrix.indptr[rows[order]]
    kept = order[(place < count) & (matrix.data[order] > 0)]
    return sparse.csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), matrix.shape)
