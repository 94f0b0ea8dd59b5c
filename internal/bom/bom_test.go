package bom_test

import (
	"errors"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/bom"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		data         string
		text, secret bool // whether they are refused
	}{
		"nothing":                       {},
		"without":                       {data: "{}"},
		"further on":                    {data: "{\xef\xbb\xbf}"},
		"half of one":                   {data: "\xef\xbb"},
		"UTF-8":                         {"\xef\xbb\xbfhunter2 and hunter3\r\n", true, true},
		"UTF-8, other letters":          {"\xef\xbb\xbfgeheim und grün", true, true},
		"UTF-16, little endian":         {"\xff\xfeh\x00u\x00\n\x00", true, true},
		"UTF-16, big endian":            {"\xfe\xff\x00h\x00u\x00\n", true, true},
		"a mark alone":                  {"\xef\xbb\xbf", true, true},
		"random after that of UTF-8":    {"\xef\xbb\xbf\x00\x9c\xd1\x7f", true, false},
		"control characters after it":   {"\xef\xbb\xbfab\x01c", true, false},
		"random after that of UTF-16":   {"\xff\xfe\x10\x9c\xd1\x7f", true, false},
		"odd bytes after one of UTF-16": {"\xff\xfeh\x00u", true, false},
	} {
		if err := bom.Check([]byte(tt.data)); errors.Is(err, bom.ErrFound) != tt.text {
			t.Errorf("%s: as text %v", name, err)
		}
		if err := bom.CheckSecret([]byte(tt.data)); errors.Is(err, bom.ErrFound) != tt.secret {
			t.Errorf("%s: as a secret %v", name, err)
		}
	}
}
