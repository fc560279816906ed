import fcntl
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.errors import ArtifactError, ConfigurationError, RequestError
from watchnext.serving import answer_log
from watchnext.serving.answer_log import AnswerLog
from watchnext.serving.answered import Answered

pytestmark = pytest.mark.usefixtures("unchecked_types")


def answered(request_id="page", user_id="ann", **changes):
    """Three places, of which the last has no expected watch time, out of four candidates."""
    told = {
        "request_id": request_id,
        "timestamp": 1_700_000_000,
        "user_id": user_id,
        "surface": "home",
        "bundle": "abc",
        "variant": "main",
        "degraded": ("deadline",),
        "video_ids": [7, 8, 9],
        "scores": [3.0, 2.0, 1.0],
        "expected_watch_seconds": [30.0, 20.0, None],
        "sources": [("network", "trending"), ("network",), ()],
        "candidate_ids": ["9", "8", "7", "6"],
        "candidate_scores": np.array([0.5, 0.25, 0.125, 0.0], dtype=np.float32),
    }
    return Answered(**(told | changes))


def rows(folder, kind="answers"):
    """All rows of one kind of file, oldest file first."""
    files = sorted(folder.glob(f"{kind}-*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def users(folder, kind="answers"):
    return [row["user_id"] for row in rows(folder, kind)]


def until(fact):
    """Waits for something that another thread or process does."""
    deadline = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in half a minute"
        time.sleep(0.005)


@pytest.fixture
def log(tmp_path):
    log = AnswerLog(tmp_path / "answers", seconds_per_file=3_600.0)
    yield log
    log.close()


def test_a_row_for_every_place(log):
    log.write(answered())
    log.flush()
    common = {
        "page_id": "page",
        "user_id": "ann",
        "timestamp": 1_700_000_000,
        "surface": "home",
        "bundle": "abc",
        "variant": "main",
        "degraded": ["deadline"],
    }
    assert rows(log.folder) == [
        common
        | {"video_id": video, "position": place, "score": score, "expected_watch_seconds": seconds, "sources": sources}
        for video, place, score, seconds, sources in [
            ("7", 1, 3.0, 30.0, ["network", "trending"]),
            ("8", 2, 2.0, 20.0, ["network"]),
            ("9", 3, 1.0, None, []),
        ]
    ]


def test_a_row_of_candidates_for_every_request(log):
    log.write(answered("one"))
    log.write(answered("two", user_id=None, candidate_ids=(), candidate_scores=()))
    log.flush()
    one, two = rows(log.folder, "candidates")
    assert one == {
        "page_id": "one",
        "user_id": "ann",
        "timestamp": 1_700_000_000,
        "bundle": "abc",
        "variant": "main",
        "candidate_ids": ["9", "8", "7", "6"],
        "candidate_scores": [0.5, 0.25, 0.125, 0.0],
    }
    assert (two["page_id"], two["user_id"], two["candidate_ids"]) == ("two", None, [])


def test_nothing_is_visible_before_the_file_is_due(log):
    log.write(answered())
    assert not rows(log.folder)


def test_a_file_is_due_by_its_rows(tmp_path):
    log = AnswerLog(tmp_path, rows_per_file=6, seconds_per_file=3_600.0)
    for number in range(5):
        log.write(answered(str(number)))
    until(lambda: len(list(tmp_path.glob("answers-*.parquet"))) == 2)
    assert sorted(row["page_id"] for row in rows(tmp_path, "candidates")) == ["0", "1", "2", "3"]
    log.close()
    assert len(rows(tmp_path)) == 15


def test_a_file_is_due_by_its_size(tmp_path):
    log = AnswerLog(tmp_path, seconds_per_file=3_600.0)
    log.write(answered(candidate_ids=["x"] * 8_000_000, candidate_scores=np.zeros(8_000_000, dtype=np.float32)))
    until(lambda: list(tmp_path.glob("answers-*.parquet")))
    log.close()


def test_a_file_is_due_by_time(tmp_path):
    log = AnswerLog(tmp_path, seconds_per_file=0.02)
    for number in range(2):
        log.write(answered(str(number)))
        until(lambda seen=number: len(rows(tmp_path)) == 3 * (seen + 1))
    log.close()


def test_what_was_written_from_many_threads_is_all_there(log):
    def write(name):
        for number in range(100):
            log.write(answered(f"{name}-{number}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    assert len({row["page_id"] for row in rows(log.folder, "candidates")}) == 400
    assert log.num_dropped == 0


def test_serving_never_waits_and_counts_what_does_not_fit(tmp_path):
    log = AnswerLog(tmp_path, rows_per_file=1, num_queued=3)
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the writer is stuck with at most three answers, three more fit the queue
        for number in range(10):
            log.write(answered(str(number)))
        assert 4 <= log.num_dropped <= 7
    log.close()
    assert len(rows(tmp_path, "candidates")) + log.num_dropped == 10


def test_a_closed_log_has_written_all_and_drops_the_rest(log):
    log.write(answered())
    log.close()
    assert len(rows(log.folder)) == 3
    log.write(answered())
    log.flush()
    assert log.num_dropped == 1 and len(rows(log.folder)) == 3


def test_an_answer_that_is_no_text_is_dropped_alone(log, caplog):
    for name in ("before", "\ud800", "after"):
        log.write(answered(name))
    log.flush()
    assert [row["page_id"] for row in rows(log.folder, "candidates")] == ["before", "after"]
    assert log.num_dropped == 1
    assert "cannot be written as Parquet" in caplog.text


def test_a_lost_folder_drops_answers_and_is_used_again(log, caplog):
    shutil.rmtree(log.folder)
    log.write(answered("lost"))
    log.flush()
    assert log.num_dropped == 1 and "1 answers could not be written" in caplog.text
    log.folder.mkdir()
    log.write(answered("kept"))
    log.flush()
    assert [row["page_id"] for row in rows(log.folder, "candidates")] == ["kept"]


def test_a_full_disk_leaves_no_half_file(log, caplog):
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write(answered(candidate_ids=["5"] * 10_000, candidate_scores=np.zeros(10_000, dtype=np.float32)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, unlimited[1]))
    try:
        log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert log.num_dropped == 1 and "could not be written" in caplog.text
    assert [file.name for file in log.folder.iterdir()] == [".lock"]


def test_an_answer_without_places_leaves_its_candidates(log):
    log.write(answered(video_ids=(), scores=(), expected_watch_seconds=(), sources=()))
    log.flush()
    assert not rows(log.folder) and len(rows(log.folder, "candidates")) == 1


def test_erasing_reaches_every_file_and_nobody_else(log):
    for number, user in enumerate(["ann", "bob", None, "ann", "bob"]):
        log.write(answered(str(number), user))
        log.flush()
    assert log.erase("ann") == 6
    assert sorted(users(log.folder), key=str) == [None] * 3 + ["bob"] * 6
    assert sorted(users(log.folder, "candidates"), key=str) == [None, "bob", "bob"]
    assert b"ann" not in b"".join(file.read_bytes() for file in log.folder.iterdir())


def test_erasing_reaches_what_is_still_waiting(log):
    log.write(answered("waiting", "ann"))
    log.write(answered("hers", "bob"))
    assert log.erase("ann") == 0
    log.write(answered("somebody new", "ann"))
    log.flush()
    assert [row["page_id"] for row in rows(log.folder, "candidates")] == ["hers", "somebody new"]


def test_erasing_while_writing_goes_on_loses_nobody_else(tmp_path):
    log = AnswerLog(tmp_path, rows_per_file=9)
    written = threading.Event()

    def write():
        for number in range(300):
            log.write(answered(str(number), ["ann", "bob"][number % 2]))
        written.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not written.is_set():
        log.erase("ann")
    thread.join()
    log.erase("ann")
    log.close()
    assert users(tmp_path) == ["bob"] * 450 and users(tmp_path, "candidates") == ["bob"] * 150


def test_erasing_waits_for_another_process_that_writes(log):
    log.write(answered())
    log.flush()
    with (log.folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=log.erase, args=("ann",))
        thread.start()
        thread.join(0.05)
        assert len(users(log.folder)) == 3
    thread.join()
    assert not users(log.folder)


def test_what_is_older_than_it_is_kept_is_removed(tmp_path, monkeypatch):
    noon = 1_764_000_000.0
    now = [noon]
    monkeypatch.setattr("watchnext.serving.answer_log.time.time", lambda: now[0])
    log = AnswerLog(tmp_path, seconds_per_file=3_600.0, kept_days=2.0)
    (tmp_path / "answers-mine.parquet").write_bytes(b"somebody else's")
    for day in range(5):
        now[0] = noon + day * 86_400
        log.write(answered(f"page-{day}"))
        log.flush()
    log.close()
    (tmp_path / "answers-mine.parquet").unlink()
    assert {row["page_id"] for row in rows(tmp_path)} == {"page-2", "page-3", "page-4"}
    assert len(list(tmp_path.glob("candidates-*"))) == 3


@pytest.mark.parametrize("gone", ["before it is looked at", "before it is written again"])
def test_a_file_that_is_removed_while_somebody_is_erased_holds_nobody(log, monkeypatch, gone):
    log.write(answered())
    log.flush()
    file = next(log.folder.glob("answers-*.parquet"))
    kept = answer_log._locked

    def removing(folder):
        file.unlink()
        return kept(folder)

    if gone == "before it is looked at":
        file.unlink()
    else:
        monkeypatch.setattr(answer_log, "_locked", removing)
    assert answer_log._erase(file, "ann") == 0 and not file.exists()


def test_two_who_erase_at_once_do_not_undo_each_other(log):
    for number in range(40):
        for user in ("ann", "bob", "cid"):
            log.write(answered(f"{user}-{number}", user))
        log.flush()
    other = AnswerLog(log.folder)
    threads = [threading.Thread(target=one.erase, args=(user,)) for one, user in ((log, "ann"), (other, "bob"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert users(log.folder) == ["cid"] * 120


def test_erasing_from_a_closed_log(log):
    log.write(answered())
    log.close()
    assert log.erase("ann") == 3 and not rows(log.folder)


def test_a_damaged_file_cannot_be_erased_from(log):
    (log.folder / "answers-old.parquet").write_bytes(b"half a file")
    with pytest.raises(ArtifactError, match=r"answers-old\.parquet of the answer log is damaged") as refused:
        log.erase("ann")
    assert "ann" not in str(refused.value)


@pytest.mark.parametrize(
    "limit", [{"rows_per_file": 0}, {"seconds_per_file": 0.0}, {"num_queued": 0}, {"kept_days": 0.0}]
)
def test_impossible_limits_are_refused(tmp_path, limit):
    with pytest.raises(ConfigurationError, match=f"{next(iter(limit))} = 0"):
        AnswerLog(tmp_path, **limit)


@pytest.mark.parametrize(
    "changes", [{"scores": [1.0]}, {"sources": [()] * 4}, {"candidate_ids": ["1"]}, {"expected_watch_seconds": []}]
)
def test_an_answer_with_lists_of_unlike_lengths_is_refused(changes):
    with pytest.raises(RequestError, match="give each its own"):
        answered(**changes)


WRITER = """
import sys
from pathlib import Path
from watchnext.serving.answer_log import AnswerLog
from watchnext.serving.answered import Answered
log = AnswerLog(Path(sys.argv[1]), rows_per_file=40)
number = 0
while True:
    log.write(Answered(str(number), 1_700_000_000, "ann", None, "abc", "main", (), ["7"] * 20, [1.0] * 20, [2.0] * 20,
                       [("network",)] * 20, ["7"] * 500, [1.0] * 500))
    number += 1
"""


def test_a_kill_at_any_moment_leaves_only_whole_files(tmp_path):
    for files in (1, 5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        before = len(list(tmp_path.glob("answers-*.parquet")))
        until(lambda there=before, more=files: len(list(tmp_path.glob("answers-*.parquet"))) >= there + more)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert all(pq.read_table(file).num_rows == 40 for file in tmp_path.glob("answers-*.parquet"))
        assert all(pq.read_table(file).num_rows == 2 for file in tmp_path.glob("candidates-*.parquet"))


def test_what_a_kill_left_aside_is_removed(tmp_path):
    aside = tmp_path / ".answers-old.parquet.unfinished"
    aside.write_text("half of ann")
    log = AnswerLog(tmp_path)
    assert not aside.exists()
    aside.write_text("half of ann")
    log.erase("bob")
    assert not aside.exists()
    log.close()


def test_check_takes_answers_as_impressions(log):
    log.write(answered())
    log.close()
    toml = log.folder / "log.toml"
    toml.write_text('[impressions]\nfiles = "answers-*.parquet"\n[impressions.columns]\nwatch_seconds = "NULL"\n')
    summary = pipeline.check(toml, log.folder / "rejects.parquet")
    assert (summary.rows["impressions"], summary.rejected) == (3, {})
