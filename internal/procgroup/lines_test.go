package procgroup_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
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

// Who prints more than anybody gets has each of its lines counted, and the last ones kept, and no more done for it: a process that prints
// line feeds alone would else have its host work a hundred times as long as it does itself.
func TestLines_AFloodIsPassedOver(t *testing.T) {
	t.Parallel()
	const pieces, each = 256, 4096
	now, looks := time.Unix(0, 0), 0
	clock := func() time.Time { looks++; return now }
	lines := 0
	take := func(l procgroup.Line) {
		if lines += l.Dropped; l.Text != "" || l.Dropped == 0 {
			lines++
		}
	}
	tail := &procgroup.Tail{}
	l := procgroup.NewLines(procgroup.Stdout, clock, tail, take)
	for range pieces {
		_, _ = l.Write([]byte(strings.Repeat("x\n", each) + "half of a "))
	}
	_, _ = l.Write([]byte("line\n" + strings.Repeat("y\n", procgroup.TailLines-1) + "z"))
	_ = l.Close()
	if want := pieces*each + procgroup.TailLines + 1; lines != want { // each half begins a line of the next piece
		t.Errorf("%d lines are passed on or counted, want %d", lines, want)
	}
	want := append(slices.Repeat([]string{"y"}, procgroup.TailLines-1), "z")
	if got := tail.Lines(); !slices.Equal(got, want) {
		t.Errorf("the last lines are %q", got)
	}
	if most := pieces*(procgroup.TailLines+3) + 2*each; looks > most {
		t.Errorf("it looks at %d of %d lines, want %d at most", looks, lines, most)
	}
	now = now.Add(time.Second)
	_, _ = l.Write([]byte(strings.Repeat("\n", each)))
	if got := tail.Lines(); len(got) != procgroup.TailLines {
		t.Errorf("a second later: %q", got)
	}
}

// endless is a stream of so many bytes that are always there.
type endless int

func (e *endless) Read(p []byte) (int, error) {
	if *e == 0 {
		return 0, io.EOF
	}
	n := min(len(p), int(*e))
	*e -= endless(n)
	return n, nil
}

// A process that prints as fast as it can waits, so that reading it takes its host little time; one that prints much does not.
func TestLines_AFloodIsReadInTime(t *testing.T) {
	t.Parallel()
	for much, least := range map[int]time.Duration{6 << 20: 0, 120 << 20: 1900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			begun, in := time.Now(), endless(much)
			if n, err := procgroup.NewLines(procgroup.Stdout, time.Now, nil, nil).ReadFrom(&in); n != int64(much) || err != nil {
				t.Errorf("%d, %v", n, err)
			}
			if took := time.Since(begun); took < least || took > least+time.Second/2 {
				t.Errorf("%d bytes take %v, want %v", much, took, least)
			}
		})
	}
}
