"""Which browser to start, and how."""

import logging
import os
import shutil
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Browser, Playwright
from playwright.async_api import Error as PlaywrightError

from worker.browser.egress.proxy import NOWHERE
from worker.browser.home import Home

log = logging.getLogger(__name__)

_LAUNCH_SECONDS = 30
# On PATH, the lightest first. The headless shell cannot open a window.
_PROGRAMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    # Nothing is looked up but by the worker's proxy: a name alone can carry words out.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    # Both spellings: which one counts differs between builds. WebRTC would otherwise tell local addresses.
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)
# Chromium's processes hand each other pictures in shared memory. Playwright has them use /tmp instead, since
# containers come with 64 MB of /dev/shm; where /tmp is a disk, that costs a tenth of the speed.
_NO_SHARED_MEMORY = "--disable-dev-shm-usage"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  nothing is written there by name
_ROOM_BYTES = 2 * 1024**3  # twice the largest picture
# All that Chromium may know of the worker's environment: the rest holds the worker's password.
_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
                "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "FONTCONFIG_PATH")  # fmt: skip
# Each process may have so much more writable memory, used or not, than a page may use: a wall behind the
# worker's own look, which comes every half second. An empty page has 1 GiB of it.
_WRITABLE = 4 * 1024**3
_FOUND: dict[tuple[str, bool], str] = {}  # Playwright's own programs, by channel and headless


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the browser. Empty strings mean "not told"."""

    executable: str = ""
    channel: str = ""
    headless: bool = True
    sandbox: str = "auto"  # auto: on unless root, off where the system forbids it; on; off
    page_bytes: int = 0  # memory that one page's process may take; 0: any

    def program(self) -> str | None:
        """The program to start; None: Playwright knows (its channel, or its own download)."""
        if self.executable or self.channel:
            return self.executable or None
        for name in _PROGRAMS:
            if (self.headless or "headless" not in name) and (path := shutil.which(name)):
                return path
        return None

    async def start(self, playwright: Playwright, home: Home) -> Browser:
        """Raises playwright's Error when no browser comes up."""
        sandboxed = self.sandbox == "on" or (self.sandbox == "auto" and os.geteuid() != 0)
        try:
            return await self._start(playwright, home, sandboxed)
        except PlaywrightError:
            if not (sandboxed and self.sandbox == "auto"):
                raise
        browser = await self._start(playwright, home, False)
        log.warning(
            "the browser starts only without its sandbox here; BROWSER_SANDBOX=on makes that an error"
        )
        return browser

    async def _start(self, playwright: Playwright, home: Home, sandboxed: bool) -> Browser:
        options = self._options(sandboxed)
        program = options["executable_path"] or _FOUND.get((self.channel, self.headless))
        if program is None:
            # Only Playwright knows which program that is; once it runs, the system knows too.
            browser = await playwright.chromium.launch(**options)
            program = await _program_of(browser)
            if program is None:
                log.warning(
                    "the browser runs without a limit on its messages; BROWSER_EXECUTABLE would give it one"
                )
                return browser
            _FOUND[self.channel, self.headless] = program
            await browser.close()
        most = self.page_bytes and self.page_bytes + _WRITABLE
        through = {
            "executable_path": home.program(),
            "channel": None,
            "env": {**options["env"], **home.environment(program, most)},
        }
        return await playwright.chromium.launch(**{**options, **through})

    def _options(self, sandboxed: bool) -> dict[str, Any]:
        program = self.program()
        return {
            "executable_path": program,
            "channel": self.channel if self.channel and not program else None,
            "headless": self.headless,
            "chromium_sandbox": sandboxed,
            "args": list(_FLAGS),
            "ignore_default_args": [_NO_SHARED_MEMORY] if _roomy() else None,
            "proxy": {"server": NOWHERE},  # for what belongs to no context; each context brings its own
            "env": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            "timeout": _LAUNCH_SECONDS * 1000,
            # The worker decides what a signal means: a drain must not lose its pages.
            "handle_sigint": False,
            "handle_sigterm": False,
            "handle_sighup": False,
        }


async def _program_of(browser: Browser) -> str | None:
    """The path of a running browser's program; None where the system does not say it."""
    probe = await browser.new_browser_cdp_session()
    processes = (await probe.send("SystemInfo.getProcessInfo"))["processInfo"]
    pid = next(process["id"] for process in processes if process["type"] == "browser")
    try:
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115  it reads no disk
    except OSError:
        return None


def _roomy() -> bool:
    try:
        return shutil.disk_usage(_SHARED_MEMORY).free >= _ROOM_BYTES and os.access(_SHARED_MEMORY, os.W_OK)
    except OSError:
        return False
