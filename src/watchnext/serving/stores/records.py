"""A live event as a store keeps it: its ids as bytes, all of it as one JSON object."""

import dataclasses
import json

from watchnext.errors import RequestError
from watchnext.serving.events import LiveEvent

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(LiveEvent)}
_FIRST_INEXACT_SECOND = 2**53
"""Redis sorts by floating-point numbers, which are exact below this."""


def to_json(event: LiveEvent) -> str:
    """Gives the fields that differ from their defaults, as ASCII.

    Raises:
        RequestError: the timestamp is no Unix time in seconds.
    """
    refuse_inexact_second(event.timestamp)
    fields = {name: getattr(event, name) for name in _DEFAULTS}
    return json.dumps({name: value for name, value in fields.items() if value != _DEFAULTS[name]})


def from_json(text: str | bytes) -> LiveEvent:
    """Gives the event back."""
    return LiveEvent(**json.loads(text))


def id_bytes(text: str) -> bytes:
    """Gives an id as bytes; any text has some, half a surrogate pair too."""
    return text.encode("utf-8", "surrogatepass")


def id_text(stored: bytes) -> str:
    """Gives the id back."""
    return stored.decode("utf-8", "surrogatepass")


def refuse_inexact_second(second: int) -> None:
    """Checks that every store orders by this second alike.

    Raises:
        RequestError: it is out of range.
    """
    if abs(second) >= _FIRST_INEXACT_SECOND:
        raise RequestError("a timestamp of 2**53 or more came; Unix seconds were expected.")
