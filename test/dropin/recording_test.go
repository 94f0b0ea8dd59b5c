package dropin_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// exchange is one recorded call of the first wire version.
type exchange struct {
	rpc    string // the procedure, without its first slash
	stream bool   // one request and several answers, of which the first is recorded
	fields map[string]string
}

// recordings returns the exchanges of a file in testdata.
func recordings(t *testing.T, name string) []exchange {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var all []exchange
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case key == "rpc" || key == "stream":
			all = append(all, exchange{rpc: value, stream: key == "stream", fields: map[string]string{}})
		case key != "" && key != "#":
			all[len(all)-1].fields[key] = value
		}
	}
	return all
}

// known are the values of $NAME.
type known map[string]string

// fill puts values in the place of names.
func (k known) fill(text string) string {
	for _, name := range slices.Sorted(maps.Keys(k)) {
		text = strings.ReplaceAll(text, "$"+name, k[name])
	}
	return text
}

// bytesOf returns what a text says byte by byte: pairs of hexadecimal digits, texts in quotes, and in braces
// what has its length before it.
func bytesOf(t *testing.T, text string) []byte {
	t.Helper()
	levels := [][]byte{nil}
	for text = strings.TrimLeft(text, " "); text != ""; text = strings.TrimLeft(text, " ") {
		top := &levels[len(levels)-1]
		n := 1
		switch text[0] {
		case '{':
			levels = append(levels, nil)
		case '}':
			inner := *top
			levels = levels[:len(levels)-1]
			top = &levels[len(levels)-1]
			*top = protowire.AppendBytes(*top, inner)
		case '"':
			n = strings.IndexByte(text[1:], '"') + 2
			*top = append(*top, text[1:n-1]...)
		default:
			n = 2
			b, err := hex.DecodeString(text[:n])
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			*top = append(*top, b...)
		}
		text = text[n:]
	}
	return levels[0]
}

// firstVersion are the files of the first wire version.
func firstVersion(t *testing.T) *protoregistry.Files {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "internal", "projecttest", "testdata", "wire", "first_version.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		t.Fatal(err)
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// method returns what the first version says of a procedure.
func method(t *testing.T, files *protoregistry.Files, rpc string) protoreflect.MethodDescriptor {
	t.Helper()
	d, err := files.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(rpc, "/", ".")))
	if err != nil {
		t.Fatal(rpc, err)
	}
	return d.(protoreflect.MethodDescriptor)
}

// understood returns a message as a peer of the first version understands it: what it does not know it passes over.
func understood(t *testing.T, d protoreflect.MessageDescriptor, codec string, raw []byte) map[string]any {
	t.Helper()
	m := dynamicpb.NewMessage(d)
	var err error
	if codec == "json" {
		err = protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m)
	} else {
		err = proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, m)
	}
	if err != nil {
		t.Fatalf("%s %q: %v", codec, raw, err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return object(t, string(text))
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	m := map[string]any{}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// learn compares what was said with what should have been, and takes note of what stands where a name is. It
// returns whether all that should be there is.
func (k known) learn(want, got any) bool {
	switch w := want.(type) {
	case string:
		name, isName := strings.CutPrefix(w, "$")
		text, isText := got.(string)
		if isName && k[name] == "" && isText && text != "" {
			k[name] = text
		}
		return isText && text == k.fill(w)
	case map[string]any:
		g, ok := got.(map[string]any)
		for key, value := range w {
			ok = ok && k.learn(value, g[key])
		}
		return ok
	case []any:
		g, ok := got.([]any)
		ok = ok && len(g) == len(w)
		for i := range w {
			ok = ok && k.learn(w[i], g[i])
		}
		return ok
	default:
		return reflect.DeepEqual(want, got)
	}
}

// enveloped returns a message of a stream, as Connect sends it.
func enveloped(flags byte, message []byte) []byte {
	return append([]byte{flags, 0, 0, byte(len(message) >> 8), byte(len(message))}, message...)
}

// The two forms of each recording say the same, and every procedure of the first version is recorded.
func TestRecordings(t *testing.T) {
	t.Parallel()
	files := firstVersion(t)
	missing := map[string]bool{}
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				missing[string(s.FullName())+"/"+string(s.Methods().Get(j).Name())] = true
			}
		}
		return true
	})
	for file, request := range map[string]bool{"to_host.txt": true, "to_client.txt": false} {
		for _, e := range recordings(t, file) {
			m := method(t, files, e.rpc)
			d := m.Output()
			if request {
				d = m.Input()
			}
			delete(missing, e.rpc)
			fromJSON, fromProto := understood(t, d, "json", []byte(e.fields["json"])), understood(t, d, "proto", bytesOf(t, e.fields["proto"]))
			if !reflect.DeepEqual(fromJSON, fromProto) || m.IsStreamingServer() != e.stream {
				t.Errorf("%s: %s: JSON says %v, the bytes %v", file, e.rpc, fromJSON, fromProto)
			}
			if !bytes.Equal(bytesOf(t, `0a {12 {"a"}}`), []byte{0x0a, 3, 0x12, 1, 'a'}) {
				t.Fatal("bytesOf")
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("no recording of %v", slices.Sorted(maps.Keys(missing)))
	}
}
