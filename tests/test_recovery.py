"""The whole job on the small world: the answer is known."""

import numpy as np


def test_retrieval_beats_popularity_by_a_wide_margin(small_run):
    recall = {name: scores["recall@10"].value for name, scores in small_run.report.retrieval.items()}
    assert recall["watchnext"] > 2 * recall["popularity"]


def test_ranking_orders_almost_every_pair(small_run):
    scores = small_run.report.ranking
    assert scores["watchnext"]["weighted_loss"].value < 0.1
    assert scores["watchnext"]["weighted_loss"].value < 0.5 * scores["per-video mean"]["weighted_loss"].value


def test_expected_watch_seconds_match_the_truth_in_sum(small_run):
    assert np.isclose(small_run.report.ranking["watchnext"]["sum_ratio"], 1.0, atol=0.2)
