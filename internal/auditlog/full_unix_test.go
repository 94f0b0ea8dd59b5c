//go:build linux || darwin

package auditlog_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/masegraye/connect-plugin-go/internal/auditlog"
)

// fullLog names the log of the process whose disk gets full.
const fullLog = "AUDITLOG_TEST_FULL"

func TestMain(m *testing.M) {
	if path := os.Getenv(fullLog); path != "" {
		if err := writeUntilFull(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Of what there is no room for on the disk no half line stays, what is missing is counted, and the log
// goes on when there is room again.
func TestWriter_FullDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), fullLog+"="+path)
	if out, err := child.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	report := whole(t, path)
	if report.Events != 3 || report.Dropped != 2 || report.Unsigned != 0 {
		t.Errorf("%+v", report)
	}
}

// writeUntilFull writes an event, two for which there is no room but for half a line, and two more.
func writeUntilFull(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	signed, failed, again := make(chan struct{}, 16), make(chan error, 16), make(chan uint64, 16)
	w, err := auditlog.Open(auditlog.Config{
		Path: path, Key: key, Every: 1,
		OnCheckpoint: func(auditlog.Checkpoint) { signed <- struct{}{} }, OnError: func(err error) { failed <- err },
		OnWritten: func(missing uint64) { again <- missing },
	})
	if err != nil {
		return err
	}
	<-signed // that the writing began
	w.Record(event(0))
	<-signed
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	full := limit
	full.Cur = uint64(info.Size()) + 20
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		return err
	}
	for n := range 2 {
		w.Record(event(n + 1))
		<-failed
		if info, err := os.Stat(path); err != nil || uint64(info.Size()) != full.Cur-20 {
			return fmt.Errorf("half a line stays: %d bytes, %w", info.Size(), err)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		return err
	}
	for n := range 2 {
		w.Record(event(n + 3))
		<-signed
	}
	if told := len(again); told != 1 { // before the checkpoint that was awaited
		return fmt.Errorf("it is told %d times that the log is written again", told)
	}
	if missing := <-again; missing != 2 {
		return fmt.Errorf("it is told that %d events are missing", missing)
	}
	if err := w.Close(); err == nil {
		return fmt.Errorf("nobody is told at the end")
	}
	return nil
}
