"""XLA's header, as jax brings it, against the numbers by which the handler reads a call."""

import re
from pathlib import Path

import pytest

from splat_numba.runtime.xla import layout

jax = pytest.importorskip("jax", reason="JAX is not installed")

HEADER = (Path(jax.ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h").read_text()
# The sizes of what fields are, in bytes. Pointers are 8; an enum is an int.
SIZES = {"size_t": 8, "int64_t": 8, "int32_t": 4, "int": 4, "XLA_FFI_Handler_Traits": 4}
ENUMS = ("XLA_FFI_DataType", "XLA_FFI_Error_Code", "XLA_FFI_ExecutionStage", r"XLA_FFI_(Internal)?Extension_Type")


def body_of(name):
    found = re.search(rf"struct {name} \{{(.*?)\n\}}", HEADER, re.DOTALL)
    return re.sub(r"//[^\n]*", "", found[1])


def fields_of(name):
    """(type, name) of a struct's fields; of functions, (*name)(arguments), a pointer."""
    for one in body_of(name).split(";"):
        text = " ".join(one.split())
        if match := re.fullmatch(r"_XLA_FFI_API_STRUCT_FIELD\((\w+)\)", text):
            yield "void*", match[1]
        elif text:
            kind, field = re.fullmatch(r"(?:const )?(.*?)\s*(\w+)", text).groups()
            yield kind, field


def size_of(kind):
    if kind.endswith("*"):
        return 8
    if any(re.fullmatch(one, kind) for one in ENUMS):
        return 4
    return SIZES[kind] if kind in SIZES else layout_of(kind)[1]


def layout_of(name):
    """Where each field of a struct stands, and the size of the whole, as a C compiler lays it out."""
    if name == "XLA_FFI_TypeId":
        return {"type_id": 0}, 8
    places, end = {}, 0
    for kind, field in fields_of(name):
        size = size_of(kind)
        align = min(size, 8)
        end = -(-end // align) * align
        places[field] = end
        end += size
    return places, -(-end // 8) * 8


def place(struct, field):
    outer, _, inner = field.partition(".")
    places = layout_of(f"XLA_FFI_{struct}")[0]
    if not inner:
        return places[outer]
    kind = {name: kind for kind, name in fields_of(f"XLA_FFI_{struct}")}[outer]
    return places[outer] + layout_of(kind)[0][inner]


FIELDS = {
    "EXTENSION": ("CallFrame", "extension_start"),
    "API": ("CallFrame", "api"),
    "CONTEXT": ("CallFrame", "ctx"),
    "STAGE": ("CallFrame", "stage"),
    "ARGUMENT_COUNT": ("CallFrame", "args.size"),
    "ARGUMENTS": ("CallFrame", "args.args"),
    "RESULT_COUNT": ("CallFrame", "rets.size"),
    "RESULTS": ("CallFrame", "rets.rets"),
    "BUFFER_DATA": ("Buffer", "data"),
    "EXTENSION_METADATA": ("Metadata_Extension", "metadata"),
    "METADATA_MAJOR": ("Metadata", "api_version.major_version"),
    "METADATA_MINOR": ("Metadata", "api_version.minor_version"),
    "METADATA_TRAITS": ("Metadata", "traits"),
    "ERROR_CREATE": ("Api", "XLA_FFI_Error_Create"),
    "ERROR_DESTROY": ("Api", "XLA_FFI_Error_Destroy"),
    "THREAD_POOL_SCHEDULE": ("Api", "XLA_FFI_ThreadPool_Schedule"),
    "STREAM_GET": ("Api", "XLA_FFI_Stream_Get"),
    "DEVICE_ORDINAL_GET": ("Api", "XLA_FFI_DeviceOrdinal_Get"),
    "STREAM_CONTEXT": ("Stream_Get_Args", "ctx"),
    "STREAM_FOUND": ("Stream_Get_Args", "stream"),
    "ORDINAL_CONTEXT": ("DeviceOrdinal_Get_Args", "ctx"),
    "ORDINAL_FOUND": ("DeviceOrdinal_Get_Args", "device_ordinal"),
    "ERROR_MESSAGE": ("Error_Create_Args", "message"),
    "ERROR_CODE": ("Error_Create_Args", "errc"),
    "DESTROYED_ERROR": ("Error_Destroy_Args", "error"),
    "SCHEDULE_CONTEXT": ("ThreadPool_Schedule_Args", "ctx"),
    "SCHEDULE_TASK": ("ThreadPool_Schedule_Args", "task"),
    "SCHEDULE_DATA": ("ThreadPool_Schedule_Args", "data"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_stand_where_the_handler_reads_them(name):
    assert place(*FIELDS[name]) == getattr(layout, name)


def test_extensions_stand_where_the_handler_reads_them():
    old = "XLA_FFI_Extension_Base" if "struct XLA_FFI_Extension_Base {" in HEADER else "XLA_FFI_InternalExtension"
    places, size = layout_of(old)
    assert (places["type"], places["next"], size) == (layout.EXTENSION_TYPE, layout.EXTENSION_NEXT, 24)
    assert re.search(r"XLA_FFI_\w*Extension_Metadata = (\d+)", HEADER)[1] == str(layout.METADATA)


SIZES_OF_ARGUMENTS = {
    "ERROR_SIZE": ("Error_Create_Args", "errc", 4),
    "DESTROY_SIZE": ("Error_Destroy_Args", "error", 8),
    "STREAM_SIZE": ("Stream_Get_Args", "stream", 8),
    "ORDINAL_SIZE": ("DeviceOrdinal_Get_Args", "device_ordinal", 4),
    "SCHEDULE_SIZE": ("ThreadPool_Schedule_Args", "data", 8),
}


@pytest.mark.parametrize("name", SIZES_OF_ARGUMENTS)
def test_sizes_of_arguments_end_with_the_last_field(name):
    struct, field, size = SIZES_OF_ARGUMENTS[name]
    assert place(struct, field) + size == getattr(layout, name)


def test_codes_and_versions():
    for name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"):
        assert re.search(rf"XLA_FFI_Error_Code_{name} = (\d+)", HEADER)[1] == str(getattr(layout, name))
    assert re.search(r"XLA_FFI_ExecutionStage_EXECUTE = (\d+)", HEADER)[1] == str(layout.EXECUTE)
    shift = re.search(r"XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE = 1u << (\d+)", HEADER)[1]
    assert 1 << int(shift) == layout.CAPTURABLE
    major, minor = (int(re.search(rf"XLA_FFI_API_{one} (\d+)", HEADER)[1]) for one in ("MAJOR", "MINOR"))
    assert major == layout.VERSION[0]
    assert minor >= layout.VERSION[1]
