"""Problems: what is wrong with a configuration or a request, field by field, and the remedy.

What may be in a configuration is in ``schema.py``. Over HTTP these are also said in Chinese
(``api/details.py``).
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from celery_concurrency.limiter.config.maximum import FORMS
from celery_concurrency.text import closest, printable

#: Mistakes that one error names, and characters of a name in them.
MAX_DETAILS: Final = 20
MAX_QUOTED: Final = 200  # characters

NO_FIELD: Final = "there is no such field"

#: What an error's place has besides fields and names.
_NO_PLACES: Final = ("[key]", *FORMS)
#: The fields of what is inside of fields.
_INNER: Final = (
    *("max", "overrides", "fair", "weights"),
    *("per", "mode", "min", "decrease", "every"),
    *("most", "seconds"),
)
#: Fields that hold no single value: what they look like in JSON, and on the command line.
_EXAMPLES: Final[Mapping[str, tuple[str, str]]] = {
    "platform_max": ('{"douyin": 3}', "platform_max.douyin=3"),
    "task_type_max": ('{"publish": 3}', "task_type_max.publish=3"),
    "account_overrides": ('{"acc123": 3}', "account_overrides.acc123=3"),
    "dimensions": ('{"tenant": {"max": 3}}', "dimensions.tenant.max=3"),
    "rates": ('{"account:*": [{"max": 1, "per": 30}]}', "rates.account:*=1/30s"),
    "adaptive": ('{"platform:*": {"min": 1, "max": 10}}', "adaptive.platform:*=1-10"),
    "fair": ('{"account": {"weights": {"acc123": 3}}}', "fair.account.weights.acc123=3"),
    "waiting": ('{"account:*": {"most": 100}}', 'waiting.account:*={"most": 100}'),
    "paused": ('["platform:douyin"]', 'paused=["platform:douyin"]'),
}
_WRONG_FORMS: Final = ("dict_type", "list_type", "model_type", "tuple_type")


def details_of(exc: ValidationError, model: type[BaseModel]) -> list[dict[str, str]]:
    """Return what is wrong, ``{"field": ..., "problem": ...}`` each; ``MAX_DETAILS`` at most.

    Args:
        model: which was to be made.
    """
    return [
        {
            "field": quoted(".".join(str(part) for part in error["loc"] if part not in _NO_PLACES)),
            "problem": _problem(error, model),
        }
        for error in exc.errors(include_url=False, include_input=False)[:MAX_DETAILS]
    ]


def quoted(text: object) -> str:
    """Return a name in a line of bounded length."""
    shown = printable(text)
    return shown if len(shown) <= MAX_QUOTED else shown[: MAX_QUOTED - 3] + "..."


def did_you_mean(meant: str | None) -> str:
    """Return the question that ends a problem; "" where nothing is meant."""
    return f"; did you mean {quoted(meant)}?" if meant else ""


def _problem(error: Any, model: type[BaseModel]) -> str:
    place = error["loc"]
    if error["type"] == "extra_forbidden":
        fields = model.model_fields if len(place) == 1 else _INNER
        return NO_FIELD + did_you_mean(closest(str(place[-1])[:MAX_QUOTED], fields))
    example = _EXAMPLES.get(str(place[0])) if place else None
    if example and error["type"] in _WRONG_FORMS:
        in_json, in_shell = example
        return f"it looks like {in_json}, on the command line {in_shell}"
    message: str = error["msg"]
    return message.removeprefix("Value error, ")
