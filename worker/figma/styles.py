"""Figma's styles as design tokens, for files whose variables the API does not give out."""

from collections.abc import Iterable, Mapping
from typing import Any

from worker.figma.client import Api, reading
from worker.figma.faults import Fault
from worker.figma.variables import Token, TokenSet, colour, pixels


async def style_tokens(api: Api, key: str, version: str | None) -> TokenSet:
    """Colours, texts and shadows of the styles in the file and in its library. Raises Fault, RateLimited."""
    params = {"version": version} if version else {}
    file = await api.file(key, {**params, "depth": 1})
    styles = {
        str(node_id): (str(style.get("name", "")), str(style.get("description") or ""))
        for node_id, style in (file.get("styles") or {}).items()
    }
    try:
        for style in await api.published(key, "styles"):
            styles[str(style.get("node_id"))] = (
                str(style.get("name", "")),
                str(style.get("description") or ""),
            )
    except Fault as fault:
        if fault.code not in ("figma_scope_missing", "figma_forbidden", "figma_not_found"):
            raise
    found = await api.nodes(key, list(styles), {**params, "depth": 1})
    with reading():
        return TokenSet("styles", "default", True, tuple(_tokens(styles, found)))


def _tokens(styles: Mapping[str, tuple[str, str]], found: Mapping[str, Any]) -> Iterable[Token]:
    tokens: dict[tuple[str, ...], Token] = {}
    for node_id, (name, description) in styles.items():
        document = (found.get(node_id) or {}).get("document") or {}
        path = tuple(part.strip().replace(".", "-") for part in name.split("/") if part.strip()) or (node_id,)
        for kind, value in _value(document):
            tokens[path] = Token(path, kind, value, None, description, {"id": node_id})
    return tokens.values()


def _value(node: dict[str, Any]) -> list[tuple[str, Any]]:
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
