package glyphs_test

import (
	"testing"
	"unicode"

	"github.com/masegraye/connect-plugin-go/internal/glyphs"
)

// Everything that changes a text without being seen is named here by what Unicode calls it.
func TestAudit_H49_CharactersThatNobodySees(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		hidden := unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co, unicode.Zl, unicode.Zp, unicode.Bidi_Control,
			unicode.Join_Control, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
		if hidden && glyphs.Seen(r) {
			t.Errorf("%U is shown", r)
		}
		if !hidden && r != 0x2800 && unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S) && !glyphs.Seen(r) {
			t.Errorf("%U is not shown", r)
		}
	}
	for _, r := range []rune{0xad, 0x34f, 0x115f, 0x180e, 0x200b, 0x200d, 0x202e, 0x2060, 0x2064, 0x2800, 0x3164, 0xfe0f, 0xfeff, 0xfff9, 0xfffb, 0xe0001, 0xe0041, 0xe0100} {
		if text := "a" + string(r) + "b"; glyphs.Seen(r) || glyphs.Text(text) != "a\ufffdb" {
			t.Errorf("%U: %q", r, glyphs.Text(text))
		}
	}
	if s := "{\"a\": \"ü é 🚀\"}\n\t"; glyphs.Text(s) != s {
		t.Errorf("%q", glyphs.Text(s))
	}
}
