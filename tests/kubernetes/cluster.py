"""kubectl and helm against the cluster of these tests, which KUBECONFIG names."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PROGRAMS = Path(__file__).resolve().parent / "programs"
ROLLOUT_SECONDS = 240  # compiling the kernel programs with half a CPU included


def run(*command: str, stdin: str | None = None, seconds: float = 120) -> str:
    """What a command prints; AssertionError with its complaint when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
    """kubectl."""
    return run("kubectl", *arguments, stdin=stdin, seconds=seconds)


def helm(*arguments: str, seconds: float = 300) -> str:
    """helm."""
    return run("helm", *arguments, seconds=seconds)


def get(kind: str, *arguments: str) -> Any:
    """Objects as the API server has them."""
    return json.loads(kubectl("get", kind, *arguments, "-o", "json"))


def apply(*objects: dict[str, Any], namespace: str | None = None) -> None:
    """Create or change objects; a field that the server does not know is an error."""
    where = () if namespace is None else ("-n", namespace)
    kubectl("apply", "--validate=strict", *where, "-f", "-", stdin=yaml.safe_dump_all(objects))


def roll_out(kind_and_name: str, namespace: str) -> None:
    """Until all pods of a DaemonSet or Deployment are the new ones, and ready."""
    kubectl(
        *("-n", namespace, "rollout", "status", kind_and_name, f"--timeout={ROLLOUT_SECONDS}s"), seconds=ROLLOUT_SECONDS + 30
    )


def pods(namespace: str, selector: str) -> list[dict[str, Any]]:
    """Pods that are not going away, by labels."""
    return [
        pod for pod in get("pods", "-n", namespace, "-l", selector)["items"] if "deletionTimestamp" not in pod["metadata"]
    ]


def make_namespace(name: str, **labels: str) -> None:
    """A namespace with labels."""
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def end_namespace(*names: str) -> None:
    """Delete namespaces with all that is in them."""
    kubectl("delete", "namespace", *names, "--ignore-not-found", "--timeout=120s", seconds=150)


def logs(namespace: str, selector: str) -> str:
    """The last lines of the log of each pod, for messages of failures."""
    return kubectl("-n", namespace, "logs", "-l", selector, "--tail=40", "--prefix")


class Pod:
    """A pod of one container; its programs are those of `PROGRAMS`, at /programs."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name

    @property
    def address(self) -> str:
        """Its IP address."""
        return str(get("pod", self.name, "-n", self.namespace)["status"]["podIP"])

    def _command(self, *command: str) -> list[str]:
        return ["kubectl", "-n", self.namespace, "exec", "-i", self.name, "--", *command]

    def run(self, *command: str, stdin: str | None = None, seconds: float = 60) -> str:
        """What a command in it prints."""
        return run(*self._command(*command), stdin=stdin, seconds=seconds)

    def talk(self, *command: str) -> Conversation:
        """A program in it that answers each line."""
        return Conversation(self._command(*command))

    def annotate(self, *what: str) -> None:
        """As `kubectl annotate`: NAME=VALUE, or NAME- to take it away."""
        kubectl("-n", self.namespace, "annotate", "--overwrite", f"pod/{self.name}", *what)


class Conversation:
    """A program that answers each line of its input with one line."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def say(self, line: str) -> str:
        """The answer to a line."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"no answer to {line!r}: exit {self._process.wait(10)}"
        return answer.rstrip("\n")

    def end(self) -> None:
        """End of its input, and of the program."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
