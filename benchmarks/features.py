"""The ranker's features: replaying a log for training, and one request of 500 candidates on one core.

    python benchmarks/features.py [--impressions 1_000_000] [--videos 100_000]

A made-up log: Zipf-popular videos of 20,000 channels, 50 categories and 8 languages with three tags each, users with
50 impressions. Every impression is answered as of its own moment while the log is replayed. The ratio compares with
writing as many numbers and doing nothing else. Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import time

import numpy as np
import torch

from machine import print_result
from watchnext.config import FeaturesConfig
from watchnext.events.dataset import Segments, UserEvents, VideoTable
from watchnext.features.state import FeatureState, Keys
from watchnext.shapes import Array

CHANNELS, CATEGORIES, LANGUAGES, TAGS, CANDIDATES, REQUESTS = 20_000, 50, 8, 2_000, 500, 500
IMPRESSIONS_OF_A_USER, DAYS = 50, 30


def main() -> None:
    """Makes the log, times both ways, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--impressions", type=int, default=1_000_000)
    arguments.add_argument("--videos", type=int, default=100_000)
    options = arguments.parse_args()
    random = np.random.default_rng(1)
    keys = Keys.of(videos_like(random, options.videos), ["category", "language"])
    users = options.impressions // IMPRESSIONS_OF_A_USER
    events = events_like(random, users, options.videos)
    owners = np.repeat(np.arange(users + 1), np.diff(events.segments.offsets))
    moments, shown = np.asarray(events.segments.timestamp), events.video_row[:, None].astype(np.int64)
    few = np.argsort(moments)[:10]
    until = int(moments[few].max())
    empty_state(keys).replay(events, owners[few], moments[few], shown[few], until)  # what is compiled at the first call
    state = empty_state(keys)
    began = time.perf_counter()
    values = state.replay(events, owners, moments, shown)
    replayed = time.perf_counter() - began
    began = time.perf_counter()
    for array in (values.query, values.candidates):
        array[...] = 0.0
    written = time.perf_counter() - began

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    now, seconds = np.array([int(moments.max()) + 3600]), []
    for place in range(REQUESTS):
        user, candidates = random.integers(1, users + 1, 1), random.integers(1, options.videos, (1, CANDIDATES))
        began = time.perf_counter()
        state.read(events, user, now, candidates)
        if place >= 20:
            seconds.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    p50, p99 = np.quantile(seconds, [0.5, 0.99]) * 1e3
    print_result(
        features=len(state.query_names) + len(state.names),
        impressions=len(moments),
        impressions_per_second=len(moments) / replayed,
        ratio_to_writing_them=replayed / written,
        request_p50_ms=float(p50),
        request_p99_ms=float(p99),
        state_bytes=sum(array.nbytes for counters in state.counters.values() for array in vars(counters).values()),
    )


def empty_state(keys: Keys) -> FeatureState:
    """Gives a memory with the settings' defaults."""
    config = FeaturesConfig()
    return FeatureState.empty(keys, config.horizons_seconds, config.habit_lag_days * 86_400, config.history_length)


def videos_like(random: np.random.Generator, count: int) -> VideoTable:
    """Gives videos of random channels, categories, languages and tags."""
    return VideoTable(
        channel_row=random.integers(1, CHANNELS, count).astype(np.int32),
        categorical=np.stack([random.integers(1, size, count) for size in (CATEGORIES, LANGUAGES)], axis=1),
        continuous=np.zeros((count, 0), dtype=np.float32),
        tag_rows=random.integers(1, TAGS, (count, 3)).astype(np.int32),
        title_rows=np.zeros((count, 0), dtype=np.int32),
        uploaded_at=np.zeros(count, dtype=np.int64),
        num_completed=np.zeros(count, dtype=np.int64),
    )


def events_like(random: np.random.Generator, users: int, videos: int) -> UserEvents:
    """Gives every user as many impressions of Zipf-popular videos, half of them watched."""
    count = users * IMPRESSIONS_OF_A_USER
    offsets = np.concatenate([[0, 0], np.arange(1, users + 1) * IMPRESSIONS_OF_A_USER])
    moments = 1_700_000_000 + np.sort(random.integers(0, DAYS * 86_400, (users, IMPRESSIONS_OF_A_USER)), axis=1)
    clicked = random.random(count) < 0.5
    rows: Array = np.minimum(random.zipf(1.2, count), videos - 1).astype(np.int32)
    return UserEvents(
        segments=Segments(offsets, moments.ravel()),
        video_row=rows,
        watch_seconds=np.where(clicked, random.exponential(40.0, count), 0.0).astype(np.float32),
        clicked=clicked,
        completed=clicked & (random.random(count) < 0.5),
        liked=np.zeros(count, dtype=bool),
        shown=np.ones(count, dtype=bool),
        surface_row=np.zeros(count, dtype=np.int32),
        position=np.zeros(count, dtype=np.int16),
        watches=Segments(np.zeros(users + 2, dtype=np.int64), np.zeros(0, dtype=np.int64)),
        watch_places=np.zeros(0, dtype=np.int64),
    )


if __name__ == "__main__":
    main()
