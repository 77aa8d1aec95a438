"""Where downloads may come from, and what is asked of whom."""

import gzip
import ipaddress
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from local.figma.pictures import png
from tests.worker.pools import computing
from worker.browser.addresses import IPAddress
from worker.browser.targets import Targets
from worker.figma.download import DownloadFailed, Downloads, Expired
from worker.figma.pictures import Size

PICTURE = png(3, 2, (1, 2, 3), "x")
PUBLIC, INSIDE = "93.184.216.34", "10.0.0.5"
API = "http://figma.internal:9000"

Answer = Callable[[httpx.Request], httpx.Response]


def downloads(answer: Answer, api: str = API, **names: str) -> Downloads:
    """Downloads that meet `answer` instead of a network. `names`: what hosts resolve to, dots as underscores."""

    async def resolve(host: str) -> list[IPAddress]:
        return [ipaddress.ip_address(names[host.replace(".", "_")])]

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return Downloads(http, api, Targets(resolve=resolve), computing())


@pytest.fixture
def asked() -> list[httpx.Request]:
    return []


def good(asked: list[httpx.Request]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=PICTURE)

    return answer


async def test_the_address_that_was_checked_is_the_one_that_is_asked(
    asked: list[httpx.Request], tmp_path: Path
) -> None:
    """A name that leads elsewhere a moment later leads nowhere."""
    some = downloads(good(asked), s3_example=PUBLIC)
    found = await some.fetch("https://s3.example/a.png?X-Amz-Signature=a%2Fb", tmp_path / "file", "png")
    assert found == ("png", Size(3, 2))
    (request,) = asked
    assert request.url.host == PUBLIC
    assert request.url.raw_path == b"/a.png?X-Amz-Signature=a%2Fb"
    assert request.headers["host"] == "s3.example"
    assert request.extensions["sni_hostname"] == "s3.example"
    assert "authorization" not in request.headers
    assert "x-figma-token" not in request.headers


@pytest.mark.parametrize(
    "url",
    [
        "https://inside.example/a.png",
        "https://127.0.0.1/a.png",
        "https://[::1]/a.png",
        "https://localhost/a.png",
        "https://169.254.169.254/latest/meta-data",
        "http://s3.example/a.png",
        "https://user:word@s3.example/a.png",
        "file:///etc/passwd",
        "ftp://s3.example/a.png",
        "/a.png",
        "",
    ],
)
async def test_an_address_that_is_not_public_https_is_never_asked(
    asked: list[httpx.Request], tmp_path: Path, url: str
) -> None:
    some = downloads(good(asked), s3_example=PUBLIC, inside_example=INSIDE)
    with pytest.raises(DownloadFailed) as failed:
        await some.fetch(url, tmp_path / "file")
    assert (asked, failed.value.bad) == ([], False)


@pytest.mark.parametrize(
    "where", ["https://inside.example/a.png", "http://s3.example/a.png", "//127.0.0.1/a"]
)
async def test_a_redirect_is_checked_as_any_other_address(tmp_path: Path, where: str) -> None:
    hosts = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(302, headers={"location": where})

    some = downloads(answer, s3_example=PUBLIC, inside_example=INSIDE)
    with pytest.raises(DownloadFailed):
        await some.fetch("https://s3.example/a.png", tmp_path / "file")
    assert hosts == [PUBLIC]


async def test_redirects_come_to_an_end(tmp_path: Path) -> None:
    some = downloads(lambda _: httpx.Response(302, headers={"location": "/again"}), s3_example=PUBLIC)
    with pytest.raises(DownloadFailed, match="without end"):
        await some.fetch("https://s3.example/a.png", tmp_path / "file")


@pytest.mark.parametrize(
    ("api", "url"),
    [
        (API, "http://figma.internal:9001/a.png"),
        (API, "https://figma.internal/a.png"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9001/a.png"),
        ("http://127.0.0.1:9000", "http://localhost:9001/a.png"),
        ("http://localhost:9000", "http://images.localhost:9001/a.png"),
        ("http://[::1]:9000", "http://127.0.0.1:9001/a.png"),
    ],
)
async def test_the_apis_own_host_is_asked_on_any_port(
    asked: list[httpx.Request], tmp_path: Path, api: str, url: str
) -> None:
    await downloads(good(asked), api).fetch(url, tmp_path / "file", "png")
    assert [str(request.url) for request in asked] == [url]


async def test_an_address_that_has_ended_is_not_asked_twice(tmp_path: Path) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(403, content=b"<Error><Code>AccessDenied</Code></Error>")

    with pytest.raises(Expired):
        await downloads(answer, s3_example=PUBLIC).fetch("https://s3.example/a.png", tmp_path / "file")
    assert len(asked) == 1


async def test_a_file_larger_than_an_artifact_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.figma.download.MOST_BYTES", 100_000)
    taken = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            taken.append(1)
            yield b"x" * 10_000

    some = downloads(lambda _: httpx.Response(200, content=endless()), s3_example=PUBLIC)
    with pytest.raises(DownloadFailed, match="100000 bytes"):
        await some.fetch("https://s3.example/a.png", tmp_path / "file")
    assert len(taken) < 20


@pytest.mark.parametrize(
    "written",
    [
        "https://S3.Example/a.png",
        "https://s3.example:443/a.png",
        "https://%73%33.example/a.png",
    ],
)
async def test_a_host_is_asked_by_its_plain_name(
    asked: list[httpx.Request], tmp_path: Path, written: str
) -> None:
    await downloads(good(asked), s3_example=PUBLIC).fetch(written, tmp_path / "file", "png")
    (request,) = asked
    assert (request.headers["host"], request.extensions["sni_hostname"]) == ("s3.example", "s3.example")


@pytest.mark.parametrize(
    "where",
    [
        "http://[::1",
        "https://s3.example/" + "a" * 70_000,
        "https://s3.example:0/",
        "https://s3.example:99999/",
    ],
)
async def test_a_redirect_to_no_address_is_a_failed_download(tmp_path: Path, where: str) -> None:
    some = downloads(lambda _: httpx.Response(302, headers={"location": where}), s3_example=PUBLIC)
    with pytest.raises(DownloadFailed):
        await some.fetch("https://s3.example/a.png", tmp_path / "file")


async def test_only_the_api_itself_leads_to_the_apis_host(asked: list[httpx.Request], tmp_path: Path) -> None:
    """A server out there that redirects inside gains nothing; the API's own redirects do."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        to = {
            "/out": "https://s3.example/in",
            "/in": "http://figma.internal:8080/secret",
            "/own": "http://figma.internal:8080/file",
        }
        where = to.get(request.url.path)
        return (
            httpx.Response(302, headers={"location": where})
            if where
            else httpx.Response(200, content=PICTURE)
        )

    for url in ("http://figma.internal:9000/out", "https://s3.example/in"):
        with pytest.raises(DownloadFailed):
            await downloads(answer, s3_example=PUBLIC).fetch(url, tmp_path / "file")
    assert "/secret" not in [request.url.path for request in asked]
    await downloads(answer, s3_example=PUBLIC).fetch(
        "http://figma.internal:9000/own", tmp_path / "file", "png"
    )
    assert asked[-1].url.path == "/file"


async def test_a_file_that_is_packed_twice_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(gzip.compress(bytes(1 << 20)))
    some = downloads(
        lambda _: httpx.Response(
            200, headers={"content-encoding": "gzip, gzip"}, stream=httpx.ByteStream(bomb)
        ),
        s3_example=PUBLIC,
    )
    with pytest.raises(DownloadFailed, match="packed"):
        await some.fetch("https://s3.example/a.png", tmp_path / "file")
