"""Writes schema.txt: what protojson needs to know of the messages that a configuration is made of.

    python3 schema.py PROTO_DIRECTORY > schema.txt

PROTO_DIRECTORY is the folder `proto` of the crate `envoy-types`; the package `grpcio-tools` brings the compiler.
"""

import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOTS = ["data-plane-api", "googleapis", "protoc-gen-validate", "xds", "opentelemetry-proto", "client_model", "cel-spec/proto"]
# What a control plane sends, and what `Any` fields of it hold.
WANTED = ("envoy.config.", "envoy.extensions.", "envoy.type.", "xds.type.", "udpa.type.")
UNWANTED = ("envoy.config.bootstrap.", "envoy.config.trace.", "envoy.config.metrics.", "envoy.extensions.wasm",
            "envoy.extensions.filters.udp", "envoy.config.tap", "envoy.extensions.tracers", "envoy.extensions.stat_sinks",
            "envoy.extensions.dynamic_modules", "envoy.config.ratelimit", "envoy.extensions.resource_monitors")
# Annotated fields (udpa.annotations.sensitive) hold secrets.
SENSITIVE = 76569463

SCALARS = {1: "d", 2: "f", 3: "l", 4: "L", 5: "i", 6: "X", 7: "x", 8: "b", 9: "s", 12: "y", 13: "u", 15: "z", 16: "Z", 17: "n", 18: "N"}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def is_sensitive(field):
    """Whether the field's options carry the extension, which the compiler keeps as an unknown field."""
    data, at = field.options.SerializeToString(), 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
            if key >> 3 == SENSITIVE and value:
                return True
        elif key & 7 == 2:
            size, at = varint(data, at)
            at += size
        else:
            at += 8 if key & 7 == 1 else 4
    return False


def main(proto):
    files = [path for root in ROOTS for path in sorted((proto / root).rglob("*.proto"))]
    with tempfile.NamedTemporaryFile() as out:
        arguments = ["protoc", f"--descriptor_set_out={out.name}"]
        arguments += [f"-I{proto / root}" for root in ROOTS] + [f"-I{protoc.__path__[0] if hasattr(protoc, '__path__') else pathlib.Path(protoc.__file__).parent}/_proto"]
        if protoc.main(arguments + [str(path) for path in files]) != 0:
            sys.exit("the .proto files do not compile")
        everything = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(out.name).read_bytes())
    messages, enums, maps = {}, {}, {}

    def walk(prefix, message):
        name = f"{prefix}.{message.name}"
        if message.options.map_entry:
            maps[name] = message
        else:
            messages[name] = message
        for nested in message.nested_type:
            walk(name, nested)
        for enum in message.enum_type:
            enums[f"{name}.{enum.name}"] = enum

    for file in everything.file:
        for message in file.message_type:
            walk(file.package, message)
        for enum in file.enum_type:
            enums[f"{file.package}.{enum.name}"] = enum

    def refers(field):
        name = field.type_name[1:]
        if name in maps:
            return refers(maps[name].field[1])
        return name

    wanted, todo = set(), [n for n in messages if n.startswith(WANTED) and not n.startswith(UNWANTED)]
    while todo:
        name = todo.pop()
        if name in wanted or name not in messages:
            continue
        wanted.add(name)
        todo += [refers(field) for field in messages[name].field if field.type == 11]
    used_enums = set()

    def kind(field):
        name = field.type_name[1:]
        if field.type == 11 and name in maps:
            key, value = maps[name].field
            return "{" + SCALARS[key.type] + kind(value)
        repeated = "[" if field.label == 3 else ""
        if field.type == 11:
            return repeated + "." + name
        if field.type == 14:
            used_enums.add(name)
            return repeated + "=" + name
        return repeated + SCALARS[field.type]

    for name in sorted(wanted):
        print(name)
        for field in messages[name].field:
            print(f" {field.number} {field.name} {kind(field)}{'!' if is_sensitive(field) else ''}")
    for name in sorted(used_enums):
        print(name)
        for value in enums[name].value if name in enums else []:
            print(f" {value.number} {value.name}")


main(pathlib.Path(sys.argv[1]))
