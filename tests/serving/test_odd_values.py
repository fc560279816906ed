"""Odd values on the way from a log's files to its lists: whatever a column holds, every score is a number."""

import numpy as np
import pytest

from watchnext import pipeline
from watchnext.serving.recommendation import Visitor, Watch
from watchnext.serving.recommender import Recommender

ODD_COLUMNS = """
constant = "1.0"
nothing = "CAST('nan' AS DOUBLE)"
endless = "CASE WHEN {id} % 3 = 0 THEN 'inf' WHEN {id} % 3 = 1 THEN '-inf' ELSE '5' END::DOUBLE"
same = "'one'"
rare = "CASE WHEN {id} = 7 THEN 'seven' END"
"""
OF_VIDEOS = """
title = "CASE WHEN video_id % 2 = 0 THEN title END"
channel_id = "CASE WHEN video_id % 4 = 0 THEN channel_id END"
duration_seconds = "CASE WHEN video_id % 2 = 1 THEN duration_seconds END"
"""


@pytest.fixture(scope="module")
def odd(quick_log, tmp_path_factory):
    """Recommends by networks that learnt from odd columns, of users as of videos."""
    tables = {
        table: f"[{table}.columns]{ODD_COLUMNS.format(id=key)}"
        for table, key in (("users", "user_id"), ("videos", "video_id"))
    }
    tables["videos"] += OF_VIDEOS
    files = [(f'files = "{table}.parquet"\n', f'files = "{table}.parquet"\n{text}') for table, text in tables.items()]
    toml = quick_log(*files, ("[retrieval]", '[retrieval]\nvideos = "both"'), seed=5)
    run = pipeline.Run(toml, tmp_path_factory.mktemp("odd") / "run")
    for step in (pipeline.prepare, pipeline.train_retrieval, pipeline.build_index, pipeline.train_ranking):
        step(run)
    pipeline.make_bundle(run)
    return Recommender.open(run.part("bundle"))


def test_odd_numbers_are_columns_of_their_own(odd):
    dataset = odd.bundle.dataset
    assert {"constant", "nothing", "endless"} <= {*dataset.facts["user_numbers"]} & {*dataset.facts["video_numbers"]}
    for table in (dataset.users, dataset.videos):
        assert not np.isinf(table.continuous).any() and np.isnan(table.continuous).any()


@pytest.mark.parametrize("days_before_the_end", [0, 8, 25])
def test_every_user_and_video_has_a_score(odd, days_before_the_end):
    """Unknown ones too, and users before their first event: the log is twenty days long."""
    users, videos = (np.append(np.arange(count).astype(object), "unknown") for count in (240, 100))
    places = np.random.default_rng(0).integers(0, (len(users), len(videos)), (1_000, 2))
    places[:200] = np.column_stack([np.arange(200) % len(users), np.full(200, len(videos) - 1)])
    places[200:300, 0] = len(users) - 1
    moments = np.full(1_000, odd.bundle.dataset.log_end - days_before_the_end * 86_400)
    scores = np.concatenate(list(odd.score(users[places[:, 0]].tolist(), videos[places[:, 1]].tolist(), moments)))
    assert np.isfinite(scores).all() and (scores >= 0).all()
    assert len(np.unique(scores)) > 100


VISITORS = [
    Visitor(),
    Visitor(attributes={"region": "never seen", "same": "another", "rare": "eight"}),
    Visitor(attributes={"constant": 3e38, "nothing": -3e38, "endless": 0, "age": None}),
    Visitor((Watch("never seen"), Watch(4, watch_seconds=0.0), Watch(5, watch_seconds=86_400.0))),
    Visitor(searches=((5, "never seen"), (6, "!"))),
]


@pytest.mark.parametrize("visitor", VISITORS)
@pytest.mark.parametrize("stage", ["ranking", "retrieval"])
def test_every_visitor_gets_a_list_of_numbers(odd, visitor, stage):
    found = odd.recommend_visitor(visitor, 10, stage=stage, as_of=odd.bundle.dataset.log_end)
    assert len(found) == 10
    assert np.isfinite([one.score for one in found]).all()
