"""How well the ranker knows the true expected watch seconds of a made-up world: its calibration, its order, its lists.

    python benchmarks/watch_time_truth.py [--impressions 2_000_000] [--users 20_000] [--videos 10_000] [--seed 2]
                                          [--world WORLD [--run RUN]] [--visitors 300]

Makes a world and learns from its log, or takes a `--world` that `watchnext simulate` wrote, and the `--run` learnt from
it. The impressions of the test period are put in tenths by what the ranker predicts: there the prediction should be the
mean of the truth. In tenths by the truth it cannot be, as no prediction knows all of it; they show that what was
watched is the truth but for luck. Then visitors get ten candidates, as of the end of the log: regret is the share that
these earn less, by the truth, than the ten best candidates. Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from rich.console import Console
from rich.table import Table

from machine import print_result
from watchnext import pipeline
from watchnext.evaluation.bootstrap import Estimate, ratio_estimate
from watchnext.evaluation.watch_time import sum_ratio, xauc_within_users
from watchnext.events.readers import quoted
from watchnext.retrieval.candidates import Wish
from watchnext.serving.recommender import Recommender
from watchnext.serving.stages import excluded_videos, request_context
from watchnext.shapes import Array, Float, Int
from watchnext.simulation.log import open_world, write_log
from watchnext.simulation.settings import WorldConfig
from watchnext.simulation.world import World

K, TENTHS, DRAWS, PRIOR_IMPRESSIONS, TABLE_WIDTH = 10, 10, 1000, 10, 120
SYSTEM, RETRIEVAL, VIDEO_MEAN, RANDOM = "watchnext", "retrieval order", "per-video mean", "random order"


@dataclass(frozen=True)
class Judged:
    """Impressions of the test period: what was predicted, the truth and its variance by luck, and what luck made."""

    user: Int[Array, "rows"]
    predicted: Float[Array, "rows"]
    truth: Float[Array, "rows"]
    variance: Float[Array, "rows"]
    watched: Float[Array, "rows"]

    def tenths_by(self, column: Float[Array, "rows"]) -> list["Judged"]:
        """Gives equally many impressions each, those with the smallest values first."""
        parts = np.array_split(np.argsort(column, kind="stable"), TENTHS)
        return [Judged(**{name: values[part] for name, values in vars(self).items()}) for part in parts]

    def ratio(self) -> Estimate:
        """Gives Σpredicted / Σtruth, with an interval over users."""
        _, user = np.unique(self.user, return_inverse=True)
        return ratio_estimate(np.bincount(user, self.predicted), np.bincount(user, self.truth), DRAWS, seed=1)

    @property
    def luck_seconds(self) -> float:
        """The standard error of what was watched on average, as the truth has it."""
        return float(np.sqrt(self.variance.sum())) / len(self.user)


def main() -> None:
    """Judges a run, and prints both tables, the regrets and the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--impressions", type=int, default=2_000_000)
    arguments.add_argument("--users", type=int, default=20_000)
    arguments.add_argument("--videos", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=2)
    arguments.add_argument("--world", type=Path, help="folder of a simulated log; made if absent")
    arguments.add_argument("--run", type=Path, help="folder of a run learnt from it; made if absent")
    arguments.add_argument("--folder", type=Path, default=Path("runs/truth"), help="where what is absent is made")
    arguments.add_argument("--visitors", type=int, default=300)
    options = arguments.parse_args()
    began = time.monotonic()
    log = options.world or options.folder / "log"
    if options.world is None:
        sizes = WorldConfig(videos=options.videos, users=options.users, events=options.impressions, seed=options.seed)
        write_log(sizes, log, 1)
    run = pipeline.Run(log / "log.toml", options.run or options.folder / "run")
    for name, step in pipeline.STEPS.items():
        if options.run is None and name != "evaluate":
            step(run)
    world, recommender = open_world(log), Recommender.open(run.part("bundle"))
    judged = judged_impressions(world, log, recommender)
    regrets = regrets_of(world, log, recommender, np.unique(judged.user), options.visitors)
    tenths, console = judged.tenths_by(judged.predicted), Console(width=TABLE_WIDTH)
    console.print(table_of("Tenths of the prediction: predicted / truth should be 1", [*tenths, judged]))
    by_truth = [*judged.tenths_by(judged.truth), judged]
    console.print(table_of("Tenths of the truth: luck should be within ±2; the ratio cannot be 1", by_truth))
    for name, regret in regrets.items():
        console.print(f"regret@{K}, {name}: {regret.value:.3f} [{regret.low:.3f}, {regret.high:.3f}]")
    ratios = [tenth.ratio().value for tenth in tenths]
    print_result(
        worst_decile_ratio_error=round(max(abs(ratio - 1.0) for ratio in ratios), 4),
        decile_ratios=[round(ratio, 4) for ratio in ratios],
        sum_ratio=round(sum_ratio(judged.truth, judged.predicted), 4),
        xauc_truth=round(xauc_within_users(judged.user, judged.truth, judged.predicted).ratio, 4),
        regret_at_10=round(regrets[SYSTEM].value, 4),
        regret_at_10_retrieval_order=round(regrets[RETRIEVAL].value, 4),
        regret_at_10_video_mean=round(regrets[VIDEO_MEAN].value, 4),
        impressions=len(judged.user),
        seconds=round(time.monotonic() - began, 1),
    )


def judged_impressions(world: World, log: Path, recommender: Recommender) -> Judged:
    """Gives the test period's impressions, each predicted as of its own moment, and true at its own place.

    A watch is clicked with probability p and D·U^a seconds long, so E[T²] = p·D²·f / (2 - f) for its mean fraction f.
    """
    with duckdb.connect() as connection:
        shown = connection.execute(
            "SELECT user_id, video_id, timestamp, position - 1 AS place, surface::VARCHAR AS surface, watch_seconds "
            f"FROM {impressions_of(log)} WHERE timestamp >= {recommender.bundle.dataset.test_start}"
        ).fetchnumpy()
    user, video, moment, place = (
        shown[name].astype(np.int64) for name in ("user_id", "video_id", "timestamp", "place")
    )
    predicted = recommender.score(user.tolist(), video.tolist(), moment, shown["surface"].tolist())
    truth = world.expected_watch_seconds(user, video, moment, place).astype(np.float64)
    duration = world.catalogue.videos["duration_seconds"][video]
    fraction = truth / (world.click_probability(user, video, moment, place) * duration)
    variance = truth * duration / (2.0 - fraction) - np.square(truth)
    return Judged(user, np.concatenate(list(predicted)).astype(np.float64), truth, variance, shown["watch_seconds"])


def regrets_of(
    world: World, log: Path, recommender: Recommender, users: Int[Array, "users"], num_visitors: int
) -> dict[str, Estimate]:
    """Gives the regret of each order of the candidates, with an interval over visitors drawn from `users`."""
    dataset, generator, serving = recommender.bundle.dataset, recommender.bundle.generator, recommender.bundle.serving
    known = users[dataset.vocabularies["users"].rows_of(users.tolist()) > 0]
    visitors = np.random.default_rng(1).permutation(known)[:num_visitors].tolist()
    rows = dataset.vocabularies["users"].rows_of(visitors)
    moments = np.full(len(visitors), dataset.log_end)
    context = request_context(dataset, rows, moments, generator, recommender.bundle.features)
    excluded = excluded_videos(dataset, context, serving.exclude_seen)
    candidates = generator.candidates(context, Wish(serving.num_candidates, excluded)).video_row
    pages = {
        name: [row for _, ranked in recommender.recommend_many(visitors, K, stage=stage) for row in ranked.video_row]
        for name, stage in ((SYSTEM, "ranking"), (RETRIEVAL, "retrieval"))
    }
    mean = video_means(world, log)
    earned, best = np.zeros((len(visitors), 4)), np.zeros(len(visitors))
    for place, user in enumerate(visitors):
        found = candidates[place][candidates[place] > 0]
        videos = np.array(dataset.vocabularies["videos"].ids_of(found))  # ids of the log are rows of the world
        truth = world.expected_watch_seconds(np.array([user]), videos, moments[:1])
        best[place] = np.sort(truth)[-K:].sum()
        earned[place] = (
            truth[np.isin(found, pages[SYSTEM][place])].sum(),
            truth[np.isin(found, pages[RETRIEVAL][place])].sum(),
            truth[np.argsort(-mean[videos], kind="stable")[:K]].sum(),
            truth.mean() * K,
        )
    names = (SYSTEM, RETRIEVAL, VIDEO_MEAN, RANDOM)
    return {name: ratio_estimate(best - earned[:, nth], best, DRAWS, seed=1) for nth, name in enumerate(names)}


def video_means(world: World, log: Path) -> Float[Array, "videos"]:
    """Gives what an impression of each video earned in the whole log, drawn to the mean of all where there are few."""
    with duckdb.connect() as connection:
        sums = connection.execute(
            f"SELECT video_id, sum(watch_seconds) AS seconds, count(*) AS shown FROM {impressions_of(log)} GROUP BY ALL"
        ).fetchnumpy()
    mean = float(sums["seconds"].sum() / sums["shown"].sum())
    means = np.full(world.config.videos, mean)
    means[sums["video_id"]] = (sums["seconds"] + PRIOR_IMPRESSIONS * mean) / (sums["shown"] + PRIOR_IMPRESSIONS)
    return means


def impressions_of(log: Path) -> str:
    """Gives the table of the log's impressions, as DuckDB names it."""
    return f"read_parquet({quoted(str(log / 'impressions' / '*.parquet'))})"


def table_of(title: str, parts: list[Judged]) -> Table:
    """Gives the means of each tenth and of all, the ratio with its interval, and the luck in what was watched."""
    table = Table(
        "tenth", "predicted", "truth", "watched", "predicted / truth [95 %]", "luck, standard errors", title=title
    )
    for name, part in zip([*map(str, range(1, TENTHS + 1)), "all"], parts, strict=True):
        error = float(part.truth.std() / np.sqrt(len(part.truth)))
        watched, truth, ratio = part.watched.mean(), part.truth.mean(), part.ratio()
        table.add_row(
            name,
            f"{part.predicted.mean():.2f}",
            f"{truth:.2f} ± {error:.2f}",
            f"{watched:.2f} ± {part.luck_seconds:.2f}",
            f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
            f"{(watched - truth) / part.luck_seconds:+.1f}",
        )
    return table


if __name__ == "__main__":
    main()
