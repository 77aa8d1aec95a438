"""What a function reads from its environment: one frozen object, every missing name in one sentence."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache


class MissingSettings(Exception):
    """Environment variables that are not set. The message names all of them."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        super().__init__(f"Set these environment variables: {', '.join(names)}")


class WrongSetting(Exception):
    """An environment variable whose value cannot be used. The message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the Supabase project is, and with which keys. URLs have no slash at the end."""

    # SUPABASE_URL: where this process reaches the project
    supabase_url: str
    # SUPABASE_PUBLIC_URL: where clients reach it, for signed URLs; default SUPABASE_URL
    public_url: str
    # SUPABASE_PUBLISHABLE_KEY: goes along in `apikey` with the caller's own token
    publishable_key: str
    # SUPABASE_SECRET_KEY: artifacts-sweep, leases-release, sign-artifact only; see sidejob.secret_key
    secret_key: str | None = field(repr=False)
    # SUPABASE_JWT_SECRET: only where tokens are signed with HS256
    jwt_secret: str | None = field(repr=False)
    # SUPABASE_JWT_ISSUER: default <SUPABASE_URL>/auth/v1; the word `none` means unchecked
    jwt_issuer: str | None
    # GOOGLE_CLOUD_PROJECT: makes trace ids in the log clickable
    trace_project: str | None
    # RATE_PER_SECOND: requests of one caller to one instance; ten seconds' worth at once; 0: no limit
    rate_per_second: float
    # TRUSTED_PROXIES: how many servers before this one add an address to X-Forwarded-For; 0: it is not read
    trusted_proxies: int
    # STREAMS_PER_CALLER: streams of one caller that one instance of job-events holds
    streams_per_caller: int
    # STREAMS_PER_INSTANCE: streams that it holds in all
    streams_per_instance: int


def read(environ: Mapping[str, str]) -> Settings:
    """The settings in these variables. An empty value counts as absent.

    Raises MissingSettings, WrongSetting.
    """
    present = {name: value.strip() for name, value in environ.items() if value.strip()}
    missing = [name for name in ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY") if name not in present]
    if missing:
        raise MissingSettings(missing)
    url = present["SUPABASE_URL"].rstrip("/")
    if not re.fullmatch(r"(?i:https?)://[\w.\[\]:-]+(/\S*)?", url):
        raise WrongSetting("SUPABASE_URL must be an address such as https://abcdef.supabase.co.")
    issuer = present.get("SUPABASE_JWT_ISSUER", f"{url}/auth/v1")
    return Settings(
        supabase_url=url,
        public_url=present.get("SUPABASE_PUBLIC_URL", url).rstrip("/"),
        publishable_key=present["SUPABASE_PUBLISHABLE_KEY"],
        secret_key=present.get("SUPABASE_SECRET_KEY"),
        jwt_secret=present.get("SUPABASE_JWT_SECRET"),
        jwt_issuer=None if issuer == "none" else issuer,
        trace_project=present.get("GOOGLE_CLOUD_PROJECT"),
        rate_per_second=_number(present, "RATE_PER_SECOND", 200),
        trusted_proxies=_proxies(present.get("TRUSTED_PROXIES", "1")),
        streams_per_caller=int(_number(present, "STREAMS_PER_CALLER", 100)),
        streams_per_instance=int(_number(present, "STREAMS_PER_INSTANCE", 1000)),
    )


def _number(present: Mapping[str, str], name: str, default: float) -> float:
    text = present.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,3})?", text, re.ASCII):
        raise WrongSetting(f"{name} is {text[:40]!r}; it must be a number from 0.")
    return float(text)


def _proxies(text: str) -> int:
    if not re.fullmatch(r"[0-9]", text, re.ASCII):
        raise WrongSetting(f"TRUSTED_PROXIES is {text[:40]!r}; it must be a whole number from 0 to 9.")
    return int(text)


@cache
def settings() -> Settings:
    """The settings of this process, read once, at the first request."""
    return read(os.environ)
