"""`figma.tokens`: a file's variables, or its styles, as Design Tokens and as CSS.

The format is that of the Design Tokens Community Group, 2025.10. Its types have no text and no truth value;
those get `string` and `boolean`, as most tools read them.
"""

from typing import Any

from worker.computing import Rejected
from worker.figma.client import Api
from worker.figma.computing import compute
from worker.figma.download import Downloads
from worker.figma.faults import Fault
from worker.figma.options import TokensOptions
from worker.figma.styles import pick_styles, pick_values
from worker.figma.writing import pick_variables, write_styles
from worker.handlers import Context, Done, File, Job
from worker.storable import utf8

_NOT_FOR_THIS_PLAN = ("figma_plan_required", "figma_forbidden", "figma_scope_missing")


async def tokens(
    options: TokensOptions, _job: Job, _context: Context, api: Api, _downloads: Downloads
) -> Done:
    """Raises Fault, RateLimited. Variables are for full members of Enterprise plans alone: `auto` takes the
    styles of every other file."""
    key, source, written = options.reference.key, options.source, dict[str, Any]()
    modes, outputs = tuple(options.modes), tuple(options.outputs)
    if source != "styles":
        try:
            path = f"/v1/files/{key}/variables/local"
            written = await api.json(2, path, {}, pick_variables, modes, outputs)
            source = "variables"
        except Fault as fault:
            if source == "variables" or fault.code not in _NOT_FOR_THIS_PLAN:
                raise _with_hint(fault) from fault
            source = "styles"
    if source == "styles":
        styles, values = await _styles(api, key, options.reference.version)
        try:
            written = await compute(api.computing, write_styles, styles, values, modes, outputs)
        except Rejected as rejected:
            raise Fault("figma_unavailable", rejected.message) from rejected
    if not written["files"]:
        raise Fault("figma_nothing_exported", f"The file has no {source} to make tokens of.")
    result = {
        "action": "figma.tokens",
        "file": key,
        "from": source,
        "counts": written["counts"],
        "problems": written["problems"],
    }
    return Done(result, tuple(File(name, mime, utf8(text)) for name, mime, text in written["files"]))


async def _styles(
    api: Api, key: str, version: str | None
) -> tuple[dict[str, list[str]], dict[str, list[list[Any]]]]:
    """Names and descriptions, and values, of the styles in the file and in its library, by node."""
    params = {"version": version} if version else {}
    styles: dict[str, list[str]] = await api.file(key, {**params, "depth": 1}, pick_styles)
    try:
        for style in await api.published(key, "styles"):
            styles[style["node_id"]] = [style["name"], style["description"]]
    except Fault as fault:
        if fault.code not in ("figma_scope_missing", "figma_forbidden", "figma_not_found"):
            raise
    return styles, await api.nodes(key, list(styles), {**params, "depth": 1}, pick_values)


def _with_hint(fault: Fault) -> Fault:
    if fault.code != "figma_plan_required":
        return fault
    details: dict[str, Any] = {**fault.details, "hint": 'source: "styles"'}
    return Fault(fault.code, f"{fault.message} Try source: styles.", **details)
