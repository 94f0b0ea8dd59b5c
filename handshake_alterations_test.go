package connectplugin

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// alteration changes one thing about a message.
type alteration struct {
	name  string
	apply func(protoreflect.Message)
}

func (a alteration) of(m proto.Message) proto.Message {
	c := proto.Clone(m)
	a.apply(c.ProtoReflect())
	return c
}

// alterations lists one of every kind for everything that m holds, at any depth.
func alterations(m protoreflect.Message) []alteration {
	out := []alteration{{"unknown field", func(m protoreflect.Message) {
		const unused = 500
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(m.GetUnknown(), unused, protowire.VarintType), 1))
	}}}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out = append(out, alteration{"clear", func(m protoreflect.Message) { m.Clear(f) }}.within(f, func(m protoreflect.Message) protoreflect.Message { return m }))
		switch {
		case f.IsMap():
			out = append(out, mapAlterations(f)...)
		case f.IsList():
			out = append(out, listAlterations(f, v.List())...)
		case f.Message() != nil:
			for _, a := range alterations(v.Message()) {
				out = append(out, a.within(f, func(m protoreflect.Message) protoreflect.Message { return m.Mutable(f).Message() }))
			}
		default:
			out = append(out, alteration{f.TextName() + ": change", func(m protoreflect.Message) { m.Set(f, changed(f, m.Get(f))) }})
		}
		return true
	})
	return out
}

// within applies the alteration to a message inside of another.
func (a alteration) within(f protoreflect.FieldDescriptor, inner func(protoreflect.Message) protoreflect.Message) alteration {
	return alteration{f.TextName() + ": " + a.name, func(m protoreflect.Message) { a.apply(inner(m)) }}
}

func listAlterations(f protoreflect.FieldDescriptor, list protoreflect.List) []alteration {
	at := func(what string, do func(protoreflect.List)) alteration {
		return alteration{f.TextName() + ": " + what, func(m protoreflect.Message) { do(m.Mutable(f).List()) }}
	}
	out := []alteration{
		at("drop the last", func(l protoreflect.List) { l.Truncate(l.Len() - 1) }),
		at("repeat the last", func(l protoreflect.List) { l.Append(l.Get(l.Len() - 1)) }),
		at("swap", func(l protoreflect.List) {
			a, b := l.Get(0), l.Get(1)
			l.Set(0, b)
			l.Set(1, a)
		}),
	}
	if f.Message() == nil {
		return append(out, at("change", func(l protoreflect.List) { l.Set(1, changed(f, l.Get(1))) }))
	}
	for i := range list.Len() {
		for _, a := range alterations(list.Get(i).Message()) {
			out = append(out, a.within(f, func(m protoreflect.Message) protoreflect.Message { return m.Mutable(f).List().Get(i).Message() }))
		}
	}
	return out
}

func mapAlterations(f protoreflect.FieldDescriptor) []alteration {
	at := func(what string, do func(protoreflect.Map)) alteration {
		return alteration{f.TextName() + ": " + what, func(m protoreflect.Message) { do(m.Mutable(f).Map()) }}
	}
	first := func(m protoreflect.Map) (key protoreflect.MapKey) {
		m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			key = k
			return false
		})
		return key
	}
	return []alteration{
		at("remove a key", func(m protoreflect.Map) { m.Clear(first(m)) }),
		at("add a key", func(m protoreflect.Map) { m.Set(protoreflect.ValueOfString("").MapKey(), m.Get(first(m))) }),
		at("change a value", func(m protoreflect.Map) { m.Set(first(m), changed(f.MapValue(), m.Get(first(m)))) }),
		at("rename a key", func(m protoreflect.Map) {
			k := first(m)
			v := m.Get(k)
			m.Clear(k)
			m.Set(changed(f.MapKey(), k.Value()).MapKey(), v)
		}),
	}
}

func changed(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(v.String() + "x")
	case protoreflect.BytesKind:
		b := bytes.Clone(v.Bytes())
		b[len(b)-1] ^= 1
		return protoreflect.ValueOfBytes(b)
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.Bool())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(v.Int()) + 1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(v.Int() + 1)
	default:
		panic("no handshake message has a " + f.Kind().String())
	}
}

// fillMessage sets every field of m, at any depth, to a value of its own.
func fillMessage(m protoreflect.Message, counter *int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			for range 2 {
				entries.Set(fillValue(f.MapKey(), nil, counter).MapKey(), fillValue(f.MapValue(), entries.NewValue, counter))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			for range 2 {
				list.Append(fillValue(f, list.NewElement, counter))
			}
		default:
			m.Set(f, fillValue(f, func() protoreflect.Value { return m.NewField(f) }, counter))
		}
	}
}

func fillValue(f protoreflect.FieldDescriptor, empty func() protoreflect.Value, counter *int) protoreflect.Value {
	*counter++
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("%s %d", f.Name(), *counter))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(fmt.Appendf(nil, "%s %d", f.Name(), *counter))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(*counter))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(*counter))
	case protoreflect.MessageKind:
		v := empty()
		fillMessage(v.Message(), counter)
		return v
	default:
		panic("no handshake message has a " + f.Kind().String())
	}
}
