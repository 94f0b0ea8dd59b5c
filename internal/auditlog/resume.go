package auditlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// errTaken says that somebody writes the file already. Two chains in one file would look like tampering.
var errTaken = errors.New("is being written by another process, or by another sink of this one: give each a path of its own")

// errNoLog says that something else is in a file.
var errNoLog = errors.New("is no audit log: move it away, or give another path")

// resume opens the file and takes up the chain where it ends. A line that was not written to its end,
// because the process or the machine ended, is taken away, and torn reported.
func (w *Writer) resume() (torn bool, err error) {
	if w.file, err = claim(w.cfg.Path); err != nil {
		return false, fmt.Errorf("audit log %s: %w", w.cfg.Path, err)
	}
	if torn, err = w.takeUp(); err != nil {
		return false, errors.Join(fmt.Errorf("audit log %s: %w", w.cfg.Path, err), w.file.Close())
	}
	return torn, nil
}

// claim opens a file for whoever locks it first. It may have been put aside before that.
func claim(path string) (*os.File, error) {
	for range claims {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, fileMode) //nolint:gosec // the operator names it
		if err != nil {
			return nil, err //nolint:wrapcheck // resume does
		}
		if err := lock(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if isAt(f, path) {
			return f, nil
		}
		_ = f.Close()
	}
	return nil, errTaken
}

// claims is how often a file is opened that is put aside meanwhile.
const claims = 3

// isAt reports whether an open file is the one of that name.
func isAt(f *os.File, name string) bool {
	there, err := os.Stat(name)
	if err != nil {
		return false
	}
	mine, err := f.Stat()
	return err == nil && os.SameFile(there, mine)
}

// takeUp reads how far the chain has got.
func (w *Writer) takeUp() (torn bool, err error) {
	first, last, size, torn, err := w.ends(w.file)
	if err == nil && torn {
		err = w.file.Truncate(size)
	}
	if w.size = size; err == nil && size == 0 {
		last, err = w.lastAside()
	} else if err == nil {
		w.first, err = sequenceOf(first)
	}
	if err == nil && len(last) > 0 {
		w.chain.previous = digest(last)
		w.chain.sequence, err = sequenceOf(last)
	}
	if err == nil && w.first > 0 && isAt(w.file, w.aside()) {
		err = w.renew() // who put it aside ended before there was another
	}
	return torn, err
}

// sequenceOf reads the sequence of a line.
func sequenceOf(text []byte) (uint64, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil || l.Sequence == 0 {
		return 0, errNoLog
	}
	return l.Sequence, nil
}

// ends returns the first and the last whole line of a file, how long the whole lines are together,
// and whether something follows them. It counts those that come after the last checkpoint.
func (w *Writer) ends(r io.Reader) (first, last []byte, size int64, torn bool, err error) {
	w.unsigned = 0
	b := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := b.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return first, last, size, len(text) > 0, nil
		case err != nil:
			return nil, nil, 0, false, fmt.Errorf("is no audit log: %w", err)
		}
		size += int64(len(text))
		if w.unsigned++; bytes.Contains(text, []byte(`","line":"checkpoint","signature":"`)) {
			w.unsigned = 0
		}
		last = append(last[:0], bytes.TrimSuffix(text, []byte{'\n'})...)
		if first == nil {
			first = bytes.Clone(last)
		}
	}
}

// lastAside returns the last line of the last file that was put aside, nil for none.
func (w *Writer) lastAside() ([]byte, error) {
	files, err := Files(w.cfg.Path)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	f, err := os.Open(files[len(files)-1])
	if err != nil {
		return nil, fmt.Errorf("the file before: %w", err)
	}
	_, last, _, _, err := w.ends(f)
	if err == nil && last == nil {
		err = errNoLog
	}
	return last, errors.Join(err, f.Close())
}

// Files returns the files that were put aside of the log at a path, oldest first. The log itself comes
// after them.
func Files(path string) ([]string, error) {
	path = linked(path)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	var files []string
	for _, e := range entries {
		if number, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+"."); ok && isNumber(number) {
			files = append(files, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(files)
	return files, nil
}

// All returns the files of the log at a path, oldest first.
func All(path string) ([]string, error) {
	files, err := Files(path)
	if err == nil && len(files) > 0 && same(files[len(files)-1], path) {
		return files, nil // it is being put aside
	}
	return append(files, path), err
}

// same reports whether two names are those of one file.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// digits is how long the numbers of files are that were put aside.
const digits = 20

// isNumber reports whether text is the number in the name of a file that was put aside.
func isNumber(text string) bool { return len(text) == digits && strings.Trim(text, "0123456789") == "" }

// firstOf is the number of the first line of a file that was put aside, by its name, and 0 for a
// file of another name.
func firstOf(name string) uint64 {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 || !isNumber(name[dot+1:]) {
		return 0
	}
	number, _ := strconv.ParseUint(name[dot+1:], 10, 64) // beyond 64 bits no line has it
	return number
}
