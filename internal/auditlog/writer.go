package auditlog

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/masegraye/connect-plugin-go/internal/guest"
)

// MaxEvery is how many lines there are between two checkpoints at most.
const MaxEvery = 10_000

// MaxBuffer is how many events may wait to be written.
const MaxBuffer = 1 << 20

// Defaults of a [Config].
const (
	defaultEvery    = 1_000
	defaultInterval = time.Minute
	defaultMaxBytes = 64 << 20
	defaultBuffer   = 4_096
	maxBatch        = 256
)

// mostEvery leaves room below MaxEvery for a batch, the checkpoint and the begins of processes that are
// killed before it: the verifier counts them all.
const mostEvery = MaxEvery - 2*maxBatch

// CloseWait is how long Close waits for OnCheckpoint.
const CloseWait = 5 * time.Second

// Config says where a log is written and how.
type Config struct {
	// Path is the file that is written. Those that were full stand beside it, with the
	// sequence of their first line behind the name. Where it is a symbolic link, it is about the file
	// that it leads to, and the link stays.
	Path string
	// Key signs checkpoints.
	Key ed25519.PrivateKey
	// Every is after how many lines a checkpoint is written, and Interval after what time
	// where anything was. Zero means 1,000 and 1 min.
	Every    int
	Interval time.Duration
	// MaxBytes is how long a file gets. Zero means 64 MiB.
	MaxBytes int64
	// Buffer is how many events wait to be written. Zero means 4,096.
	Buffer int
	// OnCheckpoint gets each checkpoint when it is on disk, to be kept elsewhere. It is the user's: the
	// writer waits for it, after Close no longer than CloseWait, and its panic is an error. It may be nil.
	OnCheckpoint func(Checkpoint)
	// OnError gets what could not be written. The writer's goroutine calls it. It may be nil.
	OnError func(error)
	// OnWritten is told when writing works again after it did not, or OnBehind was told, and how many events the log says
	// are missing since it was told last. It is called as OnError is, and may be nil.
	OnWritten func(missing uint64)
	// OnBehind is told at once when the first event is dropped for want of room, and at most once a minute from then on; and where
	// the writer is at one thing for longer than that. A goroutine of its own calls it. It may be nil.
	OnBehind func(Behind)
}

// Writer writes a log with one goroutine. It is safe for concurrent use.
type Writer struct {
	// Fixed at creation.
	cfg    Config
	events chan []byte
	stop   chan struct{}
	done   chan struct{}
	// full wakes up the goroutine that tells of dropped events, and watched is closed when that has ended.
	full, watched chan struct{}
	closed        chan struct{} // when err is what it stays
	// patience ends when OnCheckpoint is waited for no more.
	patience context.Context //nolint:containedctx // ends with the writer, which owns the goroutine
	hurry    context.CancelCauseFunc
	once     sync.Once
	dropped  atomic.Uint64 // since the last line that told
	lost     atomic.Uint64 // in all
	overflow atomic.Uint64 // of them, for want of room
	doing    atomic.Pointer[step]
	behind   atomic.Bool // OnBehind was told

	// Of the goroutine.
	file     *os.File
	size     int64  // of whole lines
	torn     bool   // something follows them
	first    uint64 // sequence of the first line of the file
	chain    chain
	unsigned int // lines since the last checkpoint
	err      error
	broken   bool   // what was to be written last was not
	missing  uint64 // that the log tells of since OnWritten was told
}

// Open opens a log, which it goes on with where there is one. Close the writer.
func Open(cfg Config) (*Writer, error) {
	cfg.Every = min(cmp.Or(cfg.Every, defaultEvery), mostEvery)
	cfg.Interval = cmp.Or(cfg.Interval, defaultInterval)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	w := &Writer{
		cfg: cfg, events: make(chan []byte, cmp.Or(cfg.Buffer, defaultBuffer)),
		stop: make(chan struct{}), done: make(chan struct{}), full: make(chan struct{}, 1),
		watched: make(chan struct{}), closed: make(chan struct{}),
		chain: chain{key: cfg.Key},
	}
	w.patience, w.hurry = context.WithCancelCause(context.Background())
	torn, err := w.resume()
	if err != nil {
		return nil, err
	}
	public, _ := cfg.Key.Public().(ed25519.PublicKey)
	begin := []line{{Kind: kindBegin, Key: base64.StdEncoding.EncodeToString(public)}}
	if torn {
		begin = append(begin, line{Kind: kindDropped, Dropped: 1})
	}
	if err := w.write(begin); err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	go w.run()
	go w.watch()
	return w, nil
}

// Record has an event written, which is JSON. It never blocks: an event for which there is no room is
// dropped and counted.
func (w *Writer) Record(event []byte) {
	select {
	case <-w.stop:
	default:
		select {
		case w.events <- event:
			return
		default:
		}
	}
	w.overflowed()
}

// Lost returns how many events were dropped.
func (w *Writer) Lost() uint64 { return w.lost.Load() }

var errClosed = fmt.Errorf("%s after Close", CloseWait)

// Close writes what waits and a last checkpoint, and returns what could not be written, how many events were dropped, or that
// OnCheckpoint has not returned. Events that come later are dropped.
func (w *Writer) Close() error {
	w.once.Do(func() {
		close(w.stop)
		late := time.AfterFunc(CloseWait, func() { w.hurry(errClosed) })
		<-w.done
		<-w.watched
		late.Stop()
		w.hurry(errClosed)
		if n := w.lost.Load(); n > 0 {
			w.err = errors.Join(w.err, fmt.Errorf("audit log: events that are not in it: %d", n))
		}
		close(w.closed)
	})
	<-w.closed
	return w.err
}

func (w *Writer) run() {
	defer close(w.done)
	tick := time.NewTicker(w.cfg.Interval)
	defer tick.Stop()
	w.at(atFile)
	if w.unsigned >= w.cfg.Every { // the process before ended without a checkpoint
		w.checkpoint()
	}
	for {
		w.at("")
		select {
		case event := <-w.events:
			w.at(atFile)
			w.take(event)
		case <-tick.C:
			w.at(atFile)
			w.checkpoint()
		case <-w.stop:
			w.at(atFile)
			w.finish()
			return
		}
	}
}

// finish writes what waits and ends.
func (w *Writer) finish() {
	for {
		select {
		case event := <-w.events:
			w.take(event)
			continue
		default:
		}
		break
	}
	w.checkpoint()
	w.note(w.file.Close())
}

// take writes an event and those that wait behind it.
func (w *Writer) take(event []byte) {
	batch := make([]line, 0, 1)
	if n := w.dropped.Swap(0); n > 0 {
		batch = append(batch, line{Kind: kindDropped, Dropped: n})
	}
	batch = append(batch, line{Kind: kindEvent, Event: event})
	for len(batch) < min(maxBatch, w.cfg.Every) {
		select {
		case event = <-w.events:
			batch = append(batch, line{Kind: kindEvent, Event: event})
			continue
		default:
		}
		break
	}
	if err := w.write(batch); err != nil {
		w.failed(batch, err)
		return
	}
	if w.unsigned >= w.cfg.Every {
		w.checkpoint()
	}
	if w.size >= w.cfg.MaxBytes {
		w.note(w.rotate())
	}
}

// failed counts what could not be written among what was dropped.
func (w *Writer) failed(batch []line, err error) {
	for _, l := range batch {
		if l.Kind == kindEvent {
			w.dropped.Add(1)
			w.lost.Add(1)
			continue
		}
		w.dropped.Add(l.Dropped) // told once more
	}
	w.broken = true
	w.note(err)
}

// checkpoint signs what was written since the last one, and has it on disk.
func (w *Writer) checkpoint() {
	dropped := w.dropped.Swap(0)
	if w.unsigned == 0 && dropped == 0 {
		return
	}
	var lines []line
	if dropped > 0 {
		lines = append(lines, line{Kind: kindDropped, Dropped: dropped})
	}
	if err := w.write(append(lines, line{Kind: kindCheckpoint})); err != nil {
		w.dropped.Add(dropped) // told once more
		w.broken = true
		w.note(err)
		return
	}
	w.unsigned = 0
	if err := w.file.Sync(); err != nil {
		w.note(fmt.Errorf("audit log: %w", err))
		return
	}
	w.tell(*w.chain.signed)
}

// tell gives a checkpoint to who keeps it. One that does not return in time after Close gets no more.
func (w *Writer) tell(c Checkpoint) {
	keep := w.cfg.OnCheckpoint
	if keep == nil {
		return
	}
	w.at(atCheckpoint)
	_, err := guest.Within(w.patience, atCheckpoint, func() (struct{}, error) {
		keep(c)
		return struct{}{}, nil
	}, nil)
	w.at(atFile)
	if errors.Is(err, guest.ErrRuns) {
		w.cfg.OnCheckpoint = nil
	}
	w.note(err)
}

// write appends lines, all or none of them.
func (w *Writer) write(lines []line) error {
	next, now := w.chain, time.Now()
	var text bytes.Buffer
	for _, l := range lines {
		b, err := next.add(l, now)
		if err != nil {
			return err
		}
		text.Write(append(b, '\n'))
	}
	if err := errors.Join(w.place(), w.mend()); err != nil {
		return err
	}
	n, err := w.file.Write(text.Bytes())
	if err != nil {
		w.torn = n > 0
		return errors.Join(fmt.Errorf("audit log: %w", err), w.mend())
	}
	w.size += int64(n)
	if w.first == 0 {
		w.first = w.chain.sequence + 1
	}
	w.chain = next
	w.unsigned += len(lines)
	w.works(lines)
	return nil
}

// works says that lines were written, where those before were not, or came late.
func (w *Writer) works(lines []line) {
	for _, l := range lines {
		w.missing += l.Dropped
	}
	if behind := w.behind.Swap(false); !behind && !w.broken {
		return
	}
	missing := w.missing
	w.broken, w.missing = false, 0
	if w.cfg.OnWritten != nil {
		w.cfg.OnWritten(missing)
	}
}

// mend takes away what was written in part: half a line would look like tampering.
func (w *Writer) mend() error {
	if !w.torn {
		return nil
	}
	if err := w.file.Truncate(w.size); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	w.torn = false
	return nil
}

// note keeps the first error for Close, and tells of each.
func (w *Writer) note(err error) {
	if err == nil {
		return
	}
	if w.err == nil {
		w.err = err
	}
	if w.cfg.OnError != nil {
		w.cfg.OnError(err)
	}
}

// rotate puts a full file aside and begins another.
func (w *Writer) rotate() error {
	w.checkpoint()
	aside := w.aside()
	if err := os.Link(linked(w.cfg.Path), aside); err != nil && !isAt(w.file, aside) { // never over another
		return fmt.Errorf("audit log: %w", err)
	}
	return w.renew()
}

// aside is the name under which the file is put aside.
func (w *Writer) aside() string {
	return fmt.Sprintf("%s.%0*d", linked(w.cfg.Path), digits, w.first)
}

// renew begins another file in place of the one that was put aside.
func (w *Writer) renew() error {
	path := linked(w.cfg.Path)
	name := path + ".new"
	fresh, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, fileMode) //nolint:gosec // the operator named it
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	err = lock(fresh)
	if err == nil {
		err = os.Rename(name, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("audit log: %w", err), fresh.Close())
	}
	old := w.file
	w.file, w.size, w.first = fresh, 0, 0
	if err := old.Close(); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

const fileMode = 0o600
