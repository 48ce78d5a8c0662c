"""A record that is too large for its topic, with shorter bodies. Shards make none (limit.py); those that were made before
the limit was known, in a queue or a spool, are cut here.
"""

from __future__ import annotations

import bisect
import json

_BODIES = (("responsePayload", "response"), ("requestPayload", "request"))  # the first is cut first
_MARK_BYTES = 32


def cut(record: bytes, most: int) -> bytes | None:
    """The record (JSON) in at most so many bytes: its bodies are prefixes, and marked as docs/records.md says. None when
    it is too large without them, or no record of ours.
    """
    try:
        fields = json.loads(record)
        marks = json.loads(fields["marks"])
        texts = [fields[name] for name, _side in _BODIES]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(marks, list) or not all(isinstance(one, str) for one in (*marks, *texts)):
        return None
    for name, side in _BODIES:
        over = len(_written(fields)) - most + _MARK_BYTES
        if over <= _MARK_BYTES:
            break
        text = fields[name]
        if not text:
            continue
        room = len(_escaped(text)) - over
        kept = text[: max(0, bisect.bisect_right(range(len(text) + 1), room, key=lambda n: len(_escaped(text[:n]))) - 1)]
        if side == "request" and text[:1] in ("{", "["):
            kept = ""  # whoever reads it expects its brackets closed
        if fields.get(f"{name}Encoding") == "base64":
            kept = kept[: len(kept) // 4 * 4]
        fields[name] = kept
        # how many bytes are missing is not known where the body was decoded
        marks = [one for one in marks if not one.startswith(f"{side}_body_cut")] + [f"{side}_body_cut"]
        fields["marks"] = json.dumps(marks, separators=(",", ":"))
    written = _written(fields)
    return written if len(written) <= most else None


def _written(fields: dict[str, str]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _escaped(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
