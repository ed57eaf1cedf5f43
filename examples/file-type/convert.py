"""Turns the model that the package magika 0.5.1 ships into the flat file that model.h maps.

usage: convert.py PACKAGE OUT       PACKAGE: the unpacked folder `magika`; OUT: the file to write

The weights keep their values. What does not depend on a request is worked out here: the table of
the first layer, which has one row for each byte, with its bias and activation, and the sums of the
second layer's columns. Matrices are cut into panels of 16 columns, the order in which they are
read. Needs nothing but Python: an ONNX file is a protobuf, and its tensors are found below.
"""

import json
import math
import struct
import sys
from array import array

TOKENS, EMBEDDED = 257, 128
POSITIONS, HIDDEN = 384, 256
LABELS, LABELS_PADDED, LABEL_BYTES = 113, 128, 24
PANEL = 16
MAGIC = b"DLNTYPE1"


def fields(data):
    """The fields of a protobuf message, as pairs of number and value."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, data[at : at + size]
            at += size
        elif wire == 2:
            size = varint()
            yield number, data[at : at + size]
            at += size
        else:
            raise ValueError(f"a field of wire type {wire}")


def every(data, wanted):
    return [value for number, value in fields(data) if number == wanted]


def tensors(model):
    """The 32-bit tensors of an ONNX model, by name: ModelProto.graph.initializer."""
    found = {}
    for tensor in every(every(model, 7)[0], 5):
        name = every(tensor, 8)[0].decode()
        if every(tensor, 2) == [1]:
            raw = every(tensor, 9) or every(tensor, 4)
            found[name.removeprefix("model/")] = array("f", raw[0])
    return found


def gelu(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def panels(matrix, rows, columns):
    """Columns 0 to 15 of every row, then columns 16 to 31 of every row, and so on."""
    out = array("f")
    for left in range(0, columns, PANEL):
        for row in range(rows):
            out.extend(matrix[row * columns + left : row * columns + left + PANEL])
    return out


def padded(matrix, rows, columns, wanted):
    out = array("f")
    for row in range(rows):
        out.extend(matrix[row * columns : (row + 1) * columns])
        out.extend([0.0] * (wanted - columns))
    return out


def convert(package):
    folder = f"{package}/models/standard_v1"
    with open(f"{folder}/model.onnx", "rb") as file:
        of = tensors(file.read())
    with open(f"{folder}/model_config.json", encoding="utf-8") as file:
        config = json.load(file)
    labels = config["train_dataset_info"]["target_labels_info"]["target_labels_space"]
    embedding, bias = of["dense/Tensordot/ReadVariableOp:0"], of["dense/BiasAdd/ReadVariableOp:0"]
    first = of["dense_1/Tensordot/ReadVariableOp:0"]
    width = 4 * EMBEDDED
    table = (gelu(value + bias[at % EMBEDDED]) for at, value in enumerate(embedding))
    sums = (math.fsum(first[at::HIDDEN]) for at in range(HIDDEN))
    parts = [
        (array("f", table), TOKENS * EMBEDDED),
        (of["layer_normalization/Reshape:0"], POSITIONS),
        (of["layer_normalization/Reshape_1:0"], POSITIONS),
        (panels(first, width, HIDDEN), width * HIDDEN),
        (array("f", sums), HIDDEN),
        (of["dense_1/BiasAdd/ReadVariableOp:0"], HIDDEN),
        (panels(of["dense_2/Tensordot/ReadVariableOp:0"], HIDDEN, HIDDEN), HIDDEN * HIDDEN),
        (of["dense_2/BiasAdd/ReadVariableOp:0"], HIDDEN),
        (of["layer_normalization_1/mul_2/ReadVariableOp:0"], HIDDEN),
        (of["layer_normalization_1/add/ReadVariableOp:0"], HIDDEN),
        (padded(of["target_label/MatMul/ReadVariableOp:0"], HIDDEN, LABELS, LABELS_PADDED),
         HIDDEN * LABELS_PADDED),
        (padded(of["target_label/BiasAdd/ReadVariableOp:0"], 1, LABELS, LABELS_PADDED),
         LABELS_PADDED),
    ]
    if len(labels) != LABELS:
        raise ValueError(f"{len(labels)} labels in place of {LABELS}")
    out = bytearray(MAGIC + struct.pack("<I", LABELS)).ljust(64, b"\0")
    for values, count in parts:
        if len(values) != count:
            raise ValueError(f"a tensor has {len(values)} numbers in place of {count}")
        out += values.tobytes()
    for label in labels:
        out += label.encode().ljust(LABEL_BYTES, b"\0")
    return out


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[2], "wb") as file:
        file.write(convert(sys.argv[1]))
