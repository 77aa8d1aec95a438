"""`figma.tokens`: a file's variables, or its styles, as Design Tokens and as CSS.

The format is that of the Design Tokens Community Group, 2025.10. Its types have no text and no truth value;
those get `string` and `boolean`, as most tools read them.
"""

import json
from collections.abc import Iterator
from typing import Any

from worker.figma.client import Api, reading
from worker.figma.css import stylesheet
from worker.figma.download import Downloads
from worker.figma.faults import Fault
from worker.figma.options import TokensOptions, matches
from worker.figma.styles import style_tokens
from worker.figma.variables import TokenSet, token_sets
from worker.handlers import Context, Done, File, Job
from worker.storable import utf8

_NOT_FOR_THIS_PLAN = ("figma_plan_required", "figma_forbidden", "figma_scope_missing")


async def tokens(
    options: TokensOptions, _job: Job, _context: Context, api: Api, _downloads: Downloads
) -> Done:
    """Raises Fault, RateLimited. Variables are for full members of Enterprise plans alone: `auto` takes the
    styles of every other file."""
    key, source, problems = options.reference.key, options.source, list[dict[str, str]]()
    sets: list[TokenSet] = []
    if source != "styles":
        try:
            variables = await api.variables(key)
            with reading():
                sets, problems = token_sets(variables)
            source = "variables"
        except Fault as fault:
            if source == "variables" or fault.code not in _NOT_FOR_THIS_PLAN:
                raise _with_hint(fault) from fault
            source = "styles"
    if source == "styles":
        sets = [await style_tokens(api, key, options.reference.version)]
    if options.modes:
        sets = [one for one in sets if matches(one.mode, options.modes)]
    sets = [one for one in sets if one.tokens]
    if not sets:
        raise Fault("figma_nothing_exported", f"The file has no {source} to make tokens of.")
    result = {
        "action": "figma.tokens",
        "file": key,
        "from": source,
        "counts": {"tokens": sum(len(one.tokens) for one in sets), "sets": len(sets)},
        "problems": problems[:500],
    }
    return Done(result, tuple(_files(options, sets)))


def _files(options: TokensOptions, sets: list[TokenSet]) -> Iterator[File]:
    if "dtcg" in options.outputs:
        taken: set[str] = set()
        for one in sets:
            name, number = one.file_name, 2
            while name in taken:
                name, number = f"{one.file_name}-{number}", number + 1
            taken.add(name)
            text = json.dumps(one.nested(), ensure_ascii=False, indent=2)
            yield File(f"{name}.tokens.json", "application/json", utf8(text))
    if "css" in options.outputs:
        yield File("tokens.css", "text/css", utf8(stylesheet(sets)))


def _with_hint(fault: Fault) -> Fault:
    if fault.code != "figma_plan_required":
        return fault
    details: dict[str, Any] = {**fault.details, "hint": 'source: "styles"'}
    return Fault(fault.code, f"{fault.message} Try source: styles.", **details)
