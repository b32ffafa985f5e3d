"""Coverage-guided fuzzing of everything that reads bytes from outside, see targets.py.

    python tests/attack/fuzz.py fix -runs=200000 -seed=7
    python tests/attack/fuzz.py --list

An input that raises, hangs (5 s) or takes more than 1 GiB of memory ends the run with an error and the
input in a file `crash-…`; the seed is printed. Options with one dash are libFuzzer's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # it has none

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

with atheris.instrument_imports(include=["headcount"]):
    from attack.targets import DICTIONARY, SEEDS, TARGETS


def main() -> None:
    """Fuzz the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print(__doc__, *TARGETS, sep="\n")
        sys.exit(0 if "--list" in sys.argv else 2)
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(SEEDS[name]):
            (corpus / f"seed-{number}").write_bytes(seed)
        words = Path(folder, "words")
        words.write_bytes(b"".join(b'"%s"\n' % word.replace(b'"', b'\\"') for word in DICTIONARY))
        limits = ["-timeout=5", "-rss_limit_mb=1024", "-max_len=2048", "-print_final_stats=1"]
        atheris.Setup([*sys.argv, *limits, f"-dict={words}", str(corpus)], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
