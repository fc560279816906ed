"""The ranker that serves, held to the network's own predictions."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from watchnext.config import RankingConfig
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.ranking import products
from watchnext.ranking.network import Predictions, RankingNetwork, RankingSizes
from watchnext.ranking.products import ByteLayer, chosen_precision, has_bfloat16, has_bytes
from watchnext.ranking.runtime import Ranker

FLOAT32, BFLOAT16, INT8 = 1e-5, 0.05, 0.1
"""The largest relative differences of one prediction; the last two are of a network as wide as the default."""

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply bfloat16")
needs_bytes = pytest.mark.skipif(not has_bytes(), reason="no fast products of bytes here")
EVERY_PRECISION = ["float32", "bfloat16", pytest.param("int8", marks=needs_bytes)]
OF_CANDIDATES = ("video_row", "channel_row", "video_ids", "tag_rows", "values", "duration_seconds")


def of_candidates(inputs: RankingInputs, places) -> RankingInputs:
    return dataclasses.replace(inputs, **{name: getattr(inputs, name)[:, places] for name in OF_CANDIDATES})


def changed(inputs: RankingInputs, **fields) -> RankingInputs:
    """The inputs with fields filled with one value each."""
    return dataclasses.replace(
        inputs, **{name: np.full_like(getattr(inputs, name), value) for name, value in fields.items()}
    )


def assert_close(found: Predictions, expected: Predictions, difference: float) -> None:
    for name, values in vars(expected).items():
        assert_allclose(vars(found)[name], values, rtol=difference, err_msg=name)


UNKNOWN_IDS = dict(video_row=0, channel_row=0, video_ids=0, tag_rows=0, query_ids=0, last_watched=0)
STRANGE = {
    "unknown values": dict(values=np.nan, query_values=np.nan, duration_seconds=np.nan),
    "huge values": dict(values=3e38, query_values=3e38),
    "hugely negative values": dict(values=-3e38, query_values=-3e38),
    "infinite values": dict(values=np.inf, query_values=-np.inf),
    "unknown ids": UNKNOWN_IDS,
    "nothing known": UNKNOWN_IDS | dict(values=np.nan, query_values=np.nan, duration_seconds=np.nan),
}


@pytest.fixture(scope="module")
def network(make_network) -> RankingNetwork:
    return make_network(click_power=0.5, like_power=1.0)


@pytest.fixture(scope="module")
def wide_network() -> RankingNetwork:
    """The default tower over forty values, its outputs as far from each other as a trained one's."""
    sizes = RankingSizes(
        num_videos=40, num_channels=10, num_tags=7, num_surfaces=3, user_categories=(4,), video_categories=(5, 6)
    )
    values = np.random.default_rng(1).lognormal(size=(500, 43)).astype(np.float32)
    quantiles = Quantiles.fit(values[:, :3]), Quantiles.fit(values[:, 3:])
    made = RankingNetwork(sizes, RankingConfig(click_power=0.5), *quantiles, torch.Generator().manual_seed(1))
    return made.eval()


@pytest.fixture(scope="module")
def wide_inputs(make_inputs):
    def make(batch: int, candidates: int) -> RankingInputs:
        random = np.random.default_rng(2)
        values = random.lognormal(size=(batch, candidates, 40)).astype(np.float32)
        values[random.random(values.shape) < 0.2] = np.nan
        query_values = random.lognormal(size=(batch, 3)).astype(np.float32)
        return dataclasses.replace(make_inputs(batch, candidates), values=values, query_values=query_values)

    return make


@pytest.mark.parametrize("batch, candidates", [(1, 1), (1, 2000), (3, 700), (1100, 1), (5, 4)])
def test_it_predicts_what_the_network_does(network, make_inputs, batch, candidates):
    inputs = make_inputs(batch, candidates)
    expected = network.predictions(inputs)
    assert_close(Ranker(network, "float32").predictions(inputs), expected, FLOAT32)
    assert len(np.unique(expected.score)) > 0.5 * min(batch * candidates, 300)


@pytest.mark.parametrize("kind", STRANGE)
def test_strange_inputs_give_what_the_network_gives(network, make_inputs, kind):
    inputs = changed(make_inputs(4, 6), **STRANGE[kind])
    assert_close(Ranker(network, "float32").predictions(inputs), network.predictions(inputs), FLOAT32)


@needs_bfloat16
@pytest.mark.parametrize("batch, candidates", [(1, 1), (1, 2000), (3, 400), (1100, 1)])
def test_bfloat16_predicts_nearly_what_the_network_does(wide_network, wide_inputs, batch, candidates):
    inputs = wide_inputs(batch, candidates)
    found, expected = Ranker(wide_network, "bfloat16").predictions(inputs), wide_network.predictions(inputs)
    assert_close(found, expected, BFLOAT16)
    difference = np.abs(found.expected_watch_seconds / expected.expected_watch_seconds - 1.0)
    assert difference.mean() < 0.005
    assert difference.max() > 1e-5  # else it was not bfloat16
    if batch * candidates > 1:
        assert np.log(expected.expected_watch_seconds).std() > 0.2


@needs_bfloat16
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_inputs_give_nearly_the_same_in_bfloat16(wide_network, wide_inputs, kind):
    inputs = changed(wide_inputs(3, 5), **STRANGE[kind])
    assert_close(Ranker(wide_network, "bfloat16").predictions(inputs), wide_network.predictions(inputs), BFLOAT16)


@pytest.mark.parametrize("precision", EVERY_PRECISION)
def test_no_candidates_and_no_users_have_no_predictions(network, make_inputs, precision):
    ranker, inputs = Ranker(network, precision), make_inputs(4, 6)
    assert ranker.predictions(of_candidates(inputs, [])).score.shape == (4, 0)
    assert ranker.predictions(inputs.part(slice(0, 0))).expected_watch_seconds.shape == (0, 6)


@pytest.mark.parametrize("precision", EVERY_PRECISION)
def test_who_else_is_asked_for_changes_nothing(wide_network, wide_inputs, precision):
    """Bit for bit: a list in a batch is the list alone, and a candidate scores alone as in a list."""
    ranker, inputs = Ranker(wide_network, precision), wide_inputs(5, 300)
    together = ranker.predictions(inputs).score
    assert_array_equal(ranker.predictions(inputs.part(slice(3, 4))).score, together[3:4])
    assert_array_equal(ranker.predictions(of_candidates(inputs, [17])).score, together[:, [17]])


@pytest.mark.parametrize("batch", [1, 3])
def test_products_of_few_different_heights_are_made(wide_network, wide_inputs, monkeypatch, batch):
    """For each height that oneDNN meets it keeps code: a server whose lists differ would grow by gigabytes."""
    heights, call = set(), products.FloatLayer.__call__

    def told(layer, rows, bias=None):
        heights.add(len(rows))
        return call(layer, rows, bias)

    monkeypatch.setattr(products.FloatLayer, "__call__", told)
    ranker, inputs = Ranker(wide_network, "float32"), wide_inputs(batch, 200)
    expected = wide_network.predictions(inputs)
    for count in range(65, 200, 3):
        found = ranker.predictions(of_candidates(inputs, slice(0, count)))
        part = Predictions(*(getattr(expected, name)[:, :count] for name in ("score", "expected_watch_seconds")))
        assert_close(found, part, FLOAT32)
    assert heights <= {batch, 128, 192, 256, batch * 128, batch * 192, batch * 256}


@pytest.mark.parametrize("changes", [dict(powers=False), dict(tower=()), dict(tower=(8,)), dict(head_weight=0.0)])
def test_every_shape_of_a_network_is_served(make_network, make_inputs, changes):
    network, inputs = make_network(**changes), make_inputs(3, 4)
    assert_close(Ranker(network, "float32").predictions(inputs), network.predictions(inputs), FLOAT32)


def test_a_log_without_categories_and_values_of_the_query_is_served(make_inputs):
    sizes = RankingSizes(40, 10, 7, 3, (), ())
    values = Quantiles.fit(np.ones((3, 0))), Quantiles.fit(np.arange(9.0).reshape(3, 3))
    network = RankingNetwork(sizes, RankingConfig(tower=(4,)), *values, torch.Generator().manual_seed(0))
    inputs = make_inputs(4, 6)
    bare = dataclasses.replace(
        inputs,
        query_ids=inputs.query_ids[:, :3],
        query_values=inputs.query_values[:, :0],
        video_ids=inputs.video_ids[:, :, :0],
    )
    assert_close(Ranker(network, "float32").predictions(bare), network.predictions(bare), FLOAT32)


def test_features_that_lie_column_by_column_and_small_ids_are_read_the_same(network, make_inputs):
    """As `values[:, :, places]` and the dataset's tables have them."""
    inputs = make_inputs(1, 50)
    other = dataclasses.replace(
        inputs, values=np.asfortranarray(inputs.values), last_watched=inputs.last_watched.astype(np.int32)
    )
    ranker = Ranker(network, "float32")
    assert_array_equal(ranker.predictions(other).score, ranker.predictions(inputs).score)


@pytest.mark.parametrize("precision", EVERY_PRECISION)
def test_without_onednn_it_is_float32_and_predicts_the_same(network, make_inputs, monkeypatch, precision):
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    ranker, inputs = Ranker(network, precision), make_inputs(3, 4)
    assert ranker.precision == "float32"
    assert_close(ranker.predictions(inputs), network.predictions(inputs), FLOAT32)


def test_a_processor_without_bfloat16_computes_in_float32(network, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    assert Ranker(network, "bfloat16").precision == "float32"


@pytest.mark.parametrize(
    ("asked", "able", "chosen"),
    [
        ("auto", (True, True), "bfloat16"),
        ("auto", (False, True), "int8"),
        ("auto", (False, False), "float32"),
        ("bfloat16", (False, True), "float32"),
        ("int8", (True, True), "int8"),
        ("int8", (True, False), "float32"),
        ("float32", (True, True), "float32"),
    ],
)
def test_the_precision_is_one_that_the_processor_has(monkeypatch, asked, able, chosen):
    for name, is_able in zip(("has_bfloat16", "has_bytes"), able, strict=True):
        monkeypatch.setattr(products, name, lambda is_able=is_able: is_able)
    assert chosen_precision(asked) == chosen


@pytest.mark.parametrize(
    "lack",
    [
        ("torch.backends.mkldnn.is_available", lambda: False),
        ("torch.cpu._is_avx2_supported", lambda: False),
        ("platform.machine", lambda: "aarch64"),
        ("torch.ops.onednn", None),
    ],
)
def test_without_one_of_its_needs_there_are_no_products_of_bytes(monkeypatch, lack):
    monkeypatch.setattr(*lack)
    assert not has_bytes()


@needs_bytes
@pytest.mark.parametrize("batch, candidates", [(1, 1), (1, 2000), (3, 400), (1100, 1)])
def test_int8_predicts_nearly_what_the_network_does(wide_network, wide_inputs, batch, candidates):
    inputs = wide_inputs(batch, candidates)
    found, expected = Ranker(wide_network, "int8").predictions(inputs), wide_network.predictions(inputs)
    assert_close(found, expected, INT8)
    difference = np.abs(found.expected_watch_seconds / expected.expected_watch_seconds - 1.0)
    assert difference.mean() < 0.015
    assert difference.max() > 1e-5  # else it was not int8


@needs_bytes
@pytest.mark.parametrize("kind", STRANGE)
def test_strange_inputs_give_nearly_the_same_in_int8(wide_network, wide_inputs, kind):
    inputs = changed(wide_inputs(3, 5), **STRANGE[kind])
    assert_close(Ranker(wide_network, "int8").predictions(inputs), wide_network.predictions(inputs), INT8)


@needs_bytes
@pytest.mark.parametrize("changes", [dict(powers=False), dict(tower=()), dict(tower=(8,)), dict(head_weight=0.0)])
def test_every_shape_of_a_network_is_served_in_int8(make_network, make_inputs, changes):
    network, inputs = make_network(**changes), make_inputs(3, 4)
    ranker = Ranker(network, "int8")
    assert ranker.precision == ("float32" if changes == dict(tower=()) else "int8")
    difference = np.abs(ranker.predictions(inputs).score / network.predictions(inputs).score - 1.0)
    assert difference.mean() < 0.05


@needs_bytes
def test_quantiles_are_steps_of_a_127th_to_the_nearest_and_embeddings_stay_as_they_are(wide_network, wide_inputs):
    inputs = wide_inputs(1, 500)
    (exact,) = Ranker(wide_network, "float32").candidate_rows(inputs)
    embedded, numbers = Ranker(wide_network, "int8").candidate_rows(inputs)
    width = sum(table.shape[1] for table in Ranker(wide_network, "int8")._tables)
    torch.testing.assert_close(embedded[:, :width], exact[:, :width], rtol=0, atol=0)
    values = exact[:, width : width + 120]
    assert numbers.dtype == torch.uint8 and numbers.max() == 127
    torch.testing.assert_close(numbers[:, :120].float(), (127 * values).round(), rtol=0, atol=1)
    assert ((numbers[:, :120].float() - 127 * values).abs() < 0.5001).all()


@needs_bytes
def test_a_layer_of_bytes_is_as_near_as_its_steps_say():
    """Each weight is off by half a step at most and each activation by half of one: an error bound worked by hand."""
    random = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(24, 40, generator=random), torch.randn(24, generator=random)
    rows = torch.rand(9, 40, generator=random) * torch.logspace(-3, 3, 9)[:, None]
    rows[4] = 0.0
    found = ByteLayer(weight, bias)(rows)
    expected = torch.relu(rows.double() @ weight.double().T + bias)
    row_step, weight_step = rows.amax(dim=1, keepdim=True) / 127, weight.abs().amax(dim=1) / 127
    borne = 0.5 * row_step * weight.abs().sum(dim=1) + 0.5 * (rows + row_step).sum(dim=1, keepdim=True) * weight_step
    assert ((found - expected).abs() <= borne + 1e-5).all()
    assert (found[4] == torch.relu(bias)).all()
    assert (found - expected).abs().max() > 0.0


def test_it_keeps_its_network_and_precision(network):
    ranker = Ranker(network, "float32")
    assert ranker.network is network and ranker.precision == "float32"


def test_a_network_that_was_learning_serves_without_dropout(make_network, make_inputs):
    network, inputs = make_network(dropout=0.9), make_inputs(3, 4)
    expected = network.predictions(inputs)
    network.train()
    assert_close(Ranker(network, "float32").predictions(inputs), expected, FLOAT32)


@pytest.mark.parametrize("precision", EVERY_PRECISION)
def test_what_memory_held_before_is_not_read(wide_network, wide_inputs, monkeypatch, precision):
    def dirty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.full(shape, np.nan if dtype.is_floating_point else 255, dtype=dtype)

    monkeypatch.setattr(torch, "empty", dirty)
    inputs = wide_inputs(3, 4)
    found = Ranker(wide_network, precision).predictions(inputs)
    assert_close(found, wide_network.predictions(inputs), INT8)


@needs_bfloat16
def test_rows_of_bfloat16_are_rounded_to_the_nearest(wide_network, wide_inputs):
    inputs = wide_inputs(1, 500)
    (exact,) = Ranker(wide_network, "float32").candidate_rows(inputs)
    (rows,) = Ranker(wide_network, "bfloat16").candidate_rows(inputs)
    assert rows.dtype == torch.bfloat16
    torch.testing.assert_close(rows, exact.bfloat16(), rtol=0, atol=0)
