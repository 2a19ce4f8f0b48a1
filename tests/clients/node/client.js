// The Node client of the interoperability suite; ../README.md has the contract of all clients.
//
// There is no SPIFFE package for Node: grpc-js speaks to the Workload API by its proto, and TLS is Node's own.
// Start at the end of the file.

import { parseArgs } from 'node:util';
import tls from 'node:tls';

import { jwt } from './jwt.js';
import { EndOfStream, watch } from './workload.js';

// Long enough for a first SVID while the machine is busy; a peer that hangs is an error.
const START_TIMEOUT_MS = 30_000;
const PEER_TIMEOUT_MS = 10_000;

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
const EXIT_REFUSED = 3;

// One of the two sides would not talk to the other.
class Refused extends Error {}

function emit(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

async function fetch({ socket, rotations }) {
  const serials = new Set();
  for await (const svid of watch(socket)) {
    svid.verify();
    emit({ event: 'svid', spiffe_id: svid.spiffeId, serial: svid.serial, not_after: svid.notAfter });
    serials.add(svid.serial);
    if (serials.size > rotations) return;
  }
  throw new EndOfStream();
}

// Keeps `latest` at the newest verified SVID and calls `renewed` with each; resolves with the first.
function follow(socket, renewed) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('no SVID in time')), START_TIMEOUT_MS);
    (async () => {
      for await (const svid of watch(socket)) {
        svid.verify();
        clearTimeout(late);
        renewed(svid);
        resolve(svid);
      }
      throw new EndOfStream();
    })().catch(reject);
  });
}

const secureContextOf = (svid) => ({ cert: svid.chainPem, key: svid.keyPem, ca: svid.bundlePem, minVersion: 'TLSv1.2' });

// The one URI name of a certificate that TLS has already traced to the bundle.
function peerOf(connection) {
  const names = connection.getPeerX509Certificate()?.subjectAltName?.split(', ') ?? [];
  const uris = names.filter((name) => name.startsWith('URI:')).map((name) => name.slice('URI:'.length));
  return uris.length === 1 ? uris[0] : undefined;
}

async function serve({ socket, port, peer }) {
  let server;
  const first = await follow(socket, (svid) => server?.setSecureContext(secureContextOf(svid)));
  server = tls.createServer({ ...secureContextOf(first), requestCert: true, rejectUnauthorized: true });
  server.on('tlsClientError', (error) => emit({ event: 'refused', detail: String(error) }));
  server.on('secureConnection', (connection) => answer(connection, peer));
  server.listen(port, '127.0.0.1', () => emit({ event: 'listening', port: server.address().port }));
}

function answer(connection, expected) {
  const peer = peerOf(connection);
  if (peer !== expected) {
    emit({ event: 'refused', detail: `the client is ${peer}` });
    connection.destroy();
    return;
  }
  connection.setTimeout(PEER_TIMEOUT_MS, () => connection.destroy());
  connection.on('error', (error) => emit({ event: 'refused', detail: String(error) }));
  let text = '';
  connection.setEncoding('utf8');
  connection.on('data', (chunk) => {
    text += chunk;
    if (!text.endsWith('\n')) return;
    connection.end(text);
    emit({ event: 'served', peer });
  });
}

async function dial({ socket, port, peer }) {
  const svid = await follow(socket, () => {});
  const sent = 'hello from node\n';
  const options = {
    ...secureContextOf(svid),
    host: '127.0.0.1',
    port,
    checkServerIdentity: (_host, certificate) =>
      certificate.subjectaltname?.split(', ').includes(`URI:${peer}`)
        ? undefined
        : new Error(`the server is ${certificate.subjectaltname}`),
  };
  const line = await call(options, sent);
  if (line !== sent) throw new Error(`another line came back: ${JSON.stringify(line)}`);
  emit({ event: 'echo', peer });
}

function call(options, sent) {
  return new Promise((resolve, reject) => {
    let connected = false;
    let text = '';
    const connection = tls.connect(options, () => connection.write(sent));
    connection.setEncoding('utf8');
    connection.setTimeout(PEER_TIMEOUT_MS, () => connection.destroy(new Error('the server did not answer')));
    connection.on('connect', () => { connected = true; });
    connection.on('data', (chunk) => {
      text += chunk;
      if (!text.endsWith('\n')) return;
      resolve(text);
      connection.end();
    });
    // In TLS 1.3 a server's refusal reaches the client only when it uses the connection.
    connection.on('end', () => reject(new Refused('the server closed the connection')));
    connection.on('error', (error) => reject(connected ? new Refused(String(error)) : error));
  });
}

async function main() {
  const commands = { fetch, serve, dial, jwt: (options) => jwt(options, emit) };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      socket: { type: 'string' },
      rotations: { type: 'string', default: '0' },
      port: { type: 'string', default: '0' },
      peer: { type: 'string' },
      audience: { type: 'string' },
      other: { type: 'string' },
    },
  });
  const command = commands[positionals[0]];
  if (!command || !values.socket) {
    console.error('usage: client.js fetch|serve|dial|jwt --socket unix:///PATH ...');
    process.exit(EXIT_USAGE);
  }
  const settings = { ...values, rotations: Number(values.rotations), port: Number(values.port) };
  try {
    await command(settings);
  } catch (error) {
    const refused = error instanceof Refused;
    emit({ event: refused ? 'refused' : 'error', detail: String(error) });
    process.exit(refused ? EXIT_REFUSED : EXIT_FAILED);
  }
  if (command !== serve) process.exit(0);
}

await main();
