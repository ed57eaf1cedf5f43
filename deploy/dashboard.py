"""Checks a Grafana dashboard: panels are in their places, and every metric that they ask for is one of ours."""

import json
import pathlib
import re
import sys

# What the exporter makes of one histogram.
OF_A_HISTOGRAM = ("_bucket", "_sum", "_count")


def names_in(folder):
    """The names of metrics in the sources: constants of every crate's metrics.rs."""
    names = set()
    for file in pathlib.Path(folder).glob("*/src/**/metrics.rs"):
        names.update(re.findall(r'"(dunlin_[a-z0-9_]+)"', file.read_text()))
    return names


def is_known(metric, names):
    """Whether the node says such a metric."""
    if metric in names:
        return True
    stems = (metric.removesuffix(end) for end in OF_A_HISTOGRAM if metric.endswith(end))
    return any(stem in names and stem.endswith("_seconds") for stem in stems)


def faults(dashboard, names):
    """Everything that is wrong with it, one sentence each."""
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    if len(set(ids)) != len(ids):
        yield "two panels have the same id"
    taken = {}
    for panel in panels:
        place = panel["gridPos"]
        for column in range(place["x"], place["x"] + place["w"]):
            for line in range(place["y"], place["y"] + place["h"]):
                other = taken.setdefault((column, line), panel["title"])
                if other != panel["title"] or column >= 24:
                    yield f"{panel['title']} lies over {other} or beyond the page"
        if panel["type"] != "row" and not panel.get("targets"):
            yield f"{panel['title']} asks for nothing"
    asked = set(re.findall(r"\bdunlin_[a-z0-9_]+", json.dumps(dashboard)))
    for metric in sorted(asked):
        if not is_known(metric, names):
            yield f"no crate has a metric {metric}"


def main(file, crates):
    names = names_in(crates)
    if not names:
        sys.exit(f"no metrics in {crates}")
    dashboard = json.loads(pathlib.Path(file).read_text())
    found = sorted(set(faults(dashboard, names)))
    for fault in found:
        print(f"{file}: {fault}", file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
