"""An A/B test in a made-up world: visitors of our own system, of baselines, and of the ideal."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np

from watchnext.config import IndexConfig
from watchnext.errors import RequestError
from watchnext.evaluation.bootstrap import Estimate, mean_estimate, ratio_estimate
from watchnext.events.readers import quoted
from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.examples.next_watch import NextWatches
from watchnext.retrieval.co_watch import CoWatch
from watchnext.serving.recommendation import Visitor, Watch
from watchnext.serving.recommender import Recommender
from watchnext.shapes import Array, Int
from watchnext.simulation.audience import DEVICES, GENDERS, REGIONS
from watchnext.simulation.log import open_world
from watchnext.simulation.sessions import Arm, Earnings, Ideal, PageRequest, first_requests, play
from watchnext.simulation.world import World

SYSTEM, IDEAL = "watchnext", "ideal"
_HALF_LIFE_SECONDS = 3 * SECONDS_OF_A_DAY
_DRAWS = 1000
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class ArmResult:
    """What one arm earned a session, with 95 % intervals over visitors.

    `ahead_seconds` is by how much the system under test earned more, visitor by visitor: an interval without 0 in it
    is a difference. `share_of_ideal` divides expected watch times, which have no luck in them.
    """

    watch_seconds: Estimate
    ahead_seconds: Estimate
    expected_watch_seconds: Estimate
    share_of_ideal: Estimate
    clicks: Estimate


def run_trial(against: str, folder: Path, visitors: int, pages: int, seed: int) -> dict[str, ArmResult]:
    """Plays sessions of the world in `folder` with the system `against`, a bundle's folder or a server's URL.

    All arms see the same visitors with the same luck; no arm may show what its visitor has seen.

    Raises:
        ArtifactError: `folder` holds no simulated log, or `against` no whole bundle.
        RequestError: more visitors than users, no server at the URL, or a system that does not know this world.
    """
    world = open_world(folder)
    requests = first_requests(world, folder, visitors, seed)
    watches = _completed_watches(folder)
    with _system(against, world) as system:
        arms: dict[str, Arm] = {
            SYSTEM: system,
            "item-to-item co-watch": CoWatched(watches, world),
            "recent popularity": RecentlyPopular(watches, world),
            "random": Random(world, seed),
            IDEAL: Ideal(world),
        }
        earned = {name: play(world, name, arm, requests, pages, seed) for name, arm in arms.items()}
    return {name: _result(earned, name, seed) for name in arms}


@contextmanager
def _system(against: str, world: World) -> Iterator[Arm]:
    """The system under test: a server, as long as the block runs, or a bundle."""
    if "://" in against:
        with closing(Served(against, world)) as served:
            yield served
    else:
        yield InProcess(Recommender.open(against), world)


def _result(earned: dict[str, Earnings], name: str, seed: int) -> ArmResult:
    arm, system, ideal = earned[name], earned[SYSTEM], earned[IDEAL]
    return ArmResult(
        mean_estimate(arm.watch_seconds, _DRAWS, seed),
        mean_estimate(system.watch_seconds - arm.watch_seconds, _DRAWS, seed),
        mean_estimate(arm.expected_watch_seconds, _DRAWS, seed),
        ratio_estimate(arm.expected_watch_seconds, ideal.expected_watch_seconds, _DRAWS, seed),
        mean_estimate(arm.clicks, _DRAWS, seed),
    )


class InProcess:
    """The recommender of a bundle, asked directly."""

    def __init__(self, recommender: Recommender, world: World) -> None:
        self._recommender = recommender
        self._world = world

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives our own page."""
        body = _body(self._world, request, k)
        visitor = Visitor(
            tuple(Watch(**watch) for watch in body["history"]),
            tuple((search["timestamp"], search["query"]) for search in body["searches"]),
            body["attributes"],
        )
        found = self._recommender.recommend_visitor(visitor, k, as_of=request.moment, exclude_seen=True)
        return _known(self._world, [one.video_id for one in found])


class Served:
    """A server's HTTP API, asked over the network.

    Raises:
        RequestError: the URL is none.
    """

    def __init__(self, url: str, world: World) -> None:
        self._url = url
        self._world = world
        try:
            self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS)
        except httpx.InvalidURL as wrong:
            raise self._not_ours(wrong) from wrong

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives the server's page.

        Raises:
            RequestError: nobody answers, or the answer is not a list.
        """
        try:
            answer = self._client.post("/v1/recommendations", json=_body(self._world, request, k))
            answer.raise_for_status()
            return _known(self._world, [one["video_id"] for one in answer.json()["recommendations"]])
        except httpx.HTTPStatusError as refused:
            raise RequestError(
                f"{self._url} refused a page with status {refused.response.status_code}: {refused.response.text[:200]}"
            ) from refused
        except (httpx.HTTPError, KeyError, TypeError, ValueError) as broken:
            raise self._not_ours(broken) from broken

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def _not_ours(self, error: Exception) -> RequestError:
        return RequestError(
            f"{self._url} does not answer as `watchnext serve` does ({type(error).__name__}: {error}). Start it with "
            "`watchnext serve --bundle …`, and give the address without a path."
        )


class CoWatched:
    """Item-to-item: what else was completed by those who completed what the visitor did."""

    def __init__(self, watches: NextWatches, world: World) -> None:
        self._co_watch = CoWatch.fit(watches, world.config.videos + 1, IndexConfig().num_co_watched)
        self._world = world
        self._popular = RecentlyPopular(watches, world)

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives the neighbours of the visitor's latest completed watches, then what is popular."""
        completed = self._world.completed(request.video, request.watch_seconds)
        newest = request.video[completed][::-1] + 1
        rows, _ = self._co_watch.related(newest[None], k + len(request.video))
        related = _unseen(rows[0][rows[0] > 0] - 1, request, k)
        fill = self._popular.page(request, k)
        return np.concatenate([related, np.setdiff1d(fill, related, assume_unique=True)])[:k]


class RecentlyPopular:
    """What everybody completed lately: a watch counts half after three days."""

    def __init__(self, watches: NextWatches, world: World) -> None:
        weight = 0.5 ** ((world.end_second - watches.timestamp) / _HALF_LIFE_SECONDS)
        score = np.bincount(watches.video_row - 1, weight, minlength=world.config.videos)
        self._best_first = np.argsort(-score, kind="stable")

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives the most popular videos that the visitor has not seen."""
        return _unseen(self._best_first[: k + len(request.video)], request, k)


class Random:
    """Any videos: what a system without an idea would earn."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = np.random.default_rng(seed)

    def page(self, request: PageRequest, k: int) -> Int[Array, "k"]:
        """Gives videos drawn evenly from all that the visitor has not seen."""
        drawn = self._random.choice(
            self._world.config.videos, min(k + len(request.video), self._world.config.videos), False
        )
        return _unseen(drawn, request, k)


def _body(world: World, request: PageRequest, k: int) -> dict[str, Any]:
    """The request as the HTTP API takes it."""
    user = world.audience.users[request.user]
    completed = world.completed(request.video, request.watch_seconds)
    columns = (request.video, request.timestamp, request.watch_seconds, completed)
    return {
        "history": [
            {"video_id": video, "timestamp": when, "watch_seconds": seconds, "completed": whole}
            for video, when, seconds, whole in zip(*(column.tolist() for column in columns), strict=True)
        ],
        "searches": [{"timestamp": when, "query": query} for when, query in request.searches],
        "attributes": {
            "age": float(user["age"]),
            "gender": GENDERS[user["gender"]],
            "region": REGIONS[user["region"]],
            "device": DEVICES[user["device"]],
        },
        "k": k,
        "as_of": request.moment,
        "exclude_seen": True,
    }


def _known(world: World, video_ids: list[Any]) -> Int[Array, "k"]:
    if not all(isinstance(one, int) and 0 <= one < world.config.videos for one in video_ids):
        raise RequestError(
            "the system recommends videos that this world does not have: it was trained on another log. Give the "
            "--world whose log it learnt from."
        )
    return np.array(video_ids, dtype=np.int64)


def _unseen(videos: Int[Array, "rows"], request: PageRequest, k: int) -> Int[Array, "k"]:
    kept: Array = videos[~np.isin(videos, request.video)][:k]
    return kept.astype(np.int64)


def _completed_watches(folder: Path) -> NextWatches:
    """The completed watches of the log, with video rows from 1 as everywhere."""
    files = quoted(str(folder / "impressions" / "*.parquet"))
    with duckdb.connect() as connection:
        columns = connection.execute(
            f"SELECT user_id, timestamp, video_id + 1 AS video_row FROM read_parquet({files}) WHERE completed"
        ).fetchnumpy()
    return NextWatches(*(np.asarray(columns[name]) for name in ("user_id", "timestamp", "video_row")))
