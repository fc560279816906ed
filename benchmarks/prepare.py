"""Compiling a log: events a second, memory and disk.

    python benchmarks/prepare.py [--events 10_000_000] [--folder runs/bench]

Makes the log of benchmarks/simulation.py first, in a process of its own, unless it is there. Ends with one JSON line.
`ratio_to_sorting` compares with the part that no compiler of such a log can leave out: DuckDB reading the impressions
and sorting them by user and time, within the same memory.
"""

import argparse
import resource
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from machine import print_result
from simulation import world_of
from watchnext import pipeline
from watchnext.artifacts import open_artifact
from watchnext.events.dataset import Dataset

SORTED_COLUMNS = "user_id, timestamp, video_id, watch_seconds, clicked, completed"


def main() -> None:
    """Prepares the log and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--folder", type=Path, default=Path("runs/bench"))
    options = arguments.parse_args()
    log = options.folder / "log"
    if not log.exists() or open_artifact(log, "simulation", verify=False).settings != asdict(world_of(options.events)):
        program = str(Path(__file__).parent / "simulation.py")
        subprocess.run(
            [sys.executable, program, "--events", str(options.events), "--folder", str(log)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    run = pipeline.Run(log / "log.toml", options.folder)
    began = time.monotonic()
    pipeline.prepare(run)
    seconds = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    dataset = Dataset.open(run.part("dataset"), verify=False)
    print_result(
        events=options.events,
        seconds=seconds,
        events_per_second=options.events / seconds,
        peak_memory_bytes=memory,
        disk_bytes=sum(file.stat().st_size for file in run.part("dataset").rglob("*") if file.is_file()),
        videos=dataset.num_videos - 1,
        completed=dataset.facts["num_watches"],
        repeats_merged=dataset.facts["num_repeats"],
        ratio_to_sorting=seconds / _sorting_seconds(log, run.config.prepare.memory_gigabytes),
    )


def _sorting_seconds(log: Path, memory_gigabytes: float) -> float:
    with TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit='{0.6 * memory_gigabytes}GB'; SET temp_directory='{scratch}'")
        began = time.monotonic()
        ordered = f"SELECT {SORTED_COLUMNS} FROM '{log}/impressions/*.parquet' ORDER BY user_id, timestamp, video_id"
        for _ in connection.sql(ordered).to_arrow_reader(1_000_000):
            pass
        return time.monotonic() - began


if __name__ == "__main__":
    main()
