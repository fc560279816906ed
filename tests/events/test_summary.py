from typing import Any

from watchnext.events.summary import summarise


def test_a_log_is_counted(read: Any) -> None:
    toml = 'log.name = "mine"\nimpressions = {files = "i.csv", columns = {watch_seconds = "TRY_CAST(seconds AS INT)"}}'
    toml = toml.replace("TRY_CAST(seconds AS INT)", "NULL") + '\n[[watches]]\nfiles = "w.csv"\n'
    files = {
        "i.csv": "user_id,video_id,timestamp,completed\n1,10,0,true\n1,11,86399,false\n",
        "w.csv": "user_id,video_id,timestamp,watch_seconds\n1,10,0,5\n2,10,60,6\n3,10,60,-1\n4,10,60,-2\n5,,60,-2\n",
    }
    summary = summarise(read(toml, files))
    assert (summary.name, summary.num_users, summary.num_videos) == ("mine", 2, 2)
    assert summary.rows == {"watches": 2, "impressions": 2, "searches": 0, "users": 0, "videos": 0}
    assert (summary.first_event, summary.last_event) == ("1970-01-01 00:00:00 UTC", "1970-01-01 23:59:59 UTC")
    assert (summary.completed_share, summary.timed_share) == (0.5, 0.5)
    assert summary.rejected == {"watches.watch_seconds: negative": 2, "watches.video_id: missing": 1}
    assert summary.problem is not None
    assert summary.problem.startswith("3 of 7 rows were rejected")


def test_a_good_log_has_no_problem(read_watches: Any) -> None:
    summary = summarise(read_watches("1,10,100,5\n"))
    assert (summary.problem, summary.completed_share) == (None, None)


def test_an_empty_log_has_no_dates(read_watches: Any) -> None:
    summary = summarise(read_watches(""))
    assert (summary.first_event, summary.last_event, summary.timed_share) == ("-", "-", 0.0)
    assert summary.problem == "the log holds no watches and no impressions: there is nothing to learn from."
