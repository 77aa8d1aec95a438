"""A table of paths in one function: how `collab` is many endpoints behind one address."""

import re
from collections.abc import Mapping, Sequence

from flask import Request, Response

from sidejob.endpoint import Route, Target, answer, mounted
from sidejob.errors import Refused


def table(name: str, prefix: str, routes: Sequence[Route]) -> Target:
    """A function's target that answers the routes under a prefix, wherever the function itself is mounted.

    prefix: `/api/collab/`; what stands before it in the path (`/functions/v1/collab`) is not looked at.
    """
    compiled: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
    for route in routes:
        pattern = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(route.path)))
        compiled.setdefault(route.path, (pattern, {}))[1][route.method] = route

    def find(path: str) -> tuple[Mapping[str, Route], Mapping[str, str]]:
        _, found, rest = path.rpartition(prefix)
        for pattern, methods in compiled.values():
            match = pattern.fullmatch(rest)
            if found and match:
                return methods, match.groupdict()
        known = ", ".join(sorted(compiled))
        raise Refused("not_found", "There is no such route.", hint=f"Under {prefix}: {known}")

    def serve(request: Request) -> Response:
        return answer(request, name, find)

    serve.__name__ = name
    return mounted(serve)
