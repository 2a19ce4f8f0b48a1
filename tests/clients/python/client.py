"""The py-spiffe client of the interoperability suite; ../README.md has the contract of all clients.

SVIDs come through `spiffe`, TLS through `spiffe-tls`. Start at main.
"""

import argparse
import json
import queue
import socket
import sys

from cryptography import x509
from OpenSSL import SSL, crypto
from spiffe import SpiffeId, WorkloadApiClient, X509Source
from spiffetls import create_ssl_context, dial as spiffe_dial
from spiffetls.errors import TLSConnectionError
from spiffetls.tlsconfig.authorize import authorize_id

from jwt_svids import jwt

# Long enough for a first SVID while the machine is busy; a peer that hangs is an error.
START_TIMEOUT_SECS = 30
PEER_TIMEOUT_SECS = 10

EXIT_FAILED = 1
EXIT_REFUSED = 3


class Refused(Exception):
    """One of the two sides would not talk to the other."""


def emit(**event):
    print(json.dumps(event), flush=True)


def verify(svid, bundles):
    """Checks the chain with OpenSSL, since py-spiffe itself parses but does not verify."""
    bundle = bundles.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    if bundle is None:
        raise ValueError(f"no bundle for {svid.spiffe_id.trust_domain}")
    store = crypto.X509Store()
    for authority in bundle.x509_authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    chain = [crypto.X509.from_cryptography(cert) for cert in svid.cert_chain]
    crypto.X509StoreContext(store, chain[0], chain[1:]).verify_certificate()
    signed_for = crypto.PKey.from_cryptography_key(svid.private_key)
    if signed_for.to_cryptography_key().public_key() != svid.leaf.public_key():
        raise ValueError("private key and certificate do not belong together")


def fetch(options):
    updates = queue.Queue()
    client = WorkloadApiClient(options.socket)
    watch = client.stream_x509_contexts(updates.put, updates.put)
    serials = set()
    try:
        while len(serials) <= options.rotations:
            update = updates.get()
            if isinstance(update, Exception):
                raise update
            svid = update.default_svid
            verify(svid, update.x509_bundle_set)
            serial = format(svid.leaf.serial_number, "x")
            not_after = int(svid.leaf.not_valid_after_utc.timestamp())
            emit(event="svid", spiffe_id=str(svid.spiffe_id), serial=serial, not_after=not_after)
            serials.add(serial)
    finally:
        watch.cancel()
        client.close()


def source_of(options):
    return X509Source(socket_path=options.socket, timeout_in_seconds=START_TIMEOUT_SECS)


def peer_id(connection):
    """The peer's URI name, already checked by the library's authorizer during the handshake."""
    certificate = connection.get_peer_certificate(as_cryptography=True)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)[0]


def read_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        line += connection.recv(256)
    return line


def answer(raw, context):
    """Speaks TLS on an accepted socket: echoes one line."""
    connection = SSL.Connection(context, raw)
    connection.set_accept_state()
    connection.do_handshake()
    connection.sendall(read_line(connection))
    emit(event="served", peer=peer_id(connection))
    connection.shutdown()


def serve(options):
    with source_of(options) as source, socket.create_server(("127.0.0.1", options.port)) as listener:
        authorize = authorize_id(SpiffeId(options.peer))
        emit(event="listening", port=listener.getsockname()[1])
        while True:
            raw, _ = listener.accept()
            set_kernel_timeouts(raw)
            # One context per connection. The library's own listen() keeps one for good and renews its
            # certificate in place, which pyOpenSSL refuses for a context in use: it would expire.
            context = create_ssl_context(SSL.TLS_SERVER_METHOD, source, authorize)
            try:
                answer(raw, context)
            except (SSL.Error, OSError) as error:
                emit(event="refused", detail=repr(error))
            finally:
                raw.close()


def set_kernel_timeouts(connection):
    """Bounds reads and writes below pyOpenSSL: a Python time-out would make the socket non-blocking."""
    interval = PEER_TIMEOUT_SECS.to_bytes(8, sys.byteorder) + bytes(8)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


def dial(options):
    with source_of(options) as source:
        authorize = authorize_id(SpiffeId(options.peer))
        try:
            connection = spiffe_dial(f"127.0.0.1:{options.port}", source, authorize_fn=authorize)
        except TLSConnectionError as error:
            raise Refused(error.context.get("reason", str(error))) from error
        set_kernel_timeouts(connection)
        sent = b"hello from python\n"
        try:
            # In TLS 1.3 a server's refusal reaches the client only when it uses the connection.
            connection.sendall(sent)
            line = read_line(connection)
        except SSL.WantReadError as error:
            raise TimeoutError("the server did not answer") from error
        except (SSL.Error, ConnectionError) as error:
            raise Refused(repr(error)) from error
        if line != sent:
            raise ValueError(f"sent {sent!r}, came back {line!r}")
        emit(event="echo", peer=peer_id(connection))
        connection.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["fetch", "serve", "dial", "jwt"])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--rotations", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--peer")
    parser.add_argument("--audience")
    parser.add_argument("--other")
    options = parser.parse_args()
    jwt_command = lambda options: jwt(options, emit)  # noqa: E731
    command = {"fetch": fetch, "serve": serve, "dial": dial, "jwt": jwt_command}[options.command]
    try:
        command(options)
    except Refused as error:
        emit(event="refused", detail=str(error))
        return EXIT_REFUSED
    except Exception as error:  # the driver wants every other failure as an event too
        emit(event="error", detail=repr(error))
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
