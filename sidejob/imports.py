"""What a cold start does without: modules that a library looks for, uses if they are there, and can miss."""

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

_pyjwt = threading.Lock()


@contextlib.contextmanager
def absent(*names: str) -> Iterator[None]:
    """Within, these modules cannot be imported, unless they were before."""
    hidden = [name for name in names if name not in sys.modules]
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules |= dict.fromkeys(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


def pyjwt(*, asymmetric: bool = False) -> Any:
    """The module `jwt`, which is never imported in another way.

    asymmetric: it has to know public keys. They need `cryptography`, which is a sixth of a cold start, and
    which PyJWT looks for but once; so when the first one comes after all, PyJWT is loaded anew. Who still
    holds the old module finishes with it.
    """
    with _pyjwt:
        loaded = sys.modules.get("jwt")
        if loaded is None or (asymmetric and not loaded.algorithms.has_crypto):
            for name in [name for name in sys.modules if name.partition(".")[0] == "jwt"]:
                del sys.modules[name]
            with contextlib.nullcontext() if asymmetric else absent("cryptography"):
                importlib.import_module("jwt")
        import jwt

        return jwt
