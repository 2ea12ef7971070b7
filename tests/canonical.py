"""Canonical JSON and table hashes, written from the specification alone and independent of the engine.

Numbers follow ECMAScript's Number::toString (as RFC 8785 does), applied to the exact decimal digits.
"""

import decimal
import hashlib
import json
import math

INTEGRAL_DIGITS = 21
SMALLEST_PLAIN_EXPONENT = -6
SHORT_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class Number(str):
    """A number by its text, so that no digit is lost."""


def canonical_number(text):
    """The number in its shortest canonical form."""
    sign, digits, exponent = decimal.Decimal(text).as_tuple()
    digits = "".join(map(str, digits)).lstrip("0")
    exponent += len(digits) - len(digits.rstrip("0"))
    digits = digits.rstrip("0")
    if not digits:
        return "0"
    point = len(digits) + exponent
    if len(digits) <= point <= INTEGRAL_DIGITS:
        plain = digits + "0" * (point - len(digits))
    elif 0 < point <= INTEGRAL_DIGITS:
        plain = digits[:point] + "." + digits[point:]
    elif SMALLEST_PLAIN_EXPONENT < point <= 0:
        plain = "0." + "0" * -point + digits
    else:
        fraction = "." + digits[1:] if len(digits) > 1 else ""
        plain = f"{digits[0]}{fraction}e{point - 1:+d}"
    return "-" * sign + plain


def canonical_string(text):
    """The string with nothing escaped but what JSON demands."""
    return '"' + "".join(
        SHORT_ESCAPES.get(character) or (f"\\u{ord(character):04x}" if character < " " else character) for character in text
    ) + '"'


def canonical(value):
    """Canonical JSON of None, booleans, `Number`s, strings, lists and dictionaries."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        return canonical_number(value)
    if isinstance(value, str):
        return canonical_string(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    members = sorted(value.items(), key=lambda member: member[0].encode())
    return "{" + ",".join(f"{canonical_string(name)}:{canonical(member)}" for name, member in members) + "}"


def canonical_json(text):
    """Canonical JSON of any JSON text."""
    return canonical(json.loads(text, parse_int=Number, parse_float=Number))


def of_column(value):
    """A value of a column as the JSON value it is hashed as."""
    if isinstance(value, bytes):
        return {"$blob": value.hex()}
    if isinstance(value, float) and math.isinf(value):
        return {"$real": "Infinity" if value > 0 else "-Infinity"}
    if isinstance(value, (int, float)):
        return Number(repr(value))
    return value


def ascii_lower(name):
    return "".join(chr(ord(letter) + 32) if "A" <= letter <= "Z" else letter for letter in name)


def order(value):
    """Sort key of a value of a primary key: null < numbers < text < blob."""
    if value is None:
        return (0, 0)
    if isinstance(value, (int, float)):
        return (1, decimal.Decimal(value))
    if isinstance(value, str):
        return (2, value.encode())
    return (3, value)


def table_text(name, columns, key, rows):
    """What is hashed of a table: its name, then its rows in the order of the key columns."""
    positions = [columns.index(column) for column in key]
    lines = [ascii_lower(name)]
    for row in sorted(rows, key=lambda row: [order(row[position]) for position in positions]):
        lines.append(canonical({ascii_lower(column): of_column(value) for column, value in zip(columns, row)}))
    return "".join(line + "\n" for line in lines)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def table_hash(name, columns, key, rows):
    """The hash `sync_hash(name)` must give."""
    return sha256(table_text(name, columns, key, rows))


def batch_hash(changes):
    """The hash `sync_hash_batch` must give."""
    return sha256("".join(
        f"{change['version']}:{change['tableName']}:{change['pkValue']}:{change['operation'].lower()}:"
        f"{'null' if change.get('payload') is None else change['payload']}\n"
        for change in changes
    ))
