"""A server for half an hour: lists, events, uploads, blocks, forgetting, and bundles that come and go.

    python benchmarks/soak.py BUNDLE [--other BUNDLE] [--minutes 30] [--rate 10]
                              [--processes 1]

Sends a mixture of everything at random moments, promotes the other bundle (by default a copy of the same) and rolls
back every minute, and reads the server's memory every ten seconds. Memory should be flat after the first minutes, and
nothing fail. `memory_growth` is the resident size of the last third by that of the middle one. Ends with one JSON line.
"""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import argparse
import asyncio
import multiprocessing
import shutil
import time
import uuid
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console

from machine import print_result
from serving_load import limits_of, resident_bytes, started

MINUTE_SECONDS, READ_SECONDS, K = 60.0, 10.0, 20
SHARES = {"list": 0.6, "visitor": 0.1, "watch": 0.2, "search": 0.04, "upload": 0.02, "block": 0.02, "forget": 0.02}


def main() -> None:
    """Serves, asks, swaps, and prints what failed and what memory did."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--other", type=Path)
    arguments.add_argument("--minutes", type=float, default=30.0)
    arguments.add_argument("--rate", type=float, default=10.0)
    arguments.add_argument("--processes", type=int, default=1)
    arguments.add_argument("--folder", type=Path, default=Path("runs/soak"))
    options = arguments.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    other = options.other or shutil.copytree(options.bundle, options.folder / "other")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:  # its memory is free again afterwards
        _, users, videos = apart.submit(limits_of, options.bundle).result()
    process, url, _ = started(options.bundle, options.folder / "state", options.processes)
    try:
        token = (options.folder / "state" / "token").read_text().split()[0]
        counts, memory = asyncio.run(
            soaked(url, token, options.rate, options.minutes * MINUTE_SECONDS, users, videos, other, process.pid)
        )
    finally:
        process.terminate()
        process.wait()
    thirds = [float(np.median(part)) for part in np.array_split(np.array(memory).sum(axis=1), 3)]
    for name, column in zip(("its own", "mapped files"), zip(*memory, strict=True), strict=True):
        Console().print(f"{name}, MB: {[round(one / 1e6) for one in column[:: max(1, len(column) // 20)]]}")
    print_result(
        minutes=options.minutes,
        **counts,
        memory_bytes=int(thirds[2]),
        memory_growth=round(thirds[2] / thirds[1], 4),
    )


async def soaked(
    url: str, token: str, rate: float, seconds: float, users: list[str], videos: list[Any], other: Path, process_id: int
) -> tuple[Counter[str], list[tuple[int, int]]]:
    """Gives how many requests of each kind were sent, how many failed, and the memory as it was read."""
    random = np.random.default_rng(1)
    counts: Counter[str] = Counter(failed=0, swaps=0, degraded=0)
    memory: list[tuple[int, int]] = []
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=url, timeout=60.0, headers=headers) as client:

        async def one(kind: str, moment: float) -> None:
            await asyncio.sleep(max(0.0, began + moment - time.perf_counter()))
            user, video = str(random.choice(users)), videos[random.integers(len(videos))]
            counts[kind] += 1
            try:
                answer = await sent(client, kind, user, video)
            except httpx.HTTPError as error:
                Console().print(f"{kind}: {type(error).__name__}")
                counts["failed"] += 1
                return
            if answer.status_code >= 400 and answer.status_code != 404:  # of somebody forgotten
                Console().print(f"{kind}: {answer.status_code}")
                counts["failed"] += 1
            if kind == "list" and answer.status_code == 200:
                counts["degraded"] += bool(answer.json()["degraded"])

        async def swap() -> None:
            while time.perf_counter() - began < seconds - MINUTE_SECONDS / 2:
                await asyncio.sleep(MINUTE_SECONDS / 2)
                odd = counts["swaps"] % 2
                answer = await client.post(
                    *(("/admin/rollback",) if odd else ("/admin/bundle",)), json={"path": str(other)}
                )
                counts["swaps"] += 1
                counts["failed"] += answer.status_code != 200

        async def watch_memory() -> None:
            while time.perf_counter() - began < seconds:
                memory.append(resident_bytes(process_id))
                await asyncio.sleep(READ_SECONDS)

        due = np.cumsum(random.exponential(1 / rate, int(rate * seconds)))
        kinds = random.choice(list(SHARES), len(due), p=list(SHARES.values()))
        began = time.perf_counter()
        await asyncio.gather(swap(), watch_memory(), *map(one, kinds.tolist(), due.tolist()))
    return counts, memory


async def sent(client: httpx.AsyncClient, kind: str, user: str, video: Any) -> httpx.Response:
    """Sends one request of a kind."""
    if kind == "list":
        return await client.get("/v1/recommendations", params={"user_id": user, "k": K})
    if kind == "visitor":
        history = [{"video_id": video, "watch_seconds": 40.0}]
        return await client.post("/v1/recommendations", json={"history": history, "k": K, "explain": True})
    if kind == "upload":
        return await client.post("/v1/videos", json={"video_id": f"new-{uuid.uuid4().hex}"})
    if kind == "block":
        return await client.post(f"/v1/videos/{video}/block", json={"user_id": user})
    if kind == "forget":
        return await client.delete(f"/v1/users/visitor-{user}")
    event: dict[str, object] = {"event_id": uuid.uuid4().hex, "kind": kind, "user_id": user}
    event |= {"query": "how to soak"} if kind == "search" else {"video_id": video, "watch_seconds": 40.0}
    return await client.post("/v1/events", json={"events": [event]})


if __name__ == "__main__":
    main()
