"""Design tokens as files. Runs in a child where there are many: see worker.figma.picks."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.figma.css import stylesheet
from worker.figma.globs import matches
from worker.figma.picks import shaping
from worker.figma.styles import style_set
from worker.figma.variables import TokenSet, token_sets

_MOST_PROBLEMS = 500


def pick_variables(answer: Mapping[str, Any], modes: Sequence[str], outputs: Sequence[str]) -> dict[str, Any]:
    """The files of a file's variables: `files` with name, MIME type and text; `counts`, and `problems`."""
    sets, problems = token_sets(answer["meta"])
    return _written(sets, problems, modes, outputs)


def write_styles(
    styles: Mapping[str, Sequence[str]],
    values: Mapping[str, Any],
    modes: Sequence[str],
    outputs: Sequence[str],
) -> dict[str, Any]:
    """The same of its styles: names and descriptions, and values, by node. Raises Rejected `shape`."""
    with shaping():
        return _written([style_set(styles, values)], [], modes, outputs)


def _written(
    sets: list[TokenSet], problems: list[dict[str, str]], modes: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
    if modes:
        sets = [one for one in sets if matches(one.mode, modes)]
    sets = [one for one in sets if one.tokens]
    return {
        "files": list(_files(sets, outputs)),
        "counts": {"tokens": sum(len(one.tokens) for one in sets), "sets": len(sets)},
        "problems": problems[:_MOST_PROBLEMS],
    }


def _files(sets: list[TokenSet], outputs: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    if not sets:
        return
    if "dtcg" in outputs:
        taken: set[str] = set()
        for one in sets:
            name, number = one.file_name, 2
            while name in taken:
                name, number = f"{one.file_name}-{number}", number + 1
            taken.add(name)
            text = json.dumps(one.nested(), ensure_ascii=False, indent=2, allow_nan=False)
            yield f"{name}.tokens.json", "application/json", text
    if "css" in outputs:
        yield "tokens.css", "text/css", stylesheet(sets)
