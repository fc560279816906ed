"""The main job on the bundled log: seconds of each step, and quality beside baselines of the same run.

    python benchmarks/kuairand.py [--run runs/benchmark]

Ends with one JSON line. The ratios compare recall@100 with item-to-item co-watch (higher is better) and the weighted
per-user loss with the per-video mean (lower is better), on the same test users and impressions.
"""

import argparse
import time
from pathlib import Path

from machine import print_result

from watchnext import pipeline
from watchnext.cli.demonstration import sample_log
from watchnext.cli.tables import print_report


def main() -> None:
    """Runs every step and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--run", type=Path, default=Path("runs/benchmark"))
    run = pipeline.Run(sample_log(), arguments.parse_args().run)
    seconds = {}
    for name, step in pipeline.STEPS.items():
        began = time.monotonic()
        made = step(run)
        seconds[name] = round(time.monotonic() - began, 1)
    assert isinstance(made, pipeline.Report)
    print_report(made)
    recall = {name: row["recall@100"].value for name, row in made.retrieval.items()}
    loss = {name: row["weighted_loss"].value for name, row in made.ranking.items()}
    ours = made.ranking["watchnext"]
    print_result(
        seconds=seconds,
        recall_at_100=recall["watchnext"],
        ratio_to_co_watch=recall["watchnext"] / recall["item-to-item co-watch"],
        weighted_loss=loss["watchnext"],
        ratio_to_video_mean=loss["watchnext"] / loss["per-video mean"],
        xauc=ours["xauc"],
        rmse_seconds=ours["rmse_seconds"],
        sum_ratio=ours["sum_ratio"],
    )


if __name__ == "__main__":
    main()
