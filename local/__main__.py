"""The commands of ./local.sh."""

import sys
from collections.abc import Sequence

from local import arguments, commands, suite, walkthrough
from local.layout import Layout, StackError
from local.setup import end_quietly


def main(argv: Sequence[str]) -> int:
    words = arguments.parse(argv)
    try:
        layout = Layout.read()
        match words.command:
            case "demo":
                return walkthrough.run(layout, words.url)
            case "demo-figma":
                return walkthrough.run_figma(layout, words.url, words.rest)
            case "up":
                return commands.up_detached(layout) if words.detach else commands.up(layout, tied=words.tied)
            case "down":
                return commands.down(layout)
            case "status":
                return commands.status(layout)
            case "reset":
                return commands.reset(layout)
            case "psql":
                return commands.psql(layout, words.rest)
            case "test":
                return suite.test(words.rest)
            case "bench":
                return suite.bench(layout, words.rest)
            case _:
                return commands.logs(layout, words.name)
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(end_quietly(main, sys.argv[1:]))
