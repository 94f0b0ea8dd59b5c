package transcript_test

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

var errEncoding = errors.New("not the encoding of a message")

// decoder reads a transcript back. That it can restore every message is the
// proof that no two messages share an encoding.
type decoder struct {
	buf []byte
	err error
}

func decode(encoded []byte, label string, m protoreflect.Message) error {
	d := &decoder{buf: encoded}
	if got := string(d.bytes()); got != label {
		return errEncoding
	}
	d.message(m)
	if len(d.buf) != 0 {
		return errEncoding
	}
	return d.err
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.buf)) {
		d.err, d.buf = errEncoding, nil
		return nil
	}
	out := d.buf[:n]
	d.buf = d.buf[n:]
	return out
}

func (d *decoder) uint64() uint64 {
	b := d.take(8)
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func (d *decoder) bytes() []byte { return d.take(d.uint64()) }

func (d *decoder) tag(want byte) {
	if b := d.take(1); len(b) == 0 || b[0] != want {
		d.err = errEncoding
	}
}

func (d *decoder) message(m protoreflect.Message) {
	for n := d.uint64(); n > 0 && d.err == nil; n-- {
		number := protoreflect.FieldNumber(d.uint64())
		if number == 0 {
			d.tag('u')
			m.SetUnknown(append(protoreflect.RawFields(nil), d.bytes()...))
			continue
		}
		f := m.Descriptor().Fields().ByNumber(number)
		if f == nil {
			d.err = errEncoding
			return
		}
		d.field(m, f)
	}
}

func (d *decoder) field(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch {
	case f.IsMap():
		d.tag('k')
		entries := m.Mutable(f).Map()
		for n := d.uint64(); n > 0 && d.err == nil; n-- {
			key := d.value(f.MapKey(), nil).MapKey()
			entries.Set(key, d.value(f.MapValue(), entries.NewValue))
		}
	case f.IsList():
		d.tag('l')
		list := m.Mutable(f).List()
		for n := d.uint64(); n > 0 && d.err == nil; n-- {
			list.Append(d.value(f, list.NewElement))
		}
	default:
		m.Set(f, d.value(f, func() protoreflect.Value { return m.NewField(f) }))
	}
}

func (d *decoder) value(f protoreflect.FieldDescriptor, empty func() protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		d.tag('s')
		return protoreflect.ValueOfString(string(d.bytes()))
	case protoreflect.BytesKind:
		d.tag('b')
		return protoreflect.ValueOfBytes(append([]byte(nil), d.bytes()...))
	case protoreflect.MessageKind, protoreflect.GroupKind:
		d.tag('m')
		v := empty()
		d.message(v.Message())
		return v
	case protoreflect.FloatKind:
		d.tag('f')
		return protoreflect.ValueOfFloat32(float32(math.Float64frombits(d.uint64())))
	case protoreflect.DoubleKind:
		d.tag('f')
		return protoreflect.ValueOfFloat64(math.Float64frombits(d.uint64()))
	}
	d.tag('i')
	v := d.uint64()
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v == 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int64(v)))
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(int32(int64(v)))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(v))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(v)
	default:
		return protoreflect.ValueOfInt64(int64(v))
	}
}

// everyKind describes a message with a field of every kind and cardinality.
func everyKind(tb testing.TB) protoreflect.MessageDescriptor {
	tb.Helper()
	type typ = descriptorpb.FieldDescriptorProto_Type
	const self = ".transcripttest.Every"
	one := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
	many := descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	every := &descriptorpb.DescriptorProto{
		Name:      new("Every"),
		OneofDecl: []*descriptorpb.OneofDescriptorProto{{Name: new("choice")}, {Name: new("_explicit")}},
	}
	add := func(name string, number int32, label descriptorpb.FieldDescriptorProto_Label, t typ, typeName string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: new(name), Number: new(number), Label: label.Enum(), Type: t.Enum()}
		if typeName != "" {
			f.TypeName = new(typeName)
		}
		every.Field = append(every.Field, f)
		return f
	}
	number := int32(1)
	for t := descriptorpb.FieldDescriptorProto_TYPE_DOUBLE; t <= descriptorpb.FieldDescriptorProto_TYPE_SINT64; t++ {
		name := "one_" + t.String()
		switch t {
		case descriptorpb.FieldDescriptorProto_TYPE_GROUP:
			continue
		case descriptorpb.FieldDescriptorProto_TYPE_MESSAGE:
			add(name, number, one, t, self)
			add("many_"+t.String(), number+20, many, t, self)
		case descriptorpb.FieldDescriptorProto_TYPE_ENUM:
			add(name, number, one, t, ".transcripttest.Choice")
			add("many_"+t.String(), number+20, many, t, ".transcripttest.Choice")
		default:
			add(name, number, one, t, "")
			add("many_"+t.String(), number+20, many, t, "")
		}
		number++
	}
	addMap := func(name, entry string, number int32, key typ, value typ, valueType string) {
		v := &descriptorpb.FieldDescriptorProto{Name: new("value"), Number: proto.Int32(2), Label: one.Enum(), Type: value.Enum()}
		if valueType != "" {
			v.TypeName = new(valueType)
		}
		every.NestedType = append(every.NestedType, &descriptorpb.DescriptorProto{
			Name: new(entry), Options: &descriptorpb.MessageOptions{MapEntry: new(true)},
			Field: []*descriptorpb.FieldDescriptorProto{
				{Name: new("key"), Number: proto.Int32(1), Label: one.Enum(), Type: key.Enum()}, v,
			},
		})
		add(name, number, many, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, self+"."+entry)
	}
	addMap("texts", "TextsEntry", 41, descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_STRING, "")
	addMap("numbers", "NumbersEntry", 42, descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_BYTES, "")
	addMap("flags", "FlagsEntry", 43, descriptorpb.FieldDescriptorProto_TYPE_BOOL, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, self)
	addMap("unsigned", "UnsignedEntry", 44, descriptorpb.FieldDescriptorProto_TYPE_UINT64, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, "")
	add("left", 45, one, descriptorpb.FieldDescriptorProto_TYPE_STRING, "").OneofIndex = proto.Int32(0)
	add("right", 46, one, descriptorpb.FieldDescriptorProto_TYPE_BYTES, "").OneofIndex = proto.Int32(0)
	explicit := add("explicit", 47, one, descriptorpb.FieldDescriptorProto_TYPE_INT32, "")
	explicit.OneofIndex, explicit.Proto3Optional = proto.Int32(1), new(true)

	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("transcripttest.proto"), Package: new("transcripttest"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{every},
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name: new("Choice"),
			Value: []*descriptorpb.EnumValueDescriptorProto{
				{Name: new("NONE"), Number: proto.Int32(0)}, {Name: new("MINUS"), Number: proto.Int32(-1)},
			},
		}},
	}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return file.Messages().ByName("Every")
}

func newEvery(tb testing.TB, md protoreflect.MessageDescriptor, wire []byte) *dynamicpb.Message {
	tb.Helper()
	m := dynamicpb.NewMessage(md)
	if err := proto.Unmarshal(wire, m); err != nil {
		tb.Skip("no message")
	}
	return m
}
