package transcript

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Types of encoded values.
const (
	tagInteger byte = 'i'
	tagFloat   byte = 'f'
	tagBytes   byte = 'b'
	tagString  byte = 's'
	tagMessage byte = 'm'
	tagList    byte = 'l'
	tagMap     byte = 'k'
	tagUnknown byte = 'u'
)

// unknownNumber stands for a message's unknown fields; no field has it.
const unknownNumber protoreflect.FieldNumber = 0

// Message appends every populated field of m, nested messages and unknown fields
// included, except the fields of m itself whose numbers are in omit. Messages
// that [proto.Equal] tells apart encode differently. The order in which fields
// arrived and the order of map entries make no difference, except for unknown
// fields, which count byte by byte.
//
// Fields that m's descriptor does not know are part of the encoding, so that
// nothing can be added to a message underneath its proof.
func (t *Transcript) Message(m proto.Message, omit ...protoreflect.FieldNumber) {
	t.message(m.ProtoReflect(), omit)
}

func (t *Transcript) message(m protoreflect.Message, omit []protoreflect.FieldNumber) {
	fields := populated(m, omit)
	unknown := m.GetUnknown()
	count := len(fields)
	if len(unknown) > 0 {
		count++
	}
	t.uint64(uint64(count))
	if len(unknown) > 0 {
		t.number(unknownNumber)
		t.buf = append(t.buf, tagUnknown)
		t.Bytes(unknown)
	}
	for _, f := range fields {
		t.number(f.Number())
		t.field(f, m.Get(f))
	}
}

// populated returns the fields that m has, by ascending number.
func populated(m protoreflect.Message, omit []protoreflect.FieldNumber) []protoreflect.FieldDescriptor {
	var fields []protoreflect.FieldDescriptor
	m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(omit, f.Number()) {
			fields = append(fields, f)
		}
		return true
	})
	slices.SortFunc(fields, func(a, b protoreflect.FieldDescriptor) int {
		return cmp.Compare(a.Number(), b.Number())
	})
	return fields
}

func (t *Transcript) number(n protoreflect.FieldNumber) {
	t.uint64(uint64(n)) //nolint:gosec // field numbers are positive
}

func (t *Transcript) field(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch {
	case f.IsMap():
		t.entries(f, v.Map())
	case f.IsList():
		list := v.List()
		t.buf = append(t.buf, tagList)
		t.uint64(uint64(list.Len())) //nolint:gosec // a length is never negative
		for i := range list.Len() {
			t.value(f.Kind(), list.Get(i))
		}
	default:
		t.value(f.Kind(), v)
	}
}

// entries appends a map by ascending key: strings by their bytes, everything
// else by the eight bytes of its encoding.
func (t *Transcript) entries(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	type entry struct {
		order string
		key   protoreflect.Value
		value protoreflect.Value
	}
	entries := make([]entry, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		entries = append(entries, entry{order: keyOrder(f.MapKey().Kind(), k.Value()), key: k.Value(), value: v})
		return true
	})
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.order, b.order) })

	t.buf = append(t.buf, tagMap)
	t.uint64(uint64(len(entries)))
	for _, e := range entries {
		t.value(f.MapKey().Kind(), e.key)
		t.value(f.MapValue().Kind(), e.value)
	}
}

func keyOrder(kind protoreflect.Kind, key protoreflect.Value) string {
	if kind == protoreflect.StringKind {
		return key.String()
	}
	return string(binary.BigEndian.AppendUint64(nil, integer(kind, key)))
}

func (t *Transcript) value(kind protoreflect.Kind, v protoreflect.Value) {
	switch kind {
	case protoreflect.StringKind:
		t.buf = append(t.buf, tagString)
		t.Bytes([]byte(v.String()))
	case protoreflect.BytesKind:
		t.buf = append(t.buf, tagBytes)
		t.Bytes(v.Bytes())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		t.buf = append(t.buf, tagMessage)
		t.message(v.Message(), nil)
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		t.buf = append(t.buf, tagFloat)
		t.uint64(math.Float64bits(v.Float()))
	case protoreflect.BoolKind, protoreflect.EnumKind,
		protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind,
		protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind,
		protoreflect.Uint32Kind, protoreflect.Fixed32Kind,
		protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		t.buf = append(t.buf, tagInteger)
		t.uint64(integer(kind, v))
	}
}

// integer returns any integer, enum or bool as 64 bits: two's complement, sign
// extended.
func integer(kind protoreflect.Kind, v protoreflect.Value) uint64 {
	switch kind {
	case protoreflect.BoolKind:
		if v.Bool() {
			return 1
		}
		return 0
	case protoreflect.EnumKind:
		return uint64(v.Enum()) //nolint:gosec // two's complement is the encoding
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind, protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return v.Uint()
	default:
		return uint64(v.Int()) //nolint:gosec // two's complement is the encoding
	}
}
