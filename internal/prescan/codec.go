package prescan

import (
	"errors"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

var errMalformed = errors.New("message is malformed")

// Codecs has a handler look at each message, in Protobuf or JSON, before it decodes it: a megabyte of empty texts
// would take forty. Answers are as Connect's own codecs write them.
func Codecs(fields *Fields) connect.HandlerOption {
	return connect.WithHandlerOptions(connect.WithCodec(binary{fields}),
		connect.WithCodec(text{"json", fields.Most}), connect.WithCodec(text{"json; charset=utf-8", fields.Most}))
}

// binary is the codec of messages in Protobuf.
type binary struct{ fields *Fields }

// Name implements connect.Codec.
func (binary) Name() string { return "proto" }

// Marshal implements connect.Codec.
func (c binary) Marshal(m any) ([]byte, error) { return c.MarshalAppend(nil, m) }

// MarshalAppend appends to a buffer of Connect's, so that an answer takes no other one.
func (binary) MarshalAppend(to []byte, m any) ([]byte, error) {
	if m, ok := m.(proto.Message); ok {
		return proto.MarshalOptions{}.MarshalAppend(to, m) //nolint:wrapcheck // Connect wraps it
	}
	return nil, errMalformed
}

// Unmarshal implements connect.Codec.
func (c binary) Unmarshal(data []byte, m any) error {
	if err := NewScanner(c.fields).Scan(data); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		return proto.Unmarshal(data, m) //nolint:wrapcheck // Connect wraps it
	}
	return errMalformed
}

// text is the codec of messages in JSON.
type text struct {
	name string
	most int
}

// Name implements connect.Codec.
func (c text) Name() string { return c.name }

// Marshal implements connect.Codec.
func (text) Marshal(m any) ([]byte, error) {
	if m, ok := m.(proto.Message); ok {
		return protojson.Marshal(m) //nolint:wrapcheck // Connect wraps it
	}
	return nil, errMalformed
}

// Unmarshal implements connect.Codec.
func (c text) Unmarshal(data []byte, m any) error {
	if err := JSON(data, c.most); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok && len(data) > 0 {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m) //nolint:wrapcheck // Connect wraps it
	}
	return errMalformed
}
