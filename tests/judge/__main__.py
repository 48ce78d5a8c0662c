"""scripts/judge: random conversations through the collector's pipeline, and a judgement on the records.

scripts/judge --conversations 60000 --seed 1            figures, and a command for each failure
scripts/judge --seed 1 --only 4711 --dump               one conversation, with its events, in its batch
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.judge import generator, play
from tests.judge.report import Tally
from tests.judge.truth import Conversation
from tests.judge.verdict import Account, judge_batch


def run_batch(number: int, *, seed: int, kinds: tuple[str, ...]) -> Tally:
    """Make, play and judge one batch."""
    batch = play.make_batch(seed, number, kinds)
    records, counters = play.play(batch)
    tally = Tally()
    tally.add_batch(batch, judge_batch(batch, records), counters)
    return tally


def dump(conversation: Conversation, limits: dict[str, int]) -> str:
    """The truth, and what the collector is given of it."""
    c = conversation
    out = [
        f"{c.plan}",
        f"done to it: {', '.join(c.damage) or 'nothing'}; settings {limits}; OPEN {c.opened}"
        f" {c.open_positions}; CLOSE {c.close}",
        "",
    ]
    for ex in c.exchanges:
        answer = "none" if ex.response is None else f"{ex.response.status} at {ex.response.start}-{ex.response.end}"
        m = ex.request
        out.append(
            f"{ex.number} {ex.kind} {m.method} {m.target[:40]} at {m.start}-{m.end}"
            f"{' (body not sent)' if m.unsent else ''}, {len(ex.interims)} interim, answer {answer}"
        )
    if c.opaque_from:
        out.append(f"another protocol from {c.opaque_from[0]} and {c.opaque_from[1]} on")
    out.append("")
    seen = {(e.sender, e.pos, e.eof): e for e in c.fed}
    for was in c.fed if "reorder" in c.damage else c.events:
        e = seen.get((was.sender, was.pos, was.eof))
        when = "      not seen" if e is None else f"{e.ns / 1e6:14.3f}"
        what = "END" if was.eof else f"{len(e.data) if e else 0}/{was.size} {was.data[:60]!r}..{was.data[-16:]!r}"
        out.append(
            f"{when} {'<--' if was.sender else '-->'} {was.pos:7} flags {e.flags if e else 0}"
            f"{' forged' if was.forged else ''} {what}"
        )
    return "\n".join(out)


def show(account: Account, limits: dict[str, int], *, events: bool) -> str:
    """One conversation and what came of it."""
    out = [dump(account.conversation, limits), ""] if events else []
    for v in account.verdicts:
        r = v.record
        out.append(f"{v.outcome}: {r['method']} {r['path'][:50]} -> {r['status']!r} {r['marks']}")
        out += [f"    {p.part}: {p.what} {p.text}" for p in v.problems]
        out += [f"    excused: {p.part}: {p.what} {p.text}" for p in v.excused]
    out += [f"missing: exchange {ex.number}" for ex in account.missing]
    out += [f"missing, answer not seen: exchange {ex.number}" for ex in account.half_missing]
    out += ["", *account.failures]
    return "\n".join(out)


def main(argv: list[str]) -> int:
    """Entry; 1 when something failed."""
    parser = argparse.ArgumentParser(
        prog="scripts/judge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--conversations", type=int, default=6000, metavar="N", help=f"in whole batches of {play.BATCH}")
    parser.add_argument("--seed", type=int, default=1, metavar="S")
    parser.add_argument(
        "--only", type=int, metavar="K", help="show this conversation; the others of its batch are played too"
    )
    parser.add_argument("--alone", action="store_true", help="with --only: without the others")
    parser.add_argument("--dump", action="store_true", help="with --only: its truth and events")
    parser.add_argument("--kinds", default=",".join(generator.KINDS), metavar="A,B", help=f"of {','.join(generator.KINDS)}")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--most", type=int, default=20, metavar="N", help="failures to show")
    parser.add_argument("--json", action="store_true", help="all figures, for programs")
    options = parser.parse_args(argv)
    kinds = tuple(options.kinds.split(","))
    if not set(kinds) <= set(generator.KINDS):
        parser.error(f"kinds are: {', '.join(generator.KINDS)}")
    if options.only is not None:
        only = frozenset({options.only})
        batch = play.make_batch(options.seed, options.only // play.BATCH, kinds)
        records, _ = play.play(batch, only if options.alone else None)
        if options.alone:
            batch.conversations = [c for c in batch.conversations if c.number in only]
        (account,) = judge_batch(batch, records, only)
        sys.stdout.write(show(account, batch.limits, events=options.dump) + "\n")
        return 1 if account.failures else 0
    total = Tally()
    numbers = range(-(-options.conversations // play.BATCH))
    work = partial(run_batch, seed=options.seed, kinds=kinds)
    if options.jobs > 1:
        with ProcessPoolExecutor(options.jobs) as pool:
            for tally in pool.map(work, numbers, chunksize=4):
                total.merge(tally)
    else:
        for number in numbers:
            total.merge(work(number))
    replay = f"scripts/judge --seed {options.seed}" + (f" --kinds {options.kinds}" if kinds != generator.KINDS else "")
    sys.stdout.write((json.dumps(total.as_json()) if options.json else total.as_text(replay, options.most)) + "\n")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
