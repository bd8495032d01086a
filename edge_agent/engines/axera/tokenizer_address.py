"""The tokenizer address of the console program: whoever serves it decides what is read and sees what is written.

The program asks `/encode` for the ids of the line it was given and `/decode` for the text of what it wrote, and crashes
if an answer takes a second. So the server has threads of its own, and its answers are made beforehand: nothing here
waits for the agent's loop. It serves this one program: what was not handed out to it is refused, and no prompt, id or
text is ever logged.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

_LONGEST: Final = 1 << 20
_PATIENCE_S: Final = 5.0
_NOTHING: Final = b'{"text": ""}'


Hear = Callable[[Sequence[int] | None], None]
"""Told, on the event loop, that these ids were written, or with None that the prompt was fetched."""


@dataclass(slots=True, eq=False)
class _Offer:
    key: str
    body: bytes
    hear: Hear
    fetched: bool = False


class TokenizerAddress:
    """Serves on loopback from `open` to `close`. `port` is taken if it is free, else any other.

    A program of the variant with `uids` names its session in every call.
    """

    def __init__(self, eos: int, port: int, *, uids: bool) -> None:
        self._uids: set[str] | None = set() if uids else None
        self._eos = eos
        self._port = port
        self._offer: _Offer | None = None
        self._server: _Server

    def open(self) -> None:
        """Serve from now on, in threads of its own."""
        handler = type("Handler", (_Handler,), {"address": self})
        try:
            self._server = _Server(("127.0.0.1", self._port), handler)
        except OSError:
            self._server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="tokenizer address", daemon=True).start()

    def close(self) -> None:
        """Serve no more; blocks for a moment."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What the program is told."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def offer(self, ids: Sequence[int], hear: Hear) -> str:
        """Hand out a prompt; give the line that stands for it."""
        loop = asyncio.get_running_loop()
        key = base64.b32encode(secrets.token_bytes(5)).decode()
        told = {"token_ids": list(ids)} if self._uids is None else {"token_ids": list(ids), "diff": list(ids)}
        self._offer = _Offer(key, _json(told), lambda written: _tell(loop, hear, written))
        return key

    def withdraw(self) -> None:
        """Take back what was handed out."""
        self._offer = None

    def get(self, path: str, query: dict[str, list[str]]) -> bytes | None:
        """Answer a GET; None for what is refused."""
        answers = {"/bos_id": {"bos_id": -1}, "/eos_id": {"eos_id": self._eos}}
        if self._uids is not None:
            if path == "/get_uid":
                self._uids.add(uid := str(uuid.uuid4()))
                return _json({"uid": uid})
            if query.get("uid", [""])[0] not in self._uids:
                return _json({"error": "Invalid uid"})
            answers["/reset"] = {"success": True}
        return _json(answers[path]) if path in answers else None

    def post(self, path: str, body: Any) -> bytes | None:
        """Answer a POST; None for what is refused."""
        offer = self._offer
        if not isinstance(body, dict) or not offer:
            return None
        if self._uids is not None and body.get("uid") not in self._uids:
            return _json({"error": "Invalid uid"})
        if path == "/encode" and body.get("text") == offer.key:
            offer.fetched = True
            offer.hear(None)
            return offer.body
        ids = body.get("token_ids")
        if path == "/decode" and offer.fetched and isinstance(ids, list) and all(type(id_) is int for id_ in ids):
            offer.hear(ids)
            return _NOTHING
        return None


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Nothing: a program that is killed in the middle of a call is told of elsewhere."""


class _Handler(BaseHTTPRequestHandler):
    """Bytes to calls and back; HTTP/1.0, as the vendor's own server."""

    address: TokenizerAddress
    timeout = _PATIENCE_S

    def parse_request(self) -> bool:
        """Also refuse a page in some browser of this host: it is never the program."""
        if not super().parse_request():
            return False
        if "Origin" in self.headers:
            self._reply(None)
            return False
        return True

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self._reply(self.address.get(url.path, parse_qs(url.query)))

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > _LONGEST:
            self._reply(None)
            return
        try:
            body = json.loads(self.rfile.read(int(size)))
        except ValueError:
            body = None
        self._reply(self.address.post(urlsplit(self.path).path, body))

    def _reply(self, body: bytes | None) -> None:
        status = HTTPStatus.OK if body is not None else HTTPStatus.FORBIDDEN
        body = body or b"error"
        head = f"HTTP/1.0 {status} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self.wfile.write(head.encode() + b"Connection: close\r\n\r\n" + body)  # One write, one packet.

    def log_message(self, *_: Any) -> None:
        """Nothing: the calls hold what was said."""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _tell(loop: asyncio.AbstractEventLoop, hear: Hear, written: Sequence[int] | None) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(hear, written)
