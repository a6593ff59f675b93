#!/usr/bin/env python3
"""Holds `dair serve` to its own description, which is at /openapi.json.

    openapi.py DAIR MODEL [EXAMPLES [SEED]]

Two ways: every field at the ends of its range and beyond them; and requests that schemathesis makes of the document, EXAMPLES [40] that fit and as
many that do not for each call, SEED [1] deciding which. Whatever comes back must be described there, and nothing may fail or hang.
"""

import http.client
import json
import sys
import tempfile
import urllib.request
from collections import Counter, defaultdict

import jsonschema_rs
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from serving import HI, check, finish, get, post, server

EXAMPLES, SEED = [int(text) for text in sys.argv[3:]] + [40, 1][len(sys.argv) - 3 :]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
# No answer is to be longer, and none takes so long.
TOKENS, PATIENCE_S = 4, 30
# What almost every answer has near its beginning.
STOPS = [*" eatoinsr\n.,TAI1"]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
# A request to each call that has fields, as short as may be.
BASES = {
    "/v1/chat/completions": {"messages": HI, "tools": [TOOL], "max_completion_tokens": 1, "logprobs": True, "stop": STOPS},
    "/v1/completions": {"prompt": "One, two", "max_completion_tokens": 1, "stop": STOPS},
    "/api/chat": {"messages": HI, "tools": [TOOL], "stream": False, "options": {"num_predict": 1, "stop": STOPS}},
    "/api/generate": {"prompt": "Hi", "stream": False, "options": {"num_predict": 1, "stop": STOPS}},
    "/api/show": {},
    "/tokenize": {"content": "Hi"},
    "/detokenize": {"tokens": [1]},
}
# Of each kind of value one; what a field does not describe must be refused.
KINDS = [None, True, 5.5, 7, "x", [], [5.5], {}, {"x": 5.5}]


class Document:
    def __init__(self, document):
        self.document = document

    def resolved(self, schema):
        while "$ref" in schema:
            at = self.document
            for name in schema["$ref"].removeprefix("#/").split("/"):
                at = at[name]
            schema = at
        return schema

    def properties(self, schema):
        schema, found = self.resolved(schema), {}
        for part in schema.get("allOf", []) + [one for one in schema.get("oneOf", []) if self.resolved(one).get("type") == "object"]:
            found.update(self.properties(part))
        return {**found, **schema.get("properties", {})}

    def validator(self, schema):
        return jsonschema_rs.validator_for({**schema, "components": self.document["components"]})

    def request(self, path):
        return self.document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def values(document, schema):
    """Values that a field takes, and values that it does not."""
    whole, validator = document.resolved(schema), document.validator(schema)
    all_of_them = list(KINDS)
    for end, beyond in (("minimum", -1), ("maximum", 1)):
        if end in whole:
            all_of_them += [whole[end], whole[end] + beyond]
    # What an object has within it, and how long a list may be, is not seen by these.
    right = [value for value in all_of_them if not isinstance(value, (str, list, dict)) and validator.is_valid(value)] + whole.get("enum", [])
    return right, [value for value in all_of_them if not validator.is_valid(value)]


def described(address, document):
    """Each field at the ends of its range is taken, beyond them and of another kind it is refused by its name."""
    for path, base in BASES.items():
        schema, seen = document.request(path), []
        places = [((), document.properties(schema))]
        if "options" in document.properties(schema):
            places.append((("options",), document.properties(document.properties(schema)["options"])))
        if "messages" in document.properties(schema):
            places.append((("messages", 0), document.properties({"$ref": "#/components/schemas/Message"})))
        count = 0
        for place, fields in places:
            for name, field in fields.items():
                right, wrong = values(document, field)
                for value, is_right in [(value, True) for value in right] + [(value, False) for value in wrong]:
                    if (name, value) == ("options", None):
                        continue  # Without them an answer has no end.
                    body = json.loads(json.dumps(base))
                    at = body
                    for step in place:
                        at = at[step]
                    at[name] = value
                    status, _, answer = post(address, path, body)
                    is_taken, is_named = status == 200, status == 400 and name in str(answer["error"])
                    # What a request must have may be refused where it is null.
                    is_so = is_taken or value is None and name in base and is_named if is_right else is_named
                    count += 1
                    if not is_so:
                        seen.append((name, value, status, answer))
        check(f"{path}: {count} values of all fields are taken or refused as described", not seen and count, seen[:3])


def short(case, vocab_size, is_tame):
    """Bounds the answer that a generated request asks for. A tame one has what random ones hardly ever have: a model, a text, tokens that there are."""
    body, path = case.body, case.operation.path
    if not isinstance(body, dict) or path not in BASES:
        return
    options, name = body, "max_completion_tokens"
    if "options" in BASES[path]:
        options, name = body.get("options"), "num_predict"
        if options is None:
            options = body["options"] = {}
    if "stop" in BASES[path].get("options", BASES[path]) and isinstance(options, dict):
        most = options.get(name)
        if most is None or isinstance(most, (int, float)) and (most > TOKENS or most < 1 and name == "num_predict"):
            options[name] = TOKENS
    if not is_tame:
        return
    for unlikely in ("model", "name", "json_schema", "grammar", "structured_outputs", "logit_bias", "tool_choice"):
        body.pop(unlikely, None)
    for message in body.get("messages") or []:
        message["content"] = "Hi"
        message.pop("tool_calls", None)
    for name in ("prompt", "tokens"):
        if isinstance(body.get(name), list):
            body[name] = known(body[name], vocab_size)


def known(value, vocab_size):
    """Tokens that the model has, in place of those that are in a prompt."""
    if isinstance(value, list):
        return [known(one, vocab_size) for one in value]
    return value if isinstance(value, str) else int(value) % vocab_size


# What is between the pieces of an answer, and where the document describes them.
STREAMS = {"text/event-stream": ("\n\n", "x-event"), "application/x-ndjson": ("\n", "x-line")}


def pieces(document, operation, response):
    """What is wrong with the pieces of an answer, if something is."""
    kind = response.headers["content-type"][0].split(";")[0]
    between, place = STREAMS[kind]
    described = document.document["paths"][operation.path]["post"]["responses"]["200"]["content"][kind][place]
    *lines, nothing = response.text.split(between)
    if place == "x-event":
        lines = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        has_end = lines.pop() == "[DONE]"
    else:
        has_end = [json.loads(line).get("done") for line in lines] == [False] * (len(lines) - 1) + [True]
    validator = document.validator(described)
    # An error among them is one, too: it would have been a status, had nothing been said before.
    wrong = [line for line in lines if not validator.is_valid(json.loads(line))]
    return wrong or (None if has_end and lines and not nothing else f"no end in {response.text[-300:]!r}")


def generated(address, document):
    """Requests of all kinds, and what comes back."""
    vocab_size = vocabulary(address)
    # By itself it does not wait for the end of a stream.
    config = schemathesis.Config.from_dict({"max-stream-events": 10**6})
    schema = schemathesis.openapi.from_dict(document.document, config=config)
    for found in schema.get_all_operations():
        operation = found.ok()
        statuses, wrong = Counter(), defaultdict(list)
        for mode in [GenerationMode.POSITIVE] + [GenerationMode.NEGATIVE] * bool(list(operation.body)):
            def once(case):
                short(case, vocab_size, mode == GenerationMode.POSITIVE and statuses.total() % 2)
                try:
                    response = case.call(base_url=address, timeout=PATIENCE_S)
                    statuses[response.status_code] += 1
                    is_stream = response.headers["content-type"][0].split(";")[0] in STREAMS
                    case.validate_response(response, checks=CHECKS + [response_schema_conformance] * (not is_stream))
                    if is_stream and (seen := pieces(document, operation, response)):
                        wrong["a piece is not as described"].append(f"{seen} of {case.body}")
                except (FailureGroup, Exception) as error:
                    wrong[type(error).__name__].append(f"{error} of {case.body}")

            limits = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
            seed(SEED)(limits(given(case=operation.as_strategy(generation_mode=mode))(once)))()
        told = ", ".join(f"{count} × {status}" for status, count in sorted(statuses.items()))
        check(f"{operation.label}: {told}", not wrong, {name: (len(all_of_them), all_of_them[0]) for name, all_of_them in wrong.items()})
        if operation.path in BASES:
            check(f"{operation.label}: some are answered, some refused", statuses[200] and statuses[400], statuses)


def vocabulary(address):
    """How many tokens the model has, as it says where it is asked for another one."""
    message = post(address, "/detokenize", {"tokens": [2**32 - 1]})[2]["error"]["message"]
    return int(message.split()[-1]) + 1


def methods(address, document):
    """A call takes the methods that are described, and says so where it is asked by another one."""
    wrong = []
    for path, item in document.document["paths"].items():
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            if method.lower() in item:
                continue
            connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_S)
            connection.request(method, path.replace("{name}", "x"), b"{}")
            answer = connection.getresponse()
            allowed = {name.strip().lower() for name in (answer.headers["Allow"] or "").split(",")} - {"head"}
            if answer.status != 405 or allowed != set(item):
                wrong.append((method, path, answer.status, allowed))
    check("other methods are refused, with those that are allowed", not wrong, wrong)


def main():
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        run()
    finish()


def run():
    with server("--slots", "4", "--max-seq-len", "1024", "--request-timeout-s", str(PATIENCE_S)) as (address, _):
        with urllib.request.urlopen(address + "/openapi.json", timeout=PATIENCE_S) as answer:
            check("the document is JSON", answer.headers["Content-Type"] == "application/json", answer.headers)
            document = Document(json.load(answer))
        methods(address, document)
        described(address, document)
        generated(address, document)
        health = json.loads(get(address, "/health"))
        check("nothing is left over", health["running"] == health["waiting"] == 0, health)


main()
