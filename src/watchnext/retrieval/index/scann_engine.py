"""The approximate index of ScaNN, an extra: a tree with 4-bit codes in its leaves, exact scores for what they find."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from watchnext.errors import ArtifactError, ConfigurationError
from watchnext.retrieval.index.exact import ExactIndex, best_of, fill_short_lists, open_vectors
from watchnext.retrieval.index.protocol import CurvePoint, Lists, checked_queries
from watchnext.retrieval.index.tuning import open_tuning, save_tuning
from watchnext.shapes import Array, Bool, Float, Int, RowLists

_INSTALL = "say: pip install 'watchnext[scann]' (TensorFlow is not needed)"
_FEWEST_FOR_A_TREE = 100  # codes cannot be learned from fewer than 16
_LEAVES_OF_A_ROOT = 2
_TRAINING_VECTORS_PER_LEAF = 64
_COMPONENTS_OF_A_CODE = 2
_ANISOTROPIC_THRESHOLD = 0.2
_LEAVES_UNTIL_TUNED, _SHARE_UNTIL_TUNED = 64, 1 / 3
_OVERSAMPLING = 12
_FEWEST_SCORED = 200
_WORTH_OF_A_CANDIDATE = 2  # vectors are scored in the time in which one is found by its code, and scored


class ScannIndex:
    """ScaNN's tree over 4-bit codes: a query looks into the leaves nearest to it, `effort` of them.

    What it finds is scored again with the stored vectors, so scores are exact dot products; ScaNN keeps no vectors of
    its own. It knows no filters: more is asked for, and what may not be found is left out. A query that leaves fewer
    than k is answered by the exact scan, and so are all where so few videos are allowed that scoring each is faster,
    or where there are too few for a tree.
    """

    is_exact = False

    def __init__(
        self,
        searcher: Any,  # ScaNN's, or None where there is no tree
        vectors: Float[Array, "videos dim"],
        leaves: int,
        curve: tuple[CurvePoint, ...] = (),
    ) -> None:
        self._searcher = searcher
        self.vectors = vectors
        self.effort = leaves
        self.curve = curve

    @classmethod
    def build(cls, vectors: Float[Array, "videos dim"]) -> "ScannIndex":
        """Trains a tree of about 2·√videos leaves, and files the codes of every vector but row 0.

        Raises:
            ConfigurationError: ScaNN is not installed.
        """
        try:
            from scann import scann_ops_pybind
        except ImportError as missing:
            raise ConfigurationError(f"[index] engine = 'scann', but ScaNN is not installed: {_INSTALL}.") from missing
        leaves = _num_leaves(len(vectors) - 1)
        effort = min(leaves, max(_LEAVES_UNTIL_TUNED, int(_SHARE_UNTIL_TUNED * leaves)))
        if len(vectors) - 1 < _FEWEST_FOR_A_TREE:
            return cls(None, vectors, effort)
        real = np.ascontiguousarray(vectors[1:], dtype=np.float32)
        builder = scann_ops_pybind.builder(real, 1, "dot_product").set_n_training_threads(torch.get_num_threads())
        builder = builder.tree(leaves, effort, training_sample_size=_TRAINING_VECTORS_PER_LEAF * leaves)
        builder = builder.score_ah(_COMPONENTS_OF_A_CODE, anisotropic_quantization_threshold=_ANISOTROPIC_THRESHOLD)
        return cls(builder.build(), vectors, effort)

    def efforts(self) -> list[int]:
        """Gives numbers of leaves, each half as many again as the one before, up to all leaves."""
        most = _num_leaves(len(self.vectors) - 1)
        steps = np.geomspace(1, most, max(2, int(np.log(most) / np.log(1.5)) + 1))
        return [int(step) for step in np.unique(steps.round())]

    def with_effort(self, effort: int, curve: tuple[CurvePoint, ...] = ()) -> "ScannIndex":
        """Gives the same index looking into so many leaves."""
        return ScannIndex(self._searcher, self.vectors, effort, curve)

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`."""
        queries = checked_queries(queries, k, self.vectors.shape[1])
        num_videos = len(self.vectors) - 1
        num_allowed = num_videos if allowed is None else int(np.count_nonzero(allowed[1:]))
        wanted = int(max(_OVERSAMPLING * k, _FEWEST_SCORED) * num_videos / max(num_allowed, 1))
        if self._searcher is None or (allowed is not None and num_allowed <= _WORTH_OF_A_CANDIDATE * wanted):
            return ExactIndex(self.vectors).search(queries, k, excluded, allowed)
        rows, scores = np.zeros((len(queries), k), dtype=np.int64), np.full((len(queries), k), -np.inf, np.float32)
        for place, query in enumerate(queries):
            found = self._candidates(query, wanted, excluded[place] if excluded else None, allowed)
            found, best = best_of(query, self.vectors, found, k)
            rows[place, : len(found)], scores[place, : len(found)] = found, best
        fill_short_lists((rows, scores), self.vectors, queries, excluded, allowed)
        return rows, scores

    def save(self, folder: Path) -> None:
        """Writes the tree with its codes, and the vectors."""
        if self._searcher is not None:
            (folder / "tree").mkdir()
            self._searcher.serialize(str(folder / "tree"), relative_path=True)
        np.save(folder / "vectors.npy", self.vectors)
        save_tuning(folder, self)

    @classmethod
    def open(cls, folder: Path) -> "ScannIndex":
        """Reads the tree that `save` wrote, and maps the vectors.

        Raises:
            ArtifactError: ScaNN is not installed, or the tree holds a pickle, which `save` never writes.
        """
        return cls(_open_tree(folder / "tree"), open_vectors(folder), *open_tuning(folder))

    def _candidates(
        self,
        query: Float[Array, "dim"],
        wanted: int,
        excluded: Int[Array, "_"] | None,
        allowed: Bool[Array, "videos"] | None,
    ) -> Int[Array, "width"]:
        """Gives rows that promise most and may be found, at most `wanted` and as many as are excluded."""
        wanted = min(wanted + (0 if excluded is None else len(excluded)), len(self.vectors) - 1)
        ids, _ = self._searcher.search(query, final_num_neighbors=wanted, leaves_to_search=self.effort)
        rows: Array = ids.astype(np.int64) + 1
        if allowed is not None:
            rows = rows[allowed[rows]]
        if excluded is not None and len(excluded):
            rows = rows[~np.isin(rows, excluded)]
        return rows


def _num_leaves(num_videos: int) -> int:
    return int(_LEAVES_OF_A_ROOT * np.sqrt(num_videos)) if num_videos >= _FEWEST_FOR_A_TREE else 1


def _open_tree(folder: Path) -> Any:
    """Gives ScaNN's searcher; None where there is no tree."""
    if not folder.exists():
        return None
    try:
        from scann import scann_ops_pybind
    except ImportError as missing:
        raise ArtifactError(f"{folder.parent} was built by ScaNN, which is not installed: {_INSTALL}.") from missing
    if any(folder.glob("*.pkl")):  # ScaNN would unpickle it, and so run what it says
        raise ArtifactError(f"{folder} holds a pickle, which watchnext does not write: run watchnext index again.")
    return scann_ops_pybind.load_searcher(str(folder))
