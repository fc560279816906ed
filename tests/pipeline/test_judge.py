import dataclasses
import math

import numpy as np
import pytest

from watchnext.bundle.bundle import Bundle
from watchnext.config import EvaluationConfig, IndexConfig
from watchnext.errors import DataError
from watchnext.pipeline.judge import judge, training_curves
from watchnext.retrieval.saved_sources import build_sources

CONFIG = EvaluationConfig(cutoffs=(5, 10), bootstrap_draws=20)


@pytest.fixture(scope="module")
def bundle(small_run) -> Bundle:
    return Bundle.open(small_run.bundle)


def with_dataset(bundle: Bundle, facts=None, **changes) -> Bundle:
    artifact = dataclasses.replace(bundle.dataset.artifact, facts=bundle.dataset.facts | (facts or {}))
    dataset = dataclasses.replace(bundle.dataset, artifact=artifact, **changes)
    return dataclasses.replace(bundle, dataset=dataset)


def test_no_test_period_is_refused(bundle):
    without = with_dataset(bundle, {"test_start": bundle.dataset.log_end})
    with pytest.raises(DataError, match="keeps no test period"):
        judge(without, CONFIG, {}, {})


def test_a_test_period_without_completed_videos_is_refused(bundle):
    events = bundle.dataset.events
    times = events.segments.timestamp
    second = int(np.setdiff1d(times, times[events.completed]).max())
    quiet = with_dataset(bundle, {"test_start": second, "log_end": second + 1})
    with pytest.raises(DataError, match="nobody completed a video in the test period"):
        judge(quiet, CONFIG, {}, {})


def test_watchnext_finds_more_than_popularity(bundle):
    retrieval = judge(bundle, CONFIG, {}, {}).retrieval
    assert retrieval["watchnext"]["recall@10"].value > retrieval["popularity"]["recall@10"].value


def test_watch_times_that_are_not_known_are_not_judged(bundle):
    events = bundle.dataset.events
    unknown = dataclasses.replace(events, watch_seconds=np.full_like(events.watch_seconds, np.nan))
    report = judge(with_dataset(bundle, events=unknown), CONFIG, {}, {})
    assert report.ranking == {} and report.reliability_by_group == {} and report.retrieval


def test_impressions_are_compared_with_those_of_their_page(bundle):
    alone = with_dataset(bundle, page=np.arange(1, len(bundle.dataset.page) + 1))
    loss, own = (judge(one, CONFIG, {}, {}).ranking["watchnext"]["weighted_loss"] for one in (bundle, alone))
    assert 0.0 < loss.value < 0.5
    assert math.isnan(own.value)  # nobody has a pair


def test_every_way_of_grouping_holds_all_impressions(bundle):
    report = judge(bundle, CONFIG, {}, {})
    tenths = np.array(report.reliability)
    kinds = ["video_duration", "video_age", "user_activity", "user_region", "surface"]
    assert list(report.reliability_by_group) == kinds
    for groups in report.reliability_by_group.values():
        found = np.array([(one.expected_watch_seconds, one.watch_seconds, one.num_impressions) for one in groups])
        assert found[:, 2].sum() == tenths[:, 2].sum()
        np.testing.assert_allclose(found[:, 2] @ found[:, :2], tenths[:, 2] @ tenths[:, :2])
        assert all(one.ratio.low < one.ratio.value < one.ratio.high for one in groups if one.num_impressions > 100)


def test_intervals_of_groups_are_drawn_as_asked_for(bundle):
    configs = [
        dataclasses.replace(CONFIG, bootstrap_draws=draws, seed=seed) for draws, seed in ((20, 1), (30, 1), (20, 2))
    ]
    intervals = [judge(bundle, config, {}, {}).reliability_by_group["surface"][0].ratio for config in configs]
    assert len({one.value for one in intervals}) == 1 and len({one.low for one in intervals}) == 3


def test_repeats_count_where_seen_videos_are_not_struck(bundle):
    struck, kept = (
        judge(bundle, dataclasses.replace(CONFIG, exclude_seen=exclude), {}, {}).retrieval["popularity"]["recall@5"]
        for exclude in (True, False)
    )
    assert struck != kept


def test_the_report_tells_of_the_log(bundle):
    report = judge(bundle, CONFIG, {"a": 1}, {})
    assert (report.log["videos"], report.log["users"], report.settings) == (100, 240, {"a": 1})


def test_the_report_tells_of_new_videos_and_of_absent_impressions(bundle):
    told = judge(bundle, CONFIG, {}, {}).notes
    assert len(told) == 1 and told[0].startswith("0 of the test period's")
    told = judge(with_dataset(bundle, {"has_impressions": False}), CONFIG, {}, {}).notes
    assert len(told) == 2 and "no impressions" in told[1]


def test_only_repeats_to_find_are_refused(bundle):
    """Every user was shown one video, again and again."""
    events = bundle.dataset.events
    again = dataclasses.replace(events, video_row=np.ones_like(events.video_row))
    busiest = int(np.argmax(np.diff(events.watches.offsets)))
    last = int(events.watches.timestamp[events.watches.offsets[busiest + 1] - 1])
    repeats = with_dataset(bundle, {"test_start": last, "log_end": last + 1}, events=again)
    with pytest.raises(DataError, match="had been shown to its user before"):
        judge(repeats, CONFIG, {}, {})


def test_curves_are_named_by_stage_and_fit():
    outcome = {"losses": [2.0], "scores": [0.5], "epochs": 1}
    curves = training_curves({"retrieval": {"training": {"early": outcome}}})
    assert curves == {"retrieval early": {"losses": [2.0], "scores": [0.5]}}


def test_the_report_tells_what_a_tuned_index_finds(bundle):
    dataset, network = bundle.dataset, bundle.generator.network
    config = IndexConfig(engine="faiss", target_recall=0.9, tuned_k=10)
    tuned = build_sources(network, dataset, dataset.test_start, config)
    report = judge(dataclasses.replace(bundle, generator=tuned), CONFIG, {}, {})
    assert report.index_curve == [dataclasses.asdict(point) for point in tuned.index.curve]
    chosen = next(point for point in report.index_curve if point["effort"] == tuned.index.effort)
    assert chosen["recall"] >= 0.9
    assert judge(bundle, CONFIG, {}, {}).index_curve == []
