"""Fetches xgrammar's source distribution into a file and checks its SHA-256.

usage: fetch.py FILE

pip itself downloads a source distribution only together with all that is needed
to build its Python package, PyTorch included. So this asks pip where it looks
for packages, and reads the file's address from the index's page.
"""

import hashlib
import html.parser
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request

PROJECT = "xgrammar"
FILE = "xgrammar-0.2.9.tar.gz"
SHA256 = "87b466bca2475e29bb0323abc62c6c33cbcbcff47e5fb800a3e2099ac9620b90"
SECONDS = 60
TRIES = 3


def indexes():
    """The package indexes that pip uses, the main one first."""
    from pip._internal.models.index import PyPI

    def setting(variable, name):
        if variable in os.environ:
            return os.environ[variable].split()
        asked = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return asked.stdout.split()

    return [*(setting("PIP_INDEX_URL", "index-url") or [PyPI.simple_url]),
            *setting("PIP_EXTRA_INDEX_URL", "extra-index-url")]


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs).get("href") or "")


def read(url):
    for left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                return answer.read()
        except OSError:
            if left == 0:
                raise
            time.sleep(2)


def fetch(index):
    """The file's bytes; None if the index has no such file."""
    page = f"{index.rstrip('/')}/{PROJECT}/"
    links = Links()
    links.feed(read(page).decode())
    for link in links.found:
        url = urllib.parse.urljoin(page, link)
        if urllib.parse.urlparse(url).path.rsplit("/", 1)[-1] == FILE:
            return read(url)
    return None


def main():
    problems = []
    for index in indexes():
        try:
            data = fetch(index)
        except (OSError, ValueError) as error:
            problems.append(str(error))
            continue
        if data is None:
            problems.append("no such file in an index")
            continue
        found = hashlib.sha256(data).hexdigest()
        if found != SHA256:
            problems.append(f"SHA-256 {found}, expected {SHA256}")
            continue
        with open(sys.argv[1], "wb") as out:
            out.write(data)
        return 0
    print(f"xgrammar: {FILE} cannot be had: {'; '.join(problems)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
