// Package bom finds the byte order mark that some editors and shells put at the beginning of a text file (Unicode, 23.8), where
// nobody sees it and no reader of PEM or JSON (RFC 8259, 8.1) takes it.
package bom

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// ErrFound is returned for data with a byte order mark.
var ErrFound = errors.New("it begins with a byte order mark")

const unit = 2 // bytes of a unit of UTF-16

var marks = []struct {
	bytes []byte
	of    string
	text  func([]byte) bool // whether what follows it is text
}{
	{[]byte("\xef\xbb\xbf"), "UTF-8", isText},
	{[]byte("\xff\xfe"), "UTF-16", func(b []byte) bool { return isWide(b, binary.LittleEndian) }},
	{[]byte("\xfe\xff"), "UTF-16", func(b []byte) bool { return isWide(b, binary.BigEndian) }},
}

// Check returns an error that says what to do where a text begins with a mark.
func Check(text []byte) error {
	for _, m := range marks {
		if bytes.HasPrefix(text, m.bytes) {
			return fmt.Errorf("%w (% X, of %s): save the file as UTF-8 without one", ErrFound, m.bytes, m.of)
		}
	}
	return nil
}

// CheckSecret is Check for what may be any bytes, which begin so by chance: what follows has to be text as well.
func CheckSecret(secret []byte) error {
	for _, m := range marks {
		if after, found := bytes.CutPrefix(secret, m.bytes); found && m.text(after) {
			return Check(secret)
		}
	}
	return nil
}

func isText(b []byte) bool {
	return utf8.Valid(b) && bytes.IndexFunc(b, func(r rune) bool { return !unicode.IsPrint(r) && !unicode.IsSpace(r) }) < 0
}

// isWide reports whether b is UTF-16 of ASCII: half of what is random is some character of Unicode.
func isWide(b []byte, order binary.ByteOrder) bool {
	if len(b)%unit != 0 {
		return false
	}
	units := make([]uint16, 0, len(b)/unit)
	for ; len(b) > 0; b = b[unit:] {
		if units = append(units, order.Uint16(b)); units[len(units)-1] > unicode.MaxASCII {
			return false
		}
	}
	return isText([]byte(string(utf16.Decode(units))))
}
