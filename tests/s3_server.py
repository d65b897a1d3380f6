"""An S3 on loopback that counts what is asked of it, and that fails, waits, dies and comes back when it is told to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

BUCKET = "survey"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATESTING00000000",
    "AWS_SECRET_ACCESS_KEY": "hunter2-hunter2-hunter2",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # lenspipe's own tries are what is tested
    "NO_PROXY": "127.0.0.1",
}


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        pass


class S3Server:
    """moto's S3; `fail` and `delay_s` may be set at any time."""

    def __init__(self, port: int = 0) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.port = port
        self.gets = self.sent = self.failed = self.at_once = self._now = 0
        """Requests for objects or parts of them, bytes of their answers, requests refused, most at one time."""
        self.fail: Callable[[str, str], bool] = lambda method, path: False
        """Whether a request is answered by 500."""
        self.delay_s = 0.0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Be there, with what was there before."""
        self._server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=_Quiet)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Die."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def counted(self) -> Iterator[S3Server]:
        """Counts from zero."""
        self.gets = self.sent = self.failed = self.at_once = 0
        yield self

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
            failed = self.fail(method, path)
            self.failed += failed
        time.sleep(self.delay_s)
        with self._lock:
            self._now -= 1
        if failed:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"<Error><Code>InternalError</Code><Message>We are sorry</Message></Error>"
            start_response("500 Internal Server Error", [("Content-Length", str(len(body)))])
            return [body]
        answer = self._app(environ, start_response)
        if method == "GET" and path.count("/") >= 2 and not environ["QUERY_STRING"].startswith("list-type"):
            answer = [b"".join(answer)]
            with self._lock:
                self.gets += 1
                self.sent += len(answer[0])
        return answer


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with one empty bucket, of which all that talks S3 in this process and its children hears."""
    import s3fs

    server = S3Server()
    before = {name: os.environ.get(name) for name in (*_ENVIRONMENT, "AWS_ENDPOINT_URL")}
    os.environ.update(_ENVIRONMENT, AWS_ENDPOINT_URL=server.url)
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
