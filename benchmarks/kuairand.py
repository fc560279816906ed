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
from watchnext.evaluation.bootstrap import Estimate


def main() -> None:
    """Runs every step and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--run", type=Path, default=Path("runs/benchmark"))
    run = pipeline.Run(sample_log(), arguments.parse_args().run)
    began: list[tuple[str, float]] = []
    report = pipeline.run_all(run, announce=lambda name: began.append((name, time.monotonic())))
    ends = [moment for _, moment in began[1:]] + [time.monotonic()]
    print_report(report)
    recall = {name: row["recall@100"].value for name, row in report.retrieval.items()}
    loss = {name: _value(row["weighted_loss"]) for name, row in report.ranking.items()}
    ours = report.ranking["watchnext"]
    print_result(
        seconds={name: round(end - start, 1) for (name, start), end in zip(began, ends, strict=True)},
        recall_at_100=recall["watchnext"],
        ratio_to_co_watch=recall["watchnext"] / recall["item-to-item co-watch"],
        weighted_loss=loss["watchnext"],
        ratio_to_video_mean=loss["watchnext"] / loss["per-video mean"],
        xauc=ours["xauc"],
        rmse_seconds=ours["rmse_seconds"],
        sum_ratio=ours["sum_ratio"],
    )


def _value(figure: Estimate | float) -> float:
    return figure.value if isinstance(figure, Estimate) else figure


if __name__ == "__main__":
    main()
