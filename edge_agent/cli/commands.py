"""What can be typed: the commands, their options and their help. docs/cli.md is made from this."""

# ruff: noqa: PLC0415 - a command imports what it needs when it runs, so that help and typing errors answer at once

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from edge_agent import __version__
from edge_agent.wire import ADMIN_OPS, POOL

if TYPE_CHECKING:
    from edge_agent.cli.caller import Caller
    from edge_agent.config import Config

app = typer.Typer(
    name="edge-agent",
    help="The language model of a home, running in the home: ask it, run it, look after it.",
    epilog="Every command reads the same configuration. Exit codes: 0 done, 1 failed, 2 typed wrong, 66 model, "
    "69 broker, 73 node name taken, 75 try again later, 78 configuration, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_ASKING, _SERVING, _CARING = "Ask", "Run", "Look after"
Broker = Annotated[
    str | None, Option("--broker", metavar="HOST[:PORT]", help="Another broker than the configuration's.")
]
Name = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Name to ask under. Default: the broker user, else cli-USER.",
    ),
]
Node = Annotated[str, Option(metavar="NODE", help="Node to ask; any takes whichever is free.")]
Timeout = Annotated[float, Option(min=0.1, max=86400, metavar="SECONDS", help="Give up after so long.")]
System = Annotated[str | None, Option(metavar="TEXT", help="Instructions to the model.")]
MaxTokens = Annotated[int | None, Option(min=1, metavar="N", help="Longest answer, in tokens.")]
Temperature = Annotated[float | None, Option(min=0, max=2, metavar="T", help="0 always writes the likeliest.")]
Stats = Annotated[bool, Option("--stats", metavar="", help="Tell speed and tokens on standard error.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edge-agent {__version__}")
        raise typer.Exit


Debug = Annotated[bool, Option("--debug", metavar="", help="On a failure show the traceback.")]
Version = Annotated[bool, Option("--version", metavar="", callback=_version, is_eager=True, help="Tell it.")]


@app.callback()
def _program(
    context: typer.Context,
    config: Annotated[
        Path | None,
        Option(metavar="FILE", help="Configuration. Default: the first found; docs/configuration.md says where."),
    ] = None,
    debug: Debug = False,  # noqa: ARG001 - `main` looks at it
    version: Version = False,  # noqa: ARG001 - answered by its callback
) -> None:
    context.obj = config


def _config(context: typer.Context) -> Config:
    from edge_agent.config import load

    return load(context.obj, os.environ)


def _caller(context: typer.Context, broker: str | None, name: str | None, node: str, timeout_s: float) -> Caller:
    from edge_agent.cli.caller import caller

    return caller(_config(context).broker, broker, name, node, timeout_s)


@app.command(rich_help_panel=_ASKING)
def ask(
    context: typer.Context,
    *,
    question: Annotated[
        list[str] | None, Argument(metavar="QUESTION", help="What to ask; a - at its end reads standard input.")
    ] = None,
    system: System = None,
    template: Annotated[str | None, Option(metavar="NAME", help="A named template of the node's.")] = None,
    var: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="Variable of the template; repeatable.")] = None,
    schema: Annotated[Path | None, Option(metavar="FILE", help="JSON schema that the answer must obey.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    json: Annotated[bool, Option("--json", metavar="", help="Print the messages as they came, one a line.")] = False,
    stats: Stats = False,
    node: Node = POOL,
    timeout: Timeout = 120.0,
    broker: Broker = None,
    name: Name = None,
) -> None:
    """Ask one question. The answer is printed as it is written; Ctrl-C stops it, at the node too."""
    from edge_agent.cli import ask as asking

    body = asking.body(
        asking.read(question or []),
        system=system,
        template=template,
        variables=var or [],
        schema=asking.read_schema(schema),
        max_tokens=max_tokens,
        temperature=temperature,
    )
    asking.ask(_caller(context, broker, name, node, timeout), body, raw=json, stats=stats)


@app.command(rich_help_panel=_ASKING)
def chat(
    context: typer.Context,
    *,
    system: System = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    stats: Stats = False,
    node: Node = POOL,
    timeout: Timeout = 120.0,
    broker: Broker = None,
    name: Name = None,
) -> None:
    """Talk. The model is told what was said before.

    /reset forgets that, /quit or Ctrl-D leaves, Ctrl-C stops the answer that is being written.
    """
    from edge_agent.cli import chat as chatting

    options = {"max_tokens": max_tokens, "temperature": temperature}
    chatting.chat(_caller(context, broker, name, node, timeout), system, options, stats=stats)


@app.command(rich_help_panel=_SERVING)
def run(context: typer.Context) -> None:
    """Load the model and answer over MQTT. SIGTERM or Ctrl-C ends it once running answers have ended."""
    from edge_agent.cli import node

    node.run(_config(context))


@app.command(rich_help_panel=_SERVING)
def check(context: typer.Context) -> None:
    """Check the configuration. What is in effect is printed, without secrets; exit code 78 when something is wrong."""
    from edge_agent.cli import node

    node.check(_config(context))


@app.command(rich_help_panel=_SERVING)
def download(
    context: typer.Context,
    model: Annotated[str | None, Argument(metavar="MODEL", help="A name of --list. Default: configured.")] = None,
    list_: Annotated[bool, Option("--list", metavar="", help="Tell what there is, and what is here already.")] = False,
) -> None:
    """Fetch a model, verify it and keep it. Prints where it is; what is here already costs nothing."""
    from edge_agent.cli import download as downloading

    (downloading.show if list_ else downloading.download)(_config(context), model)


@app.command(rich_help_panel=_CARING)
def doctor(
    context: typer.Context,
    json: Annotated[bool, Option("--json", metavar="", help="Print the findings as JSON.")] = False,
) -> None:
    """Examine this installation. Broker, model, engine, disk, memory, a short answer: each fault with its remedy.

    Exit code 1 when there is one.
    """
    from edge_agent.cli import doctor as examining

    raise typer.Exit(examining.doctor(_config(context), as_json=json))


@app.command(rich_help_panel=_CARING)
def top(
    context: typer.Context,
    *,
    once: Annotated[bool, Option("--once", metavar="", help="Print one picture and leave.")] = False,
    broker: Broker = None,
    name: Name = None,
) -> None:
    """Watch the nodes of this broker. Phase, queue, speeds, memory; Ctrl-C leaves."""
    from edge_agent.cli import top as watching

    watching.top(_caller(context, broker, name, POOL, 1), once=once)


@app.command(rich_help_panel=_CARING)
def admin(
    context: typer.Context,
    *,
    node: Annotated[str, Argument(metavar="NODE", help="Node to give the order to.")],
    op: Annotated[str, Argument(metavar="|".join(ADMIN_OPS), help="The order.")],
    level: Annotated[str | None, Argument(metavar="LEVEL", help="For log-level: debug to error.")] = None,
    broker: Broker = None,
    name: Name = None,
) -> None:
    """Give an order to a node. Its setting `admin.clients` says who may."""
    from edge_agent.cli import admin as operating

    operating.order(_caller(context, broker, name, node, 10), op, level)


service = typer.Typer(help="Run the agent with the machine, by systemd.", no_args_is_help=True)
app.add_typer(service, name="service", rich_help_panel=_SERVING)
User = Annotated[bool, Option("--user", metavar="", help="For yourself, by your own service manager; else by root.")]
Root = Annotated[Path | None, Option(metavar="DIR", help="Below this folder, as in an image; nothing is started.")]
DryRun = Annotated[bool, Option("--dry-run", metavar="", help="Only tell what would be done.")]


@service.command("install")
def service_install(context: typer.Context, *, user: User = False, root: Root = None, dry_run: DryRun = False) -> None:
    """Install the unit, enable and start it. It runs this very installation, with the --config that is given.

    Settings that name files only root may read, and a configured accelerator, are let through. Again, it changes what
    has changed.
    """
    from edge_agent.cli import service as managing
    from edge_agent.service import Service

    managing.install(Service(user=user, root=root), context.obj, user=user, dry_run=dry_run)


@service.command("status")
def service_status(*, user: User = False, root: Root = None) -> None:
    """Tell what systemd knows of it, and how the node does. Exit code 1 when it does not run."""
    from edge_agent.cli import service as managing
    from edge_agent.service import Service

    raise typer.Exit(managing.status(Service(user=user, root=root)))


@service.command("uninstall")
def service_uninstall(*, user: User = False, root: Root = None, dry_run: DryRun = False) -> None:
    """Stop it and remove what install made. Settings and models stay."""
    from edge_agent.cli import service as managing
    from edge_agent.service import Service

    managing.uninstall(Service(user=user, root=root), dry_run=dry_run)


@app.command(rich_help_panel=_CARING)
def bench(
    context: typer.Context,
    names: Annotated[list[str] | None, Argument(metavar="NAMES", help="Benches to run. Default: all.")] = None,
) -> None:
    """Measure what the agent adds to its engine. Prints the table of the README; brings a broker of its own."""
    from edge_agent.cli import bench as measuring

    measuring.bench(_config(context), names or [])
