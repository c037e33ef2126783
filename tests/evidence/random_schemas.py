"""Random JSON Schemas and regular expressions of what outputs can be held to, and
the check of an output that does not depend on OneGrid."""

import datetime
import ipaddress
import json
import re
import string
import uuid

import jsonschema

NAMES = ["id", "name", "größe", "名前", "a b", 'q"t', "x/y", "tab\t", "kind", "value",
         "items", "n", "ok"]
WORDS = ["red", "green", "blue", "ünï", "日本", "🙂", "a\"b", "c\\d", "line\nbreak", ""]
PATTERNS = [
    r"^[A-Z]{2,4}-\d{3}$", r"^(yes|no|maybe)$", r"[a-z]+(\.[a-z]+)?", r"^\w{1,12}$",
    r"^[^a-z]{1,6}$", r"^.{3,9}$", r"^[\"\\/]{1,4}$", r"^\S+( \S+){0,3}$",
    r"^#[0-9a-fA-F]{6}$", r"^[äöü]?[à-ÿ]{2,5}$", r"^(a|ab)(c|bcd)?(d*)$", r"^\d+(,\d+)*$",
]
FORMATS = ["date", "time", "date-time", "duration", "uuid", "ipv4", "hostname", "email",
           "uri"]
DURATION = re.compile(r"P(?=.)(\d+[YMWD])*(T(\d+[HMS])+)?")
HOST = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*"


def is_of_format(name, text):
    """Whether a string is what a format says."""
    try:
        if name == "date":
            datetime.date.fromisoformat(text)
        elif name == "time":
            datetime.time.fromisoformat(text)
        elif name == "date-time":
            datetime.datetime.fromisoformat(text)
        elif name == "uuid":
            return str(uuid.UUID(text)) == text
        elif name == "ipv4":
            ipaddress.IPv4Address(text)
    except ValueError:
        return False
    if name == "duration":
        return bool(DURATION.fullmatch(text))
    if name == "hostname":
        return len(text) < 254 and bool(re.fullmatch(HOST, text))
    if name == "email":
        return bool(re.fullmatch(r"[^@\s\"]+@" + HOST, text))
    if name == "uri":
        return bool(re.fullmatch(r"https?://" + HOST + r"(:\d+)?(/[^\s?#]*)*(\?[^\s#]*)?(#\S*)?",
                                 text))
    return True


def checker():
    """All formats above; those that jsonschema knows are checked twice."""
    formats = jsonschema.FormatChecker()
    for name in FORMATS:
        formats.checks(name)(
            lambda text, name=name: not isinstance(text, str) or is_of_format(name, text))
    return formats


def problem(schema, text):
    """Why a text is not a JSON value of the schema; None if it is."""
    try:
        value = json.loads(text)
        text.encode()
    except ValueError as error:
        return f"not JSON: {error}"
    validator = jsonschema.Draft202012Validator(schema, format_checker=checker())
    for error in validator.iter_errors(value):
        return f"{error.json_path}: {error.message}"[:300]
    return None


class Schemas:
    def __init__(self, random):
        self.random = random
        self.definitions = {}

    def any_of(self, *options):
        return self.random.choice(options)

    def integer(self):
        schema = {"type": "integer"}
        low = self.random.choice([-10**6, -105, -7, 0, 1, 13, 998])
        if self.random.random() < 0.7:
            schema[self.any_of("minimum", "exclusiveMinimum")] = low
        if self.random.random() < 0.7:
            schema[self.any_of("maximum", "exclusiveMaximum")] = low + self.random.choice(
                [2, 9, 57, 1234, 10**7])
        if len(schema) == 3 and self.random.random() < 0.3:
            schema["multipleOf"] = self.any_of(1, 2, 3, 7) if max(
                v for v in schema.values() if isinstance(v, int)) - low < 3000 else 1
            if schema["multipleOf"] > 1 and max(
                    v for k, v in schema.items() if k.endswith("aximum")) - low < 20:
                del schema["multipleOf"]
        return schema

    def number(self):
        schema = {"type": "number"}
        low = self.random.choice([-1000.5, -1, -0.25, 0, 0.001, 3.14159, 1e5, 1e-7])
        if self.random.random() < 0.6:
            schema[self.any_of("minimum", "exclusiveMinimum")] = low
        if self.random.random() < 0.6:
            schema[self.any_of("maximum", "exclusiveMaximum")] = low + self.random.choice(
                [0.5, 1, 12.75, 1e4])
        return schema

    def string(self):
        kind = self.random.random()
        if kind < 0.25:
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if kind < 0.5:
            return {"type": "string", "format": self.random.choice(FORMATS)}
        schema = {"type": "string"}
        if self.random.random() < 0.4:
            schema["minLength"] = self.random.randrange(0, 6)
        if kind < 0.9:
            schema["maxLength"] = self.random.randrange(6, 40)
        return schema

    def constant(self):
        return self.random.choice(
            [*WORDS, 0, -1, 12.5, 1e20, True, False, None, [1, "a"], {"k": None, "ä": [{}]}])

    def enumeration(self):
        if self.random.random() < 0.3:
            return {"const": self.constant()}
        values = [self.constant() for _ in range(self.random.randrange(1, 6))]
        schema = {"enum": values}
        if isinstance(values[0], str) and self.random.random() < 0.5:
            schema["type"] = "string"
        return schema

    def array(self, depth):
        schema = {"type": "array"}
        low = self.random.randrange(0, 3)
        if self.random.random() < 0.25:
            schema["prefixItems"] = [self.schema(depth - 1)
                                     for _ in range(self.random.randrange(1, 4))]
            if self.random.random() < 0.5:
                schema["items"] = self.any_of(False, self.schema(depth - 1))
            low = min(low, len(schema["prefixItems"]))
        else:
            schema["items"] = self.schema(depth - 1)
        if self.random.random() < 0.5:
            schema["minItems"] = low
        if self.random.random() < 0.8:
            schema["maxItems"] = low + self.random.randrange(0, 4)
        if schema.get("maxItems", 9) <= 1 and self.random.random() < 0.5:
            schema["uniqueItems"] = True
        return schema

    def object(self, depth):
        names = self.random.sample(NAMES, self.random.randrange(0, 5))
        schema = {"type": "object",
                  "properties": {name: self.schema(depth - 1) for name in names}}
        schema["required"] = [name for name in names if self.random.random() < 0.6]
        kind = self.random.random()
        if kind < 0.4:
            schema["additionalProperties"] = False
        elif kind < 0.6:
            schema["additionalProperties"] = self.scalar()
        elif kind < 0.7 and not names:
            del schema["properties"]
            schema["patternProperties"] = {self.random.choice(PATTERNS[:4]): self.scalar()}
            schema["additionalProperties"] = False
        if self.random.random() < 0.3:
            schema["description"] = "what it is"
        if self.random.random() < 0.2:
            del schema["type"]
        return schema

    def scalar(self):
        return self.any_of(self.integer, self.number, self.string, self.enumeration,
                           lambda: {"type": "boolean"},
                           lambda: {"type": ["string", "null"], "maxLength": 12},
                           lambda: {"type": ["integer", "boolean"], "minimum": 3})()

    def tagged(self, depth):
        """oneOf of objects that a constant tells apart."""
        options = []
        for number in range(self.random.randrange(2, 4)):
            options.append({
                "type": "object",
                "properties": {"kind": {"const": f"k{number}"}, "v": self.schema(depth - 1)},
                "required": ["kind", "v"], "additionalProperties": False})
        return {"oneOf": options}

    def reference(self, depth):
        """A $ref to a definition, which may be one that leads to itself."""
        name = f"d{len(self.definitions)}"
        self.definitions[name] = {}
        body = self.schema(depth - 1)
        if self.random.random() < 0.5:
            body = {"type": "object", "required": ["v", "next"], "additionalProperties": False,
                    "properties": {"v": body,
                                   "next": {"anyOf": [{"type": "null"},
                                                      {"$ref": f"#/$defs/{name}"}]}}}
        self.definitions[name] = body
        return {"$ref": f"#/$defs/{name}"}

    def schema(self, depth):
        if depth <= 0 or self.random.random() < 0.3:
            return self.scalar()
        return self.any_of(self.object, self.object, self.object, self.array, self.array,
                           self.reference, self.tagged,
                           lambda d: {"anyOf": [self.schema(d - 1), self.schema(d - 1)]},
                           lambda d: {"allOf": [self.schema(d - 1)], "title": "t"})(depth)

    def root(self):
        self.definitions = {}
        schema = self.schema(3)
        if self.random.random() < 0.8 and "properties" not in schema:
            schema = {"type": "object", "properties": {"answer": schema}, "required": ["answer"]}
        if self.definitions:
            schema["$defs"] = self.definitions
        if self.random.random() < 0.3:
            schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        return schema


class Regexes:
    def __init__(self, random):
        self.random = random

    def atom(self, depth):
        kind = self.random.random()
        if depth > 0 and kind < 0.3:
            return self.random.choice(["(", "(?:"]) + self.alternatives(depth - 1) + ")"
        if kind < 0.6:
            return self.random.choice(
                ["[a-f]", "[^a-z\\d]", "[A-Z_]", "[à-ÿ]", "[\\w.-]", "[一-十]", "\\d", "\\w",
                 "\\s", "\\S", "\\D", "\\W", ".", "[\\s\\S]", "[🙂-🙏]"])
        return re.escape(self.random.choice(
            string.ascii_lowercase + string.digits + " .-+*\"\\é日🙂"))

    def sequence(self, depth):
        out = ""
        for _ in range(self.random.randrange(1, 5)):
            out += self.atom(depth) + self.random.choice(
                ["", "", "", "", "?", "?", "{2}", "{1,3}", "{0,2}?"] * 8
                + ["*", "+", "{2,}", "+?", "*?"])
        return out

    def alternatives(self, depth):
        return "|".join(self.sequence(depth) for _ in range(self.random.choice([1, 1, 2, 3])))

    def regex(self):
        return self.random.choice(["", "^"]) + "(" + self.alternatives(1) + ")" + \
            self.random.choice(["", "$"])
