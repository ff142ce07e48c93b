"""What is known of anything that is read again and again: when it was read, and since when it is silent. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from .model import Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTrack:
    """The dates of readings. The last good one may be from before a restart; then the track is not ``current``."""

    read_at: Instant | None = None
    current: bool = False  # read by this process
    silent_since: Instant | None = None
    misses: int = 0
    error: str | None = None

    @property
    def tried(self) -> bool:
        """Whether it was read, or reading it failed, at least once."""
        return self.current or self.misses > 0

    @property
    def answers(self) -> bool:
        """Whether the last attempt to read it succeeded."""
        return self.current and self.silent_since is None


AnyTrack = TypeVar("AnyTrack", bound=ReadTrack)


def fold_silence(track: AnyTrack, at: Instant, error: str) -> AnyTrack:
    """The track after an attempt to read that failed; silence counts from its first failure."""
    return replace(track, silent_since=track.silent_since or at, misses=track.misses + 1, error=error)
