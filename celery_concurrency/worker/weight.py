"""How many places a task takes in its shared limits: the tag ``concurrency_weight``.

Its author declares that, or its sender; it is no limit's. ``limiter/weights.py`` says what it
means.
"""

from collections.abc import Mapping
from typing import Final

from celery_concurrency.limiter.weights import weight_value

WEIGHT_TAG: Final = "concurrency_weight"


def weight_of(tags: Mapping[str, object]) -> int:
    """Return how many places a run with these tags takes in each shared limit.

    Raises:
        InvalidTag: the tag has another value.
    """
    if WEIGHT_TAG not in tags:
        return 1
    return weight_value(WEIGHT_TAG, tags[WEIGHT_TAG])
