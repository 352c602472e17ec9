"""`vidsynth inspect`: what a file says of how it was made."""

from __future__ import annotations

from pathlib import Path

import click

from vidsynth.cli.common import FILE, job_options


@click.command()
@click.argument("video", type=FILE)
@job_options("debug")
def inspect(video: Path) -> None:
    """Say whether VIDEO was made by vidsynth, from what, and whether that is signed.

    A file that says nothing may be synthetic all the same: what it says of itself can be removed.
    """
    from vidsynth import options, provenance

    found = provenance.inspect(video)
    if found.facts is None and found.manifest is None:
        click.echo(f"{video} says nothing of how it was made")
        return
    if found.facts is not None:
        click.echo(provenance.SENTENCE)
        click.echo(options.to_toml(dict(found.facts)).rstrip())
    if found.manifest is not None:
        signer = found.manifest.get("signature_info", {})
        who = signer.get("common_name") or signer.get("issuer") or "somebody unnamed"
        click.echo(f"C2PA manifest: {found.validity.lower()}, signed by {who}")
