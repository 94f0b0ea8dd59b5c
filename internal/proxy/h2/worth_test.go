package h2_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// many is far more frames than a server may send that bring nothing, however slowly they are read.
const many = 100_000

// TestAudit_H48_AServerThatFloodsIsCutOff has a server send what no request explains, in one
// answer that has begun.
func TestAudit_H48_AServerThatFloodsIsCutOff(t *testing.T) {
	t.Parallel()
	for name, flood := range map[string]func(fr *http2.Framer, i int) error{
		"WINDOW_UPDATEs": func(fr *http2.Framer, _ int) error { return fr.WriteWindowUpdate(0, 1) },
		"PRIORITY":       func(fr *http2.Framer, _ int) error { return fr.WritePriority(1, http2.PriorityParam{Weight: 1}) },
		"unknown frames": func(fr *http2.Framer, _ int) error { return fr.WriteRawFrame(0xee, 0, 0, nil) },
		"empty DATA":     func(fr *http2.Framer, _ int) error { return fr.WriteData(1, false, nil) },
		"padding alone": func(fr *http2.Framer, i int) error {
			if i > 0 {
				return fr.WriteData(1, false, nil)
			}
			return fr.WriteDataPadded(1, false, nil, []byte{0, 0})
		},
		"a byte with eight others": func(fr *http2.Framer, i int) error {
			switch i % 9 {
			case 0:
				return fr.WriteData(1, false, []byte{'x'})
			case 1, 2, 3, 4:
				return fr.WriteData(1, false, nil)
			}
			return fr.WriteWindowUpdate(0, 1)
		},
		"large unknown frames": func(fr *http2.Framer, i int) error {
			if i > many/40 {
				return nil
			}
			return fr.WriteRawFrame(0xee, 0, 0, make([]byte, 16<<10))
		},
		"resets of what has ended": func(fr *http2.Framer, _ int) error { return fr.WriteRSTStream(3, http2.ErrCodeCancel) },
		"a trailer without end": func(fr *http2.Framer, i int) error {
			switch {
			case i == 0:
				return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true})
			case i > 5<<10:
				return nil
			}
			return fr.WriteContinuation(1, false, append([]byte{0, 1, 'a', 0x7f, 0xe1, 6}, make([]byte, 992)...)) // a field of 992 bytes
		},
		"DATA beyond the windows": func(fr *http2.Framer, i int) error {
			if i > many/40 {
				return nil
			}
			return fr.WriteData(1, false, make([]byte, 16<<10))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, p := connect(t, config())
			s, _ := open(t, c, get)
			second, _ := open(t, c, get)
			second.Close()
			p.headers(1, false, ":status", "200")
			go func() { _, _ = p.nc.Write(frames(flood)) }()
			if err := within(t, func() error { return failure(s) }); !errors.Is(err, h2.ErrLost) && !errors.Is(err, h2.ErrMalformed) {
				t.Errorf("the answer: %v", err)
			}
			within(t, func() struct{} { return <-c.Done() })
			if !c.Flooded() {
				t.Error("the server is dialled again at once")
			}
		})
	}
}

// frames writes many frames.
func frames(write func(fr *http2.Framer, i int) error) []byte {
	var raw bytes.Buffer
	fr := http2.NewFramer(&raw, nil)
	for i := range many {
		_ = write(fr, i)
	}
	return raw.Bytes()
}

// TestAudit_H48_AnHonestServerIsNotCutOff has one send as many frames that bring nothing by
// themselves, and a byte of the answer with every other one,.
func TestAudit_H48_AnHonestServerIsNotCutOff(t *testing.T) {
	const most = 60_000 // frames
	t.Parallel()
	c, p := connect(t, config())
	s, _ := open(t, c, get)
	p.headers(1, false, ":status", "200")
	go func() {
		_, _ = p.nc.Write(frames(func(fr *http2.Framer, i int) error {
			switch {
			case i >= most:
				return nil
			case i%2 == 0:
				return fr.WriteData(1, false, []byte{'x'})
			}
			return fr.WriteWindowUpdate(0, 1)
		}))
		p.data(1, true, "")
	}()
	var got string
	err := within(t, func() (err error) {
		got, err = body(s)
		return err
	})
	if err != nil || got != strings.Repeat("x", most/2) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestAudit_H48_AnUploadPaysForItsWindows has a server read an upload in small steps, as
// net/http does, and return each to the stream and to the connection.
func TestAudit_H48_AnUploadPaysForItsWindows(t *testing.T) {
	t.Parallel()
	const step, most = 1 << 10, 64 << 20
	c, p := connect(t, config(), http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	s, _ := open(t, c, post(""))
	go func() {
		piece := make([]byte, 1<<20)
		for range most / len(piece) {
			if s.Write(piece, false) != nil {
				return
			}
		}
		_ = s.Write(nil, true)
	}()
	got := 0
	for f := range p.frames {
		if f.Type != http2.FrameData {
			continue
		}
		got += int(f.Length)
		for range (f.Length + step - 1) / step {
			_ = p.fr.WriteWindowUpdate(0, step)
			_ = p.fr.WriteWindowUpdate(1, step)
		}
		if got >= most {
			break
		}
	}
	if got < most {
		t.Errorf("cut off after %d MiB", got>>20)
	}
}

// TestAudit_H48_DataOfEndedStreams lets what was under way arrive after a stream was given
// up, and no more than its window allowed.
func TestAudit_H48_DataOfEndedStreams(t *testing.T) {
	t.Parallel()
	const piece, window, mistaken = 16 << 10, 32 << 10, 256 << 10
	c, p := connect(t, config())
	kept, _ := open(t, c, get)
	const given = 20
	for i := range given {
		s, _ := open(t, c, get)
		p.headers(uint32(3+2*i), false, ":status", "200")
		if _, _, err := s.Head(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		for range window / piece {
			p.data(uint32(3+2*i), false, strings.Repeat("x", piece))
		}
	}
	p.headers(1, true, ":status", "200")
	if err := within(t, func() error { return failure(kept) }); err != nil {
		t.Fatalf("what was under way: %v", err)
	}
	last, _ := open(t, c, get)
	go func() {
		for range 2 * mistaken / piece { // twice: as much as a connection may be mistaken by
			if p.fr.WriteData(3, false, make([]byte, piece)) != nil {
				return
			}
		}
	}()
	if err := within(t, func() error { return failure(last) }); !errors.Is(err, h2.ErrLost) {
		t.Errorf("more than the windows: %v", err)
	}
}

const statusOK = 0x88 // the field, in the table of the protocol

// wordy is a header block of so many fields of 1,000 bytes, each of which is a byte of the block but for the first. What
// comes before them is in the table of the protocol.
func wordy(fields int, before ...byte) []byte {
	const indexed, first = 0x80, 62                                     // of the connection's table
	block := append(bytes.Clone(before), 0x40, 1, 'x', 127, 0xd9, 0x06) // a value of 127+89+6*128 bytes
	block = append(block, bytes.Repeat([]byte{'v'}, 984)...)
	return append(block, bytes.Repeat([]byte{indexed | first}, fields-1)...)
}

// TestAudit_H48_HeaderListsAreCountedBySize has a server send few header blocks whose bytes stand for large fields: on
// streams that have ended, before the heads of answers, and as heads that are far too large.
func TestAudit_H48_HeaderListsAreCountedBySize(t *testing.T) {
	t.Parallel()
	const calls = 100
	early := []byte{0x08, 3, '1', '0', '3'} // :status 103, not indexed
	for name, send := range map[string]func(fr *http2.Framer, stream uint32) error{
		"of a stream that has ended": func(fr *http2.Framer, _ uint32) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: wordy(1000), EndHeaders: true, EndStream: true})
		},
		"interim": func(fr *http2.Framer, stream uint32) error {
			for range 8 {
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(60, early...), EndHeaders: true})
			}
			return nil
		},
		"heads": func(fr *http2.Framer, stream uint32) error {
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(1000, statusOK), EndHeaders: true})
		},
		"trailers": func(fr *http2.Framer, stream uint32) error {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{statusOK}, EndHeaders: true})
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(1000), EndHeaders: true, EndStream: true})
		},
		"one that goes on": func(fr *http2.Framer, stream uint32) error {
			if stream == 3 {
				return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(12_000)})
			}
			return fr.WriteContinuation(3, false, bytes.Repeat([]byte{0xbe}, 12_000)) // the newest entry of the table
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				cfg.MaxHeaderBytes = 64 << 10
				c, p := pipe(t, cfg)
				first, _ := open(t, c, get)
				p.want(http2.FrameHeaders)
				p.headers(1, true, ":status", "200")
				if err := failure(first); err != nil {
					t.Fatal(err)
				}
				for i := range uint32(calls) {
					if _, _, err := c.Open(get); err != nil {
						break
					}
					if send(p.fr, 3+2*i) != nil {
						break
					}
				}
				synctest.Wait()
				select {
				case <-c.Done():
				default:
					t.Errorf("not cut off after %d", calls)
				}
			})
		})
	}
}

// long sends an answer whose head and trailer are lists of 30 KiB.
func (p *peer) long(stream uint32) {
	p.t.Helper()
	p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(30, statusOK), EndHeaders: true}))
	p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(30), EndHeaders: true, EndStream: true}))
}

// TestAudit_H48_HonestHeadsAreExplained has a server send heads and trailers of 30 KiB in answers, and on streams that
// were given up while they were on their way: also many of those at once, and some heads that are too large.
func TestAudit_H48_HonestHeadsAreExplained(t *testing.T) {
	t.Parallel()
	const calls, atOnce = 1500, 500
	for name, behave := range map[string]func(t *testing.T, c *h2.Conn, p *peer, stream uint32){
		"answers": func(t *testing.T, c *h2.Conn, p *peer, stream uint32) {
			s, _, err := c.Open(get)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			p.long(stream)
			if err := failure(s); err != nil {
				t.Fatal(err)
			}
		},
		"given up": func(t *testing.T, c *h2.Conn, p *peer, stream uint32) {
			s, _, err := c.Open(get)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			p.long(stream)
		},
		"given up at once": func(t *testing.T, c *h2.Conn, p *peer, stream uint32) {
			s, _, err := c.Open(get)
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			if last := stream/2 + 1; last%atOnce == 0 {
				for id := stream + 2 - 2*atOnce; id <= stream; id += 2 {
					p.long(id)
				}
			}
		},
		"too large": func(t *testing.T, c *h2.Conn, p *peer, stream uint32) {
			s, _, err := c.Open(get)
			if err != nil {
				t.Fatal(err)
			}
			p.must(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: wordy(100, statusOK), EndHeaders: true}))
			if err := failure(s); !errors.Is(err, h2.ErrHeaderBytes) {
				t.Fatal(err)
			}
			s.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cfg := config()
				cfg.MaxHeaderBytes = 64 << 10
				c, p := pipe(t, cfg)
				go func() {
					for range p.frames {
						continue // nobody looks at them
					}
				}()
				for i := range uint32(calls) {
					behave(t, c, p, 1+2*i)
				}
				last, _ := open(t, c, get)
				p.headers(1+2*calls, true, ":status", "200")
				if err := failure(last); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
