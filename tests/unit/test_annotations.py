"""An annotation means the same whatever it is wrapped in, and no constraint in it is overlooked."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar, Union

import annotated_types
import msgspec
import pydantic
import pytest
import typing_extensions
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PositiveInt

from relance.annotations import expanded, without_none, words_of
from relance.decoding import Decoding, decoder_for, handler_shape
from relance.errors import DecodeError, SettingsError

T = TypeVar("T")
K = TypeVar("K")


class Row(msgspec.Struct):
    a: int


class Model(BaseModel):
    a: int


Rows = NewType("Rows", list[Row])
Number = NewType("Number", int)
Raw = NewType("Raw", bytes)
MaybeRow = typing_extensions.TypeAliasType("MaybeRow", Row | None)
Several = typing_extensions.TypeAliasType("Several", list[T], type_params=(T,))
Maybe = typing_extensions.TypeAliasType("Maybe", Optional[T], type_params=(T,))  # noqa: UP045  a TypeVar's
Turned = typing_extensions.TypeAliasType("Turned", dict[K, T], type_params=(T, K))
Itself = typing_extensions.TypeAliasType("Itself", T, type_params=(T,))
Fixed = typing_extensions.TypeAliasType("Fixed", int, type_params=(T,))
Twice = typing_extensions.TypeAliasType("Twice", Several[Several[T]], type_params=(T,))
OptionalOf = Optional[T]  # noqa: UP045  the old kind of alias


def read(decoding: Decoding, raw: bytes | None) -> Any:
    try:
        return decoding.decode(raw)
    except decoding.errors as error:
        raise decoding.as_error(error, raw) from error


@pytest.mark.parametrize(
    ("annotation", "meant"),
    [
        (Number, int),
        (list[Number], list[int]),
        (dict[str, Number | None], dict[str, int | None]),
        (Several[int], list[int]),
        (Several[Number], list[int]),
        (list[Several[int]], list[list[int]]),
        (Turned[int, str], dict[str, int]),
        (Itself[Number], int),
        (Fixed[str], int),
        (Twice[str], list[list[str]]),
        (Annotated[Number, "doc"], Annotated[int, "doc"]),
        (tuple[Number, ...], tuple[int, ...]),
        (Literal["a"], Literal["a"]),
        (list[int], list[int]),
        (Sequence[Number], Sequence[int]),
    ],
    ids=str,
)
def test_names_are_seen_through_at_every_depth(annotation: Any, meant: Any) -> None:
    assert expanded(annotation) == meant


def test_a_name_that_stands_for_itself_comes_to_an_end_and_is_refused_by_its_name() -> None:
    tree = typing_extensions.TypeAliasType("tree", dict[str, "tree"])  # type: ignore[misc]
    with pytest.raises(SettingsError, match="cannot decode JSON into"):
        decoder_for(tree)


@pytest.mark.parametrize(
    ("annotation", "rest", "allowed"),
    [
        (Row, Row, False),
        (MaybeRow, Row, True),
        (Maybe[Row], Row, True),
        (OptionalOf[Row], Row, True),
        (NewType("N", Optional[Row]), Row, True),  # type: ignore[valid-newtype]  # users write it  # noqa: UP045
        (Annotated[Row | None, "doc"], Annotated[Row, "doc"], True),
        (Annotated[Annotated[Row | None, 1], 2], Annotated[Row, 1, 2], True),
        (Union[MaybeRow, int], Row | int, True),  # noqa: UP007  an alias has no |
        (Literal["a", None], Literal["a"], True),
        (Literal["a", None] | int, Literal["a"] | int, True),
        (Literal[None], typing.Never, True),
        (None, typing.Never, True),
        (Any, Any, True),
        (Annotated[Any, "doc"], Annotated[Any, "doc"], True),
        (Literal["a"], Literal["a"], False),
        (list[Row | None], list[Row | None], False),
    ],
    ids=str,
)
def test_none_is_found_behind_names_and_annotated(annotation: Any, rest: Any, allowed: bool) -> None:
    assert without_none(annotation) == (rest, allowed)


ROW = b'{"a":1}'


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[Row | None, Field(description="x")],
        Annotated[Row | None, "doc"],
        Annotated[MaybeRow, "doc"],
        Annotated[Annotated[Row, "one"] | None, "two"],
        MaybeRow,
        Maybe[Row],
        Itself[Maybe[Annotated[Row, "doc"]]],
        OptionalOf[Row],
        NewType("N", MaybeRow),  # type: ignore[valid-newtype]  # users write it
    ],
    ids=str,
)
def test_a_tombstone_is_none_and_json_null_refused_whatever_the_none_is_wrapped_in(annotation: Any) -> None:
    decoding = decoder_for(annotation)
    assert read(decoding, None) is None
    assert read(decoding, ROW) == Row(1)
    with pytest.raises(DecodeError, match="got `null`"):
        read(decoding, b"null")


@pytest.mark.parametrize(
    ("annotation", "raw", "value"),
    [
        (Annotated[bytes, "doc"], b"YWJj", b"YWJj"),
        (Annotated[bytes, "doc"], b'"YWJj"', b'"YWJj"'),
        (Annotated[Raw, "doc"], b"\xff", b"\xff"),
        (Raw | None, b"\xff", b"\xff"),
        (Annotated[bytes | None, "doc"], b"\xff", b"\xff"),
        (Itself[bytes], b"\xff", b"\xff"),
        (Annotated[bytes, msgspec.Meta(max_length=2)], b"\xff", b"\xff"),
        (Annotated[bytes, msgspec.Meta(description="x")], b"\xff", b"\xff"),
        (Annotated[bytes, annotated_types.MaxLen(2)], b"\xff", b"\xff"),
        (Annotated[str, "doc"], b"x", "x"),
        (Annotated[str, "doc"], b'"x"', '"x"'),
        (Annotated[str, Field(min_length=1)], "é".encode(), "é"),
        (Annotated[dict, "doc"], ROW, {"a": 1}),
        (list[Number], b"[1]", [1]),
        (Several[Row], b"[" + ROW + b"]", [Row(1)]),
        (Literal["a", None], b'"a"', "a"),
        (Annotated[Literal["a"], "doc"], b'"a"', "a"),
        (Annotated[Any, "doc"], b"null", None),
        (NewType("M", Model), ROW, Model(a=1)),
        (Several[Model], b"[" + ROW + b"]", [Model(a=1)]),
    ],
    ids=str,
)
def test_a_wrapped_annotation_reads_what_the_bare_one_reads(annotation: Any, raw: bytes, value: Any) -> None:
    assert read(decoder_for(annotation), raw) == value


@pytest.mark.parametrize("annotation", [None, type(None), Literal[None]], ids=str)
def test_an_annotation_of_none_takes_tombstones_only(annotation: Any) -> None:
    decoding = decoder_for(annotation)
    assert read(decoding, None) is None
    for raw in (b"null", b"{}"):
        with pytest.raises(DecodeError, match="allows only null"):
            read(decoding, raw)


def test_literals_none_is_the_tombstone_and_not_jsons_null() -> None:
    decoding = decoder_for(Literal["a", None])
    assert read(decoding, None) is None
    with pytest.raises(DecodeError, match="got `null`"):
        read(decoding, b"null")


def test_the_hot_path_still_calls_c_where_there_is_nothing_to_check() -> None:
    for annotation in (Annotated[bytes, "d"], Raw, Annotated[str, "d"], Several[Row], Annotated[Row, "d"]):
        assert not isinstance(decoder_for(annotation).decode, type(read)), annotation


# -- batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "element"),
    [
        (Rows, Row),
        (list[Number], Number),
        (Annotated[list[Row], "doc"], Row),
        (Several[Row], Row),
        (Itself[Rows], Row),
        (Sequence[MaybeRow], MaybeRow),
        (typing.Collection[Raw], Raw),  # type: ignore[name-defined]  # deprecated, and still written
    ],
    ids=str,
)
def test_a_batch_may_have_a_name(annotation: Any, element: Any) -> None:
    def handler(values: Any) -> None: ...

    handler.__annotations__["values"] = annotation
    shape = handler_shape(handler, batch=True)
    assert expanded(shape.annotation) == expanded(element)
    decoder_for(shape.annotation)


@pytest.mark.parametrize("word", [annotated_types.MinLen(3), Field(min_length=3), msgspec.Meta(min_length=3)])
def test_a_constraint_on_a_batch_is_refused_because_nobody_would_check_it(word: Any) -> None:
    def handler(values: Any) -> None: ...

    handler.__annotations__["values"] = Annotated[list[Row], word]
    with pytest.raises(SettingsError, match="say it of the values in it"):
        handler_shape(handler, batch=True)


# -- constraints ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Data:
    a: PositiveInt
    inner: DataInside | None = None


@dataclasses.dataclass
class DataInside:
    b: Annotated[int, annotated_types.Gt(0)] = 1


@dataclasses.dataclass
class DataField:
    a: int = Field(gt=0)


@dataclasses.dataclass
class DataOfModels:
    rows: list[Model]


class Dict(typing_extensions.TypedDict):
    a: Annotated[int, annotated_types.Gt(0)]


class Named(NamedTuple):
    a: PositiveInt


class Box(BaseModel, Generic[T]):
    a: T


def not_empty(value: Any) -> Any:
    if not value:
        raise ValueError("empty")
    return value


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Data, ROW, b'{"a":-1}'),
        (Data, b'{"a":1,"inner":{"b":2}}', b'{"a":1,"inner":{"b":-2}}'),
        (list[Data], b'[{"a":1}]', b'[{"a":-1}]'),
        (DataField, ROW, b'{"a":-1}'),
        (DataField, ROW, b"{}"),
        (DataOfModels, b'{"rows":[{"a":1}]}', b'{"rows":[{}]}'),
        (Dict, ROW, b'{"a":-1}'),
        (Named, b"[1]", b"[-1]"),
        (Box[PositiveInt], ROW, b'{"a":-1}'),
        (Annotated[dict, AfterValidator(not_empty)], ROW, b"{}"),
        (PositiveInt, b"1", b"-1"),
        (PositiveInt | None, b"1", b"-1"),
        (Annotated[int | None, annotated_types.Gt(0)], b"1", b"-1"),
        (list[PositiveInt], b"[1]", b"[-1]"),
        (dict[str, PositiveInt], ROW, b'{"a":-1}'),
        (Several[PositiveInt], b"[1]", b"[-1]"),
        (NewType("Positive", PositiveInt), b"1", b"-1"),
        (Annotated[str, Field(min_length=2)], b"xy", b"x"),
        (Annotated[bytes, annotated_types.MaxLen(2)], b"xy", b"xyz"),
        (Annotated[bytes, msgspec.Meta(max_length=2)], b"xy", b"xyz"),
        (Annotated[str, msgspec.Meta(pattern="^x")], b"xy", b"y"),
        (Annotated[int, msgspec.Meta(gt=0)], b"1", b"-1"),
        (Annotated[int, annotated_types.Predicate(lambda v: v > 0)], b"1", b"-1"),
    ],
    ids=str,
)
def test_a_constraint_is_kept_whosever_words_it_is_in(annotation: Any, good: bytes, bad: bytes) -> None:
    read(decoder_for(annotation), good)
    with pytest.raises(DecodeError):
        read(decoder_for(annotation), bad)


def test_the_handler_gets_the_class_that_it_names() -> None:
    assert read(decoder_for(Data), b'{"a":1,"inner":{"b":2}}') == Data(1, DataInside(2))
    assert read(decoder_for(Dict), ROW) == {"a": 1}


class StructWord(msgspec.Struct):
    a: Annotated[int, Field(gt=0)]


class StructDefault(msgspec.Struct):
    a: int = Field(gt=0)


class StructInside(msgspec.Struct):
    rows: list[StructWord]


@pydantic.dataclasses.dataclass
class Checked:
    a: PositiveInt


class StructOfChecked(msgspec.Struct):
    inner: Checked


@dataclasses.dataclass
class DataOfStructs:
    a: PositiveInt
    row: Row


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (StructWord, "at StructWord.a"),
        (StructDefault, "at StructDefault.a"),
        (StructInside, "at StructWord.a"),
        (StructInside | None, "at StructWord.a"),
        (StructOfChecked, "Checked at StructOfChecked.inner"),
        (DataOfStructs, "at DataOfStructs.a"),
        (Row | Model, "Model"),
        (Annotated[Row, AfterValidator(not_empty)], "AfterValidator"),
    ],
    ids=str,
)
def test_a_struct_with_words_that_it_does_not_know_is_refused_and_told_the_way_out(
    annotation: Any, place: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        decoder_for(annotation)
    assert place in str(caught.value)
    for way_out in ("msgspec.Meta(gt=0)", "a dataclass or a pydantic model"):
        assert way_out in str(caught.value)


class Documented(msgspec.Struct):
    a: Annotated[int, Field(title="A", description="of a", examples=[1])]
    b: Annotated[int, annotated_types.doc("b")] = 0  # type: ignore[attr-defined]


def test_words_that_only_document_constrain_nothing() -> None:
    assert read(decoder_for(Documented), ROW) == Documented(1)
    assert not words_of(Documented).foreign


def test_a_validator_around_the_none_sees_the_null_value() -> None:
    decoding = decoder_for(Annotated[int | None, BeforeValidator(lambda value: value or 7)])
    assert [read(decoding, None), read(decoding, b"3")] == [7, 3]
    with pytest.raises(DecodeError, match="got `null`"):
        read(decoding, b"null")


def test_without_pydantic_its_words_are_refused_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pydantic"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "relance.pydantic_values", raising=False)
    monkeypatch.delattr("relance.pydantic_values", raising=False)
    with pytest.raises(SettingsError, match="install pydantic"):
        decoder_for(Annotated[int, annotated_types.Gt(0)])
    assert read(decoder_for(Row), ROW) == Row(1)


NEW_SYNTAX = """
type MaybeRow = Row | None
type Several[T] = list[T]
type Maybe[T] = T | None
type Json = dict[str, Json] | int
type Nest[T] = list[Nest[list[T]]] | T
"""


@pytest.mark.parametrize("source", [NEW_SYNTAX])
def test_aliases_of_python_3_12_are_those_of_typing_extensions(source: str) -> None:
    names: dict[str, Any] = {"Row": Row}
    if sys.version_info < (3, 12):
        assert typing_extensions.TypeAliasType is type(MaybeRow)  # what the tests above are made of
        return
    exec(source, names)
    assert read(decoder_for(names["MaybeRow"]), None) is None
    assert read(decoder_for(names["Several"][Row]), b"[" + ROW + b"]") == [Row(1)]
    assert read(decoder_for(names["Maybe"][bytes]), b"\xff") == b"\xff"
    for itself in (names["Json"], names["Nest"][int], names["Several"][names["Json"]]):
        with pytest.raises(SettingsError, match="cannot decode JSON into"):
            decoder_for(itself)
    assert words_of(names["Nest"][PositiveInt]).foreign


def test_a_message_names_the_type_and_nothing_that_differs_from_process_to_process() -> None:
    for annotation in (
        Annotated[dict, AfterValidator(not_empty)],
        dict[str, Annotated[int, AfterValidator(not_empty)]],
        Annotated[int | None, BeforeValidator(lambda value: value)],
    ):
        with pytest.raises(DecodeError) as caught:
            read(decoder_for(annotation), b"[]")
        assert "0x" not in str(caught.value)
    assert decoder_for(Annotated[int | None, "doc"]).expects == "int | None"
