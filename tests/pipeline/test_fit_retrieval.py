import dataclasses

import pytest

from watchnext.config import RetrievalConfig
from watchnext.errors import DataError
from watchnext.events.dataset import Dataset
from watchnext.pipeline.fit_retrieval import fit_retrieval
from watchnext.retrieval.sampling import FrequencySampler

TINY = RetrievalConfig(tower=(8,), embedding_dim=8, batch_size=512, max_epochs=1)


def with_facts(dataset: Dataset, **facts) -> Dataset:
    artifact = dataclasses.replace(dataset.artifact, facts=dataset.facts | facts)
    return dataclasses.replace(dataset, artifact=artifact)


def test_nothing_to_learn_from_is_refused(small_dataset, tmp_path):
    early = with_facts(small_dataset, ranking_start=small_dataset.facts["log_start"])
    with pytest.raises(DataError, match="no completed watch happened before"):
        fit_retrieval(early, TINY, tmp_path)


def test_the_early_network_learns_from_less(small_dataset, tmp_path):
    fitted = fit_retrieval(small_dataset, TINY, tmp_path)
    assert set(fitted.outcomes) == {"early", "final"}
    assert not (fitted.network.video_vectors == fitted.early_network.video_vectors).all()


def test_the_early_network_ignores_what_the_ranker_learns_from(small_dataset, tmp_path):
    """Its scores teach the ranker: it must not have seen the labels."""
    events = small_dataset.events
    later = events.watches.timestamp >= small_dataset.ranking_start
    places = events.watch_places.copy()
    places[later] = places[later][::-1]
    changed = dataclasses.replace(small_dataset, events=dataclasses.replace(events, watch_places=places))
    config = dataclasses.replace(TINY, num_negatives=1000)
    early = [
        fit_retrieval(dataset, config, tmp_path / name).early_network
        for name, dataset in (("as it was", small_dataset), ("changed", changed))
    ]
    assert (early[0].video_vectors == early[1].video_vectors).all()


def test_few_negatives_are_sampled(small_dataset, tmp_path, monkeypatch):
    drawn = []
    sample = FrequencySampler.sample
    monkeypatch.setattr(FrequencySampler, "sample", lambda self, random: drawn.append(1) or sample(self, random))
    fit_retrieval(small_dataset, dataclasses.replace(TINY, num_negatives=20), tmp_path)
    assert drawn
