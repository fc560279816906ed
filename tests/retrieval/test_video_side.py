import dataclasses

import numpy as np
import pytest
import torch

from watchnext.events.dataset import VideoTable
from watchnext.layers.embedding import EmbeddingTable, TableStorage, tables_of
from watchnext.retrieval.video_side import FreeAndTower, VideoTower, all_vectors

ALL = torch.arange(30)
CPU = torch.device("cpu")
ATTRIBUTES = ["channel_row", "tag_rows", "title_rows", "categorical", "continuous"]


@pytest.fixture
def side_of(make_network, retrieval_config):
    """Gives a function from settings that differ to a video side; they change `storage` and `table` too."""

    def make(videos, table=None, storage=None, **settings):
        config = dataclasses.replace(retrieval_config, videos=videos, **settings)
        side = make_network(config, table, **({"storage": storage} if storage else {})).videos
        if isinstance(side, FreeAndTower):
            side.watched[1:25] = True
        with torch.no_grad():
            for learnt in side.parameters():
                learnt.add_(0.1)  # so that nothing is zero by chance, the biases above all
        return side

    return make


def vectors(side, rows=ALL):
    with torch.no_grad():
        return side(rows)


@pytest.mark.parametrize(("videos", "kind"), [("free", EmbeddingTable), ("tower", VideoTower), ("both", FreeAndTower)])
def test_the_settings_say_where_a_vector_comes_from(side_of, videos, kind):
    side = side_of(videos, tower=(16, 12))
    assert type(side) is kind
    assert vectors(side).shape == (30, 12) and vectors(side).dtype == torch.float32


def test_a_free_vector_is_a_row_of_the_table(side_of):
    side = side_of("free")
    assert vectors(side).equal(side.weight)


def test_both_is_the_sum(side_of):
    side = side_of("both")
    watched = torch.arange(1, 25)
    torch.testing.assert_close(vectors(side, watched), side.free.weight[watched] + vectors(side.tower, watched))


def test_a_video_without_completed_watches_has_the_towers_vector_alone(side_of):
    side = side_of("both")
    unwatched = torch.arange(25, 30)
    assert side.free.weight[unwatched].any(dim=1).all()
    assert vectors(side, unwatched).equal(vectors(side.tower, unwatched))


@pytest.mark.parametrize("rate", [0.25, 0.75])
def test_free_vectors_are_left_out_at_random_while_training(side_of, rate):
    side = side_of("both", id_dropout=rate).train()
    rows = torch.full((4000,), 7)
    found = vectors(side, rows)
    alone, whole = vectors(side.tower, rows[:1]), vectors(side.tower, rows[:1]) + side.free.weight[7]
    left_out = torch.isclose(found, alone, atol=1e-5).all(dim=1)
    assert (left_out ^ torch.isclose(found, whole, atol=1e-5).all(dim=1)).all()
    assert abs(left_out.float().mean().item() - rate) < 0.04


def test_what_is_left_out_is_drawn_from_the_generator_and_never_when_serving(side_of):
    side = side_of("both", id_dropout=0.5).train()
    state = side.generator.get_state()
    first, second = vectors(side), vectors(side)
    side.generator.set_state(state)
    assert vectors(side).equal(first) and not first.equal(second)
    side.eval()
    assert vectors(side).equal(vectors(side))


def test_without_dropout_training_computes_what_serves(side_of):
    side = side_of("both", id_dropout=0.0)
    served = vectors(side)
    assert vectors(side.train()).equal(served)


# The tower over attributes


def upload_like(videos, row) -> VideoTable:
    """A table of its own with one new upload that has the attributes of a known video."""
    return VideoTable(**{name: np.stack([column[0], column[row]]) for name, column in vars(videos).items()})


@pytest.mark.parametrize("row", [1, 7, 29])
def test_a_new_upload_has_the_vector_of_a_known_video_with_its_attributes(side_of, videos, row):
    tower = side_of("tower")
    with torch.no_grad():
        new = tower.of(upload_like(videos, row), np.array([1]))
    torch.testing.assert_close(new, vectors(tower, torch.tensor([row])))


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_every_attribute_counts(side_of, videos, attribute):
    column = getattr(videos, attribute).copy()
    column[3] = 0.05 if attribute == "continuous" else (column[3] == 1) + 1
    tower = side_of("tower", video_tower=(64,))
    with torch.no_grad():
        changed = tower.of(dataclasses.replace(videos, **{attribute: column}), np.arange(30))
    differs = (changed - vectors(tower)).abs().amax(dim=1) > 1e-4
    assert differs.tolist() == [row == 3 for row in range(30)]


@pytest.mark.parametrize("place", [0, 1])
def test_every_category_counts(side_of, videos, place):
    column = videos.categorical.copy()
    column[:, place] = column[:, place] % 3 + 1
    with torch.no_grad():
        tower = side_of("tower", video_tower=(64,))
        changed = tower.of(dataclasses.replace(videos, categorical=column), np.arange(30))
    moved = column[:, place] != videos.categorical[:, place]
    assert moved.sum() > 10
    assert ((changed - vectors(tower)).abs().amax(dim=1) > 1e-4).tolist() == moved.tolist()


@pytest.mark.parametrize("attribute", ["tag_rows", "title_rows"])
def test_order_and_padding_of_tags_and_words_change_nothing(side_of, videos, attribute):
    column = np.pad(getattr(videos, attribute)[:, ::-1], ((0, 0), (1, 2)))
    tower = side_of("tower")
    with torch.no_grad():
        found = tower.of(dataclasses.replace(videos, **{attribute: column}), np.arange(30))
    torch.testing.assert_close(found, vectors(tower), rtol=1e-4, atol=1e-5)


def test_a_video_of_which_nothing_is_known_has_a_finite_vector(side_of, videos):
    nothing = {name: np.zeros_like(getattr(videos, name)) for name in ("channel_row", "tag_rows", "title_rows")}
    blank = dataclasses.replace(
        videos, **nothing, categorical=videos.categorical * 0, continuous=np.full((30, 2), np.nan)
    )
    tower = side_of("tower")
    with torch.no_grad():
        found = tower.of(blank, np.arange(30))
    assert found.isfinite().all() and (found == found[0]).all()
    torch.testing.assert_close(found[:1], vectors(tower, torch.tensor([0])))


@pytest.mark.parametrize("widths", [(), (16,), (16, 12)], ids=len)
def test_the_video_tower_has_any_depth_and_ends_linear(side_of, widths):
    side = side_of("tower", video_tower=widths)
    assert len(side.tower.layers) == len(widths)
    assert vectors(side).shape == (30, 8) and (vectors(side) < 0).any() and (vectors(side) > 0).any()


@pytest.mark.parametrize("videos", ["free", "tower", "both"])
def test_the_gradient_reaches_everything_that_learns(side_of, videos):
    side = side_of(videos, id_dropout=0.5).train()
    found = side(torch.arange(1, 30))
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert [name for name, part in side.named_parameters() if not part.grad.abs().max() > 0] == []
    assert all(table.uses for table in tables_of(side))


# Exported vectors


@pytest.mark.parametrize("videos", ["free", "tower", "both"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 7, 30, 31])
def test_vectors_in_blocks_are_those_of_one_call(side_of, monkeypatch, tmp_path, videos, kind, at_once):
    side = side_of(videos, storage=TableStorage(kind)).train()
    monkeypatch.setattr("watchnext.retrieval.video_side._ROWS_AT_ONCE", at_once)
    found = all_vectors(side, 30, CPU)
    mapped = all_vectors(side, 30, CPU, tmp_path / "vectors.npy")
    np.testing.assert_array_equal(mapped, found)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), found)
    assert not side.training
    assert found.dtype == np.float32 and found.shape == (30, 8)
    assert not found[0].any()
    np.testing.assert_allclose(found[1:], vectors(side)[1:].numpy(), rtol=1e-4, atol=1e-5)
