"""The clients: what each needs, how it is built as its users would build it, and how it is called.

Start at LANGUAGES. The order is the order of the ring in which they call each other.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent.parent
OUT = HERE.parent.parent / "target" / "clients"

# The Rust client compiles some 150 crates on the first run.
BUILD_TIMEOUT_SECS = 1800


@dataclass(frozen=True)
class Language:
    """One client program. `follows` tells whether a running server of it takes up renewed SVIDs, `has_jwt` whether it
    knows the JWT profile, `has_node_apis` whether it knows the Delegated Identity API and the Broker API.

    `lacks` looks closer at tools that are there, and returns what keeps them from building the client.
    """

    name: str
    library: str
    tools: tuple[str, ...]
    build: Callable[[], list[list[str]]]
    command: Callable[[], list[str]]
    user: int
    follows: bool = True
    has_jwt: bool = True
    has_wit: bool = False
    has_node_apis: bool = False
    lacks: Callable[[], str | None] = lambda: None

    @property
    def path(self):
        """The path of its SPIFFE ID."""
        return f"/client/{self.name}"

    def missing(self):
        """What this machine lacks to build the client, or None."""
        absent = [tool for tool in self.tools if shutil.which(tool) is None]
        return f"no {', '.join(absent)} on this machine" if absent else self.lacks()

    def install(self):
        """Runs the build commands; returns None, or the last lines of the one that failed."""
        OUT.mkdir(parents=True, exist_ok=True)
        env = {**os.environ, "CARGO_TARGET_DIR": str(OUT / "rust")}
        for command in self.build():
            try:
                done = subprocess.run(
                    command, cwd=HERE / self.name, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True, timeout=BUILD_TIMEOUT_SECS, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return f"{command[0]}: not done in {BUILD_TIMEOUT_SECS} s"
            if done.returncode != 0:
                return f"{' '.join(command[:3])}: {done.stdout[-2000:].strip()}"
        return None


def older_than(name, command, wanted):
    """Says so when the first number that `command` prints is below `wanted`, such as (1, 25)."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    if found and tuple(map(int, found.groups())) >= wanted:
        return None
    says = found.group(0) if found else "of an unknown version"
    return f"{name} is {says}, and {'.'.join(map(str, wanted))} is needed"


def python_lacks():
    probe = [sys.executable, "-c", "import venv, ensurepip"]
    done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return None if done.returncode == 0 else "python3 has no venv module (Debian: python3-venv)"


def python_build():
    venv = OUT / "python"
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    create = [] if (venv / "bin" / "pip").exists() else [[sys.executable, "-m", "venv", str(venv)]]
    return [*create, [*pip, "-r", "requirements.txt"]]


def java_command():
    # A short-lived JVM starts faster without the optimising compiler.
    return [
        "java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Djava.io.tmpdir=.",
        "-cp", f"{OUT}/java/classes:{OUT}/java/lib/*", "clients.Client",
    ]  # fmt: skip


LANGUAGES = (
    Language(
        name="go",
        library="go-spiffe 2.9.0",
        tools=("go",),
        build=lambda: [["go", "build", "-mod=readonly", "-o", str(OUT / "go" / "client"), "."]],
        command=lambda: [str(OUT / "go" / "client")],
        user=20001,
        has_wit=True,
        # GOTOOLCHAIN=local: an answer about this machine, not about what it could download.
        lacks=lambda: older_than("go", ["env", "GOTOOLCHAIN=local", "go", "env", "GOVERSION"], (1, 25)),
    ),
    Language(
        name="python",
        library="spiffe 0.3.2, spiffe-tls 0.4.0",
        tools=("python3",),
        build=python_build,
        command=lambda: [str(OUT / "python" / "bin" / "python"), str(HERE / "python" / "client.py")],
        user=20002,
        lacks=python_lacks,
    ),
    Language(
        name="rust",
        library="spiffe 0.19.0, spiffe-rustls 0.11.0, spire-api 0.11.0",
        tools=("cargo",),
        build=lambda: [["cargo", "build", "--quiet", "--locked"]],
        command=lambda: [str(OUT / "rust" / "debug" / "spiffe-client")],
        user=20003,
        has_node_apis=True,
    ),
    Language(
        name="java",
        library="java-spiffe 0.8.17",
        tools=("java", "javac", "mvn"),
        build=lambda: [["mvn", "--quiet", "--batch-mode", f"-Dout={OUT / 'java'}", "process-classes"]],
        command=java_command,
        user=20004,
        lacks=lambda: older_than("javac", ["javac", "--version"], (17, 0)),
    ),
    Language(
        name="node",
        library="grpc-js 1.14.7, jose 5.10",
        tools=("node", "npm"),
        build=lambda: [["npm", "ci", "--silent", "--no-audit", "--no-fund"]],
        command=lambda: ["node", str(HERE / "node" / "client.js")],
        user=20005,
        # What Debian 12 has; jose 6 would want 20.
        lacks=lambda: older_than("node", ["node", "--version"], (18, 0)),
    ),
    Language(
        name="openssl",
        library="the openssl command",
        tools=("openssl", "bash", "awk"),
        build=lambda: [],
        command=lambda: ["bash", str(HERE / "openssl" / "client")],
        user=20006,
        # s_server reads its files when it starts and never again.
        follows=False,
        has_jwt=False,
    ),
)
