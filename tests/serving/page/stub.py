"""A small server that follows the API's contract, remembers what it was asked, and serves the real page."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

PAGE = Path(__file__).parents[3] / "src" / "watchnext" / "serving" / "page"
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
NOW = 1_701_000_000
HOSTILE = "<img src=x onerror=window.stolen=1>"
TITLES = (
    "Morning light over the Dolomites,Slow bread for patient people,A year in a lighthouse,How bridges sing,"
    "Tiny gardens of Kyoto,The last tram to Lisbon,Building a cedar canoe,Night trains of Europe,Octopus minds,"
    "Learning to hear chess,The salt road,Paper that remembers,Ten quiet museums,Repairing a 1960s radio,"
    "Winter swimming,The geometry of lace,Dust and harvest,One knife many dishes,Mountains on a map,Deep sea mail"
).split(",")
CATEGORIES = ("nature", "craft", "travel", "science", "kitchen")
CHANNELS = ("Northlight", "Grain & Stone", "Field Notes", "The Long Way", "Small Wonders", "Tin Workshop", "Atlas")
SOURCES = ("network", "co_watch", "popular", "trending", "fresh", "channels")
PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
REPORT = (
    "<!doctype html><html><head><style>h1 { color: rgb(1, 2, 3); }</style></head><body><h1>What the stages do</h1>"
    f"<img alt='a picture' src='{PICTURE}'><script>parent.stolen = 1</script></body></html>"
)


def chance(*parts: object) -> float:
    """The same number between 0 and 1 for the same parts."""
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:12], 16) / 16**12


def video(video_id: int) -> dict[str, Any]:
    title: str | None = f"{TITLES[video_id % 20]}{', part ' + str(1 + video_id // 20) if video_id >= 20 else ''}"
    if video_id % 11 == 7:
        title = None
    if video_id == 3:
        title = HOSTILE
    return {
        "video_id": video_id,
        "title": title,
        "channel": CHANNELS[video_id % 7],
        "category": CATEGORIES[int(5 * chance("category", video_id))],
        "duration_seconds": 40 + int(1500 * chance("duration", video_id) ** 2),
        "uploaded_at": NOW - int(86_400 * 400 * chance("uploaded", video_id) ** 3) if video_id % 13 else None,
    }


VIDEOS = {video_id: video(video_id) for video_id in range(1, 91)}


def looked_up(one: dict[str, Any]) -> dict[str, Any]:
    """A video that was searched for: nothing is expected of it."""
    return one | {"score": 0.0, "expected_watch_seconds": None, "sources": [], "why": None}


@dataclass
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None


@dataclass
class Stub:
    """The state of one test: what users did, what was asked, and what shall fail."""

    token: str | None = None
    report: str | None = None
    degraded: list[str] = field(default_factory=list)
    failures: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refused: set[int | str] = field(default_factory=set)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    blocked: set[int] = field(default_factory=set)
    serving: str = "b-2024-06-01"
    former: str | None = "b-2024-05-25"
    delay_seconds: float = 0.0

    def asked(self, method: str, path: str) -> list[Asked]:
        return [one for one in self.requests if (one.method, one.path) == (method, path)]

    def places(self, watched: list[Any], searched: list[Any], k: int, categories: list[str]) -> list[dict[str, Any]]:
        """The list of somebody with this past: a few videos move with every watch and search."""
        past = len(watched) + len(searched)
        left = [
            one
            for one in VIDEOS.values()
            if one["video_id"] not in {*watched, *self.blocked} and (not categories or one["category"] in categories)
        ]

        def score(video_id: int) -> float:
            return chance("score", video_id) + 0.3 * chance("moved", video_id, past) + (video_id == 3)

        left.sort(key=lambda one: -score(one["video_id"]))
        return [self.place(one, score(one["video_id"]), watched) for one in left[:k]]

    def place(self, one: dict[str, Any], score: float, watched: list[Any]) -> dict[str, Any]:
        sources = [name for name in SOURCES if chance("source", name, one["video_id"]) > 0.72] or ["network"]
        pulls = [
            {"video_id": seen, "title": VIDEOS[seen]["title"], "pull": 0.5 / (1 + rank)}
            for rank, seen in enumerate(watched[:3])
        ]
        features = [
            {"name": name, "seconds": 60 * (chance(name, one["video_id"]) - 0.4)}
            for name in ("previous_watches_of_channel", "age_of_video", "length", "time_of_day")
        ]
        return one | {
            "score": score,
            "expected_watch_seconds": one["duration_seconds"] * min(0.9, 0.6 * score),
            "sources": sources,
            "why": {"sources": sources, "watches": pulls, "features": features},
        }

    def answer(self, places: list[dict[str, Any]]) -> dict[str, Any]:
        self.answers.append(f"answer-{len(self.answers)}")
        return {
            "request_id": self.answers[-1],
            "bundle": self.serving,
            "variant": "main",
            "as_of": NOW,
            "degraded": self.degraded,
            "note": None,
            "recommendations": places,
        }

    def status(self) -> dict[str, Any]:
        stages = ("history", "user_vector", "network", "co_watch", "trending", "features", "ranking")
        latency = {
            stage: {"p50": 1.5 + place, "p95": 3 + 2 * place, "p99": 5 + 3 * place}
            for place, stage in enumerate(stages)
        }
        history = [
            {"at": NOW - 600 + 5 * step, "per_second": 18 + 6 * chance("traffic", step // 4) + chance(step),
             "p50": 9 + 2 * chance("p50", step // 3), "p99": 17 + 9 * chance("p99", step // 3) ** 2, "degraded": 0}
            for step in range(121)
        ]  # fmt: skip
        return {
            "uptime_seconds": 190_000,
            "variants": [self.variant("main", self.serving, 0.9), self.variant("wider", "b-2024-06-02", 0.1)],
            "previous": {"bundle": self.former, "path": f"bundles/{self.former}"} if self.former else None,
            "requests": {"per_second": 21.4, "total": 182_344, "failed": 0, "degraded": 412, "refused": 3},
            "latency_ms": {"total": {"p50": 9.8, "p95": 15.1, "p99": 19.6}} | latency,
            "funnel": [
                {"stage": "catalogue", "videos": 10_000_000},
                {"stage": "candidates", "videos": 812.4},
                {"stage": "ranked", "videos": 500},
                {"stage": "shown", "videos": 24},
            ],
            "sources": [
                {"source": name, "nominated": 900 - 140 * place, "shown": 40 - 6 * place}
                for place, name in enumerate(SOURCES)
            ],
            "calibration": {"ratio": 1.04, "watches": 8123},
            "events": {"accepted": 48_211, "duplicates": 12},
            "history": history,
        }  # fmt: skip

    def variant(self, name: str, bundle: str, share: float) -> dict[str, Any]:
        return {
            "variant": name, "bundle": bundle, "path": f"bundles/{bundle}", "share": share, "log_end": NOW,
            "num_videos": 10_000_000, "num_users": 2_400_000,
            "index": {"engine": "cells", "changes": 41, "age_seconds": 90_000},
            "recall_probe": {"recall": 0.962, "tuned_recall": 0.97, "measured_at": NOW},
        }  # fmt: skip


def create_stub_app() -> FastAPI:
    """Gives the app; `app.state.stub` is the state of the running test."""
    app = FastAPI()
    app.state.stub = Stub()

    @app.middleware("http")
    async def remember(request: Request, call_next: Any) -> Response:
        stub: Stub = request.app.state.stub
        path = request.url.path
        if path.startswith(("/v1/", "/admin/")):
            body = await request.json() if await request.body() else None
            authorization = request.headers.get("authorization")
            stub.requests.append(Asked(request.method, path, dict(request.query_params), body, authorization))
            await asyncio.sleep(stub.delay_seconds)
            guarded = path.startswith("/admin/") or path == "/v1/users" or path.endswith(("/block", "/history"))
            guarded |= request.method == "DELETE" or path == "/v1/events"
            if guarded and stub.token and authorization != f"Bearer {stub.token}":
                stub.refused.add(401)
                return JSONResponse({"detail": "this route needs a token"}, 401)
            if path in stub.failures:
                status, detail = stub.failures[path]
                stub.refused.add(status)
                return JSONResponse({"detail": detail}, status)
        answer: Response = await call_next(request)
        answer.headers["content-security-policy"] = POLICY
        return answer

    add_routes(app)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    return app


def add_routes(app: FastAPI) -> None:
    def stub() -> Stub:
        state: Stub = app.state.stub
        return state

    def watched(events: list[dict[str, Any]]) -> list[Any]:
        return [event["video_id"] for event in reversed(events) if event["kind"] == "watch"]

    @app.get("/v1/recommendations")
    def of_user(user_id: str, k: int, categories: str | None = None) -> Any:
        events = stub().events.get(user_id, [])
        searched = [event for event in events if event["kind"] == "search"]
        return stub().answer(stub().places(watched(events), searched, k, [categories] if categories else []))

    @app.post("/v1/recommendations")
    def of_visitor(body: dict[str, Any]) -> Any:
        seen = [event["video_id"] for event in reversed(body["history"])]
        chosen = body["filters"].get("categories", [])
        return stub().answer(stub().places(seen, body["searches"], body["k"], chosen))

    @app.post("/v1/events", status_code=202)
    def events(body: dict[str, Any]) -> Any:
        for event in body["events"]:
            stub().events.setdefault(event["user_id"], []).append({"timestamp": NOW} | event)
        return {"accepted": len(body["events"]), "duplicates": 0}

    @app.get("/v1/users/{user_id}/history")
    def history(user_id: str) -> Any:
        events = [
            {"watch_seconds": None, "completed": None, "query": None, "video_id": None, "title": None, "channel": None}
            | {name: VIDEOS.get(event.get("video_id"), {}).get(name) for name in ("title", "channel")}
            | event
            for event in reversed(stub().events.get(user_id, []))
        ]
        return {"user_id": user_id, "events": events}

    @app.delete("/v1/users/{user_id}")
    def forget(user_id: str) -> Any:
        return {"forgotten_events": len(stub().events.pop(user_id, []))}

    @app.get("/v1/users")
    def users() -> Any:
        return {"users": ["12", "47", "103", "2208", "anna"]}

    @app.get("/v1/videos")
    def search(query: str) -> Any:
        found = [one for one in VIDEOS.values() if one["title"] and query.lower() in one["title"].lower()]
        return {"videos": [looked_up(one) for one in found]}

    @app.get("/v1/videos/{video_id}/similar")
    def similar(video_id: int, k: int) -> Any:
        near = [one for one in VIDEOS.values() if one["category"] == VIDEOS[video_id]["category"]]
        return {"videos": [looked_up(one) for one in near if one["video_id"] != video_id][:k]}

    @app.post("/v1/videos/{video_id}/block")
    def block(video_id: int) -> Any:
        stub().blocked.add(video_id)
        return {"blocked": True}

    @app.delete("/v1/videos/{video_id}/block")
    def unblock(video_id: int) -> Any:
        stub().blocked.discard(video_id)
        return {"blocked": False}

    @app.get("/admin/status")
    def status() -> Any:
        return stub().status()

    @app.post("/admin/bundle")
    def promote(body: dict[str, Any]) -> Any:
        stub().former, stub().serving = stub().serving, Path(body["path"]).name
        return {"bundle": stub().serving, "variant": body.get("variant", "main"), "previous": stub().former}

    @app.post("/admin/rollback")
    def rollback() -> Any:
        serving = stub().former
        stub().former, stub().serving = None, str(serving)
        return {"bundle": stub().serving, "variant": "main", "previous": None}

    @app.get("/admin/report")
    def report() -> Response:
        if stub().report is None:
            stub().refused.add(404)
            return JSONResponse({"detail": "no report"}, 404)
        return HTMLResponse(stub().report)
