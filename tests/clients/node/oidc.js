// jose as a verifier of JWT-SVIDs that knows nothing but the issuer; ../README.md has the contract.
//
// The test authority is trusted by NODE_EXTRA_CA_CERTS. Start at the end of the file.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { createRemoteJWKSet, errors, jwtVerify } from 'jose';

const TIMEOUT_MS = 10_000;

function emit(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

async function discover(issuer) {
  const answer = await fetch(`${issuer}/.well-known/openid-configuration`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(`the discovery document has status ${answer.status}`);
  const metadata = await answer.json();
  if (metadata.issuer !== issuer) throw new Error(`the document's issuer is ${metadata.issuer}`);
  return metadata;
}

async function verify({ issuer, audience, tokens }) {
  const metadata = await discover(issuer);
  const keys = createRemoteJWKSet(new URL(metadata.jwks_uri), { timeoutDuration: TIMEOUT_MS });
  const algorithms = metadata.id_token_signing_alg_values_supported;
  for (const [name, token] of Object.entries(JSON.parse(readFileSync(tokens, 'utf8')))) {
    try {
      const requiredClaims = ['exp', 'iat', 'sub'];
      const { payload } = await jwtVerify(token, keys, { issuer, audience, algorithms, requiredClaims });
      emit({ event: 'verdict', name, accepted: payload.sub });
    } catch (error) {
      if (!(error instanceof errors.JOSEError)) throw error;
      emit({ event: 'verdict', name, refused: `${error.code}: ${error.message}` });
    }
  }
}

const text = { type: 'string' };
const flags = { issuer: text, audience: text, ca: text, tokens: text };
try {
  await verify(parseArgs({ allowPositionals: true, options: flags }).values);
} catch (error) {
  emit({ event: 'error', detail: String(error.cause ?? error) });
  process.exitCode = 1;
}
