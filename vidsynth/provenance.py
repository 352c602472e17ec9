"""What a rendered file says of itself: that it is synthetic, what made it, and from what.

Always as plain metadata of the container, which any player or `ffprobe` shows; and where the
package c2pa is installed (`pip install vidsynth[c2pa]`) as a signed C2PA manifest, after the C2PA
Technical Specification, with the digital source type of IPTC's list. By default it is signed with
a certificate that vidsynth makes for this machine: that proves that the file is as it was written,
not who wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error

from vidsynth import __version__, video
from vidsynth.errors import BadOption, UnsupportedVideo
from vidsynth.files import make_folder, writing
from vidsynth.report import Reporter
from vidsynth.subject import SubjectCard

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
SENTENCE = "Synthetic media: made with vidsynth, not filmed."
MOST_WORDS = 4000
"""Characters of a statement of consent: it goes into every film."""
_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a file says of itself; see `inspect`."""

    facts: Mapping[str, Any] | None
    """What vidsynth wrote into the container; None for a file that it did not make."""
    manifest: Mapping[str, Any] | None
    """The active C2PA manifest; None where there is none, or c2pa is not installed."""
    validity: str
    """What c2pa says of the manifest: "Valid", "Invalid", or "" where there is none to check."""


def facts(**about: Any) -> dict[str, Any]:
    """What is to be said of a file: version, source type, and JSON-able facts of the job."""
    return {"vidsynth": __version__, "digitalSourceType": SOURCE_TYPE, **about}


def about(card: SubjectCard, source: Path | None) -> dict[str, Any]:
    """What is to be said of a subject's rendering that `source` drives, or no video."""
    driving = source and {"name": source.name, "hash": video.content_hash(source)}
    agreed = {"consent": card.consent} if card.consent else {}
    return facts(
        **agreed,
        recipe=card.recipe,
        generator=f"{card.generator.name} ({card.generator.version})",
        source=driving,
        target={"name": card.target, "hash": card.target_hash},
    )


def about_subject(card: SubjectCard) -> dict[str, Any]:
    """What a subject says of itself."""
    return {
        "recipe": card.recipe,
        "generator": f"{card.generator.name} ({card.generator.version})",
        "target": {"name": card.target, "hash": card.target_hash},
        "trained": card.trained or None,
        "steps": card.steps,
        "consent": card.consent or "no statement was given",
    }


def consent_in(consent: str | Path | None) -> str:
    """A statement of consent, given as it is or as a text file; empty where there is none.

    Raises BadOption: the file cannot be read, or it says nothing, or more than a statement does.
    """
    if consent is None:
        return ""
    said = str(consent)
    if isinstance(consent, Path) or os.path.isfile(said):
        try:
            said = Path(said).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadOption(
                f"--consent {consent}: cannot be read as text ({error}); name a text file, or give "
                "the statement itself"
            ) from error
    if not 0 < len(said.strip()) <= MOST_WORDS:
        raise BadOption(
            f"--consent holds {len(said.strip())} characters; say in 1 to {MOST_WORDS} who agreed "
            "to what, and when"
        )
    return said.strip()


def as_metadata(told: Mapping[str, Any]) -> dict[str, str]:
    """The facts as metadata of an MP4 or QuickTime file."""
    return {"comment": SENTENCE, "description": json.dumps(told, sort_keys=True)}


def sign(path: Path, told: Mapping[str, Any], *, certificate: Path | None = None) -> str | None:
    """Add a C2PA manifest to a video that is there.

    Args:
        path: the file; it is replaced by the signed one, whole or not at all.
        told: the facts.
        certificate: a PEM file with the signer's private key (ECDSA P-256) and chain of
            certificates; by default one that is made once and kept for this machine.

    Returns:
        None when it was signed; else a sentence on why it was not.

    Raises:
        BadOption: `certificate` cannot be used.
        CannotWrite: no room for the signed file.
    """
    try:
        import c2pa
    except ImportError as error:
        if certificate is not None:
            raise BadOption(
                f"--certificate needs the package c2pa ({error}); pip install vidsynth[c2pa]"
            ) from error
        return "not signed (C2PA): pip install vidsynth[c2pa] to have that too"
    pem = _own_certificate() if certificate is None else _read_pem(certificate)
    key, chain = _parts(pem, certificate)
    manifest = json.dumps(
        {
            "claim_generator_info": [{"name": "vidsynth", "version": __version__}],
            "format": _TYPES[path.suffix.lower()],
            "title": path.name,
            "assertions": [
                {
                    "label": "c2pa.actions.v2",
                    "data": {
                        "actions": [
                            {
                                "action": "c2pa.created",
                                "digitalSourceType": SOURCE_TYPE,
                                "softwareAgent": {"name": "vidsynth", "version": __version__},
                            }
                        ]
                    },
                },
                {"label": "org.vidsynth.job", "data": dict(told)},
            ],
        }
    )
    # No time stamp: that would ask a server of somebody's.
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, chain, key, None)
    try:
        with writing(path) as temporary:
            temporary.unlink()  # c2pa writes to new files only
            with c2pa.Signer.from_info(info) as signer, c2pa.Builder(manifest) as builder:
                builder.sign_file(path, temporary, signer)
    except c2pa.C2paError as error:
        if certificate is None:
            return f"not signed (C2PA): {error}"
        raise BadOption(
            f"{certificate}: cannot sign with it ({error}); give a PEM file with a private key and "
            "a certificate that allows digital signatures"
        ) from error
    return None


def sign_and_tell(
    path: Path,
    told: Mapping[str, Any] | None,
    certificate: str | Path | None,
    reporter: Reporter,
) -> None:
    """As `sign`, and tell the user what the file does not have; no facts were not to be told."""
    own = None if certificate is None else Path(certificate)
    if told is None:
        reporter.warn(f"{path} does not say that it is synthetic (--no-provenance)")
    elif unsigned := sign(path, told, certificate=own):
        reporter.say(f"{path} says that it is synthetic; {unsigned}")


def inspect(path: Path | str) -> Provenance:
    """Read back what a file says of itself. Raises UnsupportedVideo for what is no media file."""
    path = Path(path)
    try:
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            said = container.metadata.get("description", "")
    except (av.error.FFmpegError, OSError) as error:
        raise UnsupportedVideo(
            f"{path}: cannot be read ({error.strerror}); name a video file"
        ) from error
    manifest, validity = _manifest(path)
    return Provenance(facts=_facts_in(said), manifest=manifest, validity=validity)


def _facts_in(text: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "vidsynth" in found else None


def _manifest(path: Path) -> tuple[Mapping[str, Any] | None, str]:
    try:
        import c2pa
    except ImportError:
        return None, ""
    try:
        with c2pa.Reader(path) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError:  # there is none, or it is none
        return None, ""
    return store["manifests"][store["active_manifest"]], store.get("validation_state", "")


# Certificates


def _read_pem(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(
            f"{path}: cannot be read ({error}); name a PEM file with a private key and a "
            "certificate"
        ) from error


def _parts(pem: str, path: Path | None) -> tuple[bytes, bytes]:
    """Private key and chain of certificates."""
    begin, blocks = "-----BEGIN ", []
    for block in pem.split(begin)[1:]:
        blocks.append(begin + block)
    key = "".join(b for b in blocks if "PRIVATE KEY" in b.split("\n", 1)[0])
    chain = "".join(b for b in blocks if b.startswith(f"{begin}CERTIFICATE"))
    if not key or not chain:
        raise BadOption(
            f"{path}: holds no {'certificate' if key else 'private key'}; put both into one PEM "
            "file"
        )
    return key.encode(), chain.encode()


def _own_certificate() -> str:
    """Key and chain of this machine, made on first use and readable by its user alone."""
    import platformdirs

    root = os.environ.get("VIDSYNTH_CACHE") or platformdirs.user_data_dir("vidsynth")
    path = Path(root) / "provenance" / "certificate.pem"
    if not path.exists():
        make_folder(path.parent)
        with _private(), writing(path) as temporary:
            temporary.write_text(_made_certificate())
    return path.read_text()


@contextmanager
def _private() -> Iterator[None]:
    """Files written within the block are for this user alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _made_certificate() -> str:
    """A PEM of an ECDSA P-256 key, its certificate, and that of the authority that issued it.

    C2PA takes no certificate that is signed with its own key, so there are two; the authority's
    key is forgotten at once.
    """
    from datetime import datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(name: str) -> x509.Name:
        pairs = ((NameOID.COMMON_NAME, name), (NameOID.ORGANIZATION_NAME, "vidsynth, self-made"))
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])

    authority, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = named("vidsynth on this machine, authority")
    now = datetime.now().astimezone()

    def certificate(name: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool):
        usage = {
            "digital_signature": not is_authority,
            "key_cert_sign": is_authority,
            "crl_sign": is_authority,
        } | dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        key_id = x509.SubjectKeyIdentifier.from_public_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(key_id(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False,
            )
        )
        if not is_authority:
            allowed = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(allowed, critical=False)
        return builder.sign(authority, hashes.SHA256())

    pem = serialization.Encoding.PEM
    key = signer.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = certificate(named("vidsynth on this machine"), signer, False).public_bytes(pem)
    return (key + chain + certificate(issuer, authority, True).public_bytes(pem)).decode()
