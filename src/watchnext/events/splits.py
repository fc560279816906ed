"""Where training, validation and test meet: global moments, so that no model sees the future of any user."""

from watchnext.config import SplitConfig
from watchnext.errors import DataError
from watchnext.events.log import EventLog


def split_moments(log: EventLog, events: str, config: SplitConfig) -> tuple[int, int]:
    """Gives (validation_start, test_start) for the timestamps of the table `events`.

    A share counts events, not days: `test_share = 0.1` puts the latest tenth of all events into the test period.

    Raises:
        DataError: the log is too short, or the given moments leave nothing to train on.
    """
    first, last = (int(log.one(f"SELECT {bound}(timestamp) FROM {events}")) for bound in ("min", "max"))
    test_start = config.test_start
    if test_start is None:
        test_start = _moment_behind(log, events, 1 - config.test_share, last) if config.test_share else last + 1
    validation_start = config.validation_start
    if validation_start is None:
        before = f"(SELECT timestamp FROM {events} WHERE timestamp < {test_start})"
        validation_start = _moment_behind(log, before, 1 - config.validation_share, test_start - 1)
    if not first < validation_start < test_start <= last + 1:
        raise DataError(
            f"the log runs from {first} to {last}, so validation_start = {validation_start} and test_start = "
            f"{test_start} leave a period without events. Give [split] moments inside the log, or a longer log."
        )
    return validation_start, test_start


def _moment_behind(log: EventLog, events: str, share: float, latest: int) -> int:
    quantile = log.one(f"SELECT quantile_disc(timestamp, {share}) FROM {events}")
    return latest if quantile is None else int(quantile)
