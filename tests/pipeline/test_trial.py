"""The A/B test, played in the small world with the small run's bundle as the system."""

import dataclasses
import gc
import json
import shutil
import socket
import threading
import time
import warnings
from collections import Counter
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pyarrow.parquet as pq
import pytest
import uvicorn

from watchnext.errors import ArtifactError, RequestError
from watchnext.evaluation.bootstrap import Estimate, mean_estimate
from watchnext.examples.next_watch import NextWatches
from watchnext.pipeline import trial
from watchnext.pipeline.trial import CoWatched, InProcess, Random, RecentlyPopular, Served, run_trial
from watchnext.serving.http import create_app
from watchnext.serving.recommendation import Recommendation
from watchnext.serving.recommender import Recommender
from watchnext.simulation.sessions import PageRequest, first_requests, play

pytestmark = pytest.mark.usefixtures("unchecked_types")

ARMS = ["watchnext", "item-to-item co-watch", "recent popularity", "random", "ideal"]
DAY = 86_400


@pytest.fixture(scope="module")
def world(small_run):
    return small_run.world


class Noted:
    """An arm whose requests and pages are noted."""

    def __init__(self, arm, answers):
        self.arm, self.answers = arm, answers

    def page(self, request, k):
        page = self.arm.page(request, k)
        self.answers.append((request, page.tolist()))
        return page


@dataclasses.dataclass
class Played:
    """The results of a trial, what each arm answered to which request, and what it earned."""

    results: dict
    answers: dict
    earned: dict


def trial_of(small_run, against):
    """A hundred visitors of two pages."""
    answers, earned = {}, {}

    def noting(world, name, arm, *rest):
        answers[name] = []
        earned[name] = play(world, name, Noted(arm, answers[name]), *rest)
        return earned[name]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trial, "play", noting)
        results = run_trial(str(against), small_run.log_folder, 100, 2, seed=1)
    return Played(results, answers, earned)


@pytest.fixture(scope="module")
def played(small_run):
    return trial_of(small_run, small_run.bundle)


def request_of(world, video=(), watch_seconds=(), user=0):
    """The request of somebody who was shown some videos, a minute apart, oldest first."""
    moment = world.end_second + 3600
    timestamp = moment - 60 * np.arange(len(video), 0, -1)
    return PageRequest(user, moment, np.array(video, np.int64), timestamp, np.array(watch_seconds, np.float32), ())


def watches_of(world, *watches):
    """Completed watches as (user, video, seconds before the end of the log); rows of videos are from 1."""
    users, videos, ages = (np.array(column, dtype=np.int64) for column in zip(*watches, strict=True))
    return NextWatches(users, world.end_second - ages, videos + 1)


@pytest.fixture(scope="module")
def log_watches(small_run, world):
    rows = pq.read_table(small_run.log_folder / "events.parquet").to_pylist()
    return watches_of(
        world,
        *((row["user_id"], row["video_id"], world.end_second - row["timestamp"]) for row in rows if row["completed"]),
    )


# The trial as a whole.


def test_every_arm_fills_every_page_with_videos_that_its_visitor_has_not_seen(played):
    assert list(played.answers) == list(played.results) == ARMS
    for answers in played.answers.values():
        assert len(answers) == 100 * 2
        for request, page in answers:
            assert len(set(page)) == 4
            assert not set(page) & set(request.video.tolist())


def test_the_next_page_holds_nothing_of_the_last(played):
    for answers in played.answers.values():
        for (first, page), (second, next_page) in zip(answers[::2], answers[1::2], strict=True):
            assert first.user == second.user and first.moment < second.moment
            assert not set(page) & set(next_page)


def test_all_arms_see_the_same_visitors(played, small_run, world):
    first = [(one.user, one.moment) for one in first_requests(world, small_run.log_folder, 100, seed=1)]
    for answers in played.answers.values():
        assert [(request.user, request.moment) for request, _ in answers[::2]] == first


def test_nothing_is_expected_to_earn_more_than_the_ideal(played):
    expected = {name: arm.expected_watch_seconds.value for name, arm in played.results.items()}
    assert max(expected, key=expected.get) == "ideal"
    assert expected["random"] == min(expected.values())


def test_the_share_of_the_ideal_is_of_expected_watch_times(played):
    ideal = played.results["ideal"].expected_watch_seconds.value
    for arm in played.results.values():
        share = arm.share_of_ideal
        assert share.value == pytest.approx(arm.expected_watch_seconds.value / ideal)
        assert 0 < share.low <= share.value <= share.high <= 1
    assert played.results["ideal"].share_of_ideal == Estimate(1.0, 1.0, 1.0)


def test_the_system_is_ahead_by_the_difference_visitor_by_visitor(played):
    system = played.earned["watchnext"].watch_seconds
    for name, arm in played.results.items():
        difference = played.results["watchnext"].watch_seconds.value - arm.watch_seconds.value
        assert arm.ahead_seconds.value == pytest.approx(difference)
        assert arm.ahead_seconds == mean_estimate(system - played.earned[name].watch_seconds, 1000, 1)
    assert played.results["watchnext"].ahead_seconds == Estimate(0.0, 0.0, 0.0)


def test_the_system_is_ahead_of_chance_and_behind_the_ideal(played):
    assert played.results["random"].ahead_seconds.low > 0
    assert played.results["ideal"].ahead_seconds.high < 0


def test_clicks_are_those_of_a_session(played):
    for name, arm in played.results.items():
        assert arm.clicks.value == pytest.approx(played.earned[name].clicks.sum() / 100)
        assert 0 < arm.clicks.value < 2 * 4


def test_the_baselines_learn_from_the_completed_watches_of_the_log(played, log_watches, world):
    for name, baseline in (("recent popularity", RecentlyPopular), ("item-to-item co-watch", CoWatched)):
        arm = baseline(log_watches, world)
        for request, page in played.answers[name]:
            assert arm.page(request, 4).tolist() == page


def test_the_same_seed_plays_the_same_trial_and_another_seed_another(small_run):
    first, again, other = (run_trial(str(small_run.bundle), small_run.log_folder, 8, 1, seed) for seed in (4, 4, 5))
    assert first == again
    assert all(first[name] != other[name] for name in ("random", "ideal"))


def test_one_visitor_and_every_user_may_be_asked_for_and_no_more(small_run):
    assert list(run_trial(str(small_run.bundle), small_run.log_folder, 1, 1, seed=1)) == ARMS
    for visitors in (0, 241):
        with pytest.raises(RequestError, match=rf"visitors = {visitors}: between 1 and 240 was expected"):
            run_trial(str(small_run.bundle), small_run.log_folder, visitors, 1, seed=1)


def test_a_folder_without_a_simulation_is_refused(small_run, tmp_path):
    with pytest.raises(ArtifactError, match="holds no simulation"):
        run_trial(str(small_run.bundle), tmp_path, 1, 1, seed=1)
    with pytest.raises(ArtifactError, match="holds a dataset, but a simulation was expected"):
        run_trial(str(small_run.bundle), small_run.run.part("dataset"), 1, 1, seed=1)


def test_a_damaged_bundle_is_refused(small_run, tmp_path):
    copy = shutil.copytree(small_run.bundle, tmp_path / "bundle")
    (copy / "ranking" / "weights.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"ranking/weights\.safetensors"):
        run_trial(str(copy), small_run.log_folder, 1, 1, seed=1)


# Our own system, asked directly and over the network.


@pytest.fixture(scope="module")
def server(small_run):
    """The URL of a server of the small bundle, in a thread."""
    config = uvicorn.Config(create_app(small_run.bundle), port=0, log_level="warning", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        until = time.monotonic() + 30
        while not running.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.02)
        yield "http://{}:{}".format(*running.servers[0].sockets[0].getsockname())
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def served(small_run, server):
    """The trial against the server, and the warnings about what it left open."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        found = trial_of(small_run, server)
        gc.collect()
    return found, [str(one.message) for one in warned]


def test_a_bundle_and_a_server_of_it_play_the_same(served, played):
    over_the_network, _ = served
    for (_, one), (request, other) in zip(
        over_the_network.answers["watchnext"], played.answers["watchnext"], strict=True
    ):
        assert one == other, f"user {request.user} of {len(request.video)} impressions"
    assert over_the_network.results == played.results
    assert max(len(request.video) for request, _ in played.answers["watchnext"]) > 200


def test_a_trial_closes_its_connections(served):
    assert served[1] == []


@pytest.fixture
def answering():
    """Gives `answering(text, status)`: the URL of a server that always answers this, and the bodies it received."""
    servers = []

    def start(text, status=200):
        received = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((self.path, json.loads(body)))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}", received

    yield start
    for one in servers:
        one.shutdown()
        one.server_close()


def page_text(*video_ids):
    return json.dumps({"recommendations": [{"video_id": one} for one in video_ids]})


def test_a_server_is_told_the_visitors_past_searches_and_attributes(small_run, world, answering):
    durations = world.catalogue.videos["duration_seconds"]
    long, short = int(np.argmax(durations)), 7
    half = float(np.float32(durations[short] / 2))
    assert half > 30 and durations[long] > 60
    request = request_of(world, (long, short, 9, short), (29.5, 31.0, 0.0, 4.25), user=3)
    request = dataclasses.replace(request, searches=((world.end_second - 9, "tuzale nepabo"),))
    url, received = answering(page_text(11, 12))
    with closing(Served(url, world)) as served:
        assert served.page(request, 2).tolist() == [11, 12]
    known = next(
        row for row in pq.read_table(small_run.log_folder / "users.parquet").to_pylist() if row.pop("user_id") == 3
    )
    moment = world.end_second + 3600
    whens = [moment - 240, moment - 180, moment - 120, moment - 60]
    watches = [(long, 29.5, False), (short, 31.0, True), (9, 0.0, False), (short, 4.25, False)]
    expected = {
        "history": [
            {"video_id": video, "timestamp": when, "watch_seconds": seconds, "completed": completed}
            for when, (video, seconds, completed) in zip(whens, watches, strict=True)
        ],
        "searches": [{"timestamp": world.end_second - 9, "query": "tuzale nepabo"}],
        "attributes": known,
        "k": 2,
        "as_of": moment,
        "exclude_seen": True,
    }
    assert received == [("/v1/recommendations", expected)]


def test_the_bundle_is_told_what_a_server_is_told(world, small_run):
    """The log itself knows the users: what a visitor brings along must lead to the list that the log leads to."""
    recommender = Recommender.open(small_run.bundle)
    few = [one for one in first_requests(world, small_run.log_folder, 200, seed=1) if 0 < len(one.video) <= 50][:10]
    assert len(few) == 10
    for request in few:
        page = InProcess(recommender, world).page(request, 4)
        known = recommender.recommend(request.user, 4, as_of=request.moment)
        assert page.tolist() == [one.video_id for one in known]


def test_an_address_where_nobody_answers_is_refused(small_run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(RequestError, match=rf"{url} does not answer as `watchnext serve` does \(ConnectError"):
        run_trial(url, small_run.log_folder, 1, 1, seed=1)


@pytest.mark.parametrize("url", ["http://", "ftp://127.0.0.1", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_refused(small_run, url):
    with pytest.raises(RequestError, match=f"{url} does not answer as `watchnext serve` does"):
        run_trial(url, small_run.log_folder, 1, 1, seed=1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<html>Welcome!</html>", "JSONDecodeError"),
        ("", "JSONDecodeError"),
        ('{"answer": 42}', "KeyError: 'recommendations'"),
        ("[1, 2]", "TypeError"),
        ('{"recommendations": [{"id": 3}]}', "KeyError: 'video_id'"),
        ('{"recommendations": null}', "TypeError"),
    ],
)
def test_a_server_of_something_else_is_refused(small_run, answering, text, why):
    url, _ = answering(text)
    with pytest.raises(RequestError, match=rf"{url} does not answer as `watchnext serve` does \({why}"):
        run_trial(url, small_run.log_folder, 1, 1, seed=1)


@pytest.mark.parametrize("status", [404, 422, 503])
def test_a_refused_page_is_told_with_its_reason(small_run, answering, status):
    url, _ = answering('{"detail": "unknown user attribute \'gender\'"}' + "x" * 999, status)
    with pytest.raises(RequestError, match=rf"{url} refused a page with status {status}: .*'gender'") as refused:
        run_trial(url, small_run.log_folder, 1, 1, seed=1)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("video", [100, -1, "7", "v7", None, 1.5])
def test_a_server_of_another_catalogue_is_refused(small_run, answering, video):
    url, _ = answering(page_text(3, video))
    with pytest.raises(RequestError, match="recommends videos that this world does not have"):
        run_trial(url, small_run.log_folder, 1, 1, seed=1)


def test_a_bundle_of_another_catalogue_is_refused(world):
    class OfAnotherLog(Recommender):
        def __init__(self):
            pass

        def recommend_visitor(self, *_, **__):
            return [Recommendation(100, None, None, None, None, None, 1.0, 1.0, ("network",))]

    with pytest.raises(RequestError, match="Give the --world whose log it learnt from"):
        InProcess(OfAnotherLog(), world).page(request_of(world), 1)


# The baselines.


def slow_popularity(world, watches):
    score = Counter({video: 0.0 for video in range(world.config.videos)})
    for when, row in zip(watches.timestamp.tolist(), watches.video_row.tolist(), strict=True):
        score[row - 1] += 2.0 ** ((when - world.end_second) / (3 * DAY))
    return sorted(score, key=lambda video: (-score[video], video))


def test_what_was_completed_three_days_earlier_counts_half(world):
    # One watch of video 7 now, and two of video 8 that count half each, or a little more, or a little less.
    for hours, page in ((3 * 24 - 1, [8, 7]), (3 * 24 + 1, [7, 8])):
        watches = watches_of(world, (1, 7, 0), (1, 8, hours * 3600), (2, 8, hours * 3600))
        assert RecentlyPopular(watches, world).page(request_of(world), 2).tolist() == page


def test_popular_pages_are_those_of_adding_up_every_watch(world, log_watches):
    popular, best_first = RecentlyPopular(log_watches, world), slow_popularity(world, log_watches)
    random = np.random.default_rng(1)
    for num_seen in (0, 1, 5, 50, 95, 98, 100):
        seen = random.permutation(100)[:num_seen]
        expected = [video for video in best_first if video not in seen]
        for k in (4, 60):
            assert popular.page(request_of(world, seen, np.zeros(num_seen)), k).tolist() == expected[:k]


# Watchers: video 1 three, video 2 two, video 3 one. So 2 and 1 are similar by 2/√6 = 0.82, 2 and 3 by 1/√2 = 0.71,
# 1 and 3 by 1/√3 = 0.58. Equally old, they are popular in the order 1, 2, 3, and then come 0, 4, 5, …
SOME_WATCHES = [(1, 1, 0), (1, 2, 0), (2, 1, 0), (2, 2, 0), (2, 3, 0), (3, 1, 0)]


@pytest.mark.parametrize(
    ("seen", "seconds", "page"),
    [
        ([2], [99], [1, 3, 0, 4]),
        ([2, 4, 0], [99, 0, 0], [1, 3, 5, 6]),
        ([3], [99], [2, 1, 0, 4]),
        ([2, 1], [99, 0], [3, 0, 4, 5]),
        ([], [], [1, 2, 3, 0]),
        ([2], [3], [1, 3, 0, 4]),
        ([3], [3], [1, 2, 0, 4]),
        ([70], [99], [1, 2, 3, 0]),
    ],
    ids=str,
)
def test_neighbours_of_completed_watches_come_first_then_what_is_popular(world, seen, seconds, page):
    arm = CoWatched(watches_of(world, *SOME_WATCHES), world)
    assert arm.page(request_of(world, seen, seconds), 4).tolist() == page


def test_only_the_latest_fifty_completed_watches_have_neighbours(world):
    old, others = [3], [video for video in range(10, 60)]
    arm = CoWatched(watches_of(world, *SOME_WATCHES), world)
    assert arm.page(request_of(world, old + others[1:], np.full(50, 99)), 2).tolist() == [2, 1]
    assert arm.page(request_of(world, old + others, np.full(51, 99)), 2).tolist() == [1, 2]


def test_a_page_of_co_watches_shows_nothing_twice_and_nothing_seen(world, log_watches):
    arm, random = CoWatched(log_watches, world), np.random.default_rng(2)
    for num_shown in (1, 3, 30, 90, 300):
        shown = random.choice(96, num_shown)
        page = arm.page(request_of(world, shown, random.uniform(0, 60, num_shown)), 4).tolist()
        assert len(set(page)) == 4 and not set(page) & set(shown.tolist())


def test_random_pages_are_even_over_what_was_not_seen(world):
    arm, seen = Random(world, seed=3), np.arange(80)
    pages = [arm.page(request_of(world, seen, np.zeros(80)), 4).tolist() for _ in range(2_000)]
    assert all(len(set(page)) == 4 for page in pages)
    times = Counter(video for page in pages for video in page)
    # Each of the 20 is on a fifth of the pages: 400, give or take 18.
    assert set(times) == set(range(80, 100)) and all(abs(count - 400) < 90 for count in times.values())


def test_random_pages_end_with_the_catalogue(world):
    page = Random(world, seed=3).page(request_of(world, [*range(50), *range(52, 100)], np.zeros(98)), 4)
    assert sorted(page.tolist()) == [50, 51]


def test_arms_of_one_seed_draw_the_same(world):
    first, again, other = (Random(world, seed).page(request_of(world), 4).tolist() for seed in (3, 3, 4))
    assert first == again != other
