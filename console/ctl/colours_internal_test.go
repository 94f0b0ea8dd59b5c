package ctl

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Colours are for a terminal whose owner wants them, and for nothing else.
func TestColours(t *testing.T) { // not parallel: it sets the environment
	terminal, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	_, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{terminal, file, pipe} {
		t.Cleanup(func() { _ = f.Close() })
	}
	for _, test := range []struct {
		name, term, noColor string
		to                  io.Writer
		want                bool
	}{
		{"a terminal", "xterm", "", terminal, true},
		{"a terminal without colours", "dumb", "", terminal, false},
		{"a terminal whose owner wants none", "xterm", "1", terminal, false},
		{"a pipe", "xterm", "", pipe, false},
		{"a file", "xterm", "", file, false},
		{"memory", "xterm", "", &bytes.Buffer{}, false},
	} {
		t.Setenv("TERM", test.term)
		t.Setenv("NO_COLOR", test.noColor)
		if got := colours(test.to); got != test.want {
			t.Errorf("%s: coloured: %v", test.name, got)
		}
	}
}
