"""The JWT profile with `spiffe`: tokens are validated by the library and by the agent."""

import base64
import json
import time

from spiffe import JwtSource, JwtSvid, WorkloadApiClient

# Between two looks whether tokens are signed with another key.
LOOK_EVERY_SECS = 0.2


def jwt(options, emit):
    """Fetches tokens for one audience, for the other and for both, has each validated here and by the agent, and then
    follows a rotation of the key."""
    with WorkloadApiClient(options.socket) as client, JwtSource(workload_api_client=client) as source:
        svid = validated(client, source, {options.audience}, emit)
        validated(client, source, {options.other}, emit)
        validated(client, source, {options.audience, options.other}, emit)
        refused(lambda: here(source, svid, options.other), "refused here", emit)
        refused(lambda: client.validate_jwt_svid(svid.token, options.other), "refused by the agent", emit)
        emit(event="waiting")
        while key_of(client.fetch_jwt_svid({options.audience}).token) == key_of(svid.token):
            time.sleep(LOOK_EVERY_SECS)
        validated(client, source, {options.audience}, emit)


def validated(client, source, audiences, emit):
    """Fetches a token for these audiences and has it validated for each of them."""
    svid = client.fetch_jwt_svid(audiences)
    for audience in audiences:
        ids = here(source, svid, audience).spiffe_id, client.validate_jwt_svid(svid.token, audience).spiffe_id
        if ids != (svid.spiffe_id, svid.spiffe_id):
            raise ValueError(f"{svid.spiffe_id} became {ids}")
    emit(event="token", spiffe_id=str(svid.spiffe_id), audience=sorted(svid.audience), kid=key_of(svid.token))
    return svid


def here(source, svid, audience):
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    return JwtSvid.parse_and_validate(svid.token, bundle, {audience})


def refused(call, event, emit):
    try:
        call()
    except Exception as error:  # the library has a class for each kind of refusal
        emit(event=event, detail=repr(error))


def key_of(token):
    header = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
