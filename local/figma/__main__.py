"""`python -m local.figma PORT`: serves the file of the proven case on PORT, its images on PORT + 1."""

import signal
import sys
import threading

from local.figma.documents import many_icons, proven_case
from local.figma.server import serving
from local.figma.world import World


def main(argv: list[str]) -> int:
    port, stop = int(argv[0]), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with serving(World(proven_case(), many_icons("icons500localfile", 500)), port, port + 1) as world:
        print(f"Figma's stand-in: {world.api_url}", flush=True)
        stop.wait()
    return 0


sys.exit(main(sys.argv[1:]))
