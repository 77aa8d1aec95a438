"""The words after ./local.sh. Standard library only: they are read before anything is set up."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

_EPILOG = """\
State is in .local/, or SIDEJOB_HOME; SIDEJOB_PORT_OFFSET shifts every port: two stacks can run side by side.
SIDEJOB_WORKERS (1) says how many workers run; SIDEJOB_POSTGRES (18) is 18, 16 or one that the machine has;
SIDEJOB_DEFAULT_GRANTS=0 leaves hosted Supabase's default grants out. The worker's settings pass through."""

_PASSED_ON = {"psql": "psql", "test": "pytest", "bench": "the benchmarks"}  # command → who gets its arguments


@dataclass(frozen=True, slots=True)
class Words:
    command: str
    url: str | None = None  # demo, demo-figma
    detach: bool = False  # up
    tied: bool = False  # up: only as long as its standard input
    name: str | None = None  # logs
    rest: tuple[str, ...] = ()  # psql, test, bench: as they came; demo-figma: nodes


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n\n{self.format_help()}")


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="./local.sh",
        description="Runs everything on one machine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")

    demo = add("demo", "take one screenshot from end to end and show each step")
    demo.add_argument("url", nargs="?", help="the page; without it, one that the stack itself serves")
    figma = add("demo-figma", "export nodes of a Figma file from end to end; FIGMA_API_TOKEN: of a real one")
    figma.add_argument(
        "url", nargs="?", metavar="file", help="its key or address; without it, one of the stack's"
    )
    figma.add_argument("rest", nargs="*", metavar="node", help="ids such as 1:2; none: the address's own")
    up = add("up", "start the stack and stay")
    up.add_argument("-d", "--detach", action="store_true", help="return when everything is ready")
    up.add_argument("--tied", action="store_true", help=argparse.SUPPRESS)
    add("down", "stop the stack")
    add("status", "show what runs where")
    add("reset", "stop the stack and throw its data, keys and sign-ins away")
    add("psql", "open a database shell as the superuser").add_argument(
        "rest", nargs="*", metavar="argument", help="for psql"
    )
    test = add("test", "run the tests on a stack of their own")
    test.add_argument("--soak", action="store_true", help="with the long ones")
    test.add_argument("rest", nargs="*", metavar="argument", help="for pytest")
    bench = add("bench", "run the benchmarks, on the running stack or on one of their own")
    bench.add_argument("rest", nargs="*", metavar="argument", help="for the benchmarks")
    logs = add("logs", "show the logs, and follow them in a terminal")
    logs.add_argument("name", nargs="?", help="only this process's, named as in status")
    return top


def parse(arguments: Sequence[str]) -> Words:
    """Exits with the usage: code 0 for --help, 2 for a mistake."""
    if arguments and arguments[0] in _PASSED_ON and not {"-h", "--help"} & set(arguments[1:2]):
        return Words(arguments[0], rest=tuple(arguments[1:]))
    found = parser().parse_args(arguments)
    given = {name: value for name, value in vars(found).items() if name in ("url", "detach", "tied", "name")}
    return Words(found.command, rest=tuple(getattr(found, "rest", ())), **given)
