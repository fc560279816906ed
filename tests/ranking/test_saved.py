import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from watchnext.artifacts import Artifact, open_artifact, writing
from watchnext.errors import ArtifactError
from watchnext.ranking.products import has_bfloat16, has_bytes
from watchnext.ranking.saved import open_ranker, save_network


@pytest.fixture
def network(make_network):
    return make_network(watch_unit_seconds=7.0, click_power=1.0, precision="float32")


@pytest.fixture
def save(network, make_inputs, tmp_path):
    """Writes the network, does something to the folder before it is sealed, and opens the artifact."""

    def write(damage=lambda folder: None, probe=None, network=network) -> Artifact:
        facts = {}
        with writing(tmp_path / "ranking", "ranking", settings=network.config, facts=facts) as folder:
            facts |= save_network(network, folder, make_inputs(100, 1) if probe is None else probe)
            damage(folder)
        return open_artifact(tmp_path / "ranking", "ranking")

    return write


def test_an_opened_ranker_gives_the_same_predictions(network, save, make_inputs):
    opened = open_ranker(save())
    assert not opened.network.training
    assert opened.network.config == network.config and opened.network.sizes == network.sizes
    inputs = make_inputs(5, 4, seed=1)
    np.testing.assert_array_equal(opened.network.predictions(inputs).score, network.predictions(inputs).score)
    np.testing.assert_allclose(opened.predictions(inputs).score, network.predictions(inputs).score, rtol=1e-5)


needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this processor does not multiply bfloat16")
needs_bytes = pytest.mark.skipif(not has_bytes(), reason="no fast products of bytes here")


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_the_setting_says_in_what_is_computed(make_network, save, monkeypatch, precision):
    monkeypatch.setattr("watchnext.ranking.products.has_bfloat16", lambda: True)
    assert open_ranker(save(network=make_network(precision=precision))).precision == precision


def test_the_probe_is_64_impressions_from_first_to_last(save, make_inputs):
    folder = save().path / "probe"
    kept, given = np.load(folder / "values.npy"), make_inputs(100, 1).values
    assert kept.shape == (64, 1, 3)
    np.testing.assert_array_equal(kept[[0, -1]], given[[0, -1]])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_impressions_are_all_kept(save, make_inputs, count):
    artifact = save(probe=make_inputs(100, 1).part(slice(0, count)))
    assert len(np.load(artifact.path / "probe" / "score.npy")) == count
    open_ranker(artifact)


def change_weights(folder: Path) -> None:
    weights = load_file(folder / "weights.safetensors")
    weights["outputs.bias"] += torch.tensor([0.001, 0.0, 0.0, 0.0])
    save_file(weights, folder / "weights.safetensors")


def change_probe(name: str, factor: float):
    def change(folder: Path) -> None:
        file = folder / "probe" / f"{name}.npy"
        np.save(file, np.load(file) * np.float32(factor))

    return change


@pytest.mark.parametrize(
    "damage",
    [
        change_weights,
        change_probe("score", 1.001),
        change_probe("expected_watch_seconds", 0.999),
        change_probe("values", -1.0),
        change_probe("score", np.nan),
    ],
)
def test_another_prediction_than_in_training_is_refused_though_checksums_match(save, damage):
    with pytest.raises(ArtifactError, match=r"does not predict here .* 64 impressions; in float32, 0\.01% .*run"):
        open_ranker(save(damage))


def test_the_refusal_says_what_came_and_what_was_expected(save, network, make_inputs):
    half = change_probe("expected_watch_seconds", 0.5)
    part = make_inputs(100, 1).part(slice(0, 1))
    seconds = float(network.predictions(part).expected_watch_seconds[0, 0])
    with pytest.raises(
        ArtifactError, match=f"a expected_watch_seconds of {seconds:.4g} came, {seconds / 2:.4g} was expected"
    ):
        open_ranker(save(half, probe=part))


@pytest.mark.parametrize(
    "precision", [pytest.param("bfloat16", marks=needs_bfloat16), pytest.param("int8", marks=needs_bytes)]
)
def test_what_is_rounded_may_differ_by_little_and_not_by_much(make_network, save, precision):
    network = make_network(precision=precision, tower=(256, 128))
    open_ranker(save(change_probe("score", 1.005), network=network))
    with pytest.raises(ArtifactError, match="does not predict here"):
        open_ranker(save(change_probe("score", 1.05), network=network))


def test_a_bundle_of_bfloat16_opens_where_there_is_none(make_network, save, monkeypatch):
    monkeypatch.setattr("watchnext.ranking.products.has_bfloat16", lambda: False)
    assert open_ranker(save(network=make_network(precision="bfloat16"))).precision == "float32"


def test_the_facts_are_plain(network, save):
    facts = save().facts
    assert json.loads(json.dumps(facts)) == facts and set(facts["sizes"]) == set(dataclasses.asdict(network.sizes))
