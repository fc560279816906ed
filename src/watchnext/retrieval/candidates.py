"""Candidates from several sources, and what each source says of them (§2, §4.1)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, no_type_check, runtime_checkable

import numpy as np
from numba import njit

from watchnext.examples.contexts import UserContext
from watchnext.native import even_parts, place_in, side_by_side, table_size
from watchnext.retrieval.co_watch import CoWatch
from watchnext.retrieval.index.protocol import BuiltIndex, Lists, VideoIndex
from watchnext.retrieval.network import RetrievalModel
from watchnext.retrieval.popularity import RecentPopularity
from watchnext.shapes import Array, Bool, Float, Int, Num, RowLists


@runtime_checkable
class CandidateSource(Protocol):
    """Nominates videos for users beside the network: co-watched videos, popular ones."""

    @property
    def name(self) -> str:
        """What answers and logs call it."""
        ...

    def nominate(self, context: UserContext, k: int) -> tuple[Int[Array, "batch k"], Float[Array, "batch k"]]:
        """Gives k rows and scores for each user, best first, padded with row 0."""
        ...


@dataclass(frozen=True)
class Candidates:
    """Videos considered for each user: the border type between retrieval and ranking.

    `network_score` is the dot product of user and video vector, for every candidate whoever nominated it. `rank` is
    the place in the list of each of `sources`, counted from 1, and 0 where that did not nominate it; `source_score` is
    that source's own score, NaN where it did not. Padding has row 0.
    """

    sources: tuple[str, ...]
    video_row: Int[Array, "batch candidates"]
    network_score: Float[Array, "batch candidates"]
    rank: Int[Array, "batch candidates sources"]
    source_score: Float[Array, "batch candidates sources"]

    @property
    def nominated(self) -> Bool[Array, "batch candidates sources"]:
        """Which sources nominated each candidate."""
        return self.rank > 0

    def first(self, count: int) -> "Candidates":
        """Gives the first of each user."""
        columns = {name: column[:, :count] for name, column in vars(self).items() if name != "sources"}
        return Candidates(self.sources, **columns)

    def only(self, source: str) -> "Candidates":
        """Gives these with the rows of those that the source did not nominate as padding."""
        kept = self.nominated[:, :, self.sources.index(source)]
        return replace(self, video_row=np.where(kept, self.video_row, 0))


Job = Callable[[], Lists]
Gather = Callable[[Mapping[str, Job]], Mapping[str, Lists]]
"""Runs the sources by name; those that are missing from what it gives have nominated nobody."""


def one_by_one(jobs: Mapping[str, Job]) -> dict[str, Lists]:
    """Asks one source after another, however long each takes."""
    return {name: job() for name, job in jobs.items()}


@dataclass(frozen=True)
class Wish:
    """What is wanted of the sources for a batch of users.

    Every source lists `k` videos without its user's `excluded` ones; the first of them, as many as its quota says,
    become candidates. A source without a quota may bring all. Of more than `most` candidates the network's last go that
    no other source nominates, though half of `most` stay. `allowed` says of every row whether it may come at all; a row
    behind its end may not. `gather` runs the sources.
    """

    k: int
    excluded: RowLists | None = None
    quotas: Mapping[str, int] = field(default_factory=dict)
    most: int | None = None
    allowed: Bool[Array, "_"] | None = None
    gather: Gather = one_by_one


class CandidateGenerator:
    """All sources side by side: the network's neighbours, and others.

    The ranker knows what the network, `co_watch` and `popular` say of each candidate, `sources`; those `beside` them
    only nominate.
    """

    def __init__(
        self,
        network: RetrievalModel,
        index: VideoIndex,
        co_watch: CoWatch,
        popular: RecentPopularity,
        beside: tuple[CandidateSource, ...] = (),
    ) -> None:
        self.network = network
        # An array of vectors, or what is indexed like one: those that the search has read just now, if there are such.
        self.video_vectors: Any = index.vectors if isinstance(index, BuiltIndex) else network.video_vectors
        self.index = index
        self.co_watch = co_watch
        self.popular = popular
        self.others: tuple[CandidateSource, ...] = (co_watch, popular)
        self.beside = beside
        self.sources = ("network", *(source.name for source in self.others))

    def nearest(self, context: UserContext, k: int, excluded: RowLists | None = None) -> Int[Array, "batch k"]:
        """Gives the network's own k best videos, best first: the retrieval stage alone."""
        rows, _ = self.index.search(self.network.vectors_of(context), k, excluded)
        return rows

    def candidates(
        self, context: UserContext, wish: Wish, users: Float[Array, "batch dim"] | None = None
    ) -> Candidates:
        """Gives the union of what the sources nominate; the network's come first, best first.

        Every source is asked for enough to have k left after its excluded videos are struck. `users` are the users'
        vectors, if they are known already.
        """
        users = self.network.vectors_of(context) if users is None else users
        nominations = self._nominations(context, users, wish, (*self.others, *self.beside))
        firsts = [rows[:, : wish.quotas.get(name, wish.k)] for name, (rows, _) in nominations.items()]
        merged = [_distinct([rows[user] for rows in firsts], wish.most) for user in range(len(context))]
        width = max((len(rows) for rows in merged), default=0)
        wide = [np.pad(rows, (0, width - len(rows))) for rows in merged]
        video_row = np.array(wide, dtype=np.int64).reshape(len(merged), width)
        return self._described(users, video_row, nominations)

    def describe(self, context: UserContext, video_row: Int[Array, "batch candidates"], wish: Wish) -> Candidates:
        """Gives, for videos that were shown anyway, what the sources would have said: training examples."""
        users = self.network.vectors_of(context)
        return self._described(users, video_row, self._nominations(context, users, wish, self.others))

    def draw(
        self, context: UserContext, wish: Wish, count: int, random: np.random.Generator
    ) -> Int[Array, "batch samples"]:
        """Gives `count` random nominations for each user, row 0 where a list was short.

        A video that several sources nominate is drawn as many times as often, and may be drawn twice.
        """
        nominations = self._nominations(context, self.network.vectors_of(context), wish, self.others)
        listed = np.concatenate([rows for rows, _ in nominations.values()], axis=1)
        places = random.integers(0, listed.shape[1], (len(context), count))
        return np.take_along_axis(listed, places, axis=1)

    def _nominations(
        self, context: UserContext, users: Array, wish: Wish, others: Sequence[CandidateSource]
    ) -> dict[str, Lists]:
        """What each source says, in the order of the sources."""
        jobs: dict[str, Job] = {self.sources[0]: lambda: self.index.search(users, wish.k, wish.excluded, wish.allowed)}
        jobs |= {source.name: partial(_nominated, source, context, wish) for source in others}
        found = wish.gather(jobs)
        nobody = np.zeros((len(context), 1), dtype=np.int64), np.zeros((len(context), 1), dtype=np.float32)
        return {name: found.get(name, nobody) for name in jobs}

    def _described(
        self, users: Float[Array, "batch dim"], video_row: Int[Array, "batch candidates"], nominations: dict[str, Lists]
    ) -> Candidates:
        scores = np.einsum("bd,bcd->bc", users, self.video_vectors[video_row])
        rank = np.stack([_ranks(rows, video_row) for rows, _ in nominations.values()], axis=2)
        own = [
            np.take_along_axis(listed, np.maximum(rank[:, :, place] - 1, 0), axis=1)
            for place, (_, listed) in enumerate(nominations.values())
        ]
        source_score = np.where(rank > 0, np.stack(own, axis=2), np.nan)
        return Candidates(tuple(nominations), video_row, scores, rank, source_score)


def _nominated(source: CandidateSource, context: UserContext, wish: Wish) -> Lists:
    """A source's k best that are neither excluded nor outside what is allowed."""
    longest = max((len(rows) for rows in wish.excluded), default=0) if wish.excluded else 0
    rows, scores = source.nominate(context, wish.k + longest)
    if wish.allowed is not None:
        rows = np.where((rows < len(wish.allowed)) & wish.allowed.take(rows, mode="clip"), rows, 0)
    if wish.excluded or wish.allowed is not None:
        places = _allowed_places(rows, wish.excluded or [rows[:0, 0]] * len(rows), wish.k)
        rows, scores = _moved_up(rows, places), _moved_up(scores, places)
    return rows, scores


def _distinct(lists: RowLists, most: int | None) -> Int[Array, "_"]:
    """The distinct rows in order of first appearance, without row 0; beyond `most` without the first list's last.

    >>> _distinct([np.array([7, 3, 9, 4]), np.array([9, 5, 0])], 4).tolist()
    [7, 3, 9, 5]
    """
    together = np.concatenate(lists)
    _, first = np.unique(together, return_index=True)
    rows = together[np.sort(first)]
    rows = rows[rows > 0]
    if most is None or len(rows) <= most:
        return rows
    alone = np.flatnonzero(~np.isin(rows, np.concatenate(lists[1:])))
    gone = min(len(rows) - most, max(len(alone) - most // 2, 0))
    return np.delete(rows, alone[len(alone) - gone :])


def without(rows: Int[Array, "batch width"], excluded: RowLists, k: int) -> Int[Array, "batch k"]:
    """Strikes each user's excluded rows, moves the rest up, and cuts or pads to k places."""
    return _moved_up(rows, _allowed_places(rows, excluded, k))


def _allowed_places(rows: Int[Array, "batch width"], excluded: RowLists, k: int) -> Int[Array, "batch k"]:
    """The first k places of each user's list that hold no excluded row, padded with -1."""
    places = np.full((len(rows), k), -1)
    offsets = np.cumsum([0, *map(len, excluded)])
    together = np.concatenate([*excluded, rows[:0, 0]])
    side_by_side(_find_allowed, even_parts(len(excluded), rows.size), (rows, together, offsets, places))
    return places


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _find_allowed(
    rows: Any, excluded: Any, offsets: Any, places: Any, begin: int, end: int
) -> None:  # pragma: no cover  # compiled
    for user in range(begin, end):
        table = np.zeros(table_size(offsets[user + 1] - offsets[user]), np.int64)
        for place in range(offsets[user], offsets[user + 1]):
            table[place_in(table, excluded[place])] = excluded[place]
        found = 0
        for place in range(rows.shape[1]):
            row = rows[user, place]
            if found < places.shape[1] and row > 0 and table[place_in(table, row)] != row:
                places[user, found] = place
                found += 1


def _moved_up(column: Num[Array, "batch width"], places: Int[Array, "batch k"]) -> Num[Array, "batch k"]:
    moved: Array = np.where(places >= 0, np.take_along_axis(column, places, axis=1), 0)
    return moved


def _ranks(lists: Int[Array, "batch k"], rows: Int[Array, "batch candidates"]) -> Int[Array, "batch candidates"]:
    """The place of each row in the list of its user, counted from 1; 0 where it is not in it, and for row 0.

    A binary search in all lists at once: each user's rows are shifted into a range of their own. A row and its place
    are sorted as one number, which is faster than an argsort.

    >>> _ranks(np.array([[7, 3, 0], [3, 9, 7]]), np.array([[3, 9, 0], [7, 3, 5]])).tolist()
    [[2, 0, 0], [3, 1, 0]]
    """
    span = int(max(lists.max(initial=0), rows.max(initial=0))) + 1
    shift = np.arange(len(lists), dtype=np.int64)[:, None] * span
    width = lists.shape[1]
    known = np.sort((lists + shift) * width + np.arange(width), axis=1).ravel()
    found = known[np.minimum(np.searchsorted(known, (rows + shift) * width), len(known) - 1)]
    listed = (found // width == rows + shift) & (rows > 0)
    ranks: Array = np.where(listed, found % width + 1, 0)
    return ranks
