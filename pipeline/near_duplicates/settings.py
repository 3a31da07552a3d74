"""Settings of the near-duplicate search."""

from dataclasses import dataclass

MOST = 1 << 12
"""The most hash functions: 16 kB of minima."""

LONGEST = 1000
"""The most words in an n-gram."""


@dataclass(frozen=True)
class Settings:
    """``bands`` of ``rows`` minima over n-grams of ``words`` words; ValueError if out of range."""

    bands: int
    rows: int
    words: int

    def __post_init__(self) -> None:
        for name, value in (("bands", self.bands), ("rows", self.rows)):
            if value < 1:
                raise ValueError(f"--near-duplicates-{name} must be at least 1, not {value}")
        if self.bands * self.rows > MOST:
            raise ValueError(
                f"--near-duplicates-bands {self.bands} of --near-duplicates-rows {self.rows} are"
                f" {self.bands * self.rows} hash functions: take at most {MOST}"
            )
        if not 1 <= self.words <= LONGEST:
            raise ValueError(f"--near-duplicates-words is from 1 to {LONGEST}, not {self.words}")

    def chance(self, similarity: float) -> float:
        """The chance that a pair of this Jaccard similarity is found: 1 - (1 - s^rows)^bands."""
        return 1 - (1 - similarity**self.rows) ** self.bands
