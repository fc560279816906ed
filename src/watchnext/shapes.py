"""The names of all axes, and the array types that carry them.

Every function that takes or gives an array says so as `Float[Tensor, "batch dim"]`. An axis has one name
everywhere, and a test holds every annotation to this table. The annotations are checked in tests
(jaxtyping and beartype) and cost nothing in production.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Num
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    Array = NDArray[Any]
else:
    Array = np.ndarray

AXES = {
    "batch": "examples of one step, or users of one request",
    "history": "a user's past events, newest first, padded with row 0",
    "tokens": "a user's search tokens, newest search first, padded with row 0",
    "tags": "tags of one video, padded with row 0",
    "dim": "components of an embedding or of a user or video vector",
    "inputs": "inputs of a tower",
    "samples": "sampled negative videos of one step",
    "candidates": "videos considered for one user, padded with row 0",
    "sources": "what nominates candidates",
    "features": "columns of one kind of feature",
    "powers": "the powers in which a continuous feature enters: x, x², √x",
    "quantiles": "knots of a cumulative distribution",
    "videos": "rows of the video vocabulary; row 0 is 'not in the vocabulary'",
    "users": "rows of the user table",
    "events": "events of all users, one user's contiguous and in time order",
    "watches": "completed watches of all users, likewise",
    "rows": "rows of any table",
    "draws": "bootstrap resamples",
    "days": "calendar days of the log",
    "k": "places of a result list",
}

__all__ = ["AXES", "Array", "Bool", "Float", "Float32", "Int", "Int32", "Int64", "Num", "Tensor"]
