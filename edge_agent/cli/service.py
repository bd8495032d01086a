"""`edge-agent service`: the agent as a service of systemd."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import typer

from edge_agent import doctor
from edge_agent.cli.terminal import put
from edge_agent.config import Config, load
from edge_agent.errors import OperatorError
from edge_agent.service import Service, Step, Write


def install(service: Service, config: Path | None, *, user: bool, dry_run: bool) -> None:
    """Put the unit in place, enable and start it."""
    if not dry_run:
        service.check(orders=True)
    steps = service.install(config)
    _go(service, steps, dry_run=dry_run)
    if steps and not dry_run:
        typer.echo(f"edge-agent service status{' --user' if user else ''} tells how it does")
        if user:
            typer.echo(
                "loginctl enable-linger keeps it running while you are logged out, and starts it with the machine"
            )


def uninstall(service: Service, *, dry_run: bool) -> None:
    """Stop and disable it, and remove what was put in place."""
    if not dry_run:
        service.check(orders=True)
    steps = service.uninstall()
    _go(service, steps, dry_run=dry_run)
    if steps and not dry_run:
        typer.echo("settings and models stay where they are")


def _go(service: Service, steps: list[Step], *, dry_run: bool) -> None:
    for step in steps:
        if not dry_run:
            service.perform(step)
        typer.echo(f"{'would ' if dry_run else ''}{step}")
        if dry_run and isinstance(step, Write):
            put("".join(f"    {line}\n" for line in step.text.splitlines()))
    if not steps:
        typer.echo("nothing to do")


def status(service: Service) -> int:
    """Print what systemd knows, and what the node says; return 0 if it runs."""
    service.check(orders=False)
    facts = service.facts()
    if not facts:
        typer.echo("not installed; edge-agent service install does it")
        return 1
    typer.echo(f"unit     {service.unit}, {facts.get('UnitFileState') or 'not enabled'}")
    if "ActiveState" not in facts:
        return 0
    result = "" if facts["Result"] in ("", "success") else f", {facts['Result']}"
    counted = f"process {facts['MainPID']}, {facts['NRestarts']} restarts"
    typer.echo(f"systemd  {facts['ActiveState']} ({facts['SubState']}){result}, {counted}")
    if said := facts["StatusText"]:
        typer.echo(f"agent    {said}")
    typer.echo(f"node     {_node(service.settings())}")
    return 0 if facts["ActiveState"] == "active" else 1


def _node(file: Path | None) -> str:
    """The node as its presence on the broker tells, in a line."""
    try:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_AGENT_")}
        config = load(file, ours) if file else Config()
        view = asyncio.run(doctor.presence(config))
    except OperatorError as error:
        return str(error).splitlines()[0]
    if not view.online or view.state is None:
        return f"{config.node} is not on the broker at {config.broker.host}:{config.broker.port}"
    state = view.state
    why = f": {state.why}" if state.why else ""
    doing = (
        f"{state.running} running, {state.queued} queued, {state.write_tps:g} tokens/s, {state.memory / 1e6:,.0f} MB"
    )
    return f"{config.node} is {state.phase}{why}; {doing}"
