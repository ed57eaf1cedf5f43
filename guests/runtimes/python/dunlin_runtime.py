"""A Python that functions are loaded into: packages and sources come as layers, at deploy.

A layer is a zip archive (a wheel is one), or the text of one module, which is then named `app`.
Archives may hold archives; the files of all of them are one tree to import from. When a layer holds
`app` (`app.py`, or a package of that name), it is imported: what it imports and computes is frozen
with it. A request is answered by `app.app`, a WSGI application (PEP 3333), or by `app.handle`, a
function of a WSGI environment that gives a reply: text, bytes, or status, headers and body.
"""

import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.resources.abc
import importlib.util
import io
import itertools
import json
import marshal
import os
import random
import sys
import traceback
import zipfile
import zlib

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import (
    Fields,
    IncomingRequest,
    Method_Connect,
    Method_Delete,
    Method_Get,
    Method_Head,
    Method_Options,
    Method_Other,
    Method_Patch,
    Method_Post,
    Method_Put,
    Method_Trace,
    OutgoingBody,
    OutgoingResponse,
    ResponseOutparam,
    Scheme_Https,
)

READ_BYTES_MAX = 64 * 1024
WRITE_BYTES_MAX = 4096
APP = "app"
# Objects that an invocation may hold before the collector looks for cycles among them.
COLLECTED_FROM = 100_000
# Bytes of an empty `bytes`, and of what the heap grows by at least.
BYTES_OVERHEAD = sys.getsizeof(b"") - 1
HEAP_STEP_BYTES = 1 << 20
PROBES_MAX = 32
# Times after which the interpreter has seen enough of its code.
WARM_UPS = 64
# Holes of one size that are looked for.
HOLES_MAX = 100_000
# What most functions import, and need not load for themselves.
COMMON = """
    abc ast base64 bisect calendar codecs collections collections.abc contextlib copy csv dataclasses
    datetime decimal email.message email.parser email.utils encodings.ascii encodings.cp437
    encodings.idna encodings.latin_1 enum fractions functools gzip hashlib heapq hmac html html.parser
    http http.client http.cookies importlib.metadata importlib.resources inspect io ipaddress itertools
    json linecache logging math mimetypes numbers operator pathlib pickle platform posixpath pprint
    queue random re secrets shutil statistics string struct tempfile textwrap threading time tokenize
    traceback types typing unicodedata urllib.parse urllib.request uuid warnings weakref xml.sax.saxutils
    zoneinfo
""".split()
# Parts of the standard library that no function can use here, or that are only for its tests.
LEFT_OUT = {
    "__phello__", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests",
    "tkinter", "turtledemo", "turtle", "venv", "__pycache__",
}  # fmt: skip


class Tree(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Modules and files that are kept in memory, since there is no file system once it is frozen."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.modules: dict[str, tuple[bool, bytes]] = {}
        self.files: dict[str, bytes] = {}

    def add(self, path: str, content: bytes) -> None:
        """Adds a file; a module of Python is compiled, and kept as code."""
        name = path.replace("\\", "/")
        if not name.endswith(".py"):
            self.files[f"{self.root}/{name}"] = zlib.compress(content, 1)
            return
        package = name.endswith("/__init__.py")
        dotted = name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        code = compile(content, f"{self.root}/{name}", "exec", dont_inherit=True)
        self.modules[dotted] = (package, zlib.compress(marshal.dumps(code), 1))

    def find_spec(self, name, path=None, target=None):
        if name not in self.modules:
            return self.namespace(name)
        package = self.modules[name][0]
        inner = name.replace(".", "/") + ("/__init__.py" if package else ".py")
        origin = f"{self.root}/{inner}"
        spec = importlib.util.spec_from_loader(name, self, origin=origin, is_package=package)
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [os.path.dirname(origin)]
        return spec

    def namespace(self, name: str):
        """A package without a file of its own."""
        if not any(module.startswith(name + ".") for module in self.modules):
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [f"{self.root}/{name.replace('.', '/')}"]
        return spec

    def is_package(self, name: str) -> bool:
        return self.modules[name][0]

    def get_source(self, name: str) -> None:
        return None

    def get_code(self, name: str):
        if name not in self.modules:
            raise ImportError(f"no module named {name!r}", name=name)
        return marshal.loads(zlib.decompress(self.modules[name][1]))

    def get_data(self, path: str) -> bytes:
        """`pkgutil.get_data` and `importlib.resources` read data files of packages by it."""
        try:
            return zlib.decompress(self.files[path])
        except KeyError:
            raise FileNotFoundError(path) from None

    def get_resource_reader(self, name: str):
        return Resources(self, f"{self.root}/{name.replace('.', '/')}")


class Resources(importlib.resources.abc.ResourceReader):
    """The data files of one package."""

    def __init__(self, tree: Tree, folder: str) -> None:
        self.tree, self.folder = tree, folder

    def open_resource(self, resource: str) -> io.BytesIO:
        return io.BytesIO(self.tree.get_data(f"{self.folder}/{resource}"))

    def resource_path(self, resource: str) -> str:
        raise FileNotFoundError(resource)

    def is_resource(self, path: str) -> bool:
        return f"{self.folder}/{path}" in self.tree.files

    def contents(self):
        inside = self.folder + "/"
        return sorted({
            name[len(inside):].split("/")[0] for name in self.tree.files if name.startswith(inside)
        })  # fmt: skip


def keep_library() -> Tree:
    """Takes the standard library into memory, while there are files."""
    tree = Tree("/python")
    # Modules that are built in claim to lie elsewhere; one that is not says where the library is.
    root = os.path.dirname(os.path.dirname(json.__file__))
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT)
        for file in sorted(files):
            path = os.path.join(folder, file)
            relative = os.path.relpath(path, root)
            if file.endswith(".py") and file.removesuffix(".py") not in LEFT_OUT:
                with open(path, "rb") as source:
                    try:
                        tree.add(relative, source.read())
                    except (SyntaxError, ValueError):
                        pass
    if not tree.modules:
        raise ImportError(f"no library in {root}")
    return tree


def heap_end() -> int:
    """Where the heap ends: only there do large objects lie one after the other, again and again."""
    probes = [bytes(HEAP_STEP_BYTES)]
    while len(probes) < PROBES_MAX:
        probes.append(bytes(HEAP_STEP_BYTES))
        tail = [id(probe) for probe in probes[-4:]]
        steps = {after - before for before, after in itertools.pairwise(tail)}
        if len(tail) == 4 and len(steps) == 1 and steps.pop() > 0:
            return tail[0]
    return max(id(probe) for probe in probes)


def fill_holes() -> list:
    """Takes all room below the end of the heap, so that what is allocated next lies together.

    Otherwise it would go to holes that are everywhere, each on a page that is shared until then.
    """
    end = heap_end()
    kept = []
    for size in [*range(HEAP_STEP_BYTES // 2, 4096, -4096), *range(4096, 512, -64), *range(512, 0, -16)]:
        for _ in range(HOLES_MAX):
            plug = bytes(max(size - BYTES_OVERHEAD, 2))
            if id(plug) > end:
                break
            kept.append(plug)
    return kept


LIBRARY = keep_library()
LAYERS = Tree("/app")


def take_over() -> None:
    """Finds modules in memory first, also those that came from files so far."""
    found = [finder for finder in sys.meta_path if finder is not importlib.machinery.PathFinder]
    sys.meta_path[:] = [*found, LAYERS, LIBRARY, importlib.machinery.PathFinder]
    for name in set(LIBRARY.modules) & set(sys.modules):
        module = sys.modules[name]
        if getattr(module, "__spec__", None) and module.__spec__.origin not in ("built-in", "frozen"):
            module.__spec__ = LIBRARY.find_spec(name)
            module.__loader__ = LIBRARY


FUNCTION = {"application": None}


def add_archive(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.is_dir():
                continue
            content = archive.read(entry)
            if entry.filename.endswith((".whl", ".zip")):
                add_archive(content)
            elif entry.filename.endswith((".so", ".pyd")):
                raise ImportError(f"{entry.filename} is native code, which a sandbox cannot load")
            else:
                LAYERS.add(entry.filename, content)


def load(layer: bytes) -> None:
    """Adds a layer, imports the packages that it lists, and the function if it holds it."""
    gc.disable()
    if layer[:4] == b"PK\x03\x04":
        add_archive(layer)
    else:
        LAYERS.add(f"{APP}.py", layer)
    preload = LAYERS.files.pop("/app/preload.txt", None)
    for name in zlib.decompress(preload).decode().split() if preload else []:
        importlib.import_module(name)
    if APP in LAYERS.modules and FUNCTION["application"] is None:
        FUNCTION["application"] = application(importlib.import_module(APP))
    gc.freeze()
    gc.enable()


def application(module):
    """What answers requests, as a WSGI application."""
    if hasattr(module, "app"):
        return module.app
    if not hasattr(module, "handle"):
        raise ImportError(f"`{APP}` has neither `app`, a WSGI application, nor `handle`")

    def answer(environ, start_response):
        reply = module.handle(environ)
        status, headers, body = reply if isinstance(reply, tuple) else (200, {}, reply)
        if isinstance(body, str):
            body = body.encode()
            headers = {"content-type": "text/plain; charset=utf-8", **headers}
        start_response(str(status), list(headers.items()))
        return [body]

    return answer


class Loader(exports.Loader):
    def load(self, layer: bytes) -> None:
        try:
            load(layer)
        except BaseException:
            raise Err(traceback.format_exc()) from None


METHODS = {
    Method_Connect: "CONNECT", Method_Delete: "DELETE", Method_Get: "GET", Method_Head: "HEAD",
    Method_Options: "OPTIONS", Method_Patch: "PATCH", Method_Post: "POST", Method_Put: "PUT",
    Method_Trace: "TRACE",
}  # fmt: skip


class Input(io.RawIOBase):
    """The body of a request, read as it comes."""

    def __init__(self, request: IncomingRequest) -> None:
        self.request, self.stream, self.kept, self.ended = request, None, b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self.kept and not self.ended:
            self.fill()
        count = min(len(buffer), len(self.kept))
        buffer[:count] = self.kept[:count]
        self.kept = self.kept[count:]
        return count

    def fill(self) -> None:
        if self.stream is None:
            self.body = self.request.consume()
            self.stream = self.body.stream()
        try:
            while not self.kept:
                self.kept = self.stream.blocking_read(READ_BYTES_MAX)
        except Err as end:
            if not isinstance(end.value, StreamError_Closed):
                raise OSError("the request was cut short") from None
            self.ended = True


def environment(request: IncomingRequest) -> dict:
    method = request.method()
    target = request.path_with_query() or "/"
    path, _, query = target.partition("?")
    scheme = "https" if isinstance(request.scheme(), Scheme_Https) else "http"
    host, _, port = (request.authority() or "localhost").partition(":")
    environ = {
        "REQUEST_METHOD": method.value if isinstance(method, Method_Other) else METHODS[type(method)],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path),
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": port or ("443" if scheme == "https" else "80"),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BufferedReader(Input(request)),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": True,
        "wsgi.run_once": True,
    }
    with request.headers() as headers:
        for name, value in headers.entries():
            key = name.upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
    return environ


def unquote(path: str) -> str:
    """The path's bytes as WSGI has them: as Latin-1 text."""
    parts = path.encode().split(b"%")
    out = [parts[0]]
    for part in parts[1:]:
        try:
            out.append(bytes([int(part[:2], 16)]) + part[2:])
        except ValueError:
            out.append(b"%" + part)
    return b"".join(out).decode("latin-1")


class Response:
    """What `start_response` was told, and the body that is written after it."""

    def __init__(self, out: ResponseOutparam) -> None:
        self.out, self.head, self.body, self.stream = out, None, None, None

    def start(self, status: str, headers: list, exc_info=None):
        if self.body is not None and exc_info:
            raise exc_info[1].with_traceback(exc_info[2])
        self.head = (int(status.split()[0]), headers)
        return self.write

    def write(self, data: bytes) -> None:
        if self.body is None:
            status, headers = self.head or (500, [])
            skipped = ("connection", "transfer-encoding", "keep-alive")
            fields = [
                (name.lower(), value.encode("latin-1"))
                for name, value in headers
                if name.lower() not in skipped
            ]
            response = OutgoingResponse(Fields.from_list(fields))
            response.set_status_code(status)
            self.body = response.body()
            ResponseOutparam.set(self.out, Ok(response))
            self.stream = self.body.write()
        for start in range(0, len(data), WRITE_BYTES_MAX):
            self.stream.blocking_write_and_flush(data[start : start + WRITE_BYTES_MAX])

    def end(self) -> None:
        self.write(b"")
        self.stream.__exit__(None, None, None)
        OutgoingBody.finish(self.body, None)


def answer(request: IncomingRequest, response: Response) -> None:
    run = FUNCTION["application"]
    if run is None:
        response.start("500 No function", [("content-type", "text/plain")])
        response.write(b"no layer of this runtime holds a function\n")
        return
    chunks = run(environment(request), response.start)
    try:
        for chunk in chunks:
            if chunk:
                response.write(chunk)
    finally:
        if hasattr(chunks, "close"):
            chunks.close()


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        # What was drawn when the image was frozen is no secret, and the same for all.
        random.seed()
        response = Response(response_out)
        try:
            answer(request, response)
        except Exception:
            traceback.print_exc()
            if response.body is None:
                response.start("500 Internal Server Error", [("content-type", "text/plain")])
                response.write(b"the function failed; its log says how\n")
        response.end()


def warm_up() -> None:
    """Runs what every load runs, until the interpreter has adapted its code and writes it no more."""
    text = b"import json\nclass A:\n    def f(self): return json.dumps({'a': [1, 2.5, None, 'b']})\nA().f()\n"
    for _ in range(WARM_UPS):
        LAYERS.add("dunlin_warm_up.py", text)
        importlib.import_module("dunlin_warm_up")
        del sys.modules["dunlin_warm_up"], LAYERS.modules["dunlin_warm_up"]


for common in COMMON:
    importlib.import_module(common)
take_over()
warm_up()
gc.collect()
HOLES = fill_holes()
gc.freeze()
# A collection writes to the head of every object that it finds alive, and so to pages that are shared.
# What an invocation leaves goes with its sandbox: only one that makes much of it needs a collection.
gc.set_threshold(COLLECTED_FROM)
