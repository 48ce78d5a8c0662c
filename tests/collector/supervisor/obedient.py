"""A child that does what it is told, for test_child.py: it repeats, floods, logs, babbles, stops listening, ends."""

from __future__ import annotations

import os
import select
import sys
import time
from dataclasses import dataclass
from typing import Any

from collector.counter_names import COMMON
from collector.runtime import Child
from collector.settings import Start


@dataclass(frozen=True, slots=True, kw_only=True)
class ObedientStart(Start):
    """``answer`` is repeated in a report."""

    answer: int = 0


def obey(child: Child[ObedientStart], order: dict[str, Any]) -> None:
    what = order["kind"]
    if what == "report":
        planted = [name for name in ("json", "struct") if "planted" in (sys.modules[name].__file__ or "")]
        child.say(
            {
                "kind": "report",
                "start": child.start.to_message(),
                "directory": os.getcwd(),
                "environment": dict(os.environ),
                "modules": planted,
            },
            child.fds[1:],
        )
    elif what == "flood":
        for number in range(order["count"]):
            child.say({"kind": "flood", "number": number})
    elif what == "log":
        os.write(2, order["text"].encode())
    elif what == "babble":
        child.channel.send(b"not JSON")
    elif what == "deaf":
        time.sleep(1000)
    elif what == "exit":
        child.say({"kind": "last words"})
        os.write(2, b"a line without an end")
        os._exit(order["code"])


def main() -> int:
    child = Child.begin(ObedientStart, COMMON)
    child.ready()
    while not child.stopping:
        select.select([child.channel], [], [])
        for order in child.hear():
            obey(child, order)
    return 0


if __name__ == "__main__":
    sys.exit(main())
