package hosttest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"runtime/metrics"
	"testing"
)

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Cut shortens what goes to the test's log.
func Cut(err error) string { return fmt.Sprintf("%.200v", err) }

// GzipOf compresses n zeros, a multiple of a mebibyte or less than that: gzip goes on
// after each part of one.
func GzipOf(t *testing.T, n int64) []byte {
	t.Helper()
	const part = 1 << 20
	if n > part {
		return append(bytes.Repeat(GzipOf(t, part), int(n/part)), GzipOf(t, n%part)...)
	}
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.CopyN(w, zeros{}, n); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Allocated is how many bytes this process has allocated so far.
func Allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
