"""What makes probabilities honest: recovered where it is known."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from watchnext.config import RetrievalConfig
from watchnext.pipeline import calibration
from watchnext.pipeline.calibration import _met_before, fitted_calibration
from watchnext.retrieval.calibration import AS_LEARNT
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


@pytest.mark.parametrize("spread", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [0.75, 1.0, 2.0])
def test_what_the_world_does_is_found(small_dataset, logits, temperature, spread):
    learnt = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    chances = (1 - spread) * learnt + spread * (logits > -np.inf) / (len(logits) - 1)
    dataset = watched_as(small_dataset, chances)
    start = dataset.ranking_start  # by then every video was met
    assert _met_before(dataset, start)[1:].mean() > 0.9
    found = fitted_calibration(FixedLogits(logits), dataset, start, dataset.log_end, 1)
    assert found.temperature == pytest.approx(temperature, rel=0.15)
    assert found.spread == pytest.approx(spread, abs=0.05)


def test_videos_that_nobody_met_before_the_period_are_left_out(small_dataset, logits):
    """They are half of what is watched here, which would ask for a large spread."""
    events = small_dataset.events
    first = np.full(small_dataset.num_videos, small_dataset.log_end)
    np.minimum.at(first, events.video_row, events.segments.timestamp)
    start = int(np.median(first[1:]))
    met = _met_before(small_dataset, start)
    assert_array_equal(met[1:], first[1:] < start)
    assert not met[0]
    learnt, new = np.where(met, np.exp(logits), 0.0), ~met
    new[0] = False
    dataset = watched_as(small_dataset, 0.5 * learnt / learnt.sum() + 0.5 * new / new.sum())
    found = fitted_calibration(FixedLogits(logits), dataset, start, dataset.log_end, 1)
    assert found.temperature == pytest.approx(1.0, rel=0.2)
    assert found.spread < 0.05


def test_only_watches_of_the_period_are_asked_for_each_as_of_its_own_moment(small_dataset, logits):
    start, end = small_dataset.validation_start, small_dataset.test_start
    model = FixedLogits(logits)
    fitted_calibration(model, small_dataset, start, end, 1)
    watches, events = small_dataset.events.watches, small_dataset.events
    met = _met_before(small_dataset, start)[events.video_row[events.watch_places]]
    inside = (watches.timestamp >= start) & (watches.timestamp < end) & met
    assert sorted(model.moments) == sorted(watches.timestamp[inside].tolist())


def test_without_watches_nothing_is_changed(small_dataset, logits):
    assert fitted_calibration(FixedLogits(logits), small_dataset, 0, 0, 1) == AS_LEARNT


def test_a_large_catalogue_is_scanned_for_fewer_watches(small_dataset, logits, monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_LOGITS", 30 * small_dataset.num_videos)
    model = FixedLogits(logits)
    fitted_calibration(model, small_dataset, small_dataset.ranking_start, small_dataset.log_end, 1)
    assert len(model.moments) == 30
