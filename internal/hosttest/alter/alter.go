// Package alter changes messages of the wire, one thing at a time, and fills them. It
// goes by their descriptors, so fields to come are in it by themselves. It is for tests
// only.
package alter

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Alteration changes one thing about a message.
type Alteration struct {
	// Name says at which field, and what is done there: "field: what".
	Name string

	apply func(protoreflect.Message) bool
}

// Apply changes a message and reports whether there was anything to change.
func (a Alteration) Apply(m protoreflect.Message) bool { return a.apply(m) }

// Of returns an altered copy of a message, and whether it differs.
func Of[M proto.Message](a Alteration, m M) (M, bool) {
	altered := proto.CloneOf(m)
	return altered, a.apply(altered.ProtoReflect()) && !proto.Equal(altered, m)
}

// Every lists, for every field that a message can have, at any depth, everything that
// is done to it on the way. Of a list as many elements are altered, one after the
// other, as elements says.
func Every(d protoreflect.MessageDescriptor, elements int) []Alteration {
	out := []Alteration{{"add an unknown field", func(m protoreflect.Message) bool {
		const unused = 500
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(m.GetUnknown(), unused, protowire.VarintType), 1))
		return true
	}}}
	fields := d.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		out = append(out, Alteration{f.TextName() + ": strip", func(m protoreflect.Message) bool {
			had := m.Has(f)
			m.Clear(f)
			return had
		}})
		switch {
		case f.IsMap():
			out = append(out, ofMap(f)...)
		case f.IsList():
			out = append(out, ofList(f, elements)...)
		case f.Message() != nil:
			out = append(out, nested(f, elements, func(m protoreflect.Message) protoreflect.Message {
				return m.Mutable(f).Message()
			})...)
		default:
			out = append(out, Alteration{f.TextName() + ": change", func(m protoreflect.Message) bool {
				m.Set(f, otherValue(f, m.Get(f)))
				return true
			}})
		}
	}
	return out
}

// nested are those of the message that inner finds; nil is none.
func nested(f protoreflect.FieldDescriptor, elements int, inner func(protoreflect.Message) protoreflect.Message) []Alteration {
	var out []Alteration
	for _, a := range Every(f.Message(), elements) {
		out = append(out, Alteration{f.TextName() + ": " + a.Name, func(m protoreflect.Message) bool {
			n := inner(m)
			return n != nil && a.apply(n)
		}})
	}
	return out
}

func ofList(f protoreflect.FieldDescriptor, elements int) []Alteration {
	at := func(what string, least int, do func(l protoreflect.List)) Alteration {
		return Alteration{f.TextName() + ": " + what, func(m protoreflect.Message) bool {
			if m.Get(f).List().Len() < least {
				return false
			}
			do(m.Mutable(f).List())
			return true
		}}
	}
	last := func(l protoreflect.List) int { return l.Len() - 1 }
	out := []Alteration{
		at("drop the last", 1, func(l protoreflect.List) { l.Truncate(last(l)) }),
		at("repeat the first", 1, func(l protoreflect.List) { l.Append(l.Get(0)) }),
		at("reorder", 2, func(l protoreflect.List) {
			a, b := l.Get(0), l.Get(last(l))
			l.Set(0, b)
			l.Set(last(l), a)
		}),
		at("add one", 0, func(l protoreflect.List) {
			if f.Message() != nil {
				l.AppendMutable()
				return
			}
			l.Append(otherValue(f, f.Default()))
		}),
	}
	for i := range elements {
		if f.Message() == nil {
			out = append(out, at(fmt.Sprint("change ", i), i+1, func(l protoreflect.List) { l.Set(i, otherValue(f, l.Get(i))) }))
			continue
		}
		out = append(out, nested(f, elements, func(m protoreflect.Message) protoreflect.Message {
			if m.Get(f).List().Len() <= i {
				return nil
			}
			return m.Mutable(f).List().Get(i).Message()
		})...)
	}
	return out
}

func ofMap(f protoreflect.FieldDescriptor) []Alteration {
	at := func(what string, least int, do func(m protoreflect.Map, keys []protoreflect.MapKey)) Alteration {
		return Alteration{f.TextName() + ": " + what, func(m protoreflect.Message) bool {
			var keys []protoreflect.MapKey
			m.Get(f).Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
				keys = append(keys, k)
				return true
			})
			if len(keys) < least {
				return false
			}
			do(m.Mutable(f).Map(), keys)
			return true
		}}
	}
	added := otherValue(f.MapKey(), f.MapKey().Default()).MapKey()
	return []Alteration{
		at("add an entry", 0, func(m protoreflect.Map, _ []protoreflect.MapKey) {
			m.Set(added, otherValue(f.MapValue(), f.MapValue().Default()))
		}),
		at("drop an entry", 1, func(m protoreflect.Map, keys []protoreflect.MapKey) { m.Clear(keys[0]) }),
		at("change a value", 1, func(m protoreflect.Map, keys []protoreflect.MapKey) {
			m.Set(keys[0], otherValue(f.MapValue(), m.Get(keys[0])))
		}),
		at("rename an entry", 1, func(m protoreflect.Map, keys []protoreflect.MapKey) {
			v := m.Get(keys[0])
			m.Clear(keys[0])
			m.Set(otherValue(f.MapKey(), keys[0].Value()).MapKey(), v)
		}),
		at("swap two values", 2, func(m protoreflect.Map, keys []protoreflect.MapKey) {
			a, b := m.Get(keys[0]), m.Get(keys[1])
			m.Set(keys[0], b)
			m.Set(keys[1], a)
		}),
	}
}

// otherValue returns a value of a field that is not v.
func otherValue(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.String() + "x")
	case protoreflect.BytesKind:
		if len(v.Bytes()) == 0 {
			return protoreflect.ValueOfBytes([]byte("x"))
		}
		b := bytes.Clone(v.Bytes())
		b[0] ^= 1
		return protoreflect.ValueOfBytes(b)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int()) ^ 1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() ^ 1)
	default:
		panic(fmt.Sprintf("%s: teach otherValue the kind %s", f.FullName(), f.Kind()))
	}
}
