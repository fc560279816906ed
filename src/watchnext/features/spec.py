"""Which features there are: their names, in the order in which the ranker reads them, and which are left out (§4.1)."""

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from watchnext.config import FeaturesConfig
from watchnext.errors import ConfigurationError
from watchnext.events.dataset import Dataset
from watchnext.features.state import FeatureState, Keys
from watchnext.features.titles import TITLE_NAMES, words_of_titles
from watchnext.shapes import Array, Float, Int

UNBOUNDED = "everything.shown.*"
"""What all other shares are of, and no input itself: it grows with the log, so that tomorrow is never like today."""


@dataclass(frozen=True)
class FeatureSpec:
    """Names of all continuous features, of a request and of its candidates, and the places of those that are used.

    `durations` has the seconds of each video, NaN where unknown; `title_words` what `words_of_titles` gives;
    `num_sources` is how many sources of candidates the names are of.
    """

    config: FeaturesConfig
    query_names: tuple[str, ...]
    names: tuple[str, ...]
    query_places: Int[Array, "query_values"]
    places: Int[Array, "values"]
    durations: Float[Array, "videos"]
    title_words: Int[Array, "rows"]
    num_sources: int

    @classmethod
    def of(
        cls, dataset: Dataset, state: FeatureState, sources: tuple[str, ...], config: FeaturesConfig
    ) -> "FeatureSpec":
        """Names what the log, the state and the sources give, without what is excluded and without `UNBOUNDED`.

        Raises:
            ConfigurationError: a pattern that excludes nothing.
        """
        query = [*state.query_names, *(f"user.{name}" for name in dataset.facts["user_numbers"])]
        of_video = ["age_days", *dataset.facts["video_numbers"]]
        of_retrieval = [
            "network_score",
            "num_sources",
            *(f"nominated_by.{source}" for source in sources),
            *(f"rank_by.{source}" for source in sources),
            *(f"score_by.{source}" for source in sources[1:]),  # the first is the network
        ]
        title_words = words_of_titles(dataset.vocabularies)
        of_title = TITLE_NAMES if len(title_words) else ()
        names = [*state.names, *(f"video.{name}" for name in of_video), *of_title, *of_retrieval]
        for pattern in config.exclude:
            if not any(fnmatchcase(name, pattern) for name in (*query, *names)):
                near = difflib.get_close_matches(pattern, [*query, *names], 1, 0.0)[0]
                raise ConfigurationError(
                    f"[features] exclude = '{pattern}' names no feature of this log; did you mean '{near}'? "
                    "watchnext features lists them."
                )

        def used(every: list[str]) -> Int[Array, "_"]:
            left_out = (*config.exclude, UNBOUNDED)
            return np.flatnonzero([not any(fnmatchcase(name, pattern) for pattern in left_out) for name in every])

        places = used(query), used(names)
        return cls(
            config, tuple(query), tuple(names), *places, durations_of(dataset), title_words, num_sources=len(sources)
        )


def durations_of(dataset: Dataset) -> Float[Array, "videos"]:
    """The length of each video in seconds, NaN where the log does not say."""
    numbers = dataset.facts["video_numbers"]
    if "duration_seconds" not in numbers:
        return np.full(dataset.num_videos, np.nan, dtype=np.float32)
    return np.asarray(dataset.videos.continuous[:, numbers.index("duration_seconds")])


def empty_state(dataset: Dataset, config: FeaturesConfig) -> FeatureState:
    """Gives the memory that the settings ask for, of nothing yet."""
    return FeatureState.empty(*_shape_of_state(dataset, config))


def open_state(folder: Path, dataset: Dataset, config: FeaturesConfig) -> FeatureState:
    """Maps the memory that was saved in `folder`."""
    return FeatureState.open(folder, *_shape_of_state(dataset, config))


def _shape_of_state(dataset: Dataset, config: FeaturesConfig) -> tuple[Keys, tuple[float, ...], float, int]:
    keys = Keys.of(dataset.videos, dataset.video_categories)
    return keys, config.horizons_seconds, config.habit_lag_days * 86_400, config.history_length
