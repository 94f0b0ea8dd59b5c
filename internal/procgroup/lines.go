package procgroup

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// Bounds of what is taken of a process's output.
const (
	// MaxLine is the longest line, in bytes; what follows up to its end is dropped.
	MaxLine = 4 << 10
	// LinesPerSecond is how many lines of a stream are passed on in a second.
	LinesPerSecond = 100
	// TailLines is how many of the last lines are kept.
	TailLines = 20

	readSize = 16 << 10

	// mostAtOnce is how much of a stream is read in a time: to read all that a process can print takes half a processor.
	mostAtOnce = 6 << 20
	atOnce     = 100 * time.Millisecond
)

// Stream says where a line came from.
type Stream string

// The streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Line is a line that a process printed.
type Line struct {
	Stream Stream
	// Text is the line without its end, cut at MaxLine bytes. It is the process's own: it
	// may hold anything but a line feed.
	Text string
	// Dropped is how many lines before this one were not passed on, because there were too
	// many in a second. A line that only says so has no text.
	Dropped int
}

// Lines cuts one stream into lines. It reads as fast as the process prints, whatever is
// dropped, so that the process never waits, unless it prints 60 MiB in a second.
type Lines struct {
	// Fixed at creation.
	stream Stream
	now    func() time.Time
	emit   func(Line)
	tail   *Tail

	line    []byte
	cut     bool // the rest of the line is dropped
	second  time.Time
	passed  int
	dropped int
}

// NewLines makes what takes one stream. emit may be nil, and so may tail.
func NewLines(stream Stream, now func() time.Time, tail *Tail, emit func(Line)) *Lines {
	if emit == nil {
		emit = func(Line) {}
	}
	return &Lines{stream: stream, now: now, emit: emit, tail: tail}
}

// ReadFrom takes everything until r ends or breaks.
func (l *Lines) ReadFrom(r io.Reader) (int64, error) {
	buf := make([]byte, readSize)
	var total int64
	for since, read := time.Now(), 0; ; {
		n, err := r.Read(buf)
		total += int64(n)
		l.take(buf[:n])
		if read += n; read > mostAtOnce {
			<-time.After(atOnce - time.Since(since))
			since, read = time.Now(), 0
		}
		if err != nil {
			l.finish()
			if err == io.EOF {
				return total, nil
			}
			return total, err //nolint:wrapcheck // the reader's own error
		}
	}
}

// Write takes what comes next. It implements io.Writer, and has no error.
func (l *Lines) Write(p []byte) (int, error) {
	l.take(p)
	return len(p), nil
}

// Close passes on what is left. It implements io.Closer, and has no error.
func (l *Lines) Close() error {
	l.finish()
	return nil
}

func (l *Lines) take(p []byte) {
	p = p[l.skip(p):]
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			l.grow(p)
			return
		}
		l.grow(p[:i])
		l.end()
		p = p[i+1:]
	}
}

// skip passes over lines that nobody gets, of which there may be thousands in what one read brings: who prints nothing but line feeds
// would have this process work a hundred times as long as it does itself. It returns how much that is.
func (l *Lines) skip(p []byte) int {
	n := bytes.Count(p, []byte{'\n'}) - TailLines
	if n <= 0 || l.passed < LinesPerSecond || l.now().Sub(l.second) >= time.Second {
		return 0
	}
	end := len(p)
	for range TailLines + 1 {
		end = bytes.LastIndexByte(p[:end], '\n')
	}
	l.line, l.cut = l.line[:0], false
	l.dropped += n
	return end + 1
}

// grow adds to the line what it has room for.
func (l *Lines) grow(p []byte) {
	if room := MaxLine - len(l.line); len(p) > room {
		p, l.cut = p[:room], true
	}
	l.line = append(l.line, p...)
}

// end ends the line.
func (l *Lines) end() {
	text := string(bytes.TrimSuffix(l.line, []byte("\r")))
	if l.cut {
		text += "…"
	}
	l.line, l.cut = l.line[:0], false
	if l.tail != nil {
		l.tail.add(text)
	}
	if now := l.now(); now.Sub(l.second) >= time.Second {
		l.second, l.passed = now, 0
	}
	if l.passed >= LinesPerSecond {
		l.dropped++
		return
	}
	l.passed++
	l.emit(Line{Stream: l.stream, Text: text, Dropped: l.dropped})
	l.dropped = 0
}

// finish passes on what is left at the end.
func (l *Lines) finish() {
	if len(l.line) > 0 {
		l.end()
	}
	if l.dropped > 0 {
		l.emit(Line{Stream: l.stream, Dropped: l.dropped})
		l.dropped = 0
	}
}

// Tail keeps the last lines. The zero value is empty and ready; it is safe for concurrent
// use.
type Tail struct {
	mu    sync.Mutex
	lines []string
}

// Lines returns a copy of the last lines, the oldest first.
func (t *Tail) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines...)
}

func (t *Tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == TailLines {
		copy(t.lines, t.lines[1:])
		t.lines = t.lines[:TailLines-1]
	}
	t.lines = append(t.lines, line)
}
