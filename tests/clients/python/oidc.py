"""PyJWT as a verifier of JWT-SVIDs that knows nothing but the issuer; ../README.md has the contract.

`forge` makes tokens that nobody may accept. Start at main.
"""

import argparse
import base64
import hashlib
import hmac
import json
import ssl
import sys
import urllib.request
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

TIMEOUT_SECS = 10


def emit(**event):
    print(json.dumps(event), flush=True)


def verify(options):
    context = ssl.create_default_context(cafile=options.ca)
    address = f"{options.issuer}/.well-known/openid-configuration"
    with urllib.request.urlopen(address, context=context, timeout=TIMEOUT_SECS) as answer:
        metadata = json.load(answer)
    if metadata["issuer"] != options.issuer:
        raise ValueError(f"the document's issuer is {metadata['issuer']}")
    keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=context, timeout=TIMEOUT_SECS)
    for name, token in json.loads(Path(options.tokens).read_text()).items():
        try:
            key = keys.get_signing_key_from_jwt(token)
            algorithms = metadata["id_token_signing_alg_values_supported"]
            claims = jwt.decode(
                token, key, algorithms=algorithms, audience=options.audience, issuer=options.issuer,
                options={"require": ["exp", "iat", "iss", "sub", "aud"]},
            )  # fmt: skip
            emit(event="verdict", name=name, accepted=claims["sub"])
        except (jwt.PyJWTError, ValueError) as error:
            emit(event="verdict", name=name, refused=repr(error))


def encode(data):
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(part):
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def forge(options):
    """Prints tokens made of a good one by somebody who does not have the authority's key."""
    good = Path(options.token).read_text().strip()
    header, payload, signature = good.split(".")
    kid, claims = decode(header)["kid"], decode(payload)
    own_key = ec.generate_private_key(ec.SECP256R1())
    public = jwt.PyJWK(json.loads(Path(options.jwks).read_text())["keys"][0]).key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    hs256 = f"{encode({'alg': 'HS256', 'kid': kid, 'typ': 'JWT'})}.{payload}"
    tokens = {
        "alg none": f"{encode({'alg': 'none', 'kid': kid, 'typ': 'JWT'})}.{payload}.",
        "foreign key": jwt.encode(claims, own_key, "ES256", {"kid": kid}),
        "unknown key ID": jwt.encode(claims, own_key, "ES256", {"kid": "unknown"}),
        "another subject": f"{header}.{encode({**claims, 'sub': claims['sub'] + '/admin'})}.{signature}",
        "public key as secret": f"{hs256}.{encode(hmac.new(public, hs256.encode(), hashlib.sha256).digest())}",
    }
    emit(event="forged", tokens=tokens)


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("verify")
    for flag in ("--issuer", "--audience", "--ca", "--tokens"):
        one.add_argument(flag, required=True)
    one = commands.add_parser("forge")
    for flag in ("--token", "--jwks"):
        one.add_argument(flag, required=True)
    options = parser.parse_args()
    try:
        {"verify": verify, "forge": forge}[options.command](options)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has to hear of it
        emit(event="error", detail=repr(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
