"""Windows of histories: what lets an encoder that reads events in order serve many examples at once."""

from dataclasses import dataclass

import numpy as np
import torch

from watchnext.events.dataset import Segments
from watchnext.examples.contexts import UserContext, UserRecords, context_as_of
from watchnext.shapes import Array, Int, Tensor


@dataclass(frozen=True)
class BatchWindows:
    """Histories as of their last example's moment; example i sees window `window[i]` but its newest `hidden[i]` events.

    `hidden[i]` may be the window's whole length: then nothing is known.
    """

    history: UserContext
    window: Int[Tensor, "batch"]
    hidden: Int[Tensor, "batch"]


@dataclass(frozen=True)
class Windows:
    """Windows of `length` events, and the examples of each.

    Examples `members[offsets[w]:offsets[w + 1]]` belong to window w. A user with more than `length` events has
    windows that overlap by half, so that every example sees at least half a window.
    """

    user_row: Int[Array, "rows"]
    moment: Int[Array, "rows"]
    end: Int[Array, "rows"]
    length: int
    members: Int[Array, "_"]
    hidden: Int[Array, "_"]
    offsets: Int[Array, "offsets"]

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.user_row)

    def batch(self, records: UserRecords, chosen: Int[Array, "rows"]) -> tuple[Int[Array, "_"], BatchWindows]:
        """Gives the examples of the chosen windows, and the windows."""
        starts, ends = self.offsets[chosen], self.offsets[chosen + 1]
        lengths = ends - starts
        window = np.repeat(np.arange(len(chosen)), lengths)
        places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(lengths.sum())
        history = context_as_of(records, self.user_row[chosen], self.moment[chosen], self.length, 1)
        return self.members[places], BatchWindows(
            history, torch.from_numpy(window), torch.from_numpy(self.hidden[places])
        )


def windows_of(segments: Segments, user_row: Int[Array, "_"], moments: Int[Array, "_"], length: int) -> Windows:
    """Puts examples, each a user as of a moment, into windows of their users' events."""
    known = segments.ends_before(user_row, moments)
    order = np.lexsort((known, user_row))
    last_of_user = np.flatnonzero(np.append(user_row[order][1:] != user_row[order][:-1], True)[: len(order)])
    newest = np.zeros(len(segments.offsets), dtype=np.int64)
    newest[user_row[order][last_of_user]] = known[order][last_of_user]
    behind = newest[user_row] - known
    long = newest[user_row] - segments.offsets[user_row] > length
    nth = np.where(long, behind // max(length // 2, 1), 0)
    order = np.lexsort((known, -nth, user_row))
    owner, nth, known, behind = user_row[order], nth[order], known[order], behind[order]
    last = np.append((owner[1:] != owner[:-1]) | (nth[1:] != nth[:-1]), True)[: len(order)]
    ends = np.flatnonzero(last)
    offsets = np.append(0, ends + 1)
    window = np.repeat(np.arange(len(ends)), np.diff(offsets))
    return Windows(
        user_row=owner[ends],
        moment=moments[order][ends],
        end=known[ends],
        length=length,
        members=order,
        hidden=np.minimum(known[ends][window] - known, length),
        offsets=offsets,
    )
