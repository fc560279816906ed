import numpy as np
import pytest

from watchnext.retrieval.index.packed import PackedVectors
from watchnext.serving.events import LiveEvent
from watchnext.serving.lookup import UnknownVideoError, history_of, searched, similar
from watchnext.serving.server import Server, ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

LATER = 1_702_000_000


@pytest.fixture
def service(small_run, tmp_path):
    server = Server(ServerSettings(tmp_path / "state", small_run.bundle))
    yield server.service
    server.close()


@pytest.fixture
def live(service):
    return service.deployments.now.variants[0].recommender.live


def ids(places):
    return [place.video_id for place in places]


def accept(service, kind, **said):
    service.accept([LiveEvent(f"{kind}{said}"[:100], kind, **{"timestamp": LATER} | said)])


def test_a_history_is_that_of_the_log_newest_first(service, table):
    rows = sorted((row for row in table("events") if row["user_id"] == 3), key=lambda row: -row["timestamp"])
    told = history_of(service, "3", 1000)
    assert [one["timestamp"] for one in told] == [row["timestamp"] for row in rows]
    kinds = {(row["timestamp"], row["video_id"]): ("impression", "watch")[row["watch_seconds"] > 0] for row in rows}
    assert {(one["timestamp"], one["video_id"]): one["kind"] for one in told} == kinds
    assert set(kinds.values()) == {"impression", "watch"}
    assert history_of(service, "3", 2) == told[:2]


def test_a_history_goes_on_with_what_was_sent(service):
    accept(service, "watch", user_id="3", video_id="5", watch_seconds=None, completed=True)
    accept(service, "search", user_id="3", query="words", timestamp=LATER + 1)
    accept(service, "impression", user_id="3", video_id="nowhere", timestamp=LATER + 2)
    unknown, search, watch = history_of(service, "3", 3)
    assert (search["kind"], search["query"], search["video_id"]) == ("search", "words", None)
    assert (watch["kind"], watch["video_id"], watch["watch_seconds"], watch["completed"]) == ("watch", 5, None, True)
    assert watch["title"] and watch["query"] is None
    assert (unknown["kind"], unknown["video_id"], unknown["title"]) == ("impression", None, None)


def test_nothing_is_told_of_a_stranger(service):
    assert history_of(service, "nobody", 10) == []


def test_similar_videos_are_co_watched_then_near(live):
    found = similar(live, "5", 30)
    together = ["co_watch" in place.sources for place in found]
    assert together[0] and together == sorted(together, reverse=True) and not all(together)
    assert len(set(ids(found))) == 30 and 5 not in ids(found)
    vectors = live.bundle.generator.video_vectors
    row = live.rows_of(["5"])[0]
    near = [place for place in found if "co_watch" not in place.sources]
    assert [place.score for place in near] == sorted((place.score for place in near), reverse=True)
    assert near[0].score == pytest.approx(float(vectors[row] @ vectors[live.rows_of([near[0].video_id])[0]]), rel=1e-4)


def test_packed_vectors_score_as_what_they_stand_for(live):
    packed = PackedVectors.of(live.generator.video_vectors[:])
    live.generator.video_vectors = packed
    near = [place for place in similar(live, "5", 30) if "co_watch" not in place.sources]
    vectors = packed[:]
    rows, row = live.rows_of(ids(near)), live.rows_of(["5"])[0]
    np.testing.assert_allclose([place.score for place in near], vectors[rows] @ vectors[row], rtol=1e-6)


def test_blocked_videos_make_room(service, live):
    first = ids(similar(live, "5", 20))
    for video in first[:10]:
        accept(service, "block", video_id=str(video))
    found = ids(similar(live, "5", 20))
    assert len(found) == 20 and not set(first[:10]) & set(found)


def test_all_but_the_video_itself_are_similar_at_most(live, everything):
    assert set(ids(similar(live, "5", 100))) == set(everything) - {5}


def test_an_upload_has_similar_videos_and_an_unknown_video_has_none(service, live):
    accept(service, "upload", video_id="new", upload={"title": "new"})
    assert len(similar(live, "new", 5)) == 5
    with pytest.raises(UnknownVideoError, match="neither in the bundle's log nor an upload"):
        similar(live, "nowhere", 5)


def test_a_search_finds_titles_with_most_words_first(live):
    rows = np.arange(1, live.bundle.dataset.num_videos)
    titles = {one.video_id: (one.title or "").split() for one in live.describe(rows)}
    words = titles[5][:2]
    found = searched(live, " ".join(words), 100)
    counts = [len(set(words) & set(titles[place.video_id])) for place in found]
    assert counts[0] == len(set(words)) and counts == sorted(counts, reverse=True) and 5 in ids(found)
    assert all(counts) and len(found) == sum(bool(set(words) & set(title)) for title in titles.values())
    completed = np.asarray(live.bundle.dataset.videos.num_completed)[live.rows_of(ids(found))]
    assert all(
        completed[place] >= completed[place + 1]
        for place in range(len(found) - 1)
        if counts[place] == counts[place + 1]
    )


def test_a_search_finds_uploads_and_no_blocked_video(service, live):
    accept(service, "upload", video_id="new", upload={"title": "Zebrafinch and others"})
    assert ids(searched(live, "zebrafinch", 5)) == ["new"]
    word = next(one.title for one in live.describe(np.array([1]))).split()[0]
    first = ids(searched(live, word, 100))
    accept(service, "block", video_id=str(first[0]))
    assert ids(searched(live, word, 100)) == first[1:]
    assert ids(searched(live, word, 1)) == first[1:2]


@pytest.mark.parametrize("query", ["", "unheardofword", "!!!", " "])
def test_a_search_for_nothing_finds_nothing(live, query):
    assert searched(live, query, 5) == []
