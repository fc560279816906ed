"""The loop closed: visitors of the world get their pages from any system, and what they watch is what it earned."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol, runtime_checkable

import duckdb
import numpy as np
import pyarrow as pa

from watchnext.errors import RequestError
from watchnext.events.readers import quoted
from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.progress import bar
from watchnext.shapes import Array, Float, Int
from watchnext.simulation.world import World

_MOST_EVENTS = 500
_VISITORS, _LUCK = range(2)  # streams of random numbers
_SECONDS_BETWEEN_PAGES = 600


@dataclass(frozen=True)
class PageRequest:
    """Somebody asks for a page: who, when, and what they were shown and watched up to now, oldest first."""

    user: int
    moment: int
    video: Int[Array, "events"]
    timestamp: Int[Array, "events"]
    watch_seconds: Float[Array, "events"]
    searches: tuple[tuple[int, str], ...]

    def after(self, videos: Int[Array, "k"], watch_seconds: Float[Array, "k"]) -> "PageRequest":
        """Gives the same visitor's next request, some minutes later, with the page just seen in its past."""
        return replace(
            self,
            moment=self.moment + _SECONDS_BETWEEN_PAGES,
            video=np.concatenate([self.video, videos])[-_MOST_EVENTS:],
            timestamp=np.concatenate([self.timestamp, np.full(len(videos), self.moment)])[-_MOST_EVENTS:],
            watch_seconds=np.concatenate([self.watch_seconds, watch_seconds])[-_MOST_EVENTS:],
        )


@runtime_checkable
class Arm(Protocol):
    """What visitors are sent to: anything that fills pages with videos they have not been shown before."""

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives k videos, best first."""
        ...


@dataclass(frozen=True)
class Earnings:
    """What one arm earned from each visitor's session: seconds watched, their expectation, and clicks."""

    watch_seconds: Float[Array, "users"]
    expected_watch_seconds: Float[Array, "users"]
    clicks: Float[Array, "users"]


class Ideal:
    """The arm that knows the truth: the unseen videos with the largest expected watch time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives the ideal page."""
        return self._world.best(request.user, request.moment, k, request.video)


def first_requests(world: World, folder: Path, num_visitors: int, seed: int) -> list[PageRequest]:
    """Gives the first request of different users drawn by activity, each within the day after the log in `folder`.

    They bring along their latest 500 impressions and searches of the log.

    Raises:
        RequestError: more visitors than users.
    """
    if not 1 <= num_visitors <= world.config.users:
        raise RequestError(
            f"visitors = {num_visitors:,}: between 1 and {world.config.users:,} was expected, the users of this world."
        )
    random = np.random.default_rng([seed, _VISITORS])
    activity = np.diff(world.audience.activity, prepend=0.0)
    first_visit = random.exponential(size=len(activity)) / np.maximum(activity, 1e-300)
    user = np.argpartition(first_visit, num_visitors - 1)[:num_visitors]
    moment = world.end_second + 1 + random.integers(0, SECONDS_OF_A_DAY, num_visitors)
    visits = pa.table({"place": np.arange(num_visitors), "user_id": user.astype(np.int32), "moment": moment})
    impressions = _latest(folder / "impressions", ("video_id", "watch_seconds"), "timestamp, page_id, position", visits)
    searches = _latest(folder / "searches", ("query",), "timestamp, query", visits)
    return [
        PageRequest(
            int(user[place]),
            int(moment[place]),
            shown["video_id"].astype(np.int64),
            shown["timestamp"],
            shown["watch_seconds"],
            tuple(zip(searched["timestamp"].tolist(), searched["query"].tolist(), strict=True)),
        )
        for place, (shown, searched) in enumerate(zip(impressions, searches, strict=True))
    ]


def play(world: World, name: str, arm: Arm, requests: list[PageRequest], num_pages: int, seed: int) -> Earnings:
    """Plays the session of each visitor: `num_pages` pages, each asked for with the last one in its past.

    A visitor's luck at a place of a page is the same whatever the arm, so that arms differ by what they show alone.
    """
    page_size = world.config.page_size
    earned = Earnings(*np.zeros((3, len(requests))))
    with bar(f"playing {name}", len(requests)) as progress:
        for place, request in enumerate(requests):
            luck = np.random.default_rng([seed, _LUCK, request.user]).random((num_pages, 2, page_size))
            user = np.array([request.user])
            for page in range(num_pages):
                videos, moment = arm.page(request, page_size), np.array([request.moment])
                shown = np.arange(len(videos))
                seconds = world.outcome(user, videos, moment, shown, luck[page, :, : len(videos)])
                earned.watch_seconds[place] += seconds.sum()
                earned.expected_watch_seconds[place] += world.expected_watch_seconds(user, videos, moment, shown).sum()
                earned.clicks[place] += (seconds > 0).sum()
                request = request.after(videos, seconds)
            progress.advance()
    return earned


def _latest(folder: Path, columns: tuple[str, ...], order: str, visits: pa.Table) -> list[dict[str, Array]]:
    """The latest rows before each visit in the Parquet files of `folder`, oldest first."""
    query = f"""
        SELECT place, timestamp, {", ".join(columns)} FROM read_parquet({quoted(str(folder / "*.parquet"))})
        JOIN visits USING (user_id) WHERE timestamp < moment
        QUALIFY row_number() OVER (PARTITION BY place ORDER BY ({order}) DESC) <= {_MOST_EVENTS}
        ORDER BY place, {order}
    """
    with duckdb.connect() as connection:
        connection.register("visits", visits)
        rows = connection.execute(query).fetchnumpy()
    bounds = np.searchsorted(rows["place"], np.arange(len(visits) + 1))
    return [{name: np.asarray(column[low:high]) for name, column in rows.items()} for low, high in pairwise(bounds)]
