import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from watchnext import pipeline
from watchnext.errors import DataError, RequestError
from watchnext.events.vocabulary import Vocabulary
from watchnext.serving import batch
from watchnext.serving.batch import recommend_to_file, score_to_file, vectors_to_file
from watchnext.serving.recommender import Recommender

pytestmark = pytest.mark.usefixtures("unchecked_types")

USERS = [*range(0, 240, 3), 10_000, 3, 20_000]


@pytest.fixture(scope="module", params=["csv", "parquet", "text"])
def users_file(request, tmp_path_factory):
    """The users as CSV, as integers in Parquet, and as text in Parquet."""
    users = pa.table({"user_id": USERS})
    path = tmp_path_factory.mktemp("users") / ("users.csv" if request.param == "csv" else "users.parquet")
    if request.param == "text":
        users = users.cast(pa.schema([("user_id", pa.string())]))
    pc.write_csv(users, path) if request.param == "csv" else pq.write_table(users, path)
    return path


def test_a_file_of_lists_equals_the_lists_one_by_one(recommender, users_file, tmp_path):
    served, unknown = recommend_to_file(recommender, users_file, tmp_path / "lists.parquet", 7)
    assert (served, unknown) == (80, 2)
    rows = pq.read_table(tmp_path / "lists.parquet").to_pylist()
    assert len(rows) == 80 * 7
    for user in (0, 3, 120, 237):
        listed = [row for row in rows if row["user_id"] == user]
        alone = recommender.recommend(user, 7)
        assert [row["rank"] for row in listed] == [1, 2, 3, 4, 5, 6, 7]
        assert [row["video_id"] for row in listed] == [one.video_id for one in alone]
        assert [row["score"] for row in listed] == pytest.approx([one.score for one in alone], rel=1e-5)
        assert [tuple(row["sources"]) for row in listed] == [one.sources for one in alone]


def test_options_reach_every_list(recommender, users_file, tmp_path):
    options = {"as_of": 1_701_000_000, "stage": "retrieval", "exclude_seen": False}
    recommend_to_file(recommender, users_file, tmp_path / "lists.parquet", 3, **options)
    rows = pq.read_table(tmp_path / "lists.parquet").to_pylist()
    assert [row["video_id"] for row in rows[:3]] == [one.video_id for one in recommender.recommend(0, 3, **options)]


def test_a_short_list_has_no_padding(recommender, tmp_path, seen_by, everything):
    pq.write_table(pa.table({"user_id": [3]}), tmp_path / "users.parquet")
    recommend_to_file(recommender, tmp_path / "users.parquet", tmp_path / "lists.parquet", 100)
    rows = pq.read_table(tmp_path / "lists.parquet").to_pylist()
    assert [row["rank"] for row in rows] == list(range(1, len(everything) - len(seen_by(3)) + 1))


def test_only_unknown_users_give_an_empty_file(recommender, tmp_path):
    pq.write_table(pa.table({"user_id": ["x", "y"]}), tmp_path / "users.parquet")
    assert recommend_to_file(recommender, tmp_path / "users.parquet", tmp_path / "lists.parquet", 5) == (0, 2)
    assert pq.read_table(tmp_path / "lists.parquet").num_rows == 0


def test_a_failure_leaves_no_file(recommender, users_file, tmp_path):
    with pytest.raises(RequestError, match="k = 0"):
        recommend_to_file(recommender, users_file, tmp_path / "lists.parquet", 0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_users_is_refused(recommender, tmp_path):
    pq.write_table(pa.table({"person": [1]}), tmp_path / "users.parquet")
    with pytest.raises(DataError, match="has no column user_id"):
        recommend_to_file(recommender, tmp_path / "users.parquet", tmp_path / "lists.parquet", 5)


def test_scores_stand_beside_the_rows(recommender, tmp_path):
    as_of = recommender.bundle.dataset.log_end
    found = recommender.recommend(5, 10, as_of=as_of)
    rows = {"user_id": [5] * 10, "video_id": [one.video_id for one in found], "timestamp": [as_of] * 10}
    pq.write_table(pa.table(rows | {"mine": list("abcdefghij")}), tmp_path / "rows.parquet")
    assert score_to_file(recommender, tmp_path / "rows.parquet", tmp_path / "scores.parquet") == 10
    scored = pq.read_table(tmp_path / "scores.parquet")
    assert scored.column_names == ["user_id", "video_id", "timestamp", "mine", "expected_watch_seconds"]
    assert scored["mine"].to_pylist() == list("abcdefghij")
    expected = [one.expected_watch_seconds for one in found]
    np.testing.assert_allclose(scored["expected_watch_seconds"], expected, rtol=1e-5)


def test_rows_that_were_scored_before_are_scored_anew(recommender, tmp_path):
    rows = pa.table({"user_id": [5], "video_id": [9], "timestamp": [1_701_000_000], "expected_watch_seconds": [-1.0]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    score_to_file(recommender, tmp_path / "rows.parquet", tmp_path / "rows.parquet")
    scored = pq.read_table(tmp_path / "rows.parquet")
    assert scored.column_names.count("expected_watch_seconds") == 1
    assert scored["expected_watch_seconds"][0].as_py() > 0


def test_no_rows_give_no_scores(recommender, tmp_path):
    (tmp_path / "rows.csv").write_text("user_id,video_id,timestamp\n")
    assert score_to_file(recommender, tmp_path / "rows.csv", tmp_path / "scores.parquet") == 0
    assert pq.read_table(tmp_path / "scores.parquet").num_rows == 0


def test_the_surface_changes_a_score(recommender, tmp_path):
    for name, surfaces in (("with", ["home", "search", None]), ("without", [None] * 3)):
        rows = {"user_id": [5] * 3, "video_id": [9] * 3, "timestamp": [1_701_000_000] * 3}
        table = pa.table(rows | {"surface": pa.array(surfaces, pa.string())})
        pq.write_table(table, tmp_path / f"{name}.parquet")
        score_to_file(recommender, tmp_path / f"{name}.parquet", tmp_path / f"{name}.scores.parquet")
    known, unknown = (
        pq.read_table(tmp_path / f"{name}.scores.parquet")["expected_watch_seconds"].to_numpy()
        for name in ("with", "without")
    )
    assert len(set(known.round(4))) == 3
    assert known[2] == pytest.approx(unknown[2], rel=1e-5)


@pytest.fixture(scope="module")
def scores_of(tmp_path_factory):
    def score(run, log_folder):
        target = tmp_path_factory.mktemp("scores") / "scores.parquet"
        score_to_file(Recommender.open(run.part("bundle")), log_folder / "events.parquet", target)
        return pq.read_table(target)

    return score


def test_a_log_is_scored_in_its_own_layout(foreign_run, scores_of, tmp_path):
    log_folder = foreign_run.run.log_file.parent
    events = pq.read_table(log_folder / "events.parquet").slice(0, 200)
    names = {"uid": "user_id", "item": "video_id", "ts_ms": "timestamp"}
    renamed = events.rename_columns([names.get(name, name) for name in events.column_names])
    seconds = pa.array(events["ts_ms"].to_numpy() // 1000)
    pq.write_table(renamed.set_column(2, "timestamp", seconds), tmp_path / "events.parquet")
    own = scores_of(foreign_run.run, log_folder)
    assert own.column_names[:4] == ["uid", "item", "ts_ms", "played"]
    schema = scores_of(foreign_run.run, tmp_path)
    np.testing.assert_allclose(own["expected_watch_seconds"][:200], schema["expected_watch_seconds"], rtol=1e-5)


def test_later_events_change_no_earlier_score(foreign_log, foreign_run, scores_of, tmp_path):
    """No leakage, from files to files: the log goes on, everything is made anew, and the past reads the same."""
    later = pipeline.Run(foreign_log(later=True), tmp_path / "run")
    for name, step in pipeline.STEPS.items():
        if name != "evaluate":
            step(later)
    log_folder = foreign_run.run.log_file.parent
    before, after = (scores_of(run, log_folder)["expected_watch_seconds"] for run in (foreign_run.run, later))
    np.testing.assert_array_equal(before, after)
    again = scores_of(later, later.log_file.parent)["expected_watch_seconds"]
    assert len(again) == 2 * len(before)
    assert not np.allclose(np.asarray(again[len(before) :]), np.asarray(before))


def vectors_in(path, name):
    """The vectors of a file by id."""
    return {row[name]: np.array(row["vector"], dtype=np.float32) for row in pq.read_table(path).to_pylist()}


def test_every_video_has_its_vector(recommender, everything, tmp_path):
    assert vectors_to_file(recommender, tmp_path / "vectors.parquet") == 100
    found = vectors_in(tmp_path / "vectors.parquet", "video_id")
    assert set(found) == set(everything) and pq.read_table(tmp_path / "vectors.parquet").num_rows == 100
    rows = recommender.bundle.dataset.vocabularies["videos"].rows_of(everything)
    for video, row in zip(everything, rows, strict=True):
        np.testing.assert_array_equal(found[video], recommender.bundle.generator.network.video_vectors[row])


def test_vectors_have_a_fixed_length_and_ids_as_the_log_writes_them(recommender, tmp_path):
    pq.write_table(pa.table({"user_id": ["3", "5"]}), tmp_path / "users.parquet")
    vectors_to_file(recommender, tmp_path / "videos.parquet")
    vectors_to_file(recommender, tmp_path / "users-vectors.parquet", tmp_path / "users.parquet")
    for file, name in (("videos", "video_id"), ("users-vectors", "user_id")):
        schema = pq.read_schema(tmp_path / f"{file}.parquet")
        assert schema.names == [name, "vector"]
        assert pa.types.is_integer(schema.field(name).type)
        assert schema.field("vector").type == pa.list_(pa.float32(), 16)


def test_textual_ids_stay_text(recommender, tmp_path):
    bundle = recommender.bundle
    names = pa.array([f"user-{row}" for row in range(1, len(bundle.dataset.vocabularies["users"]))])
    vocabularies = bundle.dataset.vocabularies | {"users": Vocabulary(names)}
    textual = dataclasses.replace(bundle, dataset=dataclasses.replace(bundle.dataset, vocabularies=vocabularies))
    pq.write_table(pa.table({"user_id": ["user-7", "7"]}), tmp_path / "users.parquet")
    assert vectors_to_file(Recommender(textual), tmp_path / "vectors.parquet", tmp_path / "users.parquet") == 1
    found = vectors_in(tmp_path / "vectors.parquet", "user_id")
    assert list(found) == ["user-7"]
    np.testing.assert_allclose(found["user-7"], recommender.user_vectors(np.array([7]))[0], rtol=1e-5)


def test_each_known_user_has_one_vector(recommender, users_file, tmp_path):
    assert vectors_to_file(recommender, tmp_path / "vectors.parquet", users_file) == 80
    rows = pq.read_table(tmp_path / "vectors.parquet")["user_id"].to_pylist()
    assert rows == list(range(0, 240, 3))


def test_the_dot_product_of_two_files_is_the_networks_score(recommender, users_file, tmp_path):
    """So an engine of one's own finds what the retrieval stage finds."""
    vectors_to_file(recommender, tmp_path / "videos.parquet")
    vectors_to_file(recommender, tmp_path / "users-vectors.parquet", users_file)
    videos = vectors_in(tmp_path / "videos.parquet", "video_id")
    for user, vector in list(vectors_in(tmp_path / "users-vectors.parquet", "user_id").items())[::10]:
        served = recommender.recommend(user, 20, stage="retrieval", exclude_seen=False)
        scores = {video: float(vector @ other) for video, other in videos.items()}
        assert [one.video_id for one in served] == sorted(scores, key=scores.get, reverse=True)[:20]
        assert [one.score for one in served] == pytest.approx(sorted(scores.values(), reverse=True)[:20], rel=1e-4)


def test_vectors_are_written_some_at_a_time(recommender, users_file, tmp_path, monkeypatch):
    vectors_to_file(recommender, tmp_path / "whole.parquet", users_file)
    monkeypatch.setattr(batch, "_VECTORS_AT_ONCE", 7)
    assert vectors_to_file(recommender, tmp_path / "parts.parquet", users_file) == 80
    whole, parts = (vectors_in(tmp_path / f"{name}.parquet", "user_id") for name in ("whole", "parts"))
    assert list(whole) == list(parts)
    np.testing.assert_allclose(np.stack([*whole.values()]), np.stack([*parts.values()]), rtol=1e-5, atol=1e-6)


def test_only_unknown_users_give_an_empty_file_of_vectors(recommender, tmp_path):
    pq.write_table(pa.table({"user_id": ["x", "y"]}), tmp_path / "users.parquet")
    assert vectors_to_file(recommender, tmp_path / "vectors.parquet", tmp_path / "users.parquet") == 0
    assert pq.read_table(tmp_path / "vectors.parquet").num_rows == 0


def test_a_file_without_users_has_no_vectors(recommender, tmp_path):
    pq.write_table(pa.table({"person": [1]}), tmp_path / "users.parquet")
    with pytest.raises(DataError, match="has no column user_id"):
        vectors_to_file(recommender, tmp_path / "vectors.parquet", tmp_path / "users.parquet")
    assert not (tmp_path / "vectors.parquet").exists()
