"""Print a list of what an image consists of, in SPDX 2.3 (JSON): Debian's packages and those of the collector's own Python.

Run inside the image, by the Python that the collector has. Needs nothing but the standard library and dpkg-query. Where
SOURCE_DATE_EPOCH is set, the same content gives the same document.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

NAME = "ebpf-api-collector"
_FIELDS = ("Package", "Version", "Architecture", "source:Package", "source:Version", "Homepage", "Maintainer")
NONE = "NOASSERTION"


def identifier(*parts: str) -> str:
    """An SPDX identifier: letters, digits, dots and hyphens."""
    return "SPDXRef-" + "-".join(re.sub(r"[^A-Za-z0-9.-]", "-", part) for part in parts)


def package(kind: str, name: str, version: str, url: str, **more: Any) -> dict[str, Any]:
    """One package, known to scanners by its package URL."""
    return {
        "SPDXID": identifier(kind, name, version),
        "name": name,
        "versionInfo": version,
        "downloadLocation": NONE,
        "filesAnalyzed": False,
        "licenseConcluded": NONE,
        "licenseDeclared": NONE,  # Debian's are in /usr/share/doc/NAME/copyright, for people
        "copyrightText": NONE,
        **more,
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url},
        ],
    }


def debian(status: str, release: str) -> Iterator[dict[str, Any]]:
    """The packages of dpkg-query's lines of `_FIELDS`, separated by tabs."""
    for line in sorted(status.splitlines()):
        name, version, architecture, source, source_version, homepage, maintainer = line.split("\t")
        query = f"arch={architecture}&distro={release}"
        if (source, source_version) != (name, version):  # advisories are about sources
            query += f"&upstream={quote(source, safe='')}%40{quote(source_version, safe='')}"
        more: dict[str, Any] = {"sourceInfo": f"built from {source} {source_version}"}
        if homepage:
            more["homepage"] = homepage
        organisation = re.sub(r"\s*<", " (", maintainer).replace(">", ")")
        yield package(
            "deb",
            name,
            version,
            f"pkg:deb/debian/{quote(name)}@{quote(version, safe='')}?{query}",
            supplier=f"Organization: {organisation}",
            **more,
        )


def python() -> Iterator[dict[str, Any]]:
    """The distributions of this Python's own environment."""
    inside = os.path.join(sys.prefix, "lib")
    found = {
        (re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(), one.version): one
        for one in importlib.metadata.distributions(path=[path for path in sys.path if path.startswith(inside)])
    }
    for (name, version), one in sorted(found.items()):
        summary = one.metadata["Summary"]
        yield package(
            "pypi",
            name,
            version,
            f"pkg:pypi/{name}@{quote(version, safe='')}",
            **({"summary": summary} if summary else {}),
            **({"comment": f"licence, in its own words: {words}"} if (words := _licence(one)) else {}),
        )


def _licence(one: importlib.metadata.Distribution) -> str:
    """What a distribution says of its licence, if it is short."""
    words = one.metadata["License-Expression"] or one.metadata["License"] or ""
    if not words or len(words) > 80:
        kinds = [text for text in one.metadata.get_all("Classifier") or () if text.startswith("License ::")]
        words = "; ".join(text.rpartition(":: ")[2] for text in kinds)
    return words


def document(version: str, packages: list[dict[str, Any]], created: datetime.datetime) -> dict[str, Any]:
    """The whole of it: the image, which contains the packages."""
    image = package("image", NAME, version, f"pkg:oci/{NAME}@{version}", primaryPackagePurpose="CONTAINER")
    digest = hashlib.sha256(json.dumps(packages, sort_keys=True).encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{NAME}-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{NAME}-{version}-{digest}",
        "creationInfo": {"created": f"{created:%Y-%m-%dT%H:%M:%SZ}", "creators": [f"Tool: {NAME}-sbom-{version}"]},
        "packages": [image, *packages],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": image["SPDXID"]},
            *(
                {"spdxElementId": image["SPDXID"], "relationshipType": "CONTAINS", "relatedSpdxElement": one["SPDXID"]}
                for one in packages
            ),
        ],
    }


def main() -> None:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", required=True, help="of the image")
    options = parser.parse_args()
    with open("/etc/os-release", encoding="utf-8") as file:
        release = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    form = "\t".join(f"${{{name}}}" for name in _FIELDS) + "\n"
    status = subprocess.run(["dpkg-query", "-W", "-f", form], check=True, capture_output=True, text=True).stdout
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    now = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    distribution = f"{release['ID']}-{release['VERSION_ID']}".replace('"', "")
    packages = [*debian(status, distribution), *python()]
    json.dump(document(options.version, packages, now), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
