"""Writes what the tests expect of every network, and the table of the documentation.

    python tests/hosts/regenerate.py                      # everything: takes about an hour on two cores
    python tests/hosts/regenerate.py users kimm/LCNet035  # what begins so
    python tests/hosts/regenerate.py --without-exports    # the exports stay as they were
    python tests/hosts/regenerate.py --table              # the documentation alone

Networks of packages that are not installed stay as they were.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import pathlib
import sys
import tempfile
import time
from typing import Any

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1])]

FOLDER = pathlib.Path(__file__).parent
EXPECTED = FOLDER / "hosts.json"
PAGE = FOLDER.parents[1] / "docs" / "se-in-your-network.md"
BEGIN, END = "<!-- hosts:begin -->", "<!-- hosts:end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefixes", nargs="*", default=[""], help="what the names of the networks begin with")
    parser.add_argument("--without-exports", action="store_true")
    parser.add_argument("--table", action="store_true", help="write the documentation alone")
    arguments = parser.parse_args()
    if not arguments.table:
        measure(tuple(arguments.prefixes), with_exports=not arguments.without_exports)
    write_table()


def measure(prefixes: tuple[str, ...], *, with_exports: bool) -> None:
    from hosts import HOSTS, package_of

    rows = read_expected()
    for name in HOSTS:
        package = package_of(name)
        if name.startswith(prefixes) and (not package or importlib.util.find_spec(package)):
            start = time.perf_counter()
            rows[name] = measured(name, rows.get(name, {}), with_exports=with_exports)
            print(f"{time.perf_counter() - start:5.0f} s  {name}: {rows[name]}", flush=True)
            write_expected({name: rows[name] for name in HOSTS if name in rows})
            gc.collect()


def measured(name: str, old: dict[str, Any], *, with_exports: bool) -> dict[str, Any]:
    from examination import Subject, examine, examine_exports
    from hosts import HOSTS

    subject = Subject(HOSTS[name])
    with tempfile.TemporaryDirectory() as folder:
        row = examine(subject, pathlib.Path(folder))
        exports = examine_exports(subject, pathlib.Path(folder)) if with_exports else old.get("exports")
    return row | ({"exports": exports} if exports else {})


def read_expected() -> dict[str, dict[str, Any]]:
    return json.loads(EXPECTED.read_text("utf-8")) if EXPECTED.exists() else {}


def write_expected(rows: dict[str, dict[str, Any]]) -> None:
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    EXPECTED.write_text(f"{{\n{lines}\n}}\n", "utf-8")


def write_table() -> None:
    text = PAGE.read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(read_expected())}\n\n{END}{after}", "utf-8")


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| Network | New | Own | Folded | Hoisted | Files | Does not work |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    lines += [f"| {name} | {' | '.join(map(str, figures(row)))} | {faults(row)} |" for name, row in rows.items()]
    return "\n".join(lines)


def figures(row: dict[str, Any]) -> list[int | str]:
    """New blocks, the network's own, folded norms, hoisted squeezes, and verified files, which are "-" if not tried."""
    exports = row.get("exports", {})
    files = sum(value == "verified" for value in exports.values()) if exports else "-"
    counts = [figure(row["places"], "count"), figure(row["own_gates"]), figure(row["deploy"], "folded")]
    return [*counts, figure(row["deploy"], "hoisted"), files]


def figure(value: Any, key: str = "") -> int | str:
    """A count, by itself or in a record; "-" in place of an error."""
    count = value.get(key, 0) if isinstance(value, dict) else value
    return count if isinstance(count, int) else "-"


def faults(row: dict[str, Any]) -> str:
    """What a network does not go through, by the names of the checks; "" if it goes through all."""
    checks = ("insert", "class", "train", "save", "deploy", *(("prune",) if passes(row["insert"]) else ()))
    failed = [check for check in checks if not passes(row[check])]
    failed += [form for form, value in row.get("exports", {}).items() if value != "verified"]
    return ", ".join(f"`{name}`" for name in failed)


def passes(value: Any) -> bool:
    answer = value.get("answers") if isinstance(value, dict) else value
    return answer in ("equal", "kept", "all moved", "no new block")


if __name__ == "__main__":
    main()
