package extent_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/internal/extent"
)

// Whatever has too much is named, wherever it is.
func TestBounds(t *testing.T) {
	t.Parallel()
	bounds := extent.Bounds{Entries: 2, Bytes: 5}
	file := func(f *descriptorpb.FileDescriptorProto) proto.Message {
		return &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{f}}
	}
	structure := func(keys ...string) proto.Message {
		s := &structpb.Struct{Fields: map[string]*structpb.Value{}}
		for _, key := range keys {
			s.Fields[key] = structpb.NewStringValue(key)
		}
		return s
	}
	for name, c := range map[string]struct {
		message proto.Message
		want    string
	}{
		"nothing":                {&wrapperspb.StringValue{}, ""},
		"a text":                 {wrapperspb.String("12345"), ""},
		"a text too long":        {wrapperspb.String("123456"), "value: has 6 bytes, at most 5 are allowed"},
		"bytes too long":         {wrapperspb.Bytes(make([]byte, 6)), "value: has 6 bytes"},
		"a number":               {wrapperspb.Int64(1 << 60), ""},
		"a list":                 {file(&descriptorpb.FileDescriptorProto{Dependency: []string{"a", "b"}}), ""},
		"a list too long":        {file(&descriptorpb.FileDescriptorProto{Dependency: []string{"a", "b", "c"}}), "dependency: has 3 entries, at most 2 are allowed"},
		"a text in a list":       {file(&descriptorpb.FileDescriptorProto{Dependency: []string{"a", "123456"}}), "file: dependency: has 6 bytes"},
		"a text in a message":    {file(&descriptorpb.FileDescriptorProto{Options: &descriptorpb.FileOptions{GoPackage: new("123456")}}), "go_package: has 6"},
		"a map":                  {structure("a", "12345"), ""},
		"a map too long":         {structure("a", "b", "c"), "fields: has 3 entries"},
		"a key too long":         {structure("123456"), "fields: has 6 bytes"},
		"numbers, however many":  {file(&descriptorpb.FileDescriptorProto{PublicDependency: []int32{1 << 30, 2}}), ""},
		"numbers, more than may": {file(&descriptorpb.FileDescriptorProto{PublicDependency: []int32{1, 2, 3}}), "has 3 entries"},
	} {
		err := bounds.Check(c.message.ProtoReflect())
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
