"""Content credentials (C2PA) of a file: who signed what about it, and whether it is still as it was signed.

Nothing is fetched: no manifest from elsewhere, no trust list, no revocation list. Trust comes from a file of anchors.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddl_d2.errors import InputError, InstallError

ABSENT, TRUSTED, UNTRUSTED = "absent", "valid-trusted", "valid-untrusted"
TAMPERED, AI_DECLARED, LAUNDERED = "tampered", "ai-declared", "laundered"
UNREADABLE, INVALID = "unreadable", "invalid"
STATES = (ABSENT, TRUSTED, UNTRUSTED, TAMPERED, AI_DECLARED, LAUNDERED, UNREADABLE, INVALID)
"""What content credentials can be; of several the one that matters most, see `read_credentials`."""

AI_SOURCES = frozenset({"trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"})
"""IPTC digital source types that say that a trained model made the image or a part of it."""

_SETTINGS: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": True},
}
# Codes that say that what was signed and what is there are not the same.
_CHANGED = ("mismatch", "claimSignature.mismatch", "missing")
_UNTRUSTED_CODE = "signingCredential.untrusted"


@dataclass(frozen=True)
class Credentials:
    """The content credentials of a file.

    Attributes:
        state: one of `STATES`.
        trusted: the signer's certificate leads to one of the given anchors.
        signer: the organization in the signer's certificate; "" if there is none.
        tool: the program that made the claim, by its own account.
        sources: digital source types that the newest manifest declares.
        ingredient_sources: those that the manifests of its ingredients declare.
        problems: codes of what did not hold, of the C2PA specification.
    """

    state: str
    trusted: bool = False
    signer: str = ""
    tool: str = ""
    sources: tuple[str, ...] = ()
    ingredient_sources: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_credentials(content: bytes, mime: str, *, anchors: str = "") -> Credentials:
    """Read and check the content credentials of a file.

    Of several states the first of these is told: unreadable, tampered (the file is not as it was signed), invalid
    (another rule was broken, such as an expired certificate), laundered (the newest manifest holds and declares no AI,
    but an ingredient was declared to be made by AI, or was not as it was signed), ai-declared, valid-trusted,
    valid-untrusted.

    Args:
        content: the file.
        mime: its type, such as "image/jpeg".
        anchors: certificates (PEM) that are trusted.

    Raises:
        InstallError: c2pa-python is not installed.
        InputError: the anchors are no certificates.
    """
    c2pa = _library()
    settings = _SETTINGS | ({"trust": {"user_anchors": anchors}} if anchors else {})
    try:
        context = c2pa.Context(settings=c2pa.Settings.from_dict(settings))
    except c2pa.C2paError as error:
        raise InputError(f"the trust anchors cannot be read: {str(error)[:200]}") from error
    try:
        with context, c2pa.Reader(mime, io.BytesIO(content), context=context) as reader:
            store = json.loads(reader.json())
    except c2pa.C2paError.ManifestNotFound:
        return Credentials(ABSENT)
    except (c2pa.C2paError, ValueError) as error:
        return Credentials(UNREADABLE, problems=(type(error).__name__.strip("_"),))
    return _judged(store)


def read_anchors(path: Path) -> str:
    """Read a file of trust anchors.

    Raises:
        InputError: it holds no certificate in PEM.
        OSError: it cannot be read.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise InputError(f"{path}: holds no certificate (PEM, -----BEGIN CERTIFICATE-----)")
    return text


def _library() -> Any:
    try:
        import c2pa
    except ImportError as error:
        raise InstallError("content credentials need c2pa-python: run `pip install c2pa-python`") from error
    return c2pa


def _judged(store: Mapping[str, Any]) -> Credentials:
    manifests = store.get("manifests", {})
    active = manifests.get(store.get("active_manifest"), {})
    others = [manifest for label, manifest in manifests.items() if label != store.get("active_manifest")]
    results = store.get("validation_results", {})
    problems = tuple(sorted(set(_codes(results.get("activeManifest", {})))))
    inherited = tuple(sorted(set(_ingredient_problems(active, results))))
    sources = tuple(sorted(set(_sources(active.get("assertions", [])))))
    older = tuple(sorted({name for manifest in others for name in _sources(manifest.get("assertions", []))}))
    trusted = store.get("validation_state") == "Trusted"
    state = TRUSTED if trusted else UNTRUSTED
    if AI_SOURCES & set(sources):
        state = AI_DECLARED
    elif AI_SOURCES & set(older) or inherited:
        state = LAUNDERED
    if store.get("validation_state") == "Invalid":
        own = problems or inherited
        state = TAMPERED if any(_says_changed(code) for code in own) else INVALID
    signature = active.get("signature_info") or {}
    tools = active.get("claim_generator_info") or [{}]
    return Credentials(
        state,
        trusted=trusted,
        signer=str(signature.get("issuer") or ""),
        tool=str(tools[0].get("name") or active.get("claim_generator") or ""),
        sources=sources,
        ingredient_sources=older,
        problems=problems + inherited,
    )


def _says_changed(code: str) -> bool:
    return code.rpartition(".")[2] in _CHANGED or code in _CHANGED


def _codes(results: Mapping[str, Any]) -> Iterator[str]:
    """What did not hold of a manifest, but for a signer whom nobody vouches for."""
    for failure in results.get("failure") or []:
        if failure.get("code") != _UNTRUSTED_CODE:
            yield str(failure.get("code"))


def _ingredient_problems(active: Mapping[str, Any], results: Mapping[str, Any]) -> Iterator[str]:
    """What did not hold of ingredients: when they were taken in, and now."""
    for ingredient in active.get("ingredients") or []:
        yield from _codes((ingredient.get("validation_results") or {}).get("activeManifest") or {})
    for delta in results.get("ingredientDeltas") or []:
        yield from _codes(delta.get("validationDeltas") or {})


def _sources(value: Any) -> Iterator[str]:
    """All digital source types in the assertions of a manifest, by the last part of their address."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("digitalSourceType", "digital_source_type") and isinstance(item, str):
                yield item.rpartition("/")[2]
            else:
                yield from _sources(item)
    elif isinstance(value, list):
        for item in value:
            yield from _sources(item)
