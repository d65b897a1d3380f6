"""Whether a Ray cluster listens at an address, asked before Ray is: Ray waits minutes for one that does not."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading

from lenspipe.errors import ConfigError

NO_ANSWER = (
    "the Ray cluster of RAY_ADDRESS does not answer: start it, correct the address, or unset RAY_ADDRESS "
    "to use this machine alone"
)
CONNECT_S, ANSWER_S, ALL_S = 4.0, 4.0, 12.0
"""Longest wait for a connection, for an answer over it, and for all of it, names of hosts included."""
_LOOPBACK = "localhost", "127.0.0.1", "::1"
_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""Opening of a connection in HTTP/2, as Ray speaks, with empty settings; a server answers with its own (type 4)."""


def check_address() -> None:
    """
    Raise `ConfigError` where nothing listens at ``RAY_ADDRESS``, or something that is not Ray.

    Addresses that name no host (``auto``, ``local``) and sessions that have joined already are left to Ray.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    place = _place(address)
    if place is None or has_joined():
        return
    said = [f"no answer within {ALL_S:g} s"]

    def ask() -> None:
        said[0] = _refusal(*place)

    asked = threading.Thread(target=ask, daemon=True)  # the look-up of a host's name knows no limit of time
    asked.start()
    asked.join(ALL_S)
    if said[0]:
        raise ConfigError(NO_ANSWER, address=address, found=said[0])


def on_loopback_alone(address: str) -> bool:
    """Whether a cluster on this machine listens on the loopback address and nowhere else, as a local Ray of ours."""
    place = _place(address)
    return (
        place is not None
        and place[0] in _LOOPBACK
        and not _refusal_of(*place)
        and bool(_refusal_of(_own_address(), place[1]))
    )


def _place(address: str) -> tuple[str, int] | None:
    """Host and port of an address that names them."""
    match = re.fullmatch(r"(?:ray://)?(?:\[([0-9a-fA-F:]+)\]|([^:/\[\]]+)):(\d{1,5})", address.strip())
    return None if match is None else (match[1] or match[2], int(match[3]))


def has_joined() -> bool:
    """Whether Ray runs in this process; asked without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _refusal(host: str, port: int) -> str:
    """Why this is not the place of a cluster; empty where it is."""
    refusal = _refusal_of(host, port)
    if refusal and host in _LOOPBACK:
        return _refusal_of(_own_address(), port) and refusal  # as Ray understands these names
    return refusal


def _refusal_of(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), CONNECT_S) as stream:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return ""
            stream.settimeout(ANSWER_S)
            stream.sendall(_HTTP2_HELLO)
            answer = stream.recv(9)
    except TimeoutError:
        return "no answer in time"
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return "" if len(answer) > 3 and answer[3] == 4 else "something that is not Ray"


def _own_address() -> str:
    """Address of the machine, as others see it; nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        stream.connect(("192.0.2.1", 9))
        return str(stream.getsockname()[0])
    return "127.0.0.1"
