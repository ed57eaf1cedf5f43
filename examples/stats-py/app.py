"""Describes numbers: POST {"numbers": [1, 2, 3]} and get their mean, median and spread as JSON."""

import json
import statistics

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

READ_BYTES_MAX = 64 * 1024


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        try:
            status, answer = 200, describe(json.loads(read_body(request)))
        except (ValueError, KeyError, TypeError) as error:
            status, answer = 400, {"error": f"{type(error).__name__}: {error}"}
        reply(response_out, status, answer)


def describe(question: dict) -> dict:
    numbers = [float(number) for number in question["numbers"]]
    return {
        "count": len(numbers),
        "mean": statistics.fmean(numbers),
        "median": statistics.median(numbers),
        "stdev": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
    }


def read_body(request: IncomingRequest) -> bytes:
    body = request.consume()
    chunks = []
    with body.stream() as stream:
        while True:
            try:
                chunks.append(stream.blocking_read(READ_BYTES_MAX))
            except Err as end:
                if isinstance(end.value, StreamError_Closed):
                    return b"".join(chunks)
                raise


def reply(response_out: ResponseOutparam, status: int, answer: dict) -> None:
    text = json.dumps(answer).encode() + b"\n"
    response = OutgoingResponse(Fields.from_list([("content-type", b"application/json")]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        # A stream takes at most 4096 bytes at once in its blocking form.
        for start in range(0, len(text), 4096):
            stream.blocking_write_and_flush(text[start : start + 4096])
    OutgoingBody.finish(body, None)
