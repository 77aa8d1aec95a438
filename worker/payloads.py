"""From a job's payload to a model of what it may ask for, or to the name of the field that is wrong."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """Strict and in camelCase; no field is accepted that does nothing."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,  # what the documents say, for the JSON Schema
    )


class Payload(Model):
    """All that one type of job may ask for."""

    def contradiction(self) -> tuple[str, str] | None:
        """The field that does not go with the others, and why."""
        return None


Options = TypeVar("Options", bound=Payload)


def read(
    model: type[Options], payload: Mapping[str, Any], invalid: Callable[[str, str], Exception]
) -> Options:
    """Raises `invalid(path, reason)` for the first wrong field; its path is as in `viewport.width`."""
    try:
        options = model.model_validate(dict(payload), by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"] if not _is_branch(part))
        reason = "is not known" if first["type"] == "extra_forbidden" else _lower(first["msg"])
        raise invalid(path[:200], reason) from None
    if wrong := options.contradiction():
        raise invalid(*wrong)
    return options


def _is_branch(part: object) -> bool:
    """Of a choice between types, and no field: pydantic names it by its type, mostly with brackets."""
    return isinstance(part, str) and ("[" in part or part in ("float", "constrained-str"))


def _lower(sentence: str) -> str:
    sentence = sentence.removeprefix("Value error, ")
    return sentence[:1].lower() + sentence[1:]
