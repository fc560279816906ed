"""The commands; `watchnext --help` lists them in the order of the journey."""

import errno
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from watchnext.cli import serving
from watchnext.cli.command import command
from watchnext.config import settings_lines
from watchnext.errors import RequestError, WatchnextError
from watchnext.progress import say
from watchnext.simulation.settings import WorldConfig

app = typer.Typer(
    help="From watch logs to served recommendations: prepare a log, train both stages, judge them, serve.\n\n"
    "New here? 'watchnext demo' runs the whole journey on a bundled log in a few minutes. "
    "Then describe your own log in a TOML file (docs/your-log.md) and say 'watchnext run LOG.toml'.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

LogFile = Annotated[Path, typer.Argument(metavar="LOG.toml", help="describes the log and the settings")]
RunFolder = Annotated[Path, typer.Option("--run", help="the folder that receives what is made of the log")]
BundleFolder = Annotated[Path, typer.Option("--bundle", help="the folder that 'watchnext bundle' made")]
WarmStart = Annotated[
    Path | None,
    typer.Option(
        help="an earlier run's folder, or its bundle: candidate generation goes on from its networks, by id; what is "
        "new begins as usual"
    ),
]
AsOf = Annotated[int | None, typer.Option(help="Unix time of the question; the end of the bundle's log by default")]
Stage = Annotated[str, typer.Option(help="'ranking' for the whole funnel, 'retrieval' for candidates alone")]
ExcludeSeen = Annotated[
    bool | None, typer.Option("--exclude-seen/--include-seen", help="strike what the user was shown before")
]
RUNS = Path("runs/latest")
SIMULATED = Path("runs/simulated/log")


def _world_option(name: str) -> Any:
    """An option that is explained as the setting of the same name."""
    return typer.Option(help=WorldConfig.__dataclass_fields__[name].metadata["doc"])


@command(app)
def check(
    log_file: LogFile,
    rejects: Annotated[Path, typer.Option(help="receives rejected rows, if any")] = Path("rejects.parquet"),
) -> None:
    """Read a log and tell what is in it: counts, times, ids, and rejected rows with reasons."""
    from watchnext import pipeline
    from watchnext.cli.tables import print_summary

    summary = pipeline.check(log_file, rejects)
    print_summary(summary, rejects)
    if summary.problem:
        raise WatchnextError(summary.problem)


@command(app)
def prepare(log_file: LogFile, run: RunFolder = RUNS) -> None:
    """Compile the log into a dataset: vocabularies, one user's events together and in time order, periods."""
    _step("prepare", log_file, run)


@command(app)
def train_retrieval(log_file: LogFile, run: RunFolder = RUNS, warm_start: WarmStart = None) -> None:
    """Train candidate generation; goes on where an interrupted training stopped."""
    _step("train-retrieval", log_file, run, warm_start)


@command(app, "index")
def build_index(
    log_file: LogFile,
    run: RunFolder = RUNS,
    target_recall: Annotated[
        float | None, typer.Option(help="share of the true best to find; instead of the setting")
    ] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", help="how many of the best that is; instead of tuned_k")] = None,
) -> None:
    """Index the video vectors, tuned on users of the log, and build the other sources of candidates."""
    from watchnext import pipeline

    pipeline.build_index(pipeline.Run(log_file, run), target_recall, k)
    say(f"index: done, in {run}")


@command(app)
def features(
    log_file: LogFile,
    run: RunFolder = RUNS,
    pattern: Annotated[str, typer.Option(help="only those whose names match, say 'user_channel.*'")] = "*",
) -> None:
    """List every input of the ranker: what it is of and how it enters. Needs 'prepare'; nothing is computed."""
    from watchnext import pipeline
    from watchnext.cli.tables import print_features

    print_features(pipeline.features(pipeline.Run(log_file, run)), pattern)


@command(app)
def train_ranking(log_file: LogFile, run: RunFolder = RUNS) -> None:
    """Train expected watch time; goes on where an interrupted training stopped."""
    _step("train-ranking", log_file, run)


@command(app)
def towers(
    log_file: LogFile,
    run: RunFolder = RUNS,
    seeds: Annotated[int, typer.Option(help="trainings of each tower; losses are their means", min=1, max=100)] = 1,
) -> None:
    """The paper's table 1 on this log: towers from none to 1024→512→256, without powers, without watch-time weights.

    Needs 'train-retrieval'. Nine short trainings; a later 'evaluate' shows the table and its picture in the report.
    """
    from watchnext import pipeline
    from watchnext.cli.tables import print_towers

    print_towers(pipeline.compare_towers(pipeline.Run(log_file, run), seeds))


@command(app)
def bundle(log_file: LogFile, run: RunFolder = RUNS) -> None:
    """Put dataset, networks and index together as one folder that serves; refuses what does not belong together."""
    _step("bundle", log_file, run)


@command(app)
def evaluate(log_file: LogFile, run: RunFolder = RUNS) -> None:
    """Judge the bundle on the test period beside baselines: a table, report.json and report.html."""
    from watchnext import pipeline

    _tell(pipeline.evaluate(pipeline.Run(log_file, run)), run)


@command(app, "run")
def run_all(log_file: LogFile, run: RunFolder = RUNS, warm_start: WarmStart = None) -> None:
    """Do all of the above: from a log to a bundle and a report."""
    from watchnext import pipeline

    report = pipeline.run_all(pipeline.Run(log_file, run, warm_start), announce=lambda name: say(name, "bold"))
    _tell(report, run)
    say(f"serve it: watchnext serve --bundle {run / 'bundle'}")


@command(app)
def recommend(
    bundle: BundleFolder,
    user: Annotated[str | None, typer.Option(help="a user of the log; prints a list")] = None,
    users: Annotated[Path | None, typer.Option(help="a file with a column user_id; writes --output")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="length of a list")] = 20,
    as_of: AsOf = None,
    stage: Stage = "ranking",
    exclude_seen: ExcludeSeen = None,
    surface: Annotated[str | None, typer.Option(help="where the list will be shown; only with --user")] = None,
    output: Annotated[Path, typer.Option(help="receives user_id, video_id, rank, score, sources")] = Path(
        "recommendations.parquet"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table; only with --user")] = False,
) -> None:
    """Recommend to one user (--user, prints) or to many (--users, writes Parquet)."""
    from watchnext.cli.tables import print_recommendations
    from watchnext.serving.batch import recommend_to_file
    from watchnext.serving.recommender import Recommender

    if (user is None) == (users is None):
        raise RequestError("say either --user ID or --users FILE.")
    recommender = Recommender.open(bundle)
    if users is not None:
        served, unknown = recommend_to_file(
            recommender, users, output, k, as_of=as_of, stage=stage, exclude_seen=exclude_seen
        )
        say(
            f"{served:,} lists in {output}"
            + (f"; {unknown:,} users are not in the log and have none" if unknown else "")
        )
        return
    found = recommender.recommend(str(user), k, as_of=as_of, stage=stage, exclude_seen=exclude_seen, surface=surface)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=1))
    else:
        print_recommendations(f"for user {user}", found)
    if len(found) < k:
        say(f"only {len(found)} of {k}: the user has seen the rest (--include-seen brings it back)")


@command(app)
def score(
    bundle: BundleFolder,
    impressions: Annotated[Path, typer.Option(help="a file with user_id, video_id, timestamp, and surface if known")],
    output: Annotated[Path, typer.Option(help="receives the rows and expected_watch_seconds")] = Path("scores.parquet"),
) -> None:
    """Add the expected watch time to impressions, each as of its own timestamp and never later."""
    from watchnext.serving.batch import score_to_file
    from watchnext.serving.recommender import Recommender

    count = score_to_file(Recommender.open(bundle), impressions, output)
    say(f"{count:,} rows in {output}")


@command(app)
def probabilities(
    bundle: BundleFolder,
    user: Annotated[str, typer.Option(help="a user of the log")],
    video: Annotated[list[str], typer.Option(help="a video; may be given several times")],
    as_of: AsOf = None,
) -> None:
    """Print how probable it is that each video is the next one the user watches, out of all videos."""
    import numpy as np

    from watchnext.serving.recommender import Recommender

    found = Recommender.open(bundle).probabilities(user, video, as_of=as_of)
    for one, chance in zip(video, found, strict=True):
        typer.echo(f"{one}\t{'not in the catalogue' if np.isnan(chance) else format(chance, '.3g')}")


@command(app)
def vectors(
    bundle: BundleFolder,
    users: Annotated[Path | None, typer.Option(help="a file with a column user_id: their vectors instead")] = None,
    output: Annotated[Path, typer.Option(help="receives the id and its vector")] = Path("vectors.parquet"),
) -> None:
    """Write the vectors of all videos, or of some users, for a search engine of your own."""
    from watchnext.serving.batch import vectors_to_file
    from watchnext.serving.recommender import Recommender

    count = vectors_to_file(Recommender.open(bundle), output, users)
    say(f"{count:,} rows in {output}")


for function in (serving.serve, serving.promote, serving.rollback, serving.export):
    app.command()(function)


@command(app)
def demo(run: RunFolder = Path("runs/demo")) -> None:
    """Run the whole journey on the bundled KuaiRand log, in a few minutes."""
    from watchnext.cli.demonstration import run_demo

    run_demo(run)


@command(app)
def simulate(
    output: Annotated[Path, typer.Option(help="the folder that receives the log")] = SIMULATED,
    videos: Annotated[int, _world_option("videos")] = WorldConfig.videos,
    users: Annotated[int, _world_option("users")] = WorldConfig.users,
    events: Annotated[int, _world_option("events")] = WorldConfig.events,
    days: Annotated[int, _world_option("days")] = WorldConfig.days,
    topics: Annotated[int, _world_option("topics")] = WorldConfig.topics,
    page_size: Annotated[int, _world_option("page_size")] = WorldConfig.page_size,
    popular_share: Annotated[float, _world_option("popular_share")] = WorldConfig.popular_share,
    personal_share: Annotated[float, _world_option("personal_share")] = WorldConfig.personal_share,
    random_share: Annotated[float, _world_option("random_share")] = WorldConfig.random_share,
    new_share: Annotated[float, _world_option("new_share")] = WorldConfig.new_share,
    rise_days: Annotated[float, _world_option("rise_days")] = WorldConfig.rise_days,
    search_share: Annotated[float, _world_option("search_share")] = WorldConfig.search_share,
    seed: Annotated[int, _world_option("seed")] = WorldConfig.seed,
    workers: Annotated[
        int, typer.Option(help="days made at the same time; the bytes do not depend on it", min=1, max=256)
    ] = os.cpu_count() or 1,
    against: Annotated[
        str | None,
        typer.Option(metavar="BUNDLE|URL", help="play visitors of --world against this bundle or server instead"),
    ] = None,
    world: Annotated[Path, typer.Option(help="with --against: the folder of the log that it learnt from")] = SIMULATED,
    visitors: Annotated[int, typer.Option(help="with --against: sessions to play on every arm")] = 300,
    pages: Annotated[int, typer.Option(help="with --against: pages of a session", min=1, max=100)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="with --against: print JSON instead of a table")] = False,
) -> None:
    """Make the log of a made-up video site whose truth is known; or (--against) try a system on its visitors."""
    from watchnext.cli.tables import print_trial
    from watchnext.pipeline.trial import run_trial
    from watchnext.simulation.log import write_log

    if against is not None:
        arms = run_trial(against, world, visitors, pages, seed)
        if as_json:
            typer.echo(json.dumps({name: asdict(arm) for name, arm in arms.items()}, indent=1))
        else:
            print_trial(arms)
        return
    config = WorldConfig(
        videos=videos,
        users=users,
        events=events,
        days=days,
        topics=topics,
        page_size=page_size,
        popular_share=popular_share,
        personal_share=personal_share,
        random_share=random_share,
        new_share=new_share,
        rise_days=rise_days,
        search_share=search_share,
        seed=seed,
    )
    write_log(config, output, workers)
    say(
        f"{events:,} impressions in {output}\n"
        f"  learn from them:  watchnext run {output / 'log.toml'} --run {output.parent}\n"
        f"  then try it out:  watchnext simulate --against {output.parent / 'bundle'} --world {output}"
    )


@app.command()
def settings() -> None:
    """Print every setting of the TOML file with its default and what it does."""
    for line in settings_lines():
        typer.echo(line)


def _tell(report: Any, run: Path) -> None:
    from watchnext.cli.tables import print_report

    print_report(report)
    say(f"the report with pictures: {run / 'evaluation' / 'report.html'}")


def _step(name: str, log_file: Path, folder: Path, warm_start: Path | None = None) -> None:
    from watchnext import pipeline

    pipeline.STEPS[name](pipeline.Run(log_file, folder, warm_start))
    say(f"{name}: done, in {folder}")


def main() -> None:
    """Runs the command line; a failure that the user can act on is one message and exit status 1."""
    try:
        app()
    except WatchnextError as error:
        sys.exit(f"watchnext: {error}")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            sys.exit(
                "watchnext: the disk is full. What was being written is removed again: free some space, run it anew."
            )
        sys.exit(f"watchnext: {error.strerror or error}: {error.filename or ''}".rstrip(": "))
