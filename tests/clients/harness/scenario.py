"""The cases: each client fetches and follows rotations, and all call each other in a ring.

Server A is called by client B, the next in the ring: let in, refused by B, refused by A, and once more after
A's identity has been renewed. Start at Scenario.run.
"""

import os
import time

from harness.processes import Failed
from harness.trust_domain import NOBODY, spiffe_id

ROTATIONS = 2
# Two renewals of a 20-second identity, with room for a busy machine and a slow start.
FETCH_TIMEOUT_SECS = 90
# Above the clients' own time-outs, so that it is they who say what happened.
LISTEN_TIMEOUT_SECS = 45
DIAL_TIMEOUT_SECS = 60

EXIT_REFUSED = 3


class Scenario:
    """One run over the languages that are there."""

    def __init__(self, domain, languages, report):
        self.domain = domain
        self.languages = languages
        self.report = report
        # Only root can start processes of other users; anyone else has one identity for all clients.
        self.distinct = os.geteuid() == 0
        self.started = {}

    def identities(self):
        """Path of each SPIFFE ID to the user that gets it."""
        if self.distinct:
            return {language.path: language.user for language in self.languages}
        return {"/client/shared": os.geteuid()}

    def id_of(self, language):
        return spiffe_id(language.path if self.distinct else "/client/shared")

    def start_domain(self):
        self.domain.start(self.identities())
        for user in self.identities().values():
            self.domain.wait_for_identity(user if self.distinct else None)

    def run_once(self):
        """One verified SVID for each client and one call between neighbours: enough to compare kinds of keys."""
        self.start_domain()
        keys = self.domain.keys
        fetches = [(language, self.start(language, "fetch")) for language in self.languages]
        for language, process in fetches:
            self.case(f"{language.name} verifies {keys}", lambda: self.check_fetch(language, process, 0))
        if len(self.languages) > 1:
            for server, client in self.ring():
                self.case(f"{client.name} dials {server.name}, {keys}", lambda: self.call_once(server, client))

    def call_once(self, server, client):
        self.dial_and_echo(client, server, self.listen(server, self.id_of(client)))

    def ring(self):
        return list(zip(self.languages, self.languages[1:] + self.languages[:1]))

    def run(self):
        self.start_domain()
        fetches = [(language, time.monotonic(), self.start_fetch(language)) for language in self.languages]
        wits = [(language, time.monotonic(), self.start(language, "wit", "--rotations", str(ROTATIONS)))
                for language in self.languages if language.has_wit and not self.domain.sql]  # fmt: skip
        ring = self.ring()
        if len(self.languages) < 2:
            self.report.add("mutual TLS", "skipped", "needs two languages")
            ring = []
        servers = {server.name: self.call_in_ring(server, client) for server, client in ring}
        for language, began, process in fetches:
            self.case(f"{language.name} fetches and follows {ROTATIONS} rotations (WAP-07 WEP-03 WEP-04 WEP-07 WEP-11 WEP-16 WEP-18)",
                      lambda: self.check_fetch(language, process), began)  # fmt: skip
        for language, began, process in wits:
            self.case(f"{language.name} fetches WIT-SVIDs with their keys and follows {ROTATIONS} rotations "
                      "(WAP-64 WAP-66 WAP-73 WAP-74 WAP-75 WIT-01 WIT-06 WIT-12 WIT-30)",
                      lambda: self.check_fetch(language, process), began)  # fmt: skip
        for server, client in ring:
            # By now every identity has been renewed at least twice since the server started.
            if servers[server.name] is not None and server.follows:
                self.case(f"{client.name} dials {server.name} after rotation",
                          lambda: self.dial_and_echo(client, server, servers[server.name]))  # fmt: skip

    def case(self, name, check, began=None):
        """Runs one check and records it; the value is whether it passed."""
        began = time.monotonic() if began is None else began
        try:
            note = check() or ""
        except Failed as failed:
            self.report.add(name, "failed", str(failed), time.monotonic() - began)
            return False
        self.report.add(name, "passed", note, time.monotonic() - began)
        return True

    def start(self, language, command, *options):
        # The number keeps the scratch directories of several calls apart.
        self.started[language.name] = number = self.started.get(language.name, 0) + 1
        return self.domain.processes.start(
            f"{language.name}-{command}-{number}",
            [*language.command(), command, "--socket", self.domain.workload_api, *options],
            user=language.user if self.distinct else None,
            env={"SPINDLE_AGENT": str(self.domain.agent_bin)},
        )

    def start_fetch(self, language):
        return self.start(language, "fetch", "--rotations", str(ROTATIONS))

    def check_fetch(self, language, process, rotations=ROTATIONS):
        events, status = process.finish(FETCH_TIMEOUT_SECS)
        if status != 0:
            raise with_log(process, f"status {status}, {last_detail(events)}")
        svids = [event for event in events if event["event"] == "svid"]
        serials = list(dict.fromkeys(svid["serial"] for svid in svids))
        if len(serials) != rotations + 1:
            raise Failed(f"{len(serials)} serial numbers instead of {rotations + 1}")
        for svid in svids:
            if svid["spiffe_id"] != self.id_of(language):
                raise Failed(f"was given {svid['spiffe_id']}")
            if svid["not_after"] <= svid["at"]:
                raise Failed(f"SVID {svid['serial']} had expired when it came")
        for older, newer in zip(svids, svids[1:]):
            if newer["at"] >= older["not_after"]:
                raise Failed(f"SVID {newer['serial']} came after {older['serial']} had expired")
            if newer["not_after"] < older["not_after"]:
                raise Failed(f"SVID {newer['serial']} ends before {older['serial']}")
        left = min(svid["not_after"] - svid["at"] for svid in svids)
        return f"{len(serials)} SVIDs, each with {left:.0f} s or more to live"

    def call_in_ring(self, server, client):
        """Runs the three calls to one server; returns its port while it is up, or None."""
        port = None

        def listen():
            nonlocal port
            port = self.listen(server, self.id_of(client))

        if not self.case(f"{server.name} serves", listen):
            return None
        self.case(f"{client.name} dials {server.name}", lambda: self.dial_and_echo(client, server, port))
        self.case(f"{client.name} refuses {server.name} for another's name",
                  lambda: self.dial_refused(client, NOBODY, port))  # fmt: skip
        self.case(f"{server.name} refuses {client.name}, expecting another",
                  lambda: self.dial_refused(client, self.id_of(server), self.listen(server, NOBODY)))  # fmt: skip
        return port

    def listen(self, server, peer):
        process = self.start(server, "serve", "--port", "0", "--peer", peer)
        try:
            return process.wait_for("listening", LISTEN_TIMEOUT_SECS)["port"]
        except Failed as failed:
            raise with_log(process, str(failed)) from failed

    def dial(self, client, peer, port):
        process = self.start(client, "dial", "--port", str(port), "--peer", peer)
        events, status = process.finish(DIAL_TIMEOUT_SECS)
        return process, events, status

    def dial_and_echo(self, client, server, port):
        process, events, status = self.dial(client, self.id_of(server), port)
        echoes = [event for event in events if event["event"] == "echo"]
        if status != 0 or [echo["peer"] for echo in echoes] != [self.id_of(server)]:
            raise with_log(process, f"status {status}, {last_detail(events)}")

    def dial_refused(self, client, peer, port):
        process, events, status = self.dial(client, peer, port)
        if status != EXIT_REFUSED or [event["event"] for event in events] != ["refused"]:
            raise with_log(process, f"not refused: status {status}, {last_detail(events)}")
        return events[0]["detail"][:120]


def last_detail(events):
    if not events:
        return "no event"
    return f"last event `{events[-1]['event']}` {events[-1].get('detail', '')}".rstrip()


def with_log(process, text):
    """A failure with the end of the process's own log below its first line."""
    return Failed("\n".join([text, *(f"        | {line}" for line in process.log_tail())]))
