"""The temperature that makes probabilities honest: recovered where it is known."""

import dataclasses

import numpy as np
import pytest

from watchnext.config import RetrievalConfig
from watchnext.pipeline import calibration
from watchnext.pipeline.calibration import probability_temperature
from watchnext.retrieval.network import RetrievalModel


class FixedLogits(RetrievalModel):
    """A model that thinks the same of every user."""

    config = RetrievalConfig(history_length=2)

    def __init__(self, logits):
        vars(self).update(row=logits, moments=[])

    def logits(self, context):
        self.moments += context.moment.tolist()
        return np.tile(self.row, (len(context), 1)).astype(np.float32)


@pytest.fixture
def logits(small_dataset):
    found = np.random.default_rng(0).normal(0, 3, small_dataset.num_videos)
    found[0] = -np.inf
    return found


def watched_as(dataset, chances):
    """The dataset, every completed watch drawn anew from the same chances."""
    events = dataset.events
    rows = np.array(events.video_row)
    random = np.random.default_rng(1)
    rows[events.watch_places] = random.choice(len(chances), len(events.watch_places), p=chances)
    return dataclasses.replace(dataset, events=dataclasses.replace(events, video_row=rows))


@pytest.mark.parametrize("truth", [0.75, 1.0, 2.0])
def test_the_temperature_of_the_world_is_found(small_dataset, logits, truth):
    chances = np.exp(logits / truth) / np.exp(logits / truth).sum()
    dataset = watched_as(small_dataset, chances)
    found = probability_temperature(FixedLogits(logits), dataset, 0, dataset.log_end, 1)
    # some 2,000 watches: a standard error of about 2 %, and a grid of 5 %
    assert found == pytest.approx(truth, rel=0.12)


def test_only_watches_of_the_period_are_asked_for_each_as_of_its_own_moment(small_dataset, logits):
    start, end = small_dataset.validation_start, small_dataset.test_start
    model = FixedLogits(logits)
    probability_temperature(model, small_dataset, start, end, 1)
    watches, events = small_dataset.events.watches, small_dataset.events
    inside = (watches.timestamp >= start) & (watches.timestamp < end) & (events.video_row[events.watch_places] > 0)
    assert sorted(model.moments) == sorted(watches.timestamp[inside].tolist())


def test_without_watches_nothing_is_changed(small_dataset, logits):
    assert probability_temperature(FixedLogits(logits), small_dataset, 0, 0, 1) == 1.0


def test_a_large_catalogue_is_scanned_for_fewer_watches(small_dataset, logits, monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_LOGITS", 30 * small_dataset.num_videos)
    model = FixedLogits(logits)
    probability_temperature(model, small_dataset, 0, small_dataset.log_end, 1)
    assert len(model.moments) == 30
