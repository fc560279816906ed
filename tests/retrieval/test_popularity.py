import dataclasses

import numpy as np
import pytest

from watchnext.events.dataset import Dataset, Segments
from watchnext.retrieval.candidates import CandidateSource
from watchnext.retrieval.popularity import RecentPopularity

START, HOUR, DAY = 1_700_000_000, 3_600, 86_400


@pytest.fixture
def popularity_of(small_dataset):
    """Fits on a log of one user who completed the given (second, video) pairs, in the catalogue of the small world."""

    def fitted(watches: list[tuple[int, int]], log_days: int = 20) -> RecentPopularity:
        when = np.array([START + second for second, _ in watches], dtype=np.int64)
        segments = Segments(np.array([0, 0, len(watches)]), when)
        events = dataclasses.replace(
            small_dataset.events,
            segments=segments,
            watches=segments,
            watch_places=np.arange(len(watches)),
            video_row=np.array([row for _, row in watches], dtype=np.int32),
            **{
                name: getattr(small_dataset.events, name)[: len(watches)]
                for name in ("watch_seconds", "clicked", "completed", "liked", "shown", "surface_row", "position")
            },
        )
        facts = small_dataset.facts | {"log_start": START, "log_end": START + log_days * DAY}
        artifact = dataclasses.replace(small_dataset.artifact, facts=facts)
        return RecentPopularity.fit(dataclasses.replace(small_dataset, events=events, artifact=artifact))

    return fitted


@pytest.fixture
def lists_at(make_context):
    """Nominates as of some seconds after the log's start."""

    def nominated(popular: RecentPopularity, seconds: list[int], k: int) -> tuple[list, list]:
        moments = START + np.array(seconds, dtype=np.int64)
        rows, scores = popular.nominate(make_context(watched=[[]] * len(seconds), moment=moments), k)
        return rows.tolist(), scores.tolist()

    return nominated


WATCHES = [(0, 5), (10, 5), (20, 5), (HOUR, 7), (3 * DAY + HOUR, 6), (3 * DAY + 2 * HOUR, 6)]


def test_before_the_first_quarter_of_a_day_has_ended_nothing_is_popular(popularity_of, lists_at):
    rows, scores = lists_at(popularity_of(WATCHES), [-DAY, 0, HOUR, 6 * HOUR - 1], 3)
    assert rows == [[0, 0, 0]] * 4
    assert scores == [[0, 0, 0]] * 4


def test_an_ended_quarter_counts_in_full(popularity_of, lists_at):
    rows, scores = lists_at(popularity_of(WATCHES), [6 * HOUR], 3)
    assert rows == [[5, 7, 0]]
    assert scores == [[3.0, 1.0, 0.0]]


def test_a_watch_counts_half_after_three_days(popularity_of, lists_at):
    rows, scores = lists_at(popularity_of(WATCHES), [3 * DAY + 6 * HOUR], 4)
    # Video 5: 3/2; video 7: 1/2; video 6: two watches in the quarter that has just ended.
    assert rows == [[6, 5, 7, 0]]
    np.testing.assert_allclose(scores, [[2.0, 1.5, 0.5, 0.0]], rtol=1e-5)


def test_the_current_quarter_is_not_known_yet(popularity_of, lists_at):
    rows, _ = lists_at(popularity_of(WATCHES), [3 * DAY + 6 * HOUR - 1], 3)
    assert rows == [[5, 7, 0]]


def test_after_the_log_its_last_list_stands(popularity_of, lists_at):
    rows, _ = lists_at(popularity_of(WATCHES, log_days=4), [4 * DAY, 400 * DAY], 2)
    assert rows == [[6, 5], [6, 5]]


def test_ties_are_broken_by_row(popularity_of, lists_at):
    rows, _ = lists_at(popularity_of([(0, 9), (1, 3), (2, 40), (3, 3)]), [DAY], 3)
    assert rows == [[3, 9, 40]]


def test_a_k_larger_than_the_catalogue_is_padded(popularity_of, lists_at):
    rows, scores = lists_at(popularity_of(WATCHES), [6 * HOUR], 100)
    assert rows == [[5, 7] + [0] * 98]
    assert scores == [[3.0, 1.0] + [0.0] * 98]


def test_later_events_change_nothing(small_dataset, make_context):
    popular = RecentPopularity.fit(small_dataset)
    random = np.random.default_rng(0)
    for moment in random.integers(small_dataset.facts["log_start"], small_dataset.log_end, 5):
        events = small_dataset.events
        later = events.segments.timestamp >= moment
        other = np.where(later, random.integers(1, small_dataset.num_videos, len(later)), events.video_row).astype(
            np.int32
        )
        changed = dataclasses.replace(small_dataset, events=dataclasses.replace(events, video_row=other))
        context = make_context(watched=[[]], moment=moment)
        for one, two in zip(
            popular.nominate(context, 100), RecentPopularity.fit(changed).nominate(context, 100), strict=True
        ):
            np.testing.assert_array_equal(one, two)


def test_scores_are_those_of_adding_up_every_watch(small_dataset: Dataset, make_context):
    start = small_dataset.facts["log_start"]
    moment = start + 9 * DAY + 123
    quarter = (moment - start) // (6 * HOUR)
    events = small_dataset.events
    expected = np.zeros(101)
    for when, place in zip(events.watches.timestamp, events.watch_places, strict=True):
        ended_before = quarter - 1 - (when - start) // (6 * HOUR)
        if ended_before >= 0:
            expected[events.video_row[place]] += 0.5 ** (ended_before / 12)
    rows, scores = RecentPopularity.fit(small_dataset).nominate(make_context(watched=[[]], moment=moment), 100)
    np.testing.assert_allclose(scores[0], expected[rows[0]], rtol=1e-5)
    np.testing.assert_allclose(scores[0], np.sort(expected[1:])[::-1], rtol=1e-5)


def test_an_opened_source_nominates_the_same(popularity_of, lists_at, tmp_path):
    popular = popularity_of(WATCHES)
    popular.save(tmp_path)
    moments = [0, DAY, 3 * DAY + 6 * HOUR]
    assert lists_at(RecentPopularity.open(tmp_path), moments, 4) == lists_at(popular, moments, 4)


def test_it_is_a_candidate_source(popularity_of):
    popular = popularity_of(WATCHES)
    assert isinstance(popular, CandidateSource)
    assert popular.name == "popular"


def test_a_log_of_years_has_at_most_some_two_thousand_lists(popularity_of, lists_at):
    popular = popularity_of(WATCHES, log_days=20 * 365)
    assert len(popular.rows) < 2_100
    rows, _ = lists_at(popular, [0, 365 * DAY], 1)
    assert rows == [[0], [5]]
