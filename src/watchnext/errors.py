"""Everything that can go wrong, as one tree.

WatchnextError
├── DataError            the log: a missing file, a wrong column, too many bad rows, too little to learn from
├── ConfigurationError   the settings: an unknown key, a value out of range, keys that contradict each other
├── ArtifactError        a folder we wrote earlier: damaged, of another version, or not made from its neighbours
├── TrainingError        the loss stopped being a number
├── StoreError           the store of live events: out of reach, full, busy for too long, or closed
└── RequestError         a question: an unknown user, an impossible k
    └── UnknownUserError

Each message says what came, what was expected, and what to do.
"""


class WatchnextError(Exception):
    """Any failure that a user of watchnext can act on."""


class DataError(WatchnextError):
    """The log cannot be read or is not enough to learn from."""


class ConfigurationError(WatchnextError):
    """A setting is unknown, out of range, or contradicts another."""


class ArtifactError(WatchnextError):
    """A dataset, model, index or bundle on disk is damaged, outdated or mixed."""


class TrainingError(WatchnextError):
    """Training cannot go on."""


class StoreError(WatchnextError):
    """The store of live events cannot be read or written now."""


class RequestError(WatchnextError):
    """A request asks for something impossible; nothing is wrong with the server."""


class UnknownUserError(RequestError):
    """The user has no history in the bundle."""
