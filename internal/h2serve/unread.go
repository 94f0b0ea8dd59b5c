package h2serve

import "github.com/masegraye/connect-plugin-go/internal/proxy/h2"

// unread is what has come of a request's body and nobody has read. It is kept in buffers that other
// streams use afterwards.
type unread struct {
	parts []*h2.Buffer
	taken int // of the first part
	n     int // bytes in all
}

// add takes p in.
func (u *unread) add(p []byte) {
	u.n += len(p)
	if k := len(u.parts); k > 0 {
		last := u.parts[k-1]
		room := min(cap(last.B)-len(last.B), len(p))
		last.B = append(last.B, p[:room]...)
		p = p[room:]
	}
	if len(p) > 0 {
		b := h2.GetBuffer(len(p))
		b.B = append(b.B, p...)
		u.parts = append(u.parts, b)
	}
}

// read moves what comes next to p, and returns how much.
func (u *unread) read(p []byte) int {
	done := 0
	for len(u.parts) > 0 && done < len(p) {
		first := u.parts[0]
		n := copy(p[done:], first.B[u.taken:])
		done += n
		if u.taken += n; u.taken == len(first.B) {
			first.Release()
			u.parts[0] = nil
			u.parts, u.taken = u.parts[1:], 0
		}
	}
	u.n -= done
	return done
}

// drop forgets all of it.
func (u *unread) drop() {
	for _, b := range u.parts {
		b.Release()
	}
	*u = unread{}
}
