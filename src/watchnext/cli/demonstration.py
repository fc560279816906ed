"""The whole journey on the bundled log."""

import time
from importlib import resources
from pathlib import Path

import numpy as np

from watchnext import pipeline
from watchnext.cli.tables import print_recommendations, print_report, print_summary
from watchnext.events.dataset import Dataset
from watchnext.progress import say
from watchnext.serving.recommender import Recommender

_SHOWN_USERS = 3
_SHOWN_PLACES = 10


def sample_log() -> Path:
    """Gives the TOML file of the bundled KuaiRand-Pure log."""
    return Path(str(resources.files("watchnext") / "sample_log" / "log.toml"))


def run_demo(folder: Path) -> None:
    """Checks, prepares, trains, judges and serves the bundled log, and says what to try next."""
    began = time.monotonic()
    log_file = sample_log()
    run = pipeline.Run(log_file, folder)
    say("check", "bold")
    rejects = folder / "rejects.parquet"
    print_summary(pipeline.check(log_file, rejects), rejects)
    print_report(pipeline.run_all(run, announce=lambda name: say(name, "bold")))
    say("recommend", "bold")
    recommender = Recommender.open(run.part("bundle"))
    for user_id in _active_users(recommender.bundle.dataset):
        print_recommendations(f"for user {user_id}", recommender.recommend(user_id, _SHOWN_PLACES))
    say(
        f"\nDone in {time.monotonic() - began:.0f} seconds.\n"
        f"  The report with pictures:  {run.part('evaluation') / 'report.html'}\n"
        f"  Recommend to somebody:     watchnext recommend --bundle {run.part('bundle')} --user 4 -k 20\n"
        f"  Serve over HTTP:           watchnext serve --bundle {run.part('bundle')}\n"
        f"  Your own log:              copy {log_file},\n"
        "                             name your files and columns in it (docs/your-log.md), then\n"
        "                             watchnext check my-log.toml && watchnext run my-log.toml --run runs/mine"
    )


def _active_users(dataset: Dataset) -> list[int | str]:
    """The users with the most completed watches, whose lists tell most."""
    counts = np.diff(dataset.events.watches.offsets)
    rows = np.argsort(-counts, kind="stable")[:_SHOWN_USERS]
    ids: list[int | str] = dataset.vocabularies["users"].ids_of(rows)
    return ids
