"""How large a made-up world is, and how its logging policy chooses. Everything else follows from the seed."""

import math
from dataclasses import dataclass

from watchnext.config import Checked, setting
from watchnext.errors import ConfigurationError

_VIDEOS_OF_A_TOPIC = 100


@dataclass(frozen=True)
class WorldConfig(Checked):
    """Sizes and rates of a world; the defaults are the small one that tests use."""

    videos: int = setting(2_000, "videos of the catalogue", least=100, most=100_000_000)
    users: int = setting(2_000, "users", least=2, most=100_000_000)
    events: int = setting(300_000, "impressions", least=1, most=10_000_000_000)
    days: int = setting(30, "days that the log covers", least=1, most=3650)
    topics: int = setting(0, "topics; 0 makes one of every hundred videos", least=0, most=20_000)
    page_size: int = setting(10, "impressions of a page", least=1, most=50)
    popular_share: float = setting(
        0.4, "share of the impressions that the logging policy fills by popularity", least=0.0, most=1.0
    )
    personal_share: float = setting(
        0.5, "share of the impressions that it fills by the user's taste", least=0.0, most=1.0
    )
    random_share: float = setting(0.1, "share of the impressions that it fills at random", least=0.0, most=1.0)
    new_share: float = setting(
        0.5, "share of the videos that are uploaded while the log runs, the others before", least=0.0, most=0.9
    )
    rise_days: float = setting(4.0, "age at which a video is most popular", least=0.1, most=365.0)
    search_share: float = setting(0.5, "share of the users who search at all", least=0.0, most=1.0)
    seed: int = setting(1, "the same seed gives the same bytes", least=0, most=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = self.popular_share + self.personal_share + self.random_share
        if abs(shares - 1.0) > 1e-6:
            raise ConfigurationError(
                f"[world] popular_share + personal_share + random_share = {shares:g}: 1 was expected, as every "
                "impression is one of the three."
            )
        if self.topics > self.videos // 10:
            raise ConfigurationError(
                f"[world] topics = {self.topics}: at most a tenth of the {self.videos:,} videos was expected."
            )
        if self.page_size > self._fewest_old_videos:
            raise ConfigurationError(
                f"[world] page_size = {self.page_size}: at most {self._fewest_old_videos} was expected, the videos "
                f"that are certainly there when the log begins, as no page shows one twice. Give more videos than "
                f"{self.videos:,}, or a new_share below {self.new_share:g}."
            )
        if self.events < self.days * self.page_size:
            raise ConfigurationError(
                f"[world] events = {self.events:,}: at least {self.days * self.page_size:,} was expected, "
                f"one page of {self.page_size} for each of the {self.days} days."
            )

    @property
    def _fewest_old_videos(self) -> int:
        """How many videos are uploaded before the log begins: the mean less six standard deviations."""
        mean = self.videos * (1.0 - self.new_share)
        return max(0, math.floor(mean - 6.0 * math.sqrt(mean * self.new_share) + 1e-6))

    @property
    def num_topics(self) -> int:
        """The number of topics."""
        return self.topics or min(max(10, self.videos // _VIDEOS_OF_A_TOPIC), 2_000)
