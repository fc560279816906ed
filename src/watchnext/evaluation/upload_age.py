"""How popularity runs with the time since upload: the curve that example age lets a network learn (§3.3, figure 4)."""

import numpy as np

from watchnext.events.schema import SECONDS_OF_A_DAY
from watchnext.shapes import Array, Float, Int


def upload_age_curve(
    share: Float[Array, "moments videos"],
    uploaded_at: Int[Array, "videos"],
    moments: Int[Array, "moments"],
    num_days: int,
) -> Float[Array, "days"]:
    """Gives a video's mean share by whole days since its upload, scaled to a sum of 1.

    `share` says how much of all watches each video has at each moment, or is predicted to have. Only videos that
    were uploaded after the first moment and `num_days` before the last are counted, so that each of them stands
    behind every day of the curve. NaN where there are none.
    """
    counted = (uploaded_at >= moments[0]) & (uploaded_at + num_days * SECONDS_OF_A_DAY <= moments[-1])
    age = (moments[:, None] - uploaded_at[counted]) // SECONDS_OF_A_DAY
    shown = (age >= 0) & (age < num_days)
    total = np.bincount(age[shown], share[:, counted][shown], minlength=num_days)
    mean = total / np.bincount(age[shown], minlength=num_days)
    curve: Array = mean / mean.sum()
    return curve
