"""`script/develop` as a person sees it: a home to log in to, and nothing of it left after Ctrl-C."""

import asyncio
import re
import signal
import sys
from pathlib import Path

import aiohttp
import psutil
from home.frontend import signed_in

SCRIPT = Path(__file__).parents[3] / "script/develop.py"


async def log_in(url: str, user: str, password: str) -> str:
    """What the login page does; an access token."""
    client = f"{url}/"
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        begin = {"client_id": client, "handler": ["homeassistant", None], "redirect_uri": client}
        async with session.post(f"{url}/auth/login_flow", json=begin) as answer:
            flow = (await answer.json())["flow_id"]
        account = {"username": user, "password": password, "client_id": client}
        async with session.post(f"{url}/auth/login_flow/{flow}", json=account) as answer:
            code = (await answer.json())["result"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        async with session.post(f"{url}/auth/token", data=form) as answer:
            return (await answer.json())["access_token"]


def belongings(folder: Path) -> list[str]:
    lines = (" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(folder) in line] + [str(each) for each in folder.glob("edge-agent-*")]


async def test_a_person_logs_in_and_the_assistant_is_ready_until_ctrl_c(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("EDGE_AGENT_ENGINE__NAME", "echo")
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    run = await asyncio.create_subprocess_exec(sys.executable, SCRIPT, **pipes)
    try:
        shown = ""
        while "until Ctrl-C" not in shown:
            line = (await run.stdout.readline()).decode()
            assert line, shown
            shown += line
        url, user, password = re.search(r"(http://\S+) +user (\S+), password (\S+)", shown).groups()
        async with signed_in(url, await log_in(url, user, password)) as home:
            *_, end, _ = await home.run_pipeline("Are you there?")
            assert "Are you there?" in end["data"]["intent_output"]["response"]["speech"]["plain"]["speech"]
        run.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await run.wait() == 130
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    assert belongings(tmp_path) == []
