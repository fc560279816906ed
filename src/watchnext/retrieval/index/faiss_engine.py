"""The approximate index: Faiss partitions with 8-bit codes, exact scores for what they find."""

from pathlib import Path

import faiss
import numpy as np

from watchnext.retrieval.index.exact import ExactIndex, fill_short_lists, open_vectors
from watchnext.retrieval.index.protocol import CurvePoint, Lists, checked_queries, padded
from watchnext.retrieval.index.tuning import open_tuning, save_tuning
from watchnext.shapes import Array, Bool, Float, RowLists

_TRAINING_VECTORS_PER_PARTITION = 64
_OVERSAMPLING = 2
_PROBES_UNTIL_TUNED = 64
_SCAN_BELOW_SHARE = 0.05


class FaissIndex:
    """An inverted file over 8-bit codes: a query looks into the partitions nearest to it, `effort` of them.

    What it finds is scored again with the stored vectors, so scores are exact dot products. A query that leaves
    fewer than k videos after exclusions is answered by the exact scan, and so are all where few videos are allowed.
    """

    is_exact = False

    def __init__(
        self,
        partitions: faiss.Index,
        vectors: Float[Array, "videos dim"],
        probes: int,
        curve: tuple[CurvePoint, ...] = (),
    ) -> None:
        self._partitions = partitions
        self.vectors = vectors
        self.effort = probes
        self.curve = curve

    @classmethod
    def build(cls, vectors: Float[Array, "videos dim"], probes: int = _PROBES_UNTIL_TUNED) -> "FaissIndex":
        """Trains partitions, about 4·√videos of them, and files every vector but row 0."""
        real = np.ascontiguousarray(vectors[1:], dtype=np.float32)
        num_partitions = max(1, min(int(4 * np.sqrt(len(real))), len(real) // 39))
        partitions = faiss.index_factory(vectors.shape[1], f"IVF{num_partitions},SQ8", faiss.METRIC_INNER_PRODUCT)
        faiss.extract_index_ivf(partitions).cp.max_points_per_centroid = _TRAINING_VECTORS_PER_PARTITION
        partitions.train(real)
        partitions.add(real)
        return cls(partitions, vectors, min(probes, num_partitions))

    def efforts(self) -> list[int]:
        """Gives numbers of probes, each half as many again as the one before, up to all partitions."""
        most = faiss.extract_index_ivf(self._partitions).nlist
        steps = np.geomspace(1, most, max(2, int(np.log(most) / np.log(1.5)) + 1))
        return [int(step) for step in np.unique(steps.round())]

    def with_effort(self, effort: int, curve: tuple[CurvePoint, ...] = ()) -> "FaissIndex":
        """Gives the same index looking into so many partitions."""
        return FaissIndex(self._partitions, self.vectors, effort, curve)

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        queries = checked_queries(queries, k, self.vectors.shape[1])
        if allowed is not None and allowed[1:].mean() < _SCAN_BELOW_SHARE:
            return ExactIndex(self.vectors).search(queries, k, excluded, allowed)
        longest = max((len(rows) for rows in excluded), default=0) if excluded else 0
        wanted = min(_OVERSAMPLING * k + longest, len(self.vectors) - 1)
        bits = None if allowed is None else np.packbits(allowed[1:], bitorder="little")
        selector = None if bits is None else faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))
        parameters = faiss.SearchParametersIVF(
            nprobe=self.effort,  # type: ignore[call-arg]  # Faiss gives its classes keywords when imported
            sel=selector,
        )
        _, places = self._partitions.search(queries, wanted, params=parameters)
        rows = places.astype(np.int64) + 1
        scores = np.einsum("bd,bwd->bw", queries, self.vectors[rows])
        scores[rows == 0] = -np.inf
        for place, left_out in enumerate(excluded or []):
            scores[place, np.isin(rows[place], left_out)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found, best = padded(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1), k)
        fill_short_lists((found, best), self.vectors, queries, excluded, allowed)
        return found, best

    def save(self, folder: Path) -> None:
        """Writes the partitions and the vectors."""
        faiss.write_index(self._partitions, str(folder / "partitions.faiss"))
        np.save(folder / "vectors.npy", self.vectors)
        save_tuning(folder, self)

    @classmethod
    def open(cls, folder: Path) -> "FaissIndex":
        """Maps what `save` wrote."""
        partitions = faiss.read_index(str(folder / "partitions.faiss"), faiss.IO_FLAG_MMAP)
        return cls(partitions, open_vectors(folder), *open_tuning(folder))
