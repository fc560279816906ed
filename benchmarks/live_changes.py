"""What it takes a bundle to keep up: watches, blocks, uploads one at a time and together, and words of a search.

    python benchmarks/live_changes.py BUNDLE [--uploads 10000]

Each kind of event is applied to a freshly opened bundle, as every process that answers does before its next request.
Half of the uploads come together, as when a server starts, then a few hundred one after the other behind them. Compared
with the least that an upload needs, its vector from the video tower (`ratio_to_tower`), and a search's words with one
query to the database (`ratio_to_database`). Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch

from machine import print_result
from watchnext.events.tokens import TOKENS, query_tokens
from watchnext.serving.events import LiveEvent
from watchnext.serving.live import LiveBundle
from watchnext.serving.recommender import Recommender
from watchnext.serving.uploads import table_of_one

EACH, TITLE = 300, "A new piano trio plays jazz"


def main() -> None:
    """Applies events of each kind, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--uploads", type=int, default=10_000)
    options = arguments.parse_args()
    torch.set_num_threads(1)  # as a request has
    live = Recommender.open(options.bundle, verify=False).live
    dataset = live.bundle.dataset
    rows = np.random.default_rng(1).integers(1, dataset.num_videos, 2 * EACH)
    videos, users = dataset.vocabularies["videos"].ids_of(rows), itertools.cycle(map(str, range(1, 100)))
    watches = [event("watch", video, user_id=next(users), completed=True) for video in videos[:EACH]]
    blocks = [event("block", video) for video in videos[EACH:]]
    uploads = [event("upload", f"new {place}", upload={"title": TITLE}) for place in range(options.uploads + 2 * EACH)]
    first, together, last = uploads[:EACH], uploads[EACH:-EACH], uploads[-EACH:]

    figures = {"watch": one_by_one(live, watches), "block": one_by_one(live, blocks)}
    figures["first_uploads"] = one_by_one(live, first)
    began = time.perf_counter()
    live.apply_all(together, refused)
    seconds = time.perf_counter() - began
    figures["later_uploads"] = one_by_one(live, last)
    tower = bare_tower(live)
    words = median_ms([lambda: query_tokens([TITLE])] * EACH)
    with duckdb.connect() as connection:
        ask = f"SELECT {TOKENS} FROM (SELECT unnest(?) AS query)"
        database = median_ms([lambda: connection.execute(ask, [[TITLE]]).fetchall()] * EACH)
    print_result(
        videos=dataset.num_videos - 1,
        uploads_before=len(together),
        uploads_together_seconds=round(seconds, 2),
        **{f"{name}_ms": round(ms, 3) for name, ms in figures.items()},
        tower_ms=None if tower is None else round(tower, 3),
        ratio_to_tower=None if tower is None else round(figures["first_uploads"] / tower, 2),
        words_ms=round(words, 4),
        ratio_to_database=round(words / database, 5),
    )


def event(kind: Any, video_id: Any, **said: Any) -> LiveEvent:
    """Gives an event of a moment after all logs."""
    return LiveEvent(f"{kind}:{video_id}", kind, 2**31, video_id=str(video_id), **said)


def refused(_: LiveEvent, error: Exception) -> None:
    """Ends the benchmark: all of these events can be taken."""
    raise error


def one_by_one(live: LiveBundle, events: Sequence[LiveEvent]) -> float:
    """Gives the milliseconds that one event takes, by the median."""
    return median_ms([lambda one=one: live.apply(one) for one in events])  # type: ignore[misc]  # a default has no type


def bare_tower(live: LiveBundle) -> float | None:
    """Gives the milliseconds of one video's vector; None where videos have no tower."""
    if live._tower is None:
        return None
    tower, one = live._tower, table_of_one(live.bundle.dataset, {"title": TITLE})
    return median_ms([lambda: tower.of(one, np.zeros(1, dtype=np.int64))] * EACH)


def median_ms(calls: Sequence[Callable[[], object]]) -> float:
    """Gives the median time of the calls."""
    seconds = []
    for call in calls:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds)) * 1e3


if __name__ == "__main__":
    main()
