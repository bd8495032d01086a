"""`edge-agent doctor`: the findings, for a person or a program."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Final

import typer

from edge_agent.cli.terminal import Notice, put
from edge_agent.config import Config
from edge_agent.doctor import Finding, examine

_MARKS: Final = {"ok": ("✓", "green"), "advice": ("!", "yellow"), "fault": ("✗", "red")}


def doctor(config: Config, *, as_json: bool) -> int:
    """Examine, print, and return the exit code."""
    findings = asyncio.run(_examine(config, quiet=as_json))
    if as_json:
        put(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False, indent=2) + "\n")
    return 0 if all(finding.ok for finding in findings) else 1


async def _examine(config: Config, *, quiet: bool) -> list[Finding]:
    findings, notice = [], Notice()
    async for finding in examine(config):
        findings.append(finding)
        if not quiet:
            notice.clear()
            typer.echo(line(finding))
        notice.show("examining …")
    notice.clear()
    return findings


def line(finding: Finding) -> str:
    """A finding as a person reads it, the remedy on a line of its own."""
    mark, colour = _MARKS["fault" if not finding.ok else "advice" if finding.remedy else "ok"]
    head = f"{typer.style(mark, fg=colour)} {finding.name:13} {finding.detail}"
    return f"{head}\n{'':16}→ {finding.remedy}" if finding.remedy else head
