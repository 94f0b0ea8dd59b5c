package prescan_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/masegraye/connect-plugin-go/internal/prescan"
)

var fields = prescan.Fields{Known: map[protowire.Number]prescan.Field{
	1: {Name: "name", Bytes: 5}, 2: {Name: "list", Count: 3, Bytes: 4},
}, Most: 10}

func text(to []byte, number protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(to, number, protowire.BytesType), value)
}

// Whatever pieces a message comes in, what is too much of it is noticed where it begins.
func TestScanner(t *testing.T) {
	t.Parallel()
	varint := func(to []byte, n protowire.Number) []byte {
		return protowire.AppendVarint(protowire.AppendTag(to, n, protowire.VarintType), 1<<60)
	}
	fixed := protowire.AppendFixed32(protowire.AppendTag(protowire.AppendFixed64(protowire.AppendTag(nil, 7, protowire.Fixed64Type), 1), 8, protowire.Fixed32Type), 1)
	for name, c := range map[string]struct {
		message []byte
		want    string
	}{
		"empty":                {nil, ""},
		"within the bounds":    {text(text(varint(text(text(nil, 1, "12345"), 2, "1234"), 9), 2, ""), 2, "4"), ""},
		"too long":             {text(nil, 1, "123456"), "name: has more than 5 bytes"},
		"an entry too long":    {text(nil, 2, "12345"), "list: has more than 4 bytes"},
		"too many":             {bytes.Repeat(text(nil, 2, ""), 4), "list: has more than 3 entries"},
		"too many, apart":      {append(append(bytes.Repeat(text(nil, 2, "x"), 3), fixed...), text(nil, 2, "")...), "list: has more than 3 entries"},
		"inside of a value":    {text(nil, 9, string(bytes.Repeat(text(nil, 2, ""), 9))), ""},
		"unknown, too many":    {bytes.Repeat(varint(nil, 9), 11), "more than 10 fields"},
		"groups":               {bytes.Repeat(protowire.AppendTag(nil, 9, protowire.StartGroupType), 11), "more than 10 fields"},
		"fixed":                {fixed, ""},
		"malformed":            {bytes.Repeat([]byte{0xff}, 100), ""},
		"a length that is not": {append(protowire.AppendTag(nil, 1, protowire.BytesType), 0xff, 0xff, 0xff, 0xff, 0x0f), "name: has more than 5 bytes"},
		"no wire type":         {[]byte{0x0f, 0x0f}, ""},
	} {
		for _, size := range []int{1, 3, len(c.message) + 1} {
			s, problem := prescan.NewScanner(&fields), ""
			for rest := c.message; len(rest) > 0 && problem == ""; rest = rest[min(size, len(rest)):] {
				if err := s.Scan(rest[:min(size, len(rest))]); err != nil {
					problem = err.Error()
				}
			}
			if (problem == "") != (c.want == "") || !strings.Contains(problem, c.want) {
				t.Errorf("%s, in pieces of %d: %q, want %q", name, size, problem, c.want)
			}
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		`{"a":["b","c"]}`:                   true,
		`{"a":"[,,,,{{{"}`:                  true,
		`{"a":"\"[,,,,{{{"}`:                true,
		`{"a":[1,2,3]}`:                     true,
		`{"a":[1,2,3,4]}`:                   false,
		`{"a":[{},{},{}]}`:                  false,
		`{"a":"\\",` + `"b":[[],[],[],[]]}`: false,
	} {
		if err := prescan.JSON([]byte(text), 4); (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
	}
}
