"""Making a log: impressions a second, and memory.

    python benchmarks/simulation.py [--events 10_000_000] [--folder runs/bench/log]

A video for every ten events and a user for every fifty, over 60 days. Ends with one JSON line. `ratio_to_plain_writing`
compares with the limit: writing as many rows of ready-made random numbers in the same columns, files and threads.
"""

import argparse
import os
import resource
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from machine import print_result
from watchnext.simulation.log import write_log
from watchnext.simulation.settings import WorldConfig

DAYS = 60


def world_of(events: int) -> WorldConfig:
    """Gives the settings of a world whose log has that many impressions."""
    return WorldConfig(videos=max(100, events // 10), users=max(2, events // 50), events=events, days=DAYS)


def main() -> None:
    """Makes a log, times it, and leaves it for benchmarks/prepare.py."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--folder", type=Path, default=Path("runs/bench/log"))
    options = arguments.parse_args()
    workers = os.cpu_count() or 1
    began = time.monotonic()
    write_log(world_of(options.events), options.folder, workers)
    seconds = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    files = sorted((options.folder / "impressions").glob("*.parquet"))
    clicked = np.concatenate([pq.read_table(file, columns=["clicked"])["clicked"].to_numpy() for file in files[:5]])
    print_result(
        events=options.events,
        workers=workers,
        seconds=seconds,
        events_per_second=options.events / seconds,
        peak_memory_bytes=memory,
        disk_bytes=sum(file.stat().st_size for file in options.folder.rglob("*") if file.is_file()),
        click_rate=float(clicked.mean()),
        ratio_to_plain_writing=seconds / _plain_writing_seconds(files[0], len(files), workers),
    )


def _plain_writing_seconds(file: Path, count: int, workers: int) -> float:
    """How long the same columns take when there is nothing to compute: one day's table, written as often."""
    table = pq.read_table(file)
    folder = Path(tempfile.mkdtemp(dir=file.parent.parent.parent))
    began = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        for day in range(count):
            pool.submit(pq.write_table, table, folder / f"{day}.parquet", compression="zstd")
    seconds = time.monotonic() - began
    shutil.rmtree(folder)
    return seconds


if __name__ == "__main__":
    main()
