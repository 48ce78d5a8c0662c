"""Random conversations through the pipeline, and the cases in which pairs were wrong: no record may be wrong in anything
that its marks do not say.

What a test shows when it fails is what `scripts/judge` prints: the conversation, the record, its marks, what is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

import pytest

from collector import abi
from tests.judge import generator, play
from tests.judge.__main__ import main, run_batch
from tests.judge.report import Tally
from tests.judge.truth import CLIENT_BYTES, SERVER_BYTES, Conversation, Event, Message, Plan
from tests.judge.verdict import Account, judge_batch

PACES = ("tight", "ms", "pauses")


def test_random_conversations() -> None:
    total = Tally()
    for seed in (11, 12, 13):
        total.merge(run_batch(seed, seed=seed, kinds=generator.KINDS))
    assert total.total["conversations"] == 600 and total.total["records"] > 3000
    assert not total.failures, total.as_text("scripts/judge --seed (11, 12 or 13)", 12)


def test_nothing_is_doubted_where_nothing_is_missing() -> None:
    """Undamaged conversations: everything is recorded, right, and without doubt."""
    accounts = []
    for number in range(2):
        batch = play.make_batch(21, number, ("whole",))
        batch.limits.clear()
        records, _ = play.play(batch)
        accounts += judge_batch(batch, records)
    assert not [(a.conversation.number, line) for a in accounts for line in a.failures]
    # after a refused Expect nobody knows whether the body comes: RFC 9110 section 10.1.1
    plain = [a for a in accounts if all(ex.kind != "expect" for ex in a.conversation.exchanges)]
    assert not [(a.conversation.number, ex.number) for a in plain for ex in a.missing]
    # what comes behind a CONNECT or upgrade that is never answered may be bytes of a tunnel
    assert not [
        (a.conversation.number, v.record["path"], v.record["marks"])
        for a in plain
        for v in a.verdicts
        if v.doubt and not ("no_response" in v.marks and a.conversation.plan.last in ("upgrade", "connect", "unanswered"))
    ]


@pytest.mark.parametrize("kind", [kind for kind in generator.KINDS if kind != "whole"])
def test_each_kind_of_damage(kind: str) -> None:
    tally = run_batch(0, seed=31, kinds=(kind,))
    assert not tally.failures, tally.as_text(f"scripts/judge --seed 31 --kinds {kind}", 8)


# ---- the cases ---------------------------------------------------------------------------------------------------


def judged(plan: Plan, damage: Callable[[Random, Conversation], bool], *, count: int = 60) -> list[Account]:
    """Conversations of this plan that `damage` could be done to, at all paces."""
    conversations: list[Conversation] = []
    number = 0
    while len(conversations) < count and number < 20 * count:
        rng = Random(f"case/{plan.flow}/{plan.depth}/{number}")
        c = generator.conversation(rng, number, dataclasses.replace(plan, pace=PACES[number % 3]))
        number += 1
        if damage(rng, c):
            conversations.append(c)
    assert len(conversations) == count
    batch = play.Batch(0, 0, {}, conversations, True)
    records, _ = play.play(batch)
    return judge_batch(batch, records)


def assert_right(accounts: Iterable[Account]) -> None:
    accounts = list(accounts)
    failures = [(a.conversation.number, line) for a in accounts for line in a.failures]
    assert not failures, f"{len(failures)} of {sum(len(a.verdicts) for a in accounts)} records: " + "\n".join(
        map(str, failures[:10])
    )


def case(flow: str, depth: int, exchanges: int, **more: object) -> Plan:
    settled: dict[str, object] = {"client": True, "pace": "ms", "damage": (), "simple": True, "heads": 0.0, **more}
    return Plan(flow=flow, depth=depth, exchanges=exchanges, **settled)  # type: ignore[arg-type]


def beginning(c: Conversation, message: Message) -> int:
    """The event that begins with this message: of a simple plan, every message is an event, or begins one."""
    sender = CLIENT_BYTES if message.request else SERVER_BYTES
    return next(n for n, e in enumerate(c.fed) if (e.sender, e.pos) == (sender, message.start))


def joined_at_request(number: int) -> Callable[[Random, Conversation], bool]:
    def damage(rng: Random, c: Conversation) -> bool:
        generator.join_at(c, beginning(c, c.exchanges[number].request), rng.choice(("mid", "none")))
        return True

    return damage


def joined_in_the_middle(rng: Random, c: Conversation) -> bool:
    number = rng.randrange(2, len(c.exchanges) // 2)
    ex = c.exchanges[number]
    message = ex.request if rng.random() < 0.5 or ex.response is None else ex.response
    generator.join_at(c, beginning(c, message), "mid")
    return True


def one_lost(request: bool) -> Callable[[Random, Conversation], bool]:
    def damage(rng: Random, c: Conversation) -> bool:
        ex = c.exchanges[rng.randrange(c.plan.depth + 2, len(c.exchanges) - 4)]
        message = ex.request if request else ex.response
        assert message is not None
        generator.lose(c, {beginning(c, message)})
        return True

    return damage


SIDES = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


@SIDES
def test_a_batch_joined_before_its_last_request(client: bool) -> None:
    accounts = judged(case("batch", 4, 12, client=client), joined_at_request(3))
    assert_right(accounts)
    assert all(len(a.verdicts) >= 8 for a in accounts)  # the batches behind it


@SIDES
@pytest.mark.parametrize("depth", [2, 3, 10])
def test_a_steady_pipeline_joined_in_the_middle(depth: int, client: bool) -> None:
    accounts = judged(case("steady", depth, 40, client=client), joined_in_the_middle)
    assert_right(accounts)
    assert all(a.verdicts for a in accounts)


@SIDES
@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("request_lost", [True, False], ids=["request", "response"])
def test_one_message_lost(depth: int, request_lost: bool, client: bool) -> None:
    accounts = judged(case("steady" if depth > 1 else "closed", depth, 40, client=client), one_lost(request_lost))
    assert_right(accounts)
    # what was over before the loss is in no doubt
    assert all(a.verdicts[0].outcome in ("right_unmarked", "right_marked") for a in accounts)


def hole_before_forged(sides: tuple[int, ...]) -> Callable[[Random, Conversation], bool]:
    """The event before a forged message is lost, in each of these directions, in one exchange where that can be."""

    def damage(rng: Random, c: Conversation) -> bool:
        chosen = set()
        for sender in sides:
            events = [n for n, e in enumerate(c.fed) if e.sender == sender]
            at = next((k for k in range(1, len(events)) if c.fed[events[k]].forged), 0)
            if at:
                chosen.add(events[at - 1])
        generator.lose(c, chosen)
        return len(chosen) == len(sides)

    return damage


def joined_at_forged(rng: Random, c: Conversation) -> bool:
    events = [n for n, e in enumerate(c.fed) if e.forged and n]
    if events:
        generator.join_at(c, rng.choice(events), rng.choice(("mid", "none")))
    return bool(events)


@SIDES
@pytest.mark.parametrize(
    "damage",
    [
        hole_before_forged((CLIENT_BYTES, SERVER_BYTES)),
        hole_before_forged((CLIENT_BYTES,)),
        hole_before_forged((SERVER_BYTES,)),
        joined_at_forged,
    ],
    ids=["holes in both", "hole in request", "hole in response", "joined"],
)
@pytest.mark.parametrize("depth", [1, 3])
def test_forged_pairs_in_bodies(depth: int, damage: Callable[[Random, Conversation], bool], client: bool) -> None:
    plan = case("closed" if depth == 1 else "steady", depth, 12, forged="both", client=client)
    assert_right(judged(plan, damage))


def head_cut(how: str) -> Callable[[Random, Conversation], bool]:
    """Of the last answer's head only a part is seen, or nothing."""

    def damage(rng: Random, c: Conversation) -> bool:
        answer = c.exchanges[-1].response
        assert answer is not None
        at = beginning(c, answer)
        e = c.fed[at]
        kept = 0 if how == "all" else rng.randrange(len("HTTP/1.1 "), len(answer.head))
        if how == "all":
            generator.lose(c, {at})
        elif how == "cut":
            c.fed[at] = dataclasses.replace(e, data=e.data[:kept], flags=abi.F_CUT)
        else:  # two events, of which the second is lost
            c.fed[at] = Event(e.sender, e.pos, e.data[:kept], kept, e.ns)
        return True

    return damage


@SIDES
@pytest.mark.parametrize("how", ["cut", "rest lost", "all"])
@pytest.mark.parametrize("last", ["upgrade", "connect"])
@pytest.mark.parametrize("depth", [1, 2])
def test_another_protocol_whose_beginning_was_not_seen(depth: int, last: str, how: str, client: bool) -> None:
    accounts = judged(case("closed" if depth == 1 else "steady", depth, 4, last=last, client=client), head_cut(how))
    assert_right(accounts)
    for a in accounts:
        final = [v for v in a.verdicts if v.request is a.conversation.exchanges[-1]]
        assert all(v.marks for v in final)


@SIDES
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    "damage", [one_lost(True), one_lost(False), joined_in_the_middle], ids=["request lost", "response lost", "joined"]
)
def test_head_answers_in_doubt(depth: int, damage: Callable[[Random, Conversation], bool], client: bool) -> None:
    plan = case("closed" if depth == 1 else "steady", depth, 30, heads=0.4, client=client)
    assert_right(judged(plan, damage))


# ---- the command -------------------------------------------------------------------------------------------------


def test_one_conversation_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seed", "1", "--only", "205", "--dump"])
    shown = capsys.readouterr().out
    assert "/q205x0z/items" in shown and "-->" in shown
    main(["--seed", "1", "--only", "205", "--alone", "--kinds", "whole"])
    assert "right_unmarked: " in capsys.readouterr().out


def test_figures_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--seed", "1", "--conversations", "1", "--json", "--kinds", "whole"])
    shown = capsys.readouterr().out
    assert '"doubted": ' in shown and '"conversations": 200' in shown
    assert code == ('"failures": 0,' not in shown.partition('"tables"')[0])


def test_figures_are_the_same_for_any_number_of_processes() -> None:
    one, two = Tally(), Tally()
    work = partial(run_batch, seed=41, kinds=generator.KINDS)
    for number in (0, 1):
        one.merge(work(number))
    for number in (1, 0):
        two.merge(work(number))
    assert one.as_json()["tables"] == two.as_json()["tables"]
