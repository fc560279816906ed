import copy
import dataclasses

import numpy as np
import pytest
import torch

from watchnext.artifacts import open_artifact, writing
from watchnext.examples.next_watch import RetrievalBatch
from watchnext.layers.embedding import RowwiseAdagrad, TableStorage, tables_of
from watchnext.retrieval.calibration import Calibration
from watchnext.retrieval.sampling import SampledVideos
from watchnext.retrieval.saved import open_model, open_network, open_video_tower, save_network, sizes_and_config
from watchnext.retrieval.video_side import VideoTower

WAYS = [
    {},
    {"history": "attention"},
    {"history": "transformer"},
    {"videos": "tower"},
    {"videos": "both"},
    {"history_bags": ("channel", "tags", "mood"), "recent_watches": (2,), "last_relu": False, "temperature": 0.5},
    {"table_type": "bfloat16", "videos": "both"},
]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BOTH = pytest.mark.parametrize(("which", "seed"), [("", 0), ("early", 1)])


@dataclasses.dataclass(frozen=True)
class Saved:
    artifact: object
    originals: dict


@pytest.fixture(params=WAYS, ids=str)
def saved(request, tmp_path, make_network, retrieval_config):
    config = dataclasses.replace(retrieval_config, **{"dropout": 0.0, "id_dropout": 0.0, **request.param})
    storage = TableStorage(TYPES[config.table_type])
    networks = {which: make_network(config, seed=seed, storage=storage) for which, seed in (("", 0), ("early", 1))}
    facts = {"calibration": {"temperature": 1.5, "spread": 0.25}}
    with writing(tmp_path / "retrieval", "retrieval", settings=config, facts=facts) as folder:
        for which, network in networks.items():
            facts |= save_network(network, folder / which)
    return Saved(open_artifact(tmp_path / "retrieval", "retrieval"), networks)


@pytest.fixture
def context(make_context):
    return make_context(
        watched=[[1, 2], [9]], tokens=[[1], [5]], categorical=[[1], [0]], continuous=[[4.0, 1.0], [1.5, np.nan]]
    )


WHICH = pytest.mark.parametrize("which", ["", "early"])


@WHICH
def test_an_opened_model_serves_the_same_vectors(saved, videos, context, which):
    opened, original = open_model(saved.artifact, videos, which), saved.originals[which].trained()
    assert not opened.user_tower.training
    np.testing.assert_array_equal(opened.vectors_of(context), original.vectors_of(context))
    np.testing.assert_array_equal(opened.video_vectors, original.video_vectors)
    np.testing.assert_array_equal(
        opened.probabilities(context),
        dataclasses.replace(original, calibration=Calibration(1.5, 0.25)).probabilities(context),
    )
    assert isinstance(opened.video_vectors, np.memmap)


@WHICH
def test_an_opened_network_exports_the_same_vectors(saved, videos, context, which):
    opened, original = open_network(saved.artifact, videos, which), saved.originals[which]
    assert not opened.training
    np.testing.assert_array_equal(opened.trained().vectors_of(context), original.trained().vectors_of(context))
    np.testing.assert_array_equal(opened.trained().video_vectors, original.trained().video_vectors)


def test_tables_keep_their_type(saved, videos):
    opened, original = open_network(saved.artifact, videos), saved.originals[""]
    kinds = [[table.weight.dtype for table in tables_of(network)] for network in (opened, original)]
    assert kinds[0] == kinds[1]


def test_the_two_networks_of_an_artifact_differ(saved, videos, context):
    one, other = open_model(saved.artifact, videos), open_model(saved.artifact, videos, "early")
    assert not np.allclose(one.video_vectors, other.video_vectors)
    assert not np.allclose(one.vectors_of(context), other.vectors_of(context))


def test_settings_and_sizes_come_back(saved):
    sizes, config = sizes_and_config(saved.artifact)
    assert (sizes, config) == (saved.originals[""].sizes, saved.originals[""].config)


def steps_of(network, context, count=3):
    """A few steps of training, and the losses before each."""
    network.train()
    batch = RetrievalBatch(context, torch.tensor([1.0, 2.0]), torch.tensor([[5], [6]]), torch.ones(2, 1))
    sampled = SampledVideos(torch.arange(1, 30), torch.zeros(29), torch.zeros(29))
    dense, rows = torch.optim.SGD(network.parameters(), lr=0.01), RowwiseAdagrad(tables_of(network), 0.05)
    losses = []
    for number in range(count):
        loss = network.loss(batch, sampled)
        dense.zero_grad()
        loss.backward()
        dense.step()
        rows.step(number)
        losses.append(loss.item())
    return losses


def test_an_opened_network_goes_on_training_as_the_one_that_was_saved(saved, videos, context):
    opened, original = open_network(saved.artifact, videos), copy.deepcopy(saved.originals[""])
    before = opened.trained().video_vectors.copy()
    losses = steps_of(opened, context)
    assert losses == steps_of(original, context)
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(opened.trained().video_vectors, original.trained().video_vectors)
    assert not np.array_equal(opened.trained().video_vectors, before)
    assert all(not table.weight[0].any() for table in tables_of(opened))


def test_an_opened_network_gives_a_vector_to_a_new_upload(saved, videos):
    upload = dataclasses.replace(videos, **{name: column[[0, 7]] for name, column in vars(videos).items()})
    networks = open_network(saved.artifact, videos), saved.originals[""]
    opened, original = ([part for part in one.modules() if isinstance(part, VideoTower)] for one in networks)
    assert len(opened) == len(original) == (networks[0].config.videos != "free")
    for ours, theirs in zip(opened, original, strict=True):
        with torch.no_grad():
            assert ours.of(upload, np.array([1])).equal(theirs.of(videos, np.array([7])))


def test_an_opened_video_tower_gives_the_vectors_of_the_networks_tower(saved, videos):
    network = saved.originals[""]
    tower = open_video_tower(saved.artifact, videos)
    if network.config.videos == "free":
        assert tower is None
        return
    original = network.videos if network.config.videos == "tower" else network.videos.tower
    rows = np.arange(len(videos.channel_row))
    assert not tower.training
    torch.testing.assert_close(tower.of(videos, rows), original.of(videos, rows), rtol=0, atol=0)
