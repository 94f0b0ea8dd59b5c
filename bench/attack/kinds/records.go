package kinds

import (
	"github.com/masegraye/connect-plugin-go/internal/record"
)

const (
	between  = 16 // updates of the key: as many as crypto/tls takes before it gives up
	shortest = 9  // bytes in a DATA frame, as many as it has itself
)

// recordKinds are attacks with records of TLS. What they carry is the body of a request that has ended.
func recordKinds() []Kind {
	return []Kind{
		{Who: Stranger, Name: "records of TLS: updates of the key between those of a byte", run: flood(records(between, (*record.Writer).Write))},
		{Who: Stranger, Name: "records of TLS: of a byte each", run: flood(records(0, (*record.Writer).Write))},
		{Who: Stranger, Name: "records of TLS: updates of the key alone", run: flood(records(between, updates))},
	}
}

// updates writes no data.
func updates(w *record.Writer, _ []byte) (int, error) {
	for range w.Before {
		if err := w.Update(); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// records writes frames in records of a byte, with updates of the key before each.
func records(before int, write func(*record.Writer, []byte) (int, error)) func(c *conn, i uint32) error {
	var w *record.Writer
	return func(c *conn, i uint32) (err error) {
		if i > 0 {
			_, err = write(w, append([]byte{0, 0, shortest, 0, 0, 0, 0, 0, 1}, make([]byte, shortest)...))
			return err
		}
		if _, err = c.open(c.head(discoverPath), true); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		const preface, request = 1, 1 // records so far
		w, err = record.New(c.tls, c.keys, preface+request)
		if err == nil {
			w.Size, w.Before = 1, before
		}
		return err
	}
}
