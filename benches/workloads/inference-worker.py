"""A worker for the bench `inference`: the model of the package magika, run by onnxruntime.

usage: inference-worker.py

Each request on standard input and each reply on standard output is its length, as a 32-bit number,
and its bytes. The package's own front is not imported: it brings a command line and takes longer
to start. What it does to a file's bytes is done here, and one thread runs the model, for there are
as many workers as the machine can run.
"""

import importlib.util
import json
import struct
import sys

import numpy
import onnxruntime

BLOCK, PART, PADDING, BYTES_MIN = 4096, 512, 256, 16


def features(content):
    """The bytes that the network sees, as `_extract_features_from_seekable` of the package."""
    if len(content) < 2 * BLOCK + PART:
        start = middle = end = content.strip()
        skipped = max(0, (len(middle) - PART) // 2)
    else:
        start, end = content[:BLOCK].lstrip(), content[-BLOCK:].rstrip()
        trimmed = 2 * BLOCK - len(start) - len(end)
        middle, skipped = content, BLOCK - len(start) + (len(content) - trimmed - PART) // 2
    start, middle, end = start[:PART], middle[skipped : skipped + PART], end[-PART:]
    out = numpy.full((1, 3 * PART), PADDING, dtype=numpy.float32)
    before = PART + (PART - len(middle)) // 2
    out[0, : len(start)] = numpy.frombuffer(start, numpy.uint8)
    out[0, before : before + len(middle)] = numpy.frombuffer(middle, numpy.uint8)
    out[0, 3 * PART - len(end) :] = numpy.frombuffer(end, numpy.uint8)
    return out


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(model, labels, content):
    seen = features(content)
    if seen[0, BYTES_MIN - 1] == PADDING:
        try:
            content.decode("utf-8")
            return "txt 1.0000\n"
        except UnicodeDecodeError:
            return "unknown 1.0000\n"
    scores = model.run(["target_label"], {"bytes": seen})[0][0]
    best = int(scores.argmax())
    return f"{labels[best]} {scores[best]:.4f}\n"


def serve(folder):
    model = session(f"{folder}/model.onnx")
    with open(f"{folder}/model_config.json", encoding="utf-8") as file:
        info = json.load(file)["train_dataset_info"]["target_labels_info"]
    labels = info["target_labels_space"]
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(4):
        content = requests.read(*struct.unpack("=I", head))
        reply = answer(model, labels, content).encode()
        replies.write(struct.pack("=I", len(reply)) + reply)
        replies.flush()


if __name__ == "__main__":
    package = importlib.util.find_spec("magika").submodule_search_locations[0]
    serve(f"{package}/models/standard_v1")
