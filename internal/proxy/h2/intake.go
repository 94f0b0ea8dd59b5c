package h2

import (
	"errors"
	"io"
)

// What an [Intake] holds: little while it waits for a body that comes in small pieces,
// more once they fill that.
const (
	intakeLeast = 512
	intakeMost  = 64 << 10
	intakeStep  = 8
)

// Intake reads a body piece by piece and sends it on a stream. The zero value is ready.
type Intake struct {
	size int
}

// Pass reads the next piece and sends it. It reports whether nothing more is to be sent:
// that was the end, or the stream broke, which its response shows. An error is that of
// read. What is held while read waits is as large as the last pieces were.
func (in *Intake) Pass(s *Stream, read func(p []byte) (int, error)) (last bool, err error) {
	if in.size == 0 {
		in.size = intakeLeast
	}
	buf := GetBuffer(in.size)
	defer buf.Release()
	p := buf.B[:min(cap(buf.B), in.size)]
	n, err := read(p)
	end := errors.Is(err, io.EOF)
	if err != nil && !end {
		return true, err
	}
	switch {
	case n == len(p):
		in.size = min(intakeMost, in.size*intakeStep)
	case n <= intakeLeast:
		in.size = intakeLeast
	}
	if n == 0 && !end {
		return false, nil
	}
	return s.Write(p[:n], end) != nil || end, nil
}
