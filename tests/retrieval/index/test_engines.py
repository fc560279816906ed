"""What every index must do, and the choice between them."""

import json
from pathlib import Path

import numpy as np
import pytest

from watchnext.config import IndexConfig
from watchnext.errors import ArtifactError, RequestError
from watchnext.retrieval.index import engines
from watchnext.retrieval.index.cell_index import CellIndex
from watchnext.retrieval.index.engines import build_index, engine_for, open_index, save_index
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.faiss_engine import FaissIndex
from watchnext.retrieval.index.live import LiveIndex
from watchnext.retrieval.index.packed import PackedVectors
from watchnext.retrieval.index.parts import ShardedIndex
from watchnext.retrieval.index.protocol import BuiltIndex, VideoIndex
from watchnext.retrieval.index.scann_engine import ScannIndex

NUM_VIDEOS, DIM = 501, 16


def random_vectors(count: int, seed: int, dim: int = DIM) -> np.ndarray:
    """As they come back where they are packed, which is how some are stored."""
    return PackedVectors.of(np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32))[:]


VECTORS = random_vectors(NUM_VIDEOS, 0)
VECTORS[0] = 0.0
QUERIES = random_vectors(12, 1)


ENGINES = ("exact", "cells", "faiss", "scann")
WAYS = ("built", "opened", "in shards", "in shards, opened", "changed", "changed and built again")


def asking_for(engine: str) -> IndexConfig:
    if engine == "scann":
        pytest.importorskip("scann", reason="an extra, which has no wheel for every machine")
    return IndexConfig(engine=engine)


def made(engine: str, how: str, folder: Path) -> VideoIndex:
    """An index over the same vectors, however it came about."""

    def build(vectors):
        return build_index(vectors, asking_for(engine))

    if how.startswith("changed"):
        return changed(build, again=how != "changed")
    built = ShardedIndex.build(VECTORS, 3, build) if "shards" in how else build(VECTORS)
    if "opened" not in how:
        return built
    save_index(built, folder / "videos")
    return open_index(folder / "videos")


def changed(build, again) -> LiveIndex:
    """Built over some wrong vectors and without the last videos, then mended."""
    wrong = VECTORS[:400].copy()
    wrong[100:200] += 5.0
    live = LiveIndex(build(wrong))
    live.remove(np.arange(150, 200))
    live.add(np.arange(400, NUM_VIDEOS), VECTORS[400:])
    live.remove(np.append(np.arange(100, 150), 450))
    live.add(np.append(450, np.arange(199, 99, -1)), VECTORS[np.append(450, np.arange(199, 99, -1))])
    if again:
        live.rebuild(build)
        assert live.num_changes == 0
    return live


@pytest.fixture(scope="module", params=[f"{engine}, {how}" for engine in ENGINES for how in WAYS])
def index(request, tmp_path_factory) -> VideoIndex:
    return made(*request.param.split(", ", 1), tmp_path_factory.mktemp("index"))


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_an_index_that_says_whether_it_is_exact(engine, how, tmp_path):
    index = made(engine, how, tmp_path)
    assert isinstance(index, VideoIndex)
    assert isinstance(index, BuiltIndex) == ("changed" not in how)
    assert index.is_exact == (engine == "exact")


@pytest.mark.parametrize("how", WAYS[:4])
def test_a_built_index_gives_its_vectors(how, tmp_path):
    np.testing.assert_array_equal(made("exact", how, tmp_path).vectors, VECTORS)


def test_k_different_videos_come_best_first(index):
    rows, scores = index.search(QUERIES, 10)
    assert rows.shape == scores.shape == (12, 10)
    assert all(len(set(user)) == 10 for user in rows.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_the_best_video_is_found(index):
    rows, _ = index.search(QUERIES, 10)
    # With all partitions probed and twice as many candidates as asked for, 8-bit codes lose no first place.
    np.testing.assert_array_equal(rows[:, 0], (QUERIES @ VECTORS[1:].T).argmax(axis=1) + 1)


def test_scores_are_the_dot_products(index):
    rows, scores = index.search(QUERIES, 10)
    np.testing.assert_allclose(scores, np.einsum("bd,bkd->bk", QUERIES, VECTORS[rows]), rtol=1e-5, atol=1e-5)


def test_row_0_is_never_found_even_where_all_others_score_below_zero(index):
    towards_nothing = -VECTORS[1:].mean(axis=0, keepdims=True)
    rows, _ = index.search(np.concatenate([towards_nothing, QUERIES]), NUM_VIDEOS - 1)
    assert (rows > 0).all()


def test_excluded_videos_are_replaced_by_the_next_best(index):
    free, _ = index.search(QUERIES, 20)
    rows, _ = index.search(QUERIES, 10, [user[:5] for user in free])
    np.testing.assert_array_equal(rows, free[:, 5:15])


def test_each_query_has_its_own_exclusions(index):
    free, _ = index.search(QUERIES, 3)
    excluded = [np.zeros(0, dtype=np.int64)] * 12
    excluded[4] = free[4, :1]
    rows, _ = index.search(QUERIES, 2, excluded)
    np.testing.assert_array_equal(np.delete(rows, 4, axis=0), np.delete(free[:, :2], 4, axis=0))
    np.testing.assert_array_equal(rows[4], free[4, 1:3])


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_k_are_found_when_all_but_k_are_excluded(index, kind):
    left = np.array([3, 77, 200, 201, 499])
    excluded = np.setdiff1d(np.arange(1, NUM_VIDEOS), left).astype(kind)
    rows, scores = index.search(QUERIES, 5, [excluded] * 12)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.broadcast_to(left, (12, 5)))
    assert np.isfinite(scores).all()


def test_where_fewer_are_left_the_list_is_filled_with_row_0_and_minus_infinity(index):
    excluded = [np.arange(4, NUM_VIDEOS)] * 12
    rows, scores = index.search(QUERIES, 5, excluded)
    assert (np.sort(rows[:, :3], axis=1) == [1, 2, 3]).all()
    assert (rows[:, 3:] == 0).all()
    assert np.isneginf(scores[:, 3:]).all() and np.isfinite(scores[:, :3]).all()


def test_a_k_larger_than_the_catalogue_gives_the_catalogue_and_padding(index):
    rows, scores = index.search(QUERIES, NUM_VIDEOS + 20)
    assert rows.shape == (12, NUM_VIDEOS + 20)
    assert (np.sort(rows[:, : NUM_VIDEOS - 1], axis=1) == np.arange(1, NUM_VIDEOS)).all()
    assert (rows[:, NUM_VIDEOS - 1 :] == 0).all() and np.isneginf(scores[:, NUM_VIDEOS - 1 :]).all()


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_only_allowed_videos_are_found_and_as_many_as_there_are(index, share):
    allowed = np.random.default_rng(2).random(NUM_VIDEOS) < share
    allowed[0] = True  # which changes nothing
    rows, scores = index.search(QUERIES, 10, allowed=allowed)
    there = np.flatnonzero(allowed[1:]) + 1
    k = min(10, len(there))
    order = np.argsort(-(QUERIES @ VECTORS[there].T), axis=1)[:, :k]
    np.testing.assert_array_equal(rows[:, :k], there[order])
    assert (rows[:, k:] == 0).all() and np.isneginf(scores[:, k:]).all()


def test_what_is_allowed_may_be_excluded(index):
    allowed = np.arange(NUM_VIDEOS) % 2 == 0
    free, _ = index.search(QUERIES, 20, allowed=allowed)
    rows, _ = index.search(QUERIES, 10, [user[:5] for user in free], allowed)
    np.testing.assert_array_equal(rows, free[:, 5:15])


def test_where_nothing_is_allowed_nothing_is_found(index):
    rows, scores = index.search(QUERIES, 3, allowed=np.zeros(NUM_VIDEOS, dtype=bool))
    assert not rows.any() and np.isneginf(scores).all()


def test_a_query_of_another_length_is_refused(index):
    with pytest.raises(RequestError, match="a query of 15 numbers came; the videos have vectors of 16"):
        index.search(QUERIES[:, 1:], 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_query_that_is_not_finite_is_refused(index, value):
    broken = QUERIES.copy()
    broken[3, 2] = value
    with pytest.raises(RequestError, match="not finite"):
        index.search(broken, 3)


def test_a_query_of_zeros_finds_k_videos_of_score_zero(index):
    rows, scores = index.search(np.zeros((1, DIM), dtype=np.float32), 5)
    assert len(set(rows[0].tolist())) == 5 and (rows > 0).all() and not scores.any()


@pytest.mark.parametrize("k", [0, -3])
def test_a_k_below_1_is_refused(index, k):
    with pytest.raises(RequestError, match=f"k = {k}: at least 1"):
        index.search(QUERIES, k)


def test_a_batch_is_answered_as_its_queries_one_by_one(index):
    excluded = [np.arange(1 + place, 100 + 20 * place) for place in range(12)]
    rows, scores = index.search(QUERIES, 7, excluded)
    for place in range(12):
        row, score = index.search(QUERIES[place : place + 1], 7, [excluded[place]])
        np.testing.assert_array_equal(rows[place], row[0])
        np.testing.assert_allclose(scores[place], score[0], rtol=1e-5)


@pytest.mark.parametrize("excluded", [None, []])
def test_no_queries_give_no_lists(index, excluded):
    rows, scores = index.search(QUERIES[:0], 4, excluded)
    assert rows.shape == scores.shape == (0, 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_catalogue_of_one_video_is_found(engine):
    index = build_index(VECTORS[:2], asking_for(engine))
    rows, _ = index.search(QUERIES[:1], 3)
    assert rows.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_of_no_video_finds_nothing_until_one_is_added(engine):
    config = asking_for(engine)

    def build(vectors):
        return build_index(vectors, config)

    live = LiveIndex(build(VECTORS[:1]))
    rows, scores = live.search(QUERIES, 3)
    assert not rows.any() and np.isneginf(scores).all()
    live.add(np.array([1]), VECTORS[1:2])
    live.rebuild(build)
    assert live.search(QUERIES, 3)[0].tolist() == [[1, 0, 0]] * 12
    live.remove(np.array([1]))
    live.rebuild(build)
    assert not live.search(QUERIES, 3)[0].any()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(engine, value):
    broken = VECTORS.copy()
    broken[7, 3] = value
    with pytest.raises(ArtifactError, match="not finite"):
        build_index(broken, asking_for(engine))


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"version": 1, "engine": "annoy"}, "'annoy'; known are exact, cells, faiss, scann"),
        ({"version": 99, "engine": "exact"}, "has version 99, 1 is read: run watchnext index again"),
        ({"version": 1, "engine": "cells"}, "has version 1, 3 is read"),
        ({"engine": "exact"}, "has version None, 1 is read"),
    ],
)
def test_an_index_of_an_unknown_engine_or_another_version_is_refused(tmp_path, told, problem):
    save_index(build_index(VECTORS, IndexConfig()), tmp_path / "videos")
    (tmp_path / "videos" / "engine.json").write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match=problem):
        open_index(tmp_path / "videos")


@pytest.mark.parametrize("made", ["exact-1", "cells-3", "faiss-1", "shards-1"])
def test_golden_files_of_every_version_give_what_they_gave(made):
    """Made by golden/make.py when the version was new; `found.npy` is what a scan of the vectors finds."""
    folder = Path(__file__).parent / "golden" / made
    index = open_index(folder)
    queries = np.random.default_rng(5).normal(size=(8, index.vectors.shape[1])).astype(np.float32)
    rows, _ = index.search(queries, 10)
    np.testing.assert_array_equal(rows, np.load(folder / "found.npy"))
    vectors = index.vectors[1:]
    np.testing.assert_array_equal(rows, np.argsort(-(queries @ vectors.T), axis=1)[:, :10] + 1)


@pytest.mark.parametrize(
    ("engine", "num_videos", "byte_products", "chosen"),
    [
        ("auto", 99, True, "exact"),
        ("auto", 100, True, "cells"),
        ("auto", 100, False, "faiss"),
        ("exact", 1000, True, "exact"),
        ("cells", 2, False, "cells"),
        ("faiss", 2, True, "faiss"),
        ("scann", 2, True, "scann"),
    ],
)
def test_auto_takes_an_approximate_engine_from_the_configured_size(
    monkeypatch, engine, num_videos, byte_products, chosen
):
    monkeypatch.setattr(engines, "has_byte_products", lambda: byte_products)
    assert engine_for(num_videos, IndexConfig(engine=engine, approximate_from=100)) == chosen


@pytest.mark.parametrize(
    ("engine", "kind"), [("exact", ExactIndex), ("cells", CellIndex), ("faiss", FaissIndex), ("scann", ScannIndex)]
)
def test_build_index_follows_the_choice(engine, kind):
    assert isinstance(build_index(VECTORS, asking_for(engine)), kind)


def test_build_index_takes_the_exact_scan_of_its_own_accord_where_there_are_few():
    assert isinstance(build_index(VECTORS, IndexConfig(approximate_from=NUM_VIDEOS + 1)), ExactIndex)
