"""Which bundles answer, and for whom: promotion, rollback, and two bundles side by side."""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from watchnext.artifacts import open_artifact, state_on_disk, writing_file
from watchnext.bundle.bundle import Bundle
from watchnext.errors import ArtifactError, ConfigurationError, RequestError, WatchnextError
from watchnext.memory import give_back_freed_memory
from watchnext.serving.events import LiveEvent
from watchnext.serving.funnel import Question
from watchnext.serving.live_records import past_of
from watchnext.serving.recommendation import Recommendation
from watchnext.serving.recommender import Recommender, recommendations
from watchnext.serving.stores.protocol import EventStore

MAIN = "main"
_log = logging.getLogger(__name__)
_SHARES = 2**32
_EVENTS_AT_ONCE = 10_000
_RECENT_EVENTS = 50_000
"""What is watched now is known by so many of the latest events when a bundle begins to serve."""

_CHECKED_USERS = 5
_CHECKED_K = 10
_CHECKED_KEPT = 10


@dataclass(frozen=True)
class Named:
    """What other processes are told of a variant."""

    name: str
    share: float
    path: Path
    version: str


@dataclass(frozen=True)
class Variant:
    """A bundle that answers a share of the users, by the name that answers and logs give."""

    name: str
    share: float
    path: Path
    recommender: Recommender
    loaded_at: float

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.recommender.bundle.version


@dataclass(frozen=True)
class Deployment:
    """The variants that answer at one time; their shares add up to 1."""

    variants: tuple[Variant, ...]

    @property
    def named(self) -> tuple[Named, ...]:
        """What other processes are told of it."""
        return tuple(Named(one.name, one.share, one.path, one.version) for one in self.variants)

    def variant_of(self, who: str | None) -> Variant:
        """Gives the variant of a user: the same one at every request. Nobody in particular has the first."""
        if who is None or len(self.variants) == 1:
            return self.variants[0]
        place = int.from_bytes(hashlib.sha256(who.encode()).digest()[:4]) / _SHARES
        for variant in self.variants:
            place -= variant.share
            if place < 0.0:
                return variant
        return self.variants[-1]


class Deployed:
    """The deployment that answers now, and the one before it; both keep up with what comes into the store.

    One assignment switches: requests that have begun finish on what they began with. A new bundle knows all uploads and
    blocked videos, and the latest watches.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._following = threading.Lock()
        self._followed = store.last_sequence()
        self.previous: Deployment | None = None
        self._now: Deployment | None = None

    @property
    def now(self) -> Deployment:
        """The deployment that answers.

        Raises:
            RequestError: none does yet.
        """
        if self._now is None:
            raise RequestError("no bundle is served yet: wait until /readyz says so.")
        return self._now

    def follow(self) -> None:
        """Takes in what came into the store since the last time: uploads, blocked videos, watches."""
        if self._store.last_sequence() == self._followed:
            return
        with self._following:
            while events := self._store.since(self._followed, _EVENTS_AT_ONCE):
                for variant in self._loaded_variants():
                    _apply(variant, [event for _, event in events])
                self._followed = events[-1][0]

    def replace(self, to: Deployment) -> None:
        """Makes the new variants know what the old ones do, then switches."""
        known = {id(one.recommender) for one in self._loaded_variants()}
        fresh = [one for one in to.variants if id(one.recommender) not in known]
        followed = self._followed
        recent = max(followed - _RECENT_EVENTS, 0)
        _replay(self._store.for_everybody, 0, recent, fresh)
        _replay(self._store.since, recent, followed, fresh)
        with self._following:
            _replay(self._store.since, followed, self._followed, fresh)
            self.previous, self._now = self._now, to

    def _loaded_variants(self) -> list[Variant]:
        every = [*(self._now.variants if self._now else ()), *(self.previous.variants if self.previous else ())]
        return list({id(variant.recommender): variant for variant in every}.values())


class Deployments(Deployed):
    """The same with promotion and rollback: think of it as the operator's hand.

    A new bundle is loaded and checked beside the old one, then switched to. What is deployed is written to `memory`, a
    JSON file, for the next start. `elsewhere` lets other processes get ready for a deployment, and gives what makes
    them switch.
    """

    def __init__(self, store: EventStore, memory: Path) -> None:
        super().__init__(store)
        self._memory = memory
        self._changing = threading.Lock()
        self.elsewhere: Callable[[tuple[Named, ...]], Callable[[], None]] = lambda named: lambda: None

    def restore(self) -> None:
        """Lets those answer again who did when `memory` was written.

        Raises:
            ConfigurationError: it is not there, or is none.
            ArtifactError: a bundle is damaged or gone.
        """
        if not self._memory.exists():
            raise ConfigurationError(f"no bundle was named, and {self._memory.parent} remembers none: say --bundle.")
        try:
            said = json.loads(self._memory.read_text())["now"]
            known = [(Path(one["path"]), float(one["share"]), str(one["variant"])) for one in said]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{self._memory} does not say what was deployed: remove it, and say --bundle."
            ) from error
        for place, (path, share, name) in enumerate(known):
            self.promote(path, share if place else 1.0, name)

    def promote(self, path: Path, share: float = 1.0, name: str = MAIN) -> Variant:
        """Loads and checks the bundle, then lets it answer: everybody, or a share of the users beside the first bundle.

        Raises:
            ArtifactError: it is damaged, or does not serve what it says offline.
            RequestError: an impossible share or name, or another promotion is going on.
        """
        if not 0.0 < share <= 1.0:
            raise RequestError(f"share = {share}: above 0 and up to 1 was expected, the share of users it answers.")
        if share < 1.0 and (self._now is None or name == self._now.variants[0].name):
            raise RequestError("a share needs a bundle to share with, and another name than that one's: say variant.")
        if not self._changing.acquire(blocking=False):
            raise RequestError("another promotion is going on: wait for it.")
        try:
            variant = self._loaded(path, share, name)
            before = self._now
            beside: tuple[Variant, ...] = ()
            if share < 1.0 and before is not None:
                first = before.variants[0]
                beside = (Variant(first.name, 1.0 - share, first.path, first.recommender, first.loaded_at),)
            self._switch(Deployment((*beside, variant)))
            return variant
        finally:
            self._changing.release()

    def rollback(self) -> Deployment:
        """Goes back to the deployment before this one, which becomes the one to go back to.

        Raises:
            RequestError: there was none, or a promotion is going on.
        """
        if not self._changing.acquire(blocking=False):
            raise RequestError("a promotion is going on: wait for it.")
        try:
            if self.previous is None or self._now is None:
                raise RequestError("there is nothing to go back to: no other bundle was served since the start.")
            self._switch(self.previous)
            return self.now
        finally:
            self._changing.release()

    def _loaded(self, path: Path, share: float, name: str) -> Variant:
        try:
            open_artifact(path, "bundle", verify=False)  # any other folder may be of any size
            on_disk = state_on_disk(path)
            recommender = Recommender.open(path, verify=on_disk not in self._checked())
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read: {error.strerror}. Name the folder of a bundle.") from error
        refuse_other_answers(recommender, path)
        self._note_checked(on_disk)
        give_back_freed_memory()  # of checking and trying it
        return Variant(name, share, path.absolute(), recommender, time.time())

    def _checked(self) -> list[str]:
        """What bundles were on disk when their bytes were last read: a restart need not read them again."""
        try:
            return list(json.loads(self._memory.with_name("checked.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return []

    def _note_checked(self, on_disk: str) -> None:
        latest = [*(one for one in self._checked() if one != on_disk), on_disk][-_CHECKED_KEPT:]
        with writing_file(self._memory.with_name("checked.json")) as aside:
            aside.write_text(json.dumps(latest))

    def _switch(self, to: Deployment) -> None:
        """Switches here and elsewhere, and remembers it."""
        switch_elsewhere = self.elsewhere(to.named)
        self.replace(to)
        switch_elsewhere()
        said = {
            when: [{"variant": one.name, "share": one.share, "path": str(one.path)} for one in which.variants]
            for when, which in (("now", to), ("previous", self.previous))
            if which is not None
        }
        with writing_file(self._memory) as aside:
            aside.write_text(json.dumps(said, indent=2))


def _replay(
    read: Callable[[int, int], list[tuple[int, LiveEvent]]], after: int, until: int, variants: Sequence[Variant]
) -> None:
    """Lets variants take in what `read` gives of the events with sequence numbers above `after`, up to `until`."""
    while variants and after < until and (events := read(after, _EVENTS_AT_ONCE)):
        for variant in variants:
            _apply(variant, [event for sequence, event in events if sequence <= until])
        after = events[-1][0]


def _apply(variant: Variant, events: Sequence[LiveEvent]) -> None:
    """An upload that this bundle's log has no columns for is none of its videos; no event stops those after it."""

    def refused(event: LiveEvent, error: Exception) -> None:
        _log.warning("bundle %s takes no %s: %s", variant.version, event.kind, type(error).__name__)

    variant.recommender.live.apply_all(events, refused)


def refuse_other_answers(recommender: Recommender, path: Path) -> None:
    """Refuses a bundle whose answers to requests are not those of the command line, or that cannot answer.

    Raises:
        ArtifactError: it is one.
    """
    dataset = recommender.bundle.dataset
    users = np.linspace(1, len(dataset.vocabularies["users"]) - 1, _CHECKED_USERS).astype(np.int64)
    k = min(_CHECKED_K, dataset.num_videos - 1)
    try:
        for user_id in dataset.vocabularies["users"].ids_of(np.unique(users)):
            if _as_served(recommender, user_id, k) != recommender.recommend(user_id, k):
                raise ArtifactError(f"the bundle in {path} serves another list than 'watchnext recommend' gives.")
        _answer_with_an_upload(recommender.bundle, user_id, k)
    except WatchnextError:
        raise
    except Exception as error:
        raise ArtifactError(f"the bundle in {path} cannot answer: {type(error).__name__}.") from error


def _as_served(recommender: Recommender, user_id: int | str, k: int) -> list[Recommendation]:
    """What a request is answered by: the user's own records instead of the whole log's."""
    past, funnel = past_of(recommender.live, str(user_id), [], None), recommender.funnel
    question = Question(past.records, np.array([1]), recommender.moment(None), k)
    context = funnel.context(question)
    candidates = funnel.candidates(question, context)
    inputs = funnel.inputs(question, context, candidates, recommender.bundle.state)
    return recommendations(recommender.live, funnel.page(question, candidates, funnel.predictions(inputs)))


def _answer_with_an_upload(bundle: Bundle, user_id: int | str, k: int) -> None:
    """Tries in a copy what the first upload will need: compiled loops are loaded now, not in somebody's request."""
    copy = Recommender(bundle)
    copy.live.apply(LiveEvent("", "upload", bundle.dataset.log_end - 1, video_id="an upload", upload={"title": "new"}))
    _as_served(copy, user_id, k)
