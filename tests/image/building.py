"""The worker's image without a Docker engine: built by buildah in chroot isolation, run by podman.

Debian packages come from where this machine's apt has them, Python packages from where its pip has them; the
image is told of neither. All that is kept lies in .local/image/.
"""

import contextlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker, default_environment

from deploy import pins
from local.setup import PYTHON, REPOSITORY, TOOLS

HOME = TOOLS / "image"
BASE, IMAGE = "localhost/sidejob-base", "localhost/sidejob-worker"
USER = 10001
_TOOLS = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "podman": "podman",
    "crun": "crun",
}  # program: package
# What python:3.x-slim has beside the release itself.
_IN_BASE = "python3,python3-pip,ca-certificates"


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Fails with the end of what the command said."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", check=False, env=_environment(), **more
    )
    assert done.returncode == 0, f"{' '.join(words[:4])} …\n{(done.stdout + done.stderr)[-3000:]}"
    return done


def need_tools() -> None:
    """Installs what is missing; skips where that cannot be."""
    if platform.system() != "Linux" or os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("an image is built here with Debian's tools, as root")
    missing = [package for program, package in _TOOLS.items() if not shutil.which(program)]
    install = ["apt-get", "install", "--yes", "-qq", "--no-install-recommends", *missing]
    if missing and subprocess.run(install, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        again = subprocess.run(install, capture_output=True, text=True, check=False)
        if again.returncode:
            pytest.skip(f"apt-get cannot install {', '.join(missing)}: {again.stderr[-300:]}")


def build(context: Path) -> str:
    """Builds worker/Dockerfile from `context` and returns what buildah said."""
    _say_where_storage_is()
    _base()
    wheels = _wheels()
    pip = HOME / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    built = run(
        *("buildah", "bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "--tag", IMAGE),
        *("--build-arg", f"BASE={BASE}", "--build-arg", "BROWSER=debian"),
        *("--volume", f"{wheels}:/wheels:ro", "--volume", f"{pip}:/etc/pip.conf:ro"),
        *("--file", context / "worker" / "Dockerfile", context),
    )
    run("buildah", "rmi", "--prune")
    return built.stdout + built.stderr


def inspected() -> dict[str, Any]:
    """The image's configuration, as an engine reads it."""
    docker: dict[str, Any] = json.loads(run("buildah", "inspect", "--type", "image", IMAGE).stdout)["Docker"]
    return docker


@contextlib.contextmanager
def mounted() -> Iterator[Path]:
    """The image's files."""
    container = run("buildah", "from", "--pull-never", IMAGE).stdout.strip()
    try:
        yield Path(run("buildah", "mount", container).stdout.strip())
    finally:
        run("buildah", "rm", container)


def podman(*words: str) -> list[str]:
    """A podman command as this machine can run it: crun refuses a host whose control groups are half of the old
    kind, and nobody here may raise a limit."""
    hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", hide, "sh", "podman", "--runtime", "crun", *words]


def container(*options: str, command: tuple[str, ...] = (), profile: bool = True) -> list[str]:
    """`podman run` as docs/worker.md runs the image: nothing may be written but /tmp, no capability is left."""
    limits = [
        f"--ulimit={name}={most}:{most}"
        for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC))
        for most in (min(4096, resource.getrlimit(kind)[1] % 2**63),)
    ]
    seccomp = f"--security-opt=seccomp={REPOSITORY / 'worker' / 'seccomp.json'}"
    return podman(
        *("run", "--rm", "--pull=never", "--cgroups=disabled", "--network=host", "--no-healthcheck", *limits),
        *("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *([seccomp] if profile else []),
        *(*options, IMAGE, *command),
    )


def need_podman() -> None:
    """Skips where no container runs, with what podman says."""
    probe = container("--entrypoint=/bin/true")
    done = subprocess.run(probe, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        pytest.skip(f"no container runs here: {done.stderr.strip()[-300:]}")


def started(*options: str, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(container(*options), stdout=file, stderr=file, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(HOME / "storage.conf")}


def _say_where_storage_is() -> None:
    HOME.mkdir(parents=True, exist_ok=True)
    on = subprocess.run(
        ["stat", "--file-system", "--format=%T", HOME], capture_output=True, text=True, check=True
    ).stdout.strip()
    overlay = "\toverlay\n" in Path("/proc/filesystems").read_text() and on != "overlayfs"
    (HOME / "storage.conf").write_text(
        f'[storage]\ndriver = "{"overlay" if overlay else "vfs"}"\n'
        f'runroot = "{HOME / "run"}"\ngraphroot = "{HOME / "graph"}"\n'
    )


@dataclass(frozen=True)
class _Release:
    codename: str
    python: str  # its version

    @classmethod
    def here(cls) -> "_Release":
        told = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
        )
        if told.get("ID", "").strip('"') != "debian":
            pytest.skip("the image's substitute base is the Debian of this machine, and this is none")
        python = re.search(r"^Version: ([\d.]+)", run("apt-cache", "show", "python3").stdout, re.MULTILINE)
        assert python
        return cls(told["VERSION_CODENAME"].strip('"'), python[1])


def _base() -> None:
    """In place of python:slim: this machine's Debian, from where its apt has it."""
    archive = HOME / "base.tar"
    if not archive.exists():
        targets = run(
            *("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE) $(COMPONENT)"),
            "Created-By: Packages",
        ).stdout
        lists = sorted({f"deb {line[7:]}" for line in targets.splitlines() if line.startswith("Debian ")})
        fresh = archive.with_suffix(".new")
        run(
            *("mmdebstrap", "--quiet", "--variant=minbase", "--format=tar", f"--include={_IN_BASE}"),
            *(_Release.here().codename, fresh, "-"),
            input="".join(f"{line}\n" for line in lists),
        )
        fresh.rename(archive)
    if not run("buildah", "images", "--quiet", "--filter", f"reference={BASE}").stdout.strip():
        working = run("buildah", "from", "scratch").stdout.strip()
        run("buildah", "add", "--quiet", working, archive, "/")
        run("buildah", "commit", "--quiet", "--rm", working, BASE)


def _wheels() -> Path:
    """The worker's packages for the base's Python, by this machine's pip, checked against the list's hashes."""
    folder = HOME / "wheels"
    python = _Release.here().python
    environment = {
        **{name: str(value) for name, value in default_environment().items()},
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
    }
    wanted = []
    for entry in re.findall(r"^[a-z0-9].*(?:\n +--hash.*)*", pins.WORKER.read_text(), re.MULTILINE):
        marker = re.search(r" ; ([^\\\n]+)", entry)
        if not marker or Marker(marker[1].strip()).evaluate(environment):
            wanted.append(re.sub(r" ; [^\\\n]+", " ", entry))
    folder.mkdir(exist_ok=True)
    listed = HOME / "wheels.txt"
    listed.write_text("\n".join(wanted) + "\n")
    run(
        *(PYTHON, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--require-hashes"),
        *("--only-binary", ":all:", "--python-version", python, "--dest", folder, "--requirement", listed),
    )
    return folder
