"""Images with content credentials, signed by certificates that are made here and by nobody trusted."""

from __future__ import annotations

import datetime
import io
from dataclasses import dataclass

import c2pa
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
CAPTURE = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
GENERATED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_NO_NETWORK = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}

_UNUSED = dict.fromkeys(
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


@dataclass(frozen=True)
class Authority:
    """A root certificate (PEM), and a signer's chain and key under it."""

    root: bytes
    chain: bytes
    key: bytes


def make_authority(name: str = "Test") -> Authority:
    """Make a root and a signer's certificate with the key usage that C2PA asks for."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {part}"),
            ]
        )
        for part in ("Root", "Signer")
    ]
    made = []
    for index, (subject, key) in enumerate(zip(names, keys, strict=True)):
        is_root = index == 0
        usage = dict.fromkeys(
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
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(names[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
        )
        if not is_root:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Authority(made[0], made[1] + made[0], key)


def _named(name: str, part: str) -> x509.Name:
    texts = {NameOID.ORGANIZATION_NAME: name, NameOID.COMMON_NAME: f"{name} {part}"}
    return x509.Name([x509.NameAttribute(key, text) for key, text in texts.items()])


def plain_file(format_name: str, seed: int = 0) -> bytes:
    """A small image file without credentials: smooth random colors, 96 × 64."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(small).resize((96, 64), Image.Resampling.BICUBIC).save(content, format_name)
    return content.getvalue()


def signed(
    content: bytes, mime: str, authority: Authority, *, source_type: str = CAPTURE, ingredient: bytes | None = None
) -> bytes:
    """The file with a manifest that says how it was made, and what it was made from."""
    if ingredient is None:
        first = {"action": "c2pa.created", "digitalSourceType": source_type}
    else:
        first = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
    manifest = {
        "claim_generator_info": [{"name": "ddl_d2 tests", "version": "1"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [first]}}],
    }
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, authority.chain, authority.key, None)
    settings = c2pa.Settings.from_dict(_NO_NETWORK)
    with c2pa.Context(settings=settings) as context, c2pa.Builder(manifest, context=context) as builder:
        if ingredient is not None:
            builder.add_ingredient(
                {"title": "parent", "relationship": "parentOf", "label": "parent"}, mime, io.BytesIO(ingredient)
            )
        target = io.BytesIO()
        builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(content), target)
        return target.getvalue()
