"""Videos come and go: an index that is right at once, and built anew behind the scenes."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from watchnext.errors import RequestError
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.parts import Part, merged
from watchnext.retrieval.index.protocol import BuiltIndex, Lists, TunableIndex
from watchnext.retrieval.index.tuning import recalls
from watchnext.retrieval.index.unhurried import UnhurriedScan
from watchnext.shapes import Array, Bool, Float, Int, RowLists


@dataclass(frozen=True)
class _State:
    """What a search sees: videos that were built in, those of them that are gone, and newer ones."""

    built: Part
    gone: Int[Array, "gone"]
    newer: Part

    def search(
        self, queries: Array, k: int, excluded: RowLists | None = None, allowed: Bool[Array, "_"] | None = None
    ) -> Lists:
        struck = excluded
        if len(self.gone):
            struck = [np.union1d(rows, self.gone) for rows in excluded or [self.gone] * len(queries)]
        lists = [self.built.search(queries, k, struck, allowed)]
        if len(self.newer.rows) > 1:
            lists.append(self.newer.search(queries, k, excluded, allowed))
        return merged(lists, k)

    def there(self) -> tuple[Int[Array, "videos"], Float[Array, "videos dim"]]:
        """All rows with their vectors, row 0 first."""
        kept = ~np.isin(self.built.rows, self.gone)
        rows = np.concatenate([self.built.rows[kept], self.newer.rows[1:]])
        vectors = np.concatenate([self.built.index.vectors[kept], self.newer.index.vectors[1:]])
        order = np.argsort(rows)
        return rows[order], vectors[order]


@dataclass(frozen=True)
class Probe:
    """The recall of some queries today, and what it was when the index was tuned; None where nothing was measured.

    Where today's is clearly lower, the videos or the users have drifted: build and tune again.
    """

    recall: float
    tuned_recall: float | None


class LiveIndex:
    """A built index with the videos that were added and removed since.

    Added videos are scanned exactly beside the built ones, and removed ones are struck from its answers: a change
    costs what the changes since the last build cost, and the next search sees it. `rebuild` makes one index of all.
    Searches and changes may come from any thread; a search sees a change whole or not at all.
    """

    def __init__(self, built: BuiltIndex) -> None:
        vectors = built.vectors
        nothing = np.zeros((2, vectors.shape[1]), dtype=np.float32)
        ExactIndex(nothing).search(nothing[:1], 1, allowed=np.ones(2, dtype=bool))  # compiled now, not in a request
        nobody = Part(ExactIndex(nothing[:1]), np.zeros(1, dtype=np.int64))
        self._state = _State(Part(built, range(len(vectors))), np.zeros(0, dtype=np.int64), nobody)
        self._changing = threading.Lock()
        self._changes_since_rebuild: list[Callable[[_State], _State]] | None = None

    @property
    def is_exact(self) -> bool:
        """Whether the built part is."""
        return self._state.built.index.is_exact

    @property
    def num_changes(self) -> int:
        """Videos added and removed since the index was built: what makes a search slower."""
        return len(self._state.gone) + len(self._state.newer.rows) - 1

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "_"] | None = None,
    ) -> Lists:
        """Gives the k best rows and their dot products; see `VideoIndex.search`.

        A row behind the end of `allowed` was added after somebody asked what is allowed, and may not come.
        """
        state = self._state
        num_rows = max(state.built.last_row, state.newer.last_row) + 1
        if allowed is not None and len(allowed) < num_rows:
            allowed = np.pad(allowed, (0, num_rows - len(allowed)))
        return state.search(queries, k, excluded, allowed)

    def add(self, rows: Int[Array, "new"], vectors: Float[Array, "_ dim"]) -> None:
        """Adds videos; a row that was removed may come back with another vector.

        Raises:
            RequestError: a row is below 1, there already, or there twice; a vector has another length or is not finite.
        """
        dim = self._state.newer.index.vectors.shape[1]
        if vectors.shape != (len(rows), dim):
            raise RequestError(
                f"vectors of shape {vectors.shape} came for {len(rows)} videos; ({len(rows)}, {dim}) was expected."
            )
        if not np.isfinite(vectors).all():
            raise RequestError("a video vector that is not finite came.")
        if len(rows) and rows.min() < 1:
            raise RequestError("a row below 1 came; row 0 is nobody.")
        if len(np.unique(rows)) < len(rows):
            raise RequestError("the same row came twice.")
        self._change(lambda state: _added(state, rows, vectors))

    def remove(self, rows: Int[Array, "gone"]) -> None:
        """Removes videos.

        Raises:
            RequestError: a row is not there.
        """
        self._change(lambda state: _removed(state, rows))

    def rebuild(self, build: Callable[[Float[Array, "videos dim"]], BuiltIndex]) -> None:
        """Builds one index of all that is there, then takes it; changes that come meanwhile are kept.

        May run in a thread of its own. Searches use the old index until the new one is ready.

        Raises:
            RequestError: another rebuild is running.
        """
        with self._changing:
            if self._changes_since_rebuild is not None:
                raise RequestError("a rebuild is running already.")
            self._changes_since_rebuild = []
            before = self._state
        try:
            rows, vectors = before.there()
            nobody = Part(ExactIndex(vectors[:1]), rows[:1])
            state = _State(Part(build(vectors), rows), np.zeros(0, dtype=np.int64), nobody)
            with self._changing:
                for change in self._changes_since_rebuild:
                    state = change(state)
                self._state = state
        finally:
            with self._changing:
                self._changes_since_rebuild = None

    def probe(self, queries: Float[Array, "batch dim"], k: int, rest: Callable[[float], object] = time.sleep) -> Probe:
        """Compares what is found now with a scan of all that is there now, which is in no hurry.

        `rest` sleeps between its parts, and may raise to end it.
        """
        state, built = self._state, self._state.built.index
        scanned = replace(state, built=replace(state.built, index=UnhurriedScan(built.vectors, rest)))
        found, right = (one.search(queries, k)[0] for one in (state, scanned))
        curve = built.curve if isinstance(built, TunableIndex) else ()
        tuned = [point.recall for point in curve if point.effort == built.effort]  # type: ignore[attr-defined]
        return Probe(float(recalls(found, right).mean()), tuned[0] if tuned else 1.0 if built.is_exact else None)

    def _change(self, change: Callable[[_State], _State]) -> None:
        with self._changing:
            self._state = change(self._state)
            if self._changes_since_rebuild is not None:
                self._changes_since_rebuild.append(change)


def _added(state: _State, rows: Int[Array, "new"], vectors: Float[Array, "new dim"]) -> _State:
    known = int((state.newer.has(rows) | state.built.has(rows) & ~np.isin(rows, state.gone)).sum())
    if known:
        raise RequestError(f"{known} of {len(rows)} rows are in the index already; remove them first.")
    every = np.concatenate([state.newer.rows, rows])
    order = np.argsort(every)
    together = np.concatenate([state.newer.index.vectors, vectors.astype(np.float32)])
    return replace(state, newer=Part(ExactIndex(together[order]), every[order]))


def _removed(state: _State, rows: Int[Array, "gone"]) -> _State:
    newer = state.newer.has(rows)
    built = state.built.has(rows) & ~np.isin(rows, state.gone) & ~newer
    missing = len(rows) - int((newer | built).sum())
    if missing:
        raise RequestError(f"{missing} of {len(rows)} rows are not in the index.")
    kept = ~np.isin(state.newer.rows, rows)
    left = Part(ExactIndex(state.newer.index.vectors[kept]), state.newer.rows[kept])
    return replace(state, gone=np.union1d(state.gone, rows[built]), newer=left)
