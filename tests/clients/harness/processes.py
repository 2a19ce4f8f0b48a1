"""Child processes that speak JSON lines, and their certain end.

Every wait has a time-out. Start at Processes.start; stop_all ends whatever was started.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

STOP_GRACE_SECS = 5
LOG_TAIL_LINES = 15
POLL_INTERVAL_SECS = 0.1


class Failed(Exception):
    """A case did not end as it should; the text is for the table."""


class Process:
    """A running child: its events in order of arrival, its log for a failure."""

    def __init__(self, name, command, env, cwd, log):
        self.name = name
        self.log = log
        self.events = queue.Queue()
        with open(log, "wb") as stderr:
            self.child = subprocess.Popen(
                command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        """Turns each line into an event with its time of arrival; None marks the end."""
        for line in self.child.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = {"event": "text", "text": line.decode(errors="replace").rstrip()}
            self.events.put({**event, "at": time.time()})
        self.events.put(None)

    def next_event(self, deadline):
        """The next event, or None once the process has closed its output."""
        try:
            return self.events.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            raise Failed(f"{self.name}: nothing more in time") from None

    def wait_for(self, wanted, timeout):
        """Skips to the first event of the wanted kind."""
        deadline = time.monotonic() + timeout
        while True:
            event = self.next_event(deadline)
            if event is None:
                raise Failed(f"{self.name}: ended with status {self.child.wait()} before `{wanted}`")
            if event["event"] == "error":
                raise Failed(f"{self.name}: {event.get('detail')}")
            if event["event"] == wanted:
                return event

    def finish(self, timeout):
        """Waits for the end; returns all further events and the exit status."""
        deadline = time.monotonic() + timeout
        events = []
        while (event := self.next_event(deadline)) is not None:
            events.append(event)
        return events, self.child.wait(timeout=STOP_GRACE_SECS)

    def stop(self):
        """Ends the process and whatever it started, by its own session."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, sign)
            except ProcessLookupError:
                break
            try:
                self.child.wait(timeout=STOP_GRACE_SECS)
            except subprocess.TimeoutExpired:
                continue
        self.child.wait(timeout=STOP_GRACE_SECS)

    def log_tail(self):
        lines = Path(self.log).read_text(errors="replace").splitlines()
        return lines[-LOG_TAIL_LINES:]


class Processes:
    """Starts children below one working directory and ends them all."""

    def __init__(self, work):
        self.work = work
        self.all = []

    def start(self, name, command, user=None, env=None, group=None):
        """Starts a child in a directory of its own; `user` is the number of the user it runs as, `group` another group."""
        home = self.work / name.replace("/", "-").replace(" ", "-")
        home.mkdir(exist_ok=True)
        if user is not None:
            os.chown(home, user, user)
        process = Process(name, as_user(user, command, group), child_env(home, env), home, home / "log")
        self.all.append(process)
        return process

    def stop(self, process):
        self.all.remove(process)
        process.stop()

    def stop_all(self):
        # The last started goes first, so that clients do not complain about a lost agent.
        while self.all:
            self.all.pop().stop()


def child_env(home, extra):
    """The caller's environment with every place for scratch files inside the child's own directory."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SPIFFE_")}
    return {**kept, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1", **(extra or {})}


def as_user(user, command, group=None):
    """Wraps a command so that it runs as another user.

    It may still read every file, because toolchains often live below root's own home directory. Who a
    workload is, the agent reads from the user id alone.
    """
    if user is None:
        return command
    if not shutil.which("setpriv"):
        raise Failed("setpriv (package util-linux) is missing")
    capability = "+dac_read_search"
    return [
        "setpriv", f"--reuid={user}", f"--regid={user if group is None else group}", "--clear-groups",
        f"--inh-caps={capability}", f"--ambient-caps={capability}", *command,
    ]  # fmt: skip


def run(command, timeout, user=None):
    """Runs a command to its end and returns what it printed; a non-zero status is a failure."""
    done = subprocess.run(as_user(user, command), capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"{' '.join(map(str, command[:3]))}: {said[-1] if said else done.returncode}")
    return done.stdout


def wait_until(succeeds, what, timeout, alive=None):
    """Calls `succeeds` until it raises no Failed; gives up early once the process `alive` has ended."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return succeeds()
        except (Failed, subprocess.TimeoutExpired) as error:
            if alive is not None and alive.child.poll() is not None:
                raise Failed(f"{what}: {alive.name} ended with status {alive.child.returncode}") from error
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not within {timeout} s: {error}") from error
            time.sleep(POLL_INTERVAL_SECS)
