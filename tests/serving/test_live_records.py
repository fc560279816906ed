import dataclasses

import numpy as np
import pytest

from watchnext.events.dataset import EVENT_COLUMNS, Dataset, SearchTokens, Segments, UserEvents
from watchnext.examples.contexts import context_as_of
from watchnext.serving.events import LiveEvent
from watchnext.serving.funnel import Question
from watchnext.serving.live import LiveBundle
from watchnext.serving.live_records import Past, past_of
from watchnext.serving.recommender import Recommender, recommendations

pytestmark = pytest.mark.usefixtures("unchecked_types")

USERS = range(2, 240, 5)
DAY, LATER_DAYS = 86_400, 10


@pytest.fixture(scope="module")
def dataset(recommender) -> Dataset:
    return recommender.bundle.dataset


@pytest.fixture
def live(recommender) -> LiveBundle:
    return LiveBundle(recommender.bundle)


@pytest.fixture(scope="module")
def cut_live(recommender, dataset) -> LiveBundle:
    """The bundle with a log that ended ten days earlier; vocabularies and videos are the same."""
    bundle = recommender.bundle
    return LiveBundle(dataclasses.replace(bundle, dataset=before(dataset, dataset.log_end - LATER_DAYS * DAY)))


@pytest.fixture(scope="module")
def later_events(dataset, table):
    """Gives `later_events(user)`: what the log says of the user's last ten days, as live events."""

    def told(user: int, paged: bool = False) -> list[LiveEvent]:
        events = []
        for place, row in enumerate(table("events")):
            if row["user_id"] == user and row["timestamp"] >= dataset.log_end - LATER_DAYS * DAY:
                columns = {name: row[name] for name in ("timestamp", "watch_seconds", "completed", "clicked")}
                kind = "watch" if row["clicked"] else "impression"
                columns |= {"position": row["position"], "surface": row["surface"]}
                columns |= {"page_id": str(row["page_id"]) if paged else None}
                events.append(LiveEvent(f"e{place}", kind, user_id=str(user), video_id=str(row["video_id"]), **columns))
        searches = [row for row in table("searches") if row["user_id"] == user]
        for place, row in enumerate(searches):
            if row["timestamp"] >= dataset.log_end - LATER_DAYS * DAY:
                events.append(LiveEvent(f"s{place}", "search", row["timestamp"], user_id=str(user), query=row["query"]))
        return events

    return told


def before(dataset: Dataset, moment: int) -> Dataset:
    """The dataset without what happened at or after the moment."""
    events, searches = dataset.events, dataset.searches
    kept, kept_tokens = events.segments.timestamp < moment, searches.segments.timestamp < moment
    columns = {name: getattr(events, name)[kept] for name in EVENT_COLUMNS}
    places = np.flatnonzero(columns["completed"] & (columns["video_row"] > 0))
    segments = shorter(events.segments, kept)
    starts = np.searchsorted(places, segments.offsets)
    cut = UserEvents(segments, **columns, watches=Segments(starts, segments.timestamp[places]), watch_places=places)
    tokens = SearchTokens(shorter(searches.segments, kept_tokens), searches.token_row[kept_tokens])
    return dataclasses.replace(dataset, events=cut, searches=tokens)


def shorter(segments: Segments, kept: np.ndarray) -> Segments:
    return Segments(np.append(0, np.cumsum(kept))[segments.offsets], segments.timestamp[kept])


def row_of(dataset: Dataset, user: int) -> np.ndarray:
    return dataset.vocabularies["users"].rows_of([user])


def assert_same_past(dataset: Dataset, user: int, past: Past, moment: int) -> None:
    moments = np.array([moment])
    known = context_as_of(dataset, row_of(dataset, user), moments, 50, 50)
    ours = context_as_of(past.records, np.array([1]), moments, 50, 50)
    for name in set(vars(known)) - {"user_row"}:
        one, two = getattr(known, name), getattr(ours, name)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two, err_msg=name)
    segments = dataset.events.segments
    part = slice(*segments.offsets[row_of(dataset, user)[0] :][:2].tolist())
    for name in EVENT_COLUMNS:
        one, two = getattr(dataset.events, name)[part], getattr(past.records.events, name)
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(one, two, err_msg=name)
    np.testing.assert_array_equal(segments.timestamp[part], past.records.events.segments.timestamp)


def listed(recommender: Recommender, past: Past, k: int = 10) -> list:
    funnel = recommender.funnel
    question = Question(past.records, np.array([1]), recommender.moment(None), k)
    context = funnel.context(question)
    candidates = funnel.candidates(question, context)
    inputs = funnel.inputs(question, context, candidates, recommender.bundle.state)
    return recommendations(recommender.live, funnel.page(question, candidates, funnel.predictions(inputs)))


@pytest.mark.parametrize("days_ago", [0, 5])
def test_without_live_events_the_past_is_the_logs_to_the_byte(live, dataset, days_ago):
    for user in USERS:
        assert_same_past(dataset, user, past_of(live, str(user), [], None), dataset.log_end - days_ago * DAY)


def test_without_live_events_the_lists_are_those_of_the_log(recommender):
    for user in USERS:
        past = past_of(recommender.live, str(user), [], None)
        assert past.is_known and listed(recommender, past) == recommender.recommend(user, 10)


@pytest.mark.parametrize("paged", [False, True])
def test_what_came_later_is_as_if_the_log_had_known_it(cut_live, dataset, later_events, paged):
    told = 0
    for user in USERS:
        events = later_events(user, paged)
        told += len(events)
        assert_same_past(dataset, user, past_of(cut_live, str(user), events, None), dataset.log_end)
    assert told > 500


def test_the_order_in_which_events_came_says_nothing(cut_live, dataset, later_events):
    for user in USERS:
        past = past_of(cut_live, str(user), later_events(user)[::-1], None)
        assert_same_past(dataset, user, past, dataset.log_end)


def test_what_is_in_the_log_and_came_again_counts_once(live, dataset, later_events):
    for user in USERS:
        past = past_of(live, str(user), later_events(user), None)
        assert_same_past(dataset, user, past, dataset.log_end)


def test_two_searches_of_one_second_are_both_known(live, dataset, table):
    query = table("searches")[0]["query"]
    events = [LiveEvent(name, "search", dataset.log_end, user_id="new", query=query) for name in "ab"]
    past = past_of(live, "new", events, None)
    assert len(past.records.searches.token_row) == 2 * len(
        past_of(live, "new", events[:1], None).records.searches.token_row
    )


def event(kind: str, timestamp: int, video: object = 7, page: str | None = None, **columns) -> LiveEvent:
    return LiveEvent(
        f"{kind}{timestamp}{video}{page}{columns}", kind, timestamp, "new", str(video), page_id=page, **columns
    )


def rows_of_events(past: Past) -> list[tuple[int, int, float, bool, bool]]:
    """Time, row, seconds, clicked, completed of each event."""
    events = past.records.events
    columns = (events.segments.timestamp, events.video_row, events.watch_seconds, events.clicked, events.completed)
    return [tuple(one) for one in zip(*(column.tolist() for column in columns), strict=True)]


def test_a_watch_takes_the_place_of_the_impression_of_its_page(live):
    seven = int(live.rows_of(["7"])[0])
    shown = event("impression", 100, page="p", position=3, surface="home", liked=True)
    watch = event("watch", 130, page="p", watch_seconds=40.0, completed=True)
    for events in ([shown, watch], [watch, shown]):
        past = past_of(live, "new", events, None)
        assert rows_of_events(past) == [(100, seven, 40.0, True, True)]
        told = past.records.events
        surface = live.bundle.dataset.vocabularies["surfaces"].rows_of(["home"])
        assert told.position.tolist() == [3] and told.surface_row == surface and told.liked.tolist() == [True]


def test_a_watch_of_another_page_or_of_none_stands_beside_the_impression(live):
    seven = int(live.rows_of(["7"])[0])
    for page in ("other", None):
        events = [event("impression", 100, page="p"), event("watch", 130, page=page, watch_seconds=40.0)]
        past = past_of(live, "new", events, None)
        assert rows_of_events(past) == [(100, seven, 0.0, False, False), (130, seven, 40.0, True, False)]


def test_a_second_watch_of_the_page_is_one_of_its_own(live):
    events = [event("impression", 100, page="p"), event("impression", 110, page="p")]
    events += [event("watch", 130, page="p", watch_seconds=40.0), event("watch", 300, page="p", watch_seconds=5.0)]
    assert [one[0] for one in rows_of_events(past_of(live, "new", events, None))] == [100, 300]


def test_two_videos_of_one_page_are_two_events(live):
    events = [event("impression", 100, page="p"), event("watch", 100, video=8, page="p")]
    assert len(rows_of_events(past_of(live, "new", events, None))) == 2


def test_of_one_second_and_video_the_most_that_is_said_counts(live):
    events = [event("watch", 100, completed=True), event("impression", 100), event("watch", 100, watch_seconds=3.0)]
    for order in (events, events[::-1]):
        past = past_of(live, "new", order, None)
        assert rows_of_events(past) == [(100, int(live.rows_of(["7"])[0]), 3.0, True, True)]


def test_a_watch_of_unknown_length_stays_unknown(live):
    ((_, _, seconds, clicked, completed),) = rows_of_events(past_of(live, "new", [event("watch", 100)], None))
    assert np.isnan(seconds) and clicked and not completed


def test_unknown_videos_are_row_0_and_every_one_counts(live):
    events = [event("watch", 100, video=name, completed=True) for name in ("nobody", "knows")]
    past = past_of(live, "new", [*events, event("watch", 100, completed=True)], None)
    assert past.records.events.video_row.tolist() == [0, 0, int(live.rows_of(["7"])[0])]
    assert past.records.events.watch_places.tolist() == [2]


def test_a_surface_that_is_not_named_is_unknown(live):
    assert past_of(live, "new", [event("watch", 100)], None).records.events.surface_row.tolist() == [0]


def test_of_a_forgotten_user_only_what_came_since_is_known(live, dataset, table):
    user = str(table("searches")[0]["user_id"])
    known = past_of(live, user, [], None).records
    assert len(known.events.video_row) and len(known.searches.token_row) and known.users.categorical[1].any()
    past = past_of(live, user, [], 5)
    assert not past.is_known
    assert rows_of_events(past) == [] and not len(past.records.searches.token_row)
    np.testing.assert_array_equal(past.records.users.categorical[1], dataset.users.categorical[0])
    np.testing.assert_array_equal(past.records.users.continuous[1], dataset.users.continuous[0])
    since = past_of(live, user, [event("watch", 100)], 5)
    assert since.is_known and [one[0] for one in rows_of_events(since)] == [100]


def test_of_a_stranger_nothing_is_known_until_something_comes(live):
    assert not past_of(live, "new", [], None).is_known
    assert past_of(live, "new", [LiveEvent("s", "search", 5, "new", query="jazz")], None).is_known


def test_a_user_with_a_row_and_without_events_is_known(live, dataset):
    counts = np.diff(dataset.events.segments.offsets)[1:]
    quiet = dataset.vocabularies["users"].ids_of(1 + np.array([int(counts.argmin())]))
    assert past_of(live, str(quiet[0]), [], None).is_known


def test_the_last_word_on_a_video_blocks_it(live):
    seven, eight = live.rows_of(["7", "8"]).tolist()
    words = [event("block", 1), event("block", 2, video=8), event("unblock", 3), event("block", 4, video="nobody")]
    assert past_of(live, "new", words, None).blocked.tolist() == [eight]
    assert sorted(past_of(live, "new", [*words, event("block", 5)], None).blocked.tolist()) == sorted([seven, eight])
    assert past_of(live, "new", [], None).blocked.tolist() == []
