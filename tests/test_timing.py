"""Contestants take turns in an order that changes."""

from se_keras.timing import interleaved


def test_every_round_calls_each_once_in_another_order():
    calls = []
    timers = {name: lambda name=name: calls.append(name) or len(calls) for name in "abcd"}
    seconds = interleaved(timers, rounds=20, warmups=1)
    rounds = [tuple(calls[start : start + 4]) for start in range(0, len(calls), 4)]
    assert len(rounds) == 21
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len(set(rounds)) > 5
    assert seconds["a"] == [4 * number + one.index("a") + 1 for number, one in enumerate(rounds)][1:]
