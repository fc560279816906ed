"""What a store of live events promises."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from watchnext.serving.events import LiveEvent


@runtime_checkable
class EventStore(Protocol):
    """A journal of live events that survives a kill at any moment.

    Every event has a sequence number, from 1, in the order of acceptance; no number is given twice. Calls may come
    from any thread; several processes may share one store. A limit below 1 gives nothing.

    Raises:
        StoreError: from every call, where the store is out of reach, full, busy for too long, or closed.
    """

    def append(self, events: Sequence[LiveEvent]) -> int:
        """Writes events, all or none of them, and gives how many were new; on return they are on disk.

        An event whose id is known is not written again. Events of forgotten users are written: they are somebody new.

        Raises:
            RequestError: a timestamp is no Unix time in seconds; nothing is written.
        """
        ...

    def of_user(self, user_id: str, limit: int) -> list[LiveEvent]:
        """Gives a user's newest `limit` events by timestamp, then sequence; oldest first."""
        ...

    def since(self, sequence: int, limit: int) -> list[tuple[int, LiveEvent]]:
        """Gives up to `limit` events with larger sequence numbers, in their order."""
        ...

    def for_everybody(self, sequence: int, limit: int) -> list[tuple[int, LiveEvent]]:
        """Gives what `since` does, but only events of no user: uploads, and videos that nobody shall see."""
        ...

    def last_sequence(self) -> int:
        """Gives the sequence number of the newest event, 0 if there never was one; cheap enough for every request."""
        ...

    def forget(self, user_id: str, moment: int) -> int:
        """Deletes everything of a user for good, ids of events too, and gives how many events that were.

        That the user was forgotten at `moment` (Unix seconds) is kept, so that older records elsewhere are not used.
        The latest moment counts.
        """
        ...

    def forgotten_at(self, user_id: str) -> int | None:
        """Gives when a user was last forgotten, None for most."""
        ...

    def forgotten(self) -> dict[str, int]:
        """Gives all users who were forgotten, and when."""
        ...

    def close(self) -> None:
        """Releases files or connections; later calls fail."""
        ...
