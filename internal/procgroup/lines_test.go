package procgroup_test

import (
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/procgroup"
)

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", procgroup.MaxLine)
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"one", "a\n", "a"},
		{"without end", "a\nb", "a|b"},
		{"with carriage returns", "a\r\nb\r\n", "a|b"},
		{"empty lines", "\n\na\n", "||a"},
		{"the longest", long + "\na\n", long + "|a"},
		{"too long", long + "y\na\n", long + "…|a"},
		{"too long without end", long + long, long + "…"},
	} {
		for _, way := range []string{"at once", "byte by byte"} {
			t.Run(tt.name+" "+way, func(t *testing.T) {
				t.Parallel()
				var got []string
				tail := &procgroup.Tail{}
				l := procgroup.NewLines(procgroup.Stderr, time.Now, tail, func(line procgroup.Line) { got = append(got, line.Text) })
				r := strings.NewReader(tt.in)
				var err error
				if way == "at once" {
					_, err = l.ReadFrom(r)
				} else {
					_, err = l.ReadFrom(iotest.OneByteReader(r))
				}
				if joined := strings.Join(got, "|"); joined != tt.want || err != nil {
					t.Errorf("got %.60q, %v", joined, err)
				}
				if !slices.Equal(tail.Lines(), got) {
					t.Errorf("tail %.60q", tail.Lines())
				}
			})
		}
	}
}

func TestLinesPerSecond(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	var got []procgroup.Line
	tail := &procgroup.Tail{}
	l := procgroup.NewLines(procgroup.Stdout, func() time.Time { return now }, tail, func(line procgroup.Line) {
		got = append(got, line)
		if len(got) == procgroup.LinesPerSecond {
			now = now.Add(time.Second / 2) // not yet
		}
	})
	in := strings.Repeat("x\n", procgroup.LinesPerSecond+7) + "last\n"
	if _, err := l.ReadFrom(strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if len(got) != procgroup.LinesPerSecond+1 || got[len(got)-1].Dropped != 8 || got[len(got)-1].Text != "" {
		t.Errorf("%d lines, the last is %+v", len(got), got[len(got)-1])
	}
	if lines := tail.Lines(); len(lines) != procgroup.TailLines || lines[len(lines)-1] != "last" {
		t.Errorf("tail %q", lines)
	}
	now = now.Add(time.Second)
	if _, err := l.ReadFrom(strings.NewReader("again\n")); err != nil || got[len(got)-1].Text != "again" {
		t.Errorf("after a second: %+v, %v", got[len(got)-1], err)
	}
}
