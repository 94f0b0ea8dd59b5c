package main

import (
	"go/token"
	"go/types"
	"strings"
	"unicode"
)

// scope hands out Go names that are not taken.
type scope map[string]bool

// newScope returns a scope in which others' names are taken.
func newScope(others scope) scope {
	s := make(scope, len(others))
	for name := range others {
		s[name] = true
	}
	return s
}

// take returns the name, or one like it that is free, and takes it. Keywords and what
// Go declares itself are never free.
func (s scope) take(name string) string {
	for s[name] || token.IsKeyword(name) || types.Universe.Lookup(name) != nil || name == "_" || name == "init" || name == "main" {
		name += "_"
	}
	s[name] = true
	return name
}

// unexported returns a name with a small beginning: "URL" becomes "url", "UserId"
// becomes "userId".
func unexported(name string) string {
	if name == strings.ToUpper(name) {
		return strings.ToLower(name)
	}
	r := []rune(name)
	r[0] = unicode.ToLower(r[0])
	return string(r)
}
