"""Asks a page something with a script of ours, and trusts the answer no more than the page."""

import json
from typing import Any, Protocol, TypeVar

from playwright.async_api import BrowserContext, CDPSession, Page
from playwright.async_api import Error as PlaywrightError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from worker.browser.faults import Fault, of_driver

Shape = TypeVar("Shape")


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Box(Answer):
    """CSS pixels."""

    x: float
    y: float
    width: float
    height: float


class Asked(Protocol):
    """A page, a frame, an element."""

    async def evaluate(self, expression: str, arg: Any = None) -> Any: ...


class Line:
    """A page over the browser's protocol (https://chromedevtools.github.io/devtools-protocol/), for what the
    driver has no method for, or a costly one. Opened when it is first needed."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self._context = context
        self._page = page
        self._session: CDPSession | None = None

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Raises playwright's Error."""
        if self._session is None:
            self._session = await self._context.new_cdp_session(self._page)
        answer: dict[str, Any] = await self._session.send(method, parameters)
        return answer

    async def evaluate(self, expression: str, arg: Any = None) -> Any:
        """As the page's own `evaluate`, which first puts a library of the driver's into each page: that costs
        a job some hundredths of its time."""
        answer = await self.send(
            "Runtime.evaluate",
            expression=f"({expression})({json.dumps(arg)})",
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in answer:
            raise PlaywrightError("The script threw.")
        return answer["result"].get("value")


async def ask(asked: Asked, script: str, shape: type[Shape], argument: Any = None) -> Shape:
    """Raises Fault `page_error` when the page has put something of its own in the place of what scripts rely
    on, and what playwright raises for all that is not the page's doing."""
    try:
        return _adapter(shape).validate_python(await asked.evaluate(script, argument), strict=True)
    except PlaywrightError as error:
        fault = of_driver(error)
        if fault is None or fault.code != "capture_failed":
            raise
        raise _unreadable() from error
    except ValidationError as error:
        raise _unreadable() from error


def _unreadable() -> Fault:
    return Fault("page_error", "The page does not let scripts look at it.")


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(shape: type[Shape]) -> TypeAdapter[Shape]:
    if shape not in _ADAPTERS:
        _ADAPTERS[shape] = TypeAdapter(shape)
    return _ADAPTERS[shape]
