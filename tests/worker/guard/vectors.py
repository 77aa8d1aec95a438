"""Ways in which a page, or a payload, can ask for an address.

`{hit}` is an address inside, for this way alone; `{site}` the page's own origin; `{host}` and `{port}` those of the
address inside; `{name}` the way's name. A way may need a server of its own (`tcp`, `udp`): there is nothing in such a
request that says whose it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Way:
    html: str = "<p>nothing</p>"
    headers: Mapping[str, str] = field(default_factory=dict)  # of the page
    payload: Mapping[str, Any] = field(default_factory=dict)  # of the job
    kind: str = "browser.screenshot"
    server: Literal["http", "tcp", "udp"] = "http"
    kills_page: bool = False  # the page leaves for the address: the job fails


def _script(text: str) -> Way:
    return Way(f"<body><script>{text}</script>")


def _style(text: str) -> Way:
    return Way(f"<style>{text}</style><div class=x>x</div>")


MARKUP: dict[str, Way] = {
    "img": Way("<img src='{hit}'>"),
    "img-srcset": Way("<img srcset='{hit} 1x'>"),
    "picture": Way("<picture><source srcset='{hit}'><img></picture>"),
    "input-image": Way("<input type=image src='{hit}'>"),
    "body-background": Way("<body background='{hit}'>"),
    "video": Way("<video src='{hit}' preload=auto></video>"),
    "video-poster": Way("<video poster='{hit}'></video>"),
    "audio": Way("<audio src='{hit}' preload=auto></audio>"),
    "track": Way(
        "<video src='data:,' crossorigin><track default src='{hit}'></video><script>document.querySelector('track').track.mode='showing'</script>"
    ),
    "object": Way("<object data='{hit}'></object>"),
    "embed": Way("<embed src='{hit}'>"),
    "script": Way("<script src='{hit}'></script>"),
    "script-module": Way("<script type=module src='{hit}'></script>"),
    "script-import": Way("<script type=module>import '{hit}'</script>"),
    "script-import-later": _script("import('{hit}').catch(() => {{}})"),
    "svg-image": Way("<svg><image href='{hit}' width=9 height=9 /></svg>"),
    "svg-fe-image": Way(
        "<svg width=9 height=9><filter id=f><feImage href='{hit}'/></filter><rect width=9 height=9 filter='url(#f)'/></svg>"
    ),
    "link-stylesheet": Way("<link rel=stylesheet href='{hit}'>"),
    "link-preload": Way("<link rel=preload as=image href='{hit}'>"),
    "link-modulepreload": Way("<link rel=modulepreload href='{hit}'>"),
    "link-prefetch": Way("<link rel=prefetch href='{hit}'>"),
    "link-preconnect": Way("<link rel=preconnect href='http://{host}:{port}'>", server="tcp"),
    "link-header": Way(headers={"Link": "<{hit}>; rel=preload; as=image"}),
    "svg-script": Way("<svg><script href='{hit}'></script></svg>"),
    "svg-pattern-document": Way(
        "<object type='image/svg+xml' data=\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'><image href='{hit}'/></svg>\"></object>"
    ),
    "base-href": Way("<base href='{hit}'><img src='?x'>"),
    "link-preload-fetch": Way("<link rel=preload as=fetch crossorigin href='{hit}'>"),
    "video-source": Way("<video><source src='{hit}' type=video/mp4></video>"),
    "img-attributionsrc": Way("<img attributionsrc='{hit}' src='data:,'>"),
    "import-map": Way(
        '<script type=importmap>{{"imports": {{"x": "{hit}"}}}}</script><script type=module>import \'x\'</script>'
    ),
    "json-module": Way("<script type=module>import d from '{hit}' with {{type: 'json'}}</script>"),
    "css-module": Way("<script type=module>import d from '{hit}' with {{type: 'css'}}</script>"),
}

STYLES: dict[str, Way] = {
    "css-background": _style(".x {{ background: url({hit}) }}"),
    "css-import": _style("@import url({hit});"),
    "css-font": _style("@font-face {{ font-family: f; src: url({hit}) }} .x {{ font-family: f }}"),
    "css-content": _style(".x::before {{ content: url({hit}) }}"),
    "css-list": _style(".x {{ display: list-item; list-style-image: url({hit}) }}"),
    "css-border": _style(".x {{ border: 9px solid; border-image: url({hit}) 9 }}"),
    "css-mask": _style(".x {{ mask-image: url({hit}) }}"),
    "css-shape": _style(".x {{ float: left; width: 9px; height: 9px; shape-outside: url({hit}) }}"),
    "css-image-set": _style(".x {{ background: image-set(url({hit}) 1x) }}"),
    "css-svg-filter": _style(".x {{ filter: url({hit}#f) }}"),
    "css-cursor": _style(".x {{ cursor: url({hit}), auto; position: fixed; inset: 0 }}"),
    "css-property-later": _script("document.body.style.background = 'url({hit})'"),
    "css-constructed": _script(
        "const s = new CSSStyleSheet(); s.replaceSync('body {{ background: url({hit}) }}'); document.adoptedStyleSheets = [s]"
    ),
    "css-animation": _style(
        "@keyframes k {{ from {{ background: url({hit}) }} to {{ background: url({hit}) }} }} .x {{ animation: k 60s }}"
    ),
    "css-print-frame": Way(
        '<iframe srcdoc="<style>@media print {{ body {{ background: url({hit}) }} }}</style>x"></iframe>',
        kind="browser.pdf",
    ),
}

FRAMES: dict[str, Way] = {
    "frame": Way("<iframe src='{hit}'></iframe>"),
    "frame-srcdoc": Way("<iframe srcdoc=\"<img src='{hit}'>\"></iframe>"),
    "frame-data": Way("<iframe src=\"data:text/html,<img src='{hit}'>\"></iframe>"),
    "frame-blob": _script(
        "const f = document.createElement('iframe'); f.src = URL.createObjectURL(new Blob(["
        "\"<img src='{hit}'>\"], {{type: 'text/html'}})); document.body.append(f)"
    ),
    "frame-javascript": Way("<iframe src=\"javascript:'<img src=&quot;{hit}&quot;>'\"></iframe>"),
    "frame-sandbox": Way("<iframe sandbox src='{hit}'></iframe>"),
    "frame-redirect": Way("<iframe src='{site}/redirect/302/{name}'></iframe>"),
    "frame-set": Way("<frameset><frame src='{hit}'></frameset>"),
    "frame-form": Way(
        "<iframe name=f></iframe><form method=post action='{hit}' target=f></form><script>document.forms[0].submit()</script>"
    ),
    "frame-meta": Way("<iframe srcdoc=\"<meta http-equiv=refresh content='0; url={hit}'>\"></iframe>"),
    "frame-object-embed": Way("<object data=\"data:text/html,<iframe src='{hit}'></iframe>\"></object>"),
    "frame-nested": Way(
        "<iframe srcdoc=\"<iframe srcdoc=&quot;<img src='{hit}'>&quot;></iframe>\"></iframe>"
    ),
    "frame-document-write": _script(
        "const f = document.createElement('iframe'); document.body.append(f); f.contentDocument.write('<img src=\"{hit}\">'); f.contentDocument.close()"
    ),
    "frame-window-open-self": _script(
        "const f = document.createElement('iframe'); f.name = 'n'; document.body.append(f); open('{hit}', 'n')"
    ),
}

NAVIGATION: dict[str, Way] = {
    "go-location": Way("<script>location = '{hit}'</script>", kills_page=True),
    "go-meta": Way("<meta http-equiv=refresh content='0; url={hit}'>", kills_page=True),
    "go-header": Way(headers={"Refresh": "0; url={hit}"}, kills_page=True),
    "go-form": Way("<form action='{hit}'></form><script>document.forms[0].submit()</script>", kills_page=True),
    "go-form-post": Way("<form method=post action='{hit}'></form><script>document.forms[0].submit()</script>", kills_page=True),
    "go-link": Way("<a href='{hit}'>x</a><script>document.querySelector('a').click()</script>", kills_page=True),
    "go-download": Way("<a download href='{hit}'>x</a><script>document.querySelector('a').click()</script>", kills_page=True),
    "go-popup": _script("open('{hit}')"),
    "go-popup-blank": _script("open('about:blank').location = '{hit}'"),
    "go-popup-opener": Way("<a target=_blank rel=opener href='{hit}'>x</a><script>document.querySelector('a').click()</script>"),
    "go-history": Way("<script>navigation.navigate('{hit}')</script>", kills_page=True),
    "go-button": Way("<form><button formaction='{hit}'></button></form><script>document.querySelector('button').click()</script>", kills_page=True),
}  # fmt: skip

REDIRECTS: dict[str, Way] = {
    f"redirect-{status}": Way(f"<img src='{{site}}/redirect/{status}/{{name}}'>")
    for status in (301, 302, 303, 307, 308)
} | {
    "event-source-redirect": _script("new EventSource('{site}/redirect/307/{name}')"),
    "worker-redirect": _script(
        "new Worker(URL.createObjectURL(new Blob([\"importScripts('{site}/redirect/302/{name}')\"])))"
    ),
    "redirect-fetch": _script(
        "fetch('{site}/redirect/307/{name}', {{method: 'POST', mode: 'no-cors', body: 'x'}})"
    ),
    "redirect-script": Way("<script src='{site}/redirect/302/{name}'></script>"),
    "redirect-twice": Way("<img src='{site}/redirect/302/{name}?again'>"),
}

SCRIPTS: dict[str, Way] = {
    "fetch": _script("fetch('{hit}').catch(() => {{}})"),
    "fetch-post": _script("fetch('{hit}', {{method: 'POST', mode: 'no-cors', body: 'x'}})"),
    "fetch-keepalive": _script("fetch('{hit}', {{keepalive: true, mode: 'no-cors'}})"),
    "fetch-abort": _script("const c = new AbortController(); fetch('{hit}', {{mode: 'no-cors', signal: c.signal}}); setTimeout(() => c.abort(), 300)"),
    "xhr": _script("const x = new XMLHttpRequest(); x.open('GET', '{hit}'); x.send()"),
    "xhr-sync": _script("try {{ const x = new XMLHttpRequest(); x.open('GET', '{hit}', false); x.send() }} catch {{}}"),
    "beacon": _script("navigator.sendBeacon('{hit}', 'x')"),
    "beacon-pagehide": _script("addEventListener('pagehide', () => navigator.sendBeacon('{hit}', 'x'))"),
    "ping": Way("<a ping='{hit}' href='#x'>x</a><script>document.querySelector('a').click()</script>"),
    "event-source": _script("new EventSource('{hit}')"),
    "web-socket": Way("<body><script>new WebSocket('ws://{host}:{port}/')</script>", server="tcp"),
    "web-socket-tls": Way("<body><script>new WebSocket('wss://{host}:{port}/')</script>", server="tcp"),
    "web-socket-stream": Way("<body><script>new WebSocketStream('ws://{host}:{port}/')</script>", server="tcp"),
    "https": Way("<img src='https://{host}:{port}/'>", server="tcp"),
    "image-object": _script("new Image().src = '{hit}'"),
    "worker": _script("new Worker(URL.createObjectURL(new Blob([\"fetch('{hit}', {{mode: 'no-cors'}})\"])))"),
    "worker-import": _script("new Worker(URL.createObjectURL(new Blob([\"importScripts('{hit}')\"])))"),
    "worker-module": _script("new Worker(URL.createObjectURL(new Blob([\"import '{hit}'\"])), {{type: 'module'}})"),
    "shared-worker": _script("new SharedWorker(URL.createObjectURL(new Blob([\"fetch('{hit}', {{mode: 'no-cors'}})\"])))"),
    "service-worker": _script("navigator.serviceWorker.register('{site}/worker.js?{name}')"),
    "audio-worklet": _script("new AudioContext().audioWorklet.addModule('{hit}').catch(() => {{}})"),
    "paint-worklet": _script("CSS.paintWorklet.addModule('{hit}').catch(() => {{}})"),
    "font-face": _script("new FontFace('f', 'url({hit})').load().catch(() => {{}})"),
    "canvas-video": _script("const v = document.createElement('video'); v.src = '{hit}'; v.load()"),
    "web-transport": Way("<body><script>new WebTransport('https://{host}:{port}/').ready.catch(() => {{}})</script>", server="udp"),
    "rtc-stun": Way("<body><script>const p = new RTCPeerConnection({{iceServers: [{{urls: 'stun:{host}:{port}'}}]}}); p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))</script>", server="udp"),
    "rtc-turn": Way("<body><script>const p = new RTCPeerConnection({{iceServers: [{{urls: 'turn:{host}:{port}?transport=tcp', username: 'a', credential: 'b'}}]}}); p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))</script>", server="tcp"),
    "rtc-candidate": Way(
        "<body><script>(async () => {{ const a = new RTCPeerConnection(), b = new RTCPeerConnection(); a.createDataChannel('x');"
        " await a.setLocalDescription(await a.createOffer()); await b.setRemoteDescription(a.localDescription);"
        " await b.setLocalDescription(await b.createAnswer()); await a.setRemoteDescription(b.localDescription);"
        " await a.addIceCandidate({{candidate: 'candidate:1 1 udp 2130706431 {host} {port} typ host', sdpMid: '0'}}) }})()</script>",
        server="udp",
    ),
    "fetch-later": _script("try {{ fetchLater('{hit}', {{activateAfter: 0}}) }} catch {{ }}"),
    "fetch-request": _script("fetch(new Request('{hit}', {{mode: 'no-cors', priority: 'high', cache: 'reload'}}))"),
    "fetch-stream": _script("fetch('{hit}', {{method: 'POST', mode: 'cors', headers: {{'x-y': 'z'}}}}).catch(() => {{}})"),
    "worker-socket": Way("<body><script>new Worker(URL.createObjectURL(new Blob([\"new WebSocket('ws://{host}:{port}/')\"])))</script>", server="tcp"),
    "worker-nested": _script("new Worker(URL.createObjectURL(new Blob([\"new Worker(URL.createObjectURL(new Blob(['fetch(`{hit}`, {{mode: `no-cors`}})'])))\"])))"),
    "web-socket-localhost": Way("<body><script>new WebSocket('ws://localhost:{port}/')</script>", server="tcp"),
    "rtc-turn-tls": Way("<body><script>const p = new RTCPeerConnection({{iceServers: [{{urls: 'turns:{host}:{port}', username: 'a', credential: 'b'}}]}}); p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))</script>", server="tcp"),
    "rtc-turn-udp": Way("<body><script>const p = new RTCPeerConnection({{iceServers: [{{urls: 'turn:{host}:{port}?transport=udp', username: 'a', credential: 'b'}}]}}); p.createDataChannel('x'); p.createOffer().then(o => p.setLocalDescription(o))</script>", server="udp"),
    "wasm-stream": _script("WebAssembly.instantiateStreaming(fetch('{hit}', {{mode: 'no-cors'}})).catch(() => {{}})"),
}  # fmt: skip

POLICIES: dict[str, Way] = {
    "csp-report": Way(
        "<script>1</script>", {"Content-Security-Policy": "script-src 'none'; report-uri {hit}"}
    ),
    "csp-report-only": Way(
        "<script>1</script>", {"Content-Security-Policy-Report-Only": "script-src 'none'; report-uri {hit}"}
    ),
    "speculation-prefetch": Way(
        '<script type=speculationrules>{{"prefetch": [{{"urls": ["{hit}"], "eagerness": "immediate"}}]}}</script>'
    ),
    "speculation-prerender": Way(
        '<script type=speculationrules>{{"prerender": [{{"urls": ["{hit}"], "eagerness": "immediate"}}]}}</script>'
    ),
    "meta-csp-report": Way(
        "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\"><iframe src='{hit}'></iframe>"
    ),
    "speculation-header": Way(headers={"Speculation-Rules": '"{hit}"'}),
}

PAYLOADS: dict[str, Way] = {
    "payload-css": Way(payload={"css": "body {{ background: url({hit}) }}"}),
    "payload-js": Way(payload={"js": "await fetch('{hit}', {{mode: 'no-cors'}}).catch(() => {{}})"}),
    "payload-html": Way(payload={"html": "<img src='{hit}'>"}),
    "print-css": Way(
        "<style>@media print {{ body {{ background: url({hit}) }} }}</style>", kind="browser.pdf"
    ),
    "before-print": Way(
        "<script>addEventListener('beforeprint', () => fetch('{hit}', {{mode: 'no-cors'}}))</script>",
        kind="browser.pdf",
    ),
    "print-media": Way("<link rel=stylesheet media=print href='{hit}'>", kind="browser.pdf"),
    "payload-html-frame": Way(
        payload={"html": "<iframe src=\"data:text/html,<script src='{hit}'></script>\"></iframe>"}
    ),
    "payload-html-refresh": Way(
        payload={"html": "<iframe srcdoc=\"<meta http-equiv=refresh content='0; url={hit}'>\"></iframe>"}
    ),
    "payload-css-import": Way(
        payload={"css": ".y {{ background: url({hit}) }} body {{ border-image: url({hit}) 9 }}"}
    ),
}

# The same place in other words. `{other}` is put for the host.
SPELLINGS = (
    "localhost", "127.1", "127.0.1", "0x7f.1", "0177.0.0.1", "2130706433", "0x7f000001", "127.0.0.1.", "localhost.",
    "a.localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "①②⑦.0.0.1", "127。0。0。1",
)  # fmt: skip
DISGUISES: dict[str, Way] = {
    f"spelled-{spelling}": Way(f"<img src='http://{spelling}:{{port}}/hit/{{name}}'>")
    for spelling in SPELLINGS
}
# Names that a resolver answers with addresses inside: see `RESOLVED` in the test.
NAMES: dict[str, Way] = {
    f"named-{name}": Way(
        f"<img src='http://{name}:{{port}}/hit/{{name}}'><img src='http://{name}:{{port}}/hit/{{name}}?2'>"
    )
    for name in ("inside.test", "mixed.test", "mapped.test", "moving.test", "nat64.test")
}

WAYS: dict[str, Way] = {
    **MARKUP, **STYLES, **FRAMES, **NAVIGATION, **REDIRECTS, **SCRIPTS, **POLICIES, **PAYLOADS, **DISGUISES, **NAMES,
}  # fmt: skip
