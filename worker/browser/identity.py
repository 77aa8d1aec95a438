"""As whom a job visits: its options as the driver's arguments for a context."""

from typing import Any

from playwright.async_api import BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from worker.browser.asking import Line
from worker.browser.engine import Engine
from worker.browser.faults import invalid
from worker.browser.options.page import PageOptions
from worker.browser.targets import Target

_COOKIE_NAMES = {"http_only": "httpOnly", "same_site": "sameSite"}


async def of(options: PageOptions, target: Target | None, engine: Engine) -> dict[str, Any]:
    """What a new context needs to be told. Raises Fault `invalid_payload`."""
    chosen: dict[str, Any] = {
        "viewport": {"width": 1280, "height": 720},
        "user_agent": await engine.user_agent(),
    }
    if options.device is not None:
        device = await engine.device(options.device)
        if device is None:
            raise invalid("device", "is not a device that the browser knows, such as 'iPhone 15'")
        chosen |= {
            key: value for key, value in device.items() if key not in ("default_browser_type", "screen")
        }
    if options.viewport is not None:
        chosen["viewport"] = options.viewport.model_dump()
    wished = {
        "device_scale_factor": options.scale,
        "user_agent": options.user_agent,
        "locale": options.locale,
        "timezone_id": options.timezone,
        "extra_http_headers": options.headers or None,
    }
    chosen |= {key: value for key, value in wished.items() if value is not None}
    if options.http_auth is not None and target is not None:
        chosen["http_credentials"] = {**options.http_auth.model_dump(), "origin": target.web_origin}
    if options.geolocation is not None:
        chosen |= {"geolocation": options.geolocation.model_dump(), "permissions": ["geolocation"]}
    return chosen | {
        "color_scheme": options.color_scheme,
        "reduced_motion": options.reduced_motion,
        "forced_colors": options.forced_colors,
        "java_script_enabled": options.javascript,
        "ignore_https_errors": options.ignore_tls_errors,
        "accept_downloads": False,
        "service_workers": "block",
    }


async def add_cookies(context: BrowserContext, options: PageOptions) -> None:
    """Also what a storage state has. Raises Fault `invalid_payload`."""
    if options.storage_state is not None:
        # Not as an option of the context: that would have to come in the time that a browser has for one.
        try:
            state: Any = options.storage_state.model_dump(by_alias=True)
            await context.set_storage_state(state)
        except PlaywrightError as error:
            raise invalid(
                "storageState", "the browser does not take one of its cookies or origins"
            ) from error
    if not options.cookies:
        return
    try:
        await context.add_cookies(
            [_cookie(cookie.model_dump(exclude_none=True)) for cookie in options.cookies]
        )
    except PlaywrightError as error:
        raise invalid("cookies", "the browser does not take one of them") from error


def of_page_error(error: PlaywrightError, options: PageOptions) -> Exception:
    """A locale or time zone is only looked at when a page is made."""
    for name in ("timezone", "locale"):
        if name in error.message.lower() and getattr(options, name) is not None:
            return invalid(name, "is not known to the browser")
    return error


async def emulate(page: Page, line: Line, options: PageOptions) -> None:
    if options.media == "print":
        await page.emulate_media(media="print")
        # A line that is open when the page loads brings its own wish, which would be none, and is heard last;
        # the driver brings its own with each later change of the colours.
        await line.send("Emulation.setEmulatedMedia", media="print")


def _cookie(values: dict[str, Any]) -> Any:
    cookie = {_COOKIE_NAMES.get(name, name): value for name, value in values.items()}
    return cookie if "url" in cookie else {"path": "/", **cookie}
