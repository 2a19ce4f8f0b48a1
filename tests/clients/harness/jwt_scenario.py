"""The JWT profile with stock clients: tokens for two audiences, validated here and by the agent, and a new key.

Case names begin with the requirements they show. Start at JwtScenario.run.
"""

import time

from harness.processes import Failed
from harness.scenario import Scenario, last_detail, with_log

AUDIENCE, OTHER = "orders", "billing"

# What each client prints before it waits for the new key, and then.
BEFORE = ["token", "token", "token", "refused here", "refused by the agent", "waiting"]
AFTER = ["token"]

# A start on a busy machine; then the agent has the new key within moments.
TIMEOUT_SECS = 90


class JwtScenario(Scenario):
    """One run over the languages that have a JWT client."""

    def __init__(self, domain, languages, report):
        super().__init__(domain, [language for language in languages if language.has_jwt], report)

    def run(self):
        self.start_domain()
        clients = [
            (language, self.start(language, "jwt", "--audience", AUDIENCE, "--other", OTHER), [])
            for language in self.languages
        ]
        ready = [client for client in clients if self.gets_tokens(*client)]
        self.domain.rotate_jwt_authority()
        for client in ready:
            self.check(*client)

    def gets_tokens(self, language, process, events):
        return self.case(f"WAP-02 {language.name} gets tokens", lambda: read_until_waiting(process, events))

    def check(self, language, process, events):
        name = language.name
        later, status = process.finish(TIMEOUT_SECS)
        events = [*events, *later]
        tokens = [event for event in events if event["event"] == "token"]
        keys = [token["kid"] for token in tokens]

        def follows():
            names = [event["event"] for event in events]
            if status != 0 or names != BEFORE + AFTER:
                raise with_log(process, f"status {status}, {last_detail(events)}")
            if len(set(keys[:3])) != 1 or keys[3] == keys[0]:
                raise Failed(f"the keys are {keys}")
            return f"{keys[0][:12]} became {keys[3][:12]}"

        def audiences():
            found = [sorted(token["audience"]) for token in tokens]
            expect(found, [[AUDIENCE], [OTHER], sorted([AUDIENCE, OTHER]), [AUDIENCE]])

        self.case(f"WAP-40 WAP-44 {name} gets tokens for exactly the audiences asked for", audiences)
        self.case(f"WAP-41 {name} gets the token of its own identity",
                  lambda: expect({token["spiffe_id"] for token in tokens}, {self.id_of(language)}))  # fmt: skip
        self.case(f"WAP-48 WAP-50 WAP-60 {name} validates tokens with the JWT bundles and refuses one for another audience",
                  lambda: detail(events, "refused here"))  # fmt: skip
        self.case(f"WAP-55 WAP-58 WAP-59 {name} has tokens validated by the agent, which refuses one for another audience",
                  lambda: detail(events, "refused by the agent"))  # fmt: skip
        self.case(f"WAP-49 WAP-82 {name} follows a new JWT authority", follows)


def read_until_waiting(process, events):
    deadline = time.monotonic() + TIMEOUT_SECS
    while not events or events[-1]["event"] != "waiting":
        event = process.next_event(deadline)
        if event is None or event["event"] == "error":
            raise with_log(process, f"no tokens, {last_detail([*events, *([event] if event else [])])}")
        events.append(event)


def expect(found, wanted):
    if found != wanted:
        raise Failed(f"{found} instead of {wanted}")


def detail(events, name):
    found = [event["detail"] for event in events if event["event"] == name]
    if not found:
        raise Failed("it was not refused")
    return found[0][:120]
