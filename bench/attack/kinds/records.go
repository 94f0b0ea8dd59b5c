package kinds

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"

	"github.com/masegraye/connect-plugin-go/internal/record"
)

const (
	between  = 16 // updates of the key: as many as crypto/tls takes before it gives up
	shortest = 9  // bytes in a DATA frame, as many as it has itself
)

// Names of attacks, by a stranger and by a provider.
const (
	betweenRecords = "records of TLS: updates of the key between those of a byte"
	ofAByte        = "records of TLS: of a byte each"
	updatesAlone   = "records of TLS: updates of the key alone"
)

// recordKinds are attacks with records of TLS. What they carry is the body of a request that has ended.
func recordKinds() []Kind {
	return []Kind{
		{Who: Stranger, Name: betweenRecords, run: flood(records(between, (*record.Writer).Write))},
		{Who: Stranger, Name: ofAByte, run: flood(records(0, (*record.Writer).Write))},
		{Who: Stranger, Name: updatesAlone, run: flood(records(between, updates))},
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

// shortData is a DATA frame.
func shortData(stream uint32) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0, 0, shortest, 0, 0}, stream), make([]byte, shortest)...)
}

// recorded answers in records of a byte, with updates of the key before each.
func recorded(before int, write func(*record.Writer, []byte) (int, error)) behaviour {
	return func(s *served, id uint32) error {
		if err := s.head(id, true, http.StatusOK, "content-type", "application/proto"); err != nil {
			return err
		}
		if err := s.Flush(); err != nil {
			return err
		}
		const settings, head = 1, 1 // records so far: nobody else writes on the connection after this
		w, err := record.Server(s.conn, s.keys, settings+head)
		if err != nil {
			return err
		}
		w.Size, w.Before = 1, before
		for err == nil && s.ctx.Err() == nil && s.attack.sent.Add(1) < mostFrames {
			_, err = write(w, shortData(id))
		}
		return errors.Join(err, io.EOF)
	}
}

// records writes frames in records of a byte, with updates of the key before each.
func records(before int, write func(*record.Writer, []byte) (int, error)) func(c *conn, i uint32) error {
	var w *record.Writer
	return func(c *conn, i uint32) (err error) {
		if i > 0 {
			_, err = write(w, shortData(1))
			return err
		}
		if _, err = c.open(c.head(discoverPath), true); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
		const preface, request = 1, 1 // records so far
		w, err = record.Client(c.tls, c.keys, preface+request)
		if err == nil {
			w.Size, w.Before = 1, before
		}
		return err
	}
}
