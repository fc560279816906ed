"""Read this first: the whole journey, each step one short function, artifacts in, artifacts out.

A *run* is a folder that holds what the steps made of one log:

    LOG.toml ─ prepare ─▶ run/dataset ─ train_retrieval ─▶ run/retrieval ─ build_index ─▶ run/index
             ─ train_ranking ─▶ run/ranking ─ make_bundle ─▶ run/bundle ─ evaluate ─▶ run/evaluation

Every artifact is whole or absent, knows what it was made from, and is made again from scratch by its step.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from watchnext.artifacts import Artifact, open_artifact, writing
from watchnext.bundle.bundle import Bundle, write_bundle
from watchnext.config import Config
from watchnext.errors import ConfigurationError
from watchnext.evaluation.report import Report, write_report
from watchnext.evaluation.towers import TowerScore, towers_as_json, towers_from_json
from watchnext.events.compiling import compile_dataset
from watchnext.events.dataset import Dataset
from watchnext.events.log import read_log
from watchnext.events.mapping import read_log_file
from watchnext.events.summary import LogSummary, summarise
from watchnext.pipeline import towers
from watchnext.pipeline.feature_table import FeatureRow, feature_table
from watchnext.pipeline.fit_ranking import fit_ranking
from watchnext.pipeline.fit_retrieval import WarmStart, fit_retrieval
from watchnext.pipeline.judge import judge, training_curves
from watchnext.ranking.saved import save_network as save_ranking_network
from watchnext.retrieval.saved import open_model, save_network
from watchnext.retrieval.saved_sources import build_sources, save_sources


@dataclass(frozen=True)
class Run:
    """The log's TOML file and the folder that receives what is made of it.

    `warm_start` is an earlier run's folder, or its bundle, from whose networks candidate generation goes on.
    """

    log_file: str | Path
    folder: str | Path
    warm_start: str | Path | None = None

    @property
    def config(self) -> Config:
        """The settings of the TOML file."""
        return read_log_file(Path(self.log_file))[1]

    def part(self, kind: str) -> Path:
        """Where an artifact lies."""
        return Path(self.folder) / kind

    def checkpoints(self, kind: str) -> Path:
        """Where a training that was interrupted goes on."""
        return Path(self.folder) / f".{kind}.checkpoints"

    def forget_checkpoints(self, kind: str) -> None:
        """Removes them: the training has ended and its artifact stands."""
        shutil.rmtree(self.checkpoints(kind), ignore_errors=True)


def check(log_file: str | Path, rejects: str | Path) -> LogSummary:
    """Reads and checks a log without making anything; rejected rows go to the Parquet file `rejects`.

    Raises:
        ConfigurationError, DataError: the log cannot be read; too many rejected rows are told by the summary.
    """
    mapping, config = read_log_file(Path(log_file))
    with read_log(mapping, config.prepare.memory_gigabytes) as log:
        if log.rows("rejects"):
            log.write_rejects(Path(rejects))
        return summarise(log)


def prepare(run: Run) -> None:
    """Makes run/dataset; rejected rows go to run/rejects.parquet.

    Raises:
        ConfigurationError, DataError: the log cannot be read, has too many bad rows, or is too short.
    """
    mapping, config = read_log_file(Path(run.log_file))
    with read_log(mapping, config.prepare.memory_gigabytes) as log:
        if log.rows("rejects"):
            log.write_rejects(run.part("rejects.parquet"))
        log.refuse_too_many_rejects()
        compile_dataset(log, run.part("dataset"), config.split, config.prepare)


def train_retrieval(run: Run) -> None:
    """Makes run/retrieval: the network that serves, and the earlier one whose scores teach the ranker."""
    dataset, config = Dataset.open(run.part("dataset")), run.config.retrieval
    warm = None if run.warm_start is None else WarmStart.open(Path(run.warm_start))
    fitted = fit_retrieval(dataset, config, run.checkpoints("retrieval"), warm)
    facts: dict[str, Any] = {
        "training": {name: asdict(outcome) for name, outcome in fitted.outcomes.items()},
        "calibration": asdict(fitted.calibration),
    }
    with writing(run.part("retrieval"), "retrieval", (dataset.artifact,), config, facts) as folder:
        facts |= save_network(fitted.network, folder)
        save_network(fitted.early_network, folder / "early")
    run.forget_checkpoints("retrieval")


def build_index(run: Run, target_recall: float | None = None, k: int | None = None) -> None:
    """Makes run/index: the video index and the other sources of candidates.

    `target_recall` and `k` stand for the settings target_recall and tuned_k, if given.
    """
    dataset, config = Dataset.open(run.part("dataset")), run.config.index
    config = replace(config, target_recall=target_recall or config.target_recall, tuned_k=k or config.tuned_k)
    retrieval = open_artifact(run.part("retrieval"), "retrieval")
    retrieval.require_parent(dataset.artifact)
    generator = build_sources(open_model(retrieval, dataset.videos), dataset, dataset.test_start, config)
    with writing(run.part("index"), "index", (dataset.artifact, retrieval), config) as folder:
        save_sources(generator, folder)


def features(run: Run) -> list[FeatureRow]:
    """Gives the inputs that the ranker has of run/dataset.

    Raises:
        ConfigurationError: a feature that is to be left out is not there.
    """
    return feature_table(Dataset.open(run.part("dataset")), run.config.features, run.config.ranking.powers)


def train_ranking(run: Run) -> None:
    """Makes run/ranking, from impressions and from what the early retrieval network says of them."""
    dataset, config = Dataset.open(run.part("dataset")), run.config
    retrieval = open_artifact(run.part("retrieval"), "retrieval")
    retrieval.require_parent(dataset.artifact)
    early = build_sources(open_model(retrieval, dataset.videos, "early"), dataset, dataset.ranking_start, config.index)
    fitted = fit_ranking(
        dataset,
        early,
        config.ranking,
        config.features,
        config.serving,
        run.checkpoints("ranking"),
        _inputs_made_from(dataset, retrieval, config),
    )
    facts: dict[str, Any] = {
        "training": {name: asdict(outcome) for name, outcome in fitted.outcomes.items()},
        "features": asdict(config.features),
        "serving": config.serving.of_training,
    }
    with writing(run.part("ranking"), "ranking", (dataset.artifact, retrieval), config.ranking, facts) as folder:
        facts |= save_ranking_network(fitted.network, folder, fitted.probe)
        fitted.state.save(folder / "state")
    run.forget_checkpoints("ranking")


def compare_towers(run: Run, seeds: int = 1) -> list[TowerScore]:
    """Makes run/towers: the paper's table 1 on this log, which the report of `evaluate` then shows too (§4.3)."""
    dataset, config = Dataset.open(run.part("dataset")), run.config
    retrieval = open_artifact(run.part("retrieval"), "retrieval")
    retrieval.require_parent(dataset.artifact)
    early = build_sources(open_model(retrieval, dataset.videos, "early"), dataset, dataset.ranking_start, config.index)
    made_from = _inputs_made_from(dataset, retrieval, config)
    found = towers.compare_towers(dataset, early, config, seeds, run.checkpoints("towers"), made_from)
    with writing(run.part("towers"), "towers", (dataset.artifact, retrieval), config.ranking) as folder:
        (folder / "towers.json").write_text(towers_as_json(found), encoding="utf-8")
    run.forget_checkpoints("towers")
    return found


def make_bundle(run: Run) -> None:
    """Makes run/bundle, the folder that serves.

    Raises:
        ArtifactError: a part is missing, damaged, or was not made from its neighbours.
        ConfigurationError: what [serving] says of candidates is not what the ranker was trained for.
    """
    serving = run.config.serving
    wanted, told = serving.of_training, open_artifact(run.part("ranking"), "ranking").facts["serving"]
    trained_for = {name: told[name] for name in wanted}
    if trained_for != wanted:
        raise ConfigurationError(
            f"[serving] says {wanted}, but the ranker was trained for {trained_for}: which sources nominate a "
            "video is one of its features. Train ranking again, or put the settings back."
        )
    write_bundle(run.part("bundle"), Path(run.folder), serving)


def evaluate(run: Run) -> Report:
    """Judges run/bundle on the test period; writes run/evaluation with report.json and report.html."""
    opened, config = Bundle.open(run.part("bundle")), run.config
    curves = training_curves({kind: opened.facts(kind) for kind in ("retrieval", "ranking")})
    report = replace(judge(opened, config.evaluation, asdict(config), curves), towers=_towers_of(run, opened))
    with writing(run.part("evaluation"), "evaluation", (opened.artifact,), config.evaluation) as folder:
        write_report(report, folder)
    return report


def _inputs_made_from(dataset: Dataset, retrieval: Artifact, config: Config) -> str:
    """Names all that the ranker's inputs depend on."""
    settings = f"{config.index} {config.features} {config.serving.of_training}"
    return f"{dataset.artifact.fingerprint} {retrieval.fingerprint} {settings}"


def _towers_of(run: Run, bundle: Bundle) -> list[TowerScore]:
    """What `compare_towers` found on the same dataset, if it was asked."""
    if not run.part("towers").exists():
        return []
    made = open_artifact(run.part("towers"), "towers")
    if made.parents["dataset"] != bundle.dataset.artifact.fingerprint:
        return []
    return towers_from_json((made.path / "towers.json").read_text(encoding="utf-8"))


STEPS: dict[str, Callable[[Run], object]] = {
    "prepare": prepare,
    "train-retrieval": train_retrieval,
    "index": build_index,
    "train-ranking": train_ranking,
    "bundle": make_bundle,
    "evaluate": evaluate,
}
"""The steps in order, by the name of their command."""


def run_all(run: Run, announce: Callable[[str], object] = str) -> Report:
    """Runs every step, from the log to the report; `announce` is told the name of each before it begins."""
    made: object = None
    for name, step in STEPS.items():
        announce(name)
        made = step(run)
    assert isinstance(made, Report)  # the last step is `evaluate`
    return made
