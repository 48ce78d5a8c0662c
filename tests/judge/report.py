"""Figures of many accounts: what was right, wrong, doubted, missing; by kind of damage, by flow, by what was forged."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.judge import play
from tests.judge.verdict import Account, judge_batch

COLUMNS = (
    "conversations",
    "records",
    "right_unmarked",
    "right_in_doubt",
    "right_marked",
    "wrong_in_doubt",
    "wrong_marked",
    "wrong_unmarked",
    "foreign",
    "twice",
    "ids",
    "missing",
    "unanswered",
    "failures",
)
MEANING = {
    "right_in_doubt": "right, and a mark says that the pair or the framing is in doubt",
    "right_marked": "right, with other marks",
    "wrong_in_doubt": "wrong in what a mark of the record says is in doubt",
    "wrong_marked": "wrong in something that no mark says: a failure",
    "wrong_unmarked": "wrong, and no marks at all: a failure",
    "foreign": "of the wrong ones: bytes of another message, in a field that no mark names",
    "twice": "further records of an exchange that has one: a failure",
    "ids": "one recordId, two contents: a failure",
    "missing": "exchanges of which all was seen and nothing recorded (a failure when nothing says so, see the end)",
    "unanswered": "recorded without the answer, though all of it was seen, and no mark of doubt",
}
_LINES = 40  # of failures that are kept of a batch


@dataclass
class Tally:
    """Adds up; two of them can be added."""

    tables: dict[str, dict[str, Counter[str]]] = field(default_factory=dict)
    failing: Counter[tuple[str, str]] = field(default_factory=Counter)  # (marks, what was wrong)
    lines: list[tuple[int, str]] = field(default_factory=list)  # (conversation, failure)
    ids: set[str] = field(default_factory=set)
    uncounted: list[tuple[str, int, int]] = field(default_factory=list)  # (where, bytes missing, bytes counted)
    half_missing: int = 0  # of these the request was seen, and the answer or a part of it was not

    @property
    def total(self) -> Counter[str]:
        """All in all."""
        return self.tables.get("all", {}).get("all", Counter())

    @property
    def failures(self) -> int:
        """How much must not be."""
        return self.total["failures"] + len(self.uncounted)

    @property
    def doubted(self) -> float:
        """The share of the right records that carry a doubt."""
        total = self.total
        right = total["right_unmarked"] + total["right_in_doubt"] + total["right_marked"]
        return total["right_in_doubt"] / right if right else 0.0

    def add_batch(self, batch: play.Batch, accounts: Iterable[Account], counters: dict[str, int]) -> None:
        """The accounts of a batch and the counters of its pipeline."""
        missing = 0
        for account in accounts:
            self._add(account)
            if account.silently_missing:
                missing += account.silently_missing
                self._count_alone(batch, account.conversation.number)
        if missing > counters["skipped_bytes"]:
            self.uncounted.append((f"batch {batch.number}", missing, counters["skipped_bytes"]))

    def _count_alone(self, batch: play.Batch, number: int) -> None:
        """The counters of a batch are those of all its conversations: look at this one by itself."""
        only = frozenset({number})
        alone = dataclasses.replace(batch, conversations=[c for c in batch.conversations if c.number in only])
        records, counters = play.play(alone)
        (account,) = judge_batch(alone, records)
        if account.silently_missing > counters["skipped_bytes"]:
            self.uncounted.append((f"--only {number} --alone", account.silently_missing, counters["skipped_bytes"]))

    def _add(self, account: Account) -> None:
        c = account.conversation
        count = Counter(
            {
                "conversations": 1,
                "records": len(account.verdicts),
                "missing": len(account.missing),
                "twice": len(account.twice),
                "ids": len(account.ids),
            }
        )
        for v in account.verdicts:
            count[v.outcome] += 1
            count["foreign"] += v.foreign
            count["unanswered"] += v.unanswered and not v.doubt
            if v.problems:
                what = ", ".join(sorted({f"{p.part}: {p.what}" for p in v.problems}))
                self.failing[", ".join(sorted(v.marks)), what] += 1
            if v.record["recordId"] in self.ids and v not in account.ids:
                count["ids"] += 1
        count["failures"] = count["wrong_marked"] + count["wrong_unmarked"] + count["twice"] + count["ids"]
        self.ids.update(v.record["recordId"] for v in account.verdicts)
        self.half_missing += len(account.half_missing)
        if len(self.lines) < _LINES:
            self.lines += [(c.number, line) for line in account.failures]
        kinds = c.damage or ("whole",)
        damage = "evict, alone or not" if "evict" in kinds else kinds[0] if len(kinds) == 1 else "two kinds"
        rows = {
            "all": "all",
            "damage": damage,
            "flow": f"{c.plan.flow} {c.plan.depth}",
            "forged": c.plan.forged or "nothing",
            "last": c.plan.last,
            "side": "client" if c.plan.client else "server",
        }
        for table, row in rows.items():
            self.tables.setdefault(table, {}).setdefault(row, Counter()).update(count)

    def merge(self, other: Tally) -> None:
        """Add another one, of other conversations."""
        for table, rows in other.tables.items():
            for row, count in rows.items():
                self.tables.setdefault(table, {}).setdefault(row, Counter()).update(count)
        again = len(self.ids & other.ids)
        if again:
            self.tables["all"]["all"].update({"ids": again, "failures": again})
        self.ids |= other.ids
        self.failing.update(other.failing)
        self.lines += other.lines
        self.uncounted += other.uncounted
        self.half_missing += other.half_missing

    def as_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "failures": self.failures,
            "doubted": round(self.doubted, 4),
            "half_missing": self.half_missing,
            "uncounted": self.uncounted,
            "tables": {
                table: {row: {name: count[name] for name in COLUMNS} for row, count in sorted(rows.items())}
                for table, rows in self.tables.items()
            },
            "failing": [{"marks": marks, "wrong": what, "records": n} for (marks, what), n in self.failing.most_common()],
            "lines": [{"conversation": number, "failure": line} for number, line in self.lines],
        }

    def as_text(self, replay: str, most: int) -> str:
        """The tables, and at most so many failures with the command that shows each; `replay` lacks its number."""
        out = []
        for table, rows in self.tables.items():
            width = max(len(row) for row in rows) + 1
            names = [name.replace("_", " ").split(" ") for name in COLUMNS]
            widths = [max(8, *(len(word) for word in words)) for words in names]
            out.append(f"-- {table}")
            for line in range(3):
                if any(len(words) > line for words in names):
                    out.append(
                        (
                            " " * width
                            + " ".join(
                                (words[line] if len(words) > line else "").rjust(w)
                                for words, w in zip(names, widths, strict=True)
                            )
                        ).rstrip()
                    )
            for row, count in sorted(rows.items()):
                out.append(
                    row.ljust(width) + " ".join(str(count[name]).rjust(w) for name, w in zip(COLUMNS, widths, strict=True))
                )
            out.append("")
        out += [f"{name.replace('_', ' ')}: {text}" for name, text in MEANING.items()]
        out.append(f"requests seen whole, answers not, and not recorded: {self.half_missing}")
        total = self.total
        right = total["right_unmarked"] + total["right_in_doubt"] + total["right_marked"]
        out.append(f"right records in doubt: {total['right_in_doubt']} of {right} ({100 * self.doubted:.1f} %)")
        if self.failing:
            out.append("\n-- failing records, by their marks and what is wrong")
            out += [f"{n:7} [{marks}] {what}" for (marks, what), n in self.failing.most_common(most)]
        if self.lines:
            out.append("\n-- failures")
            shown: Counter[int] = Counter()
            for number, text in self.lines:
                shown[number] += 1
                if len(shown) > most:
                    break
                if shown[number] == 1:
                    out.append(f"{replay} --only {number}")
                if shown[number] <= 3:
                    out.append(f"    {text}")
        out += [
            f"{where}: {missing} bytes of requests are missing, {counted} were counted as skipped: a failure"
            for where, missing, counted in self.uncounted
        ]
        out.append(f"\n{self.failures} failures in {total['conversations']} conversations, {total['records']} records")
        return "\n".join(out)
