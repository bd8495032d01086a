"""A hub of our own on loopback: as much of one as a download needs, and as unreliable as it is told to be."""

import hashlib
import json
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest

from edge_agent.models import hub as hubs
from edge_agent.models.catalogue import Entry, File, HubSource

PATIENCE_S = 30
REPO = "me/some"
REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".bin", ".axmodel")
"""What a hub keeps outside Git, and answers by sending the client elsewhere."""


@dataclass
class Fault:
    """What goes wrong with one answer: an error instead of it, or an end after so many bytes."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    reset: bool = False
    """End with a reset instead of a plain end."""
    hold: bool = False
    """Say nothing more until the client goes away or the hub is closed."""
    no_length: bool = False
    no_ranges: bool = False


class Hub:
    """The files of one repository, and a record of what was asked and sent. `faults` are spent one by one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.repo, self.revision = REPO, REVISION
        self.files: dict[str, bytes] = {}
        self.sends: dict[str, bytes] = {}
        """What is sent although the listing says otherwise."""
        self.busy = 0
        """So often the listing is refused."""
        self.faults: deque[Fault] = deque()
        self.told: Callable[[dict], dict] = lambda sibling: sibling
        """Changes what the listing tells of a file."""
        self.asked: list[tuple[str, int]] = []
        self.sent = 0
        self.paths: list[str] = []
        self.held, self.closed = Event(), Event()

    def fail(self, times: int = 1, **how: Any) -> None:
        """Let one more answer fail, or so many; `how` is a `Fault`."""
        self.faults.extend(Fault(**how) for _ in range(times))

    def entry(self, *files: File, name: str = "some") -> Entry:
        return Entry(name, "Some model", "MIT", 128, "openvino", HubSource(self.repo, self.revision, files))

    def listing(self) -> bytes:
        siblings = []
        for name, content in self.files.items():
            sibling: dict = {"rfilename": name, "size": len(content)}
            if name.endswith(LARGE):
                sibling["blobId"] = "0" * 40  # Of the pointer: says nothing of the file.
                sibling["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            else:
                sibling["blobId"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            siblings.append(self.told(sibling))
        return json.dumps({"id": self.repo, "sha": self.revision, "siblings": siblings}).encode()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        hub = self.hub
        path = "/" + self.path.partition("://")[2].partition("/")[2] if "://" in self.path else self.path
        path = path.split("?")[0]
        hub.paths.append(self.path)
        files = f"/{hub.repo}/resolve/{hub.revision}/"
        name = path.removeprefix(files).removeprefix("/elsewhere/")
        if path == f"/api/models/{hub.repo}/revision/{hub.revision}":
            hub.busy -= 1
            self.answer(hub.listing(), 0, Fault(503 if hub.busy >= 0 else None))
        elif name not in hub.files:
            self.answer(b"", 0, Fault(404, {"X-Error-Code": "RevisionNotFound"}))
        elif path.startswith(files) and name.endswith(LARGE):
            self.answer(b"", 0, Fault(302, {"Location": f"/elsewhere/{name}"}))
        else:
            self.file(name)

    def file(self, name: str) -> None:
        hub = self.hub
        fault = hub.faults.popleft() if hub.faults else Fault()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        content = hub.sends.get(name, hub.files[name])
        hub.asked.append((name, start))
        if start >= len(content) > 0:
            self.answer(b"", 0, Fault(416))
        else:
            hub.sent += self.answer(content, 0 if fault.no_ranges else start, fault)

    def answer(self, content: bytes, start: int, fault: Fault) -> int:
        """Returns how much of the content was sent."""
        rest = b"" if fault.status else content[start:]
        self.send_response(fault.status or (206 if start else 200))
        length = {} if fault.no_length else {"Content-Length": str(len(rest))}
        self.close_connection = self.close_connection or fault.no_length
        for header in {**length, **fault.headers}.items():
            self.send_header(*header)
        self.end_headers()
        cut = len(rest) if fault.after is None else min(fault.after, len(rest))
        self.wfile.write(rest[:cut])
        if fault.hold:
            self.hub.held.set()
            self.hub.closed.wait(PATIENCE_S)
        if cut < len(rest) or fault.hold:
            self.close_connection = True
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return cut


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that serves until the test ends; reached by a process whose HF_ENDPOINT is its address."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_args: object) -> None:
            """A client that goes away is nothing to tell of."""

        def shutdown_request(self, request: object) -> None:
            """Close at once, for otherwise a reset would come behind a plain end."""
            self.close_request(request)

    server = Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
    mine = Hub(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = type("Mine", (Handler,), {"hub": mine})
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield mine
    mine.closed.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def ours(hub, monkeypatch) -> Hub:
    """The hub as the one that this process asks, and no pause before it is asked again."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr(  # made of the address when the library is imported
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        hub.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(hubs, "PAUSE_S", 0.0)
    return hub


def until(holds: Callable[[], object]) -> None:
    """Wait for what another process does to the disk."""
    limit = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.005)


@pytest.fixture(name="until")
def _until() -> Callable[[Callable[[], object]], None]:
    return until
