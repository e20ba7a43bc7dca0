"""Small images as data URLs, in PNG, by zlib alone."""

from __future__ import annotations

import base64
import struct
import zlib

from onnxsnn.arrays import Array

__all__ = ["data_url"]

_GREY, _COLOUR = 0, 2


def data_url(image: Array) -> str:
    """An image, uint8 [H, W] or [H, W, 3], as a data URL (PNG specification, section 5)."""
    height, width = image.shape[:2]
    kind = _GREY if image.ndim == 2 else _COLOUR
    rows = b"".join(b"\0" + row.tobytes() for row in image)  # each row unfiltered
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
