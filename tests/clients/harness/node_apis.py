"""The agent's APIs for other components on the node: a delegate and a broker ask for workloads in their stead.

The first workload has two identities and federates with a partner, the second has neither; two processes run as the
second.
Case names begin with the requirements they show. Start at NodeApis.run.
"""

import os
import ssl
import time

from harness.envoy_scenario import PARTNER, Partner
from harness.processes import Failed
from harness.scenario import DIAL_TIMEOUT_SECS, EXIT_REFUSED, LISTEN_TIMEOUT_SECS, Scenario, last_detail, with_log
from harness.trust_domain import NAME, NODE, NOBODY, SVID_TTL, free_port, spiffe_id

DELEGATE, BROKER, OTHER = "/node/delegate", "/node/broker", "/node/other"
FIRST, OUTSIDE, SECOND = "/workload/first", "/workload/first-outside", "/workload/second"
USERS = {DELEGATE: 20031, BROKER: 20032, OTHER: 20033, FIRST: 20041, SECOND: 20042}

AUDIENCE = "orders"
OWN, FOREIGN = f"spiffe://{NAME}", f"spiffe://{PARTNER}"
STREAMS = ("svids", "x509_bundles", "jwt_bundles")

# A renewal of a 20-second identity, or the agent's next look at the server, on a busy machine.
CHANGE_TIMEOUT_SECS = 60

CONF = """\
  admin_socket_path = "{work}/node/admin.sock"
  authorized_delegates = ["{delegate}"]
  experimental {{
    sync_interval = "1s"
    broker {{
      socket_path = "{work}/node/broker.sock"
      bind_address = "127.0.0.1:{port}"
      brokers = [
        {{
          id = "{broker}"
          allowed_reference_types = [
            {{ type_url = "type.googleapis.com/spiffe.broker.WorkloadPIDReference", allow_over_tcp = true }}
          ]
        }}
      ]
    }}
  }}
"""


class NodeApis(Scenario):
    """One run of one client against a trust domain of its own."""

    def __init__(self, domain, language, report):
        super().__init__(domain, [language], report)
        self.language = language
        self.delegated_api = f"unix://{domain.work}/node/admin.sock"
        self.over = {
            "the Unix socket": f"unix://{domain.work}/node/broker.sock",
            "TCP": f"tcp://127.0.0.1:{free_port()}",
        }

    def run(self):
        if not self.distinct or self.domain.sql:
            lacks = "needs root, and an agent with a broker endpoint"
            self.report.add(f"{self.language.name} as delegate and broker", "skipped", lacks)
            return
        self.start_domain()
        self.first, self.second, self.twin = (self.workload(path) for path in (FIRST, SECOND, SECOND))
        self.delegate_cases()
        for name, address in self.over.items():
            self.broker_cases(name, address)
        self.kept_apart()

    def start_domain(self):
        ids = {name: spiffe_id(path) for name, path in (("delegate", DELEGATE), ("broker", BROKER))}
        port = self.over["TCP"].rpartition(":")[2]
        self.domain.node_apis = CONF.format(work=self.domain.work, port=port, **ids)
        self.partner = Partner(self.domain.work / "partner")
        (self.domain.work / "partner.der").write_bytes(
            ssl.PEM_cert_to_DER_cert((self.partner.folder / "svid.pem").read_text())
        )
        self.domain.start({path: USERS[path] for path in (DELEGATE, BROKER, OTHER)}, self.create_workloads)

    def create_workloads(self):
        self.domain.server("bundle", "set", "-id", FOREIGN, "-path", str(self.partner.folder / "ca.pem"))
        self.create_entry(FIRST, "first", USERS[FIRST], "-hint", "inside", "-federatesWith", FOREIGN)
        self.create_entry(OUTSIDE, "outside", USERS[FIRST], "-hint", "outside")
        self.create_entry(SECOND, "second", USERS[SECOND])

    def create_entry(self, path, entry, user, *flags):
        self.domain.server(
            "entry", "create", "-entryID", entry, "-spiffeID", spiffe_id(path), "-parentID", NODE,
            "-selector", f"unix:uid:{user}", "-x509SVIDTTL", SVID_TTL.removesuffix("s"), *flags,
        )  # fmt: skip

    def workload(self, path):
        """A process of this client that has its identity and goes on."""
        process = self.call(path, "serve", "--socket", self.domain.workload_api, "--port", "0", "--peer", NOBODY)
        process.wait_for("listening", LISTEN_TIMEOUT_SECS)
        return process

    def call(self, path, command, *options):
        self.started[command] = number = self.started.get(command, 0) + 1
        return self.domain.processes.start(
            f"{self.language.name}-{command}-{number}", [*self.language.command(), command, *options],
            user=USERS[path],
            # The sockets are for the agent's group alone.
            group=os.getegid(),
        )  # fmt: skip

    def delegate_cases(self):
        name = self.language.name
        by_pid = ("--pid", str(self.second.child.pid))
        by_selectors = ("--selector", f"unix:uid:{USERS[SECOND]}")
        self.case(f"{name} as delegate names a process: SVIDs over a rotation, tokens, bundles",
                  lambda: self.check_delegate(by_pid))  # fmt: skip
        self.case(f"{name} as delegate names selectors: SVIDs over a rotation, tokens, bundles",
                  lambda: self.check_delegate(by_selectors))  # fmt: skip
        for kind, subject in (("a process", by_pid), ("selectors", by_selectors)):
            self.case(f"{name}, which is no delegate, is refused when it names {kind}",
                      lambda: self.refused(self.delegate(OTHER, subject), "permission_denied"))  # fmt: skip

    def delegate(self, path, subject):
        return self.call(
            path, "delegated", "--admin", self.delegated_api, "--audience", AUDIENCE, "--rotations", "1", *subject
        )

    def check_delegate(self, subject):
        process = self.delegate(DELEGATE, subject)
        events, status = process.finish(CHANGE_TIMEOUT_SECS)
        if status != 0:
            raise with_log(process, f"status {status}, {last_detail(events)}")
        svids, tokens = ([event for event in events if event["event"] == kind] for kind in ("svid", "token"))
        expect({event["spiffe_id"] for event in events}, {spiffe_id(SECOND)})
        expect(len({svid["serial"] for svid in svids}), 2)
        expect([token["audience"] for token in tokens], [[AUDIENCE]])

    def broker_cases(self, over, address):
        name = self.language.name
        self.case(f"BEP-03 BEP-05 BAP-01 {name} as broker gets identities, tokens and bundles over {over}",
                  lambda: self.check_broker(address))  # fmt: skip
        self.case(f"BEP-16 {name} as broker leaves an agent that is not the one it expects, over {over}",
                  lambda: self.check_wrong_agent(address))  # fmt: skip
        self.case(f"{name}, which is no broker, is refused over {over}",
                  lambda: self.refused(self.broker(OTHER, address, [self.first]), "permission"))  # fmt: skip

    def broker(self, path, address, workloads, peer=None):
        pids = [word for workload in workloads for word in ("--pid", str(workload.child.pid))]
        return self.call(
            path, "broker", "--socket", self.domain.workload_api, "--broker", address, "--audience", AUDIENCE,
            "--peer", peer or self.domain.agent_id, "--foreign", f"{self.domain.work}/partner.der", *pids,
        )  # fmt: skip

    def check_wrong_agent(self, address):
        return self.refused(self.broker(BROKER, address, [self.first], NOBODY), "id is not authorized")

    def refused(self, process, why):
        events, status = process.finish(DIAL_TIMEOUT_SECS)
        if status != EXIT_REFUSED or [event["event"] for event in events] != ["refused"]:
            raise with_log(process, f"not refused: status {status}, {last_detail(events)}")
        detail = events[0]["detail"]
        if why not in detail.lower():
            raise Failed(f"refused for another reason: {detail}")
        return detail[:160]

    def check_broker(self, address):
        process = self.broker(BROKER, address, [self.second])
        held = Stores(process).wait_for(lambda stores: is_complete(stores, self.second))
        store = held[self.second]
        expect(spiffe_ids(store["identities"]), {"": spiffe_id(SECOND)})
        expect(spiffe_ids(store["tokens"]), {"": spiffe_id(SECOND)})
        expect(store["tokens"][""]["audience"], [AUDIENCE])
        expect((store["x509_bundles"], store["jwt_bundles"]), ([NAME], [NAME]))
        self.domain.processes.stop(process)

    def kept_apart(self):
        """One broker with one connection follows three processes while they lose one thing after the other."""
        name = self.language.name
        broker = self.broker(BROKER, self.over["the Unix socket"], (self.first, self.second, self.twin))
        stores = Stores(broker)
        steps = (
            (f"BAP-32 BAP-33 BAP-44 BAP-54 BAP-78 {name} as broker keeps what two workloads have apart",
             lambda: self.check_apart(stores.wait_for(self.all_complete))),
            (f"BAP-69 {name} as broker labels identities and tokens with their hints",
             lambda: self.check_hints(stores)),
            (f"BAP-40 {name} as broker drops an identity that is left out of the next message",
             lambda: self.withdraw(stores)),
            (f"BAP-07 {name} as broker sees the end of a process, and not of another one of the same user",
             lambda: self.end_second(stores)),
            (f"BAP-67 BAP-84 {name} as broker keeps the bundles of a workload when another one is denied",
             lambda: self.deny_twin(stores)),
        )  # fmt: skip
        for title, check in steps:
            if not self.case(title, check):
                return

    def all_complete(self, held):
        return is_complete(held, self.first, 2) and is_complete(held, self.second) and is_complete(held, self.twin)

    def check_apart(self, held):
        first, second, twin = held[self.first], held[self.second], held[self.twin]
        expect(sorted(spiffe_ids(first["identities"]).values()), [spiffe_id(FIRST), spiffe_id(OUTSIDE)])
        for one in (second, twin):
            expect(list(spiffe_ids(one["identities"]).values()), [spiffe_id(SECOND)])
            expect(list(spiffe_ids(one["tokens"]).values()), [spiffe_id(SECOND)])
        keys = [identity["key"] for one in (first, second) for identity in one["identities"].values()]
        expect(len(set(keys)), 3)
        for kind in ("x509_bundles", "jwt_bundles"):
            expect((first[kind], second[kind]), ([NAME, PARTNER], [NAME]))
        # Each knows the others by bundles of its own.
        for one in (first, second, twin):
            expect(one["knows"], sorted(workload.child.pid for workload in (self.first, self.second, self.twin)))
        # The partner's SVID is good for the workload that federates, and for no other.
        expect([one["lets_foreign_in"] for one in (first, second, twin)], [True, False, False])

    def check_hints(self, stores):
        wanted = {"inside": spiffe_id(FIRST), "outside": spiffe_id(OUTSIDE)}
        first = stores.last[self.first]
        expect((spiffe_ids(first["identities"]), spiffe_ids(first["tokens"])), (wanted, wanted))

    def withdraw(self, stores):
        self.domain.server("entry", "delete", "-entryID", "outside")
        left = {"inside": spiffe_id(FIRST)}
        held = stores.wait_for(lambda held: spiffe_ids(held[self.first]["tokens"]) == left)
        expect(spiffe_ids(held[self.first]["identities"]), left)
        expect(held[self.first]["x509_bundles"], [NAME, PARTNER])
        expect(held[self.second]["lets_foreign_in"], False)

    def end_second(self, stores):
        self.domain.processes.stop(self.second)
        stores.wait_for(lambda held: held.ended(self.second) == dict.fromkeys(STREAMS, "NotFound"))
        expect(self.second in stores.last, False)
        held = stores.wait_for(lambda held: held.renewed(self.twin) and held.renewed(self.first))
        expect((held.ended(self.first), held.ended(self.twin)), ({}, {}))
        expect(list(spiffe_ids(held[self.twin]["tokens"]).values()), [spiffe_id(SECOND)])

    def deny_twin(self, stores):
        self.domain.server("entry", "delete", "-entryID", "second")
        stores.wait_for(lambda held: held.ended(self.twin) == dict.fromkeys(STREAMS, "PermissionDenied"))
        expect(self.twin in stores.last, False)
        held = stores.wait_for(lambda held: held.renewed(self.first))
        first = held[self.first]
        expect((held.ended(self.first), first["lets_foreign_in"]), ({}, True))
        expect((first["x509_bundles"], first["jwt_bundles"]), ([NAME, PARTNER], [NAME, PARTNER]))
        expect(spiffe_ids(first["tokens"]), {"inside": spiffe_id(FIRST)})


class Held:
    """What a broker held at one moment, by the processes of the workloads."""

    def __init__(self, event, before):
        self.event, self.before = event, before

    def __getitem__(self, workload):
        return self.event["stores"][str(workload.child.pid)]

    def __contains__(self, workload):
        return str(workload.child.pid) in self.event["stores"]

    def ended(self, workload):
        """The status of each stream that has ended."""
        return self.event["ended"].get(str(workload.child.pid), {})

    def renewed(self, workload):
        """Whether all its identities have other serial numbers than when the wait began."""
        older = {identity["serial"] for identity in self.before[workload]["identities"].values()}
        return older.isdisjoint(identity["serial"] for identity in self[workload]["identities"].values())


class Stores:
    """What a broker prints, followed to what is waited for."""

    def __init__(self, process):
        self.process = process
        self.last = None

    def wait_for(self, condition):
        deadline = time.monotonic() + CHANGE_TIMEOUT_SECS
        before = self.last
        while True:
            try:
                event = self.process.next_event(deadline)
            except Failed as failed:
                raise Failed(f"{failed}; it last held {self.last and self.last.event}") from failed
            if event is None or event["event"] != "stores":
                raise with_log(self.process, f"{last_detail([event] if event else [])}")
            self.last = Held(event, before)
            if condition(self.last):
                return self.last


def is_complete(held, workload, identities=1):
    """Whether something has come on each stream, and all identities with their tokens."""
    store = held[workload]
    counts = (len(store["identities"]), len(store["tokens"]))
    return counts == (identities, identities) and bool(store["x509_bundles"] and store["jwt_bundles"])


def spiffe_ids(labelled):
    """The IDs of identities or tokens by their hints."""
    return {hint: one["spiffe_id"] for hint, one in labelled.items()}


def expect(found, wanted):
    if found != wanted:
        raise Failed(f"{found} instead of {wanted}")
