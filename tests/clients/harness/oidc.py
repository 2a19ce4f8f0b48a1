"""Stock OIDC libraries verify JWT-SVIDs with nothing but the issuer: keys come from the discovery provider.

One provider speaks TLS itself and asks the server; the other follows the agent and stands behind nginx on a Unix
socket. Start at Oidc.run.
"""

import base64
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request

from harness.languages import HERE, OUT
from harness.processes import Failed, run, wait_until
from harness.trust_domain import NAME, NODE, spiffe_id

AUDIENCE = "oidc.clients.test"
WORKLOAD = spiffe_id("/oidc/workload")

START_TIMEOUT_SECS = 60
VERIFY_TIMEOUT_SECS = 60
COMMAND_TIMEOUT_SECS = 20

PROVIDER = """\
domains = ["localhost"]
log_level = "DEBUG"
log_requests = true
{settings}
"""

BY_ITSELF = """\
jwt_issuer = "{issuer}"
server_api {{
  address = "unix://{work}/server.sock"
  poll_interval = "1s"
}}
serving_cert_file {{
  cert_file_path = "{work}/web.pem"
  key_file_path = "{work}/web.key"
  addr = "127.0.0.1:{port}"
}}
"""

BEHIND_NGINX = """\
set_key_use = true
workload_api {{
  socket_path = "{agent_socket}"
  trust_domain = "{trust_domain}"
}}
listen_socket_path = "{work}/oidc.sock"
"""

NGINX = """\
daemon off;
pid {work}/nginx-{port}.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {work}/nginx-body;
  proxy_temp_path {work}/nginx-proxy;
  fastcgi_temp_path {work}/nginx-fastcgi;
  uwsgi_temp_path {work}/nginx-uwsgi;
  scgi_temp_path {work}/nginx-scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {work}/web.pem;
    ssl_certificate_key {work}/web.key;
    location / {{
      proxy_pass http://unix:{work}/oidc.sock:;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
}}
"""


def verifiers(trust_store):
    """By language: the library, and how its verifier is called."""
    java = [
        "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.io.tmpdir=.",
        f"-Djavax.net.ssl.trustStore={trust_store}", "-Djavax.net.ssl.trustStorePassword=changeit",
        "-cp", f"{OUT}/java/classes:{OUT}/java/lib/*", "clients.Oidc",
    ]  # fmt: skip
    return {
        "python": ("PyJWT", [str(OUT / "python" / "bin" / "python"), str(HERE / "python" / "oidc.py")]),
        "node": ("jose", ["node", str(HERE / "node" / "oidc.js")]),
        "java": ("Nimbus", java),
    }


class Oidc:
    """The cases against one trust domain, which runs already."""

    def __init__(self, domain, languages, report, spindle_bin, require_all):
        self.domain = domain
        self.report = report
        self.spindle_bin = spindle_bin
        self.require_all = require_all
        self.work = domain.work
        self.ca = self.work / "web-ca.pem"
        known = verifiers(self.work / "web-trust.p12")
        self.verifiers = {language.name: known[language.name] for language in languages if language.name in known}

    def run(self):
        """Everything: what is accepted, what is refused, and both kinds of providers."""
        if not self.can_run(("openssl", "keytool", "nginx")):
            return
        provider = self.start_by_itself()
        good = self.mint(AUDIENCE)
        short = self.mint(AUDIENCE, "1s")
        tokens = {"good": good, "another audience": self.mint("other.test"), **self.forge(good)}
        self.wait_until_over(short)
        tokens["expired"] = short
        issuer = self.domain.issuer
        self.verify_all(issuer, tokens, "verifies by the issuer alone and refuses what is false")

        self.entitle_provider()
        self.start_provider("oidc-behind-nginx", BEHIND_NGINX, agent_socket=self.domain.agent_socket, trust_domain=NAME)
        other = self.domain.other_issuer_port
        self.start_nginx(other)
        refuses = "refuses a token of another issuer"
        self.verify_all(f"https://localhost:{other}", {"of another issuer": good}, refuses, ())
        provider.stop()
        self.start_nginx(self.domain.issuer_port)
        self.verify_all(issuer, {"good": good, "expired": short}, "verifies by a provider behind nginx")
        self.report_case("the provider behind nginx follows the agent and says what its keys are for", self.check_use)

    def run_once(self):
        """One good token for each library, signed with this trust domain's kind of key."""
        if self.can_run(("openssl", "keytool")):
            self.start_by_itself()
            verifies = f"verifies a token by the issuer alone, JWT-06 {self.domain.keys}"
            self.verify_all(self.domain.issuer, {"good": self.mint(AUDIENCE)}, verifies)

    def can_run(self, tools):
        if not self.verifiers:
            return False
        missing = [tool for tool in tools if shutil.which(tool) is None]
        if "python" not in self.verifiers:
            missing.append("the python client")
        for what in missing:
            self.report.add("OIDC", "failed" if self.require_all else "skipped", f"needs {what}")
        return not missing

    def start_by_itself(self):
        self.make_certificate()
        provider = self.start_provider(
            "oidc-by-itself", BY_ITSELF, issuer=self.domain.issuer, port=self.domain.issuer_port
        )
        wait_until(lambda: self.keys(self.domain.issuer), "keys", START_TIMEOUT_SECS, provider)
        return provider

    def make_certificate(self):
        """A test authority, and a certificate of localhost under it."""
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                     "-subj", "/CN=Test web authority", "-keyout", "web-ca.key", "-out", "web-ca.pem")  # fmt: skip
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                     "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                     "-addext", "basicConstraints=critical,CA:FALSE", "-CA", "web-ca.pem", "-CAkey", "web-ca.key",
                     "-keyout", "web.key", "-out", "web.pem")  # fmt: skip
        run(["keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", str(self.ca), "-storetype", "PKCS12",
             "-keystore", f"{self.work}/web-trust.p12", "-storepass", "changeit"], COMMAND_TIMEOUT_SECS)  # fmt: skip

    def openssl(self, *words):
        paths = [f"{self.work}/{word}" if word.startswith("web") else word for word in words]
        run(["openssl", *paths], COMMAND_TIMEOUT_SECS)

    def start_provider(self, name, settings, **values):
        text = PROVIDER.format(settings=settings.format(work=self.work, **values))
        (self.work / f"{name}.conf").write_text(text)
        command = [self.spindle_bin, "oidc-discovery-provider", "-config", f"{self.work}/{name}.conf"]
        return self.domain.processes.start(name, command)

    def entitle_provider(self):
        """The agent shows bundles to those who have an identity; anyone but root has one already."""
        if os.geteuid() == 0:
            self.domain.server("entry", "create", "-spiffeID", spiffe_id("/oidc/provider"), "-parentID", NODE,
                               "-selector", "unix:uid:0")  # fmt: skip

    def start_nginx(self, port):
        conf = self.work / f"nginx-{port}.conf"
        conf.write_text(NGINX.format(work=self.work, port=port))
        nginx = self.domain.processes.start(f"nginx-{port}", ["nginx", "-c", str(conf)])
        wait_until(lambda: self.keys(f"https://localhost:{port}"), "keys", START_TIMEOUT_SECS, nginx)

    def keys(self, address):
        """The JWK Set below this address, once there is one."""
        context = ssl.create_default_context(cafile=self.ca)
        try:
            with urllib.request.urlopen(f"{address}/keys", context=context, timeout=COMMAND_TIMEOUT_SECS) as answer:
                return answer.read()
        except (urllib.error.URLError, OSError) as error:
            raise Failed(repr(error)) from error

    def check_use(self):
        keys = json.loads(self.keys(self.domain.issuer))["keys"]
        if not keys or any(key.get("use") != "sig" or "alg" not in key for key in keys):
            raise Failed(json.dumps(keys))

    def mint(self, audience, ttl="5m"):
        return self.domain.server("jwt", "mint", "-spiffeID", WORKLOAD, "-audience", audience, "-ttl", ttl).strip()

    def wait_until_over(self, token):
        payload = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))

        def is_over():
            if time.time() <= claims["exp"] + 1:
                raise Failed("the token is still valid")

        wait_until(is_over, "the end of a token", COMMAND_TIMEOUT_SECS)

    def forge(self, good):
        (self.work / "good.jwt").write_text(good)
        (self.work / "jwks.json").write_bytes(self.keys(self.domain.issuer))
        command = self.verifiers["python"][1]
        files = ["--token", f"{self.work}/good.jwt", "--jwks", f"{self.work}/jwks.json"]
        return json.loads(run([*command, "forge", *files], VERIFY_TIMEOUT_SECS))["tokens"]

    def verify_all(self, issuer, tokens, what, accepted=("good",)):
        """Lets all libraries judge the tokens at the same time; `accepted` names those that are good."""
        path = self.work / f"tokens-{len(self.report.results)}.json"
        path.write_text(json.dumps(tokens))
        words = ["verify", "--issuer", issuer, "--audience", AUDIENCE, "--ca", str(self.ca), "--tokens", str(path)]
        began = time.monotonic()
        started = {
            library: self.domain.processes.start(
                f"{library} {path.stem}", [*command, *words], env={"NODE_EXTRA_CA_CERTS": str(self.ca)}
            )
            for library, command in self.verifiers.values()
        }
        for library, process in started.items():
            check = lambda process=process: self.check_verdicts(process, tokens, accepted)  # noqa: E731
            self.report_case(f"{library} {what}", check, began)

    def check_verdicts(self, process, tokens, accepted):
        events, status = process.finish(VERIFY_TIMEOUT_SECS)
        verdicts = {event["name"]: event for event in events if event["event"] == "verdict"}
        if status != 0 or verdicts.keys() != tokens.keys():
            raise Failed("\n".join([f"status {status}, {events[-1:]}", *process.log_tail()]))
        for name, verdict in verdicts.items():
            if name in accepted and verdict.get("accepted") != WORKLOAD:
                raise Failed(f"{name}: {verdict}")
            if name not in accepted and "refused" not in verdict:
                raise Failed(f"accepted a token that is {name}")
        return f"accepted {len(accepted)}, refused {len(tokens) - len(accepted)}"

    def report_case(self, name, check, began=None):
        began = time.monotonic() if began is None else began
        try:
            self.report.add(name, "passed", check() or "", time.monotonic() - began)
        except Failed as failed:
            self.report.add(name, "failed", str(failed), time.monotonic() - began)
