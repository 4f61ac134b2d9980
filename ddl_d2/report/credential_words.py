"""Content credentials as a finding: each state says in which direction it points, and how far."""

from __future__ import annotations

from dataclasses import asdict

from ddl_d2.errors import InstallError
from ddl_d2.report import credentials as c
from ddl_d2.report.findings import NOT_AVAILABLE, OBSERVED, Finding

_TITLE = "Content credentials (C2PA)"
_NOTHING_FETCHED = "Nothing was fetched: no manifest from elsewhere, no list of trusted or of revoked certificates."
_NOT_AVERAGED = "They are no part of the model's score, and the score is no part of them."

_AI_ORIGIN = "was declared to be made by a trained model"
_SAID = {
    c.ABSENT: "There are none. This points in no direction: most authentic and most forged files have none, and "
    "messengers and web sites take them out.",
    c.TRUSTED: "{signer} signed that the file left them as it is, and a given trust anchor vouches for them. This "
    "supports that the file was not changed since; it says of what the image shows only what the signer says.",
    c.UNTRUSTED: "They hold, and name {signer}, for whom no given trust anchor vouches. This supports that the "
    "file was not changed since it was signed; anyone can sign under any name, so it points in no other direction.",
    c.TAMPERED: "The file is not as {signer} signed it ({problems}). This supports that it was changed "
    "after it was signed, by whatever means; it does not say that what the image shows was forged.",
    c.INVALID: "They break a rule ({problems}), so nothing is concluded from what they say.",
    c.UNREADABLE: "There is something of theirs in the file that cannot be read, so nothing is concluded.",
    c.AI_DECLARED: "{signer} declares that a trained model made the image or a part of it ({sources}). This supports "
    "that it is synthetic at least in part: there is little reason to declare it otherwise.",
    c.LAUNDERED: "The newest manifest, of {signer}, holds and declares no AI, but something it was made from "
    "{why}. This supports that a part of the image has an origin that its newest signature does not tell.",
}
_ALTERNATIVES = {
    c.ABSENT: ("they were never made", "they were taken out on the way, on purpose or not"),
    c.TRUSTED: ("an image of a screen or a print was signed", "the signing device or key was misused"),
    c.UNTRUSTED: ("a maker whose certificate is not among the given anchors", "a certificate made for the purpose"),
    c.TAMPERED: ("a program changed the file without knowing of credentials", "a damaged copy", "forgery"),
    c.INVALID: ("an expired certificate", "a program that writes them wrongly", "an attempt to imitate them"),
    c.UNREADABLE: ("a damaged or cut file", "a newer version of the standard"),
    c.AI_DECLARED: ("a program that declares every file of its own so", "a small retouch by a trained model"),
    c.LAUNDERED: ("an honest edit of a declared image by a program that does not repeat the declaration",),
}


def credentials_finding(content: bytes, mime: str, *, anchors: str = "") -> Finding:
    """The content credentials of a file as a finding; see `read_credentials`."""
    try:
        found = c.read_credentials(content, mime, anchors=anchors)
    except InstallError as error:
        return Finding("content_credentials", NOT_AVAILABLE, _TITLE, f"Not examined: {error}.", (_NOT_AVERAGED,))
    origin = _AI_ORIGIN if c.AI_SOURCES & set(found.ingredient_sources) else "was not as it was signed"
    said = _SAID[found.state].format(
        signer=found.signer or "a signer without a name",
        problems=", ".join(found.problems),
        sources=", ".join(found.sources),
        why=origin,
    )
    said = said[:1].upper() + said[1:]
    if found.state in (c.AI_DECLARED, c.LAUNDERED) and not found.trusted:
        said += " No given trust anchor vouches for the signer."
    limits = (_NOT_AVERAGED, _NOTHING_FETCHED)
    value = asdict(found) | {"anchors": bool(anchors)}
    return Finding("content_credentials", OBSERVED, _TITLE, said, limits, _ALTERNATIVES[found.state], value)
