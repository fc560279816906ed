import gc
import json
import shutil
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
import uvicorn
from typer.testing import CliRunner

from watchnext.cli import app
from watchnext.serving.recommender import Recommender
from watchnext.simulation.log import open_world
from watchnext.simulation.settings import WorldConfig

pytestmark = pytest.mark.usefixtures("unchecked_types")

COMMANDS = (
    "check prepare train-retrieval index features train-ranking towers bundle evaluate run recommend score "
    "probabilities vectors serve promote rollback export demo simulate settings"
).split()


def test_help_lists_every_command():
    listed = CliRunner().invoke(app, ["--help"]).output
    assert all(f"  {name}  " in listed for name in COMMANDS)
    assert len(app.registered_commands) == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name):
    assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0
    command = typer.main.get_command(app).commands[name]
    assert command.help
    assert [option.name for option in command.params if not option.help] == []


def test_features_are_listed_with_what_they_are_of(watchnext, small_run, capsys):
    assert watchnext("features", small_run.run.log_file, "--run", small_run.run.folder, "--pattern", "*channel*") == 0
    told = capsys.readouterr().out
    assert "channel.completed_share.1d" in told and "user_channel.unsuccessful" in told and "table channels" in told
    assert "video.shown" not in told and " inputs: 1 of the request" in told


def test_features_say_how_numbers_enter(watchnext, small_run, tmp_path, capsys):
    settings = small_run.run.log_file.read_text().replace('files = "', f'files = "{small_run.log_folder}/')
    assert "[ranking]" in settings
    (tmp_path / "log.toml").write_text(settings.replace("[ranking]", "[ranking]\npowers = false"))
    for log_file, powers in ((small_run.run.log_file, True), (tmp_path / "log.toml", False)):
        assert watchnext("features", log_file, "--run", small_run.run.folder, "--pattern", "video.shown.1d") == 0
        told = capsys.readouterr().out
        assert "quantile" in told and ("its square" in told) == powers


def test_check_tells_what_is_in_the_log(watchnext, small_run, tmp_path, capsys):
    assert watchnext("check", small_run.run.log_file, "--rejects", tmp_path / "rejects.parquet") == 0
    told = capsys.readouterr().out
    users = set(pq.read_table(small_run.log_folder / "events.parquet")["user_id"].to_pylist())
    assert "small world" in told and "5,760 rows" in told
    assert f"{len(users)} with events" in told and "100 with events" in told


def test_a_corrupted_csv_fails_the_check_with_the_first_rows(watchnext, tmp_path, capsys):
    lines = [f"{row},{row % 7},{1000 + row},{'x' if row % 10 == 0 else 5}" for row in range(100)]
    (tmp_path / "watches.csv").write_text("user_id,video_id,timestamp,watch_seconds\n" + "\n".join(lines))
    (tmp_path / "log.toml").write_text('[watches]\nfiles = "watches.csv"\n')
    message = watchnext("check", tmp_path / "log.toml", "--rejects", tmp_path / "rejects.parquet")
    assert message.startswith("watchnext: 10 of 100 rows were rejected, more than the 1.0%")
    assert "watches.csv row 1: watch_seconds" in message
    assert pq.read_table(tmp_path / "rejects.parquet").num_rows == 10
    assert "rejected" in capsys.readouterr().out


def test_a_missing_log_is_one_message(watchnext, tmp_path):
    message = watchnext("check", tmp_path / "log.toml")
    assert message == f"watchnext: there is no file {tmp_path / 'log.toml'}; docs/your-log.md shows how to write one."


def test_a_wrong_column_is_named_with_the_nearest(watchnext, tmp_path):
    (tmp_path / "watches.csv").write_text("userid,video_id,timestamp,watch_seconds\n1,2,3,4\n")
    (tmp_path / "log.toml").write_text('[watches]\nfiles = "watches.csv"\n')
    message = watchnext("prepare", tmp_path / "log.toml", "--run", tmp_path / "run")
    assert "[watches] needs user_id" in message and "The nearest is 'userid'" in message


def test_an_unwritable_folder_is_one_message(watchnext, small_run, tmp_path):
    (tmp_path / "file").write_text("")
    message = watchnext("prepare", small_run.run.log_file, "--run", tmp_path / "file")
    assert message.startswith("watchnext: ") and str(tmp_path / "file") in message


def test_an_unknown_option_is_refused(watchnext):
    assert watchnext("check", "--nonsense") == 2


def test_the_steps_make_a_run_one_by_one(watchnext, quick_log, tmp_path, capsys):
    log_file, run = quick_log(), tmp_path / "run"
    for name in ("prepare", "train-retrieval", "index", "train-ranking", "bundle"):
        assert watchnext(name, log_file, "--run", run) == 0
        assert f"{name}: done, in {run}" in capsys.readouterr().err
    assert watchnext("evaluate", log_file, "--run", run) == 0
    assert "watchnext" in capsys.readouterr().out
    assert (run / "evaluation" / "report.html").is_file()


def test_a_step_before_its_turn_is_one_message(watchnext, small_run, tmp_path):
    message = watchnext("train-retrieval", small_run.run.log_file, "--run", tmp_path / "run")
    assert "run/dataset holds no dataset" in message


def test_run_does_all_steps(watchnext, quick_log, tmp_path, capsys):
    assert watchnext("run", quick_log(), "--run", tmp_path / "run") == 0
    told = capsys.readouterr()
    assert f"watchnext serve --bundle {tmp_path / 'run' / 'bundle'}" in told.err
    assert "Retrieval on the test period" in told.out and "Ranking on the test period" in told.out


def test_recommend_prints_a_table(watchnext, small_run, capsys):
    asked = ["recommend", "--bundle", small_run.bundle, "--user", 3, "-k", 4]
    assert watchnext(*asked) == 0
    told = capsys.readouterr().out
    assert "for user 3" in told and "channel" in told and "expected watch" in told
    assert watchnext(*asked, "--json") == 0
    titles = [place["title"] for place in json.loads(capsys.readouterr().out)]
    assert {word for title in titles for word in title.split()} <= set(told.split())


def test_recommend_prints_json(watchnext, small_run, capsys):
    assert watchnext("recommend", "--bundle", small_run.bundle, "--user", 3, "-k", 4, "--json") == 0
    places = json.loads(capsys.readouterr().out)
    assert len(places) == 4
    assert list(places[0]) == [
        *("video_id", "title", "channel", "category", "duration_seconds", "uploaded_at", "score"),
        *("expected_watch_seconds", "sources", "why"),
    ]


def test_recommend_says_why_there_are_fewer(watchnext, small_run, capsys):
    assert watchnext("recommend", "--bundle", small_run.bundle, "--user", 3, "-k", 100, "--json") == 0
    told = capsys.readouterr()
    assert f"only {len(json.loads(told.out))} of 100: the user has seen the rest" in told.err
    assert watchnext("recommend", "--bundle", small_run.bundle, "--user", 3, "-k", 100, "--json", "--include-seen") == 0
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 100 and "only" not in told.err


def test_recommend_writes_the_lists_of_many(watchnext, small_run, tmp_path, capsys):
    (tmp_path / "users.csv").write_text("user_id\n1\n2\n999\n")
    output = tmp_path / "lists.parquet"
    asked = ["--bundle", small_run.bundle, "--users", tmp_path / "users.csv", "--output", output, "-k", 5]
    assert watchnext("recommend", *asked) == 0
    assert f"2 lists in {output}; 1 users are not in the log and have none" in capsys.readouterr().err
    assert pq.read_table(output)["user_id"].to_pylist() == [1] * 5 + [2] * 5


@pytest.mark.parametrize("who", [[], ["--user", "1", "--users", "users.csv"]])
def test_neither_and_both_of_user_and_users_are_refused(watchnext, small_run, who):
    message = watchnext("recommend", "--bundle", small_run.bundle, *who)
    assert message == "watchnext: say either --user ID or --users FILE."


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["-k", "0"], "k = 0: between 1 and 100"),
        (["--stage", "x"], "stage = 'x'"),
        (["--surface", "x"], "surface does not occur"),
        (["--as-of", "-1"], "as_of = -1"),
        (["--as-of", str(10**30)], "as_of = 1000"),
    ],
)
def test_an_impossible_question_is_one_message(watchnext, small_run, asked, told):
    message = watchnext("recommend", "--bundle", small_run.bundle, "--user", 3, *asked)
    assert message.startswith("watchnext: ") and told in message


def test_an_unknown_user_is_one_message(watchnext, small_run):
    message = watchnext("recommend", "--bundle", small_run.bundle, "--user", "somebody")
    assert "this user is not in the bundle's log" in message and "somebody" not in message


def test_score_writes_expected_watch_seconds(watchnext, small_run, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("user_id,video_id,timestamp,surface\n1,2,2023-11-20 10:00:00,home\n")
    asked = ["--impressions", tmp_path / "rows.csv", "--output", tmp_path / "scores.parquet"]
    assert watchnext("score", "--bundle", small_run.bundle, *asked) == 0
    assert "1 rows in" in capsys.readouterr().err
    assert pq.read_table(tmp_path / "scores.parquet")["expected_watch_seconds"][0].as_py() > 0


def test_probabilities_prints_one_line_for_each_video(watchnext, small_run, capsys):
    asked = ["probabilities", "--bundle", small_run.bundle, "--user", 3, "--video", 7, "--video", 10_000, "--video", 5]
    expected = Recommender.open(small_run.bundle).probabilities(3, [7, 5])
    assert watchnext(*asked) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["7", "10000", "5"]
    assert lines[1][1] == "not in the catalogue"
    assert [float(lines[place][1]) for place in (0, 2)] == pytest.approx(expected.tolist(), rel=0.005)
    assert watchnext(*asked, "--as-of", 1_701_000_000) == 0
    assert [line.split("\t") for line in capsys.readouterr().out.splitlines()] != lines


def test_probabilities_of_nobody_known_are_one_message(watchnext, small_run):
    message = watchnext("probabilities", "--bundle", small_run.bundle, "--user", "somebody", "--video", 5)
    assert message.startswith("watchnext: this user is not in the bundle's log")


def test_vectors_writes_those_of_videos_or_of_users(watchnext, small_run, tmp_path, capsys):
    (tmp_path / "users.csv").write_text("user_id\n1\n2\n999\n")
    videos, users = tmp_path / "videos.parquet", tmp_path / "users.parquet"
    assert watchnext("vectors", "--bundle", small_run.bundle, "--output", videos) == 0
    assert f"100 rows in {videos}" in capsys.readouterr().err
    assert sorted(pq.read_table(videos)["video_id"].to_pylist()) == list(range(100))
    asked = ["--users", tmp_path / "users.csv", "--output", users]
    assert watchnext("vectors", "--bundle", small_run.bundle, *asked) == 0
    assert f"2 rows in {users}" in capsys.readouterr().err
    assert pq.read_table(users)["user_id"].to_pylist() == [1, 2]


def test_a_warm_start_begins_with_the_earlier_networks(watchnext, small_run, tmp_path):
    """At learning rates of zero they come out as they went in."""
    shutil.copytree(small_run.run.part("dataset"), tmp_path / "run" / "dataset")
    log_file = small_run.log_folder / "still.toml"
    still = "[retrieval]\nlearning_rate = 0.0\nembedding_learning_rate = 0.0"
    log_file.write_text(small_run.run.log_file.read_text().replace("[retrieval]", still))
    asked = ["train-retrieval", log_file, "--run", tmp_path / "run"]
    vectors = []
    for warm in (["--warm-start", small_run.run.folder], ["--warm-start", small_run.bundle], []):
        assert watchnext(*asked, *warm) == 0
        vectors.append(np.load(tmp_path / "run" / "retrieval" / "vectors.npy"))
    old = np.load(small_run.run.part("retrieval") / "vectors.npy")
    assert [np.array_equal(one, old) for one in vectors] == [True, True, False]


@pytest.mark.parametrize("command", ["run", "train-retrieval"])
def test_a_warm_start_from_nothing_is_one_message(watchnext, small_run, tmp_path, command):
    shutil.copytree(small_run.run.part("dataset"), tmp_path / "run" / "dataset")
    asked = [command, small_run.run.log_file, "--run", tmp_path / "run", "--warm-start", tmp_path / "nowhere"]
    assert f"{tmp_path / 'nowhere' / 'dataset'} holds no dataset" in watchnext(*asked)
    assert not (tmp_path / "run" / "retrieval").exists()


@pytest.fixture
def broken(small_run, tmp_path):
    copy = shutil.copytree(small_run.bundle, tmp_path / "bundle")
    (copy / "ranking" / "weights.safetensors").write_bytes(b"nothing")
    return copy


@pytest.mark.parametrize(
    "command",
    [
        "recommend --user 3",
        "score --impressions rows.csv",
        "probabilities --user 3 --video 5",
        "vectors",
        "serve",
    ],
)
def test_a_broken_bundle_is_one_message(watchnext, broken, monkeypatch, command):
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: pytest.fail("it was served"))
    message = watchnext(*command.split(), "--bundle", broken)
    assert "is damaged: ranking/weights.safetensors has 7 bytes, not" in message


def test_serve_listens_where_it_is_told(watchnext, small_run, monkeypatch, capsys):
    served = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **where: served.append((app.title, where["host"], where["port"])))
    assert watchnext("serve", "--bundle", small_run.bundle, "--port", 8123) == 0
    assert served == [("watchnext", "127.0.0.1", 8123)]
    assert "http://127.0.0.1:8123/docs" in capsys.readouterr().err


def test_what_is_here_to_stay_is_not_looked_through_by_the_collector(watchnext, small_run, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(uvicorn, "run", lambda *_, **__: kept.extend((gc.get_freeze_count(), len(gc.get_objects()))))
    assert watchnext("serve", "--bundle", small_run.bundle, "--state", tmp_path) == 0
    gc.unfreeze()
    assert kept[0] > 10 * kept[1]


def test_a_server_answers(small_run):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from watchnext.cli import main; main()", "serve", "--bundle", small_run.bundle]
    with subprocess.Popen([*map(str, command), "--port", str(port)], stderr=subprocess.PIPE, text=True) as server:
        try:
            answer = first_answer(server, f"http://127.0.0.1:{port}/v1/recommendations?user_id=3&k=5")
        finally:
            server.terminate()
    assert len(answer.json()["recommendations"]) == 5


SMALL_SITE = "--videos 150 --users 40 --events 900 --days 3 --page-size 5 --topics 3 --workers 2".split()


def test_simulate_writes_a_log_that_check_accepts(watchnext, tmp_path, capsys):
    log = tmp_path / "site" / "log"
    assert watchnext("simulate", "--output", log, *SMALL_SITE) == 0
    told = capsys.readouterr().err
    assert f"900 impressions in {log}" in told and f"watchnext run {log / 'log.toml'}" in told
    assert watchnext("check", log / "log.toml", "--rejects", tmp_path / "rejects.parquet") == 0
    told = capsys.readouterr().out
    assert "900 rows" in told and "150 rows" in told and "40 rows" in told and "rejected" not in told


def test_simulate_makes_the_site_that_the_options_describe(watchnext, tmp_path):
    shares = ["--popular-share", 0.2, "--personal-share", 0.1, "--random-share", 0.7]
    others = ["--new-share", 0.3, "--rise-days", 2, "--search-share", 0.9, "--seed", 12]
    assert watchnext("simulate", "--output", tmp_path / "log", *SMALL_SITE, *shares, *others) == 0
    assert open_world(tmp_path / "log").config == WorldConfig(
        videos=150,
        users=40,
        events=900,
        days=3,
        topics=3,
        page_size=5,
        popular_share=0.2,
        personal_share=0.1,
        random_share=0.7,
        new_share=0.3,
        rise_days=2.0,
        search_share=0.9,
        seed=12,
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--videos", 5], "videos = 5: between 100 and 100000000 was expected"),
        (["--users", 1], "users = 1: between 2 and 100000000 was expected"),
        (["--events", 3], "events = 3: at least 300 was expected, one page of 10 for each of the 30 days"),
        (["--page-size", 51], "page_size = 51: between 1 and 50 was expected"),
        (["--topics", 201], "topics = 201: at most a tenth of the 2,000 videos was expected"),
        (["--random-share", 0.2], "popular_share + personal_share + random_share = 1.1: 1 was expected"),
        (["--rise-days", "nan"], "rise_days = nan: between 0.1 and 365.0 was expected"),
        (["--seed", -1], "seed = -1: between 0 and"),
    ],
)
def test_an_impossible_site_is_one_message_and_writes_nothing(watchnext, tmp_path, options, told):
    message = watchnext("simulate", "--output", tmp_path / "log", *options)
    assert message.startswith("watchnext: [world] ") and told in message
    assert list(tmp_path.iterdir()) == []


def test_a_log_is_not_written_into_a_file(watchnext, tmp_path):
    (tmp_path / "file").write_text("")
    message = watchnext("simulate", "--output", tmp_path / "file" / "log", *SMALL_SITE)
    assert message.startswith("watchnext: ") and str(tmp_path / "file") in message


ARMS = ["watchnext", "item-to-item co-watch", "recent popularity", "random", "ideal"]


def test_simulate_tries_a_bundle_on_visitors(watchnext, small_run, capsys):
    asked = ["--world", small_run.log_folder, "--visitors", 20, "--pages", 1]
    assert watchnext("simulate", "--against", small_run.bundle, *asked) == 0
    told = capsys.readouterr().out
    assert {word for name in ARMS for word in name.split()} <= set(told.split())
    assert watchnext("simulate", "--against", small_run.bundle, *asked, "--json") == 0
    arms = json.loads(capsys.readouterr().out)
    assert list(arms) == ARMS
    assert arms["ideal"]["share_of_ideal"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    for arm in arms.values():
        assert f"{arm['clicks']['value']:.2f}" in told and f"{arm['expected_watch_seconds']['value']:.0f}" in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--visitors", 241], "visitors = 241: between 1 and 240 was expected"),
        (["--world", "nowhere"], "nowhere holds no simulation"),
        (["--against", "nowhere"], "nowhere holds no bundle"),
        (["--against", "http://127.0.0.1:1"], "http://127.0.0.1:1 does not answer as `watchnext serve` does"),
    ],
)
def test_an_impossible_trial_is_one_message(watchnext, small_run, options, told):
    usual = ["--against", small_run.bundle, "--world", small_run.log_folder, "--visitors", 1]
    message = watchnext("simulate", *usual, *options)
    assert message.startswith("watchnext: ") and told in message


def test_a_trial_of_no_pages_is_refused(watchnext, small_run):
    assert watchnext("simulate", "--against", small_run.bundle, "--pages", 0) == 2


def first_answer(server: subprocess.Popen[str], address: str) -> httpx.Response:
    """Asks until the server listens, for half a minute at most."""
    for _ in range(300):
        try:
            return httpx.get(address, timeout=10)
        except httpx.ConnectError:
            time.sleep(0.1)
        if server.poll() is not None:
            pytest.fail(f"the server ended: {server.stderr.read()}")
    pytest.fail("the server does not listen")


def test_a_full_disk_is_told_as_such(watchnext, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "Error writing bytes to file. Detail: [errno 28] No space left on device")

    monkeypatch.setattr("watchnext.simulation.log.write_log", full)
    assert "the disk is full" in watchnext("simulate", "--output", tmp_path / "log")
