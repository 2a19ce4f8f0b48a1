// The Workload API by its proto: a stream of updates, each the caller's first X.509-SVID as Node's own types.
//
// `verify` walks the chain to the bundle by hand, since Node has no call that verifies one outside TLS.

import { createPrivateKey, X509Certificate } from 'node:crypto';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const PROTO = fileURLToPath(new URL('../../../proto/workload.proto', import.meta.url));

// The chain of an SVID is leaf, a few intermediates, root; more is a loop or a mistake.
const CHAIN_LENGTH_MAX = 8;

export class EndOfStream extends Error {
  constructor() {
    super('the stream of SVIDs ended');
  }
}

// A client of the Workload API, and the metadata that each of its calls must carry.
export function clientOf(socket) {
  const { SpiffeWorkloadAPI } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO, { keepCase: true }));
  const metadata = new grpc.Metadata();
  metadata.set('workload.spiffe.io', 'true');
  // grpc-js knows `unix:/path` and `unix:///path` alike.
  return { client: new SpiffeWorkloadAPI(socket, grpc.credentials.createInsecure()), metadata };
}

// Yields one Svid per update until the stream fails or ends.
export async function* watch(socket) {
  const { client, metadata } = clientOf(socket);
  const stream = client.FetchX509SVID({}, metadata);
  try {
    for await (const update of stream) yield new Svid(update.svids[0]);
  } finally {
    stream.cancel();
    client.close();
  }
}

class Svid {
  constructor(message) {
    this.spiffeId = message.spiffe_id;
    this.chain = certificatesOf(message.x509_svid);
    this.bundle = certificatesOf(message.bundle);
    this.key = createPrivateKey({ key: message.x509_svid_key, format: 'der', type: 'pkcs8' });
    const [leaf] = this.chain;
    this.serial = leaf.serialNumber.toLowerCase().replace(/^0+/, '');
    this.notAfter = Date.parse(leaf.validTo) / 1000;
    this.chainPem = this.chain.map(String).join('');
    this.bundlePem = this.bundle.map(String);
    this.keyPem = this.key.export({ format: 'pem', type: 'pkcs8' });
  }

  // Throws unless the leaf names this SPIFFE ID, holds this key and leads to the bundle, all of it in date.
  verify() {
    const [leaf, ...intermediates] = this.chain;
    if (leaf.subjectAltName?.split(', ').filter((name) => name.startsWith('URI:')).join() !== `URI:${this.spiffeId}`) {
      throw new Error(`the certificate names ${leaf.subjectAltName}, the SVID ${this.spiffeId}`);
    }
    if (leaf.ca) throw new Error('the leaf is a CA certificate');
    if (!leaf.checkPrivateKey(this.key)) throw new Error('private key and certificate do not belong together');
    let link = leaf;
    for (let depth = 0; depth < CHAIN_LENGTH_MAX; depth += 1) {
      assertInDate(link);
      const root = this.bundle.find((authority) => isIssuer(authority, link));
      if (root) return assertInDate(root);
      link = intermediates.find((authority) => isIssuer(authority, link));
      if (!link) break;
    }
    throw new Error(`the chain of ${this.spiffeId} does not lead to the bundle`);
  }
}

function isIssuer(authority, subject) {
  return authority.ca && subject.checkIssued(authority) && subject.verify(authority.publicKey);
}

function assertInDate(certificate) {
  const now = Date.now();
  if (now < Date.parse(certificate.validFrom) || now >= Date.parse(certificate.validTo)) {
    throw new Error(`certificate ${certificate.serialNumber} is out of date`);
  }
}

// Splits DER certificates that follow each other without a gap: each starts with a SEQUENCE and its length.
function certificatesOf(der) {
  const certificates = [];
  for (let at = 0; at < der.length; ) {
    const short = der[at + 1];
    const lengthBytes = short < 0x80 ? 0 : short & 0x7f;
    const contents = lengthBytes === 0 ? short : der.readUIntBE(at + 2, lengthBytes);
    const end = at + 2 + lengthBytes + contents;
    certificates.push(new X509Certificate(der.subarray(at, end)));
    at = end;
  }
  if (certificates.length === 0) throw new Error('no certificate where one belongs');
  return certificates;
}
