"""A maximum of a limit: an integer, or an object that says whether it is in force.

``schema.py`` has the fields that are one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

MAX_LIMIT = 1_000_000

Count = Annotated[int, Field(ge=0, le=MAX_LIMIT)]
#: Whether a maximum or a rate is in force, or only counts what it would have turned away.
Mode = Literal["enforce", "observe"]


class Observed(BaseModel):
    """A maximum with its mode; in force it is a plain integer again.

    Attributes:
        max: tasks at once; 0 is unlimited, and can't be observed.
        mode: "observe" turns no task away, and counts those it would have turned away.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    max: Count
    mode: Mode = "enforce"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.mode == "observe" and not self.max:
            raise ValueError("0 is unlimited: give it a max of 1 or more to observe")
        return self


#: The forms of a maximum as an error's place has them; ``problems.py`` leaves them out.
FORMS: Final = ("[count]", "[observed]")


def _form(value: Any) -> str:
    # Of thousands nearly all are integers; to ask whether one is a Mapping takes long.
    return FORMS[not isinstance(value, int) and isinstance(value, (Mapping, Observed))]


def _plain(value: Observed) -> int | Observed:
    """Return a maximum that is in force as an integer."""
    return value.max if value.mode == "enforce" else value


Maximum = Annotated[
    Annotated[Count, Tag(FORMS[0])] | Annotated[Observed, AfterValidator(_plain), Tag(FORMS[1])],
    Discriminator(_form),
]


def enforced(maximum: int | Observed) -> int:
    """Return how many a maximum lets run at once; 0 where it is only observed."""
    return 0 if isinstance(maximum, Observed) else maximum


def observed(maximum: int | Observed) -> int:
    """Return how many an observed maximum would let run at once; 0 where it is in force."""
    return maximum.max if isinstance(maximum, Observed) else 0
