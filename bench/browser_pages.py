"""`python -m bench.browser_pages`: the pages of the browser's measurements, served by a process of their own, so
that serving them costs no loop under measurement anything. Prints the port."""

import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

_WORDS = (
    "queue",
    "lease",
    "worker",
    "page",
    "picture",
    "event",
    "table",
    "token",
    "proxy",
    "minute",
    "harbour",
    "stone",
)


def _text(paragraphs: int) -> str:
    draw = random.Random(7)
    return "".join(
        f"<h2>{draw.choice(_WORDS).title()}</h2><p>{' '.join(draw.choices(_WORDS, k=90))}.</p>"
        for _ in range(paragraphs)
    )


_STYLE = (
    "body { font: 17px/1.5 sans-serif; margin: 40px auto; max-width: 900px; color: #223; background: #fbfaf7 }"
    " h2 { color: #176 } .box { width: 120px; height: 90px; display: inline-block; margin: 4px }"
)
_BOXES = "".join(f"<div class=box style='background: hsl({n * 9} 60% 60%)'></div>" for n in range(40))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm: ClassVar[bool] = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        kind, body = "text/html; charset=utf-8", ""
        if self.path.startswith("/text"):
            body = f"<!doctype html><title>Text</title><style>{_STYLE}</style>{_text(12)}{_BOXES}"
        elif self.path.startswith("/many"):
            links = "".join(f"<link rel=stylesheet href=/s{n}.css>" for n in range(5))
            images = "".join(f"<img width=120 height=90 src=/i{n}.svg>" for n in range(25))
            body = f"<!doctype html><title>Many</title><style>{_STYLE}</style>{links}{_text(4)}{images}"
        elif self.path.endswith(".css"):
            kind, body = "text/css", f".c{self.path[2:-4]} {{ color: red }}"
        elif self.path.endswith(".svg"):
            kind = "image/svg+xml"
            body = "<svg xmlns='http://www.w3.org/2000/svg' width='120' height='90'><rect width='120' height='90' fill='teal'/></svg>"
        data = body.encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
