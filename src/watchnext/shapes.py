"""The names of all axes, and the array types that carry them.

Every function that takes or gives an array says so as `Float[Tensor, "batch dim"]`. An axis has one name
everywhere, and a test holds every annotation to this table. The annotations are checked in tests
(jaxtyping and beartype) and cost nothing in production.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Num, UInt8, UInt16
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    Array = NDArray[Any]
else:
    Array = np.ndarray

RowLists: TypeAlias = list[Int[Array, "_"]]
"""For each user of a batch some video rows, as many as there are: what was seen, what is wanted."""

AXES = {
    "batch": "examples of one step, or users of one request",
    "history": "a user's past events, newest first, padded with row 0",
    "tokens": "a user's search tokens, newest search first, padded with row 0",
    "tags": "tags of one video, padded with row 0",
    "words": "words of one video's title, padded with row 0",
    "targets": "later watches that one example is to predict, padded with row 0",
    "candidates": "videos considered for one user, padded with row 0",
    "k": "places of a list, best first, padded with row 0",
    "width": "places of a list before it is cut or padded to k",
    "sources": "what nominates candidates",
    "samples": "sampled negative videos, or a second set of rows",
    "dim": "components of an embedding, of a layer, of a user or video vector",
    "inputs": "inputs of a tower",
    "outputs": "what the ranking network puts out for one candidate: those of its objectives, then one of each head",
    "fields": "categorical attributes of a user or a video, each a row of its vocabulary",
    "values": "continuous features",
    "features": "continuous features, each with a distribution of its own",
    "query_fields": "categorical features of a request",
    "query_values": "continuous features of a request",
    "powers": "continuous features in three powers: x, x², √x",
    "quantiles": "knots of a cumulative distribution",
    "buckets": "intervals of watch time, shortest first",
    "rows": "rows of any table, or of the candidates of all users laid out flat",
    "videos": "rows of the video vocabulary; row 0 is 'not in the vocabulary'",
    "users": "rows of the user table",
    "events": "events of all users, one user's contiguous and in time order",
    "watches": "completed watches of all users, likewise",
    "pairs": "neighbouring videos",
    "moments": "points in time at which a list was made",
    "tastes": "topics that a made-up user likes",
    "followed": "channels that a made-up user watches in order",
    "topics": "topics of a made-up world",
    "pages": "pages that a made-up site showed",
    "shelves": "bounds between the stretches of videos of one language and topic",
    "days": "whole days since upload",
    "cells": "cells of the approximate index",
    "columns": "rows of the video vocabulary that may be found at all",
    "block": "scores of neighbouring videos",
    "new": "videos that came after the bundle was made",
    "gone": "videos that were removed from an index",
    "temperatures": "what logits may be divided by",
    "spreads": "shares of the watches that may be spread over all videos",
    "horizons": "half-lives of a fading counter, shortest first; the last one never fades",
    "quantities": "what a fading counter sums of each event",
    "kinds": "kinds of keys a video has: itself, its channel, each category, its tags",
    "keys": "keys of one video, those of one kind together, padded with row 0",
    "means": "what is known of everything so far: its shares and means, and how often anything was shown",
    "owners": "users, videos or channels, whose rows lie together",
    "slots": "places for vectors in the cells, some of them empty",
    "offsets": "where each owner's rows begin, and at last where they end: one more than owners",
}

__all__ = [
    "AXES",
    "Array",
    "Bool",
    "Float",
    "Float32",
    "Int",
    "Int32",
    "Int64",
    "Num",
    "RowLists",
    "Tensor",
    "UInt8",
    "UInt16",
]
