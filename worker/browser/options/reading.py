"""From a payload to options, or to the name of the field that is wrong."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from worker.browser.faults import Fault
from worker.browser.options.page import PageOptions

Options = TypeVar("Options", bound=PageOptions)


def read(model: type[Options], payload: Mapping[str, Any]) -> Options:
    """Raises Fault `invalid_payload`, naming the first wrong field as `payload.viewport.width`."""
    try:
        options = model.model_validate(dict(payload), by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # Parts of the path that are no field but a branch of a choice have brackets in them.
        path = ".".join(str(part) for part in first["loc"] if not _is_branch(part))
        reason = "is not known" if first["type"] == "extra_forbidden" else _lower(first["msg"])
        raise invalid(path[:200], reason) from None
    if wrong := options.contradiction():
        raise invalid(*wrong)
    return options


def invalid(path: str, reason: str) -> Fault:
    field = f"payload.{path}"
    return Fault("invalid_payload", f"{field}: {reason}.", field=field)


def _is_branch(part: object) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("float", "constrained-str"))


def _lower(sentence: str) -> str:
    sentence = sentence.removeprefix("Value error, ")
    return sentence[:1].lower() + sentence[1:]
