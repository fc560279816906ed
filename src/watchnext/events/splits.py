"""Where the periods meet: global moments, so that no model sees the future of any user.

start of the log ─ retrieval alone ─ ranking_start ─ both ─ validation_start ─ validation ─ test_start ─ test ─ end

The ranker learns from impressions after `ranking_start`, whose retrieval scores come from a network that learnt
from events before it: scores that have seen the label they are to predict would mislead the ranker.
"""

from dataclasses import dataclass

from watchnext.config import SplitConfig
from watchnext.errors import DataError
from watchnext.events.log import EventLog


@dataclass(frozen=True)
class Periods:
    """The first second of each period, in order."""

    log_start: int
    ranking_start: int
    validation_start: int
    test_start: int
    log_end: int


def split_log(log: EventLog, events: str, config: SplitConfig) -> Periods:
    """Gives the periods for the timestamps of the table `events`.

    A share counts events, not days: `test_share = 0.1` puts the latest tenth of all events into the test period.

    Raises:
        DataError: the log is too short, or a given moment leaves a period empty.
    """
    first, last = (int(log.one(f"SELECT {bound}(timestamp) FROM {events}")) for bound in ("min", "max"))

    def start_of_latest(share: float, end: int) -> int:
        before = f"FROM {events} WHERE timestamp < {end}"
        moment = log.one(f"SELECT quantile_disc(timestamp, {1 - share}) {before}") if share else None
        return end if moment is None else int(moment)

    test_start = config.test_start or start_of_latest(config.test_share, last + 1)
    validation_start = config.validation_start or start_of_latest(config.validation_share, test_start)
    ranking_start = config.ranking_start or start_of_latest(config.ranking_share, validation_start)
    if not first < ranking_start < validation_start <= test_start <= last + 1:
        raise DataError(
            f"the log runs from {first} to {last}; ranking_start = {ranking_start}, validation_start = "
            f"{validation_start} and test_start = {test_start} leave a period without events. Give [split] moments "
            "inside the log, or a longer log."
        )
    return Periods(first, ranking_start, validation_start, test_start, last + 1)
