"""`verify`: whether a dataset is whole, and `--repair`, which makes it so."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from jobs.options import json_option, parse_storage_options, storage_option
from jobs.text import human_bytes, table
from jobs.waiting import patiently
from pipeline.terminal import counted

if TYPE_CHECKING:
    from pipeline.ledger.repair import Repair
    from pipeline.ledger.verify import Verification

DAMAGE_FOUND = 3


@click.command("verify")
@click.argument("output", metavar="OUT")
@click.option("--repair", "is_repair", is_flag=True, help="Mend it; what can't be saved is made again by the next run.")
@storage_option
@json_option
def verify_command(output: str, is_repair: bool, storage_options: tuple[str, ...], as_json: bool) -> int:
    """Check the dataset OUT: its log, the sha256 of every file, and that every row is there exactly once.

    Ends with 0 if all is well (with --repair: afterwards), with 3 if something was found.
    """
    from pipeline.ledger.repair import repair
    from pipeline.ledger.verify import verify
    from pipeline.storage.store import Store

    store = Store(output, parse_storage_options(storage_options))
    if not is_repair:
        found = verify(store)
        click.echo(json.dumps(_report(found), indent=2) if as_json else _described(output, found))
        return 0 if found.is_sound else DAMAGE_FOUND
    mended = repair(store, wait=patiently())
    if as_json:
        values = {"before": _report(mended.before), "after": _report(mended.after)}
        click.echo(json.dumps(values | _mended(mended), indent=2))
    else:
        click.echo(_described(output, mended.before))
        if not mended.before.is_sound:
            click.echo("\n" + _outcome(output, mended))
    return 0 if mended.after.is_sound else DAMAGE_FOUND


def _report(found: Verification) -> dict[str, Any]:
    return {
        "is_sound": found.is_sound,
        "log_entries": found.replayed.entries,
        "files": found.files,
        "bytes": found.bytes,
        "segments": found.segments,
        "faces": found.faces,
        "findings": [asdict(finding) for finding in found.findings],
    }


def _mended(mended: Repair) -> dict[str, Any]:
    return {"recovered_segments": mended.recovered, "lost_segments": mended.lost, "moved": mended.moved}


def _described(output: str, found: Verification) -> str:
    looked = (
        f"{output}: {found.replayed.entries:,} log {'entry' if found.replayed.entries == 1 else 'entries'}, "
        f"{counted(found.files, 'file')} ({human_bytes(found.bytes)}), {counted(found.segments, 'segment')}, "
        f"{counted(found.faces, 'face')}"
    )
    if found.is_sound:
        return f"{looked}\nsound: every file is what was committed, every row is there exactly once"
    rows = [(finding.kind, finding.path, finding.problem) for finding in found.findings]
    return f"{looked}\n\n" + table(("found", "where", "what"), rows)


def _outcome(output: str, mended: Repair) -> str:
    lines = [
        f"repaired: {counted(mended.recovered, 'segment')} recovered, {mended.lost:,} lost; "
        f"{counted(len(mended.moved), 'file')} moved to {output}/_ran/damaged"
        if mended.after.is_sound
        else "not all could be repaired:\n" + _described(output, mended.after)
    ]
    lines.append("`run` with the same inputs makes again what is missing")
    return "\n".join(lines)
