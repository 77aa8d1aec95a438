"""What a browser job may ask for: strict models in camelCase. No field is accepted that does nothing."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic.alias_generators import to_camel

from worker.browser.faults import Fault

Selector = Annotated[str, Field(min_length=1, max_length=1000)]
Script = Annotated[str, Field(min_length=1, max_length=100_000)]
_MOST = 50  # entries of a list

# Set by the connection itself (RFC 9110, 7.6.1 and 7.2), or by an option of its own.
_NOT_HEADERS = ("connection", "content-length", "host", "keep-alive", "proxy-authenticate",
                "proxy-authorization",
                "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "cookie")  # fmt: skip


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=to_camel,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


class Viewport(_Model):
    width: int = Field(ge=16, le=3840)  # CSS pixels
    height: int = Field(ge=16, le=4320)


class Clip(_Model):
    """CSS pixels from the page's top left corner."""

    x: float = Field(ge=0)
    y: float = Field(ge=0)
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class Cookie(_Model):
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


class HttpAuth(_Model):
    username: str = Field(max_length=1024)
    password: str = Field(max_length=1024, repr=False)


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


class PageOptions(_Model):
    """How to load a page: shared by all browser jobs."""

    url: str | None = Field(default=None, max_length=2048)
    html: str | None = Field(default=None, max_length=2 * 1024 * 1024)
    viewport: Viewport | None = None  # 1280 × 720, or the device's
    device: str | None = Field(default=None, max_length=100)  # a name Playwright knows
    scale_factor: float | None = Field(default=None, ge=0.5, le=3)
    retina: bool = False  # the same as scaleFactor 2
    wait_until: Literal["commit", "domcontentloaded", "load", "networkidle"] = "load"
    wait_for_selector: Selector | None = None
    wait_for_fonts: bool = True
    wait_for_images: bool = True
    delay_ms: int = Field(default=0, ge=0, le=10_000)
    timeout_ms: int = Field(default=30_000, ge=100, le=120_000)  # the whole job
    fail_on_http_status: Annotated[bool | list[str | int], PlainValidator(_status_rule)] = True
    hide: list[Selector] = Field(default=[], max_length=_MOST)
    remove: list[Selector] = Field(default=[], max_length=_MOST)
    css: Script | None = None
    js: Script | None = None
    cookies: list[Cookie] = Field(default_factory=list, max_length=100)
    headers: dict[str, str] = Field(default_factory=dict, max_length=50)
    user_agent: str | None = Field(default=None, min_length=1, max_length=1000)
    locale: str | None = Field(default=None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")  # BCP 47
    timezone: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_+/-]{1,64}$")  # IANA
    color_scheme: Literal["light", "dark", "no-preference"] = "light"
    reduced_motion: Literal["reduce", "no-preference"] = "reduce"
    media: Literal["screen", "print"] = "screen"
    animations: Literal["allow", "disabled"] = "disabled"
    javascript: bool = True
    http_auth: HttpAuth | None = None
    block_resources: list[
        Literal["stylesheet", "image", "media", "font", "script", "xhr", "fetch", "eventsource", "other"]
    ] = Field(default=[], max_length=_MOST)
    block_urls: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default=[], max_length=_MOST
    )  # globs; * matches / too

    @property
    def scale(self) -> float | None:
        return 2 if self.retina else self.scale_factor

    def fails_on(self, status: int) -> bool:
        rule = self.fail_on_http_status
        if isinstance(rule, bool):
            return rule and status >= 400
        return status in rule or f"{status // 100}xx" in rule

    def contradiction(self) -> tuple[str, str] | None:
        """The field that does not go with the others, and why."""
        given = self.model_fields_set
        if (self.url is None) == (self.html is None):
            return "url", "give either url or html"
        if self.retina and self.scale_factor is not None:
            return "retina", "does not go with scaleFactor"
        if self.url is None and self.http_auth is not None:
            return "httpAuth", "needs url"
        if self.url is None and "fail_on_http_status" in given:
            return "failOnHttpStatus", "needs url"
        if self.js is not None and not self.javascript:
            return "js", "does not go with javascript: false"
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


class ScreenshotOptions(PageOptions):
    """`browser.screenshot`."""

    full_page: bool = False
    scroll: bool | None = None  # through the page and back, for lazy content; not given: as fullPage
    max_height: int = Field(default=16_000, ge=16, le=60_000)  # CSS pixels of a fullPage picture
    selector: Selector | None = None
    padding: int = Field(default=0, ge=0, le=500)  # CSS pixels around the selector's element
    clip: Clip | None = None
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(default=80, ge=1, le=100)
    optimize_for_speed: bool = True  # larger file, quicker
    omit_background: bool = False
    name: str | None = Field(default=None, min_length=1, max_length=200, pattern=r"^[^/\\\x00-\x1f]+$")

    def contradiction(self) -> tuple[str, str] | None:
        given = self.model_fields_set
        areas = [self.full_page, self.selector is not None, self.clip is not None]
        if sum(areas) > 1:
            return "clip" if self.clip else "selector", "give one of fullPage, selector and clip"
        if "padding" in given and self.selector is None:
            return "padding", "needs selector"
        if "max_height" in given and not self.full_page:
            return "maxHeight", "needs fullPage"
        if "quality" in given and self.format == "png":
            return "quality", "does not go with format png"
        if "optimize_for_speed" in given and not (self.format == "png" and not any(areas)):
            return "optimizeForSpeed", "goes with a png of the viewport only"
        if self.omit_background and self.format == "jpeg":
            return "omitBackground", "does not go with format jpeg"
        return super().contradiction()

    @property
    def file_name(self) -> str:
        endings = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}[self.format]
        name = self.name or "screenshot"
        return name if name.lower().endswith(endings) else name + endings[0]


Options = TypeVar("Options", bound=PageOptions)


def read(model: type[Options], payload: Mapping[str, Any]) -> Options:
    """Raises Fault `invalid_payload`, naming the first wrong field as `payload.viewport.width`."""
    try:
        options = model.model_validate(dict(payload), by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        reason = "is not known" if first["type"] == "extra_forbidden" else _lower(first["msg"])
        raise invalid(path[:200], reason) from None
    if wrong := options.contradiction():
        raise invalid(*wrong)
    return options


def invalid(path: str, reason: str) -> Fault:
    field = f"payload.{path}"
    return Fault("invalid_payload", f"{field}: {reason}.", field=field)


def _lower(sentence: str) -> str:
    sentence = sentence.removeprefix("Value error, ")
    return sentence[:1].lower() + sentence[1:]
