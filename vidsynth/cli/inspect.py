"""`vidsynth inspect`: what a file, or a subject, says of how it was made."""

from __future__ import annotations

from pathlib import Path

import click

from vidsynth.cli.common import FILE, job_options


@click.command()
@click.argument("path", type=FILE)
@job_options("debug")
def inspect(path: Path) -> None:
    """Say whether the video PATH was made by vidsynth, from what, and whether that is signed.

    Of a subject's folder: what it was trained from, when, and with whose consent.

    A file that says nothing may be synthetic all the same: what it says of itself can be removed.
    """
    from vidsynth import options, provenance
    from vidsynth.subject import load_subject

    if path.is_dir():
        told = provenance.about_subject(load_subject(path).card)
        click.echo(options.to_toml(told).rstrip())
        return
    found = provenance.inspect(path)
    if found.facts is None and found.manifest is None:
        click.echo(f"{path} says nothing of how it was made")
        return
    if found.facts is not None:
        click.echo(provenance.SENTENCE)
        click.echo(options.to_toml(dict(found.facts)).rstrip())
    if found.manifest is not None:
        signer = found.manifest.get("signature_info", {})
        who = signer.get("common_name") or signer.get("issuer") or "somebody unnamed"
        click.echo(f"C2PA manifest: {found.validity.lower()}, signed by {who}")
