"""How a browser job loads its page: what all of them may ask for."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from worker.payloads import Model, Payload

Selector = Annotated[str, Field(min_length=1, max_length=1000)]
Script = Annotated[str, Field(min_length=1, max_length=100_000)]
MOST = 50  # entries of a list

# Set by the connection itself (RFC 9110, 7.6.1 and 7.2), or by an option of its own.
_NOT_HEADERS = ("connection", "content-length", "host", "keep-alive", "proxy-authenticate",
                "proxy-authorization",
                "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "cookie")  # fmt: skip


class Viewport(Model):
    width: int = Field(ge=16, le=3840)  # CSS pixels
    height: int = Field(ge=16, le=4320)


class Clip(Model):
    """CSS pixels from the page's top left corner."""

    x: float = Field(ge=0)
    y: float = Field(ge=0)
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class Cookie(Model):
    """Needs `url`, or `domain` (its path is then `/` if none is given)."""

    name: str = Field(min_length=1, max_length=4096)
    value: str = Field(max_length=4096)
    url: str | None = Field(default=None, max_length=2048)
    domain: str | None = Field(default=None, max_length=255)
    path: str | None = Field(default=None, max_length=1024)
    expires: float | None = None  # Unix seconds
    http_only: bool | None = None
    secure: bool | None = None
    same_site: Literal["Strict", "Lax", "None"] | None = None


class HttpAuth(Model):
    username: str = Field(max_length=1024, pattern=r"^[^\x00-\x1f\x7f:]*$")  # RFC 7617, 2
    password: str = Field(max_length=1024, repr=False, pattern=r"^[^\x00-\x1f\x7f]*$")


def _status_rule(value: Any) -> Any:
    good = isinstance(value, bool) or (
        isinstance(value, list)
        and len(value) <= 50
        and all(
            (type(item) is int and 400 <= item <= 599) or (isinstance(item, str) and item in ("4xx", "5xx"))
            for item in value
        )
    )
    if not good:
        raise ValueError('must be true, false or a list such as ["4xx", 503]')
    return value


_STATUS_RULE_SCHEMA = {
    "anyOf": [
        {"type": "boolean"},
        {
            "type": "array",
            "maxItems": 50,
            "items": {
                "anyOf": [{"type": "integer", "minimum": 400, "maximum": 599}, {"enum": ["4xx", "5xx"]}]
            },
        },
    ]
}


class Geolocation(Model):
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    accuracy: float = Field(default=0, ge=0, le=100_000)  # metres


class StoredItem(Model):
    name: str = Field(max_length=4096)
    value: str = Field(max_length=1024 * 1024)


class StoredOrigin(Model):
    origin: str = Field(max_length=2048)
    local_storage: list[StoredItem] = Field(default=[], max_length=1000)


class StoredCookie(Model):
    """As a browser's state is saved: a cookie of a domain."""

    name: str = Field(min_length=1, max_length=4096)
    value: str = Field(max_length=4096)
    domain: str = Field(max_length=255)
    path: str = Field(default="/", max_length=1024)
    expires: float = -1  # Unix seconds; -1: with the session
    http_only: bool = False
    secure: bool = False
    same_site: Literal["Strict", "Lax", "None"] = "Lax"


class StorageState(Model):
    """Cookies and local storage, as Playwright saves and loads them."""

    cookies: list[StoredCookie] = Field(default=[], max_length=300)
    origins: list[StoredOrigin] = Field(default=[], max_length=50)


class PageOptions(Payload):
    """How to load a page: shared by all browser jobs."""

    url: str | None = Field(default=None, max_length=2048)
    """The page: http or https, without a password in it."""
    html: str | None = Field(default=None, max_length=2 * 1024 * 1024)
    """The page itself; give either url or html."""
    viewport: Viewport | None = None
    """{width, height} in CSS pixels."""
    device: str | None = Field(default=None, max_length=100)
    """A device, such as iPhone 15: its viewport, scale, touch and user agent."""
    scale_factor: float | None = Field(default=None, ge=0.5, le=3)
    """Device pixels for a CSS pixel."""
    retina: bool = False
    """The same as scaleFactor 2."""
    wait_until: Literal["commit", "domcontentloaded", "load", "networkidle"] = "load"
    """When the page counts as loaded."""
    wait_for_selector: Selector | None = None
    """Wait until the first element that matches is visible."""
    wait_for_function: Script | None = None
    """Wait until this expression is true."""
    wait_for_fonts: bool = True
    """Wait for fonts, 3 seconds at most; then the result says partial."""
    wait_for_images: bool = True
    """Wait for the pictures that will be seen, 3 seconds at most."""
    delay_ms: int = Field(default=0, ge=0, le=10_000)
    """Wait this long after all else."""
    timeout_ms: int = Field(default=30_000, ge=100, le=120_000)
    """Time for the whole job; where a worker's BROWSER_NAV_TIMEOUT_MS is longer, that is the default."""
    best_attempt: bool = False
    """When a wait runs out, go on with what is there: the result says partial, and late says what was
    missing."""
    fail_on_http_status: Annotated[
        bool | list[str | int], PlainValidator(_status_rule), WithJsonSchema(_STATUS_RULE_SCHEMA)
    ] = True
    """True: 400 and above fail the job; or a list such as ["4xx", 503]."""
    fail_on_console_error: bool = False
    """Fail with page_error when the page logs an error."""
    fail_on_resource_error: bool = False
    """Fail with page_error when a request of the page fails; what the job itself blocks does not count."""
    click: list[Selector] = Field(default=[], max_length=10)
    """Selectors, clicked one after the other."""
    scroll_to: Selector | None = None
    """Scroll until the first element that matches is at the top."""
    hide: list[Selector] = Field(default=[], max_length=MOST)
    """Selectors made invisible; the room they take stays."""
    remove: list[Selector] = Field(default=[], max_length=MOST)
    """Selectors taken out of the layout."""
    css: Script | None = None
    """Style added after the load."""
    js: Script | None = None
    """Script run after the load; may await."""
    cookies: list[Cookie] = Field(default_factory=list, max_length=100)
    """{name, value, url} or {name, value, domain, path}, and expires, httpOnly, secure, sameSite."""
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    """Sent with every request; not those of the connection itself."""
    user_agent: str | None = Field(
        default=None, min_length=1, max_length=1000, pattern=r"^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$"
    )
    """The header of that name; the default ends in Sidejob/<version>."""
    locale: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    """The page's language, such as de-CH."""
    timezone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_+/-]{1,64}$")
    """The page's time zone, such as Europe/Zurich."""
    color_scheme: Literal["light", "dark", "no-preference"] = "light"
    """What the page is told that its reader prefers."""
    reduced_motion: Literal["reduce", "no-preference"] = "reduce"
    """Whether the page is asked to move less."""
    forced_colors: Literal["none", "active"] = "none"
    """Few colours, as of a theme with high contrast."""
    geolocation: Geolocation | None = None
    """{latitude, longitude, accuracy}; the page may ask for it."""
    media: Literal["screen", "print"] = "screen"
    """The medium that style sheets are for."""
    animations: Literal["allow", "disabled"] = "disabled"
    """Disabled: shown at their end, or undone if they have none."""
    javascript: bool = True
    """Whether the page's own scripts run."""
    http_auth: HttpAuth | None = None
    """{username, password}, sent to the origin of url alone."""
    block_resources: list[
        Literal["stylesheet", "image", "media", "font", "script", "xhr", "fetch", "eventsource", "other"]
    ] = Field(default=[], max_length=MOST)
    """Kinds of requests that are not made: stylesheet, image, media, font, script, xhr, fetch,
    eventsource, other."""
    block_urls: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default=[], max_length=MOST
    )
    """Requests that are not made, as globs in which * stands for slashes too; the first 8,192 characters of
    an address are compared."""

    block_ads: bool = False
    """Leave out a short list of hosts that serve advertisements."""
    cookie_banners: Literal["show", "hide"] = "show"
    """Hide: without the boxes of well-known consent managers."""
    ignore_tls_errors: bool = False
    """Take certificates that are not valid, where the worker has BROWSER_ALLOW_INSECURE_TLS."""
    storage_state: StorageState | None = None
    """{cookies, origins: [{origin, localStorage: [{name, value}]}]}, as Playwright saves it."""
    trace: bool = False
    """Two more artifacts, of a failed attempt too: trace.zip for playwright show-trace, and console.json."""

    @property
    def scale(self) -> float | None:
        return 2 if self.retina else self.scale_factor

    @property
    def stored_origins(self) -> int:
        return len(self.storage_state.origins) if self.storage_state is not None else 0

    def fails_on(self, status: int) -> bool:
        rule = self.fail_on_http_status
        if isinstance(rule, bool):
            return rule and status >= 400
        return status in rule or f"{status // 100}xx" in rule

    def contradiction(self) -> tuple[str, str] | None:
        given = self.model_fields_set
        if (self.url is None) == (self.html is None):
            return "url", "give either url or html"
        if self.retina and self.scale_factor is not None:
            return "retina", "does not go with scaleFactor"
        if self.url is None and self.http_auth is not None:
            return "httpAuth", "needs url"
        if self.url is None and "fail_on_http_status" in given:
            return "failOnHttpStatus", "needs url"
        for name, value in (("js", self.js), ("waitForFunction", self.wait_for_function)):
            if value is not None and not self.javascript:
                return name, "does not go with javascript: false"
        for index, cookie in enumerate(self.cookies):
            if (cookie.url is None) == (cookie.domain is None):
                return f"cookies.{index}", "give either url or domain"
            if cookie.url is not None and cookie.path is not None:
                return f"cookies.{index}.path", "goes with domain only"
        for name, value in self.headers.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name) or name.lower() in _NOT_HEADERS:
                return f"headers.{name[:100]}", "is no header that may be set"
            if not re.fullmatch(r"[\x20-\x7e\t]{0,8192}", value):
                return f"headers.{name}", "must be printable ASCII"
        return None
