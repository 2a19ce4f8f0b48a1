// The JWT profile of the Workload API by its proto, with tokens validated by `jose`.

import { createLocalJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';

import { clientOf } from './workload.js';

// Between two looks whether tokens are signed with another key.
const LOOK_EVERY_MS = 200;

// Fetches tokens for one audience, for the other and for both, has each validated here and by the agent, and then follows
// a rotation of the key.
export async function jwt({ socket, audience, other }, emit) {
  const api = new JwtApi(socket);
  try {
    const token = await validated(api, [audience], emit);
    await validated(api, [other], emit);
    await validated(api, [audience, other], emit);
    await refused(api.verify(token, other), (detail) => emit({ event: 'refused here', detail }));
    await refused(api.validate(token, other), (detail) => emit({ event: 'refused by the agent', detail }));
    emit({ event: 'waiting' });
    const { kid } = decodeProtectedHeader(token);
    while (decodeProtectedHeader((await api.fetch([audience])).svid).kid === kid) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
    await validated(api, [audience], emit);
  } finally {
    api.close();
  }
}

// Fetches a token for these audiences and has it validated for each of them.
async function validated(api, audiences, emit) {
  const svid = await api.fetch(audiences);
  let claims;
  for (const audience of audiences) {
    claims = await api.verify(svid.svid, audience);
    const answer = await api.validate(svid.svid, audience);
    if (claims.sub !== svid.spiffe_id || answer.spiffe_id !== svid.spiffe_id) {
      throw new Error(`${svid.spiffe_id} became ${claims.sub} here and ${answer.spiffe_id} at the agent`);
    }
  }
  const { kid } = decodeProtectedHeader(svid.svid);
  emit({ event: 'token', spiffe_id: svid.spiffe_id, audience: [claims.aud].flat().sort(), kid });
  return svid.svid;
}

async function refused(promise, tell) {
  await promise.then(() => {}, (error) => tell(String(error)));
}

class JwtApi {
  constructor(socket) {
    Object.assign(this, clientOf(socket));
  }

  call(method, request) {
    return new Promise((resolve, reject) => {
      this.client[method](request, this.metadata, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  async fetch(audience) {
    return (await this.call('FetchJWTSVID', { audience })).svids[0];
  }

  validate(svid, audience) {
    return this.call('ValidateJWTSVID', { svid, audience });
  }

  // With the keys of the trust domain that the token's subject is of.
  async verify(token, audience) {
    const bundles = await this.bundles();
    const subject = JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).sub;
    const keys = bundles[subject.split('/').slice(0, 3).join('/')];
    const { payload } = await jwtVerify(token, createLocalJWKSet(JSON.parse(keys)), { audience });
    return payload;
  }

  async bundles() {
    const stream = this.client.FetchJWTBundles({}, this.metadata);
    try {
      for await (const update of stream) return update.bundles;
      throw new Error('the stream of bundles ended');
    } finally {
      stream.cancel();
    }
  }

  close() {
    this.client.close();
  }
}
