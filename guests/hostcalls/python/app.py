"""Does what a script says, by the calls of `dunlin:platform`. See ../README.md."""

from componentize_py_types import Err, Ok
from dispatch import CALLS
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.wasi_http_types import (
    Fields,
    IncomingRequest,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
)

READ_BYTES_MAX = 64 * 1024
BUFFER_BYTES_MAX = 1 << 20
LINES_MAX = 256
INVALID = -3


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        reply(response_out, run_script(read_body(request).decode()))


def run_script(script: str) -> str:
    results: list[int] = []
    answers = []
    for line in [line for line in script.split("\n") if line][:LINES_MAX]:
        result, answer = run(line, results)
        results.append(result)
        answers.append(answer + "\n")
    return "".join(answers)


def run(line: str, results: list[int]) -> tuple[int, str]:
    name, *words = line.split(" ")
    try:
        call, letters = CALLS[name]
        if len(words) != len(letters):
            return INVALID, "bad"
        arguments = [TAKE[letter](word, results) for letter, word in zip(letters, words)]
    except (KeyError, ValueError, IndexError, OverflowError):
        return INVALID, "bad"
    try:
        answer = call(*arguments)
    except Err as error:
        # Errors are numbered from 1 in the table, from 0 in the interface.
        code = -1 - error.value.value
        return code, f"err {code}"
    if isinstance(answer, int):
        return answer, f"ok {answer}"
    return len(answer), f"ok {len(answer)} {bytes(answer).hex() or '-'}"


def number(word: str, results: list[int]) -> int:
    if not word.startswith("$"):
        return unsigned(word)
    place, _, more = word[1:].partition("+")
    return results[unsigned(place)] + unsigned(more or "0")


def unsigned(word: str) -> int:
    if not word.isdecimal():
        raise ValueError(word)
    return int(word)


def data(word: str, results: list[int]) -> bytes:
    if word == "-":
        return b""
    if word.startswith("@"):
        return b"".join(results[int(n)].to_bytes(4, "little") for n in word[1:].split(","))
    return bytes.fromhex(word)


def text(word: str, results: list[int]) -> str:
    return data(word, results).decode()


def buffer(word: str, results: list[int]) -> int:
    length = number(word, results)
    if length > BUFFER_BYTES_MAX:
        raise ValueError(word)
    return length


TAKE = {"u": number, "U": number, "t": text, "b": data, "o": buffer}


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


def reply(response_out: ResponseOutparam, answers: str) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    text = answers.encode()
    with body.write() as stream:
        # A stream takes at most 4096 bytes at once in its blocking form.
        for start in range(0, len(text), 4096):
            stream.blocking_write_and_flush(text[start : start + 4096])
    OutgoingBody.finish(body, None)
