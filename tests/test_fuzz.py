"""A short run of the fuzzer, always the same; `make fuzz` runs it for minutes from a new seed."""

import fuzz


def test_fuzz():
    counts, findings = fuzz.run(first_seed=20152, rounds=2500)
    assert findings == []
    assert min(counts.values()) > 500
