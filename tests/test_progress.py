import io
import sys

from fsq_repro.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_drawn_for_a_terminal_only(monkeypatch):
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert list(track(iter("abc"), "reading", total=3)) == ["a", "b", "c"]
        assert ("reading" in stream.getvalue() and "3" in stream.getvalue()) == drawn
