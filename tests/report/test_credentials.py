"""Content credentials in each state, in three formats, signed by certificates made for the test."""

import socket

import pytest

pytest.importorskip("c2pa", reason="needs c2pa-python")

from ddl_d2.errors import InputError, InstallError
from ddl_d2.report import credentials
from ddl_d2.report.credential_words import credentials_finding
from ddl_d2.report.credentials import read_anchors, read_credentials
from ddl_d2.report.file_findings import clip_file_findings, image_file_findings
from ddl_d2.report.findings import NOT_AVAILABLE
from tests.report.signed_files import FORMATS, GENERATED, make_authority, plain_file, signed
from tests.video_files import write_video


@pytest.fixture(scope="module")
def authority():
    return make_authority("Example Press")


@pytest.fixture(scope="module")
def anchors(authority):
    return authority.root.decode()


@pytest.fixture(scope="module", params=FORMATS)
def vectors(request, authority):
    """(MIME type, file by state) in a format."""
    mime, plain = FORMATS[request.param], plain_file(request.param)
    photo = signed(plain, mime, authority)
    generated = signed(plain, mime, authority, source_type=GENERATED)
    tampered = bytearray(photo)
    tampered[photo.rindex(plain[-24:-16])] ^= 1  # in the pixels
    edited = plain_file(request.param, seed=1)
    return mime, {
        "absent": plain,
        "valid-trusted": photo,
        "valid-untrusted": signed(plain, mime, make_authority("Nobody")),
        "tampered": bytes(tampered),
        "ai-declared": generated,
        "laundered": signed(edited, mime, authority, ingredient=generated),
        "laundered-tampered": signed(edited, mime, authority, ingredient=bytes(tampered)),
    }


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize(
    "state",
    ["absent", "valid-trusted", "valid-untrusted", "tampered", "ai-declared", "laundered", "laundered-tampered"],
)
def test_each_state_is_told(vectors, anchors, state):
    mime, files = vectors
    found = read_credentials(files[state], mime, anchors=anchors)
    assert found.state == state.partition("-tampered")[0]
    signer = {"absent": "", "valid-untrusted": "Nobody"}.get(state, "Example Press")
    assert (found.signer, found.trusted) == (signer, state not in ("absent", "valid-untrusted", "tampered"))
    finding = credentials_finding(files[state], mime, anchors=anchors)
    assert signer in finding.statement
    directions = {
        "absent": "points in no direction",
        "valid-trusted": "supports that the file was not changed since",
        "valid-untrusted": "anyone can sign under any name",
        "tampered": "supports that it was changed after it was signed",
        "ai-declared": "supports that it is synthetic at least in part",
        "laundered": "was declared to be made by a trained model",
        "laundered-tampered": "was not as it was signed",
    }
    assert directions[state] in finding.statement


def test_without_anchors_nobody_is_trusted(vectors):
    mime, files = vectors
    assert read_credentials(files["valid-trusted"], mime).state == "valid-untrusted"
    assert "No given trust anchor vouches" in credentials_finding(files["ai-declared"], mime).statement


def test_a_cut_file_is_unreadable_and_no_error(vectors):
    mime, files = vectors
    whole = files["valid-trusted"]
    for size in (len(whole) // 3, len(whole) // 2, len(whole) - 10):
        assert read_credentials(whole[:size], mime).state in ("absent", "unreadable", "tampered", "invalid")


def test_anchors_are_certificates(tmp_path, vectors):
    (tmp_path / "roots.pem").write_text("nothing")
    with pytest.raises(InputError, match=r"roots\.pem: holds no certificate"):
        read_anchors(tmp_path / "roots.pem")


def test_without_the_library_a_finding_says_what_to_install(monkeypatch):
    def missing():
        raise InstallError("content credentials need c2pa-python: run `pip install c2pa-python`")

    monkeypatch.setattr(credentials, "_library", missing)
    finding = credentials_finding(plain_file("PNG"), "image/png")
    assert finding.kind == NOT_AVAILABLE
    assert "pip install c2pa-python" in finding.statement


def test_clips_have_them_in_mp4_and_avi_only(tmp_path):
    states = {}
    for kind in ("mp4", "avi", "mkv"):
        (found,) = clip_file_findings(write_video(tmp_path / f"clip.{kind}", 3).read_bytes())
        states[kind] = found.kind if found.value is None else found.value["state"]
    assert states == {"mp4": "absent", "avi": "absent", "mkv": "not available"}


def test_formats_without_credentials_say_so():
    found = {finding.name: finding for finding in image_file_findings(plain_file("BMP"), "a.bmp", max_pixels=10**6)}
    assert found["content_credentials"].statement == "A BMP file holds none."
