"""Policy files: what they say, and what an error says about one that cannot be used."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.policy import complaints, document, patterns, reading, schema, wire
from collector.policy.document import Place, PolicyError
from collector.policy.model import (
    BUILTIN,
    Direction,
    Match,
    Mode,
    Part,
    Policy,
    Redaction,
    RedactionRule,
    Rule,
    Sampling,
    Scope,
)

ROOT = Path(__file__).resolve().parents[3]

WHOLE = """\
version: 1
name: shop
redaction:
  builtin: secrets
  rules:
  - kind: customer
    path: /customers/{*}/orders
    hosts: ["*.shop.example"]
  - {kind: tenant, header: X-Tenant}
  - {kind: session, query: sid, paths: [/v1/*]}
  - {kind: name, json: /customer/**/name}
  - {kind: id, name: '(?i).*_id'}
  - {kind: iban, value: '[A-Z]{2}[0-9]{20}'}
  - {header: X-Trace, keep: true}
rules:
- name: noise
  exclude: {paths: [/health, /static/*], methods: [GET]}
- include: {hosts: [API.Shop.example.], statuses: [2xx, 404, "500-503", 0], contentTypes: [Text/HTML]}
- exclude:
    processes: [envoy*]
    addresses: [10.0.0.0/8, "::1"]
    directions: [outbound]
sampling: {first: 10, oneIn: 100, headsOnly: true, errorsOneIn: 2, markedOneIn: 3, endpoints: 5}
"""


def read(text: str | bytes) -> Policy:
    return reading.read(text.encode() if isinstance(text, str) else text, "p.yaml")


def read_or_error(data: bytes) -> Policy | PolicyError:
    try:
        return read(data)
    except PolicyError as error:
        return error


def test_all_that_a_file_can_say() -> None:
    policy = read(WHOLE)
    assert policy.name == "shop" and len(policy.digest) == 16
    assert policy.redaction == Redaction(
        Mode.SECRETS,
        (
            RedactionRule("customer", Part.PATH, "/customers/{*}/orders", Scope(("*.shop.example",))),
            RedactionRule("tenant", Part.HEADER, "X-Tenant"),
            RedactionRule("session", Part.QUERY, "sid", Scope((), ("/v1/*",))),
            RedactionRule("name", Part.JSON, "/customer/**/name"),
            RedactionRule("id", Part.NAME, "(?i).*_id"),
            RedactionRule("iban", Part.VALUE, "[A-Z]{2}[0-9]{20}"),
            RedactionRule("", Part.HEADER, "X-Trace", keep=True),
        ),
    )
    assert policy.rules == (
        Rule(False, Match(paths=("/health", "/static/*"), methods=("GET",)), "noise"),
        Rule(
            True,
            Match(
                hosts=("api.shop.example",),
                statuses=((200, 299), (404, 404), (500, 503), (0, 0)),
                content_types=("text/html",),
            ),
        ),
        Rule(
            False,
            Match(processes=("envoy*",), addresses=("10.0.0.0/8", "::1"), directions=(Direction.OUTBOUND,)),
        ),
    )
    assert policy.sampling == Sampling(10, 100, True, 2, 3, 5)


def test_the_least_that_a_file_can_say() -> None:
    assert read("version: 1") == Policy("p", read("version: 1").digest)
    assert read('{"version": 1}').redaction.mode is Mode.OFF  # JSON is YAML


@pytest.mark.parametrize("word", ["off", "'off'", '"off"'])
def test_off_is_a_word(word: str) -> None:
    assert read(f"version: 1\nredaction: {{builtin: {word}}}").redaction.mode is Mode.OFF


@pytest.mark.parametrize(
    ("path", "name"),
    [("/etc/my policy.yaml", "my-policy"), ("/x/secrets.yml", "secrets-file"), ("/x/.yaml", "yaml"), ("/x/é", "policy")],
)
def test_a_file_without_a_name_is_called_as_the_file(path: str, name: str) -> None:
    assert reading.read(b"version: 1", path).name == name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "p.yaml: expected a mapping"),
        ("a", "p.yaml:1:1: expected a mapping"),
        ("version: 2", "p.yaml:1:10: version: expected the version of this format: 1"),
        ("version: true", "p.yaml:1:10: version: expected"),
        ("name: x", "p.yaml:1:1: version is missing: the version of this format: 1"),
        ("version: 1\nrulez: []", "p.yaml:2:1: rulez: unknown key; did you mean rules?"),
        ("version: 1\nz: 1\nb: 2", "p.yaml:2:1: z: unknown key; known are version, name, redaction, rules, sampling"),
        ("version: 1\nname: secrets", "p.yaml:2:7: name: is that of a built-in policy"),
        ("version: 1\nname: 'a b'", "p.yaml:2:7: name: expected at most 63 letters"),
        ("version: 1\nrules: [{exclude: {contenttypes: [a/b]}}]", "unknown key; did you mean contentTypes?"),
        ("version: 1\nrules: [{exclude: {hosts: [*.x]}}]", "p.yaml:2:29: a text that begins with `*` must stand in quotes"),
        ("version: 1\nrules: [{exclude: {hosts: a}}]", "expected a list (a list; each: a host name without port"),
        ("version: 1\nrules: [{exclude: {hosts: [1]}}]", "write it in quotes"),
        ("version: 1\nrules: [{exclude: {hosts: []}}]", "rules[0].exclude.hosts: is empty"),
        ("version: 1\nrules: [{exclude: {hosts: ['']}}]", "rules[0].exclude.hosts[0]: is empty"),
        ("version: 1\nrules: [{exclude: {hosts: ['a:80']}}]", "is expected without a port"),
        ("version: 1\nrules: [{exclude: {hosts: [a/b]}}]", "is no host name"),
        ("version: 1\nrules: [{exclude: {paths: [x]}}]", "did you mean /x?"),
        ("version: 1\nrules: [{exclude: {paths: ['/x?a']}}]", "without query"),
        (
            "version: 1\nrules: [{exclude: {methods: [get]}}]",
            "p.yaml:2:30: rules[0].exclude.methods[0]: is no method; did you",
        ),
        ("version: 1\nrules: [{exclude: {methods: ['G T']}}]", "expected a method, such as GET"),
        ("version: 1\nrules: [{exclude: {statuses: [6000]}}]", "expected a status code (404), a class (2xx)"),
        ("version: 1\nrules: [{exclude: {statuses: [200.0]}}]", "expected a status code (404), a class (2xx)"),
        ("version: 1\nrules: [{exclude: {statuses: [503-500]}}]", "ends before it begins; did you mean 500-503?"),
        ("version: 1\nrules: [{exclude: {contentTypes: [html]}}]", "is expected to be a media type"),
        ("version: 1\nrules: [{exclude: {contentTypes: ['a/b;c=d']}}]", "without parameters"),
        ("version: 1\nrules: [{exclude: {addresses: [10.1.2.3/8]}}]", "did you mean 10.0.0.0/8?"),
        ("version: 1\nrules: [{exclude: {addresses: [10.1.2]}}]", "is expected to be an address or a network"),
        ("version: 1\nrules: [{exclude: {directions: [inbond]}}]", "did you mean inbound?"),
        ("version: 1\nrules: [{exclude: {}}]", "expected at least one of hosts"),
        ("version: 1\nrules: [{}]", "expected a rule with either include or exclude; there is none"),
        ("version: 1\nrules: [{include: {paths: [/]}, exclude: {paths: [/]}}]", "there are exclude and include"),
        ("version: 1\nrules: [" + "{include: {paths: [/]}}," * 65 + "]", "rules: is too long: more than 64 entries"),
        (
            "version: 1\nredaction: {builtin: secret}",
            "p.yaml:2:22: redaction.builtin: expected off, secrets or strict; did you",
        ),
        (
            "version: 1\nredaction: {rules: [{kind: a}]}",
            "exactly one of header, query, path, json, name, value; there is none",
        ),
        ("version: 1\nredaction: {rules: [{kind: a, query: b, header: c}]}", "there are header and query"),
        ("version: 1\nredaction: {rules: [{query: b}]}", "kind is missing"),
        (
            "version: 1\nredaction: {rules: [{kind: '1', query: b}]}",
            "redaction.rules[0].kind: expected what a redacted value",
        ),
        ("version: 1\nredaction: {rules: [{kind: a, value: '('}]}", "redaction.rules[0].value: is no RE2: missing )"),
        ("version: 1\nredaction: {rules: [{kind: a, name: '(?=a)'}]}", "redaction.rules[0].name: is no RE2: invalid perl"),
        ("version: 1\nredaction: {rules: [{kind: a, header: 'X Y'}]}", "expected the name of a header field"),
        ("version: 1\nredaction: {rules: [{kind: a, json: $.a.b}]}", "is expected to begin with /; did you mean /a/b?"),
        ("version: 1\nredaction: {rules: [{kind: a, json: /a~2}]}", "has a `~` that is neither"),
        ("version: 1\nredaction: {rules: [{kind: a, path: /a/b}]}", "has no segment in braces"),
        (
            "version: 1\nredaction: {rules: [{kind: a, path: '/a{*}'}]}",
            "has braces that are not around a whole segment: a{*}",
        ),
        ("version: 1\nredaction: {rules: [{kind: a, path: '/{*}/a*'}]}", "has a `*` that is not a whole segment: a*"),
        ("version: 1\nsampling: {}", "p.yaml:2:11: sampling: first is missing"),
        ("version: 1\nsampling: {first: yes}", "sampling.first: expected a whole number"),
        ("version: 1\nsampling: {first: 1.0}", "sampling.first: expected a whole number"),
        ("version: 1\nsampling: {first: -1}", "sampling.first: expected exchanges of each endpoint"),
        ("version: 1\nsampling: {first: 1, headsOnly: 1}", "sampling.headsOnly: expected true or false"),
        ("x: &a [1]\ny: *a", "p.yaml:2:4: y: `*a` is an alias"),
        ("version: !!python/object:os.system 1", "p.yaml:1:10: version: the tag tag:yaml.org,2002:python/object"),
        ("version: !!map {}", "p.yaml:1:10: version: the tag tag:yaml.org,2002:map is not allowed"),
        ("version: 1\n---\nversion: 1", "p.yaml:2:1: there is a second document"),
        ("version: 1\nversion: 1", "p.yaml:2:1: version: is there twice"),
        ("version: 1\n? [a]\n: b", "p.yaml:2:3: a key is expected to be a text"),
        ("version: 1\nrules:\n\t- exclude: 1", "p.yaml:3:1: is not YAML: indent with blanks, not with tabs"),
        ('version: 1\nname: "a\\n"', "p.yaml:2:7: name: holds a control character"),
        ("version: 1\n\x00", "p.yaml:2: holds a character that YAML does not allow"),
        ("{", "p.yaml:2:1: is not YAML: did not find expected node content"),
        ("[" * 100_000, "p.yaml:1:33: more than 32 levels"),
        ("[" + "1," * 200_000 + "]", "or 100000 values"),
        (b"version: 1\nname: \xff", "p.yaml:2: is not UTF-8 text"),
        (b"#" * ((1 << 20) + 1), "p.yaml: is longer than 1 MiB"),
    ],
)
def test_what_an_error_says(text: str | bytes, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(text)
    assert said in str(caught.value)


def test_the_error_that_stands_first_is_the_one_that_is_said() -> None:
    with pytest.raises(PolicyError) as caught:
        read("version: 1\nrules: [{exclude: {hosts: [1]}}]\nredaction: {builtin: x}\n")
    assert caught.value.place == Place(2, 28) and caught.value.path == ("rules", 0, "exclude", "hosts", 0)


def test_a_file_full_of_errors_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    complaint = complaints._complaint
    monkeypatch.setattr(complaints, "_complaint", lambda *error: looked_at.append(error) or complaint(*error))
    with pytest.raises(PolicyError, match=r"rules: is too long|rules\[0\]: "):
        reading.read(b"version: 1\nrules: [" + b"{a: 1}," * 45_000 + b"]\n", "p.yaml")
    assert 0 < len(looked_at) <= 1000


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_give_a_policy_or_an_error_with_a_place(data: bytes) -> None:
    policy = read_or_error(data)
    if isinstance(policy, PolicyError):
        assert str(policy).startswith("p.yaml:") and "\n" not in str(policy)
        assert policy.place.line or policy.path == ()
    else:
        assert wire.from_plain(json.loads(json.dumps(wire.to_plain(policy)))) == policy


_WORDS = st.sampled_from(
    ["/", "*", "a", "{*}", "GET", "2xx", "10.0.0.0/8", "(", "a/b", "inbound", "off", "1", "true", "é", " ", "~", "**", "\\"]
)
_TEXT = st.lists(_WORDS, max_size=4).map("".join)
_PLAIN: st.SearchStrategy[Any] = st.recursive(
    _TEXT | st.integers(-1, 700) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


def _instances(form: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what the schema says, with something else in between."""
    right: st.SearchStrategy[Any]
    if "properties" in form:
        keys = {name: _instances(inner) for name, inner in form["properties"].items()}
        right = st.fixed_dictionaries({}, optional=keys)
    elif form.get("type") == "array":
        right = st.lists(_instances(form["items"]), max_size=3)
    elif "enum" in form:
        right = st.sampled_from(form["enum"])
    elif form.get("type") == "boolean":
        right = st.booleans()
    elif form.get("type") == "integer" or "const" in form:
        right = st.integers(0, 3)
    else:
        right = st.one_of(_TEXT, st.integers(0, 600))
    return st.one_of(*[right] * 15, _PLAIN)


@given(_instances(schema.SCHEMA))
def test_what_the_schema_says_is_what_is_read(data: object) -> None:
    """A file that an editor with the schema takes for right is right by form: what is wrong with it then is a pattern."""
    valid = jsonschema.Draft202012Validator(schema.SCHEMA).is_valid(data)
    policy = read_or_error(json.dumps(data).encode())
    if isinstance(policy, PolicyError):
        assert policy.place.line == 1
    else:
        assert valid
        assert wire.from_plain(json.loads(json.dumps(wire.to_plain(policy)))) == policy


def test_the_published_schema_is_the_one_in_use() -> None:
    assert (ROOT / "docs" / "policy.schema.json").read_text() == schema.text()
    jsonschema.Draft202012Validator.check_schema(schema.SCHEMA)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(WHOLE)
    assert reading.read_file(str(path)) == read(WHOLE)
    for bad, why in ((tmp_path / "b", "No such file"), (tmp_path, "Is a directory"), (tmp_path / "fifo", "no regular file")):
        if bad.name == "fifo":
            os.mkfifo(bad)
        with pytest.raises(PolicyError, match=why):
            reading.read_file(str(bad))


def test_in_memory_it_is_the_same() -> None:
    for policy in (*BUILTIN.values(), read(WHOLE)):
        assert wire.received(wire.share(policy, b"\0key")) == (policy, b"\0key")


def test_places() -> None:
    found = document.read(b"a:\n  - b: 1\n    c: [x, 'y']\n", "p.yaml")
    assert found.values["a", 0, "c", 1] == Place(3, 12) and found.keys["a", 0, "c"] == Place(3, 5)
    assert document.shown(("a", 0, "c", 1)) == "a[0].c[1]"
    assert found.data == {"a": [{"b": 1, "c": ["x", "y"]}]}


def test_a_bad_pattern_is_not_written_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    assert patterns.regex("(") and capfd.readouterr().err == ""


def test_the_examples_of_the_documentation() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(), re.DOTALL)
    assert len(blocks) == 3 and all(reading.read(block.encode(), "p.yaml").rules for block in blocks)
