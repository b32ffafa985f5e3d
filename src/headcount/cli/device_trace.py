"""`headcount device trace`: why a device is counted or not."""

from __future__ import annotations

from typing import Any

import click

from headcount.cli.client import RunningDeployment, in_site, on_deployment
from headcount.cli.output import as_json, print_json
from headcount.devices.trace import DEFAULT_LIMIT, MAX_LIMIT, DeviceTrace, TraceEntry
from headcount.messages.topics import KINDS, Kind

_INDENT = " " * 14


@click.command()
@click.argument("device")
@click.option("--reason", prompt="Why do you need this device's positions", help="Reason, for the audit log.")
@click.option("--kind", type=click.Choice(KINDS), help="Kind of a device that is not registered.")
@in_site
@click.option(
    "--limit", type=click.IntRange(1, MAX_LIMIT), default=DEFAULT_LIMIT, help="Maximum number of messages."
)
@as_json
@on_deployment()
async def trace(
    running: RunningDeployment,
    device: str,
    reason: str,
    kind: Kind | None,
    site_id: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Explain why a device is counted or not.

    Judges the device's messages of the last hour again, without earlier state. Prints each with the rule that decided,
    and the present state of the counting worker. The access is recorded in the audit log.

    \b
    Example:
      headcount device trace k3vq2hbw5yxam7p4n6ts --reason "ticket 12: phone is not counted"
    """
    if len(reason.strip()) < 3:
        raise click.BadParameter("state the reason in a few words", param_hint="--reason")
    traces = running.services.traces()
    found = await traces.of(running.actor, site_id, device, reason.strip(), kind, limit, silent=True)
    if as_json:
        print_json(found, indented=False)
        return
    for line in _as_text(found):
        click.echo(line)


def _as_text(found: DeviceTrace) -> list[str]:
    lines = [
        (
            f"{found.kind} {found.device} on {found.site}: {found.messages} messages, "
            f"judged from {found.since[11:19]} without earlier state"
        )
    ]
    if found.truncated:
        lines.append("  (the hour has more messages than are read)")
    for entry in found.lines:
        lines += _entry(entry)
    lines += [f"{_INDENT}{_change(change)}" for change in found.left]
    lines += [
        f"{each.at[11:23]}  {f'refused to {each.action}':<22}{each.reason:<14}{each.topic}"
        for each in found.refused
    ]
    lines.append(f"now            in {_zones(found.zones)}")
    if found.live is None:
        lines.append("worker         does not answer")
    elif found.agrees:
        lines.append("worker         agrees")
    else:
        lines.append(f"worker         in {_zones(found.live.get('zones', []))}: it has earlier state")
    return lines


def _entry(entry: TraceEntry) -> list[str]:
    what = entry.verdict or entry.what
    text = f"{entry.received[11:23]}  {what:<13}{entry.rule:<6}{entry.why}"
    return [text, *(f"{_INDENT}{_change(change)}" for change in entry.changes)]


def _change(change: dict[str, Any]) -> str:
    verb = "enters" if change["type"] == "enter" else "leaves"
    return f"{verb} {change['zone']} at {str(change['t'])[11:23]} ({change['reason']})"


def _zones(zones: list[str]) -> str:
    return ", ".join(zones) or "no zone"
