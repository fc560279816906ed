import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.bundle.bundle import Bundle
from watchnext.errors import ArtifactError, ConfigurationError, DataError
from watchnext.events import compiling
from watchnext.events.dataset import Dataset
from watchnext.serving.recommender import Recommender
from watchnext.training.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("unchecked_types")

BEFORE_EVALUATE = [step for name, step in pipeline.STEPS.items() if name != "evaluate"]


def lists_of(run, users=(0, 1, 2, 3)):
    recommender = Recommender.open(run.part("bundle"))
    return [recommender.recommend(user, 10) for user in users]


@pytest.fixture
def run(quick_log, tmp_path):
    """A run of which nothing is made yet."""
    return pipeline.Run(quick_log(), tmp_path / "run")


@pytest.fixture
def half_way(small_run, tmp_path):
    """Gives `half_way(*parts)`: a run that has only some parts of the small one."""

    def copy(*parts):
        for part in parts:
            shutil.copytree(small_run.run.part(part), tmp_path / "run" / part)
        return pipeline.Run(small_run.run.log_file, tmp_path / "run")

    return copy


def test_check_makes_nothing_and_counts(small_run, tmp_path):
    summary = pipeline.check(str(small_run.run.log_file), str(tmp_path / "rejects.parquet"))
    users = set(pq.read_table(small_run.log_folder / "events.parquet")["user_id"].to_pylist())
    assert (summary.name, summary.num_videos, summary.problem) == ("small world", 100, None)
    assert (summary.num_users, summary.rows["impressions"]) == (len(users), 5_760)
    assert list(tmp_path.iterdir()) == []


def test_check_writes_the_rejected_rows(tmp_path):
    (tmp_path / "watches.csv").write_text("user_id,video_id,timestamp,watch_seconds\n1,2,never,4\n1,2,1000,4\n")
    (tmp_path / "log.toml").write_text('[watches]\nfiles = "watches.csv"\n')
    summary = pipeline.check(tmp_path / "log.toml", tmp_path / "out" / "rejects.parquet")
    assert "1 of 2 rows were rejected" in summary.problem
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [row["reason"] for row in rejects] == ["not a time: never"]


def test_prepare_keeps_the_rejects_of_a_log_that_it_refuses(tmp_path):
    (tmp_path / "watches.csv").write_text("user_id,video_id,timestamp,watch_seconds\n1,2,never,4\n1,2,1000,4\n")
    (tmp_path / "log.toml").write_text('[watches]\nfiles = "watches.csv"\n')
    run = pipeline.Run(tmp_path / "log.toml", tmp_path / "run")
    with pytest.raises(DataError, match=r"1 of 2 rows were rejected(.|\n)*not a time: never"):
        pipeline.prepare(run)
    assert run.part("rejects.parquet").is_file() and not run.part("dataset").exists()


def test_every_step_makes_its_part(small_run):
    made = {path.name for path in small_run.run.folder.iterdir()}
    assert made == {"dataset", "retrieval", "index", "ranking", "bundle", "evaluation"}


def test_the_steps_one_by_one_equal_the_whole_run_of_the_same_seed(foreign_run, foreign_log, tmp_path):
    again = pipeline.Run(foreign_log(), tmp_path / "run")
    for step in BEFORE_EVALUATE:
        step(again)
    report = pipeline.evaluate(again)
    assert lists_of(again) == lists_of(foreign_run.run)
    assert report.retrieval == foreign_run.report.retrieval and report.ranking == foreign_run.report.ranking


@pytest.mark.parametrize(
    ("step", "made", "missing"),
    [
        ("train-retrieval", (), "dataset"),
        ("index", (), "dataset"),
        ("index", ("dataset",), "retrieval"),
        ("train-ranking", ("dataset",), "retrieval"),
        ("bundle", ("dataset", "retrieval", "ranking"), "index"),
        ("bundle", ("dataset", "retrieval", "index"), "ranking"),
        ("evaluate", ("dataset", "retrieval", "index", "ranking"), "bundle"),
    ],
)
def test_a_step_before_its_turn_names_what_is_missing(half_way, step, made, missing):
    with pytest.raises(ArtifactError, match=f"run/{missing} holds no {missing}"):
        pipeline.STEPS[step](half_way(*made))


@pytest.mark.parametrize("step", [pipeline.build_index, pipeline.train_ranking, pipeline.make_bundle])
def test_parts_of_an_earlier_dataset_are_refused(half_way, foreign_run, step):
    run = half_way("retrieval", "index", "ranking")
    shutil.copytree(foreign_run.run.part("dataset"), run.part("dataset"))
    with pytest.raises(ArtifactError, match=r"was made from the dataset .* Run the steps after 'dataset' again"):
        step(run)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_prepare_leaves_no_dataset(run, monkeypatch, interruption):
    def interrupt(*_):
        raise interruption

    monkeypatch.setattr(compiling, "write_videos", interrupt)
    with pytest.raises(interruption):
        pipeline.prepare(run)
    assert list(run.folder.iterdir()) == []


def test_an_interrupted_prepare_keeps_the_old_dataset(half_way, small_run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    run = half_way("dataset")
    monkeypatch.setattr(compiling, "write_videos", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pipeline.prepare(run)
    old, kept = (Dataset.open(one.part("dataset")).artifact.fingerprint for one in (small_run.run, run))
    assert kept == old


def test_an_interrupted_training_goes_on_to_the_same_weights(half_way, small_run, monkeypatch):
    run, saved, save = half_way("dataset"), [], Checkpoint.save

    def save_twice(self, *state):
        save(self, *state)
        saved.append(self)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_twice)
    with pytest.raises(KeyboardInterrupt):
        pipeline.train_retrieval(run)
    assert run.checkpoints("retrieval").is_dir() and not run.part("retrieval").exists()
    pipeline.train_retrieval(run)
    assert not run.checkpoints("retrieval").exists()
    for name in ("users.safetensors", "videos.safetensors", "vectors.npy"):
        whole, resumed = (part / "retrieval" / name for part in (small_run.run.folder, run.folder))
        assert whole.read_bytes() == resumed.read_bytes()


def test_watches_alone_with_string_ids_in_csv_are_enough(quick_log, small_run, tmp_path):
    """No impressions, users, videos or searches; ids such as 007."""
    toml = quick_log(("[ranking]", "[ranking]\nsampled_negatives = 1"))
    events = pq.read_table(toml.parent / "events.parquet").to_pylist()
    lines = [
        f"{row['user_id']:03d},v{row['video_id']},{row['timestamp']},{row['watch_seconds']}"
        for row in events
        if row["watch_seconds"] > 0
    ]
    (tmp_path / "watches.csv").write_text("user_id,video_id,timestamp,watch_seconds\n" + "\n".join(lines))
    settings = toml.read_text().replace("max_epochs = 1", "max_epochs = 8").partition("[retrieval]")[2]
    (tmp_path / "log.toml").write_text('[watches]\nfiles = "watches.csv"\n[retrieval]' + settings)
    run = pipeline.Run(tmp_path / "log.toml", tmp_path / "run")
    report = pipeline.run_all(run)
    assert any("no impressions" in note for note in report.notes)
    recommender = Recommender.open(run.part("bundle"))
    users = sorted({row["user_id"] for row in events if row["watch_seconds"] > 0})[:40]
    found = [(user, one) for user in users for one in recommender.recommend(f"{user:03d}", 5)]
    assert len(found) == 40 * 5 and all(isinstance(one.video_id, str) and one.title is None for _, one in found)
    listed = np.array([int(one.video_id[1:]) for _, one in found]).reshape(40, 5)
    by_chance = np.broadcast_to(np.arange(100), (40, 100))
    seconds, by_chance_seconds = (
        small_run.world.expected_watch_seconds(np.array(users)[:, None], videos, np.array(1_701_000_000)).mean()
        for videos in (listed, by_chance)
    )
    assert seconds > 1.3 * by_chance_seconds


def test_a_log_without_test_period_trains_and_cannot_be_judged(quick_log, tmp_path):
    run = pipeline.Run(quick_log(("[retrieval]", "[split]\ntest_share = 0\n[retrieval]")), tmp_path / "run")
    for step in BEFORE_EVALUATE:
        step(run)
    assert len(Recommender.open(run.part("bundle")).recommend(3, 5)) == 5
    with pytest.raises(DataError, match=r"no test period \(\[split\] test_share = 0\)"):
        pipeline.evaluate(run)
    assert not run.part("evaluation").exists()


def test_a_log_without_validation_period_trains_all_passes(quick_log, tmp_path):
    run = pipeline.Run(quick_log(("[retrieval]", "[split]\nvalidation_share = 0\n[retrieval]")), tmp_path / "run")
    pipeline.run_all(run)
    facts = json.loads((run.part("ranking") / "manifest.json").read_text())["facts"]
    assert list(facts["training"]) == ["search"] and facts["training"]["search"]["epochs"] == 1


def test_the_report_is_written_beside_the_bundle(small_run):
    report = json.loads((small_run.run.part("evaluation") / "report.json").read_text())
    assert set(report["retrieval"]) == {"popularity", "recent popularity", "item-to-item co-watch", "watchnext"}
    assert "watchnext" in (small_run.run.part("evaluation") / "report.html").read_text()


def test_serving_settings_that_the_ranker_was_not_trained_for_are_refused(half_way):
    run = half_way("dataset", "retrieval", "index", "ranking")
    text = run.log_file.read_text()
    assert "num_candidates = " in text

    def with_serving(line):
        return text.replace("[serving]", f"[serving]\n{line}")

    other = run.log_file.with_name("other.toml")
    for wrong in (re.sub(r"num_candidates = \d+", "num_candidates = 7", text), with_serving("exclude_seen = false")):
        other.write_text(wrong)
        with pytest.raises(ConfigurationError, match="Train ranking again, or put the settings back"):
            pipeline.make_bundle(pipeline.Run(other, run.folder))
    other.write_text(with_serving("co_watch_quota = 3\nmax_per_channel = 2"))
    pipeline.make_bundle(pipeline.Run(other, run.folder))
    assert Bundle.open(run.part("bundle")).serving.co_watch_quota == 3
