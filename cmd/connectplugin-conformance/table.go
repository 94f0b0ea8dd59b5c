package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// rowTime bounds each row of a table.
const rowTime = 30 * time.Second

// errNotHere says that the peer cannot have what a row asks for.
var errNotHere = errors.New("not of this peer")

// table plays the rows one after the other and writes each as it is known. One
// goroutine uses it.
type table struct {
	// Fixed at creation.
	out   io.Writer
	first bool          // the peer speaks the first version of the wire
	limit time.Duration // of each row of the second version; the others have rowTime

	holds, fails, left int
}

// since is the version of the wire that a row asks for.
type since int

const (
	v1 since = 1
	v2 since = 2
)

// row plays one row. A row of the second version is not played with a peer of the
// first.
func (t *table) row(ctx context.Context, v since, name string, play func(ctx context.Context) error) bool {
	if v == v2 && t.first {
		return t.note(name, fmt.Errorf("%w: it came with the second version", errNotHere))
	}
	limit := rowTime
	if v == v2 {
		limit = t.limit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return t.note(name, play(ctx))
}

// note writes how a row went and reports whether it holds.
func (t *table) note(name string, err error) bool {
	switch {
	case err == nil:
		t.holds++
		_, _ = fmt.Fprintf(t.out, "holds  %s\n", name)
	case errors.Is(err, errNotHere):
		t.left++
		_, _ = fmt.Fprintf(t.out, "-      %s (%v)\n", name, err)
	default:
		t.fails++
		_, _ = fmt.Fprintf(t.out, "FAILS  %s: %v\n", name, err)
	}
	return err == nil
}

// head begins a part of the table.
func (t *table) head(name string) { _, _ = fmt.Fprintf(t.out, "\n%s\n", name) }

var errRows = errors.New("rows fail")

// end writes the sum and returns an error where a row fails.
func (t *table) end() error {
	_, _ = fmt.Fprintf(t.out, "\n%d hold, %d fail, %d not of this peer\n", t.holds, t.fails, t.left)
	if t.fails > 0 {
		return fmt.Errorf("%d %w", t.fails, errRows)
	}
	return nil
}
