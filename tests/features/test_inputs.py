"""What the ranker reads, put together by hand: three videos, two channels, three users."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.config import FeaturesConfig
from watchnext.errors import ConfigurationError
from watchnext.events.dataset import VideoTable
from watchnext.features.inputs import Nominations, RankingInputs, ranking_inputs
from watchnext.features.spec import FeatureSpec, empty_state
from watchnext.features.state import FeatureValues

DAY = 86_400
NOW = 100 * DAY
NAMES = (
    "a", "b", "video.age_days", "video.weight", "user_title.searched_tokens", "user_title.searched_share",
    "network_score", "num_sources", "nominated_by.x", "nominated_by.y", "rank_by.x", "rank_by.y", "score_by.y",
)  # fmt: skip
SPEC = FeatureSpec(
    FeaturesConfig(last_watches=2),
    ("c", "user.years"),
    NAMES,
    np.arange(2),
    np.arange(len(NAMES)),
    durations=np.array([np.nan, 10.0, 20.0, 30.0], dtype=np.float32),
    title_words=np.array([0, 2, 0, 1]),
    num_sources=2,
)
CANDIDATES = np.array([[1, 2, 3, 0]] * 3)
RANKS = np.array([[[3, 1], [1, 0], [0, 0], [0, 2]]] * 3)
OF_SOURCES = np.where(RANKS > 0, 0.5 + RANKS, np.nan)


@pytest.fixture
def videos():
    # videos 1 and 2 are of channel 1, video 3 of channel 2; video 2 is uploaded tomorrow, video 3 has no upload time
    return VideoTable(
        channel_row=np.array([0, 1, 1, 2], dtype=np.int32),
        categorical=np.array([[0], [3], [4], [5]], dtype=np.int32),
        continuous=np.array([[np.nan], [0.1], [0.2], [0.3]], dtype=np.float32),
        tag_rows=np.array([[0, 0], [5, 0], [6, 0], [7, 6]], dtype=np.int32),
        title_rows=np.array([[0, 0], [2, 1], [2, 3], [0, 0]], dtype=np.int32),
        uploaded_at=np.array([0, NOW - 10 * DAY, NOW + DAY, 0]),
        num_completed=np.array([0, 3, 2, 1]),
    )


@pytest.fixture
def inputs(videos, context_of) -> RankingInputs:
    return put_together(videos, context_of, SPEC)


def put_together(videos, context_of, spec) -> RankingInputs:
    history = [{"video": 2, "when": NOW - 60}]
    arguments = dict(moment=NOW + 3 * 3600 + 5, watched=[3, 2, 1], length=3, continuous=[31.0], categorical=[8, 9])
    context = context_of(history, history, [], **arguments)
    context = dataclasses.replace(context, token_row=np.array([[1, 1, 0], [3, 1, 2], [0, 0, 0]]))
    given = Nominations(np.random.default_rng(0).normal(size=(3, 4)), RANKS, OF_SOURCES)
    values = FeatureValues(np.arange(3, dtype=np.float32)[:, None], np.arange(24, dtype=np.float32).reshape(3, 4, 2))
    return ranking_inputs(videos, context, np.array([1, 2, 3]), CANDIDATES, given, values, spec)


def test_ids_are_those_of_the_query_and_of_the_videos(inputs):
    # NOW is a Saturday's midnight: 100 days after Thursday 1 January 1970.
    assert inputs.query_ids.tolist() == [[4, 3, surface, 8, 9] for surface in (1, 2, 3)]
    assert inputs.last_watched.tolist() == [[3, 2]] * 3
    assert_array_equal(inputs.video_row, CANDIDATES)
    assert inputs.channel_row[0].tolist() == [1, 1, 2, 0]
    assert inputs.video_ids[0].tolist() == [[3], [4], [5], [0]]
    assert inputs.tag_rows[0].tolist() == [[5, 0], [6, 0], [7, 6], [0, 0]]
    assert len(inputs) == 3 and len(inputs.part(slice(1, 3))) == 2


def test_values_stand_where_their_names_say(inputs):
    named = dict(zip(NAMES, np.moveaxis(inputs.values, 2, 0), strict=True))
    assert_array_equal(named["b"], np.arange(1, 24, 2).reshape(3, 4))
    assert_allclose(named["video.age_days"][0], [10.125, 0.0, np.nan, np.nan], atol=1e-3)
    assert_allclose(named["video.weight"][1], [0.1, 0.2, 0.3, np.nan], rtol=1e-6)
    assert_array_equal(named["num_sources"][2], [2, 1, 0, 1])
    assert_array_equal(named["nominated_by.y"][2], [1, 0, 0, 1])
    assert_array_equal(named["rank_by.x"][1], [3, 1, np.nan, np.nan])
    assert_array_equal(named["rank_by.y"][1], [1, np.nan, np.nan, 2])
    assert_array_equal(named["score_by.y"][1], [1.5, np.nan, np.nan, 2.5])
    # The first user searched for the word 2 of titles, the second for 1 and 2, the third for nothing.
    assert_array_equal(named["user_title.searched_tokens"], [[1, 1, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0]])
    shares = [[0.5, 0.5], [1, 0.5], [0, 0]]
    assert_array_equal(named["user_title.searched_share"], [[*known, np.nan, np.nan] for known in shares])
    assert_allclose(named["network_score"], np.random.default_rng(0).normal(size=(3, 4)), rtol=1e-6)
    assert_array_equal(inputs.query_values, [[0.0, 31.0], [1.0, 31.0], [2.0, 31.0]])
    assert_array_equal(inputs.duration_seconds[0], [10, 20, 30, np.nan])


def test_without_searches_or_titles_nothing_stands_in_their_place(videos, context_of, inputs):
    names = [name for name in NAMES if not name.startswith("user_title.")]
    spec = dataclasses.replace(SPEC, title_words=np.zeros(0, dtype=np.int64), places=np.arange(len(names)))
    without = put_together(videos, context_of, spec)
    assert_array_equal(without.values, inputs.values[:, :, [NAMES.index(name) for name in names]])


def test_what_is_excluded_is_not_read(videos, context_of, inputs):
    spec = dataclasses.replace(SPEC, places=np.array([1, 6]), query_places=np.array([1]))
    fewer = put_together(videos, context_of, spec)
    assert_array_equal(fewer.values, inputs.values[:, :, [1, 6]])
    assert_array_equal(fewer.query_values, inputs.query_values[:, [1]])


def test_names_are_those_of_the_log_and_patterns_leave_some_out(small_dataset):
    config = FeaturesConfig(horizons_seconds=(60.0,), exclude=("user_tags.*", "*.clicked_share.*", "user.shown.all"))
    state = empty_state(small_dataset, config)
    spec = FeatureSpec.of(small_dataset, state, ("network", "popular"), config)
    used = [*(spec.query_names[place] for place in spec.query_places), *(spec.names[place] for place in spec.places)]
    assert {"video.shown.1min", "user.shown.1min", "channel.log_watch_seconds.all", "nominated_by.popular"} <= set(used)
    left_out = {*spec.query_names, *spec.names} - set(used)
    assert left_out == {
        name
        for name in (*spec.query_names, *spec.names)
        if name.startswith(("user_tags.", "everything.shown.")) or ".clicked_share." in name or name == "user.shown.all"
    }
    assert spec.names[-9:] == (
        "user_title.searched_tokens", "user_title.searched_share", "network_score", "num_sources",
        "nominated_by.network", "nominated_by.popular", "rank_by.network", "rank_by.popular", "score_by.popular",
    )  # fmt: skip
    assert len(spec.names) == len(set(spec.names)) and len(spec.query_names) == len(set(spec.query_names))


def test_a_feature_that_the_log_does_not_give_is_refused_with_the_nearest_name(small_dataset):
    config = FeaturesConfig(exclude=("chanel.shown.1h",))
    with pytest.raises(ConfigurationError, match=r"names no feature of this log; did you mean 'channel.shown.1h'\?"):
        FeatureSpec.of(small_dataset, empty_state(small_dataset, config), ("network",), config)


def test_a_full_log_gives_at_least_200_features(small_dataset):
    config = FeaturesConfig()
    spec = FeatureSpec.of(small_dataset, empty_state(small_dataset, config), ("network",), config)
    assert len(spec.query_places) + len(spec.places) >= 200
