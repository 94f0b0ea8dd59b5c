// Package h2frame appends frames of HTTP/2 (RFC 9113, section 6) to what is to be written. It knows no
// connection: lengths and windows are the caller's care.
package h2frame

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// HeadLen is the length of a frame's header (RFC 9113, section 4.1).
const HeadLen = 9

const wordSize = 4 // the length of a reset code or a window increment

func appendHead(b []byte, length int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(length)<<8|uint32(kind)) //nolint:gosec // below 2^24
	b = append(b, byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

// AppendHeaders appends a header block as one HEADERS frame and as many CONTINUATION frames as
// it takes.
func AppendHeaders(b []byte, stream uint32, block []byte, end bool, limit int) []byte {
	kind, flags := http2.FrameHeaders, http2.Flags(0)
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		part := block[:min(len(block), limit)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		b = append(appendHead(b, len(part), kind, flags, stream), part...)
		if len(block) == 0 {
			return b
		}
		kind, flags = http2.FrameContinuation, 0
	}
}

// AppendData appends a DATA frame.
func AppendData(b []byte, stream uint32, data []byte, end bool) []byte {
	var flags http2.Flags
	if end {
		flags = http2.FlagDataEndStream
	}
	return append(appendHead(b, len(data), http2.FrameData, flags, stream), data...)
}

// AppendReset appends RST_STREAM.
func AppendReset(b []byte, stream uint32, code http2.ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, wordSize, http2.FrameRSTStream, 0, stream), uint32(code))
}

// AppendWindowUpdate appends WINDOW_UPDATE; stream 0 is the connection.
func AppendWindowUpdate(b []byte, stream, increment uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHead(b, wordSize, http2.FrameWindowUpdate, 0, stream), increment)
}

// AppendPing appends PING, or the answer to one.
func AppendPing(b []byte, data [8]byte, ack bool) []byte {
	var flags http2.Flags
	if ack {
		flags = http2.FlagPingAck
	}
	return append(appendHead(b, len(data), http2.FramePing, flags, 0), data[:]...)
}

// AppendSettings appends SETTINGS.
func AppendSettings(b []byte, settings ...http2.Setting) []byte {
	const size = 6
	b = appendHead(b, size*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

// AppendSettingsAck appends the answer to SETTINGS.
func AppendSettingsAck(b []byte) []byte {
	return appendHead(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

// AppendGoAway appends GOAWAY, with the last stream of the peer that was or may be served.
func AppendGoAway(b []byte, last uint32, code http2.ErrCode) []byte {
	b = binary.BigEndian.AppendUint32(appendHead(b, 2*wordSize, http2.FrameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}
