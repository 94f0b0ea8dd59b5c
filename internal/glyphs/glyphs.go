// Package glyphs says which characters of a text from somebody else are shown to people, on a terminal, in a log or on
// a page: those that one sees.
package glyphs

import (
	"strings"
	"unicode"
)

// blank is a letter of braille without a dot.
const blank = '\u2800'

// Seen reports whether a character is one that people see, or an ordinary blank. No control character is, and none that
// changes the direction of others, joins, tags or varies them, or takes no place at all.
func Seen(r rune) bool {
	return unicode.IsPrint(r) && r != blank && !unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
}

// Text replaces characters that nobody sees, but for ASCII ones, which a format may be made of.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= unicode.MaxASCII || Seen(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}
