"""Design tokens as CSS custom properties: the default modes in `:root`, the others by attribute."""

import json
import re
from collections.abc import Sequence
from typing import Any

from worker.figma.variables import Token, TokenSet


def stylesheet(sets: Sequence[TokenSet]) -> str:
    """`[data-theme="Dark"]` holds the values of the mode Dark of the collection Theme."""
    blocks = []
    for one in sorted(sets, key=lambda one: not one.default):
        where = ":root" if one.default else f'[data-{_word(one.collection)}="{_quoted(one.mode)}"]'
        lines = [line for token in one.tokens for line in _declarations(one.collection, token)]
        blocks.append(f"{where} {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n")
    return "\n".join(blocks)


def _declarations(collection: str, token: Token) -> list[str]:
    name = _property(collection, token.path)
    if token.alias is not None:
        return [f"{name}: var({_property(*token.alias)});"]
    if token.type == "typography":
        value = token.value
        font = (
            f"{value['fontWeight']} {_length(value['fontSize'])}/{value['lineHeight']:g} "
            f"{json.dumps(value['fontFamily'])}"
        )
        return [f"{name}: {font};", f"{name}-letter-spacing: {_length(value['letterSpacing'])};"]
    return [f"{name}: {_value(token.type, token.value)};"]


def _value(kind: str, value: Any) -> str:
    match kind:
        case "color":
            return _colour(value)
        case "dimension":
            return _length(value)
        case "shadow":
            return ", ".join(_shadow(one) for one in (value if isinstance(value, list) else [value]))
        case "gradient":
            stops = ", ".join(f"{_colour(stop['color'])} {stop['position'] * 100:g}%" for stop in value)
            return f"linear-gradient({stops})"
        case "number":
            return f"{value:g}"
        case "boolean":
            return str(int(bool(value)))
    return json.dumps(str(value), ensure_ascii=False).replace("</", r"<\/")


def _colour(value: dict[str, Any]) -> str:
    if value["alpha"] >= 1:
        return str(value["hex"])
    red, green, blue = (f"{channel * 100:g}%" for channel in value["components"])
    return f"rgb({red} {green} {blue} / {value['alpha']:g})"


def _shadow(value: dict[str, Any]) -> str:
    lengths = " ".join(_length(value[name]) for name in ("offsetX", "offsetY", "blur", "spread"))
    return f"{'inset ' if value['inset'] else ''}{lengths} {_colour(value['color'])}"


def _length(value: dict[str, Any]) -> str:
    return f"{value['value']:g}{value['unit'] if value['value'] else ''}"


def _property(collection: str, path: tuple[str, ...]) -> str:
    return "--" + "-".join(_word(part) for part in (collection, *path))


def _word(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text).strip("-").lower() or "x"


def _quoted(text: str) -> str:
    return re.sub(r'[\\"\x00-\x1f]', "-", text)
