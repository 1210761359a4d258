"""``info``: what the server has."""

import click

from builder_client import clock, halts, options, report, servers, uploads
from builder_client.looking import plans, running, standing, unmet_json, warnings
from builder_client.output import json_text, standard_output


@click.command("info")
@options.json_option
@options.color_option
@options.server_options
def command(*, as_json: bool, color: str) -> None:
    """Show schedule, queues, running builds, dropped platforms.

    \b
    Examples:
      builder-client info
      builder-client info --json | jq -r '.running[].uuid'

    \b
    JSON: {schedule: [{next, period, job, kind, platform | opam_package, script, cron, time_zone, spread, missed, priority,
                       retries, timeout_ms, max_silent_ms, after, needs, paused}],
           queues: [{platform, jobs: [{job, kind, platform | opam_package}]}],
           running: [{uuid, job, platform, started, elapsed_ms, expected_ms, worker, holder, away_since}],
           dropped_platforms: [name],
           disk_full, warnings: [TEXT], unmet: [{platform, missing: [NEED], nearest, lacks: [NEED], instead: [NEED]}],
           drained: [{scope, name, since, by, reason, until}], certificates: [{name, expires, is_own}],
           signing_keys: [{id, expires}],
           servers: [{server, address, version, since, heard, alive, keeps_schedule, drained, workers, running, here}],
           uploads: [{receiver, known, pending, refused, failures, oldest, next_attempt, reason}]}
          what is from cron to paused, as in show, from elapsed_ms to away_since (null: not known; its worker has no
          certificate; it is not away), disk_full, warnings (what else is to be mended), unmet (what queued jobs need and no worker has), drained, certificates,
          signing_keys, servers and uploads come from servers of our own protocol alone; next is null for never; kind is
          "script" or "orb-build"; times are in UTC
    """
    printer = standard_output(color)
    remote = options.remote()
    reply = remote.info()
    found = plans(remote) if reply.schedule else None
    looked = standing(remote)
    told = running(looked)
    receivers = uploads.counted(remote)
    farm = servers.by_the_way(remote)
    now = clock.now()
    if as_json:
        value = report.info_json(reply, now=now, plans=found, told=told)
        if looked is not None:
            value["disk_full"] = looked.is_full
            value["warnings"] = [*map(json_text, looked.warnings)]
            value["unmet"] = [
                {"platform": json_text(platform.name)} | unmet_json(found)
                for platform in looked.platforms
                for found in platform.unmet
            ]
            value["drained"] = [halts.json(each) for each in looked.halts]
            value["certificates"] = [
                {"name": json_text(each.name), "expires": each.expires.isoformat(), "is_own": each.is_own}
                for each in looked.ending
                if not each.is_key
            ]
            value["signing_keys"] = [
                {"id": json_text(each.name), "expires": each.expires.isoformat()}
                for each in looked.ending
                if each.is_key
            ]
        if farm is not None:
            value["servers"] = [servers.json(each, farm) for each in farm.servers]
        if receivers is not None:
            value["uploads"] = [uploads.receiver_json(each) for each in receivers]
        printer.json(value, indent=2)
        return
    report.print_info(printer, reply, now=now, plans=found, told=told)
    drained = looked.halts if looked else ()
    if farm is not None and (text := servers.sentence(farm)):
        printer.line("")
        printer.line(text)
    if drained:
        printer.line("")
    for each in drained:
        printer.line(halts.line(each))
    for warning in (*warnings(looked), *uploads.warnings(receivers or (), now)):
        printer.line("")
        printer.line(f"Warning: {warning}")
