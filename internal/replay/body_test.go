package replay_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/replay"
)

func reopened(text string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil }
}

func attempt(t *testing.T, b *replay.Body) io.ReadCloser {
	t.Helper()

	a, err := b.Attempt()
	if err != nil {
		t.Fatalf("attempt: %v", err)
	}

	return a
}

func TestBody_EveryAttemptReadsAll(t *testing.T) {
	t.Parallel()

	for name, reopen := range map[string]func() (io.ReadCloser, error){"opened again": reopened("request"), "kept": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := replay.New(io.NopCloser(strings.NewReader("request")), reopen)
			for taken := range len("request") {
				a := attempt(t, b)
				if _, err := io.ReadFull(a, make([]byte, taken)); err != nil {
					t.Fatalf("read %d: %v", taken, err)
				}
			}

			last := attempt(t, b)
			b.Settle()

			if got, err := io.ReadAll(last); string(got) != "request" || err != nil {
				t.Errorf("the last attempt read %q, %v", got, err)
			}
		})
	}
}

func TestBody_WithoutBody(t *testing.T) {
	t.Parallel()

	b := replay.New(nil, nil)
	for range 2 {
		if a, err := b.Attempt(); a != nil || err != nil {
			t.Errorf("attempt = %v, %v", a, err)
		}
	}

	b.Settle()
}

func TestBody_MoreThanIsKeptCannotBeHadAgain(t *testing.T) {
	t.Parallel()

	b := replay.New(io.NopCloser(bytes.NewReader(make([]byte, replay.Kept+1))), nil)

	first := attempt(t, b)
	if n, err := io.Copy(io.Discard, first); n != replay.Kept+1 || err != nil {
		t.Fatalf("read %d, %v", n, err)
	}

	if _, err := b.Attempt(); err == nil {
		t.Error("a body that is gone was offered again")
	}
}

// An attempt that waits for the body when it ends takes nothing from the next one.
func TestBody_WaitingAttemptTakesNothing(t *testing.T) {
	t.Parallel()

	source, sender := io.Pipe()
	b := replay.New(source, nil)
	first := attempt(t, b)
	got := make(chan error, 1)

	go func() {
		_, err := first.Read(make([]byte, 16))
		got <- err
	}()

	second := attempt(t, b)

	go func() {
		_, _ = sender.Write([]byte("one"))
		_, _ = sender.Write([]byte("two"))
		_ = sender.Close()
	}()

	b.Settle()

	if all, err := io.ReadAll(second); string(all) != "onetwo" || err != nil {
		t.Errorf("read %q, %v", all, err)
	}

	if err := <-got; err == nil {
		t.Error("the attempt that ended read something")
	}
}

type closer struct {
	io.Reader

	closed bool
}

func (c *closer) Close() error {
	c.closed = true

	return nil
}

func TestBody_ClosesWithTheLastAttempt(t *testing.T) {
	t.Parallel()

	for name, settleFirst := range map[string]bool{"settled, then closed": true, "closed, then settled": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			source := &closer{Reader: strings.NewReader("request")}
			b := replay.New(source, nil)

			if err := attempt(t, b).Close(); err != nil || source.closed {
				t.Fatalf("an attempt closed the body: %v, %v", source.closed, err)
			}

			last := attempt(t, b)
			if settleFirst {
				b.Settle()
			}

			if err := last.Close(); err != nil {
				t.Fatalf("close: %v", err)
			}

			if !settleFirst {
				b.Settle()
			}

			if !source.closed {
				t.Error("the body stayed open")
			}

			if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("an attempt that ended reads on: %v", err)
			}
		})
	}
}
