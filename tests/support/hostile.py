"""Text that means no good: characters that can't be printed, and ids that lead astray."""

from __future__ import annotations

#: Line ends and control characters.
CHARACTERS = [
    *("\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x85", "\x9b"),
    *("\u2028", "\u2029"),
]
#: What nobody sees, or what turns a line round: names may have it, and it is shown escaped.
FORMATS = ["\u202e", "\u2066", "\u200b", "\ufeff", "\xad", "\U000e0041"]
#: Names as people write them: with a wide blank, one that breaks no line, and joined emoji.
HARMLESS = ["张\u3000三", "a\xa0b", "\U0001f468\u200d\U0001f469"]
FORGED = "x\n2026-01-01 00:00:00,000 WARNING all is well\x1b[2J\u202e"

#: Ids that Celery takes as they are.
IDS = [
    *("a\nb", "\n", " ", " a ", "a b", "\0", "\x1b[2J", "a\r\nb"),
    *("a/b", "/", "//", "/a//b/", "a/", "a%2Fb", "%", "%0A", "a+b", "?", "a?b=c&d", "#"),
    *(".", "..", "../..", "./a", "a/../b", "%2E%2E", ";", "config"),
    *("-", "--help", "*", "[a]", "\\"),
    *("任务", "\u202eabc", "\u2028", "\U0001f600", "constructor", "__proto__", FORGED),
    *("x" * 20_000, "任" * 5_000),
]
