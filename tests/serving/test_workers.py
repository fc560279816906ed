"""Processes that answer beside each other: the same answers, live everywhere at once, and none lost if one ends."""

import multiprocessing
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from watchnext.artifacts import open_artifact
from watchnext.errors import ArtifactError, RequestError, UnknownUserError
from watchnext.serving.deployment import Named
from watchnext.serving.events import LiveEvent
from watchnext.serving.exchange import Ask, OverloadError
from watchnext.serving.server import Server, ServerSettings
from watchnext.serving.stores.opening import open_store
from watchnext.serving.workers import NAME, Where, Workers, _as_sent, _cores_for, _Follower

pytestmark = pytest.mark.usefixtures("unchecked_types")

USERS = ("3", "9", "33")
PROCESSES = 2
PATIENT = 180.0


@pytest.fixture(scope="module")
def server(small_run, tmp_path_factory):
    server = Server(ServerSettings(tmp_path_factory.mktemp("state"), small_run.bundle, processes=PROCESSES))
    yield server
    server.close()


@pytest.fixture
def second(small_run, tmp_path):
    """The same bundle by another version."""
    copy = tmp_path / "second"
    shutil.copytree(small_run.bundle, copy)
    return copy


def processes_of(server):
    return [process._process for process in server._workers._all]


def answers_of_all(server, ask):
    """So many answers that every process gives at least one."""
    return [server.service.answer(ask) for _ in range(2 * PROCESSES)]


def until(found):
    end = time.monotonic() + PATIENT
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_they_answer_what_one_process_answers_and_all_that_is_told_arrives(server, small_run, tmp_path):
    alone = Server(ServerSettings(tmp_path / "state", small_run.bundle))
    try:
        for user in USERS:
            expected = alone.service.answer(Ask(user, k=5, explain=True))
            for answer in answers_of_all(server, Ask(user, k=5, explain=True)):
                assert replace(answer, request_id="") == replace(expected, request_id="")
        assert server.recent.nominated == {
            name: 2 * PROCESSES * count for name, count in alone.recent.nominated.items()
        }
        assert server.recent.latencies_ms().keys() == alone.recent.latencies_ms().keys()
        assert server.recent.totals["total"] == 2 * PROCESSES * len(USERS)
    finally:
        alone.close()
    live = server.deployments.now.variants[0].recommender.live
    assert server.service.vectors and all(whose() is live for whose, _ in server.service.vectors)


def test_what_is_accepted_is_known_in_every_process_at_once(server):
    (first, *_) = server.service.answer(Ask(USERS[0], k=5)).recommendations
    event = LiveEvent("block:1", "block", server.service.answerer.now(), None, str(first.video_id))
    server.service.accept([event])
    for answer in answers_of_all(server, Ask(USERS[0], k=5)):
        assert first.video_id not in [place.video_id for place in answer.recommendations]
    server.service.accept([replace(event, event_id="unblock:1", kind="unblock")])
    assert {answer.recommendations[0].video_id for answer in answers_of_all(server, Ask(USERS[0], k=5))} == {
        first.video_id
    }


def test_what_is_refused_comes_back_as_it_was_raised_and_of_other_errors_only_the_kind(server):
    with pytest.raises(UnknownUserError, match="nothing is known of this user"):
        server.service.answer(Ask("nobody"))
    with pytest.raises(RequestError, match="k = 0"):
        server.service.answer(Ask(USERS[0], k=0))
    with pytest.raises(RuntimeError, match=r"^AttributeError$"):
        server._workers.given("no question")
    assert str(_as_sent(KeyError("somebody"))) == "KeyError"
    assert len(answers_of_all(server, Ask(USERS[0], k=5))) == 2 * PROCESSES


def test_all_switch_to_a_bundle_and_back_and_to_a_share(server, second):
    before = server.deployments.now.variants[0].path
    server.deployments.promote(second, 0.5, "challenger")
    names = {
        user: {answer.variant for answer in answers_of_all(server, Ask(user, k=3))} for user in map(str, range(1, 9))
    }
    assert all(len(found) == 1 for found in names.values())
    assert set.union(*names.values()) == {"main", "challenger"}
    server.deployments.rollback()
    assert {answer.variant for answer in answers_of_all(server, Ask("7", k=3))} == {"main"}
    assert server.deployments.now.variants[0].path == before


def test_requests_go_on_while_bundles_change(server, second):
    ended, answers, failed = threading.Event(), [], []

    def ask():
        while not ended.is_set():
            try:
                answers.append(server.service.answer(Ask(USERS[0], k=3)))
            except Exception as error:
                failed.append(error)

    asking = [threading.Thread(target=ask) for _ in range(PROCESSES)]
    for thread in asking:
        thread.start()
    for _ in range(2):
        server.deployments.promote(second)
        server.deployments.rollback()
    ended.set()
    for thread in asking:
        thread.join()
    assert not failed and len(answers) > PROCESSES


def test_as_many_processes_as_cores_have_one_each(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 3})
    assert [_cores_for(count) for count in (1, 2, 3)] == [[None], [3, 5], [None, None, None]]
    monkeypatch.delattr(os, "sched_getaffinity")
    assert _cores_for(2) == [None, None]


def cores_of(server):
    return [os.sched_getaffinity(process.pid) for process in processes_of(server)]


def test_a_killed_process_is_replaced_and_no_request_fails(server, caplog):
    old, cores, every = processes_of(server), cores_of(server), os.sched_getaffinity(0)
    os.kill(old[0].pid, signal.SIGKILL)
    assert len(answers_of_all(server, Ask(USERS[0], k=3))) == 2 * PROCESSES
    until(lambda: server._workers._free.qsize() == PROCESSES)
    now = processes_of(server)
    assert old[0] not in now and old[1] in now and all(process.is_alive() for process in now)
    assert cores_of(server) == cores == [{core} if core is not None else every for core in _cores_for(PROCESSES)]
    assert "ended with -9" in caplog.text
    figures = server.metrics.render().decode()
    assert "watchnext_processes_replaced_total 1.0" in figures
    assert figures.count("watchnext_answering_resident_memory_bytes{process=") == PROCESSES
    assert len({answer.bundle for answer in answers_of_all(server, Ask(USERS[0], k=3))}) == 1


def test_a_bundle_is_not_promoted_while_a_process_is_gone(server, second):
    before = server.deployments.now
    os.kill(processes_of(server)[0].pid, signal.SIGKILL)
    processes_of(server)[0].join()
    with pytest.raises(ArtifactError, match="1 of 2 processes ended"):
        server.deployments.promote(second)
    assert server.deployments.now is before
    assert len(answers_of_all(server, Ask(USERS[0], k=3))) == 2 * PROCESSES
    until(lambda: all(process.is_alive() for process in processes_of(server)) and server._workers._free.qsize() == 2)
    server.deployments.promote(second)
    server.deployments.rollback()


def test_what_cannot_be_loaded_is_refused_by_all_and_the_old_one_serves_on(server, small_run, tmp_path):
    with pytest.raises(ArtifactError):
        server._workers.get_ready((Named("main", 1.0, tmp_path / "nothing", "1"),))
    assert {answer.bundle for answer in answers_of_all(server, Ask(USERS[0], k=3))} == {
        server.deployments.now.variants[0].version
    }


def test_who_waits_too_long_is_told_to_come_again(server, monkeypatch):
    monkeypatch.setattr("watchnext.serving.workers._LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(server._workers, "_free", queue.SimpleQueue())
    with pytest.raises(OverloadError, match="no process"):
        server.service.answer(Ask(USERS[0]))


class Ending:
    """A process that ends whenever it is asked."""

    asked_times = 0

    def asked(self, *_):
        self.asked_times += 1
        raise EOFError


def test_a_question_that_ends_two_processes_is_not_asked_of_a_third(server, monkeypatch):
    process, free, gone = Ending(), queue.SimpleQueue(), []
    for _ in range(3):
        free.put(process)
    monkeypatch.setattr(server._workers, "_free", free)
    monkeypatch.setattr(server._workers, "_replace", gone.append)
    with pytest.raises(OverloadError, match="no process"):
        server.service.answer(Ask(USERS[0]))
    assert process.asked_times == 2 and free.qsize() == 1
    until(lambda: gone == [process, process])


def test_a_server_that_cannot_begin_leaves_no_process(tmp_path):
    before = {process.pid for process in multiprocessing.active_children() if process.name == NAME}
    with pytest.raises(ArtifactError):
        Server(ServerSettings(tmp_path / "state", tmp_path / "nothing", processes=PROCESSES))
    assert {process.pid for process in multiprocessing.active_children() if process.name == NAME} == before


def test_a_replacement_that_cannot_serve_is_not_asked_but_replaced(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("watchnext.serving.workers._PAUSE_SECONDS", 0.0)
    open_store(str(tmp_path / "events.sqlite")).close()
    tried = []

    def serving():  # it is there at the second look
        tried.append(len(workers._all))
        return (Named("main", 1.0, tmp_path / "nothing", "1"),) if len(tried) == 1 else ()

    workers = Workers(1, Where(str(tmp_path / "events.sqlite")), serving, lambda *_: None)
    try:
        (process,) = workers._all
        assert workers._free.get() is process
        workers._replace(process)
        assert caplog.text.count("cannot serve: ArtifactError") == 1 and tried == [1, 1]
        assert [workers._free.get()] == workers._all != [process]
        workers._replace(process)  # it has been replaced already
        assert len(tried) == 2
    finally:
        workers.close()
    workers._replace(workers._all[0])  # the server ends: nobody takes its place
    assert not workers._all[0]._process.is_alive()


@pytest.fixture
def follower(tmp_path):
    store = open_store(str(tmp_path / "events.sqlite"))
    yield _Follower(store)
    store.close()


def test_orders_load_then_switch_and_say_what_went_wrong(follower, small_run, tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr("watchnext.serving.workers.refuse_other_answers", lambda _, path: tried.append(path))
    ours, theirs = multiprocessing.Pipe()
    obeying = threading.Thread(target=follower.obey, args=[theirs])
    obeying.start()

    def ordered(order):
        ours.send(order)
        return ours.recv()

    version = open_artifact(small_run.bundle, "bundle").fingerprint[:12]
    named = (Named("main", 1.0, small_run.bundle, version),)
    with pytest.raises(RequestError, match="no bundle"):
        follower.now  # noqa: B018
    assert ordered(named) is None and ordered(named) is None and ordered(None) is None
    assert follower.now.named == named
    serves = follower.now.variants[0].recommender
    assert tried == [small_run.bundle]  # before the first request, and once
    assert ordered(None) is None and follower.now.named == named
    shared = (replace(named[0], share=0.5), replace(named[0], name="other", share=0.5))
    assert ordered(shared) is None and ordered(None) is None
    assert follower.now.named == shared and all(one.recommender is serves for one in follower.now.variants)
    changed = ordered((replace(named[0], version="another"),))
    assert isinstance(changed, ArtifactError) and "has become another one" in str(changed)
    assert isinstance(ordered((replace(named[0], path=tmp_path / "nothing"),)), ArtifactError)
    assert ordered(None) is None and follower.now.named == shared
    ours.close()
    obeying.join(PATIENT)
    assert not obeying.is_alive()


def test_by_the_command_line_and_none_outlives_a_server_that_is_killed(small_run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, command = f"http://127.0.0.1:{port}", Path(sys.executable).with_name("watchnext")
    options = ("--bundle", small_run.bundle, "--state", tmp_path, "--port", port, "--processes", PROCESSES)
    serving = subprocess.Popen([command, "serve", *map(str, options)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: serving.poll() is not None or _answers(url))
        answer = httpx.get(f"{url}/v1/recommendations", params={"user_id": USERS[0], "k": 3}).json()
        assert len(answer["recommendations"]) == 3
        others = descendants(serving.pid)
        assert len(others) > PROCESSES  # and whose copies they are, and what looks after their names
    finally:
        serving.kill()
        serving.wait()
    until(lambda: not any(Path("/proc", other).exists() for other in others))


def descendants(process):
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [*children, *(other for child in children for other in descendants(child))]


def _answers(url):
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_those_that_answer_are_copies_of_one_that_has_loaded_the_program(server):
    parents = {Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[1] for one in processes_of(server)}
    (parent,) = parents
    assert int(parent) != os.getpid()
    assert "forkserver" in Path(f"/proc/{parent}/cmdline").read_text()
