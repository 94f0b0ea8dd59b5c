package transcript_test

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/masegraye/connect-plugin-go/internal/transcript"
)

const label = "test"

func encode(m proto.Message, omit ...protoreflect.FieldNumber) []byte {
	t := transcript.New(label)
	t.Message(m, omit...)
	return t.Encoded()
}

// wire builds the wire form of fields of the message of everyKind.
func wire(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func wireBytes(number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

func wireInt(number protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, number, protowire.VarintType), value)
}

func wireDouble(number protowire.Number, value float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(nil, number, protowire.Fixed64Type), math.Float64bits(value))
}

// Field numbers of everyKind that the tests use: descriptor types 1 to 18 without
// the group, one below 20 and many above it.
const (
	oneDouble, oneInt64, oneInt32, oneString = 1, 3, 5, 9
	oneMessage, oneBytes, oneEnum            = 10, 11, 13
	manyInt64, manyString, manyMessage       = 23, 29, 30
	texts, numbers, flags, unsigned          = 41, 42, 43, 44
	left, right, explicit, notAField         = 45, 46, 47, 99
)

// distinct are wire forms of messages that all differ in meaning.
func distinct() [][]byte {
	const minusOne = math.MaxUint64
	return [][]byte{
		nil,
		wireBytes(oneString, "a"),
		wireBytes(oneString, "ab"),
		wireBytes(oneBytes, "a"),
		wireBytes(left, ""),
		wireBytes(right, ""),
		wireBytes(left, "a"),
		wireInt(oneInt32, 1),
		wireInt(oneInt32, minusOne),
		wireInt(oneInt64, 1),
		wireInt(oneInt64, minusOne),
		wireInt(oneEnum, 1),
		wireInt(oneEnum, minusOne),
		wireInt(explicit, 0),
		wireInt(explicit, 1),
		wireDouble(oneDouble, 1),
		wireDouble(oneDouble, math.Inf(1)),
		wireBytes(oneMessage, ""),
		wireBytes(oneMessage, string(wireBytes(oneString, "a"))),
		wireBytes(oneMessage, string(wireBytes(oneMessage, ""))),
		wireBytes(oneMessage, string(wireInt(notAField, 1))),
		wire(wireBytes(oneMessage, ""), wireInt(notAField, 1)),
		wireBytes(manyString, ""),
		wireBytes(manyString, "ab"),
		wire(wireBytes(manyString, "a"), wireBytes(manyString, "b")),
		wire(wireBytes(manyString, "b"), wireBytes(manyString, "a")),
		wire(wireBytes(manyString, "ab"), wireBytes(manyString, "")),
		wire(wireBytes(manyString, ""), wireBytes(manyString, "ab")),
		wireInt(manyInt64, 0),
		wire(wireInt(manyInt64, 0), wireInt(manyInt64, 0)),
		wireBytes(manyMessage, ""),
		wire(wireBytes(manyMessage, ""), wireBytes(manyMessage, "")),
		wire(wireBytes(manyMessage, string(wireBytes(oneString, "a"))), wireBytes(manyMessage, "")),
		wire(wireBytes(manyMessage, ""), wireBytes(manyMessage, string(wireBytes(oneString, "a")))),
		wireBytes(texts, string(wire(wireBytes(1, "a"), wireBytes(2, "b")))),
		wireBytes(texts, string(wire(wireBytes(1, "b"), wireBytes(2, "a")))),
		wireBytes(texts, string(wireBytes(1, "ab"))),
		wireBytes(texts, string(wireBytes(2, "ab"))),
		wireBytes(texts, ""),
		wire(wireBytes(texts, ""), wireBytes(texts, string(wireBytes(1, "a")))),
		wireBytes(numbers, ""),
		wire(wireBytes(numbers, string(wireInt(1, minusOne))), wireBytes(numbers, string(wireInt(1, 1)))),
		wireBytes(flags, ""),
		wireBytes(flags, string(wireInt(1, 1))),
		wireBytes(unsigned, string(wire(wireInt(1, minusOne), wireDouble(2, math.NaN())))),
		wireInt(notAField, 0),
		wireInt(notAField, 1),
		wireInt(notAField+1, 1),
		wireBytes(notAField, "a"),
		wire(wireInt(notAField, 1), wireInt(notAField, 1)),
		wire(wireInt(notAField, 1), wireInt(notAField, 0)),
	}
}

func TestMessage_DifferentMessagesEncodeDifferently(t *testing.T) {
	t.Parallel()
	md := everyKind(t)
	seen := make(map[string][]byte)
	for _, w := range distinct() {
		e := string(encode(newEvery(t, md, w)))
		if other, ok := seen[e]; ok {
			t.Errorf("%x and %x encode alike", w, other)
		}
		seen[e] = w
	}
}

func TestMessage_OrderOnTheWireMakesNoDifference(t *testing.T) {
	t.Parallel()
	md := everyKind(t)
	parts := [][]byte{
		wireBytes(oneString, "a"), wireInt(oneInt32, 7), wireBytes(texts, string(wireBytes(1, "x"))),
		wireBytes(texts, string(wireBytes(1, "yy"))), wireBytes(texts, string(wireBytes(1, "b"))),
		wireBytes(numbers, string(wireInt(1, 5))), wireBytes(numbers, string(wireInt(1, math.MaxUint64))),
	}
	forward := encode(newEvery(t, md, wire(parts...)))
	for range 20 { // map iteration is random
		backward := make([]byte, 0)
		for i := range parts {
			backward = append(backward, parts[len(parts)-1-i]...)
		}
		if got := encode(newEvery(t, md, backward)); !bytes.Equal(got, forward) {
			t.Fatalf("order changed the encoding\n%x\n%x", forward, got)
		}
	}
}

func TestMessage_Layout(t *testing.T) {
	t.Parallel()
	u64 := func(v string) string { return strings.Repeat("0", 16-len(v)) + v }
	prefix := u64("4") + hex.EncodeToString([]byte(label))
	tests := map[string]struct {
		give proto.Message
		want string
	}{
		"empty":  {&wrapperspb.StringValue{}, u64("0")},
		"string": {wrapperspb.String("hi"), u64("1") + u64("1") + "73" + u64("2") + "6869"},
		"bytes":  {wrapperspb.Bytes([]byte{0xff}), u64("1") + u64("1") + "62" + u64("1") + "ff"},
		"bool":   {wrapperspb.Bool(true), u64("1") + u64("1") + "69" + u64("1")},
		"negative integer and order of fields": {
			&timestamppb.Timestamp{Nanos: 3, Seconds: -2},
			u64("2") + u64("1") + "69fffffffffffffffe" + u64("2") + "69" + u64("3"),
		},
		"map, nested message and list": {
			&structpb.Struct{Fields: map[string]*structpb.Value{
				"b":  structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNullValue()}}),
				"aa": structpb.NewNumberValue(1),
			}},
			u64("1") + u64("1") + "6b" + u64("2") +
				"73" + u64("2") + "6161" + "6d" + u64("1") + u64("2") + "66" + "3ff0000000000000" +
				"73" + u64("1") + "62" + "6d" + u64("1") + u64("6") + "6d" + u64("1") + u64("1") + "6c" + u64("1") +
				"6d" + u64("1") + u64("1") + "69" + u64("0"),
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := hex.EncodeToString(encode(tt.give)); got != prefix+tt.want {
				t.Errorf("got  %s\nwant %s", got, prefix+tt.want)
			}
		})
	}
}

func TestMessage_OmitLeavesOutTopLevelFieldsOnly(t *testing.T) {
	t.Parallel()
	md := everyKind(t)
	nested := wireBytes(oneMessage, string(wireBytes(oneString, "in")))
	with := newEvery(t, md, wire(wireBytes(oneString, "out"), nested))
	without := newEvery(t, md, nested)
	if !bytes.Equal(encode(with, oneString), encode(without)) {
		t.Error("an omitted field is part of the encoding")
	}
	other := newEvery(t, md, wireBytes(oneMessage, string(wireBytes(oneString, "IN"))))
	if bytes.Equal(encode(without, oneString), encode(other, oneString)) {
		t.Error("a nested field of the omitted number is not part of the encoding")
	}
}

func TestTranscript_LabelAndOptionalValuesCount(t *testing.T) {
	t.Parallel()
	build := func(label string, steps ...func(*transcript.Transcript)) string {
		tr := transcript.New(label)
		for _, s := range steps {
			s(tr)
		}
		sum := tr.Sum()
		return string(sum[:])
	}
	value := func(b string) func(*transcript.Transcript) {
		return func(t *transcript.Transcript) { t.Bytes([]byte(b)) }
	}
	optional := func(b []byte) func(*transcript.Transcript) {
		return func(t *transcript.Transcript) { t.Optional(b) }
	}
	seen := make(map[string]int)
	for i, sum := range []string{
		build("a"), build("b"), build("ab"),
		build("a", value("")), build("a", value("b")), build("a", value("b"), value("")), build("a", value(""), value("b")),
		build("a", optional(nil), value("b")), build("a", optional([]byte("b"))),
		build("a", optional(nil)), build("a", optional([]byte{0})), build("a", optional([]byte{0, 0})),
	} {
		if j, ok := seen[sum]; ok {
			t.Errorf("transcripts %d and %d are alike", i, j)
		}
		seen[sum] = i
	}
	if build("a", optional(nil)) != build("a", optional([]byte{})) {
		t.Error("an empty optional value is not the same as an absent one")
	}
}

// FuzzMessage decodes what it encoded: the encoding has a left inverse, so it is
// injective.
func FuzzMessage(f *testing.F) {
	md := everyKind(f)
	for _, w := range distinct() {
		f.Add(w)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newEvery(t, md, data)
		back := dynamicpb.NewMessage(md)
		if err := decode(encode(m), label, back); err != nil {
			t.Fatalf("%v: %v", err, m)
		}
		if !proto.Equal(m, back) {
			t.Fatalf("%v came back as %v", m, back)
		}
		again, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encode(newEvery(t, md, again)), encode(m)) {
			t.Fatalf("%v encodes differently after a trip over the wire", m)
		}
	})
}

// FuzzMessagePair looks for two messages that differ and encode alike.
func FuzzMessagePair(f *testing.F) {
	md := everyKind(f)
	all := distinct()
	for i := range all {
		f.Add(all[i], all[(i+1)%len(all)])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		ma, mb := newEvery(t, md, a), newEvery(t, md, b)
		if bytes.Equal(encode(ma), encode(mb)) && !proto.Equal(ma, mb) {
			t.Fatalf("%v and %v encode alike", ma, mb)
		}
	})
}
