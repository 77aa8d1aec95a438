"""The object store: moto's S3 server, with every object on disk before its writing is answered.

`python -m local.objects <folder> <port>`. One file an object: a JSON line (key, type, …), then the bytes.
"""

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

os.environ.setdefault(
    "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(1024**2)
)  # larger objects wait in temporary files
os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import FakeKey, S3Backend, s3_backends
from werkzeug.serving import run_simple

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BUCKET = "storage"
_CHUNK = 1024**2


class Disk:
    """The objects' files. A write is whole or it is not done: temporary file, fsync, rename."""

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes  # of all files together; a full disk for tests
        folder.mkdir(parents=True, exist_ok=True)
        for broken in folder.glob("*/*.new"):
            broken.unlink()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()  # any key is a safe file name
        return self.folder / name[:2] / name

    def write(self, stored: FakeKey) -> None:
        """Raises OSError when the disk does not take it; then the file of before, if any, is as it was."""
        path = self._path(stored.name)
        path.parent.mkdir(exist_ok=True)
        about = {
            "key": stored.name,
            "content_type": stored.metadata.get("Content-Type"),
            "cache_control": stored.metadata.get("Cache-Control"),
            "last_modified": stored.last_modified.replace(tzinfo=UTC).timestamp(),
        }
        fresh = path.with_suffix(f".{threading.get_ident()}.new")
        try:
            with fresh.open("wb") as file:
                file.write(json.dumps(about).encode() + b"\n")
                self._refuse_when_full(stored.size)
                with stored.lock:
                    value = stored._value_buffer  # noqa: SLF001 - `value` would be the whole object once more
                    value.seek(0)
                    shutil.copyfileobj(value, file, _CHUNK)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            _sync_folder(path.parent)
        finally:
            fresh.unlink(missing_ok=True)

    def _refuse_when_full(self, size: int) -> None:
        if self.limit_bytes is not None:
            used = sum(file.stat().st_size for file in self.folder.glob("*/*"))
            if used + size > self.limit_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        if path.parent.exists():
            _sync_folder(path.parent)

    def restore(self, backend: S3Backend) -> int:
        """Puts every object on disk back into the bucket; returns how many."""
        return sum(self._read(backend, path) for path in self.folder.glob("*/*"))

    def restore_one(self, backend: S3Backend, key: str) -> None:
        """The bucket has of this key what the disk has, or nothing."""
        path = self._path(key)
        if path.exists():
            self._read(backend, path)
        else:
            backend.buckets[BUCKET].keys.pop(key)

    def _read(self, backend: S3Backend, path: Path) -> int:
        with path.open("rb") as file:
            about = json.loads(file.readline())
            stored = backend.put_object(BUCKET, about["key"], file.read())
        metadata = {"Content-Type": about["content_type"], "Cache-Control": about["cache_control"]}
        stored.set_metadata({name: value for name, value in metadata.items() if value})
        stored.last_modified = datetime.fromtimestamp(about["last_modified"], UTC).replace(tzinfo=None)
        return 1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Durable:
    """WSGI around moto: a write is answered when the disk has it, and undone when the disk refuses it."""

    def __init__(self, inner: "WSGIApplication", backend: S3Backend, disk: Disk) -> None:
        self.inner, self.backend, self.disk = inner, backend, disk
        self.locks = [threading.Lock() for _ in range(64)]  # writes to one key follow each other

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            return self.inner(environ, start_response)
        bucket, _, key = _raw_path(environ).lstrip("/").partition("/")
        if method not in ("PUT", "DELETE") or environ.get("QUERY_STRING", "") not in (
            "",
            f"x-id={_OPERATIONS[method]}",
            "x-id=CopyObject",
        ):
            return _error(
                start_response,
                "501 Not Implemented",
                "NotImplemented",
                "This store puts, copies, gets and deletes whole objects.",
            )
        if bucket != BUCKET or not key:
            return _error(start_response, "404 Not Found", "NoSuchBucket", f"The only bucket is {BUCKET}.")
        with self.locks[hash(key) % len(self.locks)]:
            return self._write(method, key, environ, start_response)

    def _write(
        self, method: str, key: str, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        answered: list[Any] = []

        def hold(*arguments: Any) -> Any:
            answered[:] = arguments
            return lambda _bytes: None

        body = list(self.inner(environ, hold))
        if answered[0].startswith("2"):
            try:
                if method == "DELETE":
                    self.disk.delete(key)
                else:
                    self._keep(key, environ)
            except OSError as error:
                self.disk.restore_one(self.backend, key)
                print(f"{method} {key}: {error}", file=sys.stderr, flush=True)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    return _error(
                        start_response, "507 Insufficient Storage", "InsufficientStorage", "The disk is full."
                    )
                return _error(
                    start_response,
                    "500 Internal Server Error",
                    "InternalError",
                    "The disk did not take the object.",
                )
        start_response(*answered)
        return body

    def _keep(self, key: str, environ: "WSGIEnvironment") -> None:
        stored = self.backend.get_object(BUCKET, key)
        if stored is None:
            raise OSError(errno.EIO, "the object is not in the bucket that just took it")
        copied = "HTTP_X_AMZ_COPY_SOURCE" in environ
        if not copied and stored.size != int(environ.get("CONTENT_LENGTH") or 0):
            raise OSError(errno.EIO, "the body ended early")
        self.disk.write(stored)


_OPERATIONS = {"PUT": "PutObject", "DELETE": "DeleteObject"}


def _raw_path(environ: "WSGIEnvironment") -> str:
    """The path as it was sent, unquoted once; PATH_INFO is Latin-1 of the bytes."""
    return unquote(str(environ.get("RAW_URI") or environ["REQUEST_URI"]).split("?")[0])


def _error(start_response: "StartResponse", status: str, code: str, message: str) -> Iterable[bytes]:
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def main(folder: Path, port: int) -> None:
    limit = os.environ.get("SIDEJOB_OBJECTS_LIMIT_BYTES")
    disk = Disk(folder, int(limit) if limit else None)
    backend: S3Backend = s3_backends["123456789012"]["aws"]  # moto's account when credentials name none
    backend.create_bucket(BUCKET, "us-east-1")
    print(f"{disk.restore(backend)} objects from {folder}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    application = Durable(DomainDispatcherApplication(create_backend_app), backend, disk)
    run_simple("127.0.0.1", port, application, threaded=True, request_handler=_Quiet)


class _Quiet(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Requests stand in the gateway's log; here only what went wrong."""


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
