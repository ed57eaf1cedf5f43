"""Makes one archive of packages: pack.py REQUIREMENTS OUT.zip, with the pip of this interpreter.

A `preload.txt` beside the requirements goes with them: modules that are imported with the archive.

Native code stays out, since a sandbox cannot load it: most packages that have some go without.
The same files make the same archive, byte for byte.
"""

import pathlib
import subprocess
import sys
import tempfile
import zipfile

LEFT_OUT = {".so", ".pyd", ".pyc", ".pxd", ".pyx", ".c", ".h"}


def main(requirements: str, out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        options = ["--no-deps", "--no-compile", "--target", folder, "-r", requirements]
        subprocess.run([*pip, *options], check=True)
        root = pathlib.Path(folder)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            preload = pathlib.Path(requirements).with_name("preload.txt")
            if preload.exists():
                archive.writestr(zipfile.ZipInfo("preload.txt", (1980, 1, 1, 0, 0, 0)), preload.read_bytes())
            for path in sorted(root.rglob("*")):
                name = path.relative_to(root).as_posix()
                top = name.split("/")[0]
                if path.is_dir() or path.suffix in LEFT_OUT or top == "bin":
                    continue
                if top.endswith(".dist-info"):
                    continue
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, path.read_bytes())


main(*sys.argv[1:])
