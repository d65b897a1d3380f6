"""What a store says of credentials: one line that stops the work, but for one object that is not to be read."""

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from click.testing import CliRunner
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error

from lenspipe.cli import group
from lenspipe.errors import ForbiddenError, StoreError, TileError
from lenspipe.store.objects import listed, read_bytes
from lenspipe.store.place import place_at, shown
from lenspipe.survey.files import open_fits, size_bytes


class Refusing(MemoryFileSystem):
    """A store that answers every request with one error; HEAD without words, as S3."""

    protocol = "refusing"
    error = None
    head = None

    def info(self, path, **kwargs):
        raise self.head or self.error

    def cat_file(self, path, start=None, end=None, **kwargs):
        raise self.error

    find = isdir = pipe_file = info


fsspec.register_implementation("refusing", Refusing, clobber=True)


def said(code):
    return translate_boto_error(ClientError({"Error": {"Code": code, "Message": "words"}}, "GetObject"))


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "RequestTimeTooSkewed", "InvalidToken", None])
def test_credentials_that_are_absent_or_expire_spoil_no_tile(monkeypatch, code):
    monkeypatch.setattr(Refusing, "error", said(code) if code else NoCredentialsError())
    monkeypatch.setattr(Refusing, "head", PermissionError("Forbidden") if code else None)
    with pytest.raises(StoreError, match="takes no credentials") as found, open_fits("refusing://box/a_r.fits"):
        pass
    assert not isinstance(found.value, ForbiddenError) and "\n" not in str(found.value)


def test_one_object_that_is_forbidden_is_a_failure_of_its_tile(monkeypatch):
    monkeypatch.setattr(Refusing, "error", said("AccessDenied"))
    with pytest.raises(TileError, match="the store forbids it"), open_fits("refusing://box/a_r.fits"):
        pass
    with pytest.raises(TileError, match="the store forbids it"):
        size_bytes("refusing://box/a_r.fits")
    for ask in (read_bytes, listed):
        with pytest.raises(ForbiddenError, match="the store forbids it"):
            ask("refusing://box/a")


@pytest.mark.parametrize("error", [NoCredentialsError(), PermissionError("Access Denied")])
def test_a_run_in_a_store_that_refuses_is_a_deliberate_error(monkeypatch, tmp_path, error):
    monkeypatch.setattr(Refusing, "error", error)
    words = ["scan", str(tmp_path), "--runner", "local", "--model", "none", "--out", "refusing://box/run"]
    assert isinstance(CliRunner().invoke(group, words, standalone_mode=False).exception, StoreError)


def test_a_listed_object_has_the_version_of_the_object_by_its_time_too():
    facts = {"type": "file", "size": 3, "mtime": 5.0}
    files = type(
        "Files", (MemoryFileSystem,), {"protocol": "timed", "find": lambda self, path, **k: {f"{path}/a": facts}}
    )
    fsspec.register_implementation("timed", files, clobber=True)
    first = listed("timed://box")
    facts["mtime"] = 6.0
    assert first["a"].size == 3 and listed("timed://box") != first


@pytest.fixture
def web(monkeypatch):
    """A web server that answers with one status, and counts."""
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(int(self.path.split("/")[1]))

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *words):
            pass

    monkeypatch.setenv("LENSPIPE_STORE_PATIENCE_S", "1.5")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, ForbiddenError, "the store forbids it"),
        (410, StoreError, "the server refuses what was asked"),
        (401, StoreError, "takes no credentials"),
    ],
)
def test_what_a_web_server_will_not_change_is_not_waited_for(web, status, kind, words):
    url, asked = web
    with pytest.raises(kind, match=words):
        read_bytes(f"{url}/{status}/a.fits")
    assert len(asked) == 1


def test_a_web_server_that_is_busy_is_asked_again(web):
    url, asked = web
    with pytest.raises(StoreError, match="the store fails"):
        read_bytes(f"{url}/503/a.fits")
    assert len(asked) > 1


class Closing(MemoryFileSystem):
    """A store that takes the lease, and no file."""

    protocol = "closing"
    store, pseudo_dirs = {}, [""]

    def put_file(self, *words, **kwargs):
        raise said("AccessDenied")


fsspec.register_implementation("closing", Closing, clobber=True)


def test_work_that_a_store_refuses_at_the_end_is_kept_and_named():
    with (
        pytest.raises(StoreError, match="is kept here") as found,
        place_at("closing://box/model", writes=True) as folder,
    ):
        folder.mkdir()
        (folder / "card.json").write_text("{}")
    kept = Path(found.value.facts["folder"])
    assert (kept / "card.json").read_text() == "{}"
    assert str(kept) in shown(str(found.value))
    shutil.rmtree(kept.parent)
