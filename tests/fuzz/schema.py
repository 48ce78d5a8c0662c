"""A method whose messages the fuzzer's pipelines give as JSON, in a schema that needs no compiler."""

from __future__ import annotations

from google.protobuf import any_pb2, descriptor_pb2, struct_pb2, timestamp_pb2

from collector.shards.records.descriptors import Methods

PATH = b"/fuzz.Service/Method"

_Field = descriptor_pb2.FieldDescriptorProto
_FIELDS = (
    ("text", _Field.TYPE_STRING, ""),
    ("data", _Field.TYPE_BYTES, ""),
    ("number", _Field.TYPE_SINT64, ""),
    ("precise", _Field.TYPE_DOUBLE, ""),
    ("inner", _Field.TYPE_MESSAGE, ".fuzz.Message"),
    ("any", _Field.TYPE_MESSAGE, ".google.protobuf.Any"),
    ("at", _Field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
    ("value", _Field.TYPE_MESSAGE, ".google.protobuf.Value"),
)


def _descriptor_set() -> bytes:
    made = descriptor_pb2.FileDescriptorSet()
    for module in (any_pb2, timestamp_pb2, struct_pb2):
        module.DESCRIPTOR.CopyToProto(made.file.add())
    names = [file.name for file in made.file]
    file = made.file.add(name="fuzz.proto", package="fuzz", syntax="proto3", dependency=names)
    message = file.message_type.add(name="Message")
    for number, (name, kind, of) in enumerate(_FIELDS, 1):
        for label in (_Field.LABEL_OPTIONAL, _Field.LABEL_REPEATED):
            many = label == _Field.LABEL_REPEATED
            field = message.field.add(name=f"{name}{'s' * many}", number=number + 20 * many, label=label, type=kind)
            if of:
                field.type_name = of
    method = file.service.add(name="Service").method.add(name="Method")
    method.input_type = method.output_type = ".fuzz.Message"
    return bytes(made.SerializeToString())


METHODS = Methods([_descriptor_set()])
