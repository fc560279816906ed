"""Promotion, rollback, restart, shares; what a new bundle knows of what happened; swaps under load."""

import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn

from watchnext.errors import ArtifactError, ConfigurationError, RequestError
from watchnext.serving import deployment
from watchnext.serving.deployment import Deployment, Deployments, Variant
from watchnext.serving.events import LiveEvent
from watchnext.serving.funnel import Question
from watchnext.serving.http import create_app
from watchnext.serving.live import LiveBundle
from watchnext.serving.recommender import Recommender
from watchnext.serving.server import ServerSettings
from watchnext.serving.stores.opening import open_store

pytestmark = pytest.mark.usefixtures("unchecked_types")

TOKEN = "a-token-of-the-tests"
LATER = 1_702_000_000


@pytest.fixture
def store(tmp_path):
    store = open_store(str(tmp_path / "events.sqlite"))
    yield store
    store.close()


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "deployed.json"


@pytest.fixture
def deployments(store, memory):
    return Deployments(store, memory)


@pytest.fixture(scope="module")
def first(small_run):
    return small_run.bundle


@pytest.fixture(scope="module")
def second(foreign_run):
    return foreign_run.bundle


def paths(one):
    return [variant.path for variant in one.variants]


def live_of(deployments, place=0):
    return deployments.now.variants[place].recommender.live


def upload(video_id, **columns):
    return LiveEvent(f"upload:{video_id}", "upload", LATER, video_id=video_id, upload=columns)


def block(video_id, kind="block"):
    return LiveEvent(f"{kind}:{video_id}", kind, LATER, video_id=str(video_id))


def watch(event_id, timestamp=LATER, video_id="5"):
    return LiveEvent(event_id, "watch", timestamp, "3", video_id, watch_seconds=9.0, completed=True)


def test_nothing_is_served_before_the_first_bundle(deployments):
    with pytest.raises(RequestError, match="no bundle is served yet"):
        _ = deployments.now
    with pytest.raises(RequestError, match="nothing to go back to"):
        deployments.rollback()


def test_what_checking_a_bundle_took_is_given_back(monkeypatch, deployments, first):
    given = []
    monkeypatch.setattr(deployment, "give_back_freed_memory", lambda: given.append(True))
    deployments.promote(first)
    assert given == [True]


def test_rollback_goes_back_and_forth(deployments, first, second):
    deployments.promote(first)
    with pytest.raises(RequestError, match="nothing to go back to"):
        deployments.rollback()
    promoted = deployments.promote(second)
    assert promoted is deployments.now.variants[0] and paths(deployments.now) == [second]
    assert paths(deployments.rollback()) == [first] and paths(deployments.now) == [first]
    assert paths(deployments.previous) == [second]
    assert paths(deployments.rollback()) == [second]


def test_a_restart_serves_what_was_promoted(deployments, store, memory, first, second):
    deployments.promote(first)
    deployments.promote(second)
    again = Deployments(store, memory)
    again.restore()
    assert paths(again.now) == [second]
    deployments.rollback()
    again = Deployments(store, memory)
    again.restore()
    assert paths(again.now) == [first]


def test_a_restart_goes_on_with_two_variants(deployments, store, memory, first, second):
    deployments.promote(first)
    deployments.promote(second, 0.25, "new")
    again = Deployments(store, memory)
    again.restore()
    told = [(one.name, one.share, one.path) for one in again.now.variants]
    assert told == [("main", 0.75, first), ("new", 0.25, second)]


def test_without_a_memory_a_bundle_must_be_named(deployments):
    with pytest.raises(ConfigurationError, match=r"remembers none: say --bundle"):
        deployments.restore()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"now": [{"path": 3}]}', '{"now": [{"path": "b", "share": "x"}]}'])
def test_a_memory_that_says_nothing_is_refused(deployments, memory, text):
    memory.write_text(text)
    with pytest.raises(ConfigurationError, match="does not say what was deployed"):
        deployments.restore()


def test_the_memory_names_both_deployments(deployments, memory, first, second):
    deployments.promote(first)
    deployments.promote(second, 0.5, "new")
    main = {"variant": "main", "share": 0.5, "path": str(first)}
    assert json.loads(memory.read_text()) == {
        "now": [main, {"variant": "new", "share": 0.5, "path": str(second)}],
        "previous": [main | {"share": 1.0}],
    }


# Shares


@pytest.fixture(scope="module")
def variants(recommender):
    def make(*shares):
        named = enumerate(shares)
        return Deployment(tuple(Variant(f"v{place}", share, Path(), recommender, 0.0) for place, share in named))

    return make


def test_a_user_has_the_same_variant_always_and_shares_are_kept(variants):
    one, other = variants(0.7, 0.3), variants(0.7, 0.3)
    users = [f"user {number}" for number in range(10_000)]
    found = Counter(one.variant_of(user).name for user in users)
    assert 6_800 < found["v0"] < 7_200 and found["v1"] == 10_000 - found["v0"]
    assert all(one.variant_of(user).name == other.variant_of(user).name for user in users[:500])


def test_who_has_the_new_variant_keeps_it_when_its_share_grows(variants):
    small, large = variants(0.9, 0.1), variants(0.6, 0.4)
    users = [f"user {number}" for number in range(1_000)]
    assert {user for user in users if small.variant_of(user).name == "v1"} < {
        user for user in users if large.variant_of(user).name == "v1"
    }


def test_nobody_in_particular_has_the_first_variant(variants):
    assert variants(0.1, 0.9).variant_of(None).name == "v0"


def test_rounded_shares_leave_nobody_out(variants):
    assert variants(0.0, 0.0).variant_of("3").name == "v1"


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5, float("nan")])
def test_an_impossible_share_is_refused(deployments, first, share):
    with pytest.raises(RequestError, match="above 0 and up to 1"):
        deployments.promote(first, share)


def test_a_share_needs_somebody_to_share_with(deployments, first):
    with pytest.raises(RequestError, match="needs a bundle to share with"):
        deployments.promote(first, 0.5, "new")
    deployments.promote(first)
    with pytest.raises(RequestError, match="another name"):
        deployments.promote(first, 0.5, "main")


def test_one_promotion_at_a_time(deployments, first, monkeypatch):
    deployments.promote(first)
    opening, may_open, real = threading.Event(), threading.Event(), Recommender.open

    def slow(*path, **how):
        opening.set()
        may_open.wait(30)
        return real(*path, **how)

    monkeypatch.setattr(Recommender, "open", slow)
    promotion = threading.Thread(target=deployments.promote, args=(first,))
    promotion.start()
    assert opening.wait(30)
    with pytest.raises(RequestError, match="another promotion is going on"):
        deployments.promote(first)
    with pytest.raises(RequestError, match="a promotion is going on"):
        deployments.rollback()
    may_open.set()
    promotion.join()
    deployments.rollback()


# Bundles that cannot serve


def damaged(first, tmp_path):
    copy = shutil.copytree(first, tmp_path / "damaged")
    (copy / "ranking" / "weights.safetensors").write_bytes(b"nothing")
    return copy


def test_a_damaged_bundle_is_refused_and_the_old_one_serves(deployments, first, memory, tmp_path):
    deployments.promote(first)
    before, said = deployments.now, memory.read_text()
    with pytest.raises(ArtifactError, match="is damaged"):
        deployments.promote(damaged(first, tmp_path))
    assert deployments.now is before and deployments.previous is None and memory.read_text() == said
    deployments.promote(first)  # and the next promotion may begin


def test_a_bundle_that_was_damaged_since_it_was_checked_is_refused(deployments, first, tmp_path, memory):
    copy = shutil.copytree(first, tmp_path / "copy")
    deployments.promote(copy)
    deployments.promote(copy)
    weights = copy / "ranking" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"the checksum of ranking/weights\.safetensors does not match"):
        deployments.promote(copy)


@pytest.mark.parametrize("text", ["", "3", "{}"])
def test_what_was_checked_is_checked_again_where_nothing_tells(deployments, first, memory, text):
    memory.with_name("checked.json").write_text(text)
    deployments.promote(first)
    assert len(json.loads(memory.with_name("checked.json").read_text())) == 1


def test_a_path_that_cannot_be_read_is_refused(deployments, first):
    with pytest.raises(ArtifactError, match="cannot be read"):
        deployments.promote(first / ("x" * 300))


def test_a_bundle_that_serves_other_lists_than_offline_is_refused(deployments, first, monkeypatch):
    deployments.promote(first)
    before = deployments.now
    real = deployment.recommendations
    monkeypatch.setattr(deployment, "recommendations", lambda live, page: real(live, page)[::-1])
    with pytest.raises(ArtifactError, match="serves another list"):
        deployments.promote(first)
    assert deployments.now is before


def test_a_bundle_that_cannot_answer_is_refused(deployments, first, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("somebody@example.org")

    monkeypatch.setattr(deployment, "past_of", broken)
    with pytest.raises(ArtifactError, match=r"cannot answer: ZeroDivisionError\.$"):
        deployments.promote(first)


# What happened since the log ended


def test_events_are_followed_by_everything_that_is_loaded(deployments, store, first, second):
    deployments.promote(first)
    deployments.promote(second, 0.5, "new")
    deployments.promote(second)
    store.append([block(7), upload("fresh", title="fresh")])
    deployments.follow()
    lives = [one.recommender.live for one in (*deployments.now.variants, *deployments.previous.variants)]
    assert [live.rows_of(["fresh"])[0] > 0 for live in lives] == [True] * 3
    assert [live.blocked.tolist() for live in lives] == [live.rows_of(["7"]).tolist() for live in lives]


def test_a_new_bundle_knows_what_happened(deployments, store, first, second):
    store.append([upload("early", title="early"), block(7), block(8), block(8, "unblock"), watch("w", LATER + 5)])
    deployments = Deployments(store, deployments._memory)
    deployments.promote(first)
    store.append([upload("late", title="late"), watch("x", LATER + 9, "11")])
    deployments.follow()
    for path in (first, second):
        deployments.promote(path)
        live = live_of(deployments)
        assert live.rows_of(["early", "late"]).all()
        assert live.blocked.tolist() == live.rows_of(["7"]).tolist()
        assert live.latest_event == LATER + 9
        rows, _ = live.trending.nominate(context(deployments.now.variants[0], LATER), 2)
        assert set(rows[0].tolist()) == set(live.rows_of(["5", "11"]).tolist())


def context(variant, moment):
    question = Question(variant.recommender.bundle.dataset, np.array([1]), moment, 5)
    return variant.recommender.funnel.context(question)


def test_watches_are_known_from_the_recent_ones_and_uploads_from_all(deployments, store, first, monkeypatch):
    store.append([upload("early", title="early"), watch("a", LATER + 100), watch("b", LATER), watch("c", LATER + 1)])
    monkeypatch.setattr(deployment, "_RECENT_EVENTS", 2)
    monkeypatch.setattr(deployment, "_EVENTS_AT_ONCE", 1)
    deployments = Deployments(store, deployments._memory)
    deployments.promote(first)
    assert live_of(deployments).rows_of(["early"])[0] and live_of(deployments).latest_event == LATER + 1


def test_events_that_come_while_a_bundle_loads_are_counted_once(deployments, store, first, second, monkeypatch):
    deployments.promote(first)
    real = deployment.refuse_other_answers

    def busy(recommender, path):
        store.append([watch("w"), block(7)])
        deployments.follow()
        store.append([watch("x", LATER + 1)])
        real(recommender, path)

    monkeypatch.setattr(deployment, "refuse_other_answers", busy)
    deployments.promote(second)
    deployments.follow()
    live = live_of(deployments)
    assert live.blocked.tolist() == live.rows_of(["7"]).tolist()
    assert live.latest_event == LATER + 1
    for one in (deployments.now.variants[0], deployments.previous.variants[0]):
        rows, num_watches = one.recommender.live.trending.nominate(context(one, LATER), 2)
        assert rows[0].tolist() == [one.recommender.live.rows_of(["5"])[0], 0]
        assert num_watches[0, 0] == pytest.approx(2.0, rel=1e-3)


def test_a_block_holds_while_a_share_is_changed(deployments, store, first, second):
    """The bundle that goes on serving is not told its past again, which would unblock what is blocked for a moment."""
    store.append([block(7), block(7, "unblock")])
    deployments.promote(first)
    store.append([LiveEvent("again", "block", LATER, video_id="7")])
    deployments.follow()
    live, seen = live_of(deployments), []
    real = live.apply_all
    live.apply_all = lambda events, refused: (seen.extend(events), real(events, refused))
    deployments.promote(second, 0.5, "new")
    assert live_of(deployments) is live and seen == []
    assert live_of(deployments, 1).blocked.tolist() == live_of(deployments, 1).rows_of(["7"]).tolist()


def test_a_bundle_tries_an_upload_on_one_users_events_not_on_the_whole_log(first, monkeypatch):
    recommender, counts, inputs = Recommender.open(first), [], LiveBundle.inputs

    def counting(live, records, *others):
        if len(live.uploads):
            counts.append(len(records.events.video_row))
        return inputs(live, records, *others)

    monkeypatch.setattr(LiveBundle, "inputs", counting)
    deployment.refuse_other_answers(recommender, first)
    assert counts and max(counts) < len(recommender.bundle.dataset.events.video_row) / 10


def test_a_catalogue_that_is_smaller_than_the_trial_page_is_served(first, monkeypatch):
    monkeypatch.setattr(deployment, "_CHECKED_K", 100_000)
    deployment.refuse_other_answers(Recommender.open(first), first)


def test_an_upload_that_a_bundle_cannot_take_is_skipped(deployments, store, first, caplog):
    deployments.promote(first)
    store.append([upload("odd", shoe="somebody@example.org"), upload("late", title="late")])
    deployments.follow()
    assert live_of(deployments).rows_of(["odd", "late"]).astype(bool).tolist() == [False, True]
    assert "takes no upload: RequestError" in caplog.text and "somebody" not in caplog.text


def test_an_event_that_breaks_something_stops_none_after_it(deployments, store, first, caplog):
    deployments.promote(first)
    store.append([upload("odd", category={}), upload("late", title="late")])
    deployments.follow()
    assert live_of(deployments).rows_of(["late"])[0]


# Under load


@pytest.fixture
def address(first, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "token").write_text(TOKEN)
    settings = ServerSettings(tmp_path / "state", first, threads=4, rate="100000/second")
    server = uvicorn.Server(uvicorn.Config(create_app(settings=settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_swaps_under_load_fail_no_request_and_mix_no_answer(address, first, second):
    users, k = range(40), 6
    lists = {}
    for path in (first, second):
        recommender = Recommender.open(path)
        known = {user: [one.video_id for one in recommender.recommend(user, k)] for user in users}
        lists[recommender.bundle.version] = known
    ended, answers, failures = threading.Event(), [], []

    def ask(thread):
        with httpx.Client(base_url=address, timeout=60) as client:
            number = thread
            while not ended.is_set():
                number += 1
                user = number % len(users)
                answer = client.get("/v1/recommendations", params={"user_id": user, "k": k})
                if answer.status_code != 200:
                    failures.append(answer.text)
                    return
                answers.append((user, answer.json()))

    clients = [threading.Thread(target=ask, args=(thread,)) for thread in range(8)]
    for client in clients:
        client.start()
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=address, headers=headers, timeout=60) as operator:
        for _ in range(2):
            for path, body in (("bundle", {"path": str(second)}), ("rollback", None)):
                assert operator.post(f"/admin/{path}", json=body).status_code == 200
                time.sleep(0.3)
        body = {"path": str(second), "share": 0.5, "variant": "new"}
        assert operator.post("/admin/bundle", json=body).status_code == 200
        time.sleep(0.3)
    ended.set()
    for client in clients:
        client.join()
    assert failures == []
    assert {answer["bundle"] for _, answer in answers} == set(lists)
    for user, answer in answers:
        assert [place["video_id"] for place in answer["recommendations"]] == lists[answer["bundle"]][user]
        assert answer["degraded"] == []
    assert {answer["variant"] for _, answer in answers} == {"main", "new"}
