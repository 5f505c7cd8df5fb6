"""Random calls of the whole public interface: right ones in strange clothes, and wrong ones.

A call must return what the twin computes, or raise ValueError, TypeError or MemoryError; no argument may change.
Anything else is a finding, printed with the seed that repeats it:

    python tests/fuzz.py --seconds 600
    python tests/fuzz.py --seed 1234 --rounds 1
"""

import argparse
import contextlib
import itertools
import random
import signal
import sys
import time

import fuzz_functions
import fuzz_hostile
import fuzz_layers
import fuzz_process
from fuzz_values import Finding

# Too little for what 2**31 pixels of padding leave at stride 4: so large an output is refused, and takes no time.
MEMORY_LIMIT = 2 * 2**30
SECONDS = 60
ROUNDS = [
    *[fuzz_functions.call_round] * 8,
    fuzz_functions.settings_round,
    fuzz_process.fork_round,
    *fuzz_layers.ROUNDS,
    *fuzz_hostile.ROUNDS,
]
# Of so many rounds one is of those that start a process.
SLOW_EVERY = 300


def one_round(seed):
    """One call, or a few that belong together; raises Finding. Returns 'checked' or 'refused'."""
    rng = random.Random(seed)
    with ended_after(SECONDS, f"seed {seed} did not end"):
        rounds = fuzz_hostile.SLOW_ROUNDS if rng.randrange(SLOW_EVERY) == 0 else ROUNDS
        return rng.choice(rounds)(rng, seed)


@contextlib.contextmanager
def ended_after(seconds, message):
    """A round that hangs is a finding too, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(*_):
        raise Finding(message)

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(first_seed, rounds=None, seconds=None):
    """Rounds until one of the limits; returns how many calls were checked and refused, and the findings."""
    counts, findings, end = {"checked": 0, "refused": 0}, [], time.monotonic() + (seconds or 0)
    for seed in itertools.count(first_seed):
        if (rounds is not None and seed >= first_seed + rounds) or (seconds is not None and time.monotonic() > end):
            return counts, findings
        try:
            counts[one_round(seed)] += 1
        except Finding as finding:
            findings.append(str(finding))
        except Exception as error:
            findings.append(f"seed {seed}: {error!r}, outside of the calls that may be refused")
    return counts, findings


def limit_memory():
    """What should be refused must not fill the machine; Windows has no such limit."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**48))
    parser.add_argument(
        "--unlimited", action="store_true", help="do not limit the process's memory (for AddressSanitizer)"
    )
    options = parser.parse_args()
    if not options.unlimited:
        limit_memory()
    if options.rounds is None and options.seconds is None:
        options.seconds = 600
    counts, findings = run(options.seed, options.rounds, options.seconds)
    print("\n".join(findings))
    print(
        f"from seed {options.seed}: {counts['checked']} results checked, {counts['refused']} calls refused, "
        f"{len(findings)} findings"
    )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
