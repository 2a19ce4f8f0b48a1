"""A trust domain for one run: a server, one agent attested by join token, and an entry for each client.

Identities live 20 seconds, so that rotations can be waited for. Start at TrustDomain.start.
"""

import json
import re
import socket
from dataclasses import dataclass

from harness.processes import Failed, run, wait_until

NAME = "clients.test"
NODE = f"spiffe://{NAME}/node"
# An identity that nobody has.
NOBODY = f"spiffe://{NAME}/nobody"

SVID_TTL = "20s"
# Long enough for no change of authority in a run, short enough to be no production value.
CA_TTL = "20m"

START_TIMEOUT_SECS = 60
COMMAND_TIMEOUT_SECS = 20

SERVER_CONF = """\
server {{
  trust_domain = "{name}"
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{work}/server.sock"
  data_dir = "{work}/server"
  log_level = "DEBUG"
  default_x509_svid_ttl = "{svid_ttl}"
  ca_ttl = "{ca_ttl}"
  ca_key_type = "{ca_key}"
  jwt_issuer = "{issuer}"
{experimental}\
}}
plugins {{
{data_store}\
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"""

# Not for servers of SPIRE, whose agents have no WIT-SVIDs to give.
WIT_SVIDS = """\
  experimental {
    feature_flags = ["wit-svid"]
  }
"""

SQL_DATA_STORE = """\
  DataStore "sql" {{
    plugin_data {{
      database_type = "sqlite3"
      connection_string = "{work}/server/datastore.sqlite3"
    }}
  }}
"""

AGENT_CONF = """\
agent {{
  trust_domain = "{name}"
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{work}/api/agent.sock"
  data_dir = "{work}/agent"
  trust_bundle_path = "{work}/bootstrap.pem"
  workload_x509_svid_key_type = "{workload_key}"
  log_level = "DEBUG"
{node_apis}}}
plugins {{
  KeyManager "memory" {{ plugin_data {{}} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


@dataclass(frozen=True)
class Keys:
    """Kinds of keys, in the words of the configuration: of the authority and of the workloads."""

    authority: str = "ec-p256"
    workload: str = "ec-p256"

    def __str__(self):
        return f"{self.workload} keys under {self.authority}"


class TrustDomain:
    """Running server and agent, and how to reach them."""

    def __init__(self, processes, server_bin, agent_bin, sql, keys=Keys()):
        self.processes = processes
        self.work = processes.work
        self.server_bin = server_bin
        self.agent_bin = agent_bin
        self.sql = sql
        self.keys = keys
        # Two, for a case in which a token comes from another issuer than the one asked for.
        self.issuer_port, self.other_issuer_port = free_port(), free_port()
        self.agent_socket = self.work / "api" / "agent.sock"
        # Lines of the agent's configuration for the APIs of other components on the node.
        self.node_apis = ""

    @property
    def issuer(self):
        """What tokens say in `iss`, and where their keys are found."""
        return f"https://localhost:{self.issuer_port}"

    @property
    def workload_api(self):
        return f"unix://{self.agent_socket}"

    def start(self, identities, prepare=lambda: None):
        """Starts both halves; `identities` maps the path of each SPIFFE ID to the user that is to get it.

        `prepare` is called when the server is up and the agent is not.
        """
        for folder in ("server", "agent", "api"):
            (self.work / folder).mkdir()
        self.write_configuration()
        server = self.processes.start("server-process", [self.server_bin, "run", "-config", f"{self.work}/server.conf"])
        wait_until(lambda: self.server("healthcheck"), "server", START_TIMEOUT_SECS, server)
        (self.work / "bootstrap.pem").write_text(self.server("bundle", "show"))
        token = self.join_token()
        self.agent_id = spiffe_id(f"/spire/agent/join_token/{token}")
        # Entries come first: the agent then has them all when it first answers.
        for path, user in identities.items():
            self.server(
                "entry", "create", "-spiffeID", spiffe_id(path), "-parentID", NODE, "-selector", f"unix:uid:{user}",
                "-x509SVIDTTL", SVID_TTL.removesuffix("s"),
            )
        prepare()
        agent = self.processes.start(
            "agent-process", [self.agent_bin, "run", "-config", f"{self.work}/agent.conf", "-joinToken", token]
        )
        wait_until(self.agent_is_healthy, "agent", START_TIMEOUT_SECS, agent)

    def write_configuration(self):
        values = {"name": NAME, "port": free_port(), "work": self.work, "svid_ttl": SVID_TTL, "ca_ttl": CA_TTL}
        values |= {"ca_key": self.keys.authority, "workload_key": self.keys.workload, "issuer": self.issuer}
        values["node_apis"] = self.node_apis
        values["experimental"] = "" if self.sql else WIT_SVIDS
        values["data_store"] = SQL_DATA_STORE.format(**values) if self.sql else ""
        (self.work / "server.conf").write_text(SERVER_CONF.format(**values))
        (self.work / "agent.conf").write_text(AGENT_CONF.format(**values))

    def server(self, *words):
        """Runs a command of the server binary against its admin socket."""
        return run([self.server_bin, *words, "-socketPath", f"{self.work}/server.sock"], COMMAND_TIMEOUT_SECS)

    def join_token(self):
        printed = self.server("token", "generate", "-spiffeID", NODE)
        found = re.search(r"Token: *(\S+)", printed)
        if not found:
            raise Failed(f"token generate printed {json.dumps(printed)}")
        return found.group(1)

    def rotate_jwt_authority(self):
        """Another key signs tokens from now on; the old one is tainted, so that agents drop the tokens of it."""
        show = json.loads(self.server("localauthority", "jwt", "show", "-output", "json"))
        prepared = show.get("prepared") or json.loads(
            self.server("localauthority", "jwt", "prepare", "-output", "json")
        ).get("prepared_authority")
        for step, state in (("activate", prepared), ("taint", show["active"])):
            self.server("localauthority", "jwt", step, "-authorityID", state["authority_id"])

    def agent_is_healthy(self):
        run([self.agent_bin, "healthcheck", "-socketPath", str(self.agent_socket)], COMMAND_TIMEOUT_SECS)

    def wait_for_identity(self, user):
        """Waits until a process of this user is given an SVID."""
        command = [self.agent_bin, "api", "fetch", "x509", "-socketPath", str(self.agent_socket)]
        wait_until(lambda: run(command, COMMAND_TIMEOUT_SECS, user), f"an SVID for user {user}", START_TIMEOUT_SECS)


def spiffe_id(path):
    return f"spiffe://{NAME}{path}"


def free_port():
    """A port that was free a moment ago: the server's configuration needs one before the server runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
