"""deploy.sh as it is written, and as the documents say it is."""

import re
import subprocess
from pathlib import Path

import pytest

from deploy.stage import ROOT

SCRIPTS = [ROOT / "deploy.sh", *sorted((ROOT / "deploy").glob("*.sh"))]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What bash has learnt since 3.2, the one of macOS.
NEWER = {
    "associative arrays": r"\b(?:declare|local|typeset)\s+-\w*[Angul]",
    "mapfile": r"\b(?:mapfile|readarray)\b",
    "changes of case": r"\$\{\w+(?:\[[^]]*\])?(?:,|\^)",
    "transformations": r"\$\{\w+@[A-Za-z]\}",
    "wait for any": r"\bwait\s+-[np]",
    "append both": r"&>>",
    "pipe both": r"\|&",
    "fall through": r";;?&",
    "coproc": r"\bcoproc\b",
    "times of printf": r"%\([^)]*\)T",
    "variables": r"\b(?:BASHPID|EPOCHSECONDS|EPOCHREALTIME|SRANDOM|READLINE_\w+)\b",
    "negative index": r"\$\{\w+\[-\d",
    "is it set": r"\[\[?\s+-v\s",
    "globs": r"shopt\s+-s\s+(?:globstar|lastpipe|inherit_errexit)",
    "descriptors by name": r"\{\w+\}[<>]",
}


@pytest.fixture(scope="module")
def usage() -> str:
    ran = subprocess.run([str(ROOT / "deploy.sh"), "--help"], capture_output=True, text=True, check=True)
    return ran.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_it_is_written_in_the_bash_of_macos(script: Path) -> None:
    code = re.sub(r"^\s*#.*$", "", script.read_text(), flags=re.MULTILINE)
    assert not {name: found for name, pattern in NEWER.items() if (found := re.findall(pattern, code))}


def test_the_patterns_of_newer_bash_find_it() -> None:
    newer = "declare -A a; mapfile x; ${a,,}; ${a@Q}; wait -n; &>>f; a |& b; ;;& coproc; %(%s)T; $EPOCHSECONDS; ${a[-1]}; [[ -v a ]]; shopt -s globstar; {fd}>x"
    assert [name for name, pattern in NEWER.items() if not re.search(pattern, newer)] == []


def test_every_command_in_the_documents_is_one_of_the_script(usage: str) -> None:
    commands = dict(re.findall(r"^  ([a-z]+)( \[name…\])? ", usage, re.MULTILINE))
    options = set(re.findall(r"--[a-z-]+", usage))
    written = [
        line
        for document in DOCUMENTS
        for line in re.findall(r"^\./deploy\.sh (.+)$", document.read_text(), re.MULTILINE)
    ]
    written += [
        line
        for document in [*DOCUMENTS, *SCRIPTS]
        for line in re.findall(r"[`: ]\./deploy\.sh ([a-z][^`\"$]*)", document.read_text())
    ]
    assert len(written) > 12
    for line in written:
        words = line.split()
        command, rest = words[0].rstrip(","), words[1:]
        assert command in commands, line
        assert {word for word in rest if word.startswith("--")} <= options, line


def test_every_command_and_option_of_the_script_is_documented(usage: str) -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    for command in re.findall(r"^  ([a-z]+) ", usage, re.MULTILINE):
        assert f"./deploy.sh {command}" in guide
    for option in set(re.findall(r"--[a-z-]+", usage)) - {"--help"}:
        assert option in guide


def test_every_variable_of_the_script_is_documented() -> None:
    text = (ROOT / "deploy" / "settings.sh").read_text()
    read = {
        word
        for block in re.findall(r'^(?:SECRETS|SETTINGS)="([^"]*)"', text, re.MULTILINE)
        for word in block.split()
    } - {"$SECRETS"}
    guide = (ROOT / "docs" / "deploy.md").read_text()
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", guide, re.MULTILINE))
    assert set(documented) == read | {"SIDEJOB_BUILD"}
    for name, default in re.findall(r'^  (\w+)="\$\{\1:-([^}$]*)\}"', text, re.MULTILINE):
        assert documented[name] == f"`{default}`", name


def test_the_first_deploy_env_of_the_guide_has_all_that_is_needed() -> None:
    guide = (ROOT / "docs" / "deploy.md").read_text()
    block = next(
        text
        for text in re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
        if text.startswith("GOOGLE_CLOUD_PROJECT=")
    )
    required = set(re.findall(r"^\| `([A-Z_]+)` \| required \|", guide, re.MULTILINE))
    assert required <= {line.partition("=")[0] for line in block.splitlines()}
