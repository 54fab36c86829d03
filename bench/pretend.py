"""Pretend endpoints that cost next to nothing: `python -m bench.pretend PORT...` answers each request at once.

Every request, whatever it asks, gets the same small OpenAI chat completion. The protocol is read only as far as
that needs (where a request ends), so that one process serves six endpoints faster than any gateway asks them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Good day."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
_BODY = json.dumps(_COMPLETION).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
_LAST_CHUNK = b"0\r\n\r\n"


def request_end(data: bytes) -> int:
    """Where the first request in `data` ends; 0 when it is not all there.

    >>> request_end(b"POST / HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\nhiGET")
    40
    """
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    lines = data[:head].lower()
    if b"\r\ntransfer-encoding: chunked" in lines:
        last = data.find(_LAST_CHUNK, head)
        return last + len(_LAST_CHUNK) if last >= 0 else 0
    _, found, rest = lines.partition(b"\r\ncontent-length:")
    end = head + 4 + (int(rest.partition(b"\r\n")[0]) if found else 0)
    return end if len(data) >= end else 0


class _Endpoint(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while self._data and (end := request_end(self._data)):
            self._data = self._data[end:]
            self._transport.write(ANSWER)


async def serve(ports: Sequence[int]) -> None:
    """Listen on all `ports` of loopback until cancelled."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Endpoint, "127.0.0.1", port, backlog=512) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))
