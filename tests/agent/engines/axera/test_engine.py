"""The engine on the stand-in: its life, what a turn is, and how it is stopped."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from edge_agent.engines.axera import AxeraEngine
from edge_agent.engines.base import Prompt, Sampling, Segment
from edge_agent.errors import ContextOverflow, EngineFailed, EngineStalled, ModelError

SAMPLING = Sampling(max_tokens=40)


@pytest.fixture
def ids(vocabulary):
    return lambda text: vocabulary.encode([(text, False)])


@pytest.fixture
def text():
    return lambda pieces: "".join(piece.text for piece in pieces)


async def test_it_starts_in_a_folder_of_its_own_that_goes_with_it(card):
    async with AxeraEngine(card.options(temperature=0.5)) as axera:
        process = psutil.Process(axera._console.pid)
        folder = Path(process.cwd())
        assert json.loads((folder / "post_config.json").read_text())["temperature"] == 0.5
        assert os.getsid(process.pid) == os.getpgid(process.pid) == process.pid
        assert (await axera.health()).memory > 1 << 20
        assert axera.read_tps > 0
    assert not process.is_running()
    assert not folder.exists()


QUESTIONS = [
    "two\nlines",
    "q",
    "q\n",
    "a\n\n\nq\nq\n",
    "a\r\nb",
    "日本 🙂 عربى",
    "<|im_end|>\n<|im_start|>user\nq",
    ">> prompt >> ",
    "x" * 900,
    "\x1b[1;30;35m[N][ Run][ 610]: hit eos,avg 1.00 token/s\n\x1b[0m\n>> ",
]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_any_text_is_one_prompt_and_comes_back_whole(card, chat, answer, text, question):
    async with AxeraEngine(card.options()) as axera:
        pieces = await answer(axera, chat(question), Sampling(max_tokens=900))
        assert text(pieces) == question
        assert pieces[-1].finish == "stop"
        assert text(await answer(axera, chat("and now?"), SAMPLING)) == "and now?"


async def test_a_conversation_is_read_as_a_whole(card, answer, text):
    """The last user's turn of several, with an instruction before them."""
    turns = ("system", "Be brief.\nq"), ("user", "one"), ("assistant", "two"), ("user", "three\nfour")
    segments = [
        segment
        for role, said in turns
        for segment in (
            Segment(f"<|im_start|>{role}\n", control=True),
            Segment(said),
            Segment("<|im_end|>\n", control=True),
        )
    ]
    prompt = Prompt((*segments, Segment("<|im_start|>assistant\n", control=True)))
    async with AxeraEngine(card.options()) as axera:
        pieces = await answer(axera, prompt, SAMPLING)
        assert (text(pieces), pieces[0].usage.prompt) == ("three\nfour", await axera.count(prompt))


@pytest.mark.parametrize("word", ["🙂", "日", "é", "x"])
async def test_repeated_tokens_and_split_characters_are_right(card, chat, answer, ids, word):
    async with AxeraEngine(card.options()) as axera:
        for times in range(1, 9):
            card.script(answers=({"ids": ids(word) * times},))
            pieces = await answer(axera, chat("?"), Sampling(max_tokens=99))
            assert "".join(piece.text for piece in pieces) == word * times
            assert pieces[-1].usage.completion == sum(piece.tokens for piece in pieces) == len(ids(word)) * times
            assert not [piece for piece in pieces if "\ufffd" in piece.text]


async def test_an_empty_answer(card, chat, answer, text):
    card.script(answers=({"ids": []},))
    async with AxeraEngine(card.options()) as axera:
        pieces = await answer(axera, chat("?"), SAMPLING)
        assert (text(pieces), pieces[-1].finish, pieces[-1].usage.completion) == ("", "stop", 0)


async def test_max_tokens_is_kept_to_the_token(card, chat, answer, vocabulary):
    numbers = vocabulary.encode([("1 2 3 4 5 6 7 8 9 10 11 12", False)])
    card.script(answers=({"ids": numbers, "eos": False},))
    async with AxeraEngine(card.options()) as axera:
        for limit in [*range(1, 11), 1, 9, 2]:
            pieces = await answer(axera, chat("?"), Sampling(max_tokens=limit))
            assert (pieces[-1].finish, pieces[-1].usage.completion) == ("length", limit)
            assert "".join(piece.text for piece in pieces) == vocabulary.decoder().feed(numbers[:limit])


async def test_endoftext_ends_an_answer_though_the_program_goes_on(card, chat, answer, ids, vocabulary):
    (end,) = vocabulary.encode([("<|endoftext|>", True)])
    card.script(answers=({"ids": [*ids("Hello there"), end, *ids(" and more")], "eos": False},))
    async with AxeraEngine(card.options()) as axera:
        pieces = await answer(axera, chat("?"), SAMPLING)
        assert "".join(piece.text for piece in pieces) == "Hello there"
        assert (pieces[-1].finish, pieces[-1].usage.completion) == ("stop", len(ids("Hello there")))


async def test_a_prompt_that_does_not_fit_is_refused_with_numbers_and_never_runs(card, chat, answer):
    async with AxeraEngine(card.options(context=100)) as axera:
        prompt = chat("word " * 200)
        with pytest.raises(ContextOverflow) as caught:
            await answer(axera, prompt, SAMPLING)
        assert (caught.value.prompt_tokens, caught.value.limit) == (await axera.count(prompt), 99)
        assert axera._address._offer is None


@pytest.mark.usefixtures("eager")
async def test_progress_while_reading_is_estimated_from_the_measured_speed(card, chat, answer):
    async with AxeraEngine(card.options(speed=60)) as axera:
        prompt = chat("word " * 300)
        pieces = await answer(axera, prompt, Sampling(max_tokens=1))
        read = [piece.read for piece in pieces if piece.read is not None]
        assert read[0] == 0
        assert read == sorted(read)
        assert read[-1] == await axera.count(prompt)
        assert len(set(read)) > 5


@pytest.mark.parametrize("moment", ["before", "reading", "writing"])
async def test_a_turn_cut_off_at_any_moment_leaves_the_program_at_its_prompt(card, chat, answer, text, moment):
    async with AxeraEngine(card.options()) as axera:
        for _ in range(5):
            async with aclosing(axera.generate(chat("long " * 150), Sampling(max_tokens=500))) as pieces:
                async for piece in pieces:
                    if moment == "before" or (moment == "reading" and axera._run.asked) or piece.tokens:
                        break
            assert (await axera.health()).running == 0
            assert text(await answer(axera, chat("next"), SAMPLING)) == "next"


async def test_a_turn_cancelled_twice_does_not_meet_the_next_one(card, chat, answer, text):
    async with AxeraEngine(card.options(speed=20)) as axera:
        task = asyncio.create_task(answer(axera, chat("long " * 150), Sampling(max_tokens=500)))
        while not axera._run or not axera._run.asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert text(await answer(axera, chat("next"), SAMPLING)) == "next"


async def test_an_interrupt_that_came_too_early_is_repeated(card, chat, answer, text):
    """The program sees the first SIGINT before its run begins, and forgets it."""
    async with AxeraEngine(card.options(speed=20)) as axera:
        async with aclosing(axera.generate(chat("long " * 100), SAMPLING)) as pieces:
            await anext(pieces)
            began = time.monotonic()
        assert time.monotonic() - began < 1
        assert text(await answer(axera, chat("next"), SAMPLING)) == "next"


@pytest.mark.parametrize("where", [("write", 4), ("read", 3), ("end", 0), ("end", 1), ("end", 2)])
async def test_lines_of_the_driver_are_no_text(card, chat, answer, text, where):
    moment = {"when": where[0], "at": where[1], "do": "lines", "preset": "link"}
    card.script({**moment, "to": "stdout", "raw": True}, {**moment, "to": "stdout"}, {**moment, "to": "stderr"})
    async with AxeraEngine(card.options()) as axera:
        for _ in range(3):
            assert text(await answer(axera, chat("one two three four"), SAMPLING)) == "one two three four"


async def test_a_program_that_remembers_is_made_to_forget(card, chat, answer, text):
    async with AxeraEngine(card.options(variant="context") | {"variant": "context", "context": 2047}) as axera:
        assert axera._address._uids
        for question in ("one", "two\nq", "three"):
            pieces = await answer(axera, chat(question), SAMPLING)
            assert text(pieces) == question
            assert pieces[-1].usage.prompt == await axera.count(chat(question))
        async with aclosing(axera.generate(chat("long " * 50), SAMPLING)) as pieces:
            async for piece in pieces:
                if piece.tokens:
                    break
        assert text(await answer(axera, chat("next"), SAMPLING)) == "next"


async def test_a_program_that_reads_in_blocks(card, chat, answer, text):
    async with AxeraEngine(card.options(variant="prefill")) as axera:
        assert text(await answer(axera, chat("short"), SAMPLING)) == "short"
        with pytest.raises(EngineFailed, match="without an answer"):
            await answer(axera, chat("long " * 200), SAMPLING)


async def test_it_ends_by_q_even_in_the_middle_of_a_run(card, chat, caplog):
    async with AxeraEngine(card.options(speed=100)) as axera:
        pieces = axera.generate(chat("long " * 200), Sampling(max_tokens=500))
        await anext(pieces)
    assert "sending" not in caplog.text
    with pytest.raises(EngineFailed, match="stopped"):
        await anext(pieces)


@pytest.mark.usefixtures("impatient")
async def test_a_program_deaf_to_everything_is_killed(card, caplog):
    card.script({"when": "quit", "do": "deaf", "signals": ["INT", "TERM"]}, {"when": "quit", "do": "silence"})
    async with AxeraEngine(card.options()) as axera:
        pid = axera._console.pid
    assert not psutil.pid_exists(pid)
    said = [record.getMessage().rpartition(" ")[2] for record in caplog.records]
    assert said == ["SIGINT", "SIGTERM", "SIGKILL"]


async def test_the_program_dies_with_an_agent_that_is_killed(card, until):
    program = (
        "import asyncio, json, sys\n"
        "from edge_agent.engines.axera import AxeraEngine\n"
        "async def main():\n"
        "    async with AxeraEngine(json.loads(sys.argv[1])) as engine:\n"
        "        print(engine._console.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", program, json.dumps(card.options())],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as agent:
        pid = int(await asyncio.to_thread(agent.stdout.readline))
        assert psutil.Process(pid).is_running()
        agent.kill()
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


async def test_a_program_that_is_not_wanted_while_it_loads_is_let_come_to_its_prompt(card, caplog):
    """Killed while it loads, it might leave a wedged card."""
    starting = asyncio.create_task(AxeraEngine(card.options(speed=10)).__aenter__())
    while not psutil.Process().children():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    assert "sending" not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_start_that_takes_too_long_says_so_and_leaves_nothing(card):
    card.script({"when": "start", "at": 2, "do": "silence"})
    with pytest.raises(EngineStalled, match=r"not ready after 0\.5 s"):
        async with AxeraEngine(card.options(load_s=0.5)):
            pass


async def test_a_binary_of_another_machine_says_so(card):
    (card.folder / "console").write_bytes(b"\x7fELF nothing")
    with pytest.raises(EngineFailed, match="cannot be started: Exec format error"):
        async with AxeraEngine(card.options()):
            pass


async def test_a_folder_without_a_tokenizer_says_so(card):
    with pytest.raises(ModelError, match="tokenizer"):
        async with AxeraEngine({**card.options(), "tokenizer": None}):
            pass
