package prescan

import (
	"errors"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var errMalformed = errors.New("message is malformed")

// Binary is a codec of Connect for messages in Protobuf. It looks at each message before it decodes it: a megabyte of empty texts
// would take forty. What it writes is as Connect's own codec writes it.
type Binary struct{ Fields *Fields }

// Text is one for messages in JSON.
type Text struct {
	Kind string // under which Connect asks for it
	Most int    // values
}

// Name implements connect.Codec.
func (Binary) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (c Binary) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

// MarshalAppend appends to a buffer of Connect's, so that an answer takes no other one.
func (Binary) MarshalAppend(to []byte, m any) ([]byte, error) {
	if m, ok := m.(proto.Message); ok {
		return proto.MarshalOptions{}.MarshalAppend(to, m) //nolint:wrapcheck // Connect wraps it
	}
	return nil, errMalformed
}

// Unmarshal implements connect.Codec.
func (c Binary) Unmarshal(data []byte, m any) error {
	if err := NewScanner(c.Fields).Scan(data); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		return proto.Unmarshal(data, m) //nolint:wrapcheck // Connect wraps it
	}
	return errMalformed
}

// Name implements connect.Codec.
func (c Text) Name() string { return c.Kind }

// Marshal implements connect.Codec.
func (Text) Marshal(m any) ([]byte, error) {
	if m, ok := m.(proto.Message); ok {
		return protojson.Marshal(m) //nolint:wrapcheck // Connect wraps it
	}
	return nil, errMalformed
}

// Unmarshal implements connect.Codec.
func (c Text) Unmarshal(data []byte, m any) error {
	if err := JSON(data, c.Most); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok && len(data) > 0 {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m) //nolint:wrapcheck // Connect wraps it
	}
	return errMalformed
}
