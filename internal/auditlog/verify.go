package auditlog

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line that is read, in bytes.
const maxLine = 1 << 20

// ChangedError is where and how a log was tampered with.
type ChangedError struct {
	// File and Line say where, from 1 on.
	File string
	Line int
	// What says what is wrong there.
	What string
}

// Error says where and what.
func (p *ChangedError) Error() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.What) }

// Report is what is known of a log that holds.
type Report struct {
	// Lines, Events and Checkpoints are how many there are, Dropped how many events there was
	// no room for.
	Lines, Events, Checkpoints, Dropped uint64
	// First and Last are the sequences of the first and the last line.
	First, Last uint64
	// Checkpoint is the last one, nil for none.
	Checkpoint *Checkpoint
	// Unsigned is how many lines come after it.
	Unsigned uint64
}

// Verifier checks files of a log, oldest first. What it returns is a [ChangedError] where the log was
// changed, and another error where it could not be read. The zero value is of no use.
type Verifier struct {
	key     ed25519.PublicKey
	kept    *Checkpoint  // nil for none
	found   bool         // the kept one
	before  *line        // the last line that was read
	digest  string       // of it
	at      ChangedError // where it stands
	last    ChangedError // where the line before stands
	suspect ChangedError // where the line stands that doubt is about
	doubt   bool         // the last line does not follow the one before it
	report  Report
}

// NewVerifier returns a verifier for the key of a log. kept is a checkpoint that was kept
// elsewhere, nil for none; where there is one, the log has to reach it.
func NewVerifier(key ed25519.PublicKey, kept *Checkpoint) (*Verifier, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, errors.New("the key is no Ed25519 public key")
	}
	if kept != nil && !kept.Verify(key) {
		return nil, errors.New("the checkpoint that was kept is not signed by the key")
	}
	return &Verifier{key: key, kept: kept}, nil
}

// File checks the next file of the log. One that was put aside begins with the number in its name.
func (v *Verifier) File(name string, r io.Reader) error {
	b := bufio.NewReaderSize(r, maxLine)
	first := firstOf(name)
	for n := 1; ; n++ {
		text, err := b.ReadSlice('\n')
		if over := errors.Is(err, io.EOF) && len(text) == 0; over && (n > 1 || first == 0) {
			return nil
		}
		v.at = ChangedError{File: name, Line: n}
		switch {
		case errors.Is(err, io.EOF) && len(text) == 0:
			return v.problem("is missing: the file began with number %d, as its name says", first)
		case errors.Is(err, io.EOF):
			return v.problem("is cut off in the middle of the line")
		case errors.Is(err, bufio.ErrBufferFull):
			return v.problem("is longer than any line of an audit log")
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := v.line(bytes.TrimSuffix(text, []byte{'\n'})); err != nil {
			return err
		}
		if n == 1 && first != 0 && v.before.Sequence != first {
			return v.problem("is number %d: the file began with number %d, as its name says", v.before.Sequence, first)
		}
	}
}

// Finish says what is known after the last file.
func (v *Verifier) Finish() (Report, error) {
	switch {
	case v.before == nil && v.kept != nil:
		return Report{}, fmt.Errorf("the log is empty, and had got to line number %d by %s: all of it is cut off", v.kept.Sequence, v.kept.Time)
	case v.before == nil:
		return Report{}, errors.New("the log is empty")
	case v.doubt:
		return v.report, v.problem("does not follow the line before it: one of the two was changed or inserted")
	case v.kept != nil && v.report.Last < v.kept.Sequence:
		return v.report, v.problem("is the end, and the log had got to line number %d by %s: what came after is cut off",
			v.kept.Sequence, v.kept.Time)
	case v.report.Checkpoint == nil:
		return v.report, v.problem("is the end, and no checkpoint is signed: nothing shows that the key's owner wrote any of it")
	case v.kept != nil && !v.found:
		return v.report, v.problem("is beyond the checkpoint that was kept, which is not in the files: give older ones as well")
	}
	return v.report, nil
}

func (v *Verifier) problem(format string, args ...any) error {
	p := v.at
	p.What = fmt.Sprintf(format, args...)
	return &p
}

// line checks a line against the one before.
func (v *Verifier) line(text []byte) error {
	var l line
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return v.problem("was changed: it is no line of an audit log")
	}
	if again, err := encode(l.normal()); err != nil || !bytes.Equal(again, text) {
		return v.problem("was changed: nobody writes it like that")
	}
	if err := v.follows(&l); err != nil {
		return err
	}
	if err := v.count(&l); err != nil {
		return err
	}
	v.before, v.digest, v.last = &l, digest(text), v.at
	return nil
}

// follows checks that a line comes after the one before.
func (v *Verifier) follows(l *line) error {
	if v.before == nil {
		v.report.First = l.Sequence
		if l.Sequence == 1 && l.Previous != "" || l.Sequence == 0 {
			return v.problem("was changed: the first line has none before it")
		}
		return nil
	}
	next := v.before.Sequence + 1
	if v.doubt { // the line before is as it was written if this one follows it
		if l.Previous == v.digest {
			v.at = v.suspect
			return v.problem("was changed or inserted: the line after it does not follow it")
		}
		v.at = v.last
		return v.problem("was changed or inserted: it does not follow the line before it, and the one after does not follow it")
	}
	switch {
	case l.Sequence > next:
		return v.problem("is number %d: numbers %d to %d were removed before it", l.Sequence, next, l.Sequence-1)
	case l.Sequence < next:
		return v.problem("is number %d after number %d: lines were inserted or their order was changed", l.Sequence, v.before.Sequence)
	case l.Previous != v.digest:
		v.doubt, v.suspect = true, v.last // the next line tells which of the two it is
	}
	return nil
}

// count takes note of a line, and checks the signature of a checkpoint.
func (v *Verifier) count(l *line) error {
	v.report.Lines++
	v.report.Last = l.Sequence
	if v.report.Unsigned++; v.report.Unsigned > MaxEvery {
		return v.problem("is the %dth line without a checkpoint, and there is one at least every %d: they were removed",
			v.report.Unsigned, MaxEvery)
	}
	switch l.Kind {
	case kindEvent:
		v.report.Events++
	case kindDropped:
		v.report.Dropped += l.Dropped
	case kindBegin:
		if key, err := base64.StdEncoding.DecodeString(l.Key); err != nil || !v.key.Equal(ed25519.PublicKey(key)) {
			return v.problem("begins the writing with another key than the one given")
		}
	case kindCheckpoint:
		return v.checkpoint(l)
	default:
		return v.problem("was changed: no line is of the kind %q", l.Kind)
	}
	if v.kept != nil && l.Sequence == v.kept.Sequence && !v.doubt {
		return v.problem("stands where the checkpoint was that was kept: what came before it was cut off, and the log went on anew")
	}
	return nil
}

func (v *Verifier) checkpoint(l *line) error {
	p := &Checkpoint{Sequence: l.Sequence, Previous: l.Previous, Time: l.Time, Signature: l.Signed}
	if v.doubt {
		return nil // the next line tells what was changed
	}
	if !p.Verify(v.key) {
		return v.problem("is a checkpoint that the key did not sign: it or what is before it was changed")
	}
	if v.kept != nil && p.Sequence == v.kept.Sequence {
		if p.Previous != v.kept.Previous {
			return v.problem("is not the checkpoint that was kept: what is before it was written anew")
		}
		v.found = true
	}
	v.report.Checkpoints++
	v.report.Checkpoint, v.report.Unsigned = p, 0
	return nil
}
