package auditlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// errOther says that something else is in the place of the log.
var errOther = errors.New("another file is in the place of the log, which somebody moved or removed: move that one away, too," +
	" and the log goes on")

// place sees to it that what is written next is where the log is looked for. Somebody may have removed or moved the file, or cut
// it off, as what rotates other logs does: what is written to a file without a name is lost, and nobody would know. It goes on
// in another one.
func (w *Writer) place() error {
	mine, err := w.file.Stat()
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	there, err := os.Stat(w.cfg.Path)
	switch {
	case err == nil && os.SameFile(mine, there):
		if mine.Mode().IsRegular() {
			w.cutOff(mine.Size())
		}
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil // nobody knows, and the file takes what is written
	}
	fresh, err := claim(w.cfg.Path)
	if err != nil {
		return fmt.Errorf("audit log %s: somebody moved or removed it: %w", w.cfg.Path, err)
	}
	if info, err := fresh.Stat(); err != nil || info.Size() > 0 {
		return errors.Join(fmt.Errorf("audit log %s: %w", w.cfg.Path, errors.Join(errOther, err)), fresh.Close())
	}
	old := w.file
	w.file, w.size, w.first, w.torn = fresh, 0, 0, false
	_ = old.Close() // it is not the log any more
	w.note(fmt.Errorf("audit log %s: somebody moved or removed it; it goes on in another file, with number %d",
		w.cfg.Path, w.chain.sequence+1))
	return nil
}

// cutOff takes notice of a file that somebody made shorter, of which half a line may be left.
func (w *Writer) cutOff(size int64) {
	if size >= w.size {
		return
	}
	w.note(fmt.Errorf("audit log %s: somebody cut it off at %d of %d bytes; it goes on there, with number %d",
		w.cfg.Path, size, w.size, w.chain.sequence+1))
	unsigned := w.unsigned
	_, _, whole, torn, err := w.ends(io.NewSectionReader(w.file, 0, size))
	w.unsigned = unsigned // also those that are gone
	if err != nil {
		whole, torn = size, false
	}
	if w.size, w.torn = whole, torn; whole == 0 {
		w.first = 0
	}
}

// mostLinks is more than a system follows.
const mostLinks = 40

// linked is the file that a symbolic link leads to, which need not be there, and path itself where it is none: what is put in the
// place of a link would stand on another disk than the operator chose.
func linked(path string) string {
	for range mostLinks {
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return path
}
