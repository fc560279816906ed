import dataclasses

import numpy as np
import pytest
import torch

from watchnext.config import RetrievalConfig
from watchnext.errors import DataError
from watchnext.evaluation.metrics import recall
from watchnext.events.dataset import Dataset
from watchnext.examples.contexts import context_as_of, seen_before
from watchnext.examples.next_watch import targets_between
from watchnext.layers.embedding import tables_of
from watchnext.pipeline.fit_retrieval import fit_once, fit_retrieval
from watchnext.retrieval.candidates import without
from watchnext.retrieval.sampling import Mixture

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
    assert fitted.outcomes["final"].scores == [] and len(fitted.outcomes["early"].scores) == 1
    one, other = (network.trained().video_vectors for network in (fitted.network, fitted.early_network))
    assert not (one == other).all()


@pytest.mark.parametrize("way", [{}, {"history": "transformer"}, {"labels": "held_out"}], ids=str)
def test_the_early_network_ignores_what_the_ranker_learns_from(small_dataset, tmp_path, way):
    """Its scores teach the ranker: it must not have seen the labels."""
    events = small_dataset.events
    rows = events.video_row.copy()
    later = events.segments.timestamp >= small_dataset.ranking_start
    rows[later] = rows[later][::-1]
    changed = dataclasses.replace(small_dataset, events=dataclasses.replace(events, video_row=rows))
    config = dataclasses.replace(TINY, num_negatives=1000, **way)
    one, other = (
        fit_once(dataset, config, small_dataset.ranking_start, tmp_path / name, 1)[0]
        for name, dataset in (("as it was", small_dataset), ("changed", changed))
    )
    np.testing.assert_array_equal(one.trained().video_vectors, other.trained().video_vectors)


def test_free_vectors_count_where_the_network_saw_a_watch(small_dataset, tmp_path):
    events, before = small_dataset.events, small_dataset.ranking_start
    config = dataclasses.replace(TINY, videos="both")
    network, _ = fit_once(small_dataset, config, before, tmp_path, 1)
    early = events.watch_places[events.watches.timestamp < before]
    assert set(np.flatnonzero(network.videos.watched)) == set(events.video_row[early]) - {0}
    assert network.videos.watched.sum() < (small_dataset.videos.num_completed > 0).sum()


def test_few_negatives_are_sampled(small_dataset, tmp_path, monkeypatch):
    drawn = []
    sample = Mixture.sample
    monkeypatch.setattr(Mixture, "sample", lambda self, *given: drawn.append(1) or sample(self, *given))
    fit_once(small_dataset, dataclasses.replace(TINY, num_negatives=20), small_dataset.test_start, tmp_path, 1)
    assert drawn


def test_training_twice_gives_the_same_network(small_dataset, tmp_path):
    config = dataclasses.replace(TINY, videos="both", history="transformer", num_negatives=20)
    one, other = (
        fit_once(small_dataset, config, small_dataset.test_start, tmp_path / name, 1)[0].trained()
        for name in ("one", "other")
    )
    np.testing.assert_array_equal(one.video_vectors, other.video_vectors)


@pytest.fixture(scope="module")
def future(small_dataset):
    """The users of the time after the early training, their past, and what is new to them in it."""
    start = small_dataset.ranking_start
    users, targets = targets_between(small_dataset.events, start, small_dataset.log_end)
    moments = np.full(len(users), start)
    seen = seen_before(small_dataset, users, moments)
    new = [np.setdiff1d(*pair) for pair in zip(targets, seen, strict=True)]
    return context_as_of(small_dataset, users, moments, 50, 50), seen, new


def recall_of(ranking, future):
    """At ten, of a ranking of all videos for each user."""
    _, seen, new = future
    return float(np.nanmean(recall(without(ranking, seen, 10), new, 10)))


LEARNING = RetrievalConfig(
    tower=(32, 16), embedding_dim=16, video_tower=(32,), batch_size=128, max_epochs=8, patience=8, dropout=0.1,
    learning_rate=0.003,
)  # fmt: skip
WAYS = [
    {},
    {"history": "attention"},
    {"history": "transformer"},
    {"videos": "tower"},
    {"videos": "both"},
    {"table_type": "bfloat16"},
    {"mapped_tables": True},
    {"sampling": ("in_batch",)},
    {"sampling": ("unigram", "uniform"), "num_negatives": 40, "replacement": False},
    {"labels": "held_out", "horizon": 3},
    {"unwatched_weight": 0.1, "weights": "watch_seconds", "half_life_days": 10.0},
    {"mask_seen": True, "temperature": 0.5},
    {"history_bags": ("channel", "tags"), "recent_watches": (3,), "last_relu": False},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way_learns_what_will_be_watched(small_dataset, future, tmp_path, way):
    config = dataclasses.replace(LEARNING, **way)
    network, outcome = fit_once(small_dataset, config, small_dataset.ranking_start, tmp_path, 8)
    assert outcome.losses[-1] < 0.97 * outcome.losses[0]
    found = np.argsort(-network.trained().probabilities(future[0]), axis=1)
    random = np.random.default_rng(0)
    chance = np.array([random.permutation(np.arange(1, small_dataset.num_videos)) for _ in found])
    assert recall_of(found, future) > 1.5 * recall_of(chance, future)


def test_tables_are_kept_in_the_type_that_was_asked_for(small_dataset, tmp_path):
    config = dataclasses.replace(TINY, table_type="bfloat16")
    network, _ = fit_once(small_dataset, config, small_dataset.test_start, tmp_path, 1)
    kinds = {table.weight.dtype for table in (network.users.history.watched, network.users.tokens, network.videos)}
    assert kinds == {torch.bfloat16}


def test_mapped_tables_lie_in_files_and_learn_the_same(small_dataset, tmp_path):
    networks = {
        mapped: fit_once(
            small_dataset,
            dataclasses.replace(TINY, mapped_tables=mapped),
            small_dataset.test_start,
            tmp_path / str(mapped),
            1,
        )[0]
        for mapped in (True, False)
    }
    files = list((tmp_path / "True" / "tables").iterdir())
    assert len(files) == 4  # watched, shown, tokens and the videos' own
    assert not (tmp_path / "False" / "tables").exists()
    assert sum(file.stat().st_size for file in files) >= sum(
        table.weight.nbytes for table in tables_of(networks[True]) if len(table.weight) > 10
    )
    one, other = (networks[mapped].trained().video_vectors for mapped in (True, False))
    np.testing.assert_array_equal(one, other)


def test_a_second_run_does_not_read_the_tables_of_the_first(small_dataset, tmp_path):
    config = dataclasses.replace(TINY, mapped_tables=True)
    for seed in (1, 2):
        seeded = dataclasses.replace(config, seed=seed)
        network, _ = fit_once(small_dataset, seeded, small_dataset.test_start, tmp_path / "same", 1)
    alone, _ = fit_once(small_dataset, seeded, small_dataset.test_start, tmp_path / "alone", 1)
    np.testing.assert_array_equal(network.trained().video_vectors, alone.trained().video_vectors)
    assert len(list((tmp_path / "same" / "tables").iterdir())) == 4
