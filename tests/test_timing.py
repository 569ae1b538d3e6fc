"""Calls take turns, and only those that count are kept."""

from se_keras.timing import interleaved, stopwatch


def test_the_order_is_reversed_in_every_second_round():
    called = []
    timers = {name: lambda name=name: called.append(name) or float(len(called)) for name in "abc"}
    seconds = interleaved(timers, rounds=3, warmups=1)
    assert "".join(called) == "abccbaabccba"
    assert seconds == {"a": [6.0, 7.0, 12.0], "b": [5.0, 8.0, 11.0], "c": [4.0, 9.0, 10.0]}


def test_a_stopwatch_times_the_last_call_alone(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    called = []
    assert stopwatch(lambda: called.append(next(clock)), settling=2)() == 2
    assert called == [0, 1, 3]
