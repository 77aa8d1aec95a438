"""Figma's styles as design tokens, for files whose variables the API does not give out."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from worker.figma.picks import word
from worker.figma.variables import Token, TokenSet, colour, pixels


def pick_styles(answer: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names and descriptions of a file's styles, by node."""
    return {
        str(node_id): [word(style.get("name", "")), word(style.get("description") or "")]
        for node_id, style in (answer.get("styles") or {}).items()
    }


def pick_values(entry: Mapping[str, Any]) -> list[list[Any]]:
    """Types and values of a style's node."""
    return [[kind, value] for kind, value in _value(entry.get("document") or {})]


def style_set(styles: Mapping[str, Sequence[str]], values: Mapping[str, Any]) -> TokenSet:
    return TokenSet("styles", "default", True, tuple(_tokens(styles, values)))


def _tokens(styles: Mapping[str, Sequence[str]], values: Mapping[str, Any]) -> Iterable[Token]:
    tokens: dict[tuple[str, ...], Token] = {}
    for node_id, (name, description) in styles.items():
        path = tuple(part.strip().replace(".", "-") for part in name.split("/") if part.strip()) or (node_id,)
        for kind, value in values.get(node_id) or ():
            tokens[path] = Token(path, kind, value, None, description, {"id": node_id})
    return tokens.values()


def _value(node: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Type and value; nothing for what the format has no word for: grids, pictures, blurs."""
    if style := node.get("style"):
        family, size = style.get("fontFamily"), style.get("fontSize")
        if family and size:
            line = float(style.get("lineHeightPx") or size) / float(size)
            value = {
                "fontFamily": family,
                "fontSize": pixels(size),
                "fontWeight": style.get("fontWeight", 400),
                "letterSpacing": pixels(style.get("letterSpacing") or 0),
                "lineHeight": round(line, 4),
            }
            return [("typography", value)]
    shadows = [_shadow(effect) for effect in node.get("effects") or () if "SHADOW" in str(effect.get("type"))]
    if shadows:
        return [("shadow", shadows[0] if len(shadows) == 1 else shadows)]
    for fill in node.get("fills") or ():
        if fill.get("type") == "SOLID" and fill.get("visible", True):
            paint = dict(fill.get("color") or {})
            paint["a"] = float(paint.get("a", 1)) * float(fill.get("opacity", 1))
            return [("color", colour(paint))]
        if fill.get("type") == "GRADIENT_LINEAR":
            stops = [
                {"color": colour(stop.get("color") or {}), "position": stop.get("position", 0)}
                for stop in fill.get("gradientStops") or ()
            ]
            return [("gradient", stops)]
    return []


def _shadow(effect: dict[str, Any]) -> dict[str, Any]:
    offset = effect.get("offset") or {}
    return {
        "color": colour(effect.get("color") or {}),
        "offsetX": pixels(offset.get("x") or 0),
        "offsetY": pixels(offset.get("y") or 0),
        "blur": pixels(effect.get("radius") or 0),
        "spread": pixels(effect.get("spread") or 0),
        "inset": effect.get("type") == "INNER_SHADOW",
    }
