import dataclasses
import importlib
import json
import shutil

import pytest

from watchnext import pipeline
from watchnext.config import RankingConfig
from watchnext.errors import DataError
from watchnext.evaluation.bootstrap import Estimate
from watchnext.evaluation.towers import TowerScore, towers_as_json, towers_from_json
from watchnext.evaluation.watch_time import weighted_loss

pytestmark = pytest.mark.usefixtures("unchecked_types")

comparing = importlib.import_module("watchnext.pipeline.towers")


@pytest.fixture
def run(small_run, tmp_path) -> pipeline.Run:
    """A copy of the small run, to add to."""
    shutil.copytree(small_run.run.folder, tmp_path / "run")
    return pipeline.Run(small_run.run.log_file, tmp_path / "run")


@pytest.fixture
def two_towers(monkeypatch) -> None:
    """None and a small one in the place of nine."""
    few = {"no hidden layer": {"tower": (), "max_epochs": 2}, comparing.DEEPEST: {"tower": (16,), "max_epochs": 2}}
    monkeypatch.setattr(comparing, "VARIANTS", few)


def test_the_variants_are_the_papers():
    assert list(comparing.PAPERS.values()) == [0.416, 0.369, 0.367, 0.358, 0.352, 0.347, 0.346, 0.348, 0.387]
    towers = [one["tower"] for one in comparing.VARIANTS.values()]
    deepest = (1024, 512, 256)
    assert towers == [(), (256,), (512,), (1024,), (512, 256), (1024, 512), deepest, deepest, deepest]
    assert list(comparing.VARIANTS)[6] == comparing.DEEPEST


def test_the_loss_is_the_papers_alone():
    changed = comparing.of_the_paper(RankingConfig(batch_size=7), 5, {"tower": (3,), "powers": False})
    assert (changed.objectives, changed.head_weight, changed.seed) == (("weighted_logistic",), 0.0, 5)
    assert (changed.tower, changed.powers, changed.batch_size) == ((3,), False, 7)


def test_scores_survive_a_round_trip():
    score = TowerScore("256", Estimate(0.3, 0.2, 0.4), Estimate(0.01, -0.02, 0.03), 0.369)
    assert towers_from_json(towers_as_json([score])) == [score]


def test_the_report_shows_what_was_compared(run, two_towers):
    found = pipeline.compare_towers(run, seeds=2)
    assert [one.name for one in found] == ["no hidden layer", comparing.DEEPEST]
    none, deepest = found
    assert deepest.above_the_deepest == Estimate(0.0, 0.0, 0.0)
    difference = none.weighted_loss.value - deepest.weighted_loss.value
    assert none.above_the_deepest.value == pytest.approx(difference, abs=1e-9)
    assert none.above_the_deepest.low <= difference <= none.above_the_deepest.high
    assert all(0.1 < one.weighted_loss.value < 0.5 for one in found), "better than chance"
    assert not run.checkpoints("towers").exists()

    report = pipeline.evaluate(run)
    assert report.towers == found
    page = (run.part("evaluation") / "report.html").read_text()
    assert "no hidden layer" in page and "Weighted loss of each tower" in page
    told = json.loads((run.part("evaluation") / "report.json").read_text())
    assert told["towers"][0]["papers"] == 0.416


def test_impressions_are_compared_with_those_of_their_page(run, two_towers, monkeypatch):
    asked = []

    def seen(page, user_row, *others):
        asked.append((len(set(user_row.tolist())), len(set(page.tolist())), len(page)))
        return weighted_loss(page, user_row, *others)

    monkeypatch.setattr(comparing, "weighted_loss", seen)
    pipeline.compare_towers(run, seeds=1)
    for users, pages, rows in asked:
        assert 1.5 * users < pages == rows / 4, "four videos a page, several pages a user"


def test_towers_of_another_dataset_are_not_shown(run, two_towers, monkeypatch):
    pipeline.compare_towers(run)
    manifest = run.part("towers") / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["parents"]["dataset"] = "0" * len(facts["parents"]["dataset"])
    bundle = pipeline.Bundle.open(run.part("bundle"))
    other = dataclasses.replace(pipeline.open_artifact(run.part("towers"), "towers"), parents=facts["parents"])
    monkeypatch.setattr(pipeline, "open_artifact", lambda *_: other)
    assert pipeline._towers_of(run, bundle) == []


def test_without_towers_the_report_has_none(small_run):
    assert small_run.report.towers == []


def test_a_log_without_a_test_period_is_refused(small_run, tmp_path):
    bundle = pipeline.Bundle.open(small_run.bundle)
    facts = bundle.dataset.facts | {"log_end": bundle.dataset.test_start}
    dataset = dataclasses.replace(bundle.dataset, artifact=dataclasses.replace(bundle.dataset.artifact, facts=facts))
    with pytest.raises(DataError, match="towers are compared on a test period"):
        comparing.compare_towers(dataset, bundle.generator, small_run.run.config, 1, tmp_path, "")
