#!/usr/bin/env python3
"""Licence texts of everything that a build of dair contains: licences.py TRIPLE [--all-features] > FILE

The texts are those that the crates carry, found through `cargo metadata`; the standard library's come with the compiler, musl's
is below. A crate without a text ends it: nothing is given away with a licence that is not there. The same sources give the
same bytes.
"""
import argparse, html, json, pathlib, re, subprocess, sys

MUSL = """\
Copyright © 2005-2020 Rich Felker, et al.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software
is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES
OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE
LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR
IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
TEXTS = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.I)


def packages(triple, all_features):
    """The crates from elsewhere that dair-host is built of, by name."""
    features = "--all-features" if all_features else "--no-default-features"
    command = ["cargo", "metadata", "--format-version", "1", "--locked", features, "--filter-platform", triple]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    known = {package["id"]: package for package in told["packages"]}
    needs = {node["id"]: [d["pkg"] for d in node["deps"] if any(k["kind"] is None for k in d["dep_kinds"])]
             for node in told["resolve"]["nodes"]}
    found, to_do = set(), [id for id, package in known.items() if package["name"] == "dair-host"]
    while to_do:
        id = to_do.pop()
        if id not in found:
            found.add(id)
            to_do += needs[id]
    return sorted((known[id] for id in found if known[id]["source"]), key=lambda p: (p["name"], p["version"]))


def texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and TEXTS.match(file.name)]
    if package["license_file"] and folder / package["license_file"] not in files:
        files.append(folder / package["license_file"])
    if not files:
        sys.exit(f"error: {package['name']} {package['version']} carries no licence text")
    return [file.read_text(errors="replace").replace("\r\n", "\n").strip() for file in files]


def standard_library():
    """What the compiler says of its own library: a page, of which the words are kept."""
    root = pathlib.Path(subprocess.run(["rustc", "--print", "sysroot"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    for name in ("share/doc/rust/COPYRIGHT-library.html", "share/doc/rust/COPYRIGHT.html", "share/doc/rust/html/COPYRIGHT-library.html"):
        if (root / name).is_file():
            page = (root / name).read_text(errors="replace")
            words = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"<title>.*?</title>", "", page, flags=re.S)))
            return re.sub(r"\n\s*\n+", "\n\n", words).strip()
    sys.exit(f"error: the compiler in {root} carries no share/doc/rust/COPYRIGHT-library.html")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triple")
    parser.add_argument("--all-features", action="store_true", help="of dair with all its features; else of what goes without them")
    args = parser.parse_args()
    rule = "=" * 100
    crates = packages(args.triple, args.all_features)
    # The same text is printed once, below all who use it.
    by_text = {}
    for crate in crates:
        for text in texts(crate):
            by_text.setdefault(text, []).append(f"{crate['name']} {crate['version']} ({crate['license'] or 'see below'})")
    print("This program contains the work of others, under the licences below.")
    for text, users in sorted(by_text.items(), key=lambda item: item[1]):
        print(rule, *users, "", text, "", sep="\n")
    if args.triple.endswith("musl"):
        print(rule, "musl, the C library", "", MUSL, sep="\n")
    print(rule, "The standard library of Rust", "", standard_library(), sep="\n")


if __name__ == "__main__":
    main()
