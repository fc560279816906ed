"""What the system recovers of a made-up world, and what each ingredient is worth: the truth is the limit.

    python benchmarks/recovery.py [--folder runs/recovery] [--seeds 1 2 3] [--visitors 300]

For each seed: makes the default world, learns from its log, and plays visitors on every arm. On the first seed it also
learns with one ingredient left out at a time. Ends with one JSON line; shares are of the ideal's expected watch time.
"""

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from machine import print_result
from watchnext import pipeline
from watchnext.pipeline.trial import IDEAL, SYSTEM, ArmResult, run_trial
from watchnext.simulation.log import write_log
from watchnext.simulation.settings import WorldConfig

PAGES = 3
EVERYTHING = "with everything"
EQUAL_WEIGHTS = '[impressions.columns]\nwatch_seconds = "CASE WHEN clicked THEN 30 ELSE 0 END"\n\n'
WITHOUT = {
    "searches": ('[searches]\nfiles = "searches/*.parquet"\n', ""),
    "video attributes": ('[videos]\nfiles = "videos.parquet"\n', ""),
    "example age": ("[retrieval]\n", "[retrieval]\nexample_age = false\n"),
    "watch-time weights": ("[searches]\n", EQUAL_WEIGHTS + "[searches]\n"),
}


def main() -> None:
    """Plays every seed, then every ablation."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, default=Path("runs/recovery"))
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--visitors", type=int, default=300)
    options = arguments.parse_args()
    table = Table("world", "arm", "expected s/session", "share of the ideal [95 %]", "learnt in s")
    shares: dict[str, float] = {}
    for seed in options.seeds:
        log = options.folder / f"log-{seed}"
        write_log(WorldConfig(seed=seed), log, 2)
        variants = [EVERYTHING]
        if seed == options.seeds[0]:
            variants += [f"without {ingredient}" for ingredient in WITHOUT]
        for variant in variants:
            arms, seconds = _learnt(log, variant, options.folder / f"run-{seed}", options.visitors)
            for name, arm in arms.items() if variant == EVERYTHING else [(SYSTEM, arms[SYSTEM])]:
                share = arm.share_of_ideal
                label = f"{name}, {variant}" if name == SYSTEM else name
                interval = f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"
                learnt = f"{seconds:.0f}" if name == SYSTEM else ""
                table.add_row(f"seed {seed}", label, f"{arm.expected_watch_seconds.value:.0f}", interval, learnt)
                if name != IDEAL:
                    shares[f"seed {seed}, {label}"] = round(share.value, 4)
    Console().print(table)
    print_result(visitors=options.visitors, pages=PAGES, share_of_ideal=shares)


def _learnt(log: Path, variant: str, folder: Path, visitors: int) -> tuple[dict[str, ArmResult], float]:
    """Learns from the log, with one ingredient left out if `variant` says so, and plays visitors."""
    text = (log / "log.toml").read_text()
    if variant != EVERYTHING:
        old, new = WITHOUT[variant.removeprefix("without ")]
        assert old in text
        text = text.replace(old, new)
    toml = log / f"{variant.replace(' ', '-')}.toml"
    toml.write_text(text)
    run = pipeline.Run(toml, folder)
    began = time.monotonic()
    pipeline.run_all(run)
    seconds = time.monotonic() - began
    return run_trial(str(run.part("bundle")), log, visitors, PAGES, seed=1), seconds


if __name__ == "__main__":
    main()
