"""Who comes when: the sessions and pages of one day, and the searches that begin some of them."""

from dataclasses import dataclass

import numpy as np

from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.shapes import Array, Int
from watchnext.simulation.audience import NUM_TASTES
from watchnext.simulation.world import START_SECOND, World

_PAGES_OF_A_SESSION = 3.0
_SECONDS_BETWEEN_PAGES = 240.0
_SECONDS_FROM_SEARCH_TO_PAGE = 2
_SEARCH_LEAD_SECONDS = 7 * SECONDS_OF_A_DAY  # people search for what they are coming to like
_VISITS_BY_HOUR = np.array([3, 2, 1, 1, 1, 2, 4, 6, 7, 6, 6, 7, 8, 8, 7, 7, 8, 10, 13, 15, 16, 14, 10, 6], dtype=float)


@dataclass(frozen=True)
class Visits:
    """The pages of one day in time order. `topic` is what was searched for, -1 on the home page."""

    user: Int[Array, "pages"]
    moment: Int[Array, "pages"]
    topic: Int[Array, "pages"]

    def __len__(self) -> int:
        """The number of pages."""
        return len(self.user)

    @property
    def searched(self) -> Int[Array, "_"]:
        """The places of the pages that answer a search."""
        return np.flatnonzero(self.topic >= 0)

    def search_moment(self, pages: Int[Array, "rows"]) -> Int[Array, "rows"]:
        """Gives when the search was made that a page answers."""
        return self.moment[pages] - _SECONDS_FROM_SEARCH_TO_PAGE

    def part(self, places: slice) -> "Visits":
        """Gives some of the pages."""
        return Visits(self.user[places], self.moment[places], self.topic[places])


def visits_of_day(world: World, day: int, num_pages: int, random: np.random.Generator) -> Visits:
    """Draws sessions, each by one user and some minutes between its pages, until there are `num_pages`.

    The last session is cut short. A session that begins before midnight may end after it.
    """
    session, nth = _sessions(num_pages, random)
    num_sessions = int(session[-1]) + 1
    activity = world.audience.activity
    users = np.searchsorted(activity, random.random(num_sessions), side="right")
    users = np.minimum(users, len(activity) - 1)
    hours = np.cumsum(_VISITS_BY_HOUR) / _VISITS_BY_HOUR.sum()
    hour = np.searchsorted(hours, random.random(num_sessions), side="right") + random.random(num_sessions)
    begins = (
        START_SECOND + day * SECONDS_OF_A_DAY + _SECONDS_FROM_SEARCH_TO_PAGE + np.floor(hour * 3600).astype(np.int64)
    )
    pause = np.where(nth > 0, 1.0 + random.exponential(_SECONDS_BETWEEN_PAGES, num_pages), 0.0)
    elapsed = np.cumsum(np.ceil(pause)).astype(np.int64)
    first = np.flatnonzero(nth == 0)
    moment = begins[session] + elapsed - elapsed[first][session]
    user = users[session]
    begins_with_search = random.random(num_sessions) < world.audience.users["search_rate"][users]
    wanted = taste_at(world, user, moment + _SEARCH_LEAD_SECONDS, random)
    topic = np.where((nth == 0) & begins_with_search[session], wanted, -1)
    order = np.lexsort((user, moment))
    return Visits(user[order], moment[order], topic[order])


def _sessions(num_pages: int, random: np.random.Generator) -> tuple[Int[Array, "pages"], Int[Array, "pages"]]:
    """The session that each page belongs to, and its place in it."""
    sizes = random.geometric(1.0 / _PAGES_OF_A_SESSION, num_pages)
    ends = np.cumsum(sizes)
    sizes = sizes[: int(np.searchsorted(ends, num_pages)) + 1]
    session = np.repeat(np.arange(len(sizes)), sizes)[:num_pages]
    starts = np.concatenate([[0], ends[: len(sizes) - 1]])
    return session, np.arange(num_pages) - starts[session]


def taste_at(
    world: World, user: Int[Array, "rows"], moment: Int[Array, "rows"], random: np.random.Generator
) -> Int[Array, "rows"]:
    """One of each user's tastes, drawn by how much it counts at the moment."""
    cumulative = np.cumsum(world.taste_weights(moment), axis=1)
    luck = random.random(len(user)) * cumulative[:, -1]
    place = np.minimum((luck[:, None] >= cumulative).sum(axis=1), NUM_TASTES - 1)
    topics: Array = world.audience.users["tastes"][user, place].astype(np.int64)
    return topics
