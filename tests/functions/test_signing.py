"""Signed URLs: addresses as they stand, and none under which a browser runs what somebody stored."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from sidejob import config, storage
from sidejob.errors import Refused, Unavailable
from tests.functions.conftest import Project
from tests.functions.test_job_flow import PNG, assign, claim, lease
from tests.stack import Person, Stack, done


@pytest.mark.parametrize(
    ("mime", "names", "inert"),
    [
        ("image/png", ("a.png", "ws/2026/a.png"), True),
        ("IMAGE/PNG", ("a.PNG",), True),
        ("text/plain; charset=utf-8", ("a.txt",), True),
        ("application/pdf", ("a.pdf",), True),
        ("image/png", ("a.html", "a.png"), False),
        ("image/png", ("a.png", "a.svg"), False),
        ("image/png", ("a.jpg",), False),
        ("image/png", ("png",), False),
        ("text/html", ("a.png",), False),
        ("text/html", ("content.html",), False),
        ("image/svg+xml", ("a.svg",), False),
        ("application/xml", ("a.xml",), False),
        ("application/xhtml+xml", ("a.xhtml",), False),
        ("text/javascript", ("a.js",), False),
        ("text/plain", ("content.html",), False),
        ("application/octet-stream", ("a.bin",), False),
        ("multipart/related", ("page.mhtml",), False),
        ("", ("a.png",), False),
    ],
)
def test_what_a_browser_may_show_is_a_short_list(mime: str, names: tuple[str, ...], inert: bool) -> None:
    assert storage.is_inert(mime, *names) is inert


def stored(worker: Person, job: dict[str, Any], name: str, mime: str) -> dict[str, Any]:
    path = f"{job['workspace_id']}/2026/11/23/{job['id']}/{job['attempt']}/{name}"
    assert worker.upload(path, PNG, "text/plain").status_code == 200
    return {"name": name, "mime": mime, "size": len(PNG), "path": path}


NAMES = [
    "Frame 1.png",
    "Card - large.png",
    "a&b=c.png",
    "it's (2)!.png",
    "50,5 @2x;v+1.png",
    "$x*.png",
]


def test_a_signed_url_is_a_valid_address_whatever_the_file_is_called(
    stack: Stack, member: Person, worker: Person, executor: str
) -> None:
    assign(member, executor)
    job = claim(worker, executor)
    files = [stored(worker, job, name, "image/png") for name in NAMES]
    files.append(stored(worker, job, "content page.html", "text/html"))
    files.append(stored(worker, job, "pretends.png", "text/html"))
    files.append(stored(worker, job, "pretends.svg", "image/png"))
    done(worker.post("task-result", {**lease(job), "ok": True, "artifacts": files}))
    for file in done(member.get("artifacts-list", jobId=job["id"]))["items"]:
        for answer in (
            member.get("sign-artifact", artifactId=file["id"]),
            member.get("sign-artifact", bucket="artifacts", path=file["path"]),
        ):
            url = done(answer)["url"]
            assert set(url) <= set(
                "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?&=%"
            ), url
            got = stack.http.get(url)
            assert (got.status_code, got.content) == (200, PNG), got.text
            active = file["mime"] == "text/html" or file["name"].endswith(".svg")
            assert ("attachment" in got.headers.get("content-disposition", "")) is active
            asked = parse_qs(urlsplit(url).query)
            assert asked.get("download") == ([file["name"]] if active else None)


@pytest.fixture
def project_with_key(project: Project, environment: pytest.MonkeyPatch) -> Project:
    environment.setenv("SUPABASE_SECRET_KEY", "sb_secret_x")
    config.settings.cache_clear()
    return project


def sign(path: str = "w/a b&c.png", download: str | None = None) -> str:
    return storage.signed_url("artifacts", path, 60, "request-1", download=download, field="artifactId")


def test_storage_is_asked_in_the_way_in_which_it_reads_a_path(project_with_key: Project) -> None:
    """It signs what JavaScript's decodeURI makes of it: an escape that is left in it never fits again."""
    project_with_key.answers = [(200, {"signedURL": "/object/sign/artifacts/w/a b&c.png?token=e.y.J"})]
    url = sign(download="a b&c.html")
    assert project_with_key.paths == ["/storage/v1/object/sign/artifacts/w/a%20b&c.png"]
    assert urlsplit(url).path == "/storage/v1/object/sign/artifacts/w/a%20b%26c.png"
    assert urlsplit(url).query == "token=e.y.J&download=a%20b%26c.html"


@pytest.mark.parametrize(
    "answer",
    [
        (200, "a proxy's page"), (404, "a proxy's page"), (200, {}), (200, {"signedURL": 7}),
        (200, {"signedURL": "/"}),
        (200, []), (403, {"statusCode": "403"}), (500, {}), (429, {}), (307, {}),
    ],
)  # fmt: skip
def test_an_answer_of_storage_of_an_unexpected_shape_may_pass(
    project_with_key: Project, answer: tuple[int, object]
) -> None:
    project_with_key.answers = [answer]
    with pytest.raises(Unavailable) as unavailable:
        sign()
    assert unavailable.value.code in ("storage_error", "storage_unavailable")
    assert int(unavailable.value.headers["Retry-After"]) > 0


def test_an_object_that_is_gone_names_the_field(project_with_key: Project) -> None:
    project_with_key.answers = [
        (400, {"statusCode": "404", "error": "not_found", "message": "Object not found"})
    ]
    with pytest.raises(Refused) as refused:
        sign()
    assert (refused.value.code, refused.value.details) == ("not_found", {"field": "artifactId"})
    assert "`artifactId`" in str(refused.value.hint)


MIGRATION = next(Path(__file__).parents[2].glob("supabase/migrations/*_create_artifacts.sql"))


@pytest.mark.parametrize("public", [True, False])
def test_a_bucket_that_is_there_and_public_is_refused_and_left_as_it_is(stack: Stack, public: bool) -> None:
    text = MIGRATION.read_text()
    begin = text.index("do $$")
    making = text[begin : text.index("-- May the caller write this object now?")]
    with psycopg.connect(stack.env["SUPABASE_DB_URL"]) as connection:
        connection.execute("update storage.buckets set public = %s where id = 'artifacts'", [public])
        if public:
            with pytest.raises(psycopg.Error, match="public") as refused:
                connection.execute(making)
            assert "private" in str(refused.value.diag.message_hint)
        else:
            connection.execute(making)
            (row,) = connection.execute(
                "select public from storage.buckets where id = 'artifacts'"
            ).fetchall()
            assert row == (False,)
        connection.rollback()
