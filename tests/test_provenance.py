"""A file says that it is synthetic, and notices when it is changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from click.testing import CliRunner
from tiny import tiny_card

from vidsynth import provenance, video
from vidsynth.cli import main
from vidsynth.clip import Clip
from vidsynth.errors import BadOption, UnsupportedVideo
from vidsynth.report import Reporter
from vidsynth.stream import Chunk
from vidsynth.subject import Subject, save_card, with_consent

FACTS = provenance.facts(recipe="dance", source={"name": "a 'b'.mp4", "hash": "12"})


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDSYNTH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    frames = torch.arange(8 * 3 * 32 * 32).view(8, 3, 32, 32).remainder(251).to(torch.uint8)
    pts = torch.arange(8, dtype=torch.float64) / 25

    def chunks() -> Iterator[Chunk]:
        yield Chunk(pts, Clip(frames, pts))

    told = provenance.as_metadata(FACTS)
    video.write_video(path, chunks(), fps=Fraction(25), metadata=told)
    return path


def test_any_player_can_read_that_it_is_synthetic(film: Path) -> None:
    with av.open(str(film)) as container:
        assert container.metadata["comment"] == provenance.SENTENCE
    assert provenance.inspect(film).facts == FACTS
    assert FACTS["digitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_a_signed_file_is_valid_until_a_bit_of_it_changes(film: Path) -> None:
    pytest.importorskip("c2pa")
    frames = b"".join(bytes(p) for p in packets(film))
    assert provenance.sign(film, FACTS) is None
    assert b"".join(bytes(p) for p in packets(film)) == frames
    found = provenance.inspect(film)
    assert found.validity == "Valid" and found.facts == FACTS
    assert found.manifest is not None
    told = {a["label"]: a["data"] for a in found.manifest["assertions"]}
    assert told["org.vidsynth.job"] == FACTS
    assert told["c2pa.actions.v2"]["actions"][0]["digitalSourceType"] == provenance.SOURCE_TYPE
    data = bytearray(film.read_bytes())
    data[data.rfind(b"mdat") + 200] ^= 1
    film.write_bytes(data)
    assert provenance.inspect(film).validity == "Invalid"
    assert [p.name for p in film.parent.iterdir() if p.is_file()] == ["film.mp4"]


def packets(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return list(container.demux(video=0))


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_the_machines_certificate_is_made_once_and_is_its_users_alone(film: Path) -> None:
    pytest.importorskip("c2pa")
    provenance.sign(film, FACTS)
    (made,) = film.parent.rglob("certificate.pem")
    before = made.read_bytes()
    assert made.stat().st_mode & 0o077 == 0
    provenance.sign(film, FACTS)
    assert made.read_bytes() == before


def test_ones_own_certificate_signs_and_a_bad_one_is_named(film: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa")
    mine = tmp_path / "mine.pem"
    mine.write_text(provenance._made_certificate())
    assert provenance.sign(film, FACTS, certificate=mine) is None
    assert provenance.inspect(film).validity == "Valid"
    assert not list((tmp_path / "cache").rglob("*.pem"))
    pem = mine.read_text()
    for text, said in (
        ("nothing", "holds no private key"),
        (pem[: pem.index("-----BEGIN CERT")], "holds no certificate"),
        (pem.replace("MI", "XX"), "cannot sign with it"),
    ):
        mine.write_text(text)
        before = film.read_bytes()
        with pytest.raises(BadOption, match=said):
            provenance.sign(film, FACTS, certificate=mine)
        assert film.read_bytes() == before


def test_without_c2pa_the_file_still_says_it_and_the_user_is_told(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    lines: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "say", lines.append)
    monkeypatch.setattr(reporter, "warn", lines.append)
    provenance.sign_and_tell(film, FACTS, None, reporter)
    assert "pip install vidsynth[c2pa]" in lines[0]
    assert provenance.inspect(film).facts == FACTS
    with pytest.raises(BadOption, match="needs the package c2pa"):
        provenance.sign(film, FACTS, certificate=film)
    provenance.sign_and_tell(film, None, None, reporter)
    assert "does not say that it is synthetic" in lines[1]


def test_a_statement_of_consent_is_words_or_a_file_of_them(tmp_path: Path) -> None:
    words = "Ada Lovelace agreed on 2 March, for this film alone."
    (tmp_path / "agreed.txt").write_text(f"{words}\n")
    assert provenance.consent_in(None) == ""
    assert provenance.consent_in(words) == words
    assert provenance.consent_in(f"{words} " * 20) == (f"{words} " * 20).strip()  # no file's name
    for given in (tmp_path / "agreed.txt", str(tmp_path / "agreed.txt")):
        assert provenance.consent_in(given) == words
    (tmp_path / "picture.txt").write_bytes(b"\xff\xd8")
    for given, said in (
        (tmp_path / "nothing.txt", "cannot be read"),
        (tmp_path / "picture.txt", "cannot be read"),
        ("  ", "holds 0 characters"),
        ("x" * 5000, "holds 5000 characters"),
    ):
        with pytest.raises(BadOption, match=said):
            provenance.consent_in(given)


def test_a_subject_and_its_films_tell_of_consent(tmp_path: Path) -> None:
    subject = Subject(tmp_path, tiny_card(target="ada.mp4", trained="2026-03-02T10:00:00Z"))
    assert "consent" not in provenance.about(subject.card, None)
    save_card(tmp_path, subject.card)
    assert "no statement" in CliRunner().invoke(main, ["inspect", str(tmp_path)]).output
    agreed = with_consent(subject, "Ada agreed.")
    assert with_consent(agreed, "") is agreed  # a later training takes nothing back
    assert provenance.about(agreed.card, None)["consent"] == "Ada agreed."
    said = CliRunner().invoke(main, ["inspect", str(tmp_path)]).output
    for fact in ('consent = "Ada agreed."', 'name = "ada.mp4"', "2026-03-02T10:00:00Z"):
        assert fact in said


def test_inspect_says_what_there_is(film: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["inspect", str(film)]).output
    assert provenance.SENTENCE in said and 'recipe = "dance"' in said
    plain = tmp_path / "plain.mp4"
    chunks = list(video.read_chunks(film))
    video.write_video(plain, chunks, fps=Fraction(25))
    assert "says nothing" in CliRunner().invoke(main, ["inspect", str(plain)]).output
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(UnsupportedVideo, match="cannot be read"):
        provenance.inspect(tmp_path / "text.mp4")
