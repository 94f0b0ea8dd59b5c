package ctl

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/masegraye/connect-plugin-go/internal/glyphs"
)

// table writes rows in columns. Cells come from peers: what could steer a terminal is replaced.
type table struct {
	t      *tool
	w      *tabwriter.Writer
	titles []string
	rows   int
}

func (t *tool) table(titles ...string) *table {
	return &table{t: t, w: tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0), titles: titles}
}

// row adds a row.
func (b *table) row(cells ...string) {
	if b.rows == 0 {
		fmt.Fprintln(b.w, strings.Join(b.titles, "\t"))
	}
	b.rows++
	for i, c := range cells {
		if cells[i] = line(c); c == "" {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(b.w, strings.Join(cells, "\t"))
}

// end writes the table, or that there is nothing.
func (b *table) end(nothing string) error {
	if b.rows == 0 {
		_, err := fmt.Fprintln(b.t.out, nothing)
		return err
	}
	return b.w.Flush()
}

// clean replaces what is no printable character.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if glyphs.Seen(r) || r == '\n' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// line is clean without line feeds.
func line(s string) string { return strings.ReplaceAll(clean(s), "\n", "\ufffd") }

// Colours of a terminal.
const (
	red    = "31"
	yellow = "33"
	green  = "32"
)

// paint colours a whole line, where that is wanted.
func (t *tool) paint(colour, s string) string {
	if !t.colour || colour == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// message writes a message as one JSON object, on one line where it is part of a stream.
func (t *tool) message(m proto.Message, stream bool) error {
	o := protojson.MarshalOptions{Multiline: !stream, EmitUnpopulated: !stream}
	b, err := o.Marshal(m)
	if err != nil {
		return err
	}
	_, err = io.WriteString(t.out, escaped(string(b))+"\n")
	return err
}

// escaped is JSON that means the same, in which what could steer a terminal is written as numbers. Strings alone have such characters.
func escaped(json string) string {
	var b strings.Builder
	for _, r := range json {
		if r < unicode.MaxASCII || glyphs.Seen(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// age says how long ago something was, short.
func age(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return short(time.Since(at.AsTime()))
}

// until says in what time something is.
func until(at *timestamppb.Timestamp) string {
	if at == nil {
		return ""
	}
	return short(time.Until(at.AsTime()))
}

func short(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 0:
		return "over"
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d/day))
}
