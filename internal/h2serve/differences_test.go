package h2serve_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// difference is one between our server and x/net's in what becomes of a request that is meant.
type difference struct {
	why  string
	here func(f *facts, id uint32, ours, theirs *answered) bool
}

// differences is the list of those that may be.
var differences = []difference{
	{
		why: "fields of HTTP/1's connections, and another te than trailers, are malformed here (RFC 9113, section 8.2.2); x/net answers 400",
		here: func(f *facts, id uint32, ours, theirs *answered) bool {
			return f.hop[id] && ours.malformed() && theirs.status == "400"
		},
	},
	{
		why:  "a content-length that is no number, or two that differ, is malformed here (section 8.1.1); x/net takes it for 0",
		here: func(f *facts, id uint32, ours, _ *answered) bool { return f.badLength[id] && ours.malformed() },
	},
	{
		why:  "less than the content-length says is malformed here (section 8.1.1); x/net has the handler answer it",
		here: func(f *facts, id uint32, ours, _ *answered) bool { return f.length[id] && ours.malformed() },
	},
	{
		why:  "CONNECT is malformed here: a plugin is no proxy; x/net passes it on to the handler",
		here: func(f *facts, id uint32, ours, _ *answered) bool { return f.connect[id] && ours.malformed() },
	},
	{
		why: "a head that is too large is answered 431 without a text here; x/net has one",
		here: func(_ *facts, _ uint32, ours, theirs *answered) bool {
			return ours.status == "431" && theirs.status == "431"
		},
	},
	{
		why: "requests beyond the limit of streams are refused here, so that they may be sent again; x/net takes them for malformed",
		here: func(f *facts, _ uint32, ours, theirs *answered) bool {
			return f.beyond && ours.broken && ours.code == http2.ErrCodeRefusedStream && (theirs.broken || f.cut)
		},
	},
	{
		why: "an answer to HEAD whose head is flushed is over when its handler is; x/net ends it with the head",
		here: func(f *facts, id uint32, ours, theirs *answered) bool {
			return f.bodiless[id] && theirs.ended && ours.status == theirs.status
		},
	},
	{
		why: "what breaks a stream comes before its answer or after it, where frames come together",
		here: func(f *facts, _ uint32, ours, theirs *answered) bool {
			return f.cut && (ours.broken || theirs.broken)
		},
	},
	{
		why: "a window moves before an answer or after it, where frames come together",
		here: func(f *facts, _ uint32, ours, theirs *answered) bool {
			return f.cut && f.moved && ours.ended != theirs.ended
		},
	},
	{
		why: "which of several answers gets the window of the connection first is nobody's business",
		here: func(f *facts, id uint32, ours, theirs *answered) bool {
			return f.huge[id] && (ours.code == http2.ErrCodeFlowControl || theirs.code == http2.ErrCodeFlowControl)
		},
	},
	{
		why:  "a field that a trailer must not have is left out here (RFC 9110, section 6.5.1); x/net breaks the stream",
		here: func(f *facts, id uint32, _, theirs *answered) bool { return f.trailer[id] && theirs.malformed() },
	},
	{
		why: "whoever sends what it was to wait for is not told to go on (RFC 9110, section 10.1.1); x/net says it all the same",
		here: func(f *facts, id uint32, ours, theirs *answered) bool {
			return f.expects[id] && len(ours.interim) != len(theirs.interim) && ours.except(theirs.interim).agree(theirs)
		},
	},
	{
		why:  "a stream that depends on itself is served here, where priorities are not known (section 5.3.2); x/net breaks it",
		here: func(f *facts, id uint32, _, theirs *answered) bool { return f.selfish[id] && theirs.malformed() },
	},
	{
		why:  "a client that says that it goes is served here what it asks for later; x/net takes nothing more",
		here: func(f *facts, id uint32, _, _ *answered) bool { return f.goAway != 0 && id > f.goAway },
	},
}

// except returns a copy with other interim answers.
func (a *answered) except(interim []string) *answered {
	out := *a
	out.interim = interim
	return &out
}

func (a *answered) malformed() bool { return a.broken && a.code == http2.ErrCodeProtocol }

func explained(f *facts, id uint32, ours, theirs *answered) bool {
	return slices.ContainsFunc(differences, func(d difference) bool { return d.here(f, id, ours, theirs) })
}

// ends is the list of differences in how connections end that may be.
var ends = []struct {
	why  string
	here func(f *facts, ours, theirs *seen) bool
}{
	{
		why:  "a client that says that it goes closes the connection itself; x/net closes it as well",
		here: func(f *facts, _, theirs *seen) bool { return f.goAway != 0 && theirs.code == http2.ErrCodeNo },
	},
	{
		why: "more than the window of a connection ends that here (section 6.9); x/net breaks the stream",
		here: func(f *facts, ours, theirs *seen) bool {
			return ours.code == http2.ErrCodeFlowControl && !theirs.failed()
		},
	},
	{
		why:  "headers of a stream that is over may have been under way, and are nothing here; x/net ends the connection",
		here: func(f *facts, ours, theirs *seen) bool { return f.late && theirs.code == http2.ErrCodeProtocol },
	},
	{
		why:  "a head that is malformed opens its stream (section 5.1.1); for x/net what follows on it is a stream that nobody opened",
		here: func(f *facts, _, theirs *seen) bool { return f.malformed && theirs.code == http2.ErrCodeProtocol },
	},
	{
		why:  "a setting that is there twice counts as it was there last (section 6.5.3); x/net ends the connection",
		here: func(f *facts, ours, theirs *seen) bool { return f.twice && theirs.code == http2.ErrCodeProtocol },
	},
	{
		why: "an acknowledgement of settings that were acknowledged is nothing here; x/net ends the connection",
		here: func(f *facts, ours, theirs *seen) bool {
			return f.acknowledged > 1 && theirs.code == http2.ErrCodeProtocol
		},
	},
}

func explainedEnd(f *facts, ours, theirs *seen) bool {
	for _, e := range ends {
		if e.here(f, ours, theirs) {
			return true
		}
	}
	return false
}

// facts are what a schedule has in it.
type facts struct {
	opened, reset                            map[uint32]bool
	hop, badLength, length, connect, selfish map[uint32]bool
	trailer, expects, bodiless, huge         map[uint32]bool
	cut                                      bool             // frames came together
	given                                    map[uint32]int64 // of windows
	window                                   int64            // the largest initial one
	frame                                    uint32           // the longest that the client takes
	beyond                                   bool             // more streams than may be open
	moved                                    bool             // initial windows
	malformed                                bool             // a head is
	late                                     bool             // headers of a stream that had all
	twice                                    bool             // a setting in one frame
	acknowledged                             int
	goAway                                   uint32 // one more than the last stream that was open then
	text                                     string
	last                                     uint32
}

func factsOf(s *schedule) *facts {
	f := &facts{
		opened: map[uint32]bool{}, reset: map[uint32]bool{}, hop: map[uint32]bool{}, badLength: map[uint32]bool{}, length: map[uint32]bool{},
		connect: map[uint32]bool{}, selfish: map[uint32]bool{}, trailer: map[uint32]bool{}, expects: map[uint32]bool{}, bodiless: map[uint32]bool{}, huge: map[uint32]bool{}, given: map[uint32]int64{}, window: initialWindow, frame: 16 << 10,
	}
	fr := http2.NewFramer(nil, bytes.NewReader(slices.Concat(s.writes...)))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	fr.MaxHeaderListSize = 1 << 20
	for {
		frame, err := fr.ReadFrame()
		if broken, ok := errors.AsType[http2.StreamError](err); ok {
			f.opened[broken.StreamID], f.last = true, max(f.last, broken.StreamID)
			f.malformed = true
			f.text += fmt.Sprintln(broken)
			continue
		}
		if err != nil {
			f.text += err.Error()
			return f
		}
		f.take(frame)
	}
}

func (f *facts) take(frame http2.Frame) {
	id := frame.Header().StreamID
	f.text += frame.Header().String()
	switch frame := frame.(type) {
	case *http2.MetaHeadersFrame:
		f.head(frame)
	case *http2.RSTStreamFrame:
		f.reset[id] = true
	case *http2.GoAwayFrame:
		f.goAway = f.last + 1
	case *http2.WindowUpdateFrame:
		f.given[id] += int64(frame.Increment)
		f.huge[id] = f.huge[id] || frame.Increment > 1<<30
	case *http2.PriorityFrame:
		f.selfish[id] = f.selfish[id] || frame.StreamDep == id
	case *http2.SettingsFrame:
		f.settings(frame)
	}
	f.text += "\n"
}

func (f *facts) head(frame *http2.MetaHeadersFrame) {
	id := frame.StreamID
	f.text += fmt.Sprintf(" %.300v", frame.Fields)
	f.late = f.late || f.opened[id] || id < f.last
	f.trailer[id] = f.opened[id]
	if f.opened[id] = true; id <= f.last {
		return
	}
	f.last = id
	f.beyond = f.beyond || len(f.opened) > mostStreams
	f.bodiless[id] = frame.PseudoValue("method") == http.MethodHead
	f.connect[id] = frame.PseudoValue("method") == "CONNECT"
	f.selfish[id] = frame.HasPriority() && frame.Priority.StreamDep == id
	var lengths []string
	tes := 0
	for _, field := range frame.RegularFields() {
		switch field.Name {
		case "connection", "transfer-encoding":
			f.hop[id] = true
		case "te":
			f.hop[id] = f.hop[id] || tes > 0 || field.Value != "trailers" && field.Value != ""
			tes++
		case "expect":
			f.expects[id] = true
		case "content-length":
			f.length[id] = true
			_, err := strconv.ParseUint(field.Value, 10, 63)
			f.badLength[id] = f.badLength[id] || err != nil || len(lengths) > 0 && lengths[0] != field.Value
			lengths = append(lengths, field.Value)
		}
	}
}

func (f *facts) settings(frame *http2.SettingsFrame) {
	if frame.IsAck() {
		f.acknowledged++
	}
	f.twice = f.twice || frame.HasDuplicates()
	_ = frame.ForeachSetting(func(s http2.Setting) error {
		f.text += fmt.Sprint(" ", s)
		switch s.ID {
		case http2.SettingInitialWindowSize:
			f.window, f.moved = max(f.window, int64(s.Val)), true
		case http2.SettingMaxFrameSize:
			f.frame = max(f.frame, s.Val)
		}
		return nil
	})
}
