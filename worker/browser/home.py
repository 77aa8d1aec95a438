"""A folder of its own for each browser: its profile, and all that it and its driver put into a temporary
folder.

Both remove what they made when they end as they should. One that is killed does not: so the folder is removed
by us, with all that is in it, also at the next start after this process was killed.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import playwright

from worker.browser import relay

log = logging.getLogger(__name__)

_PREFIX = "sidejob-browser-"
_PROGRAMS = Path(__file__).parent / "programs"
_NODE = "PLAYWRIGHT_NODEJS_PATH"  # the driver starts with this program instead of its own Node.js
_LONGEST_FOLDER = 50  # characters: a full Chromium makes a socket below, whose path has 104 at most


class Home:
    """Locked as long as this process lives, so that another one sees whether it is in use."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    @classmethod
    def make(cls) -> "Home":
        """Removes those of dead processes first. Raises OSError."""
        sweep()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        new = folder / "lock.new"  # one that is not locked yet must not be seen
        lock = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        new.rename(folder / "lock")
        return cls(folder, lock)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)

    @contextmanager
    def driver(self) -> Iterator[None]:
        """A driver that is started in this block has its files in here, and says its number. Only one at a
        time: it reads the environment."""
        wished = {
            _NODE: str(_PROGRAMS / "driver.sh"),
            "SIDEJOB_NODE": os.environ.get(_NODE)
            or str(Path(playwright.__file__).parent / "driver" / "node"),
            "SIDEJOB_FOLDER": str(self.folder),
        }
        before = {name: os.environ.get(name) for name in wished}
        os.environ.update(wished)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def driver_pid(self) -> int:
        """Raises OSError when the driver was started in another way."""
        try:
            return int((self.folder / "driver").read_text())
        except (OSError, ValueError) as error:
            raise OSError("Playwright's driver did not start through programs/driver.sh") from error

    def owns(self, pid: int) -> bool:
        """Whether this number is still that of the browser that was started with this folder."""
        try:
            return str(self.folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return not Path("/proc/self").exists()  # where nothing is known, it is believed

    def program(self) -> str:
        """Starts the browser that `environment` names, with the relay between it and the driver."""
        return str(_PROGRAMS / "browser.sh")

    def environment(self, browser: str, most_bytes: int) -> Mapping[str, str]:
        """Of the browser. `most_bytes`: of writable memory that each of its processes may have; 0: any."""
        short = len(str(self.folder)) <= _LONGEST_FOLDER
        own = {"TMPDIR": str(self.folder)} if short else {}
        return {
            **own,
            "SIDEJOB_PROGRAM": browser,
            "SIDEJOB_FOLDER": str(self.folder),
            "SIDEJOB_PYTHON": sys.executable,
            "SIDEJOB_RELAY": relay.__file__,
            "SIDEJOB_DATA_KB": str(most_bytes // 1024 if sys.platform == "linux" else 0),
        }


def sweep() -> None:
    """Removes the folders of processes that ended without doing so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed the folder of a browser whose worker ended: %s", folder.name)
            finally:
                os.close(lock)
