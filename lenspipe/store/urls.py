"""URLs of object stores: which words are one, the file system behind it, and what may not stand in it."""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import Any

from lenspipe.errors import ConfigError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""What to install for a protocol, as an extra of lenspipe."""


def is_url(path: object) -> bool:
    """Whether a path is an fsspec URL such as ``s3://bucket/key``."""
    return "://" in str(path)


def is_remote(path: object) -> bool:
    """Whether a path is a URL of something else than this machine's files."""
    return is_url(path) and not str(path).startswith("file://")


def local_path(request: str) -> str:
    """Absolute path of a local file, folder or glob, or of a ``file://`` URL."""
    path = urllib.parse.unquote(request.removeprefix("file://")) if request.startswith("file://") else request
    return os.path.abspath(os.path.expanduser(path))


def joined(url: str, *names: str) -> str:
    """A URL below another."""
    return "/".join([url.rstrip("/"), *names])


_USER, _QUERY = (
    re.compile(r"://[^/@]*:[^/@]*@"),
    re.compile(
        r"(?i)[?&;](?:sig|signature|x-(?:amz|goog|ms)-[a-z-]+|awsaccesskeyid|access_?key\w*|key-pair-id|policy|(?:\w+_)?token"
        r"|api_?key|secret\w*|password|sv|se|sp)="
    ),
)
_WEB_USER = re.compile(r"(?i)(?<=(?:http|ttps)://)[^/?#@]*@")
_WEB_KEYS = re.compile(
    r"(?i)key|.*api_?key|key-pair-id|auth.*|.*secret.*|.*token.*|sig.*|access.*|aws.*|x-(?:amz|goog|ms)-.*|googleaccessid"
    r"|policy|.*password|passw?d|pwd|.*credential.*|jwt|session.*|code|sv|se|sp|sas"
)
"""Names in a web address's query, or behind its ``#``, that give a right to whoever has the address."""
_SECRET_NAMES = re.compile(r"(?i)secret|token|password|access_?key|credential|account_key|sas")
_SECRET_BYTES = 8


def demand_no_secrets(path: str) -> None:
    """
    Refuse a URL that holds credentials or a signature: it would be written to records, plans and pages.

    Raises
    ------
    ConfigError
        It does; the message names the URL without them.
    """
    if is_url(path) and (_USER.search(path) or _QUERY.search(path) or _web_secret(path)):
        bare = _WEB_USER.sub("", _USER.sub("://", path)).partition("?")[0].partition("#")[0]
        raise ConfigError(
            "the URL holds credentials or a signature, which a run's record would show to everybody: give them to "
            "fsspec by environment variables or its configuration files, and the URL without them",
            url=bare,
        )


def _web_secret(path: str) -> bool:
    if not re.search(r"(?i)https?://", path):
        return False
    names = (urllib.parse.unquote(name) for name in re.findall(r"[?&;#]([^=?&;#]+)=", path))
    return bool(_WEB_USER.search(path)) or any(_WEB_KEYS.fullmatch(name) for name in names)


def without_secrets(text: str) -> str:
    """What a store's package said, without the values of environment variables that are named as secrets are."""
    for name, value in os.environ.items():
        if len(value) >= _SECRET_BYTES and _SECRET_NAMES.search(name):
            text = text.replace(value, "***")
    return text


def said(error: BaseException) -> str:
    """Kind and words of an error that a store's package raised, in one line."""
    return without_secrets(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def url_filesystem(url: str) -> tuple[Any, str]:
    """
    Fsspec's filesystem of a URL, and the path in it.

    Raises
    ------
    ConfigError
        The protocol is not known, its package is missing, or the server cannot be reached.
    """
    import fsspec

    protocol = url.split("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(protocol.split("::")[-1])
        how = f"; pip install 'lenspipe[{extra}]'" if extra else ""
        raise ConfigError(f"{protocol}:// needs a package that is not installed{how}: {error}", url=url) from error
    except ValueError as error:
        raise ConfigError(f"the protocol {protocol}:// is not known: {error}", url=url) from error
    except Exception as error:  # the servers' packages raise their own
        raise ConfigError(
            f"the server cannot be reached ({said(error)}); is the URL right, is there a network?", url=url
        ) from error
    return filesystem, path
