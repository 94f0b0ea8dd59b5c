package projecttest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	adminv1 "github.com/masegraye/connect-plugin-go/gen/admin/v1"
	loggerv1 "github.com/masegraye/connect-plugin-go/gen/capability/logger/v1"
	connectpluginv1 "github.com/masegraye/connect-plugin-go/gen/plugin/v1"
)

// generatedFiles are the files of the wire, as the generated code describes them.
func generatedFiles() []protoreflect.FileDescriptor {
	return []protoreflect.FileDescriptor{
		adminv1.File_admin_v1_admin_proto,
		loggerv1.File_capability_logger_v1_logger_proto,
		connectpluginv1.File_plugin_v1_broker_proto,
		connectpluginv1.File_plugin_v1_handshake_proto,
		connectpluginv1.File_plugin_v1_health_proto,
		connectpluginv1.File_plugin_v1_lifecycle_proto,
		connectpluginv1.File_plugin_v1_plugininfo_proto,
		connectpluginv1.File_plugin_v1_registry_proto,
	}
}

// The generated code has the first version and the additions, and nothing that neither lists.
func TestWireIsFirstVersionAndAdditions(t *testing.T) {
	t.Parallel()
	additions := factsOf(readLines(t, "wire", "additions.txt"))
	first := slices.DeleteFunc(factsOf(readLines(t, "wire", "messages.txt")), func(fact string) bool { return filled(fact, additions) })
	compareFacts(t, describeFiles(generatedFiles()), append(first, additions...))
}

// filled reports whether a fact says that a message is empty to which the additions added.
func filled(fact string, additions []string) bool {
	message, empty := strings.CutSuffix(fact, " (empty)")
	return empty && slices.ContainsFunc(additions, func(a string) bool { return strings.HasPrefix(a, message+"  ") })
}

// The image that buf compares proto/ with is the first version and nothing else.
func TestFirstVersionImageHoldsTheFirstVersion(t *testing.T) {
	t.Parallel()
	compareFacts(t, describeFiles(imageFiles(t)), factsOf(readLines(t, "wire", "messages.txt")))
}

// A peer of the first version and one of today read each other's messages: what one knows arrives.
func TestFirstVersionPeersUnderstandEachOther(t *testing.T) {
	t.Parallel()
	for _, file := range imageFiles(t) {
		for i := range file.Messages().Len() {
			first := file.Messages().Get(i)
			t.Run(string(first.FullName()), func(t *testing.T) {
				t.Parallel()
				now, err := protoregistry.GlobalTypes.FindMessageByName(first.FullName())
				if err != nil {
					t.Fatal(err)
				}
				for j := range first.Fields().Len() {
					old := first.Fields().Get(j)
					current := now.Descriptor().Fields().ByNumber(old.Number())
					if current == nil || current.Kind() != old.Kind() || current.JSONName() != old.JSONName() {
						t.Errorf("%s is %v now", old.FullName(), current)
					}
				}
			})
		}
	}
}

// imageFiles returns the files of the first version's image.
func imageFiles(t *testing.T) []protoreflect.FileDescriptor {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "wire", "first_version.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	registry, err := protodesc.NewFiles(&set)
	if err != nil {
		t.Fatal(err)
	}
	var files []protoreflect.FileDescriptor
	registry.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		files = append(files, f)
		return true
	})
	return files
}

// compareFacts reports what is on one side only.
func compareFacts(t *testing.T, got, want []string) {
	t.Helper()
	if len(want) == 0 {
		t.Fatal("nothing to compare with")
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("missing: %s", w)
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			t.Errorf("not listed: %s", g)
		}
	}
}

// factsOf puts the file before each fact, so that the order of the lines does not matter.
func factsOf(lines []string) []string {
	var file string
	var facts []string
	for _, l := range lines {
		if strings.HasPrefix(l, "file ") {
			file = l
			continue
		}
		facts = append(facts, file+":"+l)
	}
	return facts
}

// describeFiles writes files in the format of messages.txt.
func describeFiles(files []protoreflect.FileDescriptor) []string {
	var lines []string
	for _, f := range files {
		lines = append(lines, fmt.Sprintf("file %s package %s", f.Path(), f.Package()))
		for i := range f.Services().Len() {
			lines = append(lines, describeService(f.Services().Get(i))...)
		}
		for i := range f.Messages().Len() {
			lines = append(lines, describeMessage(f.Messages().Get(i))...)
		}
		for i := range f.Enums().Len() {
			e := f.Enums().Get(i)
			for j := range e.Values().Len() {
				v := e.Values().Get(j)
				lines = append(lines, fmt.Sprintf("  enum %s  %d %s", e.Name(), v.Number(), v.Name()))
			}
		}
	}
	return factsOf(lines)
}

func describeService(s protoreflect.ServiceDescriptor) []string {
	var lines []string
	for i := range s.Methods().Len() {
		m := s.Methods().Get(i)
		in, out := string(m.Input().Name()), string(m.Output().Name())
		if m.IsStreamingClient() {
			in = "stream " + in
		}
		if m.IsStreamingServer() {
			out = "stream " + out
		}
		lines = append(lines, fmt.Sprintf("  rpc %s.%s(%s) -> %s", s.Name(), m.Name(), in, out))
	}
	return lines
}

func describeMessage(m protoreflect.MessageDescriptor) []string {
	if m.Fields().Len() == 0 {
		return []string{fmt.Sprintf("  message %s (empty)", m.Name())}
	}
	var lines []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		lines = append(lines, fmt.Sprintf("  message %s  %d %s %s", m.Name(), f.Number(), f.Name(), describeType(f)))
	}
	return lines
}

func describeType(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s,%s>", describeType(f.MapKey()), describeType(f.MapValue()))
	case f.HasOptionalKeyword():
		return "optional " + describeKind(f)
	case f.IsList():
		return "repeated " + describeKind(f)
	default:
		return describeKind(f)
	}
}

func describeKind(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Message() != nil:
		return string(f.Message().Name())
	case f.Enum() != nil:
		return string(f.Enum().Name())
	default:
		return f.Kind().String()
	}
}
