"""Figma's variables as design tokens: one set a collection and mode."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_LENGTHS = {
    "WIDTH_HEIGHT",
    "GAP",
    "CORNER_RADIUS",
    "STROKE_FLOAT",
    "FONT_SIZE",
    "LINE_HEIGHT",
    "LETTER_SPACING",
    "PARAGRAPH_SPACING",
    "PARAGRAPH_INDENT",
    "EFFECT_FLOAT",
}  # fmt: skip  scopes whose numbers are pixels


@dataclass(frozen=True, slots=True)
class Token:
    path: tuple[str, ...]  # Color/Brand/Primary
    type: str  # of DTCG
    value: Any  # of DTCG; an alias is "{Color.Brand.Primary}"
    alias: tuple[str, tuple[str, ...]] | None = None  # collection and path that the value refers to
    description: str = ""
    figma: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        token: dict[str, Any] = {"$type": self.type, "$value": self.value}
        if self.description:
            token["$description"] = self.description
        if self.figma:
            token["$extensions"] = {"com.figma": dict(self.figma)}
        return token


@dataclass(frozen=True, slots=True)
class TokenSet:
    """The tokens of one mode of a collection."""

    collection: str
    mode: str
    default: bool  # the mode that counts where none is chosen
    tokens: tuple[Token, ...]

    @property
    def file_name(self) -> str:
        return ".".join(
            re.sub(r"[^\w@=,-]+", "-", part).strip("-") or "set" for part in (self.collection, self.mode)
        )

    def nested(self) -> dict[str, Any]:
        """The groups of the format. A token that is a group's namesake stands in it as `$root`."""
        tree: dict[str, Any] = {}
        for token in self.tokens:
            group = tree
            for name in token.path[:-1]:
                group = group.setdefault(name, {})
                if "$value" in group:
                    inner = {key: group.pop(key) for key in list(group) if key.startswith("$")}
                    group["$root"] = inner
            last = token.path[-1]
            if isinstance(group.get(last), dict) and "$value" not in group[last]:
                group[last]["$root"] = token.as_json()
            else:
                group[last] = token.as_json()
        return tree


def token_sets(meta: Mapping[str, Any]) -> tuple[list[TokenSet], list[dict[str, str]]]:
    """The sets, and what is wrong with the file: aliases that lead nowhere or in a circle, names twice."""
    variables: dict[str, Any] = meta.get("variables") or {}
    collections: dict[str, Any] = meta.get("variableCollections") or {}
    problems = _circles(variables)
    circular = {problem["variable"] for problem in problems}
    sets = []
    for collection in collections.values():
        if collection.get("remote"):
            continue
        for mode in collection.get("modes") or ():
            tokens: dict[tuple[str, ...], Token] = {}
            for variable in _of(collection, variables):
                path = _path(str(variable.get("name", "")))
                value = (variable.get("valuesByMode") or {}).get(mode["modeId"])
                if variable.get("deletedButReferenced"):
                    _add(problems, "deletedButReferenced", variable)
                elif str(variable.get("id")) in circular or value is None:
                    continue
                elif path in tokens:
                    _add(problems, "duplicate", variable)
                elif token := _token(variable, path, value, variables, collections, problems):
                    tokens[path] = token
            default = mode["modeId"] == collection.get("defaultModeId")
            sets.append(TokenSet(str(collection["name"]), str(mode["name"]), default, tuple(tokens.values())))
    return sets, problems


def colour(value: Mapping[str, Any]) -> dict[str, Any]:
    """DTCG 2025.10, color module. Figma's channels go from 0 to 1."""
    channels = [round(float(value.get(name, 0)), 6) for name in "rgb"]
    shown = "#" + "".join(f"{round(min(max(channel, 0), 1) * 255):02x}" for channel in channels)
    return {
        "colorSpace": "srgb",
        "components": channels,
        "alpha": round(float(value.get("a", 1)), 6),
        "hex": shown,
    }


def pixels(value: float) -> dict[str, Any]:
    return {"value": round(float(value), 4), "unit": "px"}


def _of(collection: Mapping[str, Any], variables: Mapping[str, Any]) -> list[Any]:
    ordered = [variables[name] for name in collection.get("variableIds") or () if name in variables]
    return ordered or [v for v in variables.values() if v.get("variableCollectionId") == collection.get("id")]


def _token(
    variable: Mapping[str, Any],
    path: tuple[str, ...],
    value: Any,
    variables: Mapping[str, Any],
    collections: Mapping[str, Any],
    problems: list[dict[str, str]],
) -> Token | None:
    scopes = list(variable.get("scopes") or ())
    kind = _type(str(variable.get("resolvedType")), scopes)
    known = {
        "id": variable.get("id"),
        "scopes": scopes or None,
        "codeSyntax": variable.get("codeSyntax") or None,
        "hiddenFromPublishing": variable.get("hiddenFromPublishing") or None,
    }
    figma = {name: entry for name, entry in known.items() if entry is not None}
    alias = None
    if isinstance(value, Mapping) and value.get("type") == "VARIABLE_ALIAS":
        target = variables.get(str(value.get("id")))
        if target is None or target.get("remote"):
            _add(
                problems, "danglingAlias" if target is None else "remoteAlias", variable, str(value.get("id"))
            )
            return None
        collection = collections.get(str(target.get("variableCollectionId"))) or {}
        alias = (str(collection.get("name", "")), _path(str(target.get("name", ""))))
        written: Any = "{" + ".".join(alias[1]) + "}"
    elif kind == "color":
        written = colour(value)
    elif kind == "dimension":
        written = pixels(value)
    else:
        written = value
    return Token(path, kind, written, alias, str(variable.get("description") or ""), figma)


def _type(resolved: str, scopes: list[str]) -> str:
    if resolved == "FLOAT":
        return "dimension" if scopes and set(scopes) <= _LENGTHS else "number"
    if resolved == "STRING":
        return "fontFamily" if scopes == ["FONT_FAMILY"] else "string"
    return {"COLOR": "color", "BOOLEAN": "boolean"}.get(resolved, "string")


def _path(name: str) -> tuple[str, ...]:
    """The format keeps `{`, `}`, `.` and a leading `$` for itself (DTCG 2025.10, 5.1.1)."""
    parts = [re.sub(r"[{}.]", "-", part.strip()).lstrip("$") for part in name.split("/")]
    return tuple(part for part in parts if part) or ("unnamed",)


def _circles(variables: Mapping[str, Any]) -> list[dict[str, str]]:
    """Variables whose aliases lead back to themselves, in any mode."""
    leads = {
        name: {
            str(value["id"])
            for value in (variable.get("valuesByMode") or {}).values()
            if isinstance(value, Mapping) and value.get("type") == "VARIABLE_ALIAS"
        }
        for name, variable in variables.items()
    }
    found: list[dict[str, str]] = []
    for name, variable in variables.items():
        seen: set[str] = set()
        waiting = list(leads[name])
        while waiting and name not in seen:
            step = waiting.pop()
            if step not in seen:
                seen.add(step)
                waiting.extend(leads.get(step, ()))
        if name in seen:
            _add(found, "circularAlias", {**variable, "id": name})
    return found


def _add(problems: list[dict[str, str]], problem: str, variable: Mapping[str, Any], target: str = "") -> None:
    entry = {"problem": problem, "variable": str(variable.get("id")), "name": str(variable.get("name"))}
    if target:
        entry["target"] = target
    if entry not in problems:
        problems.append(entry)
