"""A server under load: time of whole answers and of each stage, memory and start-up, at several rates.

    python benchmarks/serving_load.py [--videos 10_000_000] [--rate 20] [--seconds 30] [--bundle BUNDLE] [--processes 1]

Makes a world of so many videos and a bundle of it under --folder, unless --bundle names one, starts `watchnext serve`
and asks it for pages of twenty at 1, 20 and 50 requests a second and at --rate, at random moments, each for another
user; every tenth request sends a watch. Before the first, as many seconds at --rate warm it up: "warming" shows how a
server begins. Time counts from the moment at which a request was due, so that a queue is not hidden; `failed` are those
that were refused or not answered, and count no time. `ratio_to_limit` compares the median with the bare search,
features and network of one request, one after the other in a process of their own: what no server can leave out. Ends
with one JSON line, of --rate. The first start reads every byte of the bundle to check it, later ones do not.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import asyncio
import multiprocessing
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from machine import machine, print_result
from watchnext import pipeline
from watchnext.serving.funnel import Question
from watchnext.serving.recommender import Recommender
from watchnext.simulation.log import write_log
from watchnext.simulation.settings import WorldConfig

UNLIMITED = httpx.Limits(max_connections=None)
RATES, K, WATCH_SHARE, TIMED, STARTS_SECONDS = (1, 20, 50), 20, 0.1, 200, 300.0
SETTINGS = """
[prepare]
unwatched_videos = true
[retrieval]
embedding_dim = 64
tower = [512, 256]
videos = "tower"
examples_per_user = 5
max_epochs = 1
table_type = "bfloat16"
[split]
validation_share = 0.0
[ranking]
max_impressions = 60000
max_epochs = 1
"""


def main() -> None:
    """Serves, asks, and prints the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--videos", type=int, default=10_000_000)
    arguments.add_argument("--rate", type=float, default=20.0)
    arguments.add_argument("--seconds", type=float, default=30.0)
    arguments.add_argument("--bundle", type=Path)
    arguments.add_argument("--processes", type=int, default=1, help="those that answer, as of `watchnext serve`")
    arguments.add_argument("--folder", type=Path, default=Path("runs/serving_load"))
    options = arguments.parse_args()
    bundle = options.bundle or made(options.folder / str(options.videos), options.videos)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:  # its memory is free again afterwards
        limit_ms, users, videos = apart.submit(limits_of, bundle).result()
    process, _, first_startup_seconds = started(bundle, options.folder / "state", options.processes)
    process.terminate()
    process.wait()
    process, url, startup_seconds = started(bundle, options.folder / "state", options.processes)
    try:
        token = (options.folder / "state" / "token").read_text().split()[0]
        told = {"warming": asyncio.run(asked(url, token, options.rate, options.seconds, users, videos, seed=0))}
        for rate in sorted({*map(float, RATES), options.rate}):
            told[f"{rate:g}"] = asyncio.run(asked(url, token, rate, options.seconds, users, videos, seed=int(rate)))
        status = httpx.get(f"{url}/admin/status", headers={"authorization": f"Bearer {token}"}).json()
        own_bytes, mapped_bytes = resident_bytes(process.pid)
    finally:
        process.terminate()
        process.wait()
    show(told, status["latency_ms"])
    asked_at_rate = told[f"{options.rate:g}"]
    print_result(
        videos=status["variants"][0]["num_videos"],
        processes=options.processes,
        requests_per_second=options.rate,
        **asked_at_rate,
        memory_bytes=own_bytes + mapped_bytes,
        mapped_bytes=mapped_bytes,
        startup_seconds=round(startup_seconds, 1),
        first_startup_seconds=round(first_startup_seconds, 1),
        limit_ms=round(limit_ms, 2),
        ratio_to_limit=round(asked_at_rate["p50_ms"] / limit_ms, 2),
    )


def made(folder: Path, videos: int) -> Path:
    """Gives a bundle of a made-up world, made unless it is there: the shape is what counts, not what was learnt."""
    run = pipeline.Run(folder / "log" / "log.toml", folder / "run")
    if not run.part("bundle").exists():
        write_log(WorldConfig(videos=videos, users=50_000, events=3_000_000, days=20), folder / "log", 1)
        log_file = folder / "log" / "log.toml"
        log_file.write_text(log_file.read_text() + SETTINGS)
        for name, step in pipeline.STEPS.items():
            if name != "evaluate":
                step(run)
    return run.part("bundle")


def limits_of(bundle: Path) -> tuple[float, list[str], list[Any]]:
    """Gives the milliseconds of bare search, features and network, and some users and videos to ask for."""
    torch.set_num_threads(1)  # as a request has
    recommender = Recommender.open(bundle)
    funnel, dataset = recommender.funnel, recommender.bundle.dataset
    random = np.random.default_rng(1)
    rows = random.integers(1, len(dataset.vocabularies["users"]), 5_000)
    question = Question(dataset, rows[:1], dataset.log_end, K)
    context = funnel.context(question)
    candidates = funnel.candidates(question, context)
    inputs = funnel.inputs(question, context, candidates, recommender.bundle.state)
    vector, k = recommender.bundle.generator.network.vectors_of(context), recommender.bundle.serving.num_candidates
    index, k = recommender.bundle.generator.index, min(k, dataset.num_videos - 1)
    parts = [
        timed(lambda: index.search(vector, k)),
        timed(lambda: funnel.inputs(question, context, candidates, recommender.bundle.state)),
        timed(lambda: funnel.predictions(inputs)),
    ]
    users = [str(one) for one in dataset.vocabularies["users"].ids_of(rows)]
    videos = dataset.vocabularies["videos"].ids_of(random.integers(1, dataset.num_videos, 5_000))
    return sum(parts), users, videos


def timed(work: Callable[[], object]) -> float:
    """Gives the median in milliseconds."""
    times = []
    for _ in range(TIMED):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


def started(bundle: Path, state: Path, processes: int = 1) -> tuple[subprocess.Popen[bytes], str, float]:
    """Starts a server of its own; gives the process, its address, and the seconds until it was ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began, url = time.monotonic(), f"http://127.0.0.1:{port}"
    command = [Path(sys.executable).with_name("watchnext"), "serve", "--bundle", bundle, "--state", state]
    process = subprocess.Popen([*map(str, command), "--port", str(port), "--processes", str(processes)])
    while time.monotonic() - began < STARTS_SECONDS and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return process, url, time.monotonic() - began
        except httpx.HTTPError:
            time.sleep(0.05)
    process.kill()
    raise SystemExit("the server did not start; what it says stands above")


async def asked(
    url: str, token: str, rate: float, seconds: float, users: list[str], videos: list[Any], seed: int
) -> dict[str, Any]:
    """Sends requests at random moments, each in time however late others are; gives times and failures."""
    random = np.random.default_rng(seed)
    due = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
    times: list[float] = []
    failed = degraded = 0
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, timeout=30.0, headers=headers, limits=UNLIMITED) as client:
        began = time.perf_counter()

        async def one(moment: float, user: str, watches: bool) -> None:
            nonlocal failed, degraded
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            if watches:
                video = videos[random.integers(len(videos))]
                event = {"event_id": uuid.uuid4().hex, "kind": "watch", "user_id": user, "video_id": video}
                call = client.post("/v1/events", json={"events": [event | {"watch_seconds": 60.0}]})
            else:
                call = client.get("/v1/recommendations", params={"user_id": user, "k": K})
            try:
                answer = (await call).raise_for_status()
            except httpx.HTTPError:
                failed += 1
                return
            if not watches:
                times.append(1000 * (time.perf_counter() - began - moment))
                degraded += bool(answer.json()["degraded"])

        drawn = zip(due, random.choice(users, len(due)), random.random(len(due)) < WATCH_SHARE, strict=True)
        await asyncio.gather(*(one(*request) for request in drawn))
    quantiles = np.quantile(times, [0.5, 0.95, 0.99]) if times else np.full(3, np.nan)
    return {
        **{f"p{name}_ms": round(float(one), 2) for name, one in zip((50, 95, 99), quantiles, strict=True)},
        "requests": len(due),
        "failed": failed,
        "degraded": degraded,
    }


def resident_bytes(process_id: int) -> tuple[int, int]:
    """Gives what a process and its children hold in memory: their own, and mapped files that were read.

    Files that several have mapped count once, by the shares that the system gives each.
    """
    own = mapped = 0
    for one in (str(process_id), *_descendants(process_id)):
        told = dict(line.split(":")[:2] for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()[1:])
        anonymous, shared_out = (1024 * int(told[name].split()[0]) for name in ("Pss_Anon", "Pss"))
        own, mapped = own + anonymous, mapped + shared_out - anonymous
    return own, mapped


def _descendants(process_id: int | str) -> list[str]:
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return [*children, *(other for child in children for other in _descendants(child))]


def show(told: dict[str, dict[str, Any]], stages: dict[str, dict[str, float]]) -> None:
    """Prints what was measured at each rate, and the stages over the latest requests of all."""
    console = Console(width=100)
    table = Table("a second", *next(iter(told.values())), title=f"requests from when they were due; {machine()}")
    for rate, figures in told.items():
        table.add_row(rate, *map(str, figures.values()))
    console.print(table)
    table = Table("stage, ms", "p50", "p95", "p99", title="in the server, the last two thousand")
    for stage, figures in stages.items():
        table.add_row(stage, *(f"{figures[name]:.2f}" for name in ("p50", "p95", "p99")))
    console.print(table)


if __name__ == "__main__":
    main()
