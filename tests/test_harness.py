"""The judges are judged: each violation that they exist for is planted once and must be caught."""

import datetime

import pytest

import bank
from load import Journal, LoadReader, checked, judge_journal, payload
from same_rows import Note, judge, payment


def journal() -> Journal:
    return Journal(sent=[0, 8, 16, 24], acked={0: 100, 8: 101, 16: 103}, unknown={24})


@pytest.mark.parametrize(
    "read",
    [
        [(0, 100), (8, 101), (16, 103)],
        [(0, 100), (8, 101), (16, 103), (24, 104)],
    ],
)
def test_an_unknown_fate_may_be_either(read):
    judge_journal("here", journal(), read)


@pytest.mark.parametrize(
    ("fault", "read"),
    [
        ("lost", [(0, 100), (8, 101)]),
        ("repeated", [(0, 100), (8, 101), (8, 102), (16, 103)]),
        ("out of order", [(0, 100), (16, 103), (8, 101)]),
        ("never sent", [(0, 100), (8, 101), (16, 103), (32, 105)]),
        ("not at the offset", [(0, 100), (8, 102), (16, 103)]),
    ],
)
def test_violations_are_caught(fault, read):
    with pytest.raises(AssertionError, match=fault):
        judge_journal("here", journal(), read)


def test_a_record_without_a_fate_is_caught():
    with pytest.raises(AssertionError, match="without an answer"):
        judge_journal("here", Journal(sent=[0, 8], acked={0: 0}), [(0, 0)])


def test_damage_is_caught():
    value = payload("run", 1, 2, "topic", 3)
    assert checked(value, "topic", 3)["seq"] == 2
    for other in (value.replace(b'"seq": 2', b'"seq": 3'), value.replace(b"xxx", b"xyx")):
        assert other != value
        with pytest.raises(AssertionError, match="damaged"):
            checked(other, "topic", 3)
    with pytest.raises(AssertionError, match="wrong place"):
        checked(value, "topic", 4)


def test_a_changed_record_is_caught():
    reader = LoadReader("unused", "topic", 1)
    first, other = payload("run", 1, 0, "topic", 0), payload("run", 1, 1, "topic", 0)
    reader.take([[first]])
    reader.take([[first, other]])
    with pytest.raises(AssertionError, match="a record changed"):
        reader.take([[other, first]])
    with pytest.raises(AssertionError, match="1 records, once 2"):
        reader.take([[first]])


def test_half_a_transaction_is_caught():
    reader = bank.Reader(server=None, may_fail=False)
    board = [("b", 1, 7, 7, None, None), ("b", 2, -2, None, None, None)]
    top = [("t", 1, 7, None, None, None), ("t", 2, -2, None, None, None)]

    def judge(sums, transactions, *others):
        reader.wrong.clear()
        reader.judge([("s", *sums, transactions), *others])
        return reader.wrong

    assert not judge((5, 5, 5, 5), 1, *board, *top)
    for sums in ((5, 6, 5, 5), (5, 5, 6, 5), (5, 5, 5, 6), (6, 5, 5, 5)):
        assert judge(sums, 2, *board, *top), sums
    assert judge((5, 5, 5, 5), 1, *board, *top), "an older state after a newer one"
    assert judge((5, 5, 5, 5), 2, board[0], ("b", 2, -2, -2, None, None), *top), "a total below zero"
    assert judge((5, 5, 5, 5), 2, ("b", 1, 7, None, None, None), board[1], *top), "no total above zero"
    assert judge((5, 5, 5, 5), 2, board[0], *top), "a teller who is not on the board"
    assert judge((5, 5, 5, 5), 2, *board, top[0]), "a top that lacks a teller"
    assert judge((5, 5, 5, 5), 2, *board, top[0], ("t", 2, -1, None, None, None)), "a top of another moment"


def test_the_judge_of_rows_sees_each_wrong_door():
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)

    def fact(position: int, key: str, merchant: str | None, amount: str | None) -> dict:
        op = "d" if amount is None else "u"
        names = ("evert_position", "evert_op", "payment_id", "merchant_id", "amount", "status", "paid_at")
        return dict(zip(names, (position, op, key, merchant, amount, None, at)))

    # The key of p1 changes in one commit; p2 goes.
    said = [(1, "p1", "m", "1"), (1, "p2", None, "2"), (3, "p1", None, None), (3, "p3", "m", "1"), (4, "p2", None, None)]
    facts = [fact(*of) for of in said]
    there = [("p1", "m", "1"), ("p2", None, "2"), ("p3", "m", "1")]
    one, two, three = (payment(*row, None, at.isoformat()) for row in there)

    def note(position: int, *rows: tuple) -> Note:
        return Note("a door", "payments", position, {row[0]: row for row in rows})

    groups = Note("a door", "by_merchant", 2, {"m": ("m", 1, "1.00"), None: (None, 1, "2.00")})
    judge(facts, [note(0), note(1, one, two), note(2, one, two), groups, note(3, two, three), note(9, three)])
    for wrong in (
        note(4, two, three),  # a tombstone was skipped
        note(3, one, two),  # a position that its rows are not of
        note(3, one, two, three),  # half of a commit
        note(1, one),  # a row is missing
        note(1, one, (*two[:2], "3.00", *two[3:])),  # a value is another
        Note("a door", "by_merchant", 3, {"m": ("m", 2, "2.00"), None: (None, 1, "2.00")}),
    ):
        with pytest.raises(AssertionError, match="1 of 2 notes are wrong"):
            judge(facts, [note(0), wrong])
