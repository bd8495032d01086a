"""A tokenizer address whose tokens are bytes, and the stand-in as a child process on a plain pipe."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

CONSOLE = Path(__file__).with_name("console.py")
FIRST_BYTE = 10
TOKENS, WIDTH, LAYERS = 300, 4, 4
PATIENCE_S = 30.0
END = re.compile(rb"\x1b\[1;30;35m\[N\]\[ *Run\]\[ *\d+\]: hit eos,avg (\S+) token/s\n\x1b\[0m\n>> ")


class Address:
    """The tokenizer server.

    `before` sees every path before it is answered, and may give the bytes instead, none for a status of 500;
    `prompt` is what every line is encoded as, if it is set.
    """

    eos, begin, endoftext = 3, 4, 5

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.before: Callable[[str], bytes | None] = {}.get
        self.prompt: list[int] | None = None
        address = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args) -> None:
                pass

            def do_GET(self) -> None:
                self.answer({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                path = urlsplit(self.path).path
                address.calls.append((path, body))
                told = address.before(path)
                data = json.dumps(address.answer(path, body)).encode() if told is None else told
                with contextlib.suppress(ConnectionError):  # The other end may have died of waiting.
                    self.send_response(200 if data else 500)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def ids(self, text: str) -> list[int]:
        return [byte + FIRST_BYTE for byte in text.encode()]

    def text(self, ids: list[int]) -> str:
        parts = [b"<|endoftext|>" if id_ == self.endoftext else bytes([max(id_ - FIRST_BYTE, 0) % 256]) for id_ in ids]
        return b"".join(parts).decode(errors="replace")

    def chat(self, text: str) -> list[int]:
        """What a server's chat template makes of a line."""
        user, newline = self.ids("user\n" + text), self.ids("\n")
        system = [self.begin, *self.ids("system\nBe brief."), self.eos, *newline]
        return [*system, self.begin, *user, self.eos, *newline, self.begin, *self.ids("assistant\n")]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/encode":
            ids = self.chat(body["text"]) if self.prompt is None else self.prompt
            return {"token_ids": ids, "diff": ids}
        if path == "/decode":
            return {"text": self.text(body["token_ids"])}
        return {"/bos_id": {"bos_id": -1}, "/eos_id": {"eos_id": self.eos}, "/get_uid": {"uid": "u-1"}}.get(path, {})

    def decoded(self) -> list[list[int]]:
        return [body["token_ids"] for path, body in self.calls if path == "/decode"]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Child:
    """A running stand-in and everything it has printed."""

    end = END

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.printed = b""
        self._read = 0

    def write(self, data: bytes) -> None:
        self.process.stdin.write(data)

    def until(self, pattern: bytes | re.Pattern[bytes]) -> bytes:
        """What was printed since the last time, up to the end of the pattern."""
        pattern = re.compile(re.escape(pattern)) if isinstance(pattern, bytes) else pattern
        end = time.monotonic() + PATIENCE_S
        while (match := pattern.search(self.printed, self._read)) is None:
            more = self._more(1.0)
            assert more is not None, f"ended without {pattern.pattern!r}: {self.printed[-500:]!r}"
            assert time.monotonic() < end, f"{pattern.pattern!r} did not come: {self.printed[-500:]!r}"
        start, self._read = self._read, match.end()
        return self.printed[start : match.end()]

    def now(self) -> bytes:
        """What lies in the pipe."""
        while self._more(0.0):
            pass
        start, self._read = self._read, len(self.printed)
        return self.printed[start:]

    def ended(self) -> tuple[int, bytes, bytes]:
        """Exit code, what was printed since, and stderr."""
        while self._more(PATIENCE_S):
            pass
        code = self.process.wait(PATIENCE_S)
        return code, self.now(), self.process.stderr.read()

    def ask(self, line: str) -> bytes:
        """The bytes of an answer, prompt mark included."""
        self.write(line.encode() + b"\n")
        return self.until(END)

    def _more(self, seconds: float) -> bytes | None:
        """Some bytes, none if none came in time; None at the end."""
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return b""
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        self.printed += data
        return data or None


class Stage:
    """The files the program wants, and how it is started."""

    def __init__(self, folder: Path, address: Address) -> None:
        self.folder, self.address = folder, address
        self.script_path = folder / "script.json"
        self.children: list[Child] = []
        for layer in range(LAYERS):
            (folder / f"l{layer}.axmodel").touch()
        (folder / "post.axmodel").touch()
        (folder / "embed.bin").write_bytes(bytes(TOKENS * WIDTH * 2))
        (folder / "post_config.json").write_text('{"top_k": 1, "enable_top_k_sampling": true}')
        self.flags: dict[str, Any] = {
            "template_filename_axmodel": folder / "l%d.axmodel",
            "axmodel_num": LAYERS,
            "tokenizer_type": 2,
            "filename_tokenizer_model": address.url,
            "bos": 0,
            "eos": 0,
            "filename_post_axmodel": folder / "post.axmodel",
            "filename_tokens_embed": folder / "embed.bin",
            "tokens_embed_num": TOKENS,
            "tokens_embed_size": WIDTH,
            "live_print": 1,
            "continue": 1,
            "prompt": "",
        }

    def script(self, *faults: dict[str, Any], answers: tuple[dict[str, Any], ...] = ()) -> None:
        new = self.folder / "script.new"
        new.write_text(json.dumps({"answers": answers, "faults": faults}))
        new.replace(self.script_path)

    def run(self, words: list[str], speed: float = 1000, variant: str = "console") -> Child:
        """Without site-packages: nothing but the standard library is used."""
        told = {"STANDIN_SPEED": str(speed), "STANDIN_VARIANT": variant}
        if self.script_path.exists():
            told["STANDIN_SCRIPT"] = str(self.script_path)
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(CONSOLE), *words],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **told},
        )
        self.children.append(Child(process))
        return self.children[-1]

    def start(self, speed: float = 1000, variant: str = "console", **flags: Any) -> Child:
        words = [f"--{name}={value}" for name, value in {**self.flags, **flags}.items()]
        return self.run(words, speed, variant)

    def ready(self, **options: Any) -> Child:
        child = self.start(**options)
        child.until(re.compile(rb">> \Z"))
        return child

    def close(self) -> None:
        for child in self.children:
            child.process.kill()
            child.process.wait()
            for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
                pipe.close()


@pytest.fixture
def address() -> Iterator[Address]:
    address = Address()
    yield address
    address.close()


@pytest.fixture
def stage(tmp_path: Path, address: Address) -> Iterator[Stage]:
    stage = Stage(tmp_path, address)
    yield stage
    stage.close()
