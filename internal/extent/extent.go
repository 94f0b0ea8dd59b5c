// Package extent bounds what is in a message that was decoded: how many entries its lists and maps
// have, and how long its texts are.
package extent

import (
	"fmt"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Bounds are those of each field of a message, and of the messages in it.
type Bounds struct {
	Entries int // of a list or a map
	Bytes   int // of a text, a key, or bytes
}

// Check returns an error that names a field which has too much, nil where none has. It is fit for
// who sent the message.
func (b Bounds) Check(m protoreflect.Message) (err error) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if err = b.field(f, v); err != nil {
			err = fmt.Errorf("%s: %w", f.Name(), err)
		}
		return err == nil
	})
	return err
}

func (b Bounds) field(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch {
	case f.IsMap():
		err := b.entries(v.Map().Len())
		if err != nil {
			return err
		}
		v.Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
			if err = b.value(f.MapKey(), key.Value()); err == nil {
				err = b.value(f.MapValue(), value)
			}
			return err == nil
		})
		return err
	case f.IsList():
		list := v.List()
		if err := b.entries(list.Len()); err != nil {
			return err
		}
		for i := range list.Len() {
			if err := b.value(f, list.Get(i)); err != nil {
				return err
			}
		}
		return nil
	}
	return b.value(f, v)
}

func (b Bounds) entries(n int) error {
	if n > b.Entries {
		return fmt.Errorf("has %d entries, at most %d are allowed", n, b.Entries)
	}
	return nil
}

func (b Bounds) value(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	n := 0
	switch f.Kind() { //nolint:exhaustive // the others have a size of their own
	case protoreflect.StringKind:
		n = len(v.String())
	case protoreflect.BytesKind:
		n = len(v.Bytes())
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return b.Check(v.Message())
	}
	if n > b.Bytes {
		return fmt.Errorf("has %d bytes, at most %d are allowed", n, b.Bytes)
	}
	return nil
}
