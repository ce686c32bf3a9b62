import pytest

from convmat._messages import scaled


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0 B"), (1, "1 B"), (999.4, "999 B"), (999.6, "1 kB"), (8.8e12, "8.8 TB"), (2e-7, "200 nB")],
)
def test_scaled(value, words):
    assert scaled(value, "B") == words
