"""Handlers whose answers are compared with those of the official Python client. `CASES` has them by name."""

# What is not done elsewhere is often the point of a case.
# ruff: noqa: E401, F601, I001, ICN001, PLC3002, SLOT000, UP

import collections, dataclasses, datetime, decimal, enum, functools, uuid

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def value(name, make):
    CASES[name] = make


class Colour(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


class Word(str):
    def __str__(self):
        return "not what is written"


class Count(int):
    def __repr__(self):
        return "not what is written"


class Ratio(float):
    def __repr__(self):
        return "not what is written"


class Table(dict):
    pass


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Data:
    x: int = 1


class LooksLikeATuple:
    def _asdict(self):
        return {"a": 1}


class Broken:
    def _asdict(self):
        raise LookupError("no dict today")


def circular():
    made = []
    made.append(made)
    return made


def circular_dict():
    made = {"a": {}}
    made["a"]["b"] = made
    return made


def deep(depth):
    made = None
    for _ in range(depth):
        made = [made]
    return made


value("none", lambda: None)
value("true", lambda: True)
value("text", lambda: "hello")
value("empty text", lambda: "")
value("unicode", lambda: {"gr\u00fc\u00df": '\U0001f600 \u2028 \x7f \u0000 \\ " / \n\t\b\f\r \x1f'})
value("integers", lambda: [0, -1, 2**31, 2**63, 2**64, -(2**64), 10**30])
value("integer of 5000 digits", lambda: 10**5000)
value("floats", lambda: [0.1, -0.0, 1e16, 1e-5, 1e22, 1.0, 123456789.123, 5e-324, 1.7976931348623157e308])
value("NaN", lambda: float("nan"))
value("infinities", lambda: [float("inf"), -float("inf"), {"a": float("nan")}])
value("Decimal", lambda: {"a": decimal.Decimal("1.10"), "b": decimal.Decimal("1E+3")})
value("Decimal NaN", lambda: [decimal.Decimal("NaN"), decimal.Decimal("-NaN"), decimal.Decimal("sNaN")])
value("Decimal infinity", lambda: decimal.Decimal("Infinity"))
value("bytes", lambda: b"\x00\xff raw")
value("nested bytes", lambda: {"a": b"text", b"key": 1})
value("nested bytes that are no text", lambda: [b"\xff"])
value("bytearray", lambda: bytearray(b"abc"))
value("tuple", lambda: (1, (2, [3, ()])))
value("namedtuple", lambda: Point(1, [Point(2, 3)]))
value("object with _asdict", lambda: [LooksLikeATuple()])
value("object with a failing _asdict", lambda: [Broken()])
value("dataclass", lambda: Data())
value("nested containers", lambda: {"a": [], "b": {}, "c": [[], {}, ()], "d": [{"e": None}]})
value("subclasses", lambda: [Word("text"), Count(5), Ratio(1.5), Table(a=1), collections.OrderedDict(b=2)])
value("subclass as key", lambda: {Word("text"): 1, Count(5): 2, Ratio(1.5): 3})
value("Enum", lambda: Colour.RED)
value("IntEnum", lambda: {"a": Number.ONE, Number.ONE: "b"})
value("datetime", lambda: {"now": datetime.datetime(2026, 1, 1)})
value("uuid", lambda: uuid.UUID(int=1))
value("keys", lambda: {1: "int", None: "none", True: "true", 1.5: "float", float("nan"): "nan", 2**70: "big"})
value("keys that are written alike", lambda: {1: "a", "1": "b"})
value("tuple as key", lambda: {(1, 2): 3})
value("Decimal as key", lambda: {decimal.Decimal(1): 3})
value("set", lambda: {1})
value("object", lambda: object())
value("nested object", lambda: {"a": [object()]})
value("function", lambda: print)
value("generator", lambda: (n for n in range(3)))
value("coroutine", lambda: coroutine())
value("circular list", circular)
value("circular dict", circular_dict)
value("nested 100 deep", lambda: deep(100))
value("nested 100,000 deep", lambda: deep(100_000))
value("proxy response", lambda: {"statusCode": 200, "headers": {"content-type": "text/plain"}, "body": '{"a": 1}'})
value("1 MB", lambda: ["x" * 1000, {"n": 1.5}] * 1000)


async def coroutine():
    return 1


class CustomText(Exception):
    def __str__(self):
        return "custom text of %s" % (self.args,)


class Outer:
    class Nested(ValueError):
        pass


@case
def plain_exception():
    raise ValueError("something is wrong")


@case
def exception_without_message():
    raise ValueError


@case
def exception_with_several_arguments():
    raise RuntimeError("a", 1, None)


@case
def key_error():
    return {}["missing"]


@case
def nested_class():
    raise Outer.Nested("nested")


@case
def custom_text():
    raise CustomText(1, 2)


@case
def unicode_message():
    raise ValueError('gr\u00fc\u00df \U0001f600 \x00 \n second line "quoted"')


@case
def with_cause():
    try:
        key_error()
    except KeyError as error:
        raise RuntimeError("after") from error


@case
def with_context():
    try:
        key_error()
    except KeyError:
        raise RuntimeError("during")


@case
def from_none():
    try:
        key_error()
    except KeyError:
        raise RuntimeError("alone") from None


@case
def with_notes():
    error = ValueError("noted")
    error.add_note("a note")
    raise error


@case
def in_nested_functions():
    def inner():
        return (lambda: [1 / 0 for _ in range(1)])()

    return inner()


@case
def through_a_decorator():
    @functools.wraps(plain_exception)
    def wrapped():
        return plain_exception()

    return wrapped()


@case
def raised_again():
    try:
        plain_exception()
    except ValueError as error:
        raise error


@case
def in_generated_code():
    exec(compile("raise ValueError('generated')", "<generated>", "exec"))


@case
def exception_group():
    raise ExceptionGroup("several", [ValueError(1), TypeError(2)])


@case
def recursion():
    def again():
        again()

    again()


@case
def syntax_error_at_run_time():
    compile("a b", "<code>", "exec")


@case
def assertion():
    assert 1 == 2, "numbers"


@case
def stop_iteration():
    next(iter(()))


@case
def unicode_error():
    b"\xff".decode("utf-8")


@case
def multi_line_call():
    return sorted(
        [1, "a"],
        key=None,
    )


@case
def message_of_spaces():
    raise ValueError("   ")


def handler(event, context):
    if event == "ends":
        raise SystemExit
    if isinstance(event, dict):
        exec(event["code"])
    return CASES[event]()
