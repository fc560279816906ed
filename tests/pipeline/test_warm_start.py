"""Today's log is yesterday's that has gone on: the small world, its periods a day later."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from watchnext import pipeline
from watchnext.artifacts import open_artifact
from watchnext.errors import ArtifactError, ConfigurationError, DataError
from watchnext.events.dataset import Dataset
from watchnext.pipeline.fit_retrieval import WarmStart, fit_once, fit_retrieval
from watchnext.retrieval.saved import open_model
from watchnext.training.checkpoint import Checkpoint

pytestmark = pytest.mark.usefixtures("unchecked_types")

DAY = 86_400
PARTS = ("dataset", "retrieval")


@pytest.fixture(scope="module")
def still(small_run):
    """The small run's settings, but nothing is learnt: what comes out is what went in."""
    settings = small_run.run.config.retrieval
    return dataclasses.replace(settings, learning_rate=0.0, embedding_learning_rate=0.0, max_epochs=1)


@pytest.fixture(scope="module")
def today(small_run, tmp_path_factory):
    """A run of which only the dataset is made."""
    old = Dataset.open(small_run.run.part("dataset"))
    periods = {name: getattr(old, name) + DAY for name in ("ranking_start", "validation_start", "test_start")}
    lines = "\n".join(f"{name} = {moment}" for name, moment in periods.items())
    text = re.sub(r"(?m)^(embedding_)?learning_rate.*\n", "", small_run.run.log_file.read_text())
    frozen = "[retrieval]\nlearning_rate = 0.0\nembedding_learning_rate = 0.0\n"
    toml = small_run.log_folder / "today.toml"
    toml.write_text(text.replace("[retrieval]\n", f"[split]\n{lines}\n\n{frozen}"))
    run = pipeline.Run(toml, tmp_path_factory.mktemp("today"))
    pipeline.prepare(run)
    return run


@pytest.fixture(scope="module")
def dataset(today):
    return Dataset.open(today.part("dataset"))


@pytest.fixture(scope="module")
def warm(small_run):
    return WarmStart.open(small_run.run.folder)


@pytest.fixture
def of_yesterday(small_run, tmp_path):
    """Gives `of_yesterday(*parts)`: a folder with those parts of the small run."""

    def copy(*parts):
        for part in parts:
            shutil.copytree(small_run.run.part(part), tmp_path / "yesterday" / part)
        return tmp_path / "yesterday"

    return copy


def by_id(dataset, vectors):
    """The vectors of videos by id; no other row than that of an id is looked at."""
    ids = dataset.vocabularies["videos"].ids_of(np.arange(1, dataset.num_videos))
    return {one: vectors[row].tolist() for row, one in enumerate(ids, start=1)}


def vectors_of_yesterday(small_run, which):
    old = Dataset.open(small_run.run.part("dataset"))
    model = open_model(open_artifact(small_run.run.part("retrieval"), "retrieval"), old.videos, which)
    return by_id(old, model.video_vectors)


def assert_is_yesterdays(small_run, dataset, vectors, which):
    found, expected = by_id(dataset, vectors), vectors_of_yesterday(small_run, which)
    known = found.keys() & expected.keys()
    assert len(known) > 90
    assert {one: found[one] for one in known} == {one: expected[one] for one in known}


def test_the_two_days_number_their_videos_differently(small_run, dataset):
    """Guards the tests below: copying by row would be seen."""
    old = Dataset.open(small_run.run.part("dataset"))
    ids = [one.vocabularies["videos"].ids_of(np.arange(1, 50)) for one in (old, dataset)]
    assert sum(one != other for one, other in zip(*ids, strict=True)) > 10


@pytest.mark.parametrize("where", ["run", "bundle"])
def test_each_network_goes_on_from_its_predecessor(small_run, dataset, still, tmp_path, where):
    warm = WarmStart.open(small_run.run.folder if where == "run" else small_run.bundle)
    fitted = fit_retrieval(dataset, still, tmp_path, warm)
    assert_is_yesterdays(small_run, dataset, fitted.network.trained().video_vectors, "")
    assert_is_yesterdays(small_run, dataset, fitted.early_network.trained().video_vectors, "early")
    assert vectors_of_yesterday(small_run, "") != vectors_of_yesterday(small_run, "early")


def test_a_run_may_name_its_predecessor(small_run, today, dataset, tmp_path):
    shutil.copytree(today.part("dataset"), tmp_path / "run" / "dataset")
    run = pipeline.Run(today.log_file, tmp_path / "run", small_run.run.folder)
    pipeline.train_retrieval(run)
    artifact = open_artifact(run.part("retrieval"), "retrieval")
    for which in ("", "early"):
        assert_is_yesterdays(small_run, dataset, open_model(artifact, dataset.videos, which).video_vectors, which)
    cold = pipeline.Run(today.log_file, tmp_path / "run")
    pipeline.train_retrieval(cold)
    vectors = open_model(open_artifact(cold.part("retrieval"), "retrieval"), dataset.videos).video_vectors
    assert by_id(dataset, vectors) != vectors_of_yesterday(small_run, "")


def test_the_first_pass_is_far_ahead_of_a_cold_start(small_run, dataset, of_yesterday, tmp_path):
    toml = small_run.log_folder / "eager.toml"
    eager = "batch_size = 64\nlearning_rate = 0.003\nmax_epochs = 8\npatience = 8"
    toml.write_text(small_run.run.log_file.read_text().replace("batch_size = 256\nmax_epochs = 4", eager))
    yesterday = pipeline.Run(toml, of_yesterday("dataset"))
    pipeline.train_retrieval(yesterday)
    warm = WarmStart.open(yesterday.folder)
    losses = {
        name: fit_once(dataset, yesterday.config.retrieval, dataset.test_start, tmp_path / name, 1, start)[1].losses[0]
        for name, start in (("cold", None), ("warm", warm))
    }
    assert losses["warm"] < losses["cold"] - 0.2


@pytest.fixture
def interrupted(monkeypatch):
    """Gives `interrupted(fit)`: calls it, and stops it once it has saved a checkpoint."""

    def interrupt(fit):
        save = Checkpoint.save

        def save_once(self, *state):
            save(self, *state)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Checkpoint, "save", save_once)
            with pytest.raises(KeyboardInterrupt):
                fit()

    return interrupt


def test_an_interrupted_warm_start_goes_on_to_the_same_weights(small_run, dataset, warm, tmp_path, interrupted, capsys):
    config = small_run.run.config.retrieval

    def fit(folder):
        return fit_once(dataset, config, dataset.test_start, tmp_path / folder, 2, warm)

    whole, outcome = fit("whole")
    interrupted(lambda: fit("parts"))
    assert "going on" not in capsys.readouterr().err
    resumed, again = fit("parts")
    assert "retrieval: going on after step 0 of pass 2" in capsys.readouterr().err
    assert again.losses == outcome.losses and len(outcome.losses) == 2
    np.testing.assert_array_equal(resumed.trained().video_vectors, whole.trained().video_vectors)


@pytest.mark.parametrize(("first", "second"), [("warm", "cold"), ("cold", "warm"), ("warm", "other")])
def test_another_start_does_not_go_on_from_the_checkpoint(
    dataset, warm, still, tmp_path, interrupted, capsys, first, second
):
    other = dataclasses.replace(warm.retrieval, fingerprint="another")
    starts = {"cold": None, "warm": warm, "other": dataclasses.replace(warm, retrieval=other)}

    def fit(start):
        fit_once(dataset, still, dataset.test_start, tmp_path, 1, starts[start])
        return capsys.readouterr().err

    interrupted(lambda: fit(first))
    assert "going on" not in fit(second)
    assert "going on" in fit(second)


@pytest.mark.parametrize("name", ["ranking_start", "test_start"])
def test_who_knows_what_is_to_be_judged_is_refused(small_run, dataset, still, tmp_path, warm, name):
    knew = getattr(warm.dataset, name)
    facts = dataset.facts | {name: knew - 1}
    earlier = dataclasses.replace(dataset, artifact=dataclasses.replace(dataset.artifact, facts=facts))
    with pytest.raises(DataError, match=rf"events up to {knew}, but this run's {name} is {knew - 1}: it would know"):
        fit_retrieval(earlier, still, tmp_path, warm)
    assert list(tmp_path.iterdir()) == []


def test_the_same_day_may_be_trained_again(small_run, still, tmp_path, warm):
    fitted = fit_retrieval(warm.dataset, still, tmp_path, warm)
    assert_is_yesterdays(small_run, warm.dataset, fitted.network.trained().video_vectors, "")


def test_other_layers_are_refused(dataset, still, tmp_path, warm):
    with pytest.raises(ConfigurationError, match=r"tower is \(8,\) and was \(32, 16\)"):
        fit_retrieval(dataset, dataclasses.replace(still, tower=(8,)), tmp_path, warm)


@pytest.mark.parametrize("missing", PARTS)
def test_a_missing_part_is_named(of_yesterday, missing):
    folder = of_yesterday(*(part for part in PARTS if part != missing))
    with pytest.raises(ArtifactError, match=f"yesterday/{missing} holds no {missing}"):
        WarmStart.open(folder)


def test_parts_of_different_days_are_refused(of_yesterday, today):
    folder = of_yesterday("retrieval")
    shutil.copytree(today.part("dataset"), folder / "dataset")
    with pytest.raises(ArtifactError, match=r"was made from the dataset .* a mixed set would answer wrongly"):
        WarmStart.open(folder)


def test_a_run_that_cannot_start_warm_makes_nothing(today, tmp_path):
    shutil.copytree(today.part("dataset"), tmp_path / "run" / "dataset")
    run = pipeline.Run(today.log_file, tmp_path / "run", tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match="nowhere/dataset holds no dataset"):
        pipeline.train_retrieval(run)
    assert [part.name for part in run.folder.iterdir()] == ["dataset"]
