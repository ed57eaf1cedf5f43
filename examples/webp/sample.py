"""Writes sample.ppm: 48 x 48 pixels of soft colour with a disc, for the demo's request."""

import pathlib

SIDE = 48


def pixel(x: int, y: int) -> bytes:
    inside = (x - SIDE // 2) ** 2 + (y - SIDE // 2) ** 2 < (SIDE // 3) ** 2
    return bytes((240, 120, 40)) if inside else bytes((x * 5, y * 5, 128))


pixels = b"".join(pixel(x, y) for y in range(SIDE) for x in range(SIDE))
header = b"P6\n# quality 75\n%d %d\n255\n" % (SIDE, SIDE)
pathlib.Path(__file__).with_name("sample.ppm").write_bytes(header + pixels)
