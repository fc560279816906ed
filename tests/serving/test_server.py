"""Threads, overload, figures for the operator, the probe, and the end."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from watchnext.errors import ArtifactError, ConfigurationError
from watchnext.serving.exchange import Ask, OverloadError
from watchnext.serving.http import create_app
from watchnext.serving.live import Filters
from watchnext.serving.server import Server, ServerSettings

pytestmark = pytest.mark.usefixtures("unchecked_types")

PATIENT = 30.0


@pytest.fixture
def make(small_run, tmp_path):
    """Gives `make(**settings)`: a server that ends with the test."""
    made = []

    def call(**settings):
        made.append(Server(ServerSettings(**{"state": tmp_path / "state", "bundle": small_run.bundle} | settings)))
        return made[-1]

    yield call
    for server in made:
        server.close()


def bundle_of(server):
    return server.deployments.now.variants[0].recommender.bundle


def with_budget(server, monkeypatch, milliseconds):
    serving = replace(bundle_of(server).serving, budget_ms=milliseconds)
    monkeypatch.setitem(vars(bundle_of(server)), "serving", serving)


async def asked(server, may_end, count):
    """Asks `count` slow questions at once, one after the other begun, and gives what came of each."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(server.answer(lambda: may_end.wait(PATIENT))))
        await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    may_end.set()
    await asyncio.wait(tasks)
    return [type(task.exception()).__name__ for task in tasks], len(refused)


def test_who_would_wait_too_long_is_refused_at_once(make, monkeypatch):
    server = make(threads=2)
    with_budget(server, monkeypatch, 50.0)
    server._seconds_each = 0.045
    found, num_refused_at_once = asyncio.run(asked(server, threading.Event(), 5))
    assert found == ["NoneType"] * 4 + ["OverloadError"] and num_refused_at_once == 1
    assert server.recent.totals["refused"] == 1
    assert "watchnext_overload_refusals_total 1.0" in server.metrics.render().decode()


def test_after_the_rush_everybody_is_answered(make, monkeypatch):
    server = make(threads=1)
    with_budget(server, monkeypatch, 50.0)
    server._seconds_each = 10.0
    for _ in range(3):
        assert asyncio.run(server.answer(lambda: 7)) == 7
    assert server._seconds_each < 10.0


def test_a_failing_request_leaves_no_trace_in_the_queue(make):
    server = make(threads=1)

    def fail():
        raise ValueError

    for _ in range(3):
        with pytest.raises(ValueError):
            asyncio.run(server.answer(fail))
    assert server._waiting == 0


def test_overload_is_a_503_that_says_when_to_come_back(small_run, tmp_path, monkeypatch):
    app = create_app(settings=ServerSettings(tmp_path / "state", small_run.bundle))
    with TestClient(app) as client:

        async def overloaded(_):
            raise OverloadError("too many requests wait already: ask again in a second.")

        monkeypatch.setattr(app.state.server, "answer", overloaded)
        answer = client.get("/v1/recommendations", params={"user_id": 3})
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert "ask again" in answer.json()["detail"]
        assert client.get("/healthz").status_code == 200


def test_the_status_tells_what_serves_and_how(make, small_run):
    server = make()
    for user in ("3", "5"):
        server.service.answer(Ask(user, k=4))
    told = server.status()
    (variant,) = told["variants"]
    assert variant["bundle"] == bundle_of(server).version and variant["path"] == str(small_run.bundle)
    assert (variant["variant"], variant["share"], variant["num_videos"]) == ("main", 1.0, 100)
    assert variant["log_end"] == bundle_of(server).dataset.log_end and variant["recall_probe"] is None
    assert told["previous"] is None and told["calibration"] is None
    assert told["requests"]["total"] == 2 and told["requests"]["failed"] == 0
    catalogue, candidates, shown = (stage["videos"] for stage in told["funnel"])
    assert catalogue == 100 and 4 < candidates < 100 and shown == 4
    assert {"waiting", "history", "user_vector", "features", "ranking", "total", "network"} <= set(told["latency_ms"])
    assert {source["source"] for source in told["sources"]} >= {"network", "co_watch", "popular", "trending"}
    server.deployments.promote(small_run.bundle)
    assert server.status()["previous"] == {"bundle": variant["bundle"], "path": variant["path"]}


def test_figures_name_what_serves(make, foreign_run):
    server = make()
    first = bundle_of(server).version
    server.deployments.promote(foreign_run.bundle, 0.5, "new")
    server.show_what_serves()
    told = server.metrics.render().decode()
    second = server.deployments.now.variants[1].version
    assert f'watchnext_bundle_info{{variant="main",version="{first}"}} 1.0' in told
    assert f'watchnext_bundle_info{{variant="new",version="{second}"}} 1.0' in told
    assert "watchnext_index_live_changes 0.0" in told


def waited(condition):
    for _ in range(1000):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_probe_repeats_searches_of_the_bundle_that_serves(make, foreign_run, monkeypatch):
    server = make(probe_seconds=0.01)
    server.service.answer(Ask("3", k=4))
    assert waited(lambda: server.probe is not None)
    recall = server.status()["variants"][0]["recall_probe"]
    assert 0.9 <= recall["recall"] <= 1.0 and recall["measured_at"] <= time.time()
    assert "watchnext_live_recall nan" not in server.metrics.render().decode().lower()
    assert server.status()["variants"][0]["index"]["engine"] == "exact"
    server.deployments.promote(foreign_run.bundle)
    index, probed = server.deployments.now.variants[0].recommender.live.index, []
    real = index.probe
    monkeypatch.setattr(index, "probe", lambda vectors, k, rest: (probed.append(len(vectors)), real(vectors, k))[1])
    time.sleep(0.1)
    assert probed == []  # vectors of another bundle say nothing of this one's index
    server.service.answer(Ask("3", k=4))
    assert waited(lambda: probed) and probed[0] == 1


def test_a_bundle_that_no_longer_serves_is_gone_at_once(make, foreign_run):
    """Not when the interpreter next looks for circles: until then its files stay mapped."""
    server = make()
    first = weakref.ref(server.deployments.now.variants[0].recommender.live)
    server.service.answer(Ask("3", k=4, filters=Filters(max_duration_seconds=1e6)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            assert first() is not None
            server.deployments.promote(foreign_run.bundle)
            server.show_what_serves()
        assert first() is None
    finally:
        gc.enable()


def test_a_server_ends_in_the_middle_of_a_probe(make, monkeypatch):
    monkeypatch.setattr("watchnext.retrieval.index.unhurried._ROWS_AT_ONCE", 1)
    monkeypatch.setattr("watchnext.retrieval.index.unhurried._RESTS", 1e9)
    server = make(probe_seconds=0.01)
    rests, rest = [], server._rest
    monkeypatch.setattr(server, "_rest", lambda seconds: (rests.append(seconds), rest(seconds)))
    server.service.answer(Ask("3", k=4))
    assert waited(lambda: rests)
    server.close()
    assert not server._prober.is_alive() and server.probe is None


def test_a_bundle_that_is_taken_away_ends_no_probing(make, monkeypatch):
    server, probed = make(probe_seconds=0.01), []

    def fail(vectors, k, rest):
        probed.append(k)
        raise FileNotFoundError

    monkeypatch.setattr(server.deployments.now.variants[0].recommender.live.index, "probe", fail)
    server.service.answer(Ask("3", k=4))
    assert waited(lambda: len(probed) > 2) and server._prober.is_alive()


def test_the_report_is_the_one_beside_the_bundle_or_the_one_that_is_named(make, small_run, tmp_path):
    assert make().report == small_run.run.part("evaluation") / "report.html"
    named = tmp_path / "named.html"
    assert make(report=named).report is None
    named.write_text("<p>report")
    assert make(report=named).report == named


def test_closing_writes_what_was_answered_and_may_be_repeated(make, tmp_path):
    server = make()
    server.service.answer(Ask("3", k=4))
    server.close()
    server.close()
    assert len(list((tmp_path / "state" / "answers").glob("answers-*.parquet"))) == 1


@pytest.mark.parametrize(("settings", "error"), [({"bundle": None}, ConfigurationError), ({}, ArtifactError)])
def test_a_server_that_cannot_begin_leaves_nothing_open(tmp_path, monkeypatch, settings, error):
    closed = []
    module = __import__("watchnext.serving.server", fromlist=["open_store"])
    real = module.open_store

    def watched(where, trust_durability):
        store = real(where)
        monkeypatch.setattr(store, "close", lambda close=store.close: (close(), closed.append(where)))
        return store

    monkeypatch.setattr(module, "open_store", watched)
    with pytest.raises(error):
        Server(ServerSettings(**{"state": tmp_path / "state", "bundle": tmp_path} | settings))
    assert len(closed) == 1


def test_a_server_does_not_load_what_only_training_and_reports_use():
    program = (
        "import sys, watchnext.serving.server; sys.exit(' '.join({'matplotlib', 'scipy.optimize'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr == "\n"


def test_no_request_waits_until_a_loop_is_compiled(small_run, tmp_path):
    program = f"""
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from watchnext.serving.events import LiveEvent
from watchnext.serving.exchange import Ask
from watchnext.serving.live import Filters
from watchnext.serving.lookup import searched, similar
from watchnext.serving.recommendation import Visitor, Watch
from watchnext.serving.server import Server, ServerSettings

def loops():
    modules = [vars(module) for name, module in sys.modules.items() if name.startswith("watchnext")]
    return {{(name, types) for every in modules for name, one in every.items() if isinstance(one, Dispatcher)
            for types in one.signatures}}

server = Server(ServerSettings(Path({str(tmp_path)!r}), Path({str(small_run.bundle)!r})))
known, live = loops(), server.deployments.now.variants[0].recommender.live
end = live.bundle.dataset.log_end
for event in (
    LiveEvent("1", "upload", end + 1, video_id="new", upload={{"title": "new"}}),
    LiveEvent("2", "search", end + 2, "3", query="new"),
    LiveEvent("3", "block", end + 3, video_id="5"),
    LiveEvent("4", "watch", end + 4, "3", "new", watch_seconds=9.0, completed=True),
):
    server.deployments._store.append([event])
    for ask in (
        Ask("3"),
        Ask("9", explain=True),
        Ask("9", filters=Filters(max_duration_seconds=300.0)),
        Ask(visitor=Visitor((Watch("new"), Watch("7")), ((end, "new"),))),
    ):
        server.service.answer(ask)
similar(live, "7", 5), similar(live, "new", 5), searched(live, "new", 5)
server.close()
print(sorted(name for name, _ in loops() - known))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
