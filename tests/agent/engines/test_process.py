from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import aclosing

import psutil
import pytest

from edge_agent.engines import frames
from edge_agent.engines import process as process_module
from edge_agent.engines.base import Prompt, Sampling, Segment
from edge_agent.engines.process import ProcessEngine
from edge_agent.engines.registry import create
from edge_agent.errors import ConfigError, EngineFailed, RequestRefused


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def engine(echo_options):
    crash = {"match": "crash", "text": "one two three", "crash_after": 2}
    return ProcessEngine("echo", {**echo_options, "rules": [*echo_options["rules"], crash]})


async def test_a_killed_child_fails_every_running_turn_at_once(engine, chat):
    async def turn() -> None:
        async for piece in engine.generate(chat("please hang"), Sampling(max_tokens=5)):
            if piece.tokens:
                writing.release()

    writing = asyncio.Semaphore(0)
    async with engine:
        turns = [asyncio.create_task(turn()) for _ in range(2)]
        for _ in turns:
            await writing.acquire()
        os.kill(engine.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*turns, return_exceptions=True)
        assert [type(result) for result in results] == [EngineFailed, EngineFailed]
        assert "SIGKILL" in results[0].message
        health = await engine.health()
        assert not health.ok
        assert "SIGKILL" in health.detail


async def test_a_crash_tells_the_exit_code(engine, chat, answer):
    async with engine:
        with pytest.raises(EngineFailed, match="exit code 3"):
            await answer(engine, chat("please crash"), Sampling(max_tokens=5))
        with pytest.raises(EngineFailed, match="exit code 3"):
            await engine.count(chat("again"))


async def test_a_stopped_child_is_reported_and_can_still_be_ended(engine, monkeypatch):
    monkeypatch.setattr(process_module, "HEALTH_S", 0.2)
    monkeypatch.setattr(process_module, "STOP_S", 0.2)
    async with engine:
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        health = await engine.health()
        assert not health.ok
        assert str(pid) in health.detail
    assert not psutil.pid_exists(pid)


async def test_a_turn_that_does_not_stop_ends_the_process(engine, chat, monkeypatch):
    monkeypatch.setattr(process_module, "CANCEL_S", 0.2)
    async with engine:
        async with aclosing(engine.generate(chat("please hang"), Sampling(max_tokens=5))) as pieces:
            await anext(pieces)
            os.kill(engine.pid, signal.SIGSTOP)
        assert "did not stop" in (await engine.health()).detail
        await gone(engine.pid)


async def test_the_child_dies_with_its_parent():
    program = (
        "import asyncio, sys\n"
        "from edge_agent.engines.process import ProcessEngine\n"
        "async def main():\n"
        "    async with ProcessEngine('echo', {}) as engine:\n"
        "        print(engine.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:  # noqa: ASYNC220
        child = int(parent.stdout.readline())
        parent.kill()
    await gone(child)


async def test_a_slow_reader_neither_fills_memory_nor_stops_its_neighbour(engine, chat, answer):
    async with engine:
        async with aclosing(engine.generate(chat("a story"), Sampling(max_tokens=400))) as slow:
            await anext(slow)
            assert (await answer(engine, chat("a story"), Sampling(max_tokens=300)))[-1].usage.completion == 300
            (call,) = engine._calls.values()
            assert call._arrived.qsize() <= frames.WINDOW
            rest = [piece async for piece in slow]
        assert rest[-1].usage.completion == 400


async def test_options_are_refused_by_the_engine_itself():
    with pytest.raises(ConfigError, match=r"engine\.options\.context"):
        async with ProcessEngine("echo", {"context": 0}):
            pass


async def test_an_engine_that_cannot_be_loaded_leaves_no_process():
    before = psutil.Process().children()
    with pytest.raises(ConfigError, match="there is no engine"):
        async with ProcessEngine("teapot", {}):
            pass
    assert psutil.Process().children() == before


async def test_a_child_that_dies_while_loading_tells_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "dying.py").write_text("import sys\nsys.exit('no such device')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EngineFailed, match="no such device"):
        async with ProcessEngine("dying:Engine", {}):
            pass


async def test_garbage_from_the_child_fails_the_engine(tmp_path, monkeypatch):
    """The engine writes into its own socket what no frame may be."""
    (tmp_path / "vandal.py").write_text(
        "import os, sys\n"
        "from edge_agent.engines.echo import EchoEngine\n"
        "class Vandal(EchoEngine):\n"
        "    async def count(self, prompt):\n"
        "        os.write(int(sys.argv[1]), bytes.fromhex(prompt.text))\n"
        "        return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for garbage in (b"\0\0\0\2{]", b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x02{}"):
        async with ProcessEngine("vandal:Vandal", {}) as engine:
            with pytest.raises(EngineFailed, match="protocol"):
                await engine.count(Prompt((Segment(garbage.hex()),)))


async def test_a_request_too_large_for_a_frame_is_refused(engine, chat, monkeypatch):
    async with engine:
        monkeypatch.setattr(frames, "MAX_FRAME", 1000)
        with pytest.raises(RequestRefused) as caught:
            await engine.count(chat("x" * 1000))
        assert caught.value.code.name == "too_large"


async def test_the_child_imports_its_engine_and_little_else(engine):
    async with engine:
        maps = psutil.Process(engine.pid).memory_maps()
    assert not [each.path for each in maps if "openvino" in each.path or "tokenizers" in each.path]


async def test_before_and_after_its_life_the_engine_says_so(engine, chat):
    with pytest.raises(EngineFailed) as caught:
        await engine.count(chat("x"))
    assert caught.value.code.name == "unavailable"
    async with engine:
        pass
    assert not (await engine.health()).ok


def test_every_error_crosses_as_itself():
    for error in (RequestRefused("no", param="a.b"), EngineFailed("dead"), ConfigError("wrong")):
        back = frames.error_in(json.loads(json.dumps(frames.error_out(error))))
        assert type(back) is type(error)
        assert str(back) == str(error)
    assert str(frames.error_in(frames.error_out(ValueError("odd")))).startswith("internal: ")


def test_engines_are_found_by_name_or_import_string():
    assert type(create("echo", {})).__name__ == "EchoEngine"
    assert type(create("edge_agent.engines.echo:EchoEngine", {})).__name__ == "EchoEngine"
    assert isinstance(create("openvino", {"model": "m"}), ProcessEngine)
    for name in ("teapot", "edge_agent.engines.teapot:Engine", "edge_agent.engines.echo:Teapot"):
        with pytest.raises(ConfigError):
            create(name, {})
