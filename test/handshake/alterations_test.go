package handshake_test

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// messageAlteration changes one thing about a message. It reports whether there
// was anything to change.
type messageAlteration struct {
	name  string
	apply func(protoreflect.Message) bool
}

// messageAlterations lists, for every field that a message can have, at any depth,
// everything that is done to it on the way. Fields to come are in it by themselves.
func messageAlterations(d protoreflect.MessageDescriptor) []messageAlteration {
	out := []messageAlteration{{"add an unknown field", func(m protoreflect.Message) bool {
		const unused = 500
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(m.GetUnknown(), unused, protowire.VarintType), 1))
		return true
	}}}
	fields := d.Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		out = append(out, messageAlteration{f.TextName() + ": strip", func(m protoreflect.Message) bool {
			had := m.Has(f)
			m.Clear(f)
			return had
		}})
		switch {
		case f.IsMap():
			out = append(out, entryAlterations(f)...)
		case f.IsList():
			out = append(out, elementAlterations(f)...)
		case f.Message() != nil:
			out = append(out, nestedAlterations(f, func(m protoreflect.Message) protoreflect.Message {
				return m.Mutable(f).Message()
			})...)
		default:
			out = append(out, messageAlteration{f.TextName() + ": change", func(m protoreflect.Message) bool {
				m.Set(f, otherValue(f, m.Get(f)))
				return true
			}})
		}
	}
	return out
}

// nestedAlterations are those of the message that inner finds; nil is none.
func nestedAlterations(f protoreflect.FieldDescriptor, inner func(protoreflect.Message) protoreflect.Message) []messageAlteration {
	var out []messageAlteration
	for _, a := range messageAlterations(f.Message()) {
		out = append(out, messageAlteration{f.TextName() + ": " + a.name, func(m protoreflect.Message) bool {
			n := inner(m)
			return n != nil && a.apply(n)
		}})
	}
	return out
}

func elementAlterations(f protoreflect.FieldDescriptor) []messageAlteration {
	at := func(what string, least int, do func(l protoreflect.List)) messageAlteration {
		return messageAlteration{f.TextName() + ": " + what, func(m protoreflect.Message) bool {
			if m.Get(f).List().Len() < least {
				return false
			}
			do(m.Mutable(f).List())
			return true
		}}
	}
	last := func(l protoreflect.List) int { return l.Len() - 1 }
	out := []messageAlteration{
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
	if f.Message() == nil {
		return append(out, at("change the first", 1, func(l protoreflect.List) { l.Set(0, otherValue(f, l.Get(0))) }))
	}
	return append(out, nestedAlterations(f, func(m protoreflect.Message) protoreflect.Message {
		if m.Get(f).List().Len() == 0 {
			return nil
		}
		return m.Mutable(f).List().Get(0).Message()
	})...)
}

func entryAlterations(f protoreflect.FieldDescriptor) []messageAlteration {
	at := func(what string, least int, do func(m protoreflect.Map, keys []protoreflect.MapKey)) messageAlteration {
		return messageAlteration{f.TextName() + ": " + what, func(m protoreflect.Message) bool {
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
	return []messageAlteration{
		at("add an entry", 0, func(m protoreflect.Map, _ []protoreflect.MapKey) {
			m.Set(added, otherValue(f.MapValue(), f.MapValue().Default()))
		}),
		at("drop an entry", 1, func(m protoreflect.Map, keys []protoreflect.MapKey) { m.Clear(keys[0]) }),
		at("change a value", 1, func(m protoreflect.Map, keys []protoreflect.MapKey) {
			m.Set(keys[0], otherValue(f.MapValue(), m.Get(keys[0])))
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
