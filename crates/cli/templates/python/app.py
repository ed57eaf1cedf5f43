"""Greets whoever is named in the query: GET /{{app}}/{{name}}/?name=Ada"""

import json
import sys
from urllib.parse import parse_qs, urlsplit

from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

# A stream takes at most this much at once in its blocking form.
WRITE_BYTES_MAX = 4096


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        url = urlsplit(request.path_with_query() or "/")
        name = parse_qs(url.query).get("name", ["world"])[0]
        # What goes to stderr is kept for `dunlin logs`.
        print(f"greeting {name}", file=sys.stderr)
        reply(response_out, {"greeting": f"Hello, {name}!", "path": url.path})


def reply(response_out: ResponseOutparam, answer: dict) -> None:
    text = json.dumps(answer).encode() + b"\n"
    response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        for start in range(0, len(text), WRITE_BYTES_MAX):
            stream.blocking_write_and_flush(text[start : start + WRITE_BYTES_MAX])
    OutgoingBody.finish(body, None)
