"""Pages with known pixels, on a real port: what the browser is shown in these tests."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

# Squares of 100 pixels down the left side; the body is white and has no margin.
SQUARES = """<!doctype html><title>Squares</title><style>
  body { margin: 0; background: white } div { width: 100px; height: 100px }
</style><div id=red style="background: red"></div><div id=green style="background: green"></div>
<div id=blue style="background: blue"></div>"""

TALL = """<!doctype html><title>Tall</title><style>body { margin: 0 }</style>
<div style="height: 2900px; background: red"></div><div style="height: 100px; background: blue"></div>"""

# The picture below the fold is asked for only when its place has been in view.
LAZY = """<!doctype html><title>Lazy</title><style>body { margin: 0 }</style>
<div style="height: 4000px"></div><img id=late width=100 height=100><script>
new IntersectionObserver((entries, watch) => {
  if (!entries.some(entry => entry.isIntersecting)) return;
  watch.disconnect(); late.src = '/blue.svg';
}).observe(late);
</script>"""

# The page does not scroll; a box in it does, with a lazy picture at its end.
BOXED = """<!doctype html><title>Boxed</title><style>
  html, body { margin: 0; height: 100%; overflow: hidden } main { display: flex; flex-direction: column; height: 100vh }
  header { height: 100px; background: green } #box { flex: 1; min-height: 0; overflow: auto }
</style><main><header></header><div id=box><div style="height: 3900px; background: red"></div>
<img src=/blue.svg loading=lazy width=100 height=100 style="display: block"></div></main>"""
FIXED = BOXED.replace("main {", "main { position: fixed; inset: 0;")

# Each wish of the visitor paints its own square.
WISHES = """<!doctype html><title>Wishes</title><style>
  body { margin: 0; background: white } div { width: 100px; height: 100px; background: red }
  @media (prefers-color-scheme: dark) { #dark { background: green } }
  @media (prefers-reduced-motion: no-preference) { #motion { background: green } }
  @media print { #print { background: green } }
  @media (min-resolution: 2dppx) { #retina { background: green } }
</style><div id=dark></div><div id=motion></div><div id=print></div><div id=retina></div><div id=script></div>
<script>script.style.background = 'green'</script>"""

# Says in its title what it sees of its screen.
SEEN = """<!doctype html><body style="margin: 0; height: 3000px">
<p id=near style="position: absolute; top: 600px">near</p><p id=far style="position: absolute; top: 1500px">far</p><script>
const seen = [], watch = new IntersectionObserver(entries => {
  seen.push(...entries.filter(entry => entry.isIntersecting).map(entry => entry.target.id));
  document.title = JSON.stringify({inner: [innerWidth, innerHeight], outer: [outerWidth, outerHeight],
    screen: [screen.width, screen.height], pixel: devicePixelRatio, seen, print: matchMedia('print').matches});
});
watch.observe(near); watch.observe(far);</script>"""

MOVING = """<!doctype html><title>Moving</title><style>
  body { margin: 0; background: white }
  @keyframes grow { from { width: 0 } to { width: 200px } }
  div { height: 100px; background: red; width: 200px; animation: grow 60s linear }
</style><div></div>"""

STRICT = "default-src 'none'; style-src 'none'; script-src 'none'"
BLUE_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100">'
    '<rect width="100" height="100" fill="blue"/></svg>'
)

PAGES = {
    "/squares": SQUARES,
    "/tall": TALL,
    "/lazy": LAZY,
    "/boxed": BOXED,
    "/fixed": FIXED,
    "/wishes": WISHES,
    "/seen": SEEN,
    "/moving": MOVING,
    "/strict": SQUARES.replace("<style>", "<style>").replace("Squares", "Strict"),
    "/late": SQUARES
    + "<script>setTimeout(() => { red.id = 'arrived'; arrived.style.background = 'blue' }, 300)</script>",
    "/image": "<!doctype html><style>body { margin: 0 }</style><img src=/slow.svg width=100 height=100>",
    "/image/inserted": "<!doctype html><style>body { margin: 0 }</style><script>"
    "addEventListener('load', () => { "
    "document.body.innerHTML = '<img src=/slow.svg width=100 height=100>'})</script>",
    "/endless/script": "<!doctype html><title>Busy</title><script>"
    "addEventListener('load', () => setTimeout(() => { for (;;); }))</script>",
    "/endless/network": "<!doctype html><script>"
    "(async () => { for (;;) await fetch('/slow.svg') })()</script>",
    "/dialogs": SQUARES
    + "<script>alert('stop'); confirm('sure?'); onbeforeunload = e => e.preventDefault()</script>",
    "/popups": SQUARES + "<script>for (let i = 0; i < 3; i++) open('/tall')</script>",
    "/errors": SQUARES + "<script>console.error('it is broken'); fetch('/nowhere'); null.x</script>"
    "<img src='http://127.0.0.1:2999/gone.png'>",
    "/moves": SQUARES + "<script>history.pushState(null, '', '/moved-by-script')</script>",
    "/frame": "<!doctype html><style>body { margin: 0 } iframe { border: 0 }</style>"
    "<iframe src='{other}/squares'></iframe>",
    "/caret": "<!doctype html><style>body { margin: 0; background: white }"
    "textarea { border: 0; outline: 0; width: 300px; height: 100px; font-size: 90px; resize: none }</style>"
    "<textarea autofocus></textarea>",
    "/article": "<!doctype html><title>Article</title><meta property='og:image' content='/cover.png'>"
    "<p>See <a rel=nofollow href='squares'>squares</a>.</p>",
    "/hostile/deep": "<!doctype html><title>Deep</title><script>let at = document.documentElement; for (let i = 0; i < 20000; i++)"
    " { const d = document.createElement('div'); at.append(d); at = d }</script>",
    "/hostile/requests": "<!doctype html><script>(async () => { for (;;) await Promise.all("
    "Array.from({length: 20}, () => fetch('/blue.svg', {cache: 'no-store'}).catch(() => {}))) })()</script>",
    "/hostile/dialogs": "<!doctype html><script>for (;;) alert('again')</script>",
    "/hostile/console": "<!doctype html><script>setInterval(() => { for (let i = 0; i < 500; i++) console.log({}) })</script>",
    "/app": "<!doctype html><script>location = 'intent://open#Intent;end'</script>",
    "/app-or-squares": "<!doctype html><script>location = 'mailto:a@b.c'; setTimeout(() => location = '/squares', 300)</script>",
    "/hostile/popups": "<!doctype html><script>setInterval(() => open('about:blank'))</script>",
    "/hostile/nodes": "<!doctype html><title>Nodes</title><script>"
    "document.write('<i>x</i> '.repeat(100000))</script>",
    "/hostile/scroll": "<!doctype html><title>Scroll</title><div style='height: 5000px'></div><script>"
    "addEventListener('scroll', () => { const d = document.createElement('div'); d.style.height = '5000px';"
    " document.body.append(d) })</script>",
    "/hostile/tall": "<!doctype html><title>Tall</title><div style='height: 1000000px; background: red'></div>",
    "/kept": SQUARES + "<img src=/kept.svg>",
    "/worker.js": "",
    "/bare": "<!doctype html><title>Bare</title><style>html, body { margin: 0 }</style>"
    "<div style='width: 100px; height: 100px; background: red'></div>",
}


class Site:
    """Serves `PAGES` and the awkward answers below. `requests` holds the paths asked for, and their
    headers."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.other = ""  # another origin, for frames and redirects

    def url(self, path: str) -> str:
        return self.origin + path

    def asked(self, path: str) -> list[dict[str, str]]:
        """The headers (names in lower case) of each request for `path`."""
        return [headers for asked, headers in self.requests if asked == path]


@contextmanager
def serving() -> Iterator[Site]:
    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.site = site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    Handler.released = released = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    site: ClassVar[Site]
    released: ClassVar[threading.Event]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.site.requests.append((path, {name.lower(): value for name, value in self.headers.items()}))
        if answer := _AWKWARD.get(path):
            answer(self)
        elif path.startswith("/status/"):
            headers = {"Retry-After": self.path.partition("?retry=")[2]} if "?retry=" in self.path else {}
            self.send(int(path[8:]), "<!doctype html><title>Status</title>status", headers)
        elif path in PAGES:
            policy = {"Content-Security-Policy": STRICT} if path == "/strict" else {}
            self.send(200, PAGES[path].replace("{other}", self.site.other), policy)
        else:
            self.send(404, "<!doctype html><title>Not found</title>")

    def send(self, status: int, body: str | bytes = "", headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": "text/html; charset=utf-8", **(headers or {})}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        with contextlib.suppress(ConnectionError):  # the browser did not wait
            self.end_headers()
            self.wfile.write(data)

    def to(self, location: str, status: int = 302) -> None:
        self.send(status, "", {"Location": location})

    def hang(self) -> None:
        """Until the test session ends; the browser goes away before."""
        self.released.wait()
        self.close_connection = True

    def svg(self) -> None:
        self.send(200, BLUE_SVG, {"Content-Type": "image/svg+xml"})

    def kept_svg(self) -> None:
        self.send(200, BLUE_SVG, {"Content-Type": "image/svg+xml", "Cache-Control": "max-age=600"})

    def slow_svg(self) -> None:
        time.sleep(0.3)
        self.svg()

    def cut(self) -> None:
        self.close_connection = True

    def protected(self) -> None:
        if self.headers.get("Authorization") == "Basic YW5uOmx1cGluZQ==":
            return self.send(200, SQUARES)
        return self.send(401, "", {"WWW-Authenticate": 'Basic realm="test"'})

    def download(self) -> None:
        self.send(200, b"zip", {"Content-Type": "application/zip", "Content-Disposition": "attachment"})

    def flood(self) -> None:
        """200 MB, as long as anybody takes them."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(200 * 1024 * 1024))
        with contextlib.suppress(ConnectionError):
            self.end_headers()
            for _ in range(200):
                self.wfile.write(b"<!--" + b"x" * (1024 * 1024 - 7) + b"-->")
        self.close_connection = True

    def endless_font(self) -> None:
        self.send(
            200,
            "<!doctype html><title>Font</title><style>@font-face { font-family: f; src: url(/hang) }"
            " body { font-family: f; margin: 0 }</style><div style='width: 100px; height: 100px;"
            " background: red'></div>text",
        )


_AWKWARD: dict[str, Callable[[_Handler], None]] = {
    "/hang": _Handler.hang,
    "/blue.svg": _Handler.svg,
    "/slow.svg": _Handler.slow_svg,
    "/kept.svg": _Handler.kept_svg,
    "/cut": _Handler.cut,
    "/loop": lambda self: self.to("/loop"),
    "/hop": lambda self: self.to("/hop/again", 301),
    "/hop/again": lambda self: self.to("/squares"),
    "/leave": lambda self: self.to(f"{self.site.other}/squares"),
    "/to-file": lambda self: self.to("file:///etc/passwd"),
    "/to-port": lambda self: self.to("http://127.0.0.1:6000/"),
    "/heavy": lambda self: self.send(200, b"<!doctype html>" + b"x" * 300_000),
    "/hostile/flood": _Handler.flood,
    "/nothing": lambda self: self.send(204),
    "/download": _Handler.download,
    "/protected": _Handler.protected,
    "/font": _Handler.endless_font,
    "/favicon.ico": lambda self: self.send(204),
}
