"""A bundle while things happen: most of it on a bundle whose video tower gives new uploads their vectors."""

import copy
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from watchnext import pipeline
from watchnext.bundle.bundle import Bundle
from watchnext.errors import RequestError
from watchnext.events.dataset import VideoTable
from watchnext.features.counters import Counters
from watchnext.features.inputs import RankingInputs
from watchnext.features.state import Keys
from watchnext.retrieval.candidates import Candidates
from watchnext.serving.events import LiveEvent
from watchnext.serving.funnel import Funnel, Question
from watchnext.serving.live import EVERYTHING, Described, Filters, LiveBundle
from watchnext.serving.live_records import past_of
from watchnext.serving.recommender import Recommender, recommendations
from watchnext.serving.stages import inputs_of

COLUMNS = ("title", "channel_id", "tags", "category", "language", "duration_seconds")
NEW = "100000"


@pytest.fixture(scope="module")
def tower_bundle(quick_log, tmp_path_factory) -> Bundle:
    """Of a log whose videos have the vectors of a tower."""
    toml = quick_log(("[retrieval]\n", '[retrieval]\nvideos = "tower"\n'))
    run = pipeline.Run(toml, tmp_path_factory.mktemp("tower") / "run")
    pipeline.run_all(run)
    return Bundle.open(run.part("bundle"))


@pytest.fixture
def live(tower_bundle) -> LiveBundle:
    return LiveBundle(tower_bundle)


@pytest.fixture
def free_live(recommender) -> LiveBundle:
    """Of a log whose videos have free vectors alone."""
    return LiveBundle(recommender.bundle)


@pytest.fixture(scope="module")
def columns_of(table) -> Callable[..., dict]:
    """Gives `columns_of(video_id)`: what an upload says that is just like a video of the log."""
    videos = {row["video_id"]: row for row in table("videos")}
    return lambda video_id, **changed: {name: videos[video_id][name] for name in COLUMNS} | changed


def upload(live: LiveBundle, columns: dict, video_id: str = NEW, timestamp: int | None = None) -> int:
    """Uploads a video and gives its row."""
    at = live.bundle.dataset.log_end if timestamp is None else timestamp
    live.apply(LiveEvent(f"upload:{video_id}", "upload", at, video_id=video_id, upload=columns))
    return int(live.rows_of([video_id])[0])


def watch(live: LiveBundle, video_id: str, timestamp: int, user_id: str = "3") -> LiveEvent:
    return LiveEvent(
        f"{video_id}{timestamp}", "watch", timestamp, user_id, video_id, watch_seconds=50.0, completed=True
    )


def question(live: LiveBundle, user: str = "3", events=(), k: int = 20, **changed) -> Question:
    past = past_of(live, user, list(events), None)
    moment = max(live.bundle.dataset.log_end, live.latest_event + 1)
    return dataclasses.replace(Question(past.records, np.array([1]), moment, k), **changed)


def candidates(live: LiveBundle, asked: Question) -> Candidates:
    funnel = Funnel(live)
    return funnel.candidates(asked, funnel.context(asked))


def page(live: LiveBundle, asked: Question) -> list:
    funnel = Funnel(live)
    context = funnel.context(asked)
    found = funnel.candidates(asked, context)
    inputs = funnel.inputs(asked, context, found, live.bundle.state)
    return recommendations(live, funnel.page(asked, found, funnel.predictions(inputs)))


def nominated_by(found: Candidates, row: int) -> set[str]:
    places = np.flatnonzero(found.video_row[0] == row)
    return {found.sources[one] for place in places for one in np.flatnonzero(found.nominated[0, place])}


# What an upload is


def test_an_upload_has_the_vector_of_a_video_just_like_it(live, columns_of):
    for video_id in range(0, 100, 9):
        row = upload(live, columns_of(video_id), str(NEW) + str(video_id))
        known = live.rows_of([video_id])
        vectors = live.generator.video_vectors[np.array([row, known[0]])]
        np.testing.assert_allclose(vectors[0], vectors[1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(live.uploads.vectors[-1], vectors[1], rtol=1e-5, atol=1e-6)


def test_an_upload_is_a_neighbour_from_the_next_request(live, columns_of):
    asked = question(live, exclude_seen=False)
    nearest = candidates(live, asked).video_row[0, 0]
    row = upload(live, columns_of(live.ids_of(np.array([nearest]))[0]))
    found = candidates(live, question(live, exclude_seen=False))
    assert {nearest, row} == set(found.video_row[0, :2].tolist())
    assert "network" in nominated_by(found, row)
    assert NEW in {str(one.video_id) for one in page(live, question(live, k=100, exclude_seen=False))}


def test_without_a_tower_an_upload_comes_because_it_is_new_or_of_a_watched_channel(free_live, columns_of):
    asked = question(free_live)
    watched = Funnel(free_live).context(asked).watched_row[0, :1]
    row = upload(free_live, columns_of(free_live.ids_of(watched)[0]))
    found = candidates(free_live, question(free_live))
    assert nominated_by(found, row) == {"fresh", "channels"}
    assert not free_live.generator.video_vectors[np.array([row])].any()
    assert free_live.index.num_changes == 0


@pytest.mark.parametrize("said", [{}, {"uploaded_at": 4_000_000_000}])
def test_an_upload_is_new_when_it_was_heard_of_unless_it_is_older(free_live, said):
    row = upload(free_live, said)
    assert nominated_by(candidates(free_live, question(free_live)), row) == {"fresh"}


def test_an_upload_that_is_older_than_a_week_is_not_new(free_live):
    row = upload(free_live, {"uploaded_at": free_live.bundle.dataset.log_end - 8 * 86_400})
    assert nominated_by(candidates(free_live, question(free_live)), row) == set()


def test_a_question_about_the_past_hears_nothing_of_an_upload(live, columns_of):
    asked = question(live, moment=live.bundle.dataset.log_end - 1, exclude_seen=False)
    before = candidates(live, asked)
    upload(live, columns_of(3))
    live.apply(watch(live, "5", live.bundle.dataset.log_end))
    after = candidates(live, asked)
    np.testing.assert_array_equal(before.video_row, after.video_row)
    np.testing.assert_array_equal(before.rank, after.rank)


def test_an_integer_id_comes_back_as_the_log_writes_it(live):
    rows = np.array([upload(live, {}), upload(live, {}, "film"), 0, 1])
    assert live.ids_of(rows) == [int(NEW), "film", None, *live.bundle.dataset.vocabularies["videos"].ids_of(rows[3:])]
    for written in (NEW, int(NEW)):
        assert live.rows_of([written]).tolist() == rows[:1].tolist()


def test_unknown_ids_have_row_0(live):
    assert live.rows_of([None, "nobody", NEW]).tolist() == [0, 0, 0]
    upload(live, {})
    assert live.rows_of([None, "nobody", NEW, 5]).tolist() == [
        0,
        0,
        live.bundle.dataset.num_videos,
        live.bundle.dataset.vocabularies["videos"].rows_of([5])[0],
    ]


def test_an_upload_is_described_by_what_was_said(live, table):
    said = {"title": "Jazz", "channel_id": "new one", "category": "science", "duration_seconds": 90, "uploaded_at": 5}
    row = upload(live, said)
    known = next(one for one in table("videos") if one["video_id"] == 7)
    rows = np.array([row, live.rows_of([7])[0], 0, upload(live, {}, "bare")])
    assert live.describe(rows) == [
        Described(int(NEW), "Jazz", "new one", "science", 90.0, 5),
        Described(
            7, known["title"], str(known["channel_id"]), known["category"],
            float(np.float32(known["duration_seconds"])), known["uploaded_at"],
        ),
        Described(None, None, None, None, None, None),
        Described("bare", None, None, None, None, None),
    ]  # fmt: skip


def test_an_upload_that_the_bundle_knows_is_ignored(live, columns_of):
    before = live.describe(np.array([live.rows_of([7])[0]]))
    upload(live, columns_of(8), "7")
    assert len(live.uploads) == 0 and live.describe(live.rows_of(["7"])) == before
    first = upload(live, {"title": "first"})
    assert upload(live, {"title": "second"}) == first and live.uploads.titles == ("first",)


def test_what_the_log_has_no_column_for_is_refused_and_changes_nothing(live):
    with pytest.raises(RequestError, match="unknown column of a video"):
        upload(live, {"secret": 1})
    with pytest.raises(RequestError, match="unknown column of a video"):
        live.refuse_upload(NEW, {"secret": 1})
    assert len(live.uploads) == 0 and live.index.num_changes == 0


def test_an_upload_of_a_video_that_is_there_is_refused_beforehand(live):
    live.refuse_upload(NEW, {"title": "Jazz"})
    upload(live, {})
    for video_id in (NEW, "7"):
        with pytest.raises(RequestError, match="a video of this id is there already"):
            live.refuse_upload(video_id, {})


def test_the_bundle_itself_is_not_changed(live, tower_bundle, columns_of):
    upload(live, columns_of(7))
    assert len(tower_bundle.generator.video_vectors) == tower_bundle.dataset.num_videos
    assert len(tower_bundle.generator.beside) == 2
    assert len(LiveBundle(tower_bundle).uploads) == 0


# What users do with it


def test_a_watched_upload_is_history_and_is_not_shown_again(live, columns_of):
    row = upload(live, columns_of(7))
    end = live.bundle.dataset.log_end
    events = [watch(live, NEW, end + 5)]
    live.apply(events[0])
    asked = question(live, events=events, exclude_seen=True)
    assert asked.records.events.video_row[-1] == row and asked.records.events.watch_places[-1] > 0
    assert live.latest_event == end + 5 and asked.moment == end + 6
    assert nominated_by(candidates(live, asked), row) == set()
    again = question(live, events=events, exclude_seen=False)
    assert nominated_by(candidates(live, again), row) >= {"fresh", "trending"}


def test_the_networks_see_an_upload_as_an_unknown_video(live, columns_of):
    row = upload(live, columns_of(7))
    end = live.bundle.dataset.log_end
    context = Funnel(live).context(question(live, events=[watch(live, NEW, end)], moment=end + 1))
    assert context.timestamp[0, 0] == end and context.video_row[0, 0] == context.watched_row[0, 0] == 0
    assert max(context.video_row.max(), context.watched_row.max()) < row


def test_a_completed_watch_is_trending_in_the_next_request(live):
    live.apply(dataclasses.replace(watch(live, "5", live.bundle.dataset.log_end), completed=False))
    live.apply(watch(live, "nobody", live.bundle.dataset.log_end))
    five = int(live.rows_of(["5"])[0])
    assert "trending" not in nominated_by(candidates(live, question(live, exclude_seen=False)), five)
    live.apply(watch(live, "5", live.bundle.dataset.log_end))
    assert "trending" in nominated_by(candidates(live, question(live, exclude_seen=False)), five)


def test_what_nobody_shall_see_does_not_come_until_it_may(live):
    best = page(live, question(live, k=5))[0].video_id
    events = {
        kind: LiveEvent(kind, kind, live.bundle.dataset.log_end, video_id=str(best)) for kind in ("block", "unblock")
    }
    live.apply(events["block"])
    live.apply(LiveEvent("other", "block", 1, video_id="nobody"))
    assert live.blocked.tolist() == live.rows_of([best]).tolist()
    for user in ("3", "9"):
        assert best not in {one.video_id for one in page(live, question(live, user, k=100, exclude_seen=False))}
    live.apply(events["unblock"])
    assert live.blocked.tolist() == []
    assert page(live, question(live, k=5))[0].video_id == best


def test_what_one_user_blocks_stays_for_the_others(live):
    live.apply(LiveEvent("b", "block", live.bundle.dataset.log_end, "3", "5"))
    assert live.blocked.tolist() == []


def test_an_upload_may_be_blocked(live, columns_of):
    row = upload(live, columns_of(7))
    live.apply(LiveEvent("b", "block", live.bundle.dataset.log_end, video_id=NEW))
    assert nominated_by(candidates(live, question(live)), row) == set()


def test_many_events_at_once_do_what_they_do_one_after_the_other(tower_bundle, columns_of):
    end = tower_bundle.dataset.log_end
    video = str(tower_bundle.dataset.vocabularies["videos"].ids_of(np.array([5]))[0])

    def uploaded(name, at, **columns):
        return LiveEvent(f"u{name}", "upload", at, video_id=name, upload=columns)

    events = [
        uploaded("a", end + 1, **columns_of(7)),
        uploaded("b", end + 2, **columns_of(8, title="another", uploaded_at=end + 50)),
        uploaded("a", end + 3, title="it is there already"),
        uploaded("odd", end + 4, shoe="42"),
        LiveEvent("1", "block", end + 5, video_id="b"),
        uploaded(video, end + 6, title="the log knows it"),
        uploaded("c", end + 7, **columns_of(9)),
        LiveEvent("2", "watch", end + 8, "3", "c", watch_seconds=50.0, completed=True),
        LiveEvent("3", "watch", end + 9, "3", video, watch_seconds=50.0, completed=True),
        LiveEvent("4", "block", end + 10, video_id="d"),
        uploaded("d", end + 11),
    ]
    together, single = LiveBundle(tower_bundle), LiveBundle(tower_bundle)
    refused: list[str] = []
    together.apply_all(events, lambda event, error: refused.append(f"{event.video_id}: {type(error).__name__}"))
    for event in events:
        if event.video_id == "odd":
            with pytest.raises(RequestError):
                single.apply(event)
        else:
            single.apply(event)
    assert refused == ["odd: RequestError"] and together.uploads.ids == single.uploads.ids == ("a", "b", "c", "d")
    assert together.latest_event == single.latest_event == end + 11
    assert together.blocked.tolist() == single.blocked.tolist() == together.rows_of(["b"]).tolist()
    for name, value in vars(single.uploads).items():
        if name == "table":
            for column, known in vars(value).items():
                np.testing.assert_array_equal(getattr(together.uploads.table, column), known)
        elif name == "vectors":
            np.testing.assert_allclose(together.uploads.vectors, value, atol=1e-6)
        else:
            assert getattr(together.uploads, name) == value
    for a_source, other in zip(together.generator.beside, single.generator.beside, strict=True):
        context = Funnel(single).context(question(single, moment=end + 60))
        for found, right in zip(a_source.nominate(context, 20), other.nominate(context, 20), strict=True):
            np.testing.assert_allclose(found, right)
    queries = single.uploads.vectors
    np.testing.assert_array_equal(together.index.search(queries, 9)[0], single.index.search(queries, 9)[0])


def test_an_upload_without_a_finite_vector_does_not_stop_those_beside_it(live, columns_of, monkeypatch):
    real, at = live._tower.of, live.bundle.dataset.log_end

    def of(table, rows):
        vectors = real(table, rows)
        return torch.where(torch.tensor(table.uploaded_at[rows] == 13)[:, None], torch.nan, vectors)

    monkeypatch.setattr(live._tower, "of", of)
    events = [
        LiveEvent(name, "upload", at, video_id=name, upload=columns_of(7, uploaded_at=time))
        for name, time in (("a", 12), ("b", 13), ("c", 14))
    ]
    refused: list[str | None] = []
    live.apply_all(events, lambda event, error: refused.append(event.video_id))
    assert refused == ["b"] and live.uploads.ids == ("a", "c") and live.index.num_changes == 2


# What the ranker reads


def ranked_inputs(live: LiveBundle, asked: Question, found: Candidates) -> RankingInputs:
    funnel = Funnel(live)
    return funnel.inputs(asked, funnel.context(asked), found, live.bundle.state)


def extended(live: LiveBundle, asked: Question, found: Candidates) -> RankingInputs:
    """The slow way: every table with the uploads' rows behind it."""
    bundle, new = live.bundle, live.uploads.table
    table = VideoTable(
        **{name: np.concatenate([column, getattr(new, name)]) for name, column in vars(bundle.dataset.videos).items()}
    )
    counters, slots = bundle.state.counters, bundle.state.slots
    uncounted = np.zeros(len(live.uploads), dtype=np.int64)
    rows = np.concatenate([slots["video"], uncounted])
    video = Counters(**{name: column[rows] for name, column in vars(counters["video"]).items()})
    state = dataclasses.replace(
        bundle.state,
        keys=Keys.of(table, bundle.dataset.video_categories),
        counters=counters | {"video": video},
        slots={kind: column for kind, column in slots.items() if kind != "video"},
    )
    seconds = table.continuous[:, bundle.dataset.facts["video_numbers"].index("duration_seconds")]
    context = Funnel(live).context(asked)
    values = state.read(asked.records.events, context.user_row, context.moment, found.video_row)
    spec = dataclasses.replace(bundle.features, durations=seconds)
    return inputs_of(table, context, np.zeros(1, dtype=np.int64), found, values, spec)


def assert_same(one: RankingInputs, other: RankingInputs, but: tuple[str, ...] = ()) -> None:
    for name in set(vars(one)) - set(but):
        assert getattr(one, name).dtype == getattr(other, name).dtype, name
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("user", ["3", "9", "33", "105"])
def test_beside_an_upload_the_logs_videos_are_read_to_the_byte_as_ever(live, columns_of, user):
    asked = question(live, user, exclude_seen=False)
    found = candidates(live, asked)
    expected = ranked_inputs(live, asked, found)
    row = upload(live, columns_of(7), timestamp=0)
    place = 3
    wider = Candidates(
        found.sources,
        **{name: np.insert(getattr(found, name), place, 0, axis=1) for name in vars(found) if name != "sources"},
    )
    wider.video_row[0, place] = row
    inputs = ranked_inputs(live, asked, wider)
    assert inputs.video_row[0, place] == 0, "an upload has no embedding"
    of_log = [name for name in vars(inputs) if getattr(inputs, name).shape[:2] == wider.video_row.shape]
    without = dataclasses.replace(inputs, **{name: np.delete(getattr(inputs, name), place, axis=1) for name in of_log})
    assert_same(without, expected)


@pytest.mark.parametrize("user", ["3", "9", "nobody"])
def test_uploads_are_read_as_if_every_table_had_them(live, columns_of, user):
    end = live.bundle.dataset.log_end
    rows = [upload(live, columns_of(video), f"{NEW}{video}") for video in (7, 50, 90)]
    rows.append(upload(live, {}, "bare"))
    events = [watch(live, f"{NEW}7", end), watch(live, "bare", end - 900_000), watch(live, "9", end - 1000)]
    asked = question(live, user, events=events, moment=end + 86_400, exclude_seen=False)
    found = candidates(live, asked)
    assert set(rows) <= set(found.video_row[0].tolist())
    inputs, expected = ranked_inputs(live, asked, found), extended(live, asked, found)
    assert_same(inputs, expected, but=("video_row",))
    first_new = live.bundle.dataset.num_videos
    assert inputs.video_row.tolist() == np.where(found.video_row < first_new, found.video_row, 0).tolist()
    only_old = candidates(live, dataclasses.replace(asked, allowed=np.arange(first_new) > 0))
    assert only_old.video_row.max() < first_new
    assert_same(ranked_inputs(live, asked, only_old), extended(live, asked, only_old))


def test_without_uploads_in_sight_nothing_is_copied(live, columns_of):
    asked = question(live, exclude_seen=False)
    found = candidates(live, asked)
    expected = ranked_inputs(live, asked, found)
    upload(live, columns_of(7))
    assert_same(ranked_inputs(live, asked, found), expected)


# Filters


FILTERS = [
    Filters(categories=("science",)),
    Filters(categories=("science", "juggling", "music")),
    Filters(categories=("juggling",)),
    Filters(channel_ids=("1", "new one")),
    Filters(max_duration_seconds=400.0),
    Filters(categories=("science",), channel_ids=("0", "1", "2"), max_duration_seconds=900.0),
]


def passes(filters: Filters, one: Described) -> bool:
    return (
        one.video_id is not None
        and (not filters.categories or one.category in filters.categories)
        and (not filters.channel_ids or one.channel in filters.channel_ids)
        and (
            filters.max_duration_seconds is None
            or (one.duration_seconds is not None and one.duration_seconds <= filters.max_duration_seconds)
        )
    )


@pytest.mark.parametrize("filters", FILTERS)
def test_filters_let_through_what_fits_and_uploads_as_they_come(live, columns_of, filters):
    for change in (None, {"title": "no more"}, columns_of(7), columns_of(8, channel_id="new one", duration_seconds=9)):
        if change is not None:
            upload(live, change, f"{NEW}{len(live.uploads)}")
        every = np.arange(live.bundle.dataset.num_videos + len(live.uploads))
        expected = [passes(filters, one) for one in live.describe(every)]
        for _ in range(2):
            assert live.allowed(filters).tolist() == expected
    asked = question(live, allowed=live.allowed(filters), exclude_seen=False)
    rows = candidates(live, asked).video_row
    assert set(rows[rows > 0].tolist()) <= set(np.flatnonzero(expected).tolist())
    assert (rows > 0).sum() >= min(20, sum(expected))


def test_no_filter_lets_everything_through(live):
    assert live.allowed(EVERYTHING) is None


def test_the_catalogue_is_not_scanned_anew_for_each_upload(live):
    live.allowed(FILTERS[0])
    before = live._log_mask_of.cache_info().misses
    for name in "abc":
        upload(live, {}, name)
        live.allowed(FILTERS[0])
    assert live._log_mask_of.cache_info().misses == before


def test_categories_that_the_log_does_not_have_cannot_be_filtered(live):
    facts = live.bundle.dataset.facts | {"video_categories": ["language"]}
    artifact = dataclasses.replace(live.bundle.dataset.artifact, facts=facts)
    dataset = dataclasses.replace(live.bundle.dataset, artifact=artifact)
    other = LiveBundle(dataclasses.replace(live.bundle, dataset=dataset))
    with pytest.raises(RequestError, match="knows no categories: leave the filter out"):
        other.allowed(Filters(categories=("science",)))
    assert other.describe(np.array([1]))[0].category is None
    _, topics = other.topics(np.array([1, 2]))
    assert topics.tolist() == dataset.videos.tag_rows[[1, 2], 0].tolist()


def test_without_durations_none_is_short_enough(live):
    facts = live.bundle.dataset.facts | {"video_numbers": []}
    artifact = dataclasses.replace(live.bundle.dataset.artifact, facts=facts)
    other = LiveBundle(
        dataclasses.replace(live.bundle, dataset=dataclasses.replace(live.bundle.dataset, artifact=artifact))
    )
    assert not other.allowed(Filters(max_duration_seconds=1e9)).any()
    assert other.describe(np.array([1]))[0].duration_seconds is None


def test_ids_as_text_are_those_of_the_log_and_of_uploads(live, columns_of):
    rows = np.array([7, 0, 3])
    expected = [None if one is None else str(one) for one in live.ids_of(rows)]
    assert live.texts_of(rows).to_pylist() == expected and expected[1] is None
    row = upload(live, columns_of(7))
    assert live.texts_of(np.array([row, 0, 3])).to_pylist() == [NEW, *expected[1:]]


# Side by side


def test_what_was_allowed_before_an_upload_does_not_let_it_through(live, columns_of):
    asked = question(live, allowed=live.allowed(Filters(max_duration_seconds=1e9)), exclude_seen=False)
    row = upload(live, columns_of(7))
    assert row not in candidates(live, asked).video_row
    assert row in candidates(live, dataclasses.replace(asked, allowed=None)).video_row


def test_whoever_nominates_an_upload_finds_it_known(live, columns_of):
    """At every step of an upload, what can be nominated has a vector, a description and the inputs of the ranker."""
    asked = question(live, exclude_seen=False, moment=live.bundle.dataset.log_end + 1)
    steps = []

    class Watched(type(live.generator)):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            rows = candidates(live, asked).video_row[0]
            steps.append((name, bool((rows >= live.bundle.dataset.num_videos).any())))
            live.describe(rows)

    live.generator.__class__ = Watched
    row = upload(live, columns_of(7))
    assert [name for name, _ in steps] == ["video_vectors", "beside"]
    assert row in candidates(live, asked).video_row


def test_threads_see_each_upload_whole_or_not_at_all(live, columns_of):
    names = [f"{NEW}{number}" for number in range(30)]
    known = {str(one) for one in live.ids_of(np.arange(1, live.bundle.dataset.num_videos))} | set(names)
    done = threading.Event()
    filters = Filters(max_duration_seconds=1e9)

    def ask(user: str) -> int:
        seen = 0
        while not done.is_set() or not seen:
            asked = question(live, user, k=20, exclude_seen=False, allowed=live.allowed(filters))
            found = page(live, asked)
            assert len(found) == 20 and {str(one.video_id) for one in found} <= known
            asked = question(live, user, k=20, exclude_seen=False)
            for one in page(live, asked):
                assert str(one.video_id) not in names or one.title == columns_of(7)["title"]
            seen += 1
        return seen

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask, user) for user in ("3", "9")]
        for name in names:
            upload(live, columns_of(7), name)
        done.set()
        assert all(one.result() for one in asking)
    assert live.uploads.ids == tuple(names) and live.index.num_changes == 30


def test_uploads_of_several_threads_all_arrive(live):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: upload(live, {}, f"{NEW}{number % 20}"), range(80)))
    rows = live.rows_of([f"{NEW}{number}" for number in range(20)])
    assert sorted(rows.tolist()) == list(range(live.uploads.first_row, live.uploads.first_row + 20))


def test_the_recommender_answers_with_uploads_from_the_log_itself(tower_bundle, columns_of):
    recommender = Recommender(copy.copy(tower_bundle))
    upload(recommender.live, columns_of(7), timestamp=0)
    found = recommender.recommend(3, 100, exclude_seen=False)
    assert int(NEW) in {one.video_id for one in found}
