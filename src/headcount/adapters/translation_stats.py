"""Counters of the translator, and its report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from headcount.decoders.canonical import CanonicalMessage, Outcome
from headcount.decoding import Ignored
from headcount.messages.reports import AdapterReport

log = logging.getLogger(__name__)

#: The most frequent problems of rejected messages in a log line, and all that are counted.
MAX_LOGGED, MAX_PROBLEMS = 5, 100
#: Different reasons of one format; more are counted as `other`.
MAX_REASONS = 30


class TranslationStats:
    """Numbers of messages by format since the start: translated, and ignored and rejected by reason."""

    def __init__(self, formats: Iterable[str]) -> None:
        """Count messages of these formats."""
        self.translated = dict.fromkeys(formats, 0)
        self.ignored: dict[str, Counter[str]] = {name: Counter() for name in self.translated}
        self.rejected: dict[str, Counter[str]] = {name: Counter() for name in self.translated}
        self.running: dict[str, bool] = {}  # decoders in processes of their own, by format
        self.problems: Counter[str] = Counter()  # of rejected messages since the last log line

    def add(self, format_: str, outcome: Outcome) -> None:
        """Count one outcome."""
        if isinstance(outcome, CanonicalMessage):
            self.translated[format_] += 1
        elif isinstance(outcome, Ignored):
            _count(self.ignored[format_], outcome.reason)
        else:
            _count(self.rejected[format_], outcome.label)
            problem = f"{format_}: {outcome.problem or outcome.label}"
            if problem in self.problems or len(self.problems) < MAX_PROBLEMS:
                self.problems[problem] += 1

    def log_problems(self) -> None:
        """Log the most frequent problems since the last call."""
        for problem, count in self.problems.most_common(MAX_LOGGED):
            log.warning("rejected %d messages of the format %s", count, problem)
        self.problems.clear()

    def report(self, worker: str) -> AdapterReport:
        """All numbers; formats without a message are 0."""
        return AdapterReport(worker, self.translated, self.ignored, self.rejected, self.running)


def _count(counter: Counter[str], reason: str) -> None:
    counter[reason if reason in counter or len(counter) < MAX_REASONS else "other"] += 1
