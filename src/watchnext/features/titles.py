"""How much of a video's title the user searched for: the words that searches and titles have in common (§4.1)."""

from typing import Any, no_type_check

import numpy as np
from numba import njit

from watchnext.events.vocabulary import Vocabulary
from watchnext.native import even_parts, place_in, side_by_side, table_size
from watchnext.shapes import Array, Float, Int

TITLE_NAMES = ("user_title.searched_tokens", "user_title.searched_share")
"""The names of what `searched_titles` gives."""


def words_of_titles(vocabularies: dict[str, Vocabulary]) -> Int[Array, "rows"]:
    """Gives, for each row of the search tokens, that of the same word of titles, 0 where no title has it.

    Nothing at all where the log has no searches or no titles.
    """
    searched, titles = vocabularies["search_tokens"], vocabularies["title_tokens"]
    if min(len(searched), len(titles)) == 1:
        return np.zeros(0, dtype=np.int64)
    return searched.rows_in(titles)


def searched_titles(
    title_rows: Int[Array, "videos words"],
    video_row: Int[Array, "batch candidates"],
    searched_words: Int[Array, "batch tokens"],
) -> Float[Array, "batch candidates values"]:
    """Gives how many distinct words of each title are among those searched for, and their share of the title's words.

    Row 0 is no word; a title without words has the share NaN.

    >>> titles = np.array([[0, 0, 0], [4, 9, 4], [7, 0, 0]])
    >>> searched_titles(titles, np.array([[1, 2, 0]]), np.array([[9, 9, 0, 5]])).tolist()
    [[[1.0, 0.5], [0.0, 0.0], [0.0, nan]]]
    """
    found = np.empty((*video_row.shape, len(TITLE_NAMES)), dtype=np.float32)
    bounds = even_parts(len(video_row), video_row.size * title_rows.shape[1])
    side_by_side(_look_up, bounds, (title_rows, video_row, searched_words, found))
    return found


@njit(nogil=True, cache=True)
@no_type_check  # the tests' type checker would wrap it in what Numba cannot compile
def _look_up(
    title_rows: Any, video_row: Any, searched_words: Any, found: Any, begin: int, end: int
) -> None:  # pragma: no cover  # compiled
    table = np.empty(table_size(searched_words.shape[1]), np.int64)
    for user in range(begin, end):
        table[:] = 0
        for word in searched_words[user]:
            table[place_in(table, word)] = word
        for candidate in range(video_row.shape[1]):
            title = title_rows[video_row[user, candidate]]
            num_words, num_searched = 0, 0
            for nth in range(len(title)):
                word = np.int64(title[nth])
                repeated = False
                for earlier in range(nth):
                    repeated |= title[earlier] == word
                if word > 0 and not repeated:
                    num_words += 1
                    num_searched += table[place_in(table, word)] == word
            found[user, candidate, 0] = num_searched
            found[user, candidate, 1] = num_searched / num_words if num_words > 0 else np.nan
