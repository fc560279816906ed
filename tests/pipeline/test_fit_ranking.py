import dataclasses
import importlib

import numpy as np
import pytest
import torch

from watchnext.bundle.bundle import Bundle
from watchnext.config import FeaturesConfig, RankingConfig
from watchnext.errors import DataError
from watchnext.events.dataset import Dataset, Segments
from watchnext.examples.contexts import seen_before
from watchnext.examples.impressions import impressions_between
from watchnext.features.spec import empty_state
from watchnext.layers.embedding import tables_of
from watchnext.pipeline.fit_ranking import (
    _some_without_video,
    _with_unwatched_candidates,
    compute_inputs,
    refuse_without_watch_time,
    sizes_of,
)


@pytest.fixture(scope="module")
def shown(small_dataset):
    return impressions_between(small_dataset.events, small_dataset.ranking_start, small_dataset.test_start)


@pytest.mark.parametrize("nothing", ["no rows", "no watch time"])
def test_nothing_to_learn_from_is_refused(shown, nothing):
    examples = (
        shown.part(slice(0, 0))
        if nothing == "no rows"
        else dataclasses.replace(shown, watch_seconds=np.zeros(len(shown)))
    )
    with pytest.raises(DataError, match="no impression before the validation period has a watch time above 0"):
        refuse_without_watch_time(examples)


def test_inputs_in_chunks_equal_inputs_at_once(small_run, shown):
    bundle = Bundle.open(small_run.bundle)
    part = shown.part(slice(0, 2500))

    def inputs(examples):
        state = empty_state(bundle.dataset, bundle.features.config)
        return compute_inputs(bundle.dataset, bundle.generator, examples, bundle.serving, state, bundle.features)

    whole, end = inputs(part), inputs(part.part(slice(2000, 2500)))
    assert len(whole) == 2500
    np.testing.assert_allclose(whole.values[2000:], end.values, rtol=1e-5, equal_nan=True)
    np.testing.assert_array_equal(whole.last_watched[2000:], end.last_watched)


def test_sizes_count_the_vocabularies(small_dataset):
    sizes = sizes_of(small_dataset)
    # 100 videos of 2 channels on 2 surfaces, each beside "unknown".
    assert (sizes.num_videos, sizes.num_channels, sizes.num_surfaces) == (101, 3, 3)


def test_negatives_of_our_own_were_not_met_before(small_run, shown):
    """What a user watched before must not stand for 'not watched', nor be told from the positives by its sources."""
    bundle, config = Bundle.open(small_run.bundle), small_run.run.config
    arguments = (shown, config.ranking, bundle.features, config.serving)
    drawn = _with_unwatched_candidates(bundle.dataset, bundle.generator, *arguments)
    negatives = drawn.part(slice(len(shown), None))
    assert len(negatives) > 2 * len(shown)
    assert not negatives.watch_seconds.any()
    seen = seen_before(bundle.dataset, negatives.user_row, negatives.timestamp)
    assert not any(video in rows for video, rows in zip(negatives.video_row, seen, strict=True))


DAY = 86_400


def met_first(dataset: Dataset, days: dict[int, int]) -> Dataset:
    """The dataset, in which each video was met on the log's first day, but for some, and video 6 never."""
    first = np.full(dataset.num_videos, dataset.facts["log_start"])
    first[list(days)] += DAY * np.array(list(days.values()))
    places = np.arange(dataset.num_videos + 1)
    segments = Segments(places - (places > 6), np.delete(first, 6))
    timelines = dataclasses.replace(dataset.video_timelines, segments=segments)
    return dataclasses.replace(dataset, video_timelines=timelines)


def impressions_of(shown, video_row, day, count, dataset):
    some = shown.part(np.arange(count) % len(shown))
    timestamp = np.full(count, dataset.facts["log_start"] + day * DAY + 60)
    return dataclasses.replace(some, video_row=np.full(count, video_row), timestamp=timestamp)


@pytest.mark.parametrize("num_new", [0, 40, 1_000, 20_000])
def test_two_of_a_hundred_are_learnt_as_of_an_unknown_video_new_ones_first(shown, small_dataset, num_new):
    """Video 7 is met on day 9, half an hour before; video 8 long before, and 9 with everything at the log's start."""
    assert small_dataset.test_start - small_dataset.validation_start < 4 * DAY
    dataset = met_first(small_dataset, {7: 9, 8: 5})
    new = impressions_of(shown, 7, 9, num_new, dataset)
    many = new
    for video, day in ((8, 9), (9, 0), (6, 9)):
        many = many.followed_by(impressions_of(shown, video, day, 7_000, dataset))
    some = _some_without_video(dataset, many, 1)
    changed = some.video_row != many.video_row
    assert changed.mean() == pytest.approx(0.02, abs=0.003)
    assert not some.video_row[changed].any()
    np.testing.assert_array_equal(some.watch_seconds, many.watch_seconds)
    of_new, of_others = changed[:num_new], changed[num_new:]
    if num_new in (40, 1_000):  # fewer than are wanted, and more: a half of them at most
        assert of_new.mean() == pytest.approx({40: 0.5, 1_000: 0.42}[num_new], abs=0.2 if num_new == 40 else 0.05)
    assert bool(of_others.any()) == (num_new < 1_000)


def test_the_network_that_serves_is_calibrated(small_run):
    assert Bundle.open(small_run.bundle).ranker.network.calibration.scale.item() != 1.0


def test_the_tables_that_serve_have_two_bytes_a_number(small_run):
    tables = tables_of(Bundle.open(small_run.bundle).ranker.network)
    assert {table.weight.dtype for table in tables} == {torch.bfloat16}


def test_training_learns_of_unknown_videos_too(small_run, monkeypatch):
    bundle = Bundle.open(small_run.bundle)
    fitting = importlib.import_module("watchnext.pipeline.fit_ranking")
    asked = []

    def look_and_stop(dataset, generator, examples, *_):
        asked.append((examples.video_row == 0).mean())
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "compute_inputs", look_and_stop)
    with pytest.raises(KeyboardInterrupt):
        settings = (RankingConfig(), FeaturesConfig(), bundle.serving)
        fitting.fit_ranking(bundle.dataset, bundle.generator, *settings, small_run.run.part("never"), "")
    assert 0.01 < asked[0] < 0.03


@pytest.mark.parametrize("has_impressions", [True, False])
def test_no_more_than_max_impressions_teach(small_run, monkeypatch, has_impressions):
    """Once for the training and once for the validation period, candidates drawn beside watches included."""
    bundle = Bundle.open(small_run.bundle)
    facts = bundle.dataset.facts | {"has_impressions": has_impressions}
    dataset = dataclasses.replace(bundle.dataset, artifact=dataclasses.replace(bundle.dataset.artifact, facts=facts))
    config = RankingConfig(max_impressions=50, tower=(8,), max_epochs=1)
    fitting = importlib.import_module("watchnext.pipeline.fit_ranking")
    counted = []

    def count_and_stop(dataset, generator, examples, *_):
        counted.append(len(examples))
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "compute_inputs", count_and_stop)
    with pytest.raises(KeyboardInterrupt):
        settings = (config, FeaturesConfig(), bundle.serving)
        fitting.fit_ranking(dataset, bundle.generator, *settings, small_run.run.part("never"), "")
    assert 50 < counted[0] <= 100
