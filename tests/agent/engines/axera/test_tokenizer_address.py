"""The tokenizer address, as the program's client sees it; and what it is worth while the agent is busy."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import socket
import sys
import time

import pytest

from edge_agent.engines.axera.tokenizer_address import TokenizerAddress


@pytest.fixture
def uids():
    return False


@pytest.fixture
async def address(uids):
    made = TokenizerAddress(151645, 0, uids=uids)
    made.open()
    yield made
    await asyncio.to_thread(made.close)


@pytest.fixture
def call(address):
    """One call on a connection of its own, in a thread: status and body."""

    def blocking(method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(address.url.removeprefix("http://"), timeout=1)
        try:
            text = body if isinstance(body, bytes | None) else json.dumps(body)
            connection.request(method, path, text, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    async def run(*arguments, **named):
        status, body = await asyncio.to_thread(blocking, *arguments, **named)
        return status, json.loads(body) if status == 200 else body

    return run


REFUSED = (403, b"error")


async def test_it_answers_what_the_program_asks(address, call):
    heard = []
    key = address.offer([1, 2, 3], heard.append)
    assert key.isascii()
    assert len(key) == 8
    assert await call("GET", "/bos_id") == (200, {"bos_id": -1})
    assert await call("GET", "/eos_id") == (200, {"eos_id": 151645})
    assert await call("POST", "/encode", {"text": key}) == (200, {"token_ids": [1, 2, 3]})
    assert await call("POST", "/decode", {"token_ids": [7, 8]}) == (200, {"text": ""})
    assert heard == [None, [7, 8]]


async def test_it_is_heard_before_the_program_has_its_answer(address, call):
    heard = []
    key = address.offer([1], heard.append)
    await call("POST", "/encode", {"text": key})
    for number in range(50):
        await call("POST", "/decode", {"token_ids": [number]})
        assert heard[-1] == [number]


async def test_it_refuses_what_it_did_not_hand_out(address, call):
    heard = []
    assert await call("POST", "/encode", {"text": "hello"}) == REFUSED
    key = address.offer([1], heard.append)
    assert await call("POST", "/encode", {"text": "hello"}) == REFUSED
    assert await call("POST", "/decode", {"token_ids": [1]}) == REFUSED  # Nobody has fetched the prompt.
    assert await call("POST", "/encode", {"text": key}, headers={"Origin": "http://evil.example"}) == REFUSED
    assert await call("POST", "/encode", {"text": key}) == (200, {"token_ids": [1]})
    for body in ({}, {"token_ids": 1}, {"token_ids": ["1"]}, {"token_ids": [True]}, [], b"\xff", b"{"):
        assert await call("POST", "/decode", body) == REFUSED
    for path in ("/", "/health", "/encode", "/get_uid", "/reset"):
        assert await call("GET", path) == REFUSED
    assert await call("POST", "/eos_id", {}) == REFUSED
    address.withdraw()
    assert await call("POST", "/encode", {"text": key}) == REFUSED
    assert await call("POST", "/decode", {"token_ids": [1]}) == REFUSED
    assert len(heard) == 1


async def test_a_key_is_forgotten_with_the_next(address, call):
    old = address.offer([1], lambda _: None)
    new = address.offer([2], lambda _: None)
    assert await call("POST", "/encode", {"text": old}) == REFUSED
    assert await call("POST", "/encode", {"text": new}) == (200, {"token_ids": [2]})


@pytest.mark.parametrize("uids", [True])
async def test_the_uid_variant(address, call):
    _, told = await call("GET", "/get_uid")
    uid = told["uid"]
    assert await call("GET", f"/bos_id?uid={uid}") == (200, {"bos_id": -1})
    assert await call("GET", f"/eos_id?uid={uid}") == (200, {"eos_id": 151645})
    assert await call("GET", f"/reset?uid={uid}") == (200, {"success": True})
    assert await call("GET", "/eos_id?uid=other") == (200, {"error": "Invalid uid"})
    key = address.offer([1, 2], lambda _: None)
    assert await call("POST", "/encode", {"text": key}) == (200, {"error": "Invalid uid"})
    told = await call("POST", "/encode", {"uid": uid, "text": key, "img_prompt": False})
    assert told == (200, {"token_ids": [1, 2], "diff": [1, 2]})
    assert await call("POST", "/decode", {"uid": uid, "token_ids": [1]}) == (200, {"text": ""})


async def test_the_port_is_the_one_asked_for_unless_it_is_taken(address):
    port = int(address.url.rpartition(":")[2])
    beside = TokenizerAddress(1, port, uids=False)
    beside.open()
    taken = beside.url
    await asyncio.to_thread(beside.close)
    assert taken != address.url
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    alone = TokenizerAddress(1, free, uids=False)
    alone.open()
    assert alone.url == f"http://127.0.0.1:{free}"
    await asyncio.to_thread(alone.close)


async def test_connections_that_say_nothing_hold_nobody_up(address, call):
    with socket.create_connection(("127.0.0.1", int(address.url.rpartition(":")[2]))) as silent:
        silent.sendall(b"POST /encode HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
        key = address.offer([1], lambda _: None)
        began = time.monotonic()
        assert (await call("POST", "/encode", {"text": key}))[0] == 200
        assert time.monotonic() - began < 0.5


async def test_nothing_of_a_prompt_is_logged(address, call, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    key = address.offer([424242], lambda _: None)
    await call("POST", "/encode", {"text": key})
    await call("POST", "/decode", {"token_ids": [434343]})
    await call("POST", "/decode", {"token_ids": "x"})
    said = caplog.text + "".join(capfd.readouterr())
    assert not [word for word in (key, "424242", "434343") if word in said]


CLIENT = """
import http.client, json, sys, time
host, key, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
took = []
for _ in range(calls):
    began = time.monotonic()
    connection = http.client.HTTPConnection(host, timeout=1)
    connection.request("POST", "/encode", json.dumps({"text": key}))
    connection.getresponse().read()
    connection.close()
    took.append(time.monotonic() - began)
print(json.dumps(sorted(took)))
"""


@pytest.fixture
def timed(address):
    """How long the calls of a program beside this process take, sorted, while this loop does as it is told."""

    async def run(load, calls: int = 300) -> list[float]:
        key = address.offer(list(range(150_000, 151_000)), lambda _: None)
        host = address.url.removeprefix("http://")
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", CLIENT, host, key, str(calls)), stdout=asyncio.subprocess.PIPE
        )
        reading = asyncio.create_task(client.stdout.read())
        while not reading.done():
            await load()
        await client.wait()
        took = json.loads(reading.result())
        print(f"p50 {took[calls // 2] * 1e3:.1f} ms, p99 {took[-calls // 100] * 1e3:.1f} ms")  # noqa: T201 - for the record
        return took

    return run


async def test_a_thousand_tokens_are_answered_in_20_ms_while_the_agent_is_at_work(timed):
    """Half of the time the loop works, in stretches of 2 ms, as with hundreds of messages a second."""

    async def load() -> None:
        end = time.monotonic() + 0.002
        while time.monotonic() < end:
            json.loads(json.dumps(list(range(100))))
        await asyncio.sleep(0.002)

    tries = [await timed(load)]
    while tries[-1][-3] > 0.02 and len(tries) < 4:  # Other programs of this machine may have been at work as well.
        tries.append(await timed(load))
    assert tries[-1][-3] <= 0.02


async def test_no_call_takes_a_second_even_while_the_loop_does_nothing_but_work(timed):
    async def load() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            json.loads(json.dumps(list(range(100))))
        await asyncio.sleep(0)

    took = await timed(load)
    assert took[-1] < 0.5
