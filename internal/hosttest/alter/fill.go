package alter

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Fill sets every field of the messages, at any depth, to a value of its own: no two
// are alike, and lists and maps have two elements.
func Fill(messages ...protoreflect.Message) {
	counter := 0
	for _, m := range messages {
		fill(m, &counter)
	}
}

func fill(m protoreflect.Message, counter *int) {
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
		fill(v.Message(), counter)
		return v
	default:
		panic(fmt.Sprintf("%s: teach fillValue the kind %s", f.FullName(), f.Kind()))
	}
}
