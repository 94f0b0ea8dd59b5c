//go:build unix

package process

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
)

var errEnded = errors.New("the process ended")

// output keeps what a process writes.
type output struct {
	log io.WriteCloser // gets it as well; nil for nobody

	mu      sync.Mutex
	text    strings.Builder
	ended   bool
	changed chan struct{} // closed and replaced at every change
}

func newOutput(log io.WriteCloser) *output { return &output{log: log, changed: make(chan struct{})} }

// Write implements io.Writer. One goroutine writes. A log that cannot be written lets the process go on.
func (o *output) Write(p []byte) (int, error) {
	if o.log != nil {
		_, _ = o.log.Write(p)
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	o.wakeLocked()

	return len(p), nil
}

// String returns what was written so far.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.text.String()
}

// close says that nothing more will come.
func (o *output) close() {
	if o.log != nil {
		_ = o.log.Close()
	}

	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	o.wakeLocked()
}

func (o *output) wakeLocked() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// await waits for a whole line that contains text.
func (o *output) await(ctx context.Context, text string) (string, error) {
	for {
		o.mu.Lock()
		written, ended, changed := o.text.String(), o.ended, o.changed
		o.mu.Unlock()

		for line := range strings.Lines(written) {
			if strings.Contains(line, text) && strings.HasSuffix(line, "\n") {
				return strings.TrimSuffix(line, "\n"), nil
			}
		}

		if ended {
			return "", errEnded
		}

		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}
