//nolint:wrapcheck // errors of the framer end an attack, and nobody looks at them
package kinds

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/bench/stage"
)

const (
	shortFields = 700  // that one call has, each of a few bytes
	sameField   = 900  // times that a call has one
	longQuery   = 7000 // escaped characters, of four bytes each
	wordy       = 3900 // bytes of a field that is one byte where it comes again
	again       = 12_000
)

// wordyCalls are calls of a provider whose heads take the host longer than their bytes say.
func wordyCalls() []Kind {
	short := make([]string, 0, 2*shortFields)
	for i := range shortFields {
		short = append(short, fmt.Sprintf("x-%03d", i), "")
	}
	post := []string{fieldMethod, http.MethodPost, fieldPath, routePath + stage.Say}
	same := append(slices.Clip(post), slices.Repeat([]string{"x", ""}, sameField)...)
	query := "?connect=v1&encoding=proto&base64=1&message=" + strings.Repeat("e%41", longQuery)
	return []Kind{
		{Who: Plugin, Name: "calls with 700 fields", run: flood(calls(append(slices.Clip(post), short...)...))},
		{Who: Plugin, Name: "calls with one field 900 times", run: flood(calls(same...))},
		{Who: Plugin, Name: "calls with a long query", run: flood(calls(fieldMethod, http.MethodGet, fieldPath, routePath+stage.Say+query))},
	}
}

// calls sends one head again and again. The fields come in pairs, the pseudo-header fields first.
func calls(fields ...string) func(c *conn, i uint32) error {
	var head []byte
	return func(c *conn, i uint32) error {
		if i == 0 {
			head = c.literal(append([]string{fieldScheme, "https", fieldAuthority, c.attack.addr}, fields...))
		}
		_, err := c.open(head, true)
		return err
	}
}

// literal is a header block that means the same whatever was sent before.
func (c *conn) literal(fields []string) []byte {
	fields = append(fields, "content-type", "application/proto", "connect-protocol-version", "1",
		"x-plugin-runtime-id", c.attack.client.RuntimeID(), "authorization", "Bearer "+c.attack.client.RuntimeToken())
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.fields.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true})
	}
	return bytes.Clone(c.block.Bytes())
}

// wordyEndings sends heads on streams that have ended, each 16 KiB that stand for 45 MB.
func wordyEndings(s *served, id uint32) error {
	s.block.Reset()
	_ = s.fields.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("z", wordy)})
	block := append(bytes.Clone(s.block.Bytes()), bytes.Repeat([]byte{62 | 0x80}, again)...) // the newest of the table
	if err := s.head(id, true, http.StatusNoContent); err != nil {
		return err
	}
	if err := s.WriteData(id, true, nil); err != nil {
		return err
	}
	return repeat(func(s *served, id uint32) error {
		return s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
	})(s, id)
}
