package h2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/masegraye/connect-plugin-go/internal/proxy/h2"
)

// difference is one between our client and x/net's that is meant.
type difference struct {
	why  string
	here func(f facts, ours, theirs outcome) bool
}

// differences is the list of those that may be.
var differences = []difference{
	{
		why:  "a status that is not of three digits, or 101, which HTTP/2 forbids (RFC 9113, section 8.6), fails here",
		here: func(_ facts, ours, _ outcome) bool { return ends(ours, "malformed response: status") },
	},
	{
		why:  "a content-length that is no number, or two that differ, fails here (section 8.1.1); x/net ignores it",
		here: func(_ facts, ours, _ outcome) bool { return ends(ours, "malformed response: content-length") },
	},
	{
		why:  "more than eight interim responses fail here; x/net takes any number, up to a bound in bytes",
		here: func(_ facts, ours, _ outcome) bool { return ends(ours, "too many interim responses") },
	},
	{
		why:  "what all interim responses have in fields together is bounded by x/net only; here each of the eight is",
		here: func(f facts, _, theirs outcome) bool { return f.lists > 1 && ends(theirs, "header list too large") },
	},
	{
		why: "a new initial window that makes a stream's too large ends the connection here (section 6.9.2); x/net leaves that window as it was",
		here: func(f facts, ours, theirs outcome) bool {
			return f.windows > 0 && errors.Is(ours.err, http2.ConnectionError(http2.ErrCodeFlowControl)) && !refusedBy(theirs)
		},
	},
	{
		why:  "headers that cannot be read, such as with more padding than frame, end the connection here (section 6.2); x/net fails their stream and lets the compression state break",
		here: func(f facts, ours, _ outcome) bool { return f.unreadable && refusedBy(ours) },
	},
	{
		why: "a body with a status that has none fails here; x/net passes it on",
		here: func(_ facts, ours, _ outcome) bool {
			return ours.err != nil && strings.Contains(ours.err.Error(), "a body with status")
		},
	},
	{
		why: "what is wrong with a header list fails its stream here; x/net ends the connection where the list spans frames",
		here: func(f facts, ours, theirs outcome) bool {
			return f.split && refusedBy(theirs) && !refusedBy(ours)
		},
	},
	{
		why: "a trailer with a pseudo-header field, or one that is not the end, fails its stream here; x/net ends the connection",
		here: func(f facts, ours, theirs outcome) bool {
			return f.badTrailer && refusedBy(theirs) && !refusedBy(ours)
		},
	},
	{
		why: "an acknowledgement of settings that were acknowledged is nothing here; x/net ends the connection",
		here: func(f facts, ours, theirs outcome) bool {
			return f.acknowledgements > 1 && refusedBy(theirs) && !refusedBy(ours)
		},
	},
	{
		why: "a server that says that it cannot go on has a second to close the connection here (section 5.4.1); x/net waits for it",
		here: func(_ facts, ours, theirs outcome) bool {
			var away *h2.GoAwayError
			return ours.early && !theirs.early && errors.As(ours.err, &away) && away.Code != http2.ErrCodeNo
		},
	},
	{
		why:  "a frame of a stream that nobody opened ends the connection here (sections 5.1 and 5.1.1); x/net does so for data only",
		here: func(f facts, ours, _ outcome) bool { return f.strange && refusedBy(ours) },
	},
	{
		why: "who gives up a call that was answered, and whose request is not over, is let go at once here; x/net looks at its context between two reads of the request's body, and where a window moves",
		here: func(_ facts, ours, theirs outcome) bool {
			unfinished := ours.kind == kindEndless || ours.kind == kindUpload
			return unfinished && ours.early && errors.Is(ours.err, errGivenUp) && theirs.over && theirs.status == ours.status
		},
	},
}

func explained(f facts, ours, theirs outcome) bool {
	return slices.ContainsFunc(differences, func(d difference) bool { return d.here(f, ours, theirs) })
}

func ends(o outcome, text string) bool {
	return o.err != nil && strings.HasSuffix(o.err.Error(), text)
}

// refusedBy reports whether the client ended the connection for a protocol error. To whoever was
// sending x/net says only that it did.
func refusedBy(o outcome) bool {
	var code http2.ConnectionError
	return errors.As(o.err, &code) && errors.Is(o.err, code) || o.early && ends(o, "client conn is closed")
}

// facts are what a schedule has in it.
type facts struct {
	split            bool // a header list in several frames
	badTrailer       bool // a second header list that is no trailer
	acknowledgements int
	lists            int  // of header fields
	windows          int  // initial ones, in settings
	unreadable       bool // headers that are no valid frame
	strange          bool // a frame of a stream that nobody opened
	whole            bool // it ends with a frame
	text             string
}

func factsOf(s *schedule) facts {
	fr := http2.NewFramer(nil, bytes.NewReader(slices.Concat(s.writes...)))
	fr.AllowIllegalReads = true
	dec := hpack.NewDecoder(4096, nil)
	heads := map[uint32]bool{}
	f := facts{text: fmt.Sprintln("requests", s.requests, "settings", s.settings)}
	for {
		head, err := fr.ReadFrameHeader()
		if err != nil {
			f.text += err.Error()
			f.whole = errors.Is(err, io.EOF)
			return f
		}
		f.text += head.String()
		f.strange = f.strange || s.isStrange(head)
		frame, err := fr.ReadFrameForHeader(head)
		var harmless http2.StreamError
		if err != nil && !errors.As(err, &harmless) {
			f.text += " " + err.Error()
			return f
		}
		f.unreadable = f.unreadable || err != nil && head.Type == http2.FrameHeaders
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			fields, err := dec.DecodeFull(frame.HeaderBlockFragment())
			f.text += fmt.Sprintf(" %.200v %v", fields, err)
			f.lists++
			f.split = f.split || !frame.HeadersEnded()
			f.badTrailer = f.badTrailer || heads[frame.StreamID]
			heads[frame.StreamID] = true
		case *http2.GoAwayFrame:
			f.text += fmt.Sprintf(" last=%d %v", frame.LastStreamID, frame.ErrCode)
		case *http2.SettingsFrame:
			f.text += fmt.Sprintf(" %v", settingsOf(frame))
			if _, ok := frame.Value(http2.SettingInitialWindowSize); ok {
				f.windows++
			}
			if frame.IsAck() {
				f.acknowledgements++
			}
		case *http2.RSTStreamFrame:
			f.text += fmt.Sprint(" ", frame.ErrCode)
		case *http2.WindowUpdateFrame:
			f.text += fmt.Sprint(" ", frame.Increment)
		}
		f.text += "\n"
	}
}

// isStrange reports whether a frame is one of a stream that no request opened.
func (s *schedule) isStrange(h http2.FrameHeader) bool {
	switch h.Type {
	case http2.FrameData, http2.FrameHeaders, http2.FrameRSTStream, http2.FrameWindowUpdate:
		return h.StreamID != 0 && (h.StreamID%2 == 0 || h.StreamID >= uint32(2*len(s.requests)+1))
	default:
		return false
	}
}

func settingsOf(f *http2.SettingsFrame) []http2.Setting {
	var all []http2.Setting
	_ = f.ForeachSetting(func(s http2.Setting) error {
		all = append(all, s)
		return nil
	})
	return all
}
