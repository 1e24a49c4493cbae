"""Files inside shards, by their place in the index."""

import hashlib
from pathlib import Path

from ex4d.dataset.layout import Member
from ex4d.errors import DatasetError

AGAIN = "run ex4d prepare again with the same settings: finished shards are kept"


def read_member(tar: Path, member: Member) -> bytes:
    """The bytes of a file inside a shard.

    Raises:
        DatasetError: not readable, or other bytes than the index says.
    """
    try:
        with tar.open("rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise DatasetError(f"a readable shard at {tar}", error.strerror or str(error), AGAIN) from error
    if hashlib.sha256(data).hexdigest() != member.sha256:
        got = f"other bytes at {member.offset} (.{member.suffix})"
        raise DatasetError(f"{tar} as it was written", got, f"delete {tar.name} and {tar.stem}.json; {AGAIN}")
    return data
