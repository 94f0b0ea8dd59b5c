package h2

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/h2frame"
)

const (
	pseudoStatus = ":status"
	fieldLength  = "content-length"

	statusFirstFinal = 200
	statusLast       = 999
	statusFirst      = 100
	statusSwitching  = 101
)

func (c *Conn) dataLocked(f *http2.DataFrame) error {
	length := int64(f.Length)
	if c.received += length; c.received > connWindow {
		return errOverflow
	}
	if c.received >= connWindow/2 {
		c.out = h2frame.AppendWindowUpdate(c.out, 0, uint32(c.received))
		c.received = 0
		c.flushElsewhereLocked()
	}
	s, err := c.streamLocked(f.StreamID)
	switch {
	case err != nil:
		return err
	case s == nil:
		return c.lateDataLocked(f)
	}
	data := f.Data()
	switch {
	case s.status == 0:
		c.resetLocked(s, errNoHeaders, http2.ErrCodeProtocol)
	case s.eof:
		c.resetLocked(s, ErrMalformed, http2.ErrCodeStreamClosed)
	case length > s.recvWindow:
		c.resetLocked(s, errStreamWindow, http2.ErrCodeFlowControl)
	case s.stated >= 0 && int64(len(data)) > s.stated && bodiless(s.status):
		c.resetLocked(s, fmt.Errorf("%w: a body with status %d", ErrMalformed, s.status), http2.ErrCodeProtocol)
	case s.stated >= 0 && int64(len(data)) > s.stated:
		c.resetLocked(s, errLength, http2.ErrCodeProtocol)
	default:
		c.receiveLocked(s, data, length, f.StreamEnded())
		if f.StreamEnded() {
			c.endLocked(s)
		}
	}
	return nil
}

// lateDataLocked takes in data of a stream that has ended.
func (c *Conn) lateDataLocked(f *http2.DataFrame) error {
	if f.StreamEnded() {
		c.settledLocked(f.StreamID)
	}
	if !c.worth.lateData(int64(f.Length)) {
		return errOverflow
	}
	return nil
}

// receiveLocked takes in data of a frame of the given length, which counts its
// padding, and may be the last of the response.
func (c *Conn) receiveLocked(s *Stream, data []byte, length int64, last bool) {
	s.recvWindow -= length
	s.credit += length - int64(len(data))
	if s.stated >= 0 {
		s.stated -= int64(len(data))
	}
	if len(data) > 0 {
		c.worth.earnData(len(data))
		if !last && len(data) < fewBytes {
			s.smallLocked()
		}
		if !last && s.crampedLocked() {
			s.longLocked()
		}
		if s.body == nil && s.gather && s.stated > 0 {
			s.body = GetBuffer(int(min(s.stated+int64(len(data)), gatherBody, s.aheadLocked())))
		}
		s.body = appendBuffer(s.body, data)
	}
	c.markLocked(s)
}

// endLocked notes that the response is complete.
func (c *Conn) endLocked(s *Stream) {
	if s.stated > 0 {
		c.resetLocked(s, errLength, http2.ErrCodeProtocol)
		return
	}
	s.eof = true
	c.worth.earn()
	c.cfg.Pace.fell(s.payer, &s.expected)
	s.sendWake.Broadcast() // the rest of the request is not wanted
	s.overLocked()
	c.markLocked(s)
	if s.sentEnd {
		c.removeLocked(s)
	}
}

func (c *Conn) headersLocked(b *headerBlock) error {
	s, err := c.streamLocked(b.stream)
	if s == nil {
		c.worth.lateFields(b.size)
		if b.end {
			c.settledLocked(b.stream)
		}
		return err
	}
	c.worth.fields(b.size, !b.interim())
	if s.named += b.count; s.named > MostFields && b.err == nil {
		b.err = ErrFields
	}
	switch {
	case errors.Is(b.err, ErrHeld): // which is no fault of the server's
		c.resetLocked(s, b.err, http2.ErrCodeCancel)
	case b.err != nil:
		c.resetLocked(s, b.err, http2.ErrCodeProtocol)
	case s.eof:
		c.resetLocked(s, ErrMalformed, http2.ErrCodeStreamClosed)
	case s.status == 0:
		c.headLocked(s, b)
	case !b.end || b.pseudo > 0:
		c.resetLocked(s, errTrailer, http2.ErrCodeProtocol)
	default:
		s.trailer = b.regular()
		c.endLocked(s)
	}
	return nil
}

// headLocked takes in the headers of a response.
func (c *Conn) headLocked(s *Stream, b *headerBlock) {
	status, err := parseStatus(b.status())
	if err == nil && status < statusFirstFinal {
		if s.interim++; s.interim > maxInterim || b.end {
			err = errInterim
		}
	}
	stated := int64(-1)
	if err == nil {
		stated, err = statedLength(b.regular())
	}
	switch {
	case err != nil:
		c.resetLocked(s, err, http2.ErrCodeProtocol)
		return
	case status < statusFirstFinal:
		return
	}
	switch {
	case s.head:
		stated = -1
	case bodiless(status) && stated < 0:
		stated = 0
		s.gather = true // a moment, for its end: with more than a head it is none
	}
	s.status, s.fields, s.stated = status, b.regular(), stated
	c.worth.earn()
	if !c.answered.Load() {
		c.answered.Store(true)
	}
	c.markLocked(s)
	if b.end {
		c.endLocked(s)
	}
}

// bodiless reports whether a response of a status has no body (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
func bodiless(status int) bool {
	return status == http.StatusNoContent || status == http.StatusResetContent || status == http.StatusNotModified
}

func parseStatus(value string) (int, error) {
	if len(value) != len("200") {
		return 0, errStatus
	}
	status, err := strconv.Atoi(value)
	if err != nil || status < statusFirst || status > statusLast || status == statusSwitching {
		return 0, errStatus
	}
	return status, nil
}

// statedLength returns the content length that the fields state, -1 if none.
func statedLength(fields []hpack.HeaderField) (int64, error) {
	stated := int64(-1)
	for _, f := range fields {
		if f.Name != fieldLength {
			continue
		}
		n, err := strconv.ParseUint(f.Value, 10, 63)
		if err != nil || stated >= 0 && stated != int64(n) {
			return 0, errStated
		}
		stated = int64(n)
	}
	return stated, nil
}
