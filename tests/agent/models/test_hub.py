import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from edge_agent.errors import ModelError
from edge_agent.models import download
from edge_agent.models.catalogue import Entry, File, HubSource

REVISION = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 16
FILES = {"weights/model.bin": bytes(range(256)) * 8192, "weights/config.json": b"{}", "README.md": b"not wanted"}


def entry(*files: File) -> Entry:
    return Entry("some", "Some model", "MIT", 128, "openvino", HubSource("me/some", REVISION, files))


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download needs. Each of `cuts` ends an answer so early."""

    files: dict[str, bytes]
    cuts: list[int]
    asked: list[tuple[str, str | None]]

    def log_message(self, *_args: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        name = path.removeprefix(f"/me/some/resolve/{REVISION}/")
        if path == f"/api/models/me/some/revision/{REVISION}":
            self.answer(200, json.dumps(self.info()).encode(), {"Content-Type": "application/json"})
        elif name not in self.files:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            content, asked = self.files[name], self.headers.get("Range")
            self.asked.append((name, asked))
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            self.answer(206 if asked else 200, content[start:], {})

    def info(self) -> dict:
        siblings = []
        for name, content in FILES.items():
            sibling: dict = {"rfilename": name, "size": len(content), "blobId": "0"}
            if name.endswith(".bin"):
                sibling["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            siblings.append(sibling)
        return {"id": "me/some", "sha": REVISION, "siblings": siblings}

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        cut = self.cuts.pop(0) if self.cuts and len(content) > 1000 else len(content)
        self.wfile.write(content[:cut])


@pytest.fixture
def hub(monkeypatch) -> Iterator[type[Hub]]:
    """A hub on loopback, as the one that the hub's library asks."""

    class Mine(Hub):
        files = dict(FILES)
        cuts: list[int] = []
        asked: list[tuple[str, str | None]] = []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(  # made of the address when the library is imported
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    yield Mine
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_wanted_files_are_fetched_verified_and_kept(hub, tmp_path):
    told: list[tuple[int, int]] = []
    total = sum(len(FILES[name]) for name in FILES if name.startswith("weights/"))
    folder = download.ensure(entry(File("weights/*")), tmp_path, lambda done, of: told.append((done, of)))
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found.pop(".verified.json")
    assert found == {name: FILES[name] for name in FILES if name.startswith("weights/")}
    assert told == sorted(told)
    assert told[-1] == (total, total)
    hub.asked.clear()
    assert download.is_present(entry(File("weights/*")), tmp_path)
    assert download.ensure(entry(File("weights/*")), tmp_path) == folder
    assert hub.asked == []


def test_one_file_alone_is_what_the_engine_loads(hub, tmp_path):
    path = download.ensure(entry(File("weights/model.bin")), tmp_path)
    assert path.read_bytes() == FILES["weights/model.bin"]
    assert len(hub.asked) == 1


def test_a_connection_that_breaks_is_taken_up_again(hub, tmp_path):
    hub.cuts.append(10 * CHUNK)
    path = download.ensure(entry(File("weights/model.bin")), tmp_path)
    assert path.read_bytes() == FILES["weights/model.bin"]
    assert hub.asked == [("weights/model.bin", None), ("weights/model.bin", f"bytes={10 * CHUNK}-")]


def test_a_download_that_was_called_off_goes_on_where_it_stopped(hub, tmp_path):
    wanted = entry(File("weights/model.bin"))

    class Enough(Exception):
        pass

    def progress(done: int, _total: int) -> None:
        if done > 10 * CHUNK:
            raise Enough

    with pytest.raises(Enough):
        download.ensure(wanted, tmp_path, progress)
    assert not download.is_present(wanted, tmp_path)
    told: list[int] = []
    path = download.ensure(wanted, tmp_path, lambda done, _: told.append(done))
    assert path.read_bytes() == FILES["weights/model.bin"]
    assert hub.asked == [("weights/model.bin", None), ("weights/model.bin", f"bytes={10 * CHUNK}-")]
    assert told[0] > 10 * CHUNK, "progress counts what was there"


@pytest.mark.parametrize(
    ("file", "sent", "problem"),
    [
        (File("weights/model.bin"), b"\0" * len(FILES["weights/model.bin"]), "is not the expected file"),
        (File("weights/model.bin"), FILES["weights/model.bin"][:-1], "has 2097151 bytes instead of 2097152|onsistency"),
        (File("README.md", sha256="0" * 64), FILES["README.md"], "README.md is not the expected file"),
        (File("README.md", size=3), FILES["README.md"], "README.md has 10 bytes instead of 3|onsistency"),
        (File("*.gguf"), b"", r"me/some has no \*\.gguf at 0123456789ab: correct the catalogue"),
    ],
)
def test_what_the_hub_sends_is_not_believed(hub, tmp_path, file, sent, problem):
    hub.files[file.path] = sent
    with pytest.raises(ModelError, match=problem):
        download.ensure(entry(file), tmp_path)
    assert not download._home(entry(file), tmp_path).exists()
    hub.files |= FILES
    if file.size is None and file.sha256 is None and file.path in FILES:
        assert download.ensure(entry(file), tmp_path).read_bytes() == FILES[file.path]


@pytest.mark.parametrize("name", ["../../outside", "/outside"])
def test_no_file_is_put_outside_its_folder(hub, tmp_path, monkeypatch, name):
    offered = {"id": "me/some", "sha": REVISION, "siblings": [{"rfilename": name, "size": 1, "blobId": "0"}]}
    monkeypatch.setattr(hub, "info", lambda _: offered)
    with pytest.raises(ModelError, match="offers a file outside its folder"):
        download.ensure(entry(File("*")), tmp_path)
    assert hub.asked == []


@pytest.mark.usefixtures("hub")
def test_an_unknown_revision_and_an_absent_hub_are_explained(tmp_path, monkeypatch):
    unknown = Entry("some", "x", "MIT", 1, "openvino", HubSource("me/some", "f" * 40, (File("*"),)))
    with pytest.raises(ModelError, match=r"me/some cannot be fetched: .*check the network, the proxy and HF_ENDPOINT"):
        download.ensure(unknown, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"me/some cannot be fetched: .*check the network"):
        download.ensure(entry(File("*")), tmp_path)
