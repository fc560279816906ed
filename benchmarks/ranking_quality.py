"""The ranker judged on the bundled log, LightGBM beside it on the same inputs of the same impressions.

    python benchmarks/ranking_quality.py [--split val] [--seeds 3] [--set dropout=0.3 'tower=[512]'] [--run FOLDER]

What is judged is the pipeline with the bundled settings: expected watch seconds of each impression of the test period.
With `--split val` the log ends where the test period begins, and the validation period is what is judged: settings are
to be chosen there, `test` is for one run at the end. Retrieval and index are made once, in `--run` if it lacks them;
the ranker is trained `--seeds` times, and its figures are means over the seeds (`_sd`: standard deviations).

LightGBM learns from the impressions that teach the ranker, as of the same moments and by the same features, in
`PEERS/ranking` (`make bench-quality` makes it; without it only the ranker is judged). Each difference between the
ranker and the LightGBM that is best by that figure has a 95 % interval from resampled users. With `--referee FOLDER`
all is judged by the referee.py there too. Ends with one JSON line, which has the figures of `--beside` too.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import dataclasses
import json
import tempfile
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from torch import get_num_threads

from machine import print_result
from referee import Referee, json_of
from watchnext import pipeline
from watchnext.artifacts import open_artifact
from watchnext.bundle.bundle import Bundle
from watchnext.cli.demonstration import sample_log
from watchnext.config import Config, EvaluationConfig, RankingConfig, from_mapping, read_toml
from watchnext.evaluation.bootstrap import ratio_estimate
from watchnext.evaluation.watch_time import (
    PairSums,
    mean_absolute_error,
    sum_ratio,
    weighted_loss,
    xauc,
    xauc_within_users,
)
from watchnext.events.compiling import compile_dataset
from watchnext.events.dataset import Dataset
from watchnext.events.log import read_log
from watchnext.events.mapping import read_log_file
from watchnext.examples.impressions import Impressions, impressions_between
from watchnext.features.inputs import RankingInputs
from watchnext.features.spec import empty_state
from watchnext.pipeline.fit_ranking import compute_inputs
from watchnext.retrieval.saved import open_model
from watchnext.retrieval.saved_sources import build_sources
from watchnext.serving.recommender import Recommender
from watchnext.shapes import Array, Float, Int

_DAY = 86_400
_AGREEMENT = 0.005  # relative: the pairs of XAUC are drawn, and the repeats of a few rows have other watch times
_EVENTS = sample_log().parent / "events.parquet"
_OURS = "watchnext"
_LEAST_IS_BEST = {"weighted_loss_pct": 1, "xauc_user": -1, "squared_error": 1}
_EVALUATION = EvaluationConfig()

Figures = dict[str, float]


@dataclass(frozen=True)
class RankerRun(pipeline.Run):
    """A run of the bundled log with other settings of the ranker."""

    ranking: RankingConfig = field(default_factory=RankingConfig)

    @property
    def config(self) -> Config:
        """The settings of the TOML file and the ranker's own."""
        return dataclasses.replace(super().config, ranking=self.ranking)


def main() -> None:
    """Trains, predicts, judges, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--split", choices=("val", "test"), default="test")
    arguments.add_argument("--seeds", type=int, default=1, help="so many trainings of the ranker")
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of [ranking], as TOML")
    arguments.add_argument("--run", type=Path, help="a folder to make the run in, or to take dataset and index from")
    arguments.add_argument("--peers", type=Path, default=Path(".peers"))
    arguments.add_argument("--referee", type=Path, help="a folder with referee.py and splits.py")
    arguments.add_argument("--beside", type=Path, help="what quality.py kept: figures to print on the same line")
    chosen = arguments.parse_args()
    table = read_toml(sample_log())["ranking"] | tomllib.loads("\n".join(chosen.set))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        run = RankerRun(
            sample_log(), chosen.run or scratch / "run", ranking=from_mapping(RankingConfig, table, "ranking")
        )
        _prepare(run, chosen.split)
        began = time.monotonic()
        bundles = [_trained(run, run.ranking.seed + place) for place in range(chosen.seeds)]
        facts: dict[str, Any] = {"train_seconds": (time.monotonic() - began) / chosen.seeds}
        dataset = bundles[0].dataset
        truth = impressions_between(dataset.events, dataset.test_start, dataset.log_end, dataset.page)
        predictions = {_OURS: [_expected_watch_seconds(bundle, truth) for bundle in bundles]}
        python = chosen.peers / "ranking" / "bin" / "python"
        if python.exists():
            peers, told = _lightgbm(python, run, bundles[0], truth, scratch)
            predictions |= {name: [predicted] for name, predicted in peers.items()}
            facts |= told
        sums = {name: [_sums(truth, one) for one in several] for name, several in predictions.items()}
        figures = {
            name: [_figures(truth, *both) for both in zip(several, sums[name], strict=True)]
            for name, several in predictions.items()
        }
        if chosen.referee:
            referee = Referee.with_splits(chosen.referee, chosen.referee.parent / "data", scratch / "splits")
            row_numbers = _row_numbers(dataset, truth)
            for name, several in predictions.items():
                for figure, predicted in zip(figures[name], several, strict=True):
                    figure |= _refereed(referee, row_numbers, predicted, chosen.split, figure)
    result = _flat(figures) | _differences(sums)
    beside = json.loads(chosen.beside.read_text()) if chosen.beside else {}
    print_result(**beside | dict(data="kuairand", split=chosen.split, seeds=chosen.seeds, **result, **facts))


def _prepare(run: RankerRun, split: str) -> None:
    """Makes dataset, retrieval and index where the run lacks them."""
    mapping, config = read_log_file(Path(run.log_file))
    periods = config.split
    assert periods.validation_start and periods.test_start  # the bundled log says them
    if split == "val":
        known = f"timestamp < {periods.test_start}"
        sources = (
            dataclasses.replace(source, where=known) if _EVENTS in source.files else source
            for source in mapping.sources
        )
        mapping = dataclasses.replace(mapping, sources=tuple(sources))
        start = periods.validation_start
        periods = dataclasses.replace(periods, validation_start=start - _DAY, test_start=start)
    if not run.part("dataset").exists():
        with read_log(mapping, config.prepare.memory_gigabytes) as log:
            compile_dataset(log, run.part("dataset"), periods, config.prepare)
    if (test_start := Dataset.open(run.part("dataset")).test_start) != periods.test_start:
        raise SystemExit(
            f"{run.folder} judges what happened from {test_start} on, but --split {split} asks for "
            f"{periods.test_start}: name another --run."
        )
    for kind, step in (("retrieval", pipeline.train_retrieval), ("index", pipeline.build_index)):
        if not run.part(kind).exists():
            step(run)


def _trained(run: RankerRun, seed: int) -> Bundle:
    seeded = dataclasses.replace(run, ranking=dataclasses.replace(run.ranking, seed=seed))
    pipeline.train_ranking(seeded)
    pipeline.make_bundle(seeded)
    return Bundle.open(run.part("bundle"))


def _expected_watch_seconds(bundle: Bundle, truth: Impressions) -> Float[Array, "rows"]:
    """What the bundle expects of each impression, asked as anybody would ask it."""
    rows = {"users": truth.user_row, "videos": truth.video_row, "surfaces": truth.surface_row}
    users, videos, surfaces = (bundle.dataset.vocabularies[name].ids_of(column) for name, column in rows.items())
    parts = list(Recommender(bundle).score(users, videos, truth.timestamp, surfaces))
    return np.concatenate(parts).astype(np.float64)


def _lightgbm(
    python: Path, run: RankerRun, bundle: Bundle, truth: Impressions, scratch: Path
) -> tuple[dict[str, Float[Array, "rows"]], dict[str, Any]]:
    """Predictions of the peer, by name, and what it says of its own training."""
    dataset, config = bundle.dataset, run.config
    model = open_model(open_artifact(run.part("retrieval"), "retrieval"), dataset.videos, "early")
    early = build_sources(model, dataset, dataset.ranking_start, config.index)
    training, validation = (
        impressions_between(dataset.events, start, end).latest(config.ranking.max_impressions)
        for start, end in pairwise((dataset.ranking_start, dataset.validation_start, dataset.test_start))
    )
    past = training.followed_by(validation)
    learnt, asked = (
        compute_inputs(dataset, generator, rows, config.serving, empty_state(dataset, config.features), bundle.features)
        for generator, rows in ((early, past), (bundle.generator, truth))
    )
    np.savez(
        scratch / "inputs.npz",
        values=np.concatenate([_columns(learnt, np.floating), _columns(asked, np.floating)]),
        ids=np.concatenate([_columns(learnt, np.integer), _columns(asked, np.integer)]),
        watch_seconds=past.watch_seconds,
        validates=past.timestamp >= dataset.validation_start,
    )
    script = Path(__file__).parent / "peers" / "lightgbm_ranking.py"
    command = [python, script, scratch / "inputs.npz", scratch / "predictions.npz"]
    told = json_of([*command, "--threads", get_num_threads()])
    predictions = {f"lightgbm_{name}": column for name, column in np.load(scratch / "predictions.npz").items()}
    return predictions, {f"lightgbm_{name}": value for name, value in told.items()}


def _columns(inputs: RankingInputs, kind: type) -> Array:
    """All inputs of one kind, side by side."""
    arrays = [array for array in vars(inputs).values() if np.issubdtype(array.dtype, kind)]
    return np.concatenate([array.reshape(len(inputs), -1) for array in arrays], axis=1)


def _sums(truth: Impressions, predicted: Float[Array, "rows"]) -> dict[str, PairSums]:
    """Figures that are ratios of sums over users, whom the paired test resamples."""
    loss = weighted_loss(truth.page_of_user, truth.user_row, truth.watch_seconds, truth.completed, predicted)
    _, user = np.unique(truth.user_row, return_inverse=True)
    errors = np.bincount(user, np.square(truth.watch_seconds - predicted))
    return {
        "weighted_loss_pct": PairSums(100.0 * loss.counted, loss.total),
        "xauc_user": xauc_within_users(truth.user_row, truth.watch_seconds, predicted),
        "squared_error": PairSums(errors, np.bincount(user).astype(np.float64)),
    }


def _figures(truth: Impressions, predicted: Float[Array, "rows"], sums: dict[str, PairSums]) -> Figures:
    """The figures of one predictor, by the referee's names."""
    return {
        "weighted_loss_pct": sums["weighted_loss_pct"].ratio,
        "xauc": xauc(truth.watch_seconds, predicted, _EVALUATION.seed),
        "xauc_user": sums["xauc_user"].ratio,
        "rmse": float(np.sqrt(sums["squared_error"].ratio)),
        "sum_pred_over_sum_true": sum_ratio(truth.watch_seconds, predicted),
        "mae": mean_absolute_error(truth.watch_seconds, predicted),
    }


def _refereed(
    referee: Referee, row_numbers: Int[Array, "rows"], predicted: Float[Array, "rows"], split: str, ours: Figures
) -> Figures:
    """What an independent program says of the same predictions; it has to say the same."""
    said = referee.judge("kuairand-ranking", pa.table({"row_id": row_numbers, "predicted_seconds": predicted}), split)
    for key, value in ours.items():
        if abs(said[key] - value) > _AGREEMENT * abs(value):
            raise SystemExit(f"{key} is {value} by our functions, but {said[key]} by the referee.")
    return {f"referee_{key}": said[key] for key in ours}


def _row_numbers(dataset: Dataset, truth: Impressions) -> Int[Array, "rows"]:
    """Where each impression stands in the file of events, the first time if it is repeated there."""
    rows = duckdb.execute(
        "SELECT user_id, video_id, timestamp, max(watch_seconds) AS watch_seconds, min(file_row_number) AS row_id "
        "FROM read_parquet(?, file_row_number = true) WHERE timestamp >= ? AND timestamp < ? GROUP BY ALL",
        [str(_EVENTS), dataset.test_start, dataset.log_end],
    ).fetchnumpy()
    users = dataset.vocabularies["users"].rows_of(rows["user_id"].tolist())
    videos = dataset.vocabularies["videos"].rows_of(rows["video_id"].tolist())
    # Several videos may have row 0; those of one user, second and watch time are alike in all that is read or judged.
    theirs = np.stack([rows["watch_seconds"].astype(np.float64), videos, rows["timestamp"], users])
    ours = np.stack([truth.watch_seconds, truth.video_row, truth.timestamp, truth.user_row])
    their_order, our_order = np.lexsort(theirs), np.lexsort(ours)
    if not np.array_equal(theirs[:, their_order], ours[:, our_order]):
        raise SystemExit(f"the impressions of the dataset are not those of {_EVENTS}: prepare it again.")
    row_numbers = np.empty(len(truth), dtype=np.int64)
    row_numbers[our_order] = rows["row_id"][their_order]
    return row_numbers


def _flat(figures: Mapping[str, list[Figures]]) -> Figures:
    """Means and standard deviations over the seeds; ours without a name before them."""
    flat = {}
    for name, several in figures.items():
        prefix = "" if name == _OURS else f"{name}_"
        for key in several[0]:
            values = [one[key] for one in several]
            flat[f"{prefix}{key}"] = float(np.mean(values))
            if len(values) > 1:
                flat[f"{prefix}{key}_sd"] = float(np.std(values, ddof=1))
    return flat


def _differences(sums: dict[str, list[dict[str, PairSums]]]) -> dict[str, Any]:
    """Ours (the mean over the seeds) minus the peer that is best by each figure, with intervals over users."""
    peers = {name: several[0] for name, several in sums.items() if name != _OURS}
    found = {}
    for figure, sign in _LEAST_IS_BEST.items() if peers else ():
        ratios = {name: sign * theirs[figure].ratio for name, theirs in peers.items()}
        best = min(ratios, key=lambda name: ratios[name])
        counted = np.mean([ours[figure].counted for ours in sums[_OURS]], axis=0) - peers[best][figure].counted
        estimate = ratio_estimate(counted, peers[best][figure].total, _EVALUATION.bootstrap_draws, _EVALUATION.seed)
        found[f"{figure}_minus_best_peer"] = {"peer": best, **dataclasses.asdict(estimate)}
    return found


if __name__ == "__main__":
    main()
