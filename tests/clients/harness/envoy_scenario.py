"""Envoys with different identities call each other; certificates, keys and bundles come by SDS and rotate under way.

Behind each TLS listener is one echo server; in front of each TLS cluster a plain listener that the run dials. Start at
EnvoyScenario.run.
"""

import hashlib
import socket
import socketserver
import ssl
import subprocess
import threading
import time

from harness.envoy import Envoy, binary, cluster, listener, tls
from harness.languages import HERE
from harness.processes import Failed, run, wait_until
from harness.trust_domain import COMMAND_TIMEOUT_SECS, NODE, NOBODY, spiffe_id

SERVER, CLIENT, PLAIN, LATE = "/envoy/server", "/envoy/client", "/envoy/plain", "/envoy/late"
USERS = {SERVER: 20011, CLIENT: 20012, PLAIN: 20013, LATE: 20014}
PARTNER = "partner.test"
VARIANTS = ("GRPC", "DELTA_GRPC")

CASE_TIMEOUT_SECS = 60
DIAL_TIMEOUT_SECS = 5
# Two renewals of a 20-second identity, with room for a busy machine.
ROTATION_TIMEOUT_SECS = 90
ROTATIONS = 2
LOOK_EVERY_SECS = 0.5


class EnvoyScenario:
    """One run against a trust domain of its own."""

    def __init__(self, domain, report):
        self.domain = domain
        self.report = report

    def run(self):
        self.partner = Partner(self.domain.work / "partner")
        self.domain.start({path: USERS[path] for path in (CLIENT, PLAIN)})
        self.federate()
        for path in (SERVER, CLIENT, PLAIN):
            self.domain.wait_for_identity(USERS[path])
        with Echo() as echo:
            self.start_envoys(echo.port)
            self.cases()
            self.case("envoy, DELTA_GRPC: an entry made later opens the listener", lambda: self.late_entry(echo.port))

    def federate(self):
        """The server's entry federates with a partner whose authority is of openssl's making."""
        bundle = str(self.partner.folder / "ca.pem")
        self.domain.server("bundle", "set", "-id", f"spiffe://{PARTNER}", "-path", bundle)
        self.create_entry(SERVER, "-federatesWith", f"spiffe://{PARTNER}")

    def create_entry(self, path, *flags):
        self.domain.server(
            "entry", "create", "-spiffeID", spiffe_id(path), "-parentID", NODE,
            "-selector", f"unix:uid:{USERS[path]}", *flags,
        )  # fmt: skip

    def start_envoys(self, echo_port):
        client, server, plain = ({"exact": spiffe_id(path)} for path in (CLIENT, SERVER, PLAIN))
        echo = cluster("echo", echo_port)
        # Each name of the own bundle is used by one listener.
        secured = {
            "GRPC": tls("GRPC", "ROOTCA", client),
            "DELTA_GRPC": tls("DELTA_GRPC", spiffe_id(""), client),
            "strict": tls("GRPC", "ROOTCA", {"exact": NOBODY}),
            "own-only": tls("GRPC", "ROOTCA", {"prefix": "spiffe://"}),
            "federated": tls("GRPC", "ALL", {"prefix": "spiffe://"}),
            "federated-delta": tls("DELTA_GRPC", "ALL", {"prefix": "spiffe://"}),
        }
        listeners = [listener(name, "echo", one) for name, one in secured.items()]
        self.server = Envoy(self.domain, "envoy-server", USERS[SERVER], listeners, [echo])
        without_validator = {"disable_spiffe_cert_validation": True}
        listeners = [listener("plain", "echo", tls("GRPC", "ROOTCA", client))]
        self.plain = Envoy(self.domain, "envoy-plain", USERS[PLAIN], listeners, [echo], without_validator)
        ports = self.server.ports
        clusters = [
            cluster("GRPC", ports["GRPC"], tls("GRPC", "ROOTCA", server)),
            cluster("DELTA_GRPC", ports["DELTA_GRPC"], tls("DELTA_GRPC", "ROOTCA", server)),
            cluster("strict", ports["strict"], tls("GRPC", "ROOTCA", server)),
            cluster("mistaken", ports["GRPC"], tls("GRPC", "ROOTCA", {"exact": NOBODY})),
            cluster("plain", self.plain.ports["plain"], tls("GRPC", "ROOTCA", plain)),
        ]
        listeners = [listener(one["name"], one["name"]) for one in clusters]
        self.client = Envoy(self.domain, "envoy-client", USERS[CLIENT], listeners, clusters)

    def cases(self):
        self.case("envoy takes the sample in examples", self.sample_is_taken)
        for variant in VARIANTS:
            self.case(f"envoy, {variant}: mutual TLS of two identities", lambda: self.let_in(variant))
        self.case("envoy refuses a client of another identity",
                  lambda: self.refused("strict", self.server, "listener.strict.ssl.fail_verify_san"))  # fmt: skip
        self.case("envoy refuses a server of another identity",
                  lambda: self.refused("mistaken", self.client, "cluster.mistaken.ssl.fail_verify_san"))  # fmt: skip
        self.case("envoy without the SPIFFE validator: mutual TLS by plain authorities", lambda: self.let_in("plain"))
        for name in ("federated", "federated-delta"):
            self.case(f"envoy lets a foreign trust domain in, {name}", lambda: self.foreign_is_let_in(name))
        self.case("envoy refuses a foreign trust domain without its bundle", self.foreign_is_refused)
        open_lines = {variant: Line(self.client.ports[variant]) for variant in VARIANTS}
        for variant, line in open_lines.items():
            self.case(f"envoy, {variant}: {ROTATIONS} rotations under an open connection",
                      lambda: self.rotates(variant, line))  # fmt: skip

    def sample_is_taken(self):
        sample = HERE.parent.parent / "examples" / "envoy.yaml"
        run([str(binary()), "--mode", "validate", "--config-path", str(sample)], COMMAND_TIMEOUT_SECS)

    def case(self, name, check):
        began = time.monotonic()
        try:
            note = check() or ""
        except (Failed, OSError) as failed:
            self.report.add(name, "failed", str(failed), time.monotonic() - began)
        else:
            self.report.add(name, "passed", note, time.monotonic() - began)

    def let_in(self, name):
        """The secrets may still be on their way at first."""
        wait_until(lambda: Line(self.client.ports[name]).close(), name, CASE_TIMEOUT_SECS)

    def refused(self, name, envoy, stat):
        """Nothing ever comes back, and Envoy counts a peer whose name was wrong."""

        def counted():
            if answers(lambda: Line(self.client.ports[name]).close()):
                raise AssertionError(f"{name}: was let in")
            if envoy.count(stat) == 0:
                raise Failed(f"{stat} is 0")

        try:
            wait_until(counted, name, CASE_TIMEOUT_SECS)
        except AssertionError as wrong:
            raise Failed(str(wrong)) from wrong
        return f"{stat} {envoy.count(stat)}"

    def foreign_is_let_in(self, name):
        port = self.server.ports[name]
        wait_until(lambda: Line(port, self.partner.context()).close(), name, CASE_TIMEOUT_SECS)

    def foreign_is_refused(self):
        """The listener works for its own trust domain, and only the bundle is missing for the other one."""
        stat = "listener.own-only.ssl.fail_verify_error"
        before = self.server.count(stat)
        if answers(lambda: Line(self.server.ports["own-only"], self.partner.context()).close()):
            raise Failed("was let in")
        wait_until(lambda: above(self.server.count(stat), before), stat, CASE_TIMEOUT_SECS)

    def late_entry(self, echo_port):
        """What a stream has asked for in vain comes on it as soon as there is an entry."""
        name, secured = "late", tls("DELTA_GRPC", "ROOTCA", {"prefix": "spiffe://"})
        late = Envoy(self.domain, "envoy-late", USERS[LATE], [listener(name, "echo", secured)], [cluster("echo", echo_port)])
        if answers(lambda: certificate(late.ports[name])):
            raise Failed("it had a certificate before there was an entry")
        self.create_entry(LATE)
        wait_until(lambda: failing(lambda: certificate(late.ports[name])), name, CASE_TIMEOUT_SECS)

    def rotates(self, variant, line):
        """New connections see new certificates while the one that is open goes on."""
        seen, deadline = [certificate(self.server.ports[variant])], time.monotonic() + ROTATION_TIMEOUT_SECS
        while len(seen) <= ROTATIONS:
            if time.monotonic() > deadline:
                raise Failed(f"{len(seen) - 1} rotations in {ROTATION_TIMEOUT_SECS} s")
            time.sleep(LOOK_EVERY_SECS)
            line.echo()
            now = certificate(self.server.ports[variant])
            if now not in seen:
                seen.append(now)
        line.close()
        Line(self.client.ports[variant]).close()
        return f"{len(seen)} certificates, one connection"


def answers(dial):
    """Whether a line came back."""
    try:
        dial()
    except (Failed, OSError):
        return False
    return True


def failing(check):
    """Turns errors of sockets into ones that are waited out."""
    try:
        check()
    except OSError as error:
        raise Failed(str(error)) from error


def above(now, before):
    if now <= before:
        raise Failed(f"still {now}")


def certificate(port):
    """What a listener presents, as a digest. Whoever has no SVID still sees it before it is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), DIAL_TIMEOUT_SECS) as plain, context.wrap_socket(plain) as secured:
        return hashlib.sha256(secured.getpeercert(binary_form=True)).hexdigest()


class Line:
    """A connection that has echoed a line, and can do so again."""

    def __init__(self, port, context=None):
        try:
            plain = socket.create_connection(("127.0.0.1", port), DIAL_TIMEOUT_SECS)
            self.socket = context.wrap_socket(plain) if context else plain
            self.echo()
        except OSError as error:
            raise Failed(str(error)) from error

    def echo(self):
        self.socket.sendall(b"hello\n")
        if (came := self.socket.recv(64)) != b"hello\n":
            raise Failed(f"{came!r} came back")

    def close(self):
        self.socket.close()


class Echo:
    """A server that sends back what comes, for as long as the block runs."""

    def __enter__(self):
        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                while data := self.request.recv(4096):
                    self.request.sendall(data)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Partner:
    """A foreign trust domain: an authority and one SVID, made with openssl."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        self.openssl(
            "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/O=Partner",
            "-addext", "keyUsage=critical,keyCertSign", "-addext", f"subjectAltName=URI:spiffe://{PARTNER}",
        )  # fmt: skip
        self.openssl("req", "-new", *key[:-2], "-keyout", "svid.key", "-out", "svid.csr", "-subj", "/O=Partner")
        (folder / "svid.ext").write_text(
            f"subjectAltName=URI:spiffe://{PARTNER}/caller\nkeyUsage=critical,digitalSignature\n"
            "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth,serverAuth\n"
        )
        self.openssl(
            "x509", "-req", "-in", "svid.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "1", "-extfile", "svid.ext", "-out", "svid.pem",
        )  # fmt: skip

    def openssl(self, *words):
        done = subprocess.run(
            ["openssl", *words], cwd=self.folder, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_SECS,
            check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Failed(f"openssl {words[0]}: {done.stderr.strip()}")

    def context(self):
        """Presents the SVID; whom it talks to is no matter here."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(self.folder / "svid.pem", self.folder / "svid.key")
        return context
