import numpy as np
import pytest
import torch

from watchnext.artifacts import open_artifact, writing
from watchnext.config import RetrievalConfig
from watchnext.examples.quantiles import Quantiles
from watchnext.retrieval.network import RetrievalNetwork, RetrievalSizes
from watchnext.retrieval.saved import open_network, save_network

CONFIG = RetrievalConfig(history_length=3, tower=(8, 4), embedding_dim=4)
SIZES = RetrievalSizes(
    num_videos=10,
    num_search_tokens=6,
    user_categories=(3, 9),
    num_user_values=1,
    has_impressions=True,
    training_days=2.0,
)


def network_of(seed: int) -> RetrievalNetwork:
    quantiles = Quantiles.fit(np.array([[1.0], [2.0], [9.0 + seed]]))
    return RetrievalNetwork(SIZES, CONFIG, quantiles, torch.Generator().manual_seed(seed)).eval()


@pytest.fixture
def saved(tmp_path):
    facts = {}
    with writing(tmp_path / "retrieval", "retrieval", settings=CONFIG, facts=facts) as folder:
        facts |= save_network(network_of(0), folder)
        save_network(network_of(1), folder / "early")
    return open_artifact(tmp_path / "retrieval", "retrieval")


@pytest.mark.parametrize(("which", "seed"), [("", 0), ("early", 1)])
def test_an_opened_network_gives_the_same_vectors(saved, make_context, which, seed):
    context = make_context(
        watched=[[1, 2], [9]], tokens=[[1], [5]], categorical=[[1, 8], [0, 2]], continuous=[[4.0], [1.5]]
    )
    opened, original = open_network(saved, which), network_of(seed)
    assert not opened.training
    np.testing.assert_array_equal(opened.vectors_of(context), original.vectors_of(context))
    np.testing.assert_array_equal(opened.video_vectors, original.video_vectors)


def test_the_two_networks_of_an_artifact_differ(saved):
    assert not np.allclose(open_network(saved).video_vectors, open_network(saved, "early").video_vectors)
