"""What the site showed: a stated mixture of popular, personal and random."""

from dataclasses import dataclass

import numpy as np

from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.shapes import Array, Float, Int
from watchnext.simulation.visits import Visits, taste_at
from watchnext.simulation.words import LANGUAGES
from watchnext.simulation.world import START_SECOND, World

_CONTINUE_SHARE = 0.2  # of the personal share: what comes next in a series or artist that the user follows


@dataclass(frozen=True)
class Shelves:
    """The videos sorted by language and topic, so that every (language, topic) is one stretch: a shelf."""

    order: Int[Array, "videos"]
    bounds: Int[Array, "shelves"]
    appeal: Float[Array, "videos"]
    uploaded_second: Int[Array, "videos"]

    @classmethod
    def of(cls, world: World) -> "Shelves":
        """Sorts the videos of a world; `bounds` has one entry more than there are shelves."""
        videos = world.catalogue.videos
        shelf = videos["language"].astype(np.int32) * world.config.num_topics + videos["main_topic"]
        order = np.argsort(shelf, kind="stable").astype(np.int32)
        bounds = np.searchsorted(shelf[order], np.arange(len(LANGUAGES) * world.config.num_topics + 1))
        return cls(order, bounds, videos["appeal"][order], videos["uploaded_second"][order])


@dataclass(frozen=True)
class LoggingPolicy:
    """The policy of one day. Weights are those of midnight: a new upload is first shown on the day after it."""

    world: World
    shelves: Shelves
    cumulative: Float[Array, "videos"]

    @classmethod
    def of_day(cls, world: World, shelves: Shelves, day: int) -> "LoggingPolicy":
        """Weighs every video by its popularity at the beginning of the day."""
        midnight = np.array(START_SECOND + day * SECONDS_OF_A_DAY)
        weights = world.popularity(shelves.appeal, shelves.uploaded_second, midnight)
        return cls(world, shelves, np.cumsum(weights, dtype=np.float64))

    def pages(self, visits: Visits, random: np.random.Generator) -> Int[Array, "pages k"]:
        """Gives the videos of each page, no video twice on one.

        A search is answered from the shelf of its topic, in the language of the user. Everything else is popular
        (anything in the user's language), personal (the next video of a followed channel, or from the shelf of a
        taste), or random (anything uploaded), in the shares of the settings.
        """
        config = self.world.config
        shape = (len(visits), config.page_size)
        user, moment = (np.repeat(column, config.page_size) for column in (visits.user, visits.moment))
        searched = np.repeat(visits.topic, config.page_size)
        kind = random.random(len(user))
        personal = (kind >= config.popular_share) & (kind < config.popular_share + config.personal_share)
        topic = np.where(personal, taste_at(self.world, user, moment, random), -1)
        topic = np.where(searched >= 0, searched, topic)
        videos = self._popular(self.world.audience.users["language"][user], topic, random)
        anything = (kind >= config.popular_share + config.personal_share) & (searched < 0)
        videos[anything] = self._any(int(anything.sum()), random)
        continued = self._continued(user, moment, random)
        videos = np.where(personal & (searched < 0) & (continued >= 0), continued, videos)
        return self._without_repeats(videos.reshape(shape), random)

    def _popular(
        self, language: Int[Array, "rows"], topic: Int[Array, "rows"], random: np.random.Generator
    ) -> Int[Array, "rows"]:
        """Draws by weight from each row's shelf, or from the whole language where topic is -1.

        Where nothing on the shelf was uploaded yet the language stands in, and for that everything.
        """
        num_topics = self.world.config.num_topics
        weight = np.concatenate([[0.0], self.cumulative])
        first, last = language * num_topics, (language + 1) * num_topics
        low, high = weight[self.shelves.bounds[first]], weight[self.shelves.bounds[last]]
        shelf = first + np.maximum(topic, 0)
        from_shelf, to_shelf = weight[self.shelves.bounds[shelf]], weight[self.shelves.bounds[shelf + 1]]
        filled = (topic >= 0) & (to_shelf > from_shelf)
        low, high = np.where(filled, from_shelf, low), np.where(filled, to_shelf, high)
        empty = high <= low
        low, high = np.where(empty, 0.0, low), np.where(empty, weight[-1], high)
        return self._at(low + random.random(len(language)) * (high - low))

    def _any(self, count: int, random: np.random.Generator) -> Int[Array, "rows"]:
        """Draws uniformly; by weight where the luck fell on a video that is not uploaded yet."""
        places = random.integers(0, len(self.cumulative), count)
        shown = self.cumulative[places] > np.where(places > 0, self.cumulative[places - 1], 0.0)
        by_weight = self._at(random.random(count) * self.cumulative[-1])
        return np.where(shown, self.shelves.order[places], by_weight)

    def _at(self, weight: Float[Array, "rows"]) -> Int[Array, "rows"]:
        places = np.searchsorted(self.cumulative, weight, side="right")
        last = np.searchsorted(self.cumulative, self.cumulative[-1], side="left")  # rounding must not reach past it
        videos: Array = self.shelves.order[np.minimum(places, last)].astype(np.int64)
        return videos

    def _continued(
        self, user: Int[Array, "rows"], moment: Int[Array, "rows"], random: np.random.Generator
    ) -> Int[Array, "rows"]:
        """The next video of a followed channel for one row in five, -1 for the others and where there is none."""
        chosen = np.flatnonzero(random.random(len(user)) < _CONTINUE_SHARE)
        options = self.world.next_in_order(user[chosen], moment[chosen])
        nth = random.integers(0, options.shape[1], len(chosen))
        continued = np.full(len(user), -1, dtype=np.int64)
        continued[chosen] = options[np.arange(len(chosen)), nth]
        return continued

    def _without_repeats(self, pages: Int[Array, "pages k"], random: np.random.Generator) -> Int[Array, "pages k"]:
        """Draws anew, from everything, what a page shows twice, until no page does."""
        while True:
            order = np.argsort(pages, axis=1, kind="stable")
            ordered = np.take_along_axis(pages, order, axis=1)
            page, place = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
            if not len(page):
                return pages
            pages[page, order[page, place + 1]] = self._any(len(page), random)
